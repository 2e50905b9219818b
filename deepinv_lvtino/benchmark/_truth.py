r"""A clean clip with its own scores, and checks of what is compared with it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any

import torch
from deepinv.loss.metric import Metric
from torch import Tensor

from deepinv_lvtino.benchmark.clips import Clip
from deepinv_lvtino.utils import check_video

#: Smallest height and width: that of the window of SSIM, and a little more.
LEAST_SIDE = 16


class Truth:
    """A clean clip, loaded when a cell needs it, and its own warping error."""

    def __init__(
        self,
        clip: Clip,
        device: torch.device,
        metrics: dict[str, Metric],
        say: Callable[[str], None],
    ) -> None:
        self.clip, self.device, self.metrics, self.say = clip, device, metrics, say
        self._video: Tensor | None = None
        self._scores: dict[str, float | None] | None = None

    def video(self) -> Tensor:
        if self._video is None:
            x = self.clip.load()[None].to(self.device)
            check_video("clips", x, size=self.clip.shape)
            for note in self.clip.damage:
                self.say(f"accepted: {note}")
            self._video = x
        return self._video

    def scores(self) -> dict[str, float | None]:
        """The value of a perfect restoration, where it is not obvious."""
        if self._scores is None:
            x = self.video()
            names = [name for name in ("warping_error",) if name in self.metrics]
            self._scores = {name: finite(self.metrics[name](x, x)) for name in names}
        return self._scores


def check_shape(clip: Clip) -> None:
    if len(clip.shape) != 4 or clip.shape[0] != 3 or min(clip.shape[2:]) < LEAST_SIDE:
        msg = (
            "`clips` must be videos (3, T, H, W) of 16 pixels or more; got "
            f"{tuple(clip.shape)} for {clip.name!r}."
        )
        raise ValueError(msg)


def check_estimate(label: str, estimate: Any, x: Tensor) -> None:
    shape = tuple(getattr(estimate, "shape", ()))
    if shape != tuple(x.shape):
        found = shape or type(estimate).__name__
        msg = (
            f"`solvers[{label!r}]` must return a video of shape {tuple(x.shape)}; got "
            f"{found}."
        )
        raise ValueError(msg)


def seed_of_noise(seed: int, problem: str, clip: str) -> int:
    """Seed of the measurement noise, another one than that of the solvers."""
    digest = hashlib.sha256(f"{seed}\n{problem}\n{clip}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def finite(value: Tensor) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
