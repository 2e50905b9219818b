"""LVTINO, one sample or the mean of several, as a solver of benchopt."""

from __future__ import annotations

from typing import Any

import torch
from benchopt import BaseSolver
from deepinv.models import Reconstructor

from deepinv_lvtino import LVTINO, Schedule


class PosteriorMean(Reconstructor):
    """Mean of posterior samples, called as any reconstructor."""

    def __init__(self, sampler: LVTINO, num_samples: int) -> None:
        super().__init__()
        self.sampler = sampler
        self.num_samples = num_samples

    def forward(self, y: torch.Tensor, physics: Any) -> torch.Tensor:
        """Sample and average."""
        if self.num_samples == 1:
            return self.sampler(y, physics)
        return self.sampler.sample(y, physics, self.num_samples)[0]


class Solver(BaseSolver):
    """LVTINO with the models that come with its package."""

    name = "LVTINO"
    parameters = {"num_samples": [1, 8], "eta": [None], "seed": [0]}
    sampling_strategy = "run_once"
    requirements = ["pip::deepinv-lvtino"]
    test_config = {"num_samples": 1}
    references = [
        "A. Spagnoletti, A. Almansa, M. Pereyra: LVTINO: LAtent Video consisTency INverse "
        "sOlver for High Definition Video Restoration, arXiv:2510.01339, 2025"
    ]

    def skip(self, train_dataset: Any = None, physics: Any = None) -> tuple:
        """Refuse operators on images."""
        if len(getattr(physics, "img_size", None) or ()) != 4:
            return (
                True,
                "LVTINO restores videos: `physics.img_size` must be (C, T, H, W)",
            )
        return False, None

    def set_objective(self, train_dataset: Any = None, physics: Any = None) -> None:
        """Build the model, with the setting of the problem if the operator names one."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        schedule = Schedule.embedded(getattr(physics, "problem", None), self.eta)
        sampler = LVTINO(schedule=schedule, seed=self.seed)
        self.model = PosteriorMean(sampler, self.num_samples).to(device)
        self.model.device = device

    def run(self, _: Any) -> None:
        """Nothing to train."""

    def get_result(self) -> dict[str, Any]:
        """Give the model."""
        return {"model": self.model}
