r"""Large frames in tiles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from deepinv.models import Reconstructor
from deepinv.physics import Physics
from torch import Tensor

from deepinv_lvtino.optim.lvtino import LVTINO
from deepinv_lvtino.optim.noise import FrameNoise, FramesNoise
from deepinv_lvtino.optim.tiles import (
    UNIT,
    Tile,
    check_covered,
    check_cuttable,
    default_overlap,
    plan_tiles,
)
from deepinv_lvtino.utils import check_counts, check_integer, check_seed


class Tiled(Reconstructor):
    r"""
    A solver over tiles of the frames: the memory of a tile, frames of any size.

    Tiles overlap. Each is restored from the measured pixels that see nothing outside of it.
    The outer quarter of an overlap, where a tile knows least, is left out, and over the
    half in its middle the result goes linearly from one tile to the next; latent pixels
    that two tiles share have the same noise (:class:`FrameNoise`), so that both draw the
    same details there.

    Exact where the solver treats every pixel by itself.

    In front of it :class:`Windowed` cuts long videos in time as well:
    ``Windowed(Tiled(solver, (512, 768)), frames=17)``.

    :param deepinv.models.Reconstructor solver: called with the measurement and the
        operator of a tile; :class:`LVTINO` also with start and noise.
    :param tuple[int, int] size: height and width of a tile in pixels, at most: tiles have
        about equal sizes, and begin at multiples of 16.
    :param int overlap: pixels that two tiles share, a multiple of 16; by default 64, and
        half of tiles below 128.
    :param int seed: seed of the noise, 0 by default.
    :raises TypeError: if a number is not an integer.
    :raises ValueError: if a size is below 32, or ``overlap`` is no multiple of 16 or above
        half of a size.

    |sep|

    :Examples:

        >>> import torch
        >>> from deepinv_lvtino import LVTINO, Schedule, make_problem
        >>> from deepinv_lvtino.optim import Tiled
        >>> physics = make_problem("A", (3, 4, 64, 96), alignment="center")
        >>> y = physics(torch.rand(1, 3, 4, 64, 96))
        >>> solver = LVTINO(schedule=Schedule.calibrated(0.01, 0.9, 1, init="pinv"))
        >>> Tiled(solver, (64, 64), overlap=32)(y, physics).shape
        torch.Size([1, 3, 4, 64, 96])
    """

    def __init__(
        self,
        solver: Reconstructor,
        size: tuple[int, int],
        overlap: int | None = None,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__()
        height, width = check_counts(height=size[0], width=size[1])
        if overlap is not None:
            overlap = check_integer("overlap", overlap, 0)
        if min(height, width) < 2 * UNIT:
            msg = (
                f"`size` must be {2 * UNIT} pixels or more each way; got "
                f"{height} by {width}."
            )
            raise ValueError(msg)
        height, width = (side // UNIT * UNIT for side in (height, width))
        if overlap is None:
            overlap = default_overlap(height, width)
        if overlap % UNIT or 2 * overlap > min(height, width):
            msg = (
                f"`overlap` must be a multiple of {UNIT}, so that tiles share whole latent "
                "pixels, and at most half of a tile, so that only neighbours meet; got "
                f"{overlap} pixels of tiles of {height} by {width}."
            )
            raise ValueError(msg)
        self.solver = solver
        self.size = height, width
        self.overlap = overlap
        self.seed = check_seed("seed", seed)

    def forward(
        self,
        y: Tensor,
        physics: Physics,
        *,
        init: Tensor | None = None,
        noise_source: FramesNoise | None = None,
    ) -> Tensor:
        r"""
        Restore a video.

        :param torch.Tensor y: measurement ``(B, C, t, h, w)``.
        :param deepinv.physics.Physics physics: its operator: separable without a circular
            border in space, or :class:`deepinv_lvtino.physics.VideoInpainting`.
        :param torch.Tensor init: start ``(B, C, T, H, W)`` of a :class:`LVTINO`; its own by
            default, tile by tile.
        :param Callable noise_source: noise of a :class:`LVTINO`, as :class:`Windowed` gives
            it; that of ``seed`` by default.
        :return: (:class:`torch.Tensor`) video ``(B, C, T, H, W)``.
        :raises NotImplementedError: if the operator cannot be cut into tiles.
        :raises ValueError: if the overlap is smaller than what a measured pixel sees.
        """
        if not isinstance(self.solver, LVTINO):
            return self._joined(physics, y, lambda _, *problem: self.solver(*problem))

        def solve(tile: Tile, part: Tensor, operator: Physics) -> Tensor:
            noise = noise_source or FrameNoise(self.seed).of(0, operator.img_size[1])
            return self.solver(
                part,
                operator,
                init=None if init is None else tile.of(init),
                noise_source=replace(noise, corner=tile.corner),
            )

        return self._joined(physics, y, solve)

    def start(self, y: Tensor, physics: Physics) -> Tensor:
        r"""
        Start of the solver, a :class:`LVTINO`, tile by tile.

        :param torch.Tensor y: measurement, as in :meth:`forward`.
        :param deepinv.physics.Physics physics: its operator.
        :return: (:class:`torch.Tensor`) video ``(B, C, T, H, W)``.
        """
        return self._joined(physics, y, lambda _, *problem: self.solver.start(*problem))

    def tiles(self, physics: Physics) -> list[Tile]:
        r"""
        The tiles of a frame, row by row.

        :param deepinv.physics.Physics physics: operator on whole frames.
        :return: (list[Tile]) the tiles.
        :raises NotImplementedError: as :meth:`forward`.
        :raises ValueError: as :meth:`forward`.
        """
        check_cuttable(physics)
        tiles = plan_tiles(physics.img_size[-2:], self.size, self.overlap)
        check_covered(physics, tiles)
        return tiles

    def _joined(
        self,
        physics: Physics,
        y: Tensor,
        solve: Callable[[Tile, Tensor, Physics], Tensor],
    ) -> Tensor:
        """The tiles, each solved and laid to the others."""
        tiles = self.tiles(physics)
        video = y.new_zeros(len(y), *physics.img_size)
        for tile in tiles:
            part, (rows, columns) = tile.physics(physics)
            tile.add(solve(tile, y[..., rows, :][..., columns], part), video)
        return video
