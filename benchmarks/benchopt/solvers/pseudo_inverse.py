"""The pseudo-inverse, as a solver of benchopt: what there is without a prior."""

from __future__ import annotations

from typing import Any

import torch
from benchopt import BaseSolver
from deepinv.models import Reconstructor

from deepinv_lvtino.optim import pseudo_inverse


class Inverse(Reconstructor):
    """Pseudo-inverse without what lies below the noise."""

    device = "cpu"

    def forward(self, y: torch.Tensor, physics: Any) -> torch.Tensor:
        """Apply it."""
        return pseudo_inverse(y, physics)


class Solver(BaseSolver):
    """Pseudo-inverse of the operator."""

    name = "pseudo-inverse"
    sampling_strategy = "run_once"
    requirements = ["pip::deepinv-lvtino"]

    def set_objective(self, train_dataset: Any = None, physics: Any = None) -> None:
        """Keep nothing: the operator comes with each call."""
        self.model = Inverse()

    def run(self, _: Any) -> None:
        """Nothing to train."""

    def get_result(self) -> dict[str, Any]:
        """Give the model."""
        return {"model": self.model}
