r"""Operators on videos of any length, known by what they are on short ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from deepinv.physics import Physics
from torch import Tensor

from deepinv_lvtino.physics import (
    FramewisePhysics,
    JPEGCompression,
    SeparableVideoPhysics,
    VideoInpainting,
)
from deepinv_lvtino.utils import check_integer

#: Frames of the short video, more or less.
_SHORT = 64


@dataclass(frozen=True)
class TemporalRows:
    r"""
    Matrix along time, one row of which is repeated, each time further to the right.

    :param torch.Tensor short: matrix ``(t, T)`` of a short video, float64, on the CPU.
    :param int row: row that is repeated.
    :param int step: columns from one repetition to the next.
    :param int repeats: repetitions; 0 for the matrix of the short video itself.
    """

    short: Tensor
    row: int = 0
    step: int = 1
    repeats: int = 0

    @property
    def measured(self) -> int:
        """Number of rows."""
        return len(self.short) + self.repeats

    @property
    def total(self) -> int:
        """Number of columns."""
        return self.short.shape[1] + self.repeats * self.step

    def spans(self) -> list[tuple[int, int]]:
        r"""
        Columns that the rows see.

        :return: (list[tuple[int, int]]) for each row the first one that is not zero, and
            the one after the last.
        """
        short = [_support(row) for row in self.short]
        found = []
        for number in range(self.measured):
            row, shift = self._place(number)
            found.append((short[row][0] + shift, short[row][1] + shift))
        return found

    def block(self, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
        r"""
        A part of the matrix.

        :param tuple[int, int] rows: first row, and the one after the last.
        :param tuple[int, int] columns: first column, and the one after the last.
        :return: (:class:`torch.Tensor`) the part, float64.
        """
        first, last = columns
        part = self.short.new_zeros(rows[1] - rows[0], last - first)
        for number in range(*rows):
            row, shift = self._place(number)
            low = max(first, shift)
            high = min(last, shift + self.short.shape[1])
            if low < high:
                values = self.short[row, low - shift : high - shift]
                part[number - rows[0], low - first : high - first] = values
        return part

    def _place(self, number: int) -> tuple[int, int]:
        """Row of the short matrix, and how far to the right it stands."""
        passed = min(max(number - self.row, 0), self.repeats)
        return number - passed, passed * self.step


def _support(row: Tensor) -> tuple[int, int]:
    seen = row.nonzero().flatten()
    return (int(seen[0]), int(seen[-1]) + 1) if len(seen) else (0, 0)


class LongPhysics:
    r"""
    An operator on a long video, of which only short ones are ever built.

    Away from the ends it must do the same to every frame, or to every group of frames;
    this is checked. It takes the place of the operator in
    :meth:`deepinv_lvtino.optim.Windowed.stream`.

    :param Callable make: from a number of frames to the operator on a video of so many.
    :param int frames: frames of the video.
    :param tuple[int, int, int] size: ``(C, H, W)`` of the video, where the operator has no
        ``img_size``.
    :raises NotImplementedError: if the operator cannot be cut in time.
    :raises ValueError: if the size is not known.

    |sep|

    :Examples:

        >>> from deepinv_lvtino import make_problem
        >>> from deepinv_lvtino.optim import LongPhysics
        >>> physics = LongPhysics(lambda n: make_problem("A", (3, n, 64, 96)), 100_000)
        >>> physics.img_size, physics.rows.measured
        ((3, 100000, 64, 96), 25000)
    """

    def __init__(
        self,
        make: Callable[[int], Physics],
        frames: int,
        size: tuple[int, int, int] | None = None,
    ) -> None:
        frames = check_integer("frames", frames, 1)
        self.make = make
        self.short, self.rows = _rows_of(make, frames)
        known: Any = getattr(self.short, "img_size", None)
        if size is None and known is None:
            msg = (
                f"`size` is missing: a {type(self.short).__name__} does not say for what "
                "videos it is. Give (C, H, W)."
            )
            raise ValueError(msg)
        channels, height, width = size or (known[0], *known[2:])
        self._short_frames = min(frames, _SHORT) if known is None else known[1]
        #: Size of the video, ``(C, T, H, W)``.
        self.img_size = (channels, frames, height, width)

    @property
    def rows_of_short(self) -> int:
        """Measured frames of the short video."""
        if acts_on_frames(self.short):
            return int(self._short_frames)
        return len(self.rows.short)

    def of_frames(self, frames: int) -> Physics:
        r"""
        The operator on a short video.

        :param int frames: its frames.
        :return: (deepinv.physics.Physics) the operator.
        """
        return self.short if self._short_frames == frames else self.make(frames)


def _rows_of(
    make: Callable[[int], Physics], frames: int
) -> tuple[Physics, TemporalRows]:
    short = make(min(frames, _SHORT))
    if acts_on_frames(short):
        return short, TemporalRows(torch.eye(1).double(), 0, 1, frames - 1)
    if frames <= _SHORT:
        return short, TemporalRows(temporal_matrix(short, 0))
    matrix = temporal_matrix(short, 0)
    middle = len(matrix) // 2
    step = _support(matrix[middle + 1])[0] - _support(matrix[middle])[0]
    # as many frames more or less than the video as whole steps
    length = _SHORT + (frames - _SHORT) % max(1, step)
    if length != _SHORT:
        short = make(length)
        matrix = temporal_matrix(short, 0)
    shifted = torch.roll(matrix[middle], step)
    if step < 1 or not torch.allclose(shifted, matrix[middle + 1], atol=1e-12):
        msg = (
            "`make` gives an operator that does not treat all frames in the same way, so "
            "that it cannot be made longer. Give the operator on the whole video."
        )
        raise NotImplementedError(msg)
    return short, TemporalRows(matrix, middle, step, (frames - length) // step)


def acts_on_frames(physics: Physics) -> bool:
    r"""
    Whether an operator treats every frame by itself, all in the same way.

    :param deepinv.physics.Physics physics: the operator.
    :return: (bool) whether that is known.
    """
    if isinstance(physics, VideoInpainting):
        mask = physics.mask
        return physics.temporal is None and bool((mask == mask[:, :, :1]).all())
    if isinstance(physics, SeparableVideoPhysics):
        return physics.temporal is None
    return isinstance(physics, (FramewisePhysics, JPEGCompression))


def temporal_matrix(physics: Physics, measured: int) -> Tensor:
    r"""
    What an operator does along time.

    :param deepinv.physics.Physics physics: the operator.
    :param int measured: number of measured frames, of an operator without a size.
    :return: (:class:`torch.Tensor`) matrix ``(t, T)``, float64, on the CPU.
    :raises NotImplementedError: if it cannot be cut in time.
    """
    if isinstance(physics, FramewisePhysics):
        return torch.eye(measured, dtype=torch.float64)
    if not isinstance(physics, SeparableVideoPhysics):
        msg = (
            f"`physics` cannot be cut in time: a {type(physics).__name__} is neither a "
            "SeparableVideoPhysics nor a FramewisePhysics. Restore the video as a whole."
        )
        raise NotImplementedError(msg)
    if physics.temporal is None:
        return torch.eye(physics.img_size[1], dtype=torch.float64)
    matrix = physics.temporal.detach().to("cpu", torch.float64)
    if len(matrix) > 1 and bool(matrix[0, -1]) and bool(matrix[-1, 0]):
        msg = (
            "`physics` is circular in time: its last frames meet the first, so that no "
            "window is complete. Build it with another border, `time_border='replicate'` "
            "or `padding='replicate'`."
        )
        raise NotImplementedError(msg)
    return matrix
