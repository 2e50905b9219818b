r"""
Command line ``deepinv-lvtino``.

Torch and DeepInverse are imported by the commands, not here, so that help and mistakes in
the arguments are answered at once.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from deepinv_lvtino._allocator import keep_freed_memory
from deepinv_lvtino._signals import Interrupted, stops_as_exceptions
from deepinv_lvtino.cli._errors import UserError
from deepinv_lvtino.cli._parser import build_parser

__all__ = ["main"]

# 128 and the number of the signal, as shells say it
_BROKEN_PIPE = 128 + 13


def main(argv: Sequence[str] | None = None) -> int:
    r"""
    Run a command.

    :param Sequence[str] argv: the arguments; those of the process by default.
    :return: (int) exit code: 0, 2 if the arguments or the files are not usable, 128 plus
        the number of the signal if interrupted (Ctrl-C 130, SIGTERM 143, SIGHUP 129), 141
        if what reads the output has gone.
    """
    if argv is None:  # the process is ours
        keep_freed_memory()
    arguments = build_parser().parse_args(argv)
    try:
        with stops_as_exceptions(), _any_name_printable():
            return _run(arguments)
    except BrokenPipeError:
        _close_output()
        return _BROKEN_PIPE


def _run(arguments: argparse.Namespace) -> int:
    try:
        from deepinv_lvtino.cli import _commands

        getattr(_commands, arguments.command.replace("-", "_"))(arguments)
        _flush()
    except UserError as error:
        print(f"deepinv-lvtino: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        stop = Interrupted.of(stop, getattr(stop, "state", "") or "nothing written")
        print(f"deepinv-lvtino: interrupted, {stop.state}", file=sys.stderr)
        return 128 + stop.signum
    return 0


@contextmanager
def _any_name_printable() -> Iterator[None]:
    """Names of files that the terminal cannot show are shown escaped."""
    streams = [s for s in (sys.stdout, sys.stderr) if isinstance(s, io.TextIOWrapper)]
    modes = [stream.errors for stream in streams]
    for stream in streams:
        stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        for stream, mode in zip(streams, modes, strict=True):
            stream.reconfigure(errors=mode)


def _flush() -> None:
    """What was said may not have arrived yet: a full disk is told from success."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _close_output()
        msg = f"the files are written, but not the lines about them ({error.strerror})."
        raise UserError(msg) from error


def _close_output() -> None:
    """Nobody reads what is still buffered: send it nowhere, rather than fail at exit."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError):  # no stream of the system
        pass
