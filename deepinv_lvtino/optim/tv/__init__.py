r"""
Total variation of videos, and its proximal step together with the data.

``abstract`` says what the solvers need of a variation, ``problem`` what they solve;
``admm``, ``primal_dual`` and ``adam`` are the solvers, and ``solve`` chooses one.
``variation`` and ``along_motion`` hold the variations, ``motion`` the flow that one of them
follows, ``prox`` the proximal step by name.
"""

from deepinv_lvtino.optim.tv.abstract import AbstractVariation
from deepinv_lvtino.optim.tv.along_motion import MotionVariation
from deepinv_lvtino.optim.tv.motion import Motion, video_motion
from deepinv_lvtino.optim.tv.problem import TVOptions, TVProblem, TVResult
from deepinv_lvtino.optim.tv.prox import prox_l2_tv
from deepinv_lvtino.optim.tv.solve import solve_l2_tv
from deepinv_lvtino.optim.tv.variation import (
    SpaceTimeVariation,
    TemporalVariation,
    Variation,
)

__all__ = [
    "AbstractVariation",
    "Motion",
    "MotionVariation",
    "SpaceTimeVariation",
    "TVOptions",
    "TVProblem",
    "TVResult",
    "TemporalVariation",
    "Variation",
    "prox_l2_tv",
    "solve_l2_tv",
    "video_motion",
]
