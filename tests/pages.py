r"""Code on the pages: README.md and the user guide, taken out to be run."""

from __future__ import annotations

import re
import shlex
import textwrap
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "docs" / "source"


class Block(NamedTuple):
    r"""A piece of code, and the line it begins at."""

    language: str
    line: int
    code: str


def pages() -> dict[str, Path]:
    r"""Pages written by hand, by their name."""
    if not SOURCE.is_dir():
        return {}
    found = [ROOT / "README.md", SOURCE / "index.rst"]
    found += sorted((SOURCE / "user_guide").glob("*.rst"))
    return {path.relative_to(ROOT).as_posix(): path for path in found}


def blocks(path: Path) -> list[Block]:
    r"""All pieces of code of a page."""
    text = path.read_text(encoding="utf-8")
    return _markdown(text) if path.suffix == ".md" else _restructured(text)


def _markdown(text: str) -> list[Block]:
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, flags=re.M | re.S)
    return [
        Block(match[1], text.count("\n", 0, match.start(2)) + 1, match[2])
        for match in found
    ]


def _restructured(text: str) -> list[Block]:
    found = []
    lines = text.splitlines()
    for number, line in enumerate(lines):
        match = re.fullmatch(r"( *)\.\. code-block:: *(\w*)", line)
        if match is None:
            continue
        body = []
        start = number + 1
        for inner in lines[start:]:
            if inner.strip() and not inner.startswith(match[1] + "   "):
                break
            body.append(inner)
        while body and (not body[0].strip() or body[0].lstrip().startswith(":")):
            body.pop(0)
            start += 1
        code = textwrap.dedent("\n".join(body)).rstrip() + "\n"
        found.append(Block(match[2], start + 1, code))
    return found


def commands(block: Block) -> list[list[str]]:
    r"""The command lines of a block, in words."""
    joined = block.code.replace("\\\n", " ")
    lines = [shlex.split(line, comments=True) for line in joined.splitlines()]
    result = []
    for words in lines:
        while "&&" in words:
            at = words.index("&&")
            result.append(words[:at])
            words = words[at + 1 :]
        result.append(words)
    return [words for words in result if words]
