r"""Tiles of a frame: where they lie, the operator on one, and how they are joined."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from deepinv.physics import Physics
from torch import Tensor

from deepinv_lvtino.physics import SeparableVideoPhysics, VideoInpainting

#: Tiles begin at multiples of this many pixels, so that they begin with a latent pixel of
#: every model, and two tiles have the same latent pixels where they overlap.
UNIT = 16


@dataclass(frozen=True)
class Span:
    r"""
    Rows or columns of a tile.

    :param int start: first pixel.
    :param int stop: pixel after the last one.
    :param int before: pixels at its beginning that the tile before it also has.
    :param int after: pixels at its end that the next tile also has.
    """

    start: int
    stop: int
    before: int = 0
    after: int = 0

    @property
    def pixels(self) -> slice:
        """The pixels, as an index."""
        return slice(self.start, self.stop)

    def weights(self) -> Tensor:
        r"""
        What the tile counts for at each pixel; together the tiles count for one.

        The outer quarter of what two tiles share counts for nothing, as a tile does not
        know what is beyond its border; over the half in the middle one tile fades into
        the other.

        :return: (:class:`torch.Tensor`) weights in [0, 1], shape ``(stop - start,)``.
        """
        weights = torch.ones(self.stop - self.start)
        if self.before:
            weights[: self.before] = _ramp(self.before)
        if self.after:
            weights[-self.after :] = 1 - _ramp(self.after)
        return weights


def _ramp(count: int) -> Tensor:
    place = (torch.arange(count) + 0.5) / count
    return (2 * (place - 0.25)).clamp(0, 1)


def default_overlap(height: int, width: int) -> int:
    r"""
    Pixels that tiles share where nothing is said.

    :param int height: height of a tile, a multiple of :data:`UNIT`.
    :param int width: width of a tile, likewise.
    :return: (int) 64, or half of smaller tiles.
    """
    return min(64, min(height, width) // 2 // UNIT * UNIT)


def plan_spans(length: int, size: int, overlap: int) -> list[Span]:
    r"""
    Tiles along one axis of a frame, of about the same size; only neighbours meet.

    :param int length: pixels of the frame.
    :param int size: pixels of a tile, at most; a multiple of :data:`UNIT`.
    :param int overlap: pixels that two tiles share; a multiple of :data:`UNIT`, and at most
        half of ``size``.
    :return: (list[Span]) the tiles; they begin at multiples of :data:`UNIT`.
    """
    if length <= size:
        return [Span(0, length)]
    count = math.ceil((length - overlap) / (size - overlap))
    step = math.ceil((length - overlap) / count / UNIT) * UNIT
    step = max(step, overlap, UNIT)
    count = math.ceil((length - overlap) / step)
    last = count - 1
    return [
        Span(
            i * step,
            length if i == last else (i + 1) * step + overlap,
            overlap if i else 0,
            overlap if i < last else 0,
        )
        for i in range(count)
    ]


@dataclass(frozen=True)
class Tile:
    r"""
    A tile of the frames of a video.

    :param Span rows: its rows.
    :param Span columns: its columns.
    """

    rows: Span
    columns: Span

    def of(self, video: Tensor) -> Tensor:
        r"""
        The tile of a video.

        :param torch.Tensor video: whole frames ``(..., H, W)``.
        :return: (:class:`torch.Tensor`) the tile's pixels, not copied.
        """
        return video[..., self.rows.pixels, self.columns.pixels]

    def add(self, x: Tensor, video: Tensor) -> None:
        r"""
        Lay the tile to others, in place.

        :param torch.Tensor x: the tile ``(..., h, w)``.
        :param torch.Tensor video: sum of the tiles before, whole frames ``(..., H, W)``.
        """
        weights = torch.outer(self.rows.weights(), self.columns.weights())
        self.of(video).addcmul_(x, weights.to(x))

    @property
    def num_pixels(self) -> int:
        """Pixels of the tile."""
        rows, columns = self.rows, self.columns
        return (rows.stop - rows.start) * (columns.stop - columns.start)

    def corner(self, label: str, latent: Tensor) -> tuple[int, int]:
        r"""
        Where the latent of the tile lies in that of whole frames.

        :param str label: name of the draw, not used.
        :param torch.Tensor latent: latent of the tile, shape ``(..., h, w)``.
        :return: (tuple[int, int]) its first row and column.
        """
        spans = self.rows, self.columns
        return tuple(  # type: ignore[return-value]
            span.start // max(1, round((span.stop - span.start) / count))
            for span, count in zip(spans, latent.shape[-2:], strict=True)
        )

    def physics(
        self, whole: Physics
    ) -> tuple[Physics, tuple[Tensor | slice, Tensor | slice]]:
        r"""
        An operator on the tile: what it measures of these pixels and of no other.

        :param deepinv.physics.Physics whole: operator on whole frames.
        :return: (tuple) the operator, and which rows and columns of a measurement it gives.
        :raises NotImplementedError: if it cannot be cut into tiles.
        :raises ValueError: if a tile is too small for a measured pixel.
        """
        rows, columns = self.rows, self.columns
        size = (rows.stop - rows.start, columns.stop - columns.start)
        if isinstance(whole, VideoInpainting):
            mask = whole.mask.expand(*whole.mask.shape[:-2], *whole.img_size[-2:])
            part: Physics = VideoInpainting(
                (*whole.img_size[:2], *size),
                self.of(mask),
                whole.temporal,
                whole.noise_model,
                device=whole.mask.device,
                dtype=whole.mask.dtype,
            )
            return part, (rows.pixels, columns.pixels)
        vertical, seen_rows = _within(whole.vertical, rows)
        horizontal, seen_columns = _within(whole.horizontal, columns)
        part = SeparableVideoPhysics(
            (*whole.img_size[:2], *size),
            temporal=whole.temporal,
            vertical=vertical,
            horizontal=horizontal,
            noise_model=whole.noise_model,
            device=whole.mask.device,
            dtype=whole.mask.dtype,
        )
        return part, (seen_rows, seen_columns)


def _within(matrix: Tensor | None, span: Span) -> tuple[Tensor | None, Tensor | slice]:
    """The part of a matrix whose rows see a tile alone, and which rows these are."""
    if matrix is None:
        return None, span.pixels
    inside = _seen_within(matrix, span)
    if not len(inside):
        msg = (
            f"`size` must be larger: no measured pixel sees only the pixels {span.start} "
            f"to {span.stop - 1} of a tile."
        )
        raise ValueError(msg)
    return matrix[inside][:, span.pixels], inside


def _seen_within(matrix: Tensor, span: Span) -> Tensor:
    outside = matrix.clone()
    outside[:, span.pixels] = 0
    return (outside == 0).all(dim=1).nonzero().flatten()


def plan_tiles(
    frame: tuple[int, int], size: tuple[int, int], overlap: int | None = None
) -> list[Tile]:
    r"""
    The tiles of a frame, row by row.

    :param tuple[int, int] frame: height and width of the frame.
    :param tuple[int, int] size: height and width of a tile, at most.
    :param int overlap: pixels that two tiles share, see :func:`plan_spans`;
        :func:`default_overlap` if nothing is said.
    :return: (list[Tile]) the tiles.
    """
    height, width = (side // UNIT * UNIT for side in size)
    if overlap is None:
        overlap = default_overlap(height, width)
    rows = plan_spans(frame[0], height, overlap)
    columns = plan_spans(frame[1], width, overlap)
    return [Tile(row, column) for row in rows for column in columns]


def check_cuttable(physics: Physics) -> None:
    r"""
    Refuse an operator that is not known on a tile.

    :param deepinv.physics.Physics physics: operator on whole frames.
    :raises NotImplementedError: if it is neither separable nor an inpainting.
    """
    if not isinstance(physics, (SeparableVideoPhysics, VideoInpainting)):
        msg = (
            f"`physics` cannot be cut into tiles: a {type(physics).__name__} is neither a "
            "SeparableVideoPhysics nor a VideoInpainting. Restore whole frames, fewer at "
            "a time (Windowed)."
        )
        raise NotImplementedError(msg)


def check_covered(physics: Physics, tiles: list[Tile]) -> None:
    r"""
    Refuse an operator some of whose measured pixels no tile would see.

    :param deepinv.physics.Physics physics: operator on whole frames.
    :param list[Tile] tiles: the tiles.
    :raises NotImplementedError: if it is circular in space.
    :raises ValueError: if the overlap is smaller than what a measured pixel sees.
    """
    if not isinstance(physics, SeparableVideoPhysics):
        return
    rows = dict.fromkeys(tile.rows for tile in tiles)
    columns = dict.fromkeys(tile.columns for tile in tiles)
    for matrix, spans in ((physics.vertical, rows), (physics.horizontal, columns)):
        if matrix is None or len(spans) == 1:
            continue
        if bool(matrix[0, -1]) or bool(matrix[-1, 0]):
            msg = (
                "`physics` is circular in space: its first pixels meet the last, which no "
                "tile has. Build it with another border, `alignment='center'` or "
                "`padding='replicate'`."
            )
            raise NotImplementedError(msg)
        seen = torch.cat([_seen_within(matrix, span) for span in spans]).unique()
        if len(seen) < len(matrix):
            widest = int((matrix != 0).sum(dim=1).max())
            msg = (
                f"`overlap` must be larger: a measured pixel sees up to {widest} pixels "
                "of a row or a column, and some see parts of two tiles and none whole."
            )
            raise ValueError(msg)
