"""Restoration of degraded video, after the objectives of DeepInverse's benchmarks."""

from __future__ import annotations

from typing import Any

import deepinv as dinv
import torch
from benchopt import BaseObjective
from deepinv.loss.metric import PSNR, SSIM, HaarPSI
from torch.utils.data import DataLoader

from deepinv_lvtino.metrics import FrameMetric, TemporalDifferenceError


# `deepinv.test` calls a metric by the name of its class, so each needs one of its own.
class FramePSNR(FrameMetric):
    """PSNR, mean over the frames."""

    def __init__(self) -> None:
        super().__init__(PSNR())


class FrameSSIM(FrameMetric):
    """SSIM, mean over the frames."""

    def __init__(self) -> None:
        super().__init__(SSIM())


class FrameHaarPSI(FrameMetric):
    """HaarPSI with the parameters for natural images, mean over the frames."""

    def __init__(self) -> None:
        super().__init__(HaarPSI(C=30.0, alpha=4.2))


class Objective(BaseObjective):
    """Scores of a reconstruction method on clean clips, degraded on the fly."""

    name = "Video restoration"
    min_benchopt_version = "1.8"
    requirements = ["pip::deepinv-lvtino"]
    sampling_strategy = "run_once"

    def set_data(self, dataset: Any, physics: Any) -> None:
        """Take what a data set gives."""
        self.dataset = dataset
        self.physics = physics

    def evaluate_result(self, model: Any) -> dict[str, float]:
        """Test the model on all clips."""
        device = getattr(model, "device", "cpu")
        torch.manual_seed(0)
        results = dinv.test(
            model,
            DataLoader(self.dataset),
            self.physics.to(device),
            online_measurements=True,
            device=device,
            metrics=[
                FramePSNR(),
                FrameSSIM(),
                FrameHaarPSI(),
                TemporalDifferenceError(),
            ],
            compare_no_learning=False,
            show_progress_bar=False,
            verbose=False,
        )
        return {key: float(value) for key, value in results.items()}

    def get_one_result(self) -> dict[str, Any]:
        """Give a result for benchopt's own tests."""
        return {"model": Adjoint()}

    def get_objective(self) -> dict[str, Any]:
        """Give what a solver needs."""
        return {"train_dataset": self.dataset, "physics": self.physics}


class Adjoint(dinv.models.Reconstructor):
    """The adjoint of the operator."""

    def forward(self, y: torch.Tensor, physics: Any) -> torch.Tensor:
        """Apply it."""
        return physics.A_adjoint(y)
