r"""
How the embedded models were trained: denoising first, consistency second.

Used as a program, ``python -m deepinv_lvtino.training --help``.
"""

from deepinv_lvtino.training.camera import moving_photograph
from deepinv_lvtino.training.data import PoolClips
from deepinv_lvtino.training.evaluate import held_out_pool
from deepinv_lvtino.training.footage import find_footage
from deepinv_lvtino.training.loop import Trainer, TrainingOptions
from deepinv_lvtino.training.losses import consistency_loss, denoising_loss, multiscale
from deepinv_lvtino.training.pool import footage_pool, read_pool
from deepinv_lvtino.training.run import Run, train

__all__ = [
    "PoolClips",
    "Run",
    "Trainer",
    "TrainingOptions",
    "consistency_loss",
    "denoising_loss",
    "find_footage",
    "footage_pool",
    "held_out_pool",
    "moving_photograph",
    "multiscale",
    "read_pool",
    "train",
]
