r"""Large frames in overlapping tiles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from deepinv_lvtino.utils import check_integer


@dataclass(frozen=True)
class Tiles:
    r"""
    How frames are cut into tiles, in pixels.

    Neighbouring tiles are blended linearly over the inner half of their overlap; what lies
    within a quarter of the overlap of a cut is not used, so that a network whose context
    reaches no farther gives what it gives on the whole frame.

    :param int side: largest height and width of a tile.
    :param int overlap: overlap of neighbouring tiles.
    :raises ValueError: if ``overlap`` is not positive, or more than a quarter of ``side``.
    """

    side: int = 768
    overlap: int = 128

    def __post_init__(self) -> None:
        check_integer("side", self.side)
        check_integer("overlap", self.overlap)
        if not 0 < 4 * self.overlap <= self.side:
            msg = (
                "`overlap` must be positive and a quarter of `side` at most; got "
                f"{self.overlap} and {self.side}."
            )
            raise ValueError(msg)

    def spans(self, size: int, grid: int) -> list[tuple[int, int]]:
        r"""
        First and last pixel (exclusive) of the tiles along one axis.

        :param int size: length of the axis in pixels, a multiple of ``grid``.
        :param int grid: cuts are multiples of this.
        :return: (list[tuple[int, int]]) the tiles, as equal as the grid allows.
        """
        if size <= self.side:
            return [(0, size)]
        overlap = _multiple(self.overlap, grid)
        side = max(self.side // grid * grid, overlap + grid)
        number = -(-(size - overlap) // (side - overlap))
        side = _multiple(-(-(size + (number - 1) * overlap) // number), grid)
        last = size - side
        starts = [
            last * i // (number - 1) // grid * grid if i < number - 1 else last
            for i in range(number)
        ]
        return [(start, start + side) for start in starts]


def _multiple(value: int, grid: int) -> int:
    return -(-value // grid) * grid


def tiled(
    function: Callable[[Tensor], Tensor],
    x: Tensor,
    tiles: Tiles,
    *,
    grid: int,
    inputs: int = 1,
    outputs: int = 1,
) -> Tensor:
    r"""
    Apply a map of frames tile by tile.

    :param Callable function: map of tensors ``(..., h, w)``.
    :param torch.Tensor x: input, ``(..., h, w)``.
    :param Tiles tiles: the tiles, in pixels.
    :param int grid: cuts are multiples of so many pixels.
    :param int inputs: pixels for one element of the input, along height and width.
    :param int outputs: pixels for one element of the output.
    :return: (torch.Tensor) output, ``(..., h, w)``.
    """
    height, width = (size * inputs for size in x.shape[-2:])
    rows, columns = tiles.spans(height, grid), tiles.spans(width, grid)
    if len(rows) == len(columns) == 1:
        return function(x)
    size = (height // outputs, width // outputs)
    result = torch.empty(0)
    for i, (top, bottom) in enumerate(rows):
        for j, (left, right) in enumerate(columns):
            cut = x[
                ...,
                top // inputs : bottom // inputs,
                left // inputs : right // inputs,
            ]
            part = function(cut)
            if i == j == 0:
                dtype = torch.promote_types(part.dtype, torch.float32)
                result = part.new_zeros((*part.shape[:-2], *size), dtype=dtype)
            down = _weights((top, bottom), rows, outputs, result)
            across = _weights((left, right), columns, outputs, result)
            result[
                ...,
                top // outputs : bottom // outputs,
                left // outputs : right // outputs,
            ] += part * (down[:, None] * across)
    return result


def _weights(
    span: tuple[int, int], spans: list[tuple[int, int]], outputs: int, like: Tensor
) -> Tensor:
    """Weights of one tile along one axis; those of all tiles add up to one."""
    start, stop = (edge // outputs for edge in span)
    at = torch.arange(start, stop, dtype=torch.float64) + 0.5
    weight = torch.ones_like(at)
    index = spans.index(span)
    if index > 0:
        weight *= _ramp(at, start, spans[index - 1][1] // outputs)
    if index < len(spans) - 1:
        weight *= 1 - _ramp(at, spans[index + 1][0] // outputs, stop)
    return weight.to(like)


def _ramp(at: Tensor, start: int, stop: int) -> Tensor:
    """From 0 to 1 over the inner half of an overlap."""
    quarter = (stop - start) / 4
    return ((at - start - quarter) / (2 * quarter)).clamp(0, 1)
