r"""Mistakes of the user, as opposed to those of the program."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Arguments or files that cannot be used; shown as one line."""


@contextmanager
def user_errors() -> Iterator[None]:
    """Around checks of what the user gave; elsewhere an error keeps its traceback."""
    try:
        yield
    except BrokenPipeError:  # of what reads our lines, not of a file
        raise
    except (ValueError, OSError) as error:
        raise UserError(_words(str(error))) from error


def _words(message: str) -> str:
    """One line, as for people who typed a command."""
    message = re.sub(r"^\[Errno -?\d+\] ", "", message)
    return " ".join(message.removeprefix("`path`: ").split())
