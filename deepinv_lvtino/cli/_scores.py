r"""The scores that the report of a restoration gives."""

from __future__ import annotations

import math

from torch import Tensor

from deepinv_lvtino.benchmark.scores import SCORES, make_metrics

_SSIM_WINDOW = 11
_NAMES = ("psnr", "ssim", "haarpsi", "warping_error", "temporal_difference_error")


def video_scores(estimate: Tensor, reference: Tensor) -> dict[str, float | None]:
    r"""
    Scores of a restored video, means over the frames.

    :param Tensor estimate: shape ``(1, 3, T, H, W)``.
    :param Tensor reference: true video of the same shape, in [0, 1].
    :return: (dict[str, float]) by name; ``None`` where a video is too small or too short
        for one, or OpenCV is missing for the warping error.
    """
    frames, height, width = estimate.shape[2:]
    reference = reference.float()
    estimate = estimate.float()
    scores: dict[str, float | None] = dict.fromkeys(_NAMES)
    possible = [
        name
        for name in _NAMES
        if SCORES[name].missing() is None
        and (name != "ssim" or min(height, width) >= _SSIM_WINDOW)
        and (name not in ("warping_error", "temporal_difference_error") or frames > 1)
    ]
    for name, metric in make_metrics(possible, estimate.device).items():
        value = float(metric(estimate, reference))
        scores[name] = value if math.isfinite(value) else None
    return scores
