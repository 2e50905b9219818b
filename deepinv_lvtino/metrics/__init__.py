r"""Video metrics: image metrics frame by frame, temporal consistency, motion."""

from __future__ import annotations

from deepinv_lvtino.flow import optical_flow, warp
from deepinv_lvtino.metrics.frames import FrameMetric
from deepinv_lvtino.metrics.motion import FVMD
from deepinv_lvtino.metrics.temporal import (
    TemporalDifferenceError,
    WarpingError,
    visible_mask,
)

__all__ = [
    "FVMD",
    "FrameMetric",
    "TemporalDifferenceError",
    "WarpingError",
    "optical_flow",
    "visible_mask",
    "warp",
]
