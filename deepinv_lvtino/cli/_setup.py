r"""From arguments and files to a measurement with its operator."""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from deepinv_lvtino.cli._errors import UserError, user_errors
from deepinv_lvtino.cli._memory import choose_window
from deepinv_lvtino.cli._report import describes, find_degrade_report
from deepinv_lvtino.cli._tasks import AnyTask, LongTask, Task
from deepinv_lvtino.datasets import (
    StoredVideo,
    VideoClip,
    find_companions,
    open_video,
    resize_video,
)
from deepinv_lvtino.datasets._sampling import colour_is_coarse
from deepinv_lvtino.estimate import estimate_noise
from deepinv_lvtino.optim import LongPhysics
from deepinv_lvtino.physics import (
    ALIASES,
    PROBLEMS,
    VideoInpainting,
    find_problem,
    make_problem,
)
from deepinv_lvtino.physics.problems import Problem, VideoPhysics

# Values lie in [0, 1]: beyond this nothing of a video is left.
_LARGEST_SIGMA = 10.0

# Measurement noise and sampler must not draw the same numbers: PyTorch's generator on the
# CPU looks at the lower 32 bits of a seed, of which this flips the highest.
_NOISE_SEED_OFFSET = 2**31

# Measured frames that the noise level is estimated from.
_FRAMES_FOR_NOISE = 32


def get_problem(name: str | None) -> Problem:
    """Problem of a name or a description."""
    if name is not None and (name in PROBLEMS or name in ALIASES or "=" in name):
        with user_errors():
            return find_problem(name)
    known = ", ".join(f"{p.name} ({p.description})" for p in PROBLEMS.values())
    if name is None:
        msg = (
            "--problem is missing: say how INPUT was made from the video that you want: "
            f"{known}; or describe it with --operator. If INPUT is a clean clip, add "
            "--simulate."
        )
    else:
        msg = (
            f"--problem must be one of {known}, or say what happened with --operator; got "
            f"{name!r}."
        )
    raise UserError(msg)


def choose_device(name: str | None) -> torch.device:
    """Device of a name; the GPU if there is one by default."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()  # which `meta` cannot
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        msg = f"--device {name} cannot be used here ({reason}). Try --device cpu."
        raise UserError(msg) from error
    return device


def check_sigma(sigma: float | str, *, zero: bool = False, auto: bool = False) -> None:
    """Refuse a noise level that has no meaning (or that a sampler cannot use)."""
    if isinstance(sigma, str):
        if auto:
            return
        msg = "--sigma auto is for a measurement; a simulation adds noise of a level."
        raise UserError(msg)
    if not math.isfinite(sigma) or sigma < 0 or (sigma == 0 and not zero):
        least = "0 or positive" if zero else "positive"
        msg = f"--sigma must be {least} and finite; got {sigma:g}."
        raise UserError(msg)
    if sigma > _LARGEST_SIGMA:
        msg = (
            f"--sigma must be {_LARGEST_SIGMA:g} or less; got {sigma:g}. It is for values "
            "in [0, 1]."
        )
        raise UserError(msg)


def read_input(
    arguments: argparse.Namespace,
    source: Path,
    num_frames: int | None = None,
    fps: Fraction | None = None,
    folder: Path | None = None,
) -> StoredVideo:
    """INPUT; what is accepted of its damage, and what was done with it, is said."""
    with user_errors():
        video = open_video(
            source,
            num_frames,
            fps=fps,
            damaged=arguments.damaged,
            deinterlace=arguments.deinterlace,
            constant_rate=arguments.rate == "constant",
            tonemap=arguments.tonemap,
            folder=folder,
        )
    for note in video.damage:
        print(f"accepted: {note}")
    for note in video.notes:
        print(f"note: {note}")
    return video


_AnyTask = TypeVar("_AnyTask", bound=AnyTask)


def accompanied(task: _AnyTask, source: Path, output: Path) -> _AnyTask:
    """The task with the companions of INPUT's video, and a line about each kind."""
    found = find_companions(source, output)
    if found.kept:
        print(f"copied from INPUT: {', '.join(found.kept)}")
    if found.left:
        print(f"not copied from INPUT: {', '.join(found.left)}")
    task.settings["companions"] = {"copied": found.kept, "left": found.left}
    return replace(task, companions=found)


