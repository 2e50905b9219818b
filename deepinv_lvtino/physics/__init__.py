r"""Video degradations as DeepInverse physics, exact wherever they are separable."""

from deepinv_lvtino.physics.framewise import FramewiseLinearPhysics, FramewisePhysics
from deepinv_lvtino.physics.operators import (
    TemporalBlur,
    TemporalDecimation,
    TemporalPooling,
    VideoBlur,
    VideoDownsampling,
)
from deepinv_lvtino.physics.problems import PROBLEMS, Problem, make_problem
from deepinv_lvtino.physics.separable import SeparableVideoPhysics

__all__ = [
    "PROBLEMS",
    "FramewiseLinearPhysics",
    "FramewisePhysics",
    "Problem",
    "SeparableVideoPhysics",
    "TemporalBlur",
    "TemporalDecimation",
    "TemporalPooling",
    "VideoBlur",
    "VideoDownsampling",
    "make_problem",
]
