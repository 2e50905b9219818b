"""Computed clips, degraded by a published problem."""

from __future__ import annotations

from typing import Any

import torch
from benchopt import BaseDataset
from torch.utils.data import Dataset as TorchDataset

from deepinv_lvtino import make_problem
from deepinv_lvtino.datasets import procedural_clip


class Clips(TorchDataset[dict[str, torch.Tensor]]):
    """Procedural clips ``(3, T, H, W)``, as DeepInverse's trainer reads them."""

    def __init__(self, count: int, size: tuple[int, int, int]) -> None:
        self.count, self.size = count, size

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"x": procedural_clip(*self.size, seed=index)}


class Dataset(BaseDataset):
    """Clips and the operator of a named problem."""

    name = "procedural"
    parameters = {"problem": ["A", "B", "C"], "debug": [False]}
    requirements = ["pip::deepinv-lvtino"]
    test_config = {"problem": "A", "debug": True}

    def get_data(self) -> dict[str, Any]:
        """Give clips and operator."""
        size = (5, 32, 48) if self.debug else (25, 192, 320)
        physics = make_problem(self.problem, (3, *size))
        physics.problem = self.problem  # for solvers with a setting per problem
        return {"dataset": Clips(1 if self.debug else 4, size), "physics": physics}
