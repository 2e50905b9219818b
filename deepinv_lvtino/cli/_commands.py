r"""The commands."""

from __future__ import annotations

import argparse
import re
from fractions import Fraction
from pathlib import Path

import torch

from deepinv_lvtino.cli._benchmark import benchmark as benchmark
from deepinv_lvtino.cli._errors import UserError, user_errors
from deepinv_lvtino.cli._many import restore_many as restore_many
from deepinv_lvtino.cli._models import download as download
from deepinv_lvtino.cli._models import print_memory
from deepinv_lvtino.cli._operator import print_operator
from deepinv_lvtino.cli._outputs import beside, output_folder, output_path, writing
from deepinv_lvtino.cli._report import (
    Stopwatch,
    clip_entry,
    describe_device,
    digest,
    versions,
    write_report,
)
from deepinv_lvtino.cli._restore import restore as restore
from deepinv_lvtino.cli._setup import (
    check_sigma,
    choose_device,
    clean_clip,
    damage_entry,
    get_problem,
    read_input,
    simulate,
)
from deepinv_lvtino.cli._solve import (
    base_report,
    output_files,
    print_scores,
    restore_and_write,
)
from deepinv_lvtino.cli._solvers import make_solver
from deepinv_lvtino.cli._tasks import root_mean_square
from deepinv_lvtino.cli._tune import tune as tune
from deepinv_lvtino.datasets import (
    butterfly_clip,
    procedural_clip,
    read_video,
    write_video,
)
from deepinv_lvtino.datasets._sampling import colour_is_coarse
from deepinv_lvtino.datasets.butterfly import RATE
from deepinv_lvtino.estimate import (
    LEAST_GAIN,
    SHARP,
    estimate_blur,
    estimate_noise,
)
from deepinv_lvtino.models import tiny_image, tiny_video
from deepinv_lvtino.physics import PROBLEMS

#: Clips of the demonstration, and their frame rates.
_DEMO_CLIPS = {
    "butterfly": (butterfly_clip, RATE),
    "procedural": (procedural_clip, Fraction(24)),
}

# Standard deviation of rounding to 8 bit.
_ROUNDING = 1 / 255 / 12**0.5


def degrade(arguments: argparse.Namespace) -> None:
    """Write a measurement and its report."""
    source, output = Path(arguments.input), output_path(arguments.output)
    report_path = beside(output, ".json")
    with writing([output, report_path], arguments.overwrite, source) as outputs:
        if arguments.sigma is not None:
            check_sigma(arguments.sigma, zero=True)
        problem = get_problem(arguments.problem)
        device = choose_device(arguments.device)
        watch = Stopwatch(device)
        with watch.stage("read"):
            clip = clean_clip(arguments, source)
        frames, fps = clip.frames, clip.fps
        with watch.stage("degrade"):
            task = simulate(arguments, problem, frames, fps, device)
            task.settings.update(damage_entry(clip))
        count, height, width = task.y.shape[2:]
        size = (count, height, width)
        outputs.rehearse(output, size, task.measurement_fps, lossless=True)
        outputs.computed["measurement"] = task.y[0]
        path = outputs.path(output)
        with watch.stage("write"), user_errors():
            write_video(path, task.y[0], task.measurement_fps, lossless=True)
            stored = read_video(path).frames
        # noise, rounding to 8 bit and clipping together: what `restore` has to expect
        exact = task.physics.A(frames[None].to(device)).cpu()
        error = root_mean_square(stored[None] - exact, task.physics)
        error = max(error, _ROUNDING)  # a file may happen to be exact
        report = base_report(arguments, task, device)
        report |= {
            "input": str(source),
            "output": str(output),
            "sha256": {"output": digest(path)},
            "measurement_error": error,
            "original": clip_entry(tuple(frames.shape), fps),
            "seconds": watch.seconds,
        }
        with user_errors():
            write_report(outputs.path(report_path), report)
    entry = report["measurement"]
    print(
        f"{task.description} ({error:.3g} with rounding to 8 bit): "
        f"{entry['width']}x{entry['height']}, {entry['frames']} frames"
    )
    print(f"written: {output}, report {report_path}")


