r"""The settings released with the LVTINO paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from deepinv_lvtino.optim.data_steps import (
    AdamTVStep,
    ConjugateGradientStep,
    DataStep,
    GammaStep,
    PrimalDualTVStep,
)
from deepinv_lvtino.optim.landweber import LandweberStep


class PublishedSetting(NamedTuple):
    r"""
    Arguments of :meth:`Schedule.explicit`, and where the run starts.

    :param Sequence[float] video_times: times of the video model.
    :param Sequence[DataStep] video_steps: data steps that follow them.
    :param Sequence[float] image_times: times of the image model.
    :param Sequence[DataStep] image_steps: data steps that follow them.
    :param str init: name of the start.
    """

    video_times: Sequence[float]
    video_steps: Sequence[DataStep]
    image_times: Sequence[float]
    image_steps: Sequence[DataStep]
    init: str = "prox"


#: Interval that intermediate videos are projected to, and the start.
PUBLISHED_CLAMP, PUBLISHED_INIT_CLAMP = (0.0, 1.0), (-1.0, 1.0)

_VIDEO_TIMES = (757, 522, 375, 255, 125)
_IMAGE_TIMES = (374, 249, 124, 124)

#: The settings for problems by name.
PUBLISHED_SETTINGS: dict[str, PublishedSetting] = {
    "A": PublishedSetting(
        _VIDEO_TIMES,
        (PrimalDualTVStep(200, lam=0.0002873789),) * 5,
        _IMAGE_TIMES,
        (ConjugateGradientStep(19, epsilon=1e-6),) * 4,
    ),
    "B": PublishedSetting(
        _VIDEO_TIMES,
        (GammaStep(3539.0),) * 2 + (GammaStep(1363.0),) * 3,
        _IMAGE_TIMES,
        (GammaStep(16868.0),) * 2 + (GammaStep(2721.0),) * 2,
    ),
    "C": PublishedSetting(
        _VIDEO_TIMES[:3],
        (
            AdamTVStep(55, lam=6.178523568938361e-07, learning_rate=0.019848),
            *(AdamTVStep(55, lam=1.5583416542691956e-06, learning_rate=0.019848),) * 2,
        ),
        (249, 63),
        (ConjugateGradientStep(23, epsilon=0.0),) * 2,
        init="pinv",
    ),
    # Published start: as A, which JPEG has no proximal step for; its pseudo-inverse is y.
    "jpeg": PublishedSetting(
        _VIDEO_TIMES,
        (LandweberStep(10, gamma=0.6026),) * 5,
        _IMAGE_TIMES,
        (LandweberStep(10, gamma=0.5188),) * 4,
        init="pinv",
    ),
}

#: Names of the problems that :meth:`Schedule.published` knows.
PUBLISHED_PROBLEMS = tuple(PUBLISHED_SETTINGS)
