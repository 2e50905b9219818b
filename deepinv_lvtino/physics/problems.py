r"""The published inverse problems by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from deepinv.physics.noise import GaussianNoise, ZeroNoise

from deepinv_lvtino.physics.operators import (
    TemporalBlur,
    TemporalPooling,
    VideoDownsampling,
)
from deepinv_lvtino.physics.separable import SeparableVideoPhysics
from deepinv_lvtino.utils import check_img_size

_Size = tuple[int, int, int, int]


@dataclass(frozen=True)
class Problem:
    r"""
    An inverse problem by name, before its size is known.

    :param str name: name for :func:`make_problem`.
    :param str description: one line for people.
    :param int frame_factor: video frames per measured frame.
    :param int scale_factor: video pixels per measured pixel, along each axis.
    :param Callable temporal: ``(img_size, **options)`` to the operator along time.
    """

    name: str
    description: str
    frame_factor: int
    scale_factor: int
    temporal: Callable[..., SeparableVideoPhysics]

    def video_size(
        self, measurement_size: _Size, num_frames: int | None = None
    ) -> _Size:
        r"""
        Size of the video behind a measurement.

        :param tuple[int, int, int, int] measurement_size: ``(C, t, h, w)``.
        :param int num_frames: number of video frames, where the measurement admits
            several (the last group of frames may not be full); the largest by default.
        :return: (tuple[int, int, int, int]) ``(C, T, H, W)``.
        :raises ValueError: if no video of ``num_frames`` frames gives that measurement.
        """
        channels, frames, height, width = check_img_size(measurement_size)
        largest = self.frame_factor * frames
        smallest = largest - self.frame_factor + 1
        total = largest if num_frames is None else num_frames
        if not smallest <= total <= largest:
            span = f"{smallest} to {largest}" if smallest < largest else f"{largest}"
            msg = (
                f"`num_frames` must be {span} for a measurement of {frames} frames of "
                f"problem {self.name}; got {total}."
            )
            raise ValueError(msg)
        scale = self.scale_factor
        return channels, total, scale * height, scale * width


#: The named problems, see :func:`make_problem`.
PROBLEMS: dict[str, Problem] = {
    problem.name: problem
    for problem in (
        Problem(
            "A",
            "mean of 4 frames, then 4 times smaller",
            4,
            4,
            lambda size, **options: TemporalPooling(size, 4, **options),
        ),
        Problem(
            "B",
            "blur over 7 frames (circular in time), then 8 times smaller",
            1,
            8,
            lambda size, **options: TemporalBlur(size, 7, **options),
        ),
        Problem(
            "C",
            "mean of 8 frames, then 8 times smaller",
            8,
            8,
            lambda size, **options: TemporalPooling(size, 8, **options),
        ),
    )
}


def make_problem(
    name: str,
    img_size: _Size,
    sigma: float = 0.001,
    *,
    alignment: str = "deepinv",
    rng: torch.Generator | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> SeparableVideoPhysics:
    r"""
    Operator of a published problem, with Gaussian noise.

    - ``'A'``: mean of groups of 4 frames (the last group completed by repeating the last
      frame, so that 25 frames give 7), then bicubic downsampling by 4;
    - ``'B'``: uniform blur over 7 frames, circular in time, then bicubic downsampling by
      8;
    - ``'C'``: mean of groups of 8 frames, then bicubic downsampling by 8;

    all with reflect padding in space.

    :param str name: ``'A'``, ``'B'`` or ``'C'``.
    :param tuple[int, int, int, int] img_size: video size ``(C, T, H, W)``.
    :param float sigma: standard deviation of the noise, in intensity units of [0, 1]
        videos; 0 for none.
    :param str alignment: pixel grid of the downsampling, ``'deepinv'`` (the published
        problems) or ``'center'`` (ordinary resizers), see :class:`VideoDownsampling`.
    :param torch.Generator rng: generator of the noise; PyTorch's global one by default.
    :param torch.device, str device: device of the operator.
    :param torch.dtype dtype: dtype of the operator.
    :return: (:class:`SeparableVideoPhysics`) the operator, exact in every step.
    :raises ValueError: if the name is unknown or an argument is not as above.

    |sep|

    :Examples:

        >>> from deepinv_lvtino import make_problem
        >>> make_problem("A", img_size=(3, 25, 192, 320)).measurement_size
        (3, 7, 48, 80)
    """
    if name not in PROBLEMS:
        msg = f"`name` must be one of {', '.join(map(repr, PROBLEMS))}; got {name!r}."
        raise ValueError(msg)
    if not sigma >= 0:
        msg = f"`sigma` must be 0 or positive; got {sigma}."
        raise ValueError(msg)
    problem = PROBLEMS[name]
    options: dict[str, Any] = {"device": device, "dtype": dtype}
    temporal = problem.temporal(img_size, **options)
    spatial = VideoDownsampling(
        temporal.measurement_size,
        problem.scale_factor,
        alignment=alignment,
        noise_model=GaussianNoise(sigma, rng=rng) if sigma > 0 else ZeroNoise(),
        **options,
    )
    return spatial * temporal
