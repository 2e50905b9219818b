r"""Video degradations as DeepInverse physics, exact wherever they are separable."""

from deepinv_lvtino.physics.description import Description, parse_operator
from deepinv_lvtino.physics.framewise import FramewiseLinearPhysics, FramewisePhysics
from deepinv_lvtino.physics.jpeg import JPEGCompression
from deepinv_lvtino.physics.masked import VideoInpainting, random_mask
from deepinv_lvtino.physics.operators import (
    TemporalBlur,
    TemporalDecimation,
    TemporalPooling,
    VideoBlur,
    VideoDownsampling,
)
from deepinv_lvtino.physics.problems import (
    ALIASES,
    PROBLEMS,
    Problem,
    find_problem,
    make_problem,
)
from deepinv_lvtino.physics.separable import SeparableVideoPhysics

__all__ = [
    "ALIASES",
    "PROBLEMS",
    "Description",
    "FramewiseLinearPhysics",
    "FramewisePhysics",
    "JPEGCompression",
    "Problem",
    "SeparableVideoPhysics",
    "TemporalBlur",
    "TemporalDecimation",
    "TemporalPooling",
    "VideoBlur",
    "VideoDownsampling",
    "VideoInpainting",
    "find_problem",
    "make_problem",
    "parse_operator",
    "random_mask",
]
