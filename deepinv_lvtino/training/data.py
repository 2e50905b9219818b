r"""Batches of training clips, cut from a pool of longer and larger ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from deepinv_lvtino.training.pool import read_pool
from deepinv_lvtino.utils import check_counts, check_seed


class PoolClips:
    r"""
    Random crops of the clips of one or several pools.

    Each crop is mirrored, transposed and reversed in time at random, and its brightness
    and contrast are changed a little, so that a pool serves for many epochs.

    :param pools: pools, arrays of dtype uint8 and shape ``(N, 3, T, H, W)``, or
        files of such, see :func:`deepinv_lvtino.training.read_pool`.
    :param int num_frames: frames of a crop.
    :param int size: height and width of a crop, in pixels.
    :param int seed: seed of the crops.
    :param str, torch.device device: where the pools are kept and the crops are cut; on
        a GPU they need one byte for each value of the pools.
    :raises ValueError: if a pool has another dtype or shape, or is smaller than a crop, or
        a file is no array.
    """

    def __init__(
        self,
        pools: Sequence[np.ndarray | str | Path],
        num_frames: int,
        size: int,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        num_frames, size = check_counts(num_frames=num_frames, size=size)
        seed = check_seed("seed", seed)
        if not isinstance(pools, Sequence) or isinstance(pools, str):
            msg = (
                "`pools` must be a list of arrays or files; got "
                f"{type(pools).__name__}. Put it in a list."
            )
            raise TypeError(msg)
        arrays = [
            pool if isinstance(pool, np.ndarray) else read_pool(pool) for pool in pools
        ]
        for pool in arrays:
            smallest = (num_frames, size, size)
            if (
                pool.dtype != np.uint8
                or pool.ndim != 5
                or pool.shape[1] != 3
                or any(a < b for a, b in zip(pool.shape[2:], smallest, strict=True))
            ):
                msg = (
                    "`pools` must hold uint8 arrays of shape (N, 3, T, H, W) with "
                    f"T, H, W at least {smallest}; got {pool.dtype} of shape "
                    f"{pool.shape}."
                )
                raise ValueError(msg)
        if not arrays:
            msg = "`pools` must name at least one pool; got none."
            raise ValueError(msg)
        self.pools = [torch.from_numpy(pool).to(device) for pool in arrays]
        self.num_frames = num_frames
        self.size = size
        self.rng = np.random.default_rng(seed)
        self._ends = np.cumsum([len(pool) for pool in self.pools])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def reseed(self, seed: int) -> None:
        """Start another sequence of crops."""
        self.rng = np.random.default_rng(seed)

    def batch(self, batch_size: int) -> Tensor:
        r"""
        The next batch.

        :param int batch_size: number of clips.
        :return: (:class:`torch.Tensor`) clips on [-1, 1], shape ``(B, 3, T, H, W)``.
        """
        clips = torch.stack([self._crop() for _ in range(batch_size)])
        values = clips.float().div_(127.5).sub_(1)
        shape = (-1, 1, 1, 1, 1)
        gain, lift = (
            torch.tensor(
                self.rng.uniform(low, high, batch_size),
                dtype=torch.float32,
                device=values.device,
            ).view(shape)
            for low, high in ((0.8, 1.1), (-0.1, 0.1))
        )
        return values.mul_(gain).add_(lift).clamp_(-1, 1)

    def _crop(self) -> Tensor:
        index = int(self.rng.integers(len(self)))
        which = int(np.searchsorted(self._ends, index, side="right"))
        pool = self.pools[which]
        first = self._ends[which] - len(pool)
        frames, height, width = pool.shape[2:]
        t = int(self.rng.integers(frames - self.num_frames + 1))
        i = int(self.rng.integers(height - self.size + 1))
        j = int(self.rng.integers(width - self.size + 1))
        clip = pool[index - first]
        clip = clip[:, t : t + self.num_frames, i : i + self.size, j : j + self.size]
        mirrored = [axis for axis in (-1, 1) if self.rng.random() < 0.5]
        clip = clip.flip(mirrored)
        return clip.mT if self.rng.random() < 0.2 else clip
