r"""
JSON that others may have written: read with bounds, every field checked.

A check is a function of a name and a value that raises :class:`SchemaError`, whose message
names the field, what was expected and what came. The functions below make checks; they
nest: ``record({"size": record({"frames": integer(1, 10**6)})})``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

Check = Callable[[str, Any], None]

#: Longest file of JSON that is read, in bytes.
MOST_BYTES = 16 * 2**20

_RATE = re.compile(r"[0-9]{1,9}([/.][0-9]{1,9})?")


class SchemaError(ValueError):
    r"""A document is not what it has to be; the message says where."""


def read_json(path: Path, check: Check | None = None) -> Any:
    r"""
    Read a file of JSON.

    :param pathlib.Path path: the file.
    :param Callable check: check of what it holds.
    :return: what it holds.
    :raises OSError: if it cannot be read.
    :raises SchemaError: if it is too long, no JSON, holds numbers that are not finite or
        is nested too deeply, or the check fails; the message names the file.
    """
    size = path.stat().st_size
    if size > MOST_BYTES:
        msg = f"{path} has {size} bytes; such a file has {MOST_BYTES} at most."
        raise SchemaError(msg)
    try:
        found = parse(path.read_bytes())
        if check is not None:
            check("", found)
    except SchemaError as error:
        msg = f"{path}: {error}"
        raise SchemaError(msg) from error
    return found


def parse(text: str | bytes) -> Any:
    r"""
    Parse JSON; numbers that are not finite are none.

    :param str, bytes text: the text.
    :return: what it says.
    :raises SchemaError: if it is no JSON, or nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=_constant, parse_float=_float)
    except RecursionError:
        msg = "it is nested too deeply to be read."
    except SchemaError:
        raise
    except ValueError as error:  # also of text in another encoding
        msg = f"it is not JSON in UTF-8 ({error})."
    raise SchemaError(msg)


def _constant(name: str) -> Any:
    msg = f"it holds the number {name}; numbers must be finite."
    raise SchemaError(msg)


def _float(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _constant(_shown(text))


def wrong(name: str, expected: str, value: Any) -> SchemaError:
    r"""
    The error of a field.

    :param str name: the field.
    :param str expected: what it must be.
    :param value: what came.
    :return: (:class:`SchemaError`) the error.
    """
    field = f"`{name}`" if name else "it"
    return SchemaError(f"{field} must be {expected}; got {_shown(value)}.")


def _shown(value: Any) -> str:
    if isinstance(value, (list, dict)):  # whose text may be long, or deep
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, int) and abs(value) > 10**30:
        return "a number of many digits"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def integer(least: int, most: int) -> Check:
    r"""
    Check of an integer in a range.

    :param int least: smallest value.
    :param int most: largest value.
    :return: (Callable) the check.
    """

    def check(name: str, value: Any) -> None:
        good = isinstance(value, int) and not isinstance(value, bool)
        if not (good and least <= value <= most):
            raise wrong(name, f"an integer from {least} to {most}", value)

    return check


def number(least: float, most: float, *, above: bool = False) -> Check:
    r"""
    Check of a number in a range.

    :param float least: smallest value.
    :param float most: largest value.
    :param bool above: whether the smallest value itself is too small.
    :return: (Callable) the check.
    """

    def check(name: str, value: Any) -> None:
        good = isinstance(value, (int, float)) and not isinstance(value, bool)
        good = good and least <= value <= most and not (above and value == least)
        if not good:
            low = f"above {least:g}, and {most:g} at most"
            expected = low if above else f"from {least:g} to {most:g}"
            raise wrong(name, f"a number {expected}", value)

    return check


def text(longest: int = 10_000) -> Check:
    r"""
    Check of text.

    :param int longest: largest number of characters.
    :return: (Callable) the check.
    """

    def check(name: str, value: Any) -> None:
        if not isinstance(value, str) or len(value) > longest:
            raise wrong(name, f"text of {longest} characters at most", value)

    return check


def boolean(name: str, value: Any) -> None:
    r"""
    Check of a truth value.

    :param str name: the field.
    :param value: what it holds.
    :raises SchemaError: if it is none.
    """
    if not isinstance(value, bool):
        raise wrong(name, "true or false", value)


def choice(*allowed: str) -> Check:
    r"""
    Check of one name among several.

    :param str allowed: the names.
    :return: (Callable) the check.
    """

    def check(name: str, value: Any) -> None:
        if not isinstance(value, str) or value not in allowed:
            raise wrong(name, f"one of {', '.join(map(repr, allowed))}", value)

    return check


def rate(name: str, value: Any) -> None:
    r"""
    Check of a frame rate, as text such as ``30000/1001``.

    :param str name: the field.
    :param value: what it holds.
    :raises SchemaError: if it is none, or not from 1/1000 to 1 000 000 in a second.
    """
    good = isinstance(value, str) and _RATE.fullmatch(value) is not None
    if good:
        _, _, below = value.partition("/")
        good = not below or int(below) > 0
    if not (good and Fraction(1, 1000) <= Fraction(value) <= 10**6):
        raise wrong(name, "a frame rate such as '25' or '30000/1001'", value)


def optional(check: Check) -> Check:
    r"""
    Check of a field that may be ``null``.

    :param Callable check: check of the others.
    :return: (Callable) the check.
    """

    def either(name: str, value: Any) -> None:
        if value is not None:
            check(name, value)

    return either


def listing(item: Check, longest: int, shortest: int = 0) -> Check:
    r"""
    Check of a list.

    :param Callable item: check of every entry.
    :param int longest: largest number of entries.
    :param int shortest: smallest number of entries.
    :return: (Callable) the check.
    """

    def check(name: str, value: Any) -> None:
        if not isinstance(value, list) or not shortest <= len(value) <= longest:
            raise wrong(name, f"a list of {shortest} to {longest} entries", value)
        for index, entry in enumerate(value):
            item(f"{name}[{index}]", entry)

    return check


def table(item: Check, longest: int = 1000) -> Check:
    r"""
    Check of an object whose names are free and whose values are alike.

    :param Callable item: check of every value.
    :param int longest: largest number of them.
    :return: (Callable) the check.
    """

    def check(name: str, value: Any) -> None:
        if not isinstance(value, dict) or len(value) > longest:
            raise wrong(name, f"an object of {longest} entries at most", value)
        for key, entry in value.items():
            item(_below(name, key), entry)

    return check


def record(fields: Mapping[str, Check], missing: Collection[str] = ()) -> Check:
    r"""
    Check of an object with named fields; what else it holds is not looked at.

    :param dict fields: check of every field.
    :param Collection[str] missing: fields that may be missing.
    :return: (Callable) the check.
    """

    def check(name: str, value: Any) -> None:
        if not isinstance(value, dict):
            raise wrong(name, "an object", value)
        for key, item in fields.items():
            if key in value:
                item(_below(name, key), value[key])
            elif key not in missing:
                msg = f"`{_below(name, key)}` is missing."
                raise SchemaError(msg)

    return check


def _below(name: str, key: str) -> str:
    key = key if len(key) <= 60 else f"{key[:57]}..."
    return f"{name}.{key}" if name else key