def demo(arguments: argparse.Namespace) -> None:
    """Degrade, restore and score a built-in clip."""
    target = output_folder(arguments.output)
    if target.exists() and not target.is_dir():
        msg = f"{target} is a file; the demonstration needs a folder."
        raise UserError(msg)
    output = target / "restored.mp4"
    extra = [target / "original.mp4", target / "measurement.mp4"]
    files = [*output_files(output, arguments.samples)[:-1], *extra]
    files += [beside(output, ".json")]
    with writing(files, arguments.overwrite, None) as outputs:
        if arguments.sigma is not None:
            check_sigma(arguments.sigma)
        problem = get_problem(arguments.problem)
        device = choose_device(arguments.device)
        solver = make_solver(arguments, device)
        watch = Stopwatch(device)
        width, height = arguments.size
        make, fps = _DEMO_CLIPS[arguments.clip]
        with watch.stage("clip"):
            try:
                frames = make(arguments.frames, height, width)
            except ValueError as error:
                msg = f"--frames {arguments.frames}: {error} (--clip procedural)"
                raise UserError(msg) from error
        with watch.stage("degrade"):
            task = simulate(arguments, problem, frames, fps, device)
        with user_errors():
            write_video(outputs.path(extra[0]), frames, task.fps)
            write_video(outputs.path(extra[1]), task.y[0], task.measurement_fps)
        metrics = restore_and_write(
            arguments, task, outputs, output, watch, solver, f"{arguments.clip}_clip"
        )
    print_scores(metrics)
    print(f"written to {target}; look at {beside(output, '-comparison.png')} first")


def estimate(arguments: argparse.Namespace) -> None:
    """Print the noise level and the blur width of a file."""
    video = read_input(arguments, Path(arguments.input), fps=arguments.fps)
    y = video[:, :, : arguments.frames]
    _, _, frames, height, width = y.shape
    print(f"{frames} frames of {width}x{height}")
    with user_errors():
        coarse = colour_is_coarse(Path(arguments.input))
        sigma = estimate_noise(y, brightness=coarse)
        print(f"noise  sigma {sigma:.3g}, grain of the scene included")
        if coarse:
            print("       of the brightness: the colours have fewer pixels")
        blur = estimate_blur(y, sigma)
    print(
        f"blur   {blur.width:.2f} +- {blur.uncertainty:.2f} pixels, if it is Gaussian"
    )
    if blur.width < SHARP + 2 * blur.uncertainty or blur.gain < LEAST_GAIN:
        print("       no more than the softness of any video: there may be none")
        return
    print("       a soft scene adds to it: up to a fifth was seen, on close-ups")
    print(
        f"try    deepinv-lvtino restore {arguments.input} -o OUTPUT --operator "
        f'"blur={blur.width:.2g}, noise={max(sigma, 0.001):.2g}"'
    )


def info(arguments: argparse.Namespace) -> None:
    """Print versions, devices, problems and models."""
    for name, version in versions().items():
        print(f"{name:<16}{version}")
    devices = [torch.device("cpu")]
    devices += [torch.device("cuda", i) for i in range(torch.cuda.device_count())]
    for device in devices:
        print(f"{'device':<16}{describe_device(device)}")
    print(f"{'default device':<16}{choose_device(None)}")
    print("problems")
    for problem in PROBLEMS.values():
        print(
            f"  {problem.name}  {problem.description} (1 of {problem.frame_factor} "
            f"frames, 1 of {problem.scale_factor**2} pixels)"
        )
    print("embedded models")
    for make in (tiny_video, tiny_image):
        first_line = (make.__doc__ or "").strip().splitlines()[0]
        plain = re.sub(r":\w+:`(?:[^`]*\.)?([^`]*)`", r"\1", first_line)
        print(f"  {make.__name__}: {plain}")
    width, height = arguments.size
    if arguments.operator is not None:
        print_operator(arguments.operator, (3, arguments.frames, height, width))
    if arguments.model is not None:
        print_memory(arguments.frames, height, width)
