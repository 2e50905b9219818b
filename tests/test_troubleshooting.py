r"""What the page of messages quotes is what the package says."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import deepinv_lvtino
from pages import SOURCE

PAGE = SOURCE / "user_guide" / "troubleshooting.rst"

pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="needs the source tree")

#: Messages of others.
FOREIGN = ("operator torchvision::nms does not exist",)


@cache
def texts() -> tuple[str, ...]:
    r"""All texts of the package; what an f-string puts in is a ``…``."""
    found = []
    for path in Path(deepinv_lvtino.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [getattr(part, "value", None) for part in node.values]
                found.append(
                    "".join(part if isinstance(part, str) else "…" for part in parts)
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return tuple(found)


def quoted() -> list[str]:
    r"""The messages: what is code in the first column of a table."""
    text = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else ""
    messages = re.findall(r"^ {3}\* - ``(.+)``$", text, flags=re.M)
    return [message for message in messages if message not in FOREIGN]


def said(message: str) -> bool:
    r"""Whether the pieces between the gaps stand in one text, in this order."""
    for text in texts():
        place = 0
        for piece in message.split("…"):
            place = text.find(piece.strip(), place)
            if place < 0:
                break
            place += len(piece.strip())
        else:
            return True
    return False


@pytest.mark.parametrize("message", quoted())
def test_the_package_says_it(message: str) -> None:
    assert said(message)


def test_what_nobody_says_is_noticed() -> None:
    assert len(quoted()) > 25
    assert not said("there is no … of that name, ask somebody else …")
