r"""Arguments of the commands."""

from __future__ import annotations

import argparse

from deepinv_lvtino.cli._options import (
    _command,
    _common,
    _conversions,
    _damaged,
    _input,
    _models,
    _offline,
    _operator,
    _positive,
    _problem,
    _published_model,
    _rate,
    _reading,
    _revisions,
    _size,
    _solver,
    _spread,
    _windows,
)


def add_restore(commands: argparse._SubParsersAction) -> None:
    parser = _command(
        commands,
        "restore",
        help="restore a video from a measurement",
        description="""\
Restore a video from a measurement: the file with few frames, few pixels or blur that you
have. The size of the video follows from the problem. With --simulate, INPUT is a clean
clip that is first degraded, and the result is compared with it.

OUTPUT is one sample of the posterior. Beside it are written <stem>.json, the report,
<stem>-comparison.png and, with --samples, <stem>-mean (a video or folder as OUTPUT, the
mean of the samples: the better PSNR) and <stem>-std.png (their standard deviation: where
the result is a guess). A report of `degrade` beside INPUT gives the default options.""",
    )
    _input(parser, "measurement (with --simulate: clean clip)")
    restore_options(parser)


def add_restore_many(commands: argparse._SubParsersAction) -> None:
    parser = _command(
        commands,
        "restore-many",
        help="restore many videos, on several processes or machines",
        description="""\
Restore many videos with the same options, each as `restore` does: DIR/<name>.mp4 and the
files beside it. DIR/clips.jsonl says of each what became of it. A clip that fails does not
stop the others. What is finished, with the same input, options and versions, is not done
again: the same command goes on after an interruption.

With --workers or --address clips are spread by Ray over processes, which keep the models
loaded; a lost one is replaced, and its clip done again. With --device cuda each has a GPU.
Machines must see the files by the same paths. Ray is an extra:
pip install "deepinv-lvtino[cluster]".""",
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="measurements: video files, folders of frames, and folders of such",
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="DIR",
        help="folder to write into; it may exist",
    )
    parser.add_argument(
        "--suffix",
        choices=(".mp4", ".mkv", ".mov", ".avi"),
        default=".mp4",
        help="of the videos in DIR; default: %(default)s",
    )
    _spread(parser)
    _reading(parser)
    restore_options(parser)


def restore_options(parser: argparse.ArgumentParser) -> None:
    r"""
    Options of a restoration, but for its input and output.

    :param argparse.ArgumentParser parser: parser of the command.
    """
    parser.add_argument(
        "--simulate", action="store_true", help="degrade INPUT first, score the result"
    )
    _problem(parser, "name of the problem; A with --simulate, else required")
    _size(parser, "resize INPUT first, Pillow's bicubic (only with --simulate)")
    parser.add_argument(
        "--frames",
        type=_positive,
        metavar="N",
        help="with --simulate: use the first N frames; else: frames of the video, where "
        "the measurement leaves a choice (problems A and C: the last group may not be "
        "full)",
    )
    _operator(
        parser,
        grid="pixel grid; deepinv with --simulate, else center",
        border="what a blur over time sees beyond the first and the last frame; circular "
        "(the first frames meet the last) with --simulate, else replicate",
        sigma="standard deviation of the noise, for values in [0, 1]; default: what "
        "--operator says, else 0.001 with --simulate (jpeg: 0.005), else 0.01, which suits "
        "an 8-bit compressed file. auto: estimated from INPUT",
    )
    _solver(parser, samples=1)
    parser.add_argument(
        "--settings",
        metavar="FILE",
        help="settings of `tune`, in place of those that the package has (without --steps "
        "and --eta)",
    )
    parser.add_argument(
        "--bits",
        type=int,
        choices=(8, 10),
        default=8,
        help="bits of a value in OUTPUT: 8 (default), or 10: H.265 in .mp4 and .mkv, "
        "ProRes in .mov, PNG of 16 bit in a folder",
    )
    _windows(parser)
    _models(parser)
    _common(parser)


