r"""Oracles shared by the tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate as enlarge

#: A real clip that some machines have beside the repository; users do not.
STREET_CLIP = Path(__file__).parents[2] / "shared" / "data" / "street_clip"

needs_street_clip = pytest.mark.skipif(
    not STREET_CLIP.is_dir(), reason="the real clip is not on this machine"
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=dtype)


def rand(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(*shape, generator=generator(seed), dtype=dtype)


def translating(
    frames: int, height: int, width: int, speed: int, seed: int = 0
) -> Tensor:
    r"""Smooth texture that moves to the left by whole pixels, shape (1, 3, T, H, W)."""
    total = width + speed * (frames - 1)
    coarse = rand(1, 3, height // 4, total // 4, seed=seed, dtype=torch.float32)
    texture = enlarge(coarse, (height, total), mode="bicubic").clamp(0, 1)
    windows = [texture[..., speed * t : speed * t + width] for t in range(frames)]
    return torch.stack(windows, dim=2)


def dense(function: Callable[[Tensor], Tensor], size: tuple[int, ...]) -> Tensor:
    r"""Matrix of a linear map on tensors ``(B, *size)``, one basis vector at a time."""
    count = int(np.prod(size))
    basis = torch.eye(count, dtype=torch.float64).reshape(count, *size)
    return function(basis).reshape(count, -1).T


def covariance(dimension: int, seed: int = 0) -> Tensor:
    r"""A well-conditioned covariance that is not diagonal."""
    root = randn(dimension, dimension, seed=seed)
    return root @ root.T / dimension + 0.3 * torch.eye(dimension, dtype=torch.float64)


def psnr(x: Tensor, reference: Tensor) -> float:
    return float(-10 * torch.log10(((x - reference) ** 2).mean()))
