r"""Arguments of ``tune``."""

from __future__ import annotations

import argparse

from deepinv_lvtino.cli._options import (
    _command,
    _common,
    _operator,
    _positive,
    _problem,
    _size,
)


def add_tune(commands: argparse._SubParsersAction) -> None:
    r"""
    Add the command ``tune``.

    :param argparse._SubParsersAction commands: the commands.
    """
    parser = _command(
        commands,
        "tune",
        help="search for settings of an operator",
        description="""\
Search, by Optuna, for settings of the embedded models on an operator of your own: steps,
weight of the video prior, variation and its weight. Clean clips are degraded and restored;
what counts is the PSNR of the mean of eight samples. The first trial has the settings that
the package has. OUTPUT is for `restore --settings`; trials are kept, and the same command
goes on after an interruption, or with more --trials. One process at a time.""",
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="OUTPUT",
        help="file of settings to write, ending in .json",
    )
    _problem(parser, "name of the problem", required=True)
    parser.add_argument(
        "--clips",
        nargs="+",
        default=[],
        metavar="CLIP",
        help="clean videos, folders of frames, or folders of these; default: computed "
        "clips",
    )
    parser.add_argument(
        "--frames",
        type=_positive,
        default=13,
        metavar="N",
        help="frames of each clip; default: 13",
    )
    _size(parser, "size that clips are brought to; default: 160x96", default=(160, 96))
    parser.add_argument(
        "--trials",
        type=_positive,
        default=30,
        metavar="N",
        help="trials, those of earlier runs included; default: 30",
    )
    parser.add_argument(
        "--storage",
        metavar="PLACE",
        help="where trials are kept: a file, or a URL for Optuna such as "
        "sqlite:///tuning.db; default: <stem>-study.log beside OUTPUT",
    )
    _operator(
        parser,
        grid="pixel grid; default: center",
        border="what a blur over time sees beyond the first and the last frame; default: "
        "replicate",
        sigma="standard deviation of the noise; default: what --operator says, else 0.001",
    )
    _common(parser)
