r"""Arguments of ``benchmark``."""

from __future__ import annotations

import argparse

from deepinv_lvtino.cli._options import (
    GRIDS,
    _command,
    _common,
    _damaged,
    _models,
    _positive,
    _size,
    _spread,
)

# also in deepinv_lvtino.benchmark, which takes seconds to import
_SOLVERS = (
    "pinv, admm-tv, motion-tv, pnp-admm, diffpir, dps, lvtino, lvtino-mean, lvtino-v, "
    "latino"
)
_SCORES = "psnr, ssim, haarpsi, lpips, warping_error, temporal_difference_error, fvmd"


def add_benchmark(commands: argparse._SubParsersAction) -> None:
    r"""
    Add the command ``benchmark``.

    :param argparse._SubParsersAction commands: the commands.
    """
    parser = _command(
        commands,
        "benchmark",
        help="compare solvers on problems and clips",
        description="""\
Degrade clean clips by some problems, restore them by some solvers, and write one table:
benchmark.csv, benchmark.md, benchmark.json and benchmark.png, a figure. What is finished
is kept in the folder, so that the same command goes on after an interruption, and a
command with more solvers, problems or clips computes what is new.""",
    )
    parser.add_argument(
        "-o", "--output", required=True, metavar="DIR", help="folder to write into"
    )
    parser.add_argument(
        "--solvers",
        nargs="+",
        metavar="NAME",
        help=f"among {_SOLVERS}; default: pinv admm-tv pnp-admm lvtino lvtino-mean",
    )
    parser.add_argument(
        "--problems",
        nargs="+",
        metavar="NAME",
        help="names, or descriptions such as 'every=2, downscale=2' (one argument each); "
        "default: A B C",
    )
    parser.add_argument(
        "--clips",
        nargs="+",
        default=["procedural"],
        metavar="CLIP",
        help="procedural (default), dead-leaves, a video file, a folder of frames, a "
        "folder of such, adobe240:FOLDER, or gopro240:FOLDER (GOPRO_Large_all, its test "
        "videos)",
    )
    parser.add_argument(
        "--count",
        type=_positive,
        metavar="N",
        help="clips of each of --clips: the first N videos of a folder (default: all), N "
        "computed ones (default: 1)",
    )
    _size(parser, "size of the clips, resized; default: 320x192", default=(320, 192))
    parser.add_argument(
        "--frames",
        type=_positive,
        default=25,
        metavar="N",
        help="first frames of each clip; default: 25",
    )
    parser.add_argument(
        "--scores",
        nargs="+",
        metavar="NAME",
        help=f"among {_SCORES}; default: what can be computed here, without fvmd",
    )
    parser.add_argument(
        "--published",
        action="store_true",
        help="add the published results to the table, as quoted from the paper",
    )
    parser.add_argument(
        "--save-videos",
        action="store_true",
        help="also write the restored videos, as folders of frames",
    )
    parser.add_argument("--grid", choices=GRIDS, help="pixel grid; default: deepinv")
    parser.add_argument(
        "--sigma",
        type=float,
        metavar="S",
        help="standard deviation of the noise, for values in [0, 1]; default: 0.001, for "
        "jpeg 0.005",
    )
    parser.add_argument(
        "--eta",
        type=float,
        metavar="E",
        help="weight of the video prior; default: that of each problem",
    )
    parser.add_argument(
        "--samples",
        type=_positive,
        default=8,
        metavar="N",
        help="samples of lvtino-mean; default: 8",
    )
    _spread(parser)
    _damaged(parser)
    _models(parser)
    _common(parser)
