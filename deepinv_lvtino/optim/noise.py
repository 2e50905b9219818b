r"""Where the sampler's noise comes from."""

from __future__ import annotations

import torch
from torch import Tensor


class SeededNoise:
    r"""
    Standard normal noise from a seeded generator, one per device.

    :param int seed: seed.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._generators: dict[torch.device, torch.Generator] = {}

    def __call__(self, label: str, like: Tensor) -> Tensor:
        r"""
        Draw a noise tensor.

        :param str label: name of the draw, not used: draws follow one another.
        :param torch.Tensor like: tensor of the shape, dtype and device wanted.
        :return: (:class:`torch.Tensor`) the noise.
        """
        if like.device not in self._generators:
            generator = torch.Generator(like.device).manual_seed(self.seed)
            self._generators[like.device] = generator
        return torch.randn(
            like.shape,
            generator=self._generators[like.device],
            dtype=like.dtype,
            device=like.device,
        )


def global_noise(label: str, like: Tensor) -> Tensor:
    r"""
    Standard normal noise from PyTorch's global generator.

    :param str label: name of the draw, not used.
    :param torch.Tensor like: tensor of the shape, dtype and device wanted.
    :return: (:class:`torch.Tensor`) the noise.
    """
    return torch.randn_like(like)
