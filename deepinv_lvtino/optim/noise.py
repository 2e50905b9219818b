r"""Where the sampler's noise comes from."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from deepinv_lvtino.utils import check_seed

#: From the label of a draw and a tensor to standard normal noise like it.
NoiseSource = Callable[[str, Tensor], Tensor]

# side of the squares of a latent frame that have noise of their own, for tiles
_SQUARE = 32

#: One seed, or one per element of the batch.
Seed = int | Sequence[int]


def element_seed(seed: int, index: int) -> int:
    r"""
    Seed of one element of a batch, from the seed of the batch.

    The first element has that very seed, so that it is what a run alone would be; those of
    the others are drawn by :class:`numpy.random.SeedSequence`, whose streams have nothing
    in common with those of nearby seeds (``seed + index`` would be the seed of another
    run). Only 32 bits of a seed reach PyTorch's generator on a CPU, and all bits of these
    are mixed.

    :param int seed: seed of the batch, from 0 to :math:`2^{64} - 1`.
    :param int index: number of the element, from 0.
    :return: (int) seed of the element.
    :raises TypeError: if an argument is not an integer.
    :raises ValueError: if one is negative, or the seed is too large.

    |sep|

    :Examples:

        >>> from deepinv_lvtino.optim import element_seed
        >>> element_seed(5, 0), element_seed(5, 1) == element_seed(6, 0)
        (5, False)
    """
    seed, index = check_seed("seed", seed), check_seed("index", index)
    if index == 0:
        return seed
    mixed = np.random.SeedSequence(seed, spawn_key=(index,))
    return int(mixed.generate_state(1, np.uint64)[0])


class SeededNoise:
    r"""
    Standard normal noise from seeded generators, one per element of the batch and device.

    The draws of an element follow one another and do not depend on the other elements, so
    that a run on a batch draws what runs on its elements alone would.

    :param int, Sequence[int] seed: seed; that of element :math:`i` is
        ``element_seed(seed, i)``. Or one seed per element of the batch.
    :raises TypeError: if a seed is not an integer.
    :raises ValueError: if one is negative or above :math:`2^{64} - 1`, or there is none.

    |sep|

    :Examples:

        >>> import torch
        >>> from deepinv_lvtino.optim import SeededNoise, element_seed
        >>> batch = SeededNoise(3)("k0/video", torch.empty(2, 4))
        >>> alone = SeededNoise(element_seed(3, 1))("k0/video", torch.empty(1, 4))
        >>> torch.equal(batch[1:], alone)
        True
    """

    def __init__(self, seed: int | Sequence[int]) -> None:
        self.seed = check_seeds("seed", seed)
        self._generators: dict[tuple[torch.device, int], torch.Generator] = {}

    def __call__(self, label: str, like: Tensor) -> Tensor:
        r"""
        Draw a noise tensor.

        :param str label: name of the draw, not used: draws follow one another.
        :param torch.Tensor like: tensor of the shape, dtype and device wanted.
        :return: (:class:`torch.Tensor`) the noise.
        :raises ValueError: if there is one seed per element, and not as many as elements.
        """
        if not isinstance(self.seed, int) and len(self.seed) != len(like):
            msg = (
                f"`seed` must be one integer or one per element of the batch "
                f"({len(like)}); got {len(self.seed)}."
            )
            raise ValueError(msg)
        noise = torch.empty(like.shape, dtype=like.dtype, device=like.device)
        for index, element in enumerate(noise):
            element.normal_(generator=self._generator(like.device, index))
        return noise

    def _generator(self, device: torch.device, index: int) -> torch.Generator:
        key = device, index
        if key not in self._generators:
            seed = self.seed
            seed = element_seed(seed, index) if isinstance(seed, int) else seed[index]
            self._generators[key] = torch.Generator(device).manual_seed(seed)
        return self._generators[key]


class FrameNoise:
    r"""
    Standard normal noise that belongs to the frames of a long video.

    Every latent frame has a generator of its own, from seed, label and number, so that
    overlapping windows have the same noise where they show the same. In the same way,
    every square of a latent frame has one where the video is cut into tiles.

    :param int seed: seed.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def of(self, start: int, frames: int) -> FramesNoise:
        r"""
        Noise source of a window.

        :param int start: its first frame.
        :param int frames: its number of frames.
        :return: (Callable) ``(label, like)`` to noise, for :class:`LVTINO`.
        """
        return FramesNoise(self.seed, start, frames)


