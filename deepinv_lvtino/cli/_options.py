r"""Options that commands share."""

from __future__ import annotations

import argparse
import re
from fractions import Fraction
from typing import Any

from deepinv_lvtino._vocabulary import VOCABULARY

# What no video and no run comes near, so that it must be a slip of the keyboard
_LARGEST_COUNT, _LARGEST_SIDE, _LARGEST_RATE = 1_000_000, 32_768, 1_000_000

#: Values of ``--grid``: :data:`deepinv_lvtino.physics.functional.ALIGNMENTS`, which takes
#: seconds to import.
GRIDS = ("deepinv", "deepinv-0.3", "center")

#: Values of ``--time-border``: :data:`deepinv_lvtino.physics.functional.TIME_BORDERS`.
TIME_BORDERS = ("circular", "replicate", "reflect")

_PROBLEMS = """\
problems (--problem):
  A  mean of 4 frames, then 4 times smaller (also frames4-sr4)
  B  blur over 7 frames, then 8 times smaller (also blur7-sr8)
  C  mean of 8 frames, then 8 times smaller (also frames8-sr8)
  jpeg     noise, then JPEG of quality 10, frame by frame
  deblur   Gaussian blur of standard deviation 3 pixels
  sr4      4 times smaller
  inpaint  half of the pixels missing (black), the same in all frames; see --mask-seed
  deblur-temporal, sr4-temporal, inpaint-temporal
           the same after a blur over 7 frames
"""
_GRIDS = """\
pixel grids (--grid): where the pixels of a small video lie on the large one
  deepinv  as DeepInverse and the published problems; default of a simulation
  deepinv-0.3
           as DeepInverse until version 0.3.5, one pixel off: for measurements made with it
  center   as ordinary resizers (FFmpeg, PIL, cameras); default of a real file
"""


def _command(
    commands: argparse._SubParsersAction, name: str, **texts: Any
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"{_PROBLEMS}\ndescriptions (--operator): steps in order, between commas\n"
        f"{VOCABULARY}\n{_GRIDS}",
        **texts,
    )


def _models(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "models",
        "With the published models, problems A, B, C and jpeg are solved with the "
        "published schedule, unless --steps, or --eta other than 0 and 1, asks for a "
        "calibrated one. --eta 1 is the video model alone, --eta 0 the image model alone.",
    )
    group.add_argument(
        "--model",
        choices=("embedded", "wan"),
        default="embedded",
        help="embedded (default), or wan: Wan 2.1 and SDXL, as published; see `download`",
    )
    group.add_argument(
        "--weights",
        metavar="FOLDER",
        help="folder of `download --to`; default: the Hub's cache",
    )
    group.add_argument("--prompt", metavar="TEXT", help="prompt for both models")
    group.add_argument(
        "--offload",
        choices=("auto", "always", "never"),
        default="auto",
        help="when networks leave the GPU; default: when another one needs the room",
    )
    group.add_argument(
        "--frame-batch",
        type=_positive,
        metavar="N",
        help="frames that the image model works on at once; default: 8",
    )
    group.add_argument(
        "--tile",
        type=_positive,
        metavar="PIXELS",
        help="largest side of the tiles that large frames are cut into for the "
        "autoencoders",
    )
    group.add_argument(
        "--decoder",
        metavar="FILE",
        help="tiny decoder of Wan's latents, faster and less precise than the "
        "autoencoder: TAEHV's taew2_1, a file or OWNER/NAME/FILE on the Hub",
    )
    group.add_argument(
        "--dtype",
        choices=("bfloat16", "float16", "float32"),
        help="precision of the networks; default: on a GPU bfloat16 (SDXL: float16), else "
        "float32",
    )
    _revisions(group)
    _offline(group)


def _revisions(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--revision",
        action="append",
        type=_revision,
        metavar="REPOSITORY=COMMIT",
        help="commit, tag or branch of a repository; can be repeated",
    )


def _offline(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--offline", action="store_true", help="use only what is there already"
    )


def _input(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "input", metavar="INPUT", help=f"{what}: a video file or a folder of frames"
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="OUTPUT",
        help="file ending in .mp4, .mkv, .mov or .avi, or a name without suffix for a "
        "folder of PNG frames",
    )
    _reading(parser)


def _reading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--fps",
        type=_rate,
        metavar="RATE",
        help="frame rate in Hz of an INPUT folder, such as 25 or 30000/1001; default: 24",
    )
    _damaged(parser)
    _conversions(parser)


def _damaged(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--damaged",
        choices=("refuse", "accept"),
        default="refuse",
        help="what to do with files and folders that are damaged or incomplete: refuse "
        "them (default), or take what is left, which the report says",
    )


def _conversions(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--deinterlace",
        action="store_true",
        help="make progressive frames of interlaced ones (FFmpeg's bwdif); refused by "
        "default",
    )
    parser.add_argument(
        "--rate",
        choices=("constant",),
        help="constant: resample frames at uneven times at the nearest common rate, and "
        "say which are repeated or left out; refused by default",
    )
    parser.add_argument(
        "--tonemap",
        action="store_true",
        help="bring HDR (PQ, HLG) to the range of an ordinary display; refused by default",
    )


def _problem(
    parser: argparse.ArgumentParser,
    text: str,
    default: str | None = None,
    required: bool = False,
) -> None:
    group = parser.add_mutually_exclusive_group(required=required)
    group.add_argument("--problem", metavar="NAME", help=text, default=default)
    group.add_argument(
        "--operator",
        metavar="TEXT",
        dest="problem",
        default=default,
        help="instead of a name: what happened to the video, in order, such as "
        "'temporal-mean=4, blur=1.5, downscale=2, noise=0.02'; see below",
    )


