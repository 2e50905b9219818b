r"""Parser of the command line."""

from __future__ import annotations

import argparse

from deepinv_lvtino.cli._arguments import (
    add_degrade,
    add_demo,
    add_download,
    add_estimate,
    add_info,
    add_restore,
    add_restore_many,
)
from deepinv_lvtino.cli._benchmark_arguments import add_benchmark
from deepinv_lvtino.cli._tune_arguments import add_tune

_COMMANDS = (
    add_restore,
    add_restore_many,
    add_degrade,
    add_demo,
    add_estimate,
    add_tune,
    add_download,
    add_info,
    add_benchmark,
)


def build_parser() -> argparse.ArgumentParser:
    r"""
    Parser of the command line.

    :return: (argparse.ArgumentParser) the parser.
    """
    parser = argparse.ArgumentParser(
        prog="deepinv-lvtino",
        description="Zero-shot video restoration with the LVTINO sampler.",
        epilog="Each command lists its options: deepinv-lvtino COMMAND --help",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in _COMMANDS:
        add(commands)
    return parser
