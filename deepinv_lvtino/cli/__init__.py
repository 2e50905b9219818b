r"""
Command line ``deepinv-lvtino``.

Torch and DeepInverse are imported by the commands, not here, so that help and mistakes in
the arguments are answered at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from deepinv_lvtino.cli._arguments import build_parser
from deepinv_lvtino.cli._errors import UserError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    r"""
    Run a command.

    :param Sequence[str] argv: the arguments; those of the process by default.
    :return: (int) exit code: 0, 2 if the arguments or the files are not usable, 130 if
        interrupted.
    """
    arguments = build_parser().parse_args(argv)
    from deepinv_lvtino.cli import _commands

    try:
        getattr(_commands, arguments.command)(arguments)
    except UserError as error:
        print(f"deepinv-lvtino: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("deepinv-lvtino: interrupted, nothing written", file=sys.stderr)
        return 130
    return 0
