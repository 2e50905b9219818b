r"""
How the embedded models were trained: denoising first, consistency second.

Used as a program, ``python -m deepinv_lvtino.training --help``.
"""

from deepinv_lvtino.training.data import PoolClips
from deepinv_lvtino.training.loop import Trainer, TrainingOptions
from deepinv_lvtino.training.losses import consistency_loss, denoising_loss, multiscale

__all__ = [
    "PoolClips",
    "Trainer",
    "TrainingOptions",
    "consistency_loss",
    "denoising_loss",
    "multiscale",
]
