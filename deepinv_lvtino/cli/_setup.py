r"""From arguments and files to a measurement with its operator."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepinv_lvtino.cli._errors import UserError, user_errors
from deepinv_lvtino.cli._report import describes, find_degrade_report
from deepinv_lvtino.datasets import (
    Companions,
    VideoClip,
    find_companions,
    read_video,
    resize_video,
)
from deepinv_lvtino.physics import PROBLEMS, VideoInpainting, make_problem
from deepinv_lvtino.physics.problems import Problem, VideoPhysics

# Values lie in [0, 1]: beyond this nothing of a video is left.
_LARGEST_SIGMA = 10.0

# Measurement noise and sampler must not draw the same numbers: PyTorch's generator on the
# CPU looks at the lower 32 bits of a seed, of which this flips the highest.
_NOISE_SEED_OFFSET = 2**31


@dataclass(frozen=True)
class Task:
    r"""
    A measurement, its operator, and what is known about it.

    :param Problem problem: the named problem.
    :param VideoPhysics physics: its operator at this size.
    :param torch.Tensor y: measurement, ``(1, 3, t, h, w)``.
    :param fractions.Fraction fps: frame rate of the video.
    :param torch.Tensor clean: the true video ``(1, 3, T, H, W)``, in a simulation.
    :param dict settings: what the report says about the operator.
    :param Companions companions: sound and the like, to be copied beside the result.
    """

    problem: Problem
    physics: VideoPhysics
    y: Tensor
    fps: Fraction
    clean: Tensor | None
    settings: dict[str, Any] = field(default_factory=dict)
    companions: Companions | None = None

    @property
    def measurement_fps(self) -> Fraction:
        """Frame rate of the measurement."""
        return self.fps / self.problem.frame_factor

    @property
    def description(self) -> str:
        """The operator in words."""
        settings = self.settings
        border = settings.get("time_border")
        return (
            f"problem {self.problem.name} ({self.problem.description}), grid "
            f"{settings['grid']}{f', time border {border}' if border else ''}, sigma "
            f"{settings['sigma']:.3g}"
        )


def root_mean_square(error: Tensor, physics: VideoPhysics) -> float:
    """Root mean square of an error ``(..., t, h, w)`` over the pixels measured."""
    square = error.square()
    if isinstance(physics, VideoInpainting):
        square = square[physics.visible.to(error.device).expand_as(square)]
    return float(square.mean().sqrt())


def get_problem(name: str | None) -> Problem:
    """Problem of a name."""
    if name in PROBLEMS:
        return PROBLEMS[name]
    known = ", ".join(f"{p.name} ({p.description})" for p in PROBLEMS.values())
    if name is None:
        msg = (
            "--problem is missing: say how INPUT was made from the video that you want: "
            f"{known}. If INPUT is a clean clip, add --simulate."
        )
    else:
        msg = f"--problem must be one of {known}; got {name!r}."
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


def check_sigma(sigma: float, *, zero: bool = False) -> None:
    """Refuse a noise level that has no meaning (or that a sampler cannot use)."""
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
) -> VideoClip:
    """INPUT; what is accepted of its damage is said."""
    with user_errors():
        clip = read_video(
            source,
            num_frames,
            fps=fps,
            damaged=arguments.damaged,
            deinterlace=arguments.deinterlace,
        )
    for note in clip.damage:
        print(f"accepted: {note}")
    return clip


def accompanied(task: Task, source: Path, output: Path) -> Task:
    """The task with the companions of INPUT's video, and a line about each kind."""
    found = find_companions(source, output)
    if found.kept:
        print(f"copied from INPUT: {', '.join(found.kept)}")
    if found.left:
        print(f"not copied from INPUT: {', '.join(found.left)}")
    task.settings["companions"] = {"copied": found.kept, "left": found.left}
    return replace(task, companions=found)


def damage_entry(clip: VideoClip) -> dict[str, Any]:
    """What a report says about a damaged INPUT."""
    return {"damaged_input": list(clip.damage)} if clip.damage else {}


def clean_clip(arguments: argparse.Namespace, source: Path) -> VideoClip:
    """The clean clip of a simulation, resized as asked."""
    clip = read_input(arguments, source, arguments.frames, arguments.fps)
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
    if problem.blurs_time:
        settings["time_border"] = border
    if problem.masked:
        settings["mask_seed"] = mask_seed
    return Task(problem, physics, physics(clean), fps, clean, settings)


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


def measured(arguments: argparse.Namespace, source: Path, device: torch.device) -> Task:
    """A measurement from a file, with defaults from the report beside it."""
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
    clip = read_input(arguments, source, fps=fps)
    # a file that was cut or replaced since then is not the one of the report
    shape = list(clip.frames.shape[1:])
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
    if sigma is None:
        sigma = float(known.get("measurement_error", 0.01))
    check_sigma(sigma)
    mask_seed = arguments.mask_seed
    if mask_seed is None:
        mask_seed = known.get("mask_seed", 0) if same_problem else 0
    with user_errors():
        video_size = problem.video_size(tuple(clip.frames.shape), num_frames)  # type: ignore[arg-type]
        physics = make_problem(
            problem.name,
            video_size,
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
        "degrade_report": str(found[0]) if found and known else None,
        **damage_entry(clip),
    }
    y = clip.frames[None].to(device)
    if isinstance(physics, VideoInpainting):
        settings["mask_seed"] = mask_seed
        _check_mask(y, physics, mask_seed)
    if known:
        print(
            f"from the report: problem {known['problem']}, grid {known['grid']}, "
            f"{known['original']['frames']} frames, error of the file "
            f"{known['measurement_error']:.3g} (explicit options win)"
        )
    fps = clip.fps * problem.frame_factor
    return Task(problem, physics, y, fps, None, settings)


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


def _check_mask(y: Tensor, physics: VideoInpainting, seed: int) -> None:
    """Refuse a mask that does not fit: what it hides has to be black in the file."""
    visible = physics.visible.expand_as(y)
    if float(y[~visible].mean()) > 0.5 * float(y[visible].mean()):
        msg = (
            f"INPUT is not black where the mask of --mask-seed {seed} hides pixels; give "
            "the seed it was made with."
        )
        raise UserError(msg)