def damage_entry(clip: VideoClip | StoredVideo) -> dict[str, Any]:
    """What a report says about an INPUT that was damaged, or unusual."""
    entries = {"damaged_input": clip.damage, "input_notes": clip.notes}
    return {name: list(notes) for name, notes in entries.items() if notes}


def clean_clip(arguments: argparse.Namespace, source: Path) -> VideoClip:
    """The clean clip of a simulation, resized as asked."""
    clip = read_input(arguments, source, arguments.frames, arguments.fps).clip()
    if arguments.size is None:
        return clip
    width, height = arguments.size
    return replace(clip, frames=resize_video(clip.frames, height, width))


def simulate(
    arguments: argparse.Namespace,
    problem: Problem,
    frames: Tensor,
    fps: Fraction,
    device: torch.device,
) -> Task:
    """Degrade a clean clip ``(3, T, H, W)``."""
    height, width = frames.shape[-2:]
    check_divides(problem, width, height)
    grid = arguments.grid or "deepinv"
    border = arguments.time_border or "circular"
    sigma = problem.sigma if arguments.sigma is None else arguments.sigma
    mask_seed = arguments.mask_seed or 0
    noise_seed = arguments.seed + _NOISE_SEED_OFFSET
    rng = torch.Generator(device).manual_seed(noise_seed)
    clean = frames[None].to(device)
    with user_errors():
        physics = make_problem(
            problem.name,
            tuple(clean.shape[1:]),  # type: ignore[arg-type]
            sigma,
            alignment=grid,
            time_border=border,
            mask_seed=mask_seed,
            rng=rng,
            device=device,
        )
    settings = {"grid": grid, "sigma": sigma, "noise_seed": noise_seed}
    settings |= operator_entry(problem)
    if problem.blurs_time:
        settings["time_border"] = border
    if problem.masked:
        settings["mask_seed"] = mask_seed
    return Task(
        problem=problem,
        physics=physics,
        y=physics(clean),
        fps=fps,
        clean=clean,
        settings=settings,
    )


def operator_entry(problem: Problem) -> dict[str, Any]:
    """What a report says about a described operator."""
    hashes = problem.operator.hashes()
    entry: dict[str, Any] = {"operator": str(problem.operator)}
    return entry | ({"operator_files": hashes} if hashes else {})


def check_divides(problem: Problem, width: int, height: int) -> None:
    factor = problem.scale_factor
    if width % factor == 0 and height % factor == 0:
        return
    near = "x".join(
        str(max(factor, factor * math.floor(n / factor + 0.5))) for n in (width, height)
    )
    msg = (
        f"the width and height of the clip must be multiples of {factor} for problem "
        f"{problem.name}; they are {width}x{height}. The nearest size that works is "
        f"--size {near}."
    )
    raise UserError(msg)


