"""Missing pixels from their neighbours: where a total variation begins to fill holes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from deepinv_lvtino.physics import VideoInpainting

#: Means of 3x3 pixels that smooth what was filled, at every resolution.
_SMOOTHINGS = 4


def fill_missing(y: Tensor, physics: VideoInpainting) -> Tensor:
    """
    Measured frames without holes, shape ``(B, C, T', H, W)``.

    Missing pixels come from those around them, near ones from a fine, far ones from a
    coarse resolution (the pull-push algorithm); what is seen stays. Frames of which nothing
    is seen are the nearest one of which something is.
    """
    visible = physics.visible
    weights = torch.where(visible, physics.mask, 1.0)
    batch, _, frames, height, width = y.shape
    seen = visible.to(y).expand(1, 1, frames, height, width)
    values = torch.where(visible, y / weights, 0.0)
    kept = seen[0, 0].flatten(1).any(dim=1).nonzero()[:, 0]
    if len(kept) == 0:
        return values
    images = values[:, :, kept].transpose(1, 2).flatten(0, 1)
    images = _fill(images, seen[0, :, kept].transpose(0, 1).repeat(batch, 1, 1, 1))
    video = images.unflatten(0, (batch, len(kept))).transpose(1, 2)
    if len(kept) == frames:
        return video
    instants = torch.arange(frames, device=y.device)
    return video[:, :, (instants[:, None] - kept).abs().argmin(dim=1)]


def _fill(images: Tensor, seen: Tensor) -> Tensor:
    """Images ``(N, C, H, W)`` where ``seen``, ``(N, 1, H, W)``, is zero."""
    height, width = images.shape[-2:]
    if bool((seen > 0).all()) or max(height, width) == 1:
        return images
    share = _halve(seen)
    coarse = _halve(images * seen) / share.clamp(min=1e-6)
    coarse = _fill(coarse, (share > 0).to(images))
    filled = interpolate(coarse, size=(height, width), mode="bilinear")
    filled = torch.where(seen > 0, images, filled)
    for _ in range(_SMOOTHINGS):
        around = avg_pool2d(filled, 3, stride=1, padding=1, count_include_pad=False)
        filled = torch.where(seen > 0, images, around)
    return filled


def _halve(images: Tensor) -> Tensor:
    return avg_pool2d(images, 2, ceil_mode=True, count_include_pad=False)