def _size(
    parser: argparse.ArgumentParser, text: str, default: tuple[int, int] | None = None
) -> None:
    parser.add_argument(
        "--size", type=_width_height, metavar="WxH", help=text, default=default
    )


def _operator(
    parser: argparse.ArgumentParser, grid: str, border: str, sigma: str
) -> None:
    parser.add_argument("--grid", choices=GRIDS, help=grid)
    parser.add_argument("--time-border", choices=TIME_BORDERS, help=border)
    parser.add_argument("--sigma", type=_sigma, metavar="S", help=sigma)
    parser.add_argument(
        "--mask-seed",
        type=_seed,
        metavar="N",
        help="which pixels are missing in the inpainting problems; default: 0, or what "
        "the report of `degrade` says",
    )


def _solver(parser: argparse.ArgumentParser, samples: int) -> None:
    parser.add_argument(
        "--steps",
        type=_positive,
        metavar="N",
        help="sweeps; default: the setting made for the problem",
    )
    parser.add_argument(
        "--eta",
        type=float,
        metavar="E",
        help="weight of the video prior, from 0 (frames alone) to 1 (video prior alone); "
        "default: the setting made for the problem",
    )
    parser.add_argument(
        "--samples",
        type=_positive,
        default=samples,
        metavar="N",
        help="posterior samples, for their mean and standard deviation; default: "
        "%(default)s",
    )


def _spread(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers",
        type=_positive,
        metavar="N",
        help="processes, each with one clip at a time; default: this one, without Ray",
    )
    parser.add_argument(
        "--address",
        metavar="ADDRESS",
        help="a running Ray cluster, such as auto or HEAD:6379; default with "
        "--workers: one of this machine alone, for this command",
    )
    parser.add_argument(
        "--threads",
        type=_positive,
        metavar="N",
        help="threads of a process; default: the cores of this machine, divided by "
        "--workers. Results are the same bit for bit with the same number",
    )


def _windows(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--window",
        type=_positive,
        metavar="N",
        help="restore a long video by windows of N frames, one after another, in the "
        "memory of one window; default: the whole video at once, or if the memory is too "
        "small for that, windows that fit. What is done is kept in <stem>-windows until "
        "the output is complete: the same command goes on there",
    )
    parser.add_argument(
        "--overlap",
        type=_positive,
        metavar="N",
        help="frames that a window shares with the one before; default: 4, with --window",
    )
    parser.add_argument(
        "--stream",
        action="store_true",
        help="restore a measurement by windows and show the frames as they are decided, "
        "in <stem>-windows/stream.mkv, which a player can follow until the output takes "
        "its place; default --window: 17",
    )
    parser.add_argument(
        "--tiles",
        type=_width_height,
        metavar="WxH",
        help="restore frames that are too large for the memory in tiles of at most WxH "
        "pixels, which overlap by 64; default --window: 17",
    )


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seed",
        type=_seed,
        default=0,
        metavar="N",
        help="seed of all randomness, on one device; default: 0",
    )
    parser.add_argument(
        "--device",
        metavar="NAME",
        help="cpu, cuda, cuda:1, ...; default: cuda if present",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace outputs that exist"
    )


def _sigma(text: str) -> float | str:
    if text == "auto":
        return text
    try:
        return float(text)
    except ValueError as error:
        msg = f"expected a number or auto, got {text!r}"
        raise argparse.ArgumentTypeError(msg) from error


def _positive(text: str) -> int:
    return _integer(text, 1, _LARGEST_COUNT)


def _seed(text: str) -> int:
    return _integer(text, 0, 10**18 - 1)


def _integer(text: str, least: int, most: int) -> int:
    # ASCII, and short: Python's own conversion takes neither as a matter of course
    if not re.fullmatch(r"[0-9]{1,20}", text) or not least <= int(text) <= most:
        msg = f"expected an integer from {least} to {most}, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def _width_height(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,5})[xX]([0-9]{1,5})", text)
    sides = [int(n) for n in match.groups()] if match else []
    if not sides or not all(1 <= n <= _LARGEST_SIDE for n in sides):
        msg = (
            "expected WIDTHxHEIGHT in pixels, such as 320x192, each from 1 to "
            f"{_LARGEST_SIDE}, got {text!r}"
        )
        raise argparse.ArgumentTypeError(msg)
    return sides[0], sides[1]


def _published_model(text: str) -> str:
    if text not in ("wan", "sdxl"):
        msg = f"expected wan or sdxl, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return text


def _revision(text: str) -> tuple[str, str]:
    match = re.fullmatch(r"([^=/]+/[^=/]+)=([^=\s]+)", text)
    if match is None:
        msg = f"expected REPOSITORY=COMMIT, such as owner/name=main, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return match[1], match[2]


def _rate(text: str) -> Fraction:
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(?:/([0-9]{1,9}))?", text)
    divisor = int(match[2] or 1) if match else 0
    rate = Fraction(match[1]) / divisor if match and divisor else Fraction(0)
    if not 0 < rate <= _LARGEST_RATE:
        msg = (
            "expected a frame rate in Hz, such as 25 or 30000/1001, up to "
            f"{_LARGEST_RATE}, got {text!r}"
        )
        raise argparse.ArgumentTypeError(msg)
    return rate