def measured(
    arguments: argparse.Namespace, source: Path, device: torch.device, folder: Path
) -> Task | LongTask:
    """
    A measurement from a file, with defaults from the report beside it.

    It stays out of memory, in a file of ``folder``, if it is to be restored by windows:
    because that was asked for, or the memory is too small for the whole.
    """
    found = find_degrade_report(source)
    known = found[1] if found else {}
    if found:
        print(f"report of degrade found: {found[0]}")
        if not _check_pair(known, source):
            known = {}
    problem = get_problem(arguments.problem or known.get("problem"))
    if known and known.get("problem") != problem.name:
        print(
            f"note: --problem {problem.name} contradicts the report, which says "
            f"{known.get('problem')}; going on with {problem.name}"
        )
    same_problem = bool(known) and known.get("problem") == problem.name
    fps = arguments.fps
    if fps is None and source.is_dir():
        fps = Fraction(known["measurement"]["fps"]) if known else None
    video = read_input(arguments, source, fps=fps, folder=folder)
    measured_size = (3, *video.shape[2:])
    # a file that was cut or replaced since then is not the one of the report
    shape = list(measured_size[1:])
    size = known.get("measurement", {})
    if known and [size[key] for key in ("frames", "height", "width")] != shape:
        print("note: INPUT is not the file of the report (other size); report ignored")
        known, same_problem = {}, False
        problem = get_problem(arguments.problem)

    num_frames = arguments.frames
    if num_frames is None and same_problem:
        num_frames = known["original"]["frames"]
    grid = arguments.grid or known.get("grid") or "center"
    # reports of before this could be chosen are of circular ones
    of_report = known.get("time_border", "circular") if same_problem else "replicate"
    border = arguments.time_border or of_report
    sigma = arguments.sigma
    if sigma is None and problem.operator.noise is not None and problem.linear:
        sigma = problem.operator.noise
    if sigma is None:
        sigma = float(known.get("measurement_error", 0.01))
    automatic = sigma == "auto"
    if automatic:
        sigma = estimate_noise(
            video[:, :, :_FRAMES_FOR_NOISE], brightness=colour_is_coarse(source)
        )
        print(f"noise estimated from INPUT: sigma {sigma:.3g}")
    mask_seed = arguments.mask_seed
    if mask_seed is None:
        mask_seed = known.get("mask_seed", 0) if same_problem else 0
    with user_errors():
        video_size = problem.video_size(measured_size, num_frames)

    def make(frames: int) -> VideoPhysics:
        return make_problem(
            problem.name,
            (video_size[0], frames, *video_size[2:]),
            sigma,
            alignment=grid,
            time_border=border,
            mask_seed=mask_seed,
            device=device,
        )

    settings = {
        "grid": grid,
        **({"time_border": border} if problem.blurs_time else {}),
        "sigma": sigma,
        **({"sigma_estimated": True} if automatic else {}),
        **operator_entry(problem),
        "degrade_report": str(found[0]) if found and known else None,
        **damage_entry(video),
    }
    window = arguments.window
    if device.type == "cpu" and arguments.model == "embedded":
        window = choose_window(
            video_size,
            window,
            arguments.tiles,
            problem.frame_factor,
            arguments.samples,
        )
    common: dict[str, Any] = {
        "problem": problem,
        "fps": video.fps * problem.frame_factor,
        "settings": settings,
    }
    task: Task | LongTask
    if window is None:
        y = video.clip().frames[None].to(device)
        with user_errors():
            task = Task(physics=make(video_size[1]), y=y, **common)
    else:
        try:
            with user_errors():
                size = (video_size[0], *video_size[2:])
                long = LongPhysics(make, video_size[1], size)
        except NotImplementedError as error:
            msg = f"--window {window}: {error} (--time-border)"
            raise UserError(msg) from error
        task = LongTask(physics=long, y=video.to(device), window=window, **common)
    if problem.masked:
        settings["mask_seed"] = mask_seed
        _check_mask(*task.excerpt(), mask_seed)
    if known:
        print(
            f"from the report: problem {known['problem']}, grid {known['grid']}, "
            f"{known['original']['frames']} frames, error of the file "
            f"{known['measurement_error']:.3g} (explicit options win)"
        )
    return task


def _check_pair(report: dict[str, Any], source: Path) -> bool:
    """Whether a report is of this very file; older ones, without a hash, may be."""
    with user_errors():
        same = describes(report, source)
    if same is None:
        print("note: the report is an older one, without the SHA-256 of its file")
    elif not same:
        print(
            "note: INPUT is not the file that the report was written with (other "
            "contents); report ignored. Say what INPUT is with --problem, --grid and "
            "--sigma, or make it again with `degrade`"
        )
    return same is not False


def _check_mask(y: Tensor, physics: VideoPhysics, seed: int) -> None:
    """Refuse a mask that does not fit: what it hides has to be black in the file."""
    assert isinstance(physics, VideoInpainting)
    visible = physics.visible.expand_as(y)
    if float(y[~visible].mean()) > 0.5 * float(y[visible].mean()):
        msg = (
            f"INPUT is not black where the mask of --mask-seed {seed} hides pixels; give "
            "the seed it was made with."
        )
        raise UserError(msg)
