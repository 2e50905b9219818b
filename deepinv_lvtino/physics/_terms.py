r"""One step of a described operator, and what all steps are built for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from deepinv.physics import LinearPhysics

Size = tuple[int, int, int, int]


@dataclass(frozen=True)
class Setting:
    r"""
    What an operator is built for.

    :param tuple[int, int, int, int] img_size: video size ``(C, T, H, W)``.
    :param float sigma: standard deviation of the noise.
    :param str alignment: pixel grid of a downsampling.
    :param str time_border: border of a blur over time.
    :param int mask_seed: seed of a random mask.
    :param torch.Generator rng: generator of the noise.
    :param torch.device, str device: device.
    :param torch.dtype dtype: dtype.
    """

    img_size: Size
    sigma: float
    alignment: str
    time_border: str
    mask_seed: int
    rng: torch.Generator | None
    device: torch.device | str
    dtype: torch.dtype


@dataclass(frozen=True)
class Term:
    r"""
    One step of what happened to the video.

    :param str text: as it is written.
    :param str words: the same for people.
    :param Callable make: from the size of what comes in and the setting to the operator.
    :param int frames: frames that come in for each that goes out.
    :param int pixels: pixels that come in for each that goes out, along each axis.
    :param tuple[int, int] margin: columns and rows that are cut off on either side.
    :param bool groups: whether the frames that come in for one are all used.
    """

    text: str
    words: str
    make: Callable[[Size, Setting], LinearPhysics]
    frames: int = 1
    pixels: int = 1
    margin: tuple[int, int] = (0, 0)
    groups: bool = True

    def before(self, size: Size) -> Size:
        """Largest size that comes in (of frames that are seen) for what goes out."""
        channels, frames, height, width = size
        frames = frames * self.frames if self.groups else (frames - 1) * self.frames + 1
        columns, rows = self.margin
        height, width = (
            height * self.pixels + 2 * rows,
            width * self.pixels + 2 * columns,
        )
        return channels, frames, height, width

    def frames_after(self, frames: int) -> int:
        """Frames that go out."""
        return -(-frames // self.frames)
