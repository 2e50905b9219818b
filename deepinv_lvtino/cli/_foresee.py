r"""How long a restoration will take, from two small ones of the same kind."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from deepinv_lvtino.cli._tasks import AnyTask
from deepinv_lvtino.optim import LVTINO
from deepinv_lvtino.physics import make_problem

#: Values of a video from which on the time is foreseen: a minute or so on a laptop. Less is
#: done sooner than it is worth to know.
LEAST_VALUES = 1e7

#: Least frames, and the sides in pixels, of the small videos.
_FRAMES, _SIDES = 8, (48, 112)


#: What a value of a large video takes more than one of a small one, which the processor's
#: cache holds: 1.4 to 1.9 were measured (``benchmarks/memory.py``).
_LARGER = 1.6


def foresee_seconds(task: AnyTask, solver: LVTINO, times: float) -> float | None:
    r"""
    Seconds that the restoration of a large video will take on this device, about.

    The measurement's first corner is restored at two sizes; what the second one takes more,
    by what it has more, is the time of a value. (The first one also pays for everything
    that is done once.)

    :param AnyTask task: measurement and operator.
    :param LVTINO solver: the solver.
    :param float times: how often a pixel is worked on: samples, and what windows share.
    :return: (float) seconds; ``None`` for small videos, and for operators that are made
        for one size (a mask or a kernel of a file).
    """
    values = math.prod(task.physics.img_size)
    if values < LEAST_VALUES or task.problem.operator.files:
        return None
    corners = [corner for side in _SIDES if (corner := _corner(task, side)) is not None]
    if len(corners) < len(_SIDES):
        return None
    state = torch.get_rng_state()
    spent = []
    for y, size in (corners[0], *corners):  # the first one warms
        start = time.perf_counter()
        settings = task.settings
        physics = make_problem(
            task.problem.name,
            size,
            settings["sigma"],
            alignment=settings["grid"],
            time_border=settings.get("time_border", "replicate"),
            mask_seed=settings.get("mask_seed", 0),
            device=task.device,
        )
        with torch.no_grad():
            solver(y, physics, seed=0)
        if task.device.type == "cuda":
            torch.cuda.synchronize(task.device)
        spent.append((math.prod(size), time.perf_counter() - start))
    torch.set_rng_state(state)
    (small, brief), (large, long) = spent[1:]
    rate = max(long - brief, 0.5 * long) / (large - small)
    return _LARGER * times * rate * values


def _corner(
    task: AnyTask, side: int
) -> tuple[Tensor, tuple[int, int, int, int]] | None:
    """A corner of the measurement, and the size of its video; nothing if it is less."""
    problem = task.problem
    frames = max(2, math.ceil(_FRAMES / problem.frame_factor))
    pixels = max(2, side // problem.scale_factor)
    y = task.y[:, :, :frames][..., :pixels, :pixels]
    if y.shape[-1] < pixels or y.shape[-2] < pixels:
        return None
    return y, problem.video_size((y.shape[1], *y.shape[2:]))


def duration(seconds: float) -> str:
    """For people: ``1 h 5 min``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
