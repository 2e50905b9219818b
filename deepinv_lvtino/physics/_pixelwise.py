r"""Small systems of equations, one for each pixel, some pixels at a time."""

from __future__ import annotations

import torch
from torch import Tensor

# Bytes of pixel-wise matrices that are held at a time: what a processor's cache holds,
# respectively enough to keep a GPU busy.
_CHUNK_BYTES = {"cpu": 2**21, "cuda": 2**28}


def is_diagonal(matrix: Tensor) -> bool:
    off = matrix - torch.diag(matrix.diagonal())
    rounding = torch.finfo(matrix.dtype).eps * len(matrix)
    return bool(off.abs().max() <= rounding * matrix.abs().max())


def pixels_at_a_time(matrix: Tensor) -> int:
    available = _CHUNK_BYTES.get(matrix.device.type, _CHUNK_BYTES["cpu"])
    return max(1, available // (matrix.numel() * matrix.element_size()))


def solve_positive(system: Tensor, right: Tensor) -> Tensor:
    r"""
    Solve many small positive definite systems, overwriting the arguments.

    Elimination without pivoting, which is stable for such matrices; systems are on the
    last axis, so that every operation runs over all of them. (PyTorch's batched
    factorisations treat matrices one by one on a CPU, and are slower by half at best.)

    :param torch.Tensor system: matrices, shape ``(n, n, P)``.
    :param torch.Tensor right: right-hand sides, shape ``(n, R, P)``.
    :return: (:class:`torch.Tensor`) solutions, shape ``(n, R, P)``.
    """
    size = len(system)
    right = right.contiguous()
    for j in range(size):
        pivot = system[j, j].clone()
        row = system[j, j + 1 :]
        factors = row / pivot  # the matrix is symmetric: also its column
        system[j + 1 :, j + 1 :] -= factors[:, None] * row[None]
        right[j + 1 :] -= factors[:, None] * right[j]
        right[j] /= pivot
        system[j, j + 1 :] = factors
    for j in range(size - 1, 0, -1):
        right[:j] -= system[:j, j, None] * right[j]
    return right
