r"""What is to be restored: a measurement with its operator."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from deepinv_lvtino.datasets import Companions, StoredVideo
from deepinv_lvtino.optim import LongPhysics
from deepinv_lvtino.physics import VideoInpainting
from deepinv_lvtino.physics.problems import Problem, VideoPhysics


@dataclass(frozen=True, kw_only=True)
class AnyTask:
    r"""
    A measurement, its operator, and what is known about it.

    :param Problem problem: the named problem.
    :param fractions.Fraction fps: frame rate of the video.
    :param dict settings: what the report says about the operator.
    :param Companions companions: sound and the like, to be copied beside the result.
    """

    problem: Problem
    fps: Fraction
    settings: dict[str, Any] = field(default_factory=dict)
    companions: Companions | None = None
    physics: Any
    y: Any

    @property
    def measurement_fps(self) -> Fraction:
        """Frame rate of the measurement."""
        return self.fps / self.problem.frame_factor

    @property
    def device(self) -> torch.device:
        """Where it is restored."""
        return torch.device(self.y.device)

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

    @property
    def operator(self) -> VideoPhysics:
        """The operator, on a few frames if the video is a long one."""
        return self.physics

    def excerpt(self) -> tuple[Tensor, VideoPhysics]:
        """Measurement and operator, of a few frames if the video is a long one."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Task(AnyTask):
    r"""
    A measurement in memory.

    :param VideoPhysics physics: its operator at this size.
    :param torch.Tensor y: measurement, ``(1, 3, t, h, w)``.
    :param torch.Tensor clean: the true video ``(1, 3, T, H, W)``, in a simulation.
    """

    physics: VideoPhysics
    y: Tensor
    clean: Tensor | None = None

    def excerpt(self) -> tuple[Tensor, VideoPhysics]:
        """All of it."""
        return self.y, self.physics


@dataclass(frozen=True, kw_only=True)
class LongTask(AnyTask):
    r"""
    A measurement out of memory, to be restored by windows.

    :param LongPhysics physics: its operator.
    :param StoredVideo y: measurement, ``(1, 3, t, h, w)``.
    :param int window: frames of a window.
    """

    physics: LongPhysics
    y: StoredVideo
    window: int

    @property
    def operator(self) -> VideoPhysics:
        """The operator on a short video."""
        short: Any = self.physics.short
        return short

    def excerpt(self) -> tuple[Tensor, VideoPhysics]:
        """The first frames."""
        return self.y[:, :, : self.physics.rows_of_short], self.operator


def root_mean_square(error: Tensor, physics: VideoPhysics) -> float:
    """Root mean square of an error ``(..., t, h, w)`` over the pixels measured."""
    square = error.square()
    if isinstance(physics, VideoInpainting):
        square = square[physics.visible.to(error.device).expand_as(square)]
    return float(square.mean().sqrt())