@dataclass(frozen=True)
class FramesNoise:
    r"""
    Noise source of some frames of a :class:`FrameNoise`.

    :param int seed: seed.
    :param int start: first frame.
    :param int frames: number of frames.
    :param Callable corner: from label and latent to the row and the column of the whole
        latent frame that the latent begins at, if it is that of a tile.
    """

    seed: int
    start: int
    frames: int
    corner: Callable[[str, Tensor], tuple[int, int]] | None = None

    def __call__(self, label: str, like: Tensor) -> Tensor:
        r"""
        Draw a noise tensor.

        :param str label: name of the draw.
        :param torch.Tensor like: latent ``(B, c, t, h, w)``.
        :return: (:class:`torch.Tensor`) the noise, like it.
        """
        count = like.shape[2]
        # one latent frame for all (shared noise), for each frame, or for several
        offset = 0 if count == 1 else self.start * count // self.frames
        drawn = [self._frame(label, offset + t, like) for t in range(count)]
        return torch.cat(drawn, dim=2).to(like)

    def _frame(self, label: str, number: int, like: Tensor) -> Tensor:
        key = (zlib.crc32(label.encode()), number)
        shape = like[:, :, :1].shape
        if self.corner is None:
            return self._drawn(shape, key)
        top, left = self.corner(label, like)
        bottom, right = top + shape[3], left + shape[4]
        side = _SQUARE
        rows = [
            torch.cat(
                [
                    self._drawn((*shape[:3], side, side), (*key, i, j))
                    for j in range(left // side, (right - 1) // side + 1)
                ],
                dim=4,
            )
            for i in range(top // side, (bottom - 1) // side + 1)
        ]
        squares = torch.cat(rows, dim=3)
        return squares[..., top % side :, left % side :][..., : shape[3], : shape[4]]

    def _drawn(self, shape: Sequence[int], key: tuple[int, ...]) -> Tensor:
        seed = np.random.SeedSequence(self.seed, spawn_key=key).generate_state(1)[0]
        generator = torch.Generator().manual_seed(int(seed))
        return torch.randn(tuple(shape), generator=generator)


def noise_source_of(seed: Seed | None, noise_source: NoiseSource | None) -> NoiseSource:
    r"""
    The source of noise that is asked for.

    :param int, Sequence[int] seed: seed of a :class:`SeededNoise`, or ``None``.
    :param Callable noise_source: the source itself, or ``None``.
    :return: (Callable) the source; :func:`global_noise` if nothing is asked for.
    :raises ValueError: if both are given.
    """
    if seed is not None and noise_source is not None:
        msg = "`seed` and `noise_source` both say where noise comes from; give one."
        raise ValueError(msg)
    if noise_source is not None:
        return noise_source
    return global_noise if seed is None else SeededNoise(seed)


def check_seeds(name: str, seed: int | Sequence[int]) -> int | tuple[int, ...]:
    r"""
    Check one seed, or one per element of a batch.

    :param str name: name of the argument, for the message.
    :param int, Sequence[int] seed: the seed or seeds.
    :return: (int | tuple[int, ...]) the same as Python's integers.
    :raises TypeError: if a seed is not an integer.
    :raises ValueError: if one is out of range, or there is none.
    """
    if not isinstance(seed, Sequence) or isinstance(seed, str):
        return check_seed(name, seed)
    if not seed:
        msg = f"`{name}` must be one integer or one per element of the batch; got none."
        raise ValueError(msg)
    return tuple(check_seed(name, one) for one in seed)


def global_noise(label: str, like: Tensor) -> Tensor:
    r"""
    Standard normal noise from PyTorch's global generator.

    :param str label: name of the draw, not used.
    :param torch.Tensor like: tensor of the shape, dtype and device wanted.
    :return: (:class:`torch.Tensor`) the noise.
    """
    return torch.randn_like(like)