def add_degrade(commands: argparse._SubParsersAction) -> None:
    parser = _command(
        commands,
        "degrade",
        help="write the measurement of a clean video",
        description="""\
Write the measurement of a clean video, without loss beyond rounding to 8 bit, and beside
it <stem>.json, which `restore` reads.""",
    )
    _input(parser, "clean clip")
    _problem(parser, "name of the problem", required=True)
    _size(parser, "resize INPUT first, Pillow's bicubic")
    parser.add_argument(
        "--frames", type=_positive, metavar="N", help="use the first N frames"
    )
    _operator(
        parser,
        grid="pixel grid; default: deepinv",
        border="what a blur over time sees beyond the first and the last frame; default: "
        "circular, the first frames meet the last",
        sigma="standard deviation of the noise, for values in [0, 1]; default: 0.001, "
        "for jpeg 0.005",
    )
    _common(parser)


def add_demo(commands: argparse._SubParsersAction) -> None:
    parser = _command(
        commands,
        "demo",
        help="degrade, restore and score a built-in clip",
        description="""\
Degrade, restore and score a built-in clip: a real one, or a computed one. Writes
original.mp4, measurement.mp4, restored.mp4 (one sample), restored-mean.mp4,
restored-std.png, restored-comparison.png and restored.json.""",
    )
    parser.add_argument(
        "-o",
        "--output",
        default="deepinv-lvtino-demo",
        metavar="DIR",
        help="folder to write into; default: %(default)s",
    )
    parser.add_argument(
        "--clip",
        choices=("butterfly", "procedural"),
        default="butterfly",
        help="butterfly: a real clip of 25 frames (default); procedural: a computed one of "
        "any length",
    )
    _problem(parser, "name of the problem; default: sr4", default="sr4")
    _size(parser, "size of the clip; default: 320x192", default=(320, 192))
    parser.add_argument(
        "--frames",
        type=_positive,
        default=25,
        metavar="N",
        help="frames of the clip; default: 25",
    )
    _operator(
        parser,
        grid="pixel grid; default: deepinv",
        border="what a blur over time sees beyond the first and the last frame; default: "
        "circular, the first frames meet the last",
        sigma="standard deviation of the noise, for values in [0, 1]; default: 0.001, "
        "for jpeg 0.005",
    )
    _solver(parser, samples=8)
    _common(parser)


def add_estimate(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "estimate",
        help="noise level and blur width of a file",
        description="""\
What a file tells about itself: the standard deviation of its noise, and the width of a
Gaussian blur if it was blurred and not made smaller afterwards. Each with a line that says
how sure it is. Nothing is written.""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "input", metavar="INPUT", help="a video file or a folder of frames"
    )
    parser.add_argument(
        "--frames",
        type=_positive,
        default=32,
        metavar="N",
        help="frames to look at, from the first on; default: 32, or all if there are fewer",
    )
    parser.add_argument(
        "--fps", type=_rate, metavar="RATE", help="frame rate in Hz of an INPUT folder"
    )
    _damaged(parser)
    _conversions(parser)


def add_download(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "download",
        help="fetch the weights of the published models",
        description="Fetch the weights of the published models from the Hugging Face Hub, "
        "into its cache or a folder. What was interrupted goes on where it stopped.",
    )
    parser.add_argument(
        "models",
        nargs="*",
        type=_published_model,
        metavar="MODEL",
        help="wan (the video model), sdxl (the image model); default: both",
    )
    parser.add_argument(
        "--to",
        metavar="FOLDER",
        help="folder to write into, for `restore --weights`; default: the Hub's cache",
    )
    _revisions(parser)
    _offline(parser)


def add_info(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "info",
        help="versions, devices, problems and models",
        description="Report versions, devices, problems and models.",
    )
    parser.add_argument(
        "--operator",
        metavar="TEXT",
        help="also say what is known of an operator on a video of --size and --frames",
    )
    parser.add_argument(
        "--model",
        choices=("wan",),
        help="also estimate the memory of the published models, nothing being loaded",
    )
    _size(parser, "size of the video; default: 1280x768", default=(1280, 768))
    parser.add_argument(
        "--frames",
        type=_positive,
        default=25,
        metavar="N",
        help="frames of the video; default: 25",
    )
