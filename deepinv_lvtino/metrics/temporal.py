r"""Metrics of temporal consistency."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from deepinv.loss.metric import Metric
from torch import Tensor

from deepinv_lvtino.flow import optical_flow, warp
from deepinv_lvtino.metrics._checks import (
    Clamp,
    check_pair,
    clamped,
    need_reference,
)
from deepinv_lvtino.utils import check_clamp

Flow = Callable[[Tensor, Tensor], Tensor]

#: Two flows agree at a pixel if the square of their gap is below the first number times
#: the sum of their squares plus the second, in squared pixels.
CONSISTENCY = (0.01, 0.5)


class TemporalDifferenceError(Metric):
    r"""
    Mean absolute error of the differences between successive frames.

    .. math::

        \frac{1}{C (T-1) H W} \sum_{c, t, i} \left| (\hat{x}_{t+1} - \hat{x}_t)
        - (x_{t+1} - x_t) \right|

    Flicker and wrong motion count, an error that stays the same in all frames does not:
    a brightness that jumps by :math:`\pm a` from frame to frame has the value
    :math:`2a`. In intensity units; lower is better, 0 for the reference.

    :param tuple[float, float] clamp: interval that the estimate is projected to before
        the metric, or ``None``.
    :param str, Callable reduction: what to do with the values of a batch: ``'mean'``,
        ``'sum'``, or ``None`` (the default) to return one value per video.
    :raises ValueError: if ``clamp`` is not an interval.

    |sep|

    :Examples:

        >>> import torch
        >>> from deepinv_lvtino.metrics import TemporalDifferenceError
        >>> x = torch.full((1, 3, 4, 8, 8), 0.5)
        >>> flicker = torch.tensor([0.1, -0.1, 0.1, -0.1]).view(1, 1, 4, 1, 1)
        >>> TemporalDifferenceError()(x + flicker, x)
        tensor([0.2000])
    """

    def __init__(
        self,
        *,
        clamp: Clamp = (0.0, 1.0),
        reduction: str | Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        check_clamp(clamp)
        super().__init__(reduction=reduction)
        self.clamp = clamp

    def metric(
        self,
        x_net: Tensor | None = None,
        x: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        r"""
        One value per video.

        :param torch.Tensor x_net: estimate, shape ``(B, C, T, H, W)``, two frames or more.
        :param torch.Tensor x: reference of the same shape.
        :return: (:class:`torch.Tensor`) shape ``(B,)``.
        :raises TypeError: if a video is not a floating-point tensor.
        :raises ValueError: if shapes do not fit, or there is no reference.
        """
        x = need_reference("the temporal difference error", x)
        x_net = check_pair(x_net, x, least_frames=2)
        error = clamped(x_net, self.clamp).diff(dim=2) - x.diff(dim=2)
        return error.abs().flatten(1).mean(1)


class WarpingError(Metric):
    r"""
    How far successive frames are from being each other's motion.

    .. math::

        \frac{1}{T-1} \sum_t \frac{\sum_p m_t(p) \,
        \| \hat{x}_{t+1}(p + f_t(p)) - \hat{x}_t(p) \|^2 / C}{\sum_p m_t(p)}

    as in :footcite:t:`lai2018learning`: every frame is compared with the next one, brought
    back along the optical flow :math:`f_t`. The mask :math:`m_t` (:func:`visible_mask`)
    leaves out pixels that are hidden in the next frame or move out of it. Squared
    intensity; lower is better.

    The flow is computed on the reference if there is one, so that all estimates are
    measured along the same motion, else on the estimate itself. The value of a perfect
    estimate is that of the reference, ``metric(x, x)``: small, but not zero, since noise,
    light and the errors of the flow count too. A video that is too smooth lies below it.
    A pair of frames without a visible pixel is left out; with no pair left the value is
    NaN.

    :param Callable flow: ``flow(first, second)`` for images ``(B, C, H, W)`` in [0, 1]
        gives the displacement of every pixel of ``first``, in pixels (x, y), shape
        ``(B, H, W, 2)``; by default :func:`optical_flow` (classical, on the CPU).
    :param tuple[float, float] consistency: thresholds of :func:`visible_mask`.
    :param tuple[float, float] clamp: interval that the estimate is projected to before
        the metric, or ``None``.
    :param str, Callable reduction: what to do with the values of a batch: ``'mean'``,
        ``'sum'``, or ``None`` (the default) to return one value per video.
    :raises ValueError: if ``clamp`` is not an interval, or a threshold is negative.

    |sep|

    :Examples:

        >>> import torch
        >>> from deepinv_lvtino.metrics import WarpingError
        >>> pan = torch.rand(1, 3, 16, 40)
        >>> x = torch.stack([pan[..., t : t + 32] for t in range(5)], dim=2)
        >>> def flow(first, second):  # of a camera that moves by one pixel per frame
        ...     step = 1.0 if first[0, 0, 0, 0] == second[0, 0, 0, 1] else -1.0
        ...     return torch.tensor([step, 0.0]).expand(1, 16, 32, 2)
        >>> def back(first, second):
        ...     return -flow(second, first)
        >>> bool(WarpingError(back)(x, x) < 1e-9)
        True

    |sep|

    .. footbibliography::
    """

    def __init__(
        self,
        flow: Flow | None = None,
        *,
        consistency: tuple[float, float] = CONSISTENCY,
        clamp: Clamp = (0.0, 1.0),
        reduction: str | Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        check_clamp(clamp)
        _check_consistency(consistency)
        super().__init__(reduction=reduction)
        self.flow = optical_flow if flow is None else flow
        self.consistency = consistency
        self.clamp = clamp

    def metric(
        self,
        x_net: Tensor | None = None,
        x: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        r"""
        One value per video.

        :param torch.Tensor x_net: estimate, shape ``(B, C, T, H, W)``, two frames or more.
        :param torch.Tensor x: reference of the same shape, whose flow is used; that of the
            estimate by default.
        :return: (:class:`torch.Tensor`) shape ``(B,)``.
        :raises TypeError: if a video is not a floating-point tensor.
        :raises ValueError: if shapes do not fit.
        :raises ImportError: if the default flow is used and OpenCV is missing.
        """
        x_net = check_pair(x_net, x, least_frames=2)
        estimate = clamped(x_net, self.clamp)
        guide = estimate if x is None else x
        errors = []
        for t in range(estimate.shape[2] - 1):
            first, second = guide[:, :, t], guide[:, :, t + 1]
            forward, backward = self.flow(first, second), self.flow(second, first)
            visible = visible_mask(forward, backward, self.consistency)
            moved = warp(estimate[:, :, t + 1], forward)
            error = (moved - estimate[:, :, t]).square().mean(1)
            total = (error * visible).flatten(1).sum(1)
            errors.append(total / visible.flatten(1).sum(1))
        return torch.stack(errors, dim=1).nanmean(1)


def visible_mask(
    forward: Tensor,
    backward: Tensor,
    consistency: tuple[float, float] = CONSISTENCY,
) -> Tensor:
    r"""
    Pixels of an image that are also seen in the next one.

    A pixel :math:`p` counts if :math:`p + f(p)` lies in the image and the flow back from
    there, :math:`b`, returns to it :footcite:p:`sundaram2010dense`:

    .. math::

        \| f(p) + b(p + f(p)) \|^2 \le \alpha \left( \| f(p) \|^2
        + \| b(p + f(p)) \|^2 \right) + \beta

    :param torch.Tensor forward: flow to the next image, in pixels (x, y), shape
        ``(B, H, W, 2)``.
    :param torch.Tensor backward: flow from the next image to this one, of the same shape.
    :param tuple[float, float] consistency: :math:`\alpha`, without unit, and
        :math:`\beta`, in squared pixels.
    :return: (:class:`torch.Tensor`) mask of truth values, shape ``(B, H, W)``.
    :raises ValueError: if the flows are not of one such shape, or a threshold is negative.

    |sep|

    .. footbibliography::
    """
    _check_consistency(consistency)
    if forward.ndim != 4 or forward.shape[-1] != 2 or forward.shape != backward.shape:
        msg = (
            "`forward` and `backward` must be flows of one shape (B, H, W, 2); got "
            f"{tuple(forward.shape)} and {tuple(backward.shape)}."
        )
        raise ValueError(msg)
    height, width = forward.shape[1:3]
    back = warp(backward.permute(0, 3, 1, 2), forward).permute(0, 2, 3, 1)
    gap = (forward + back).square().sum(-1)
    size = forward.square().sum(-1) + back.square().sum(-1)
    alpha, beta = consistency
    columns = torch.arange(width, device=forward.device) + forward[..., 0]
    rows = torch.arange(height, device=forward.device)[:, None] + forward[..., 1]
    inside = (
        (columns >= 0) & (columns <= width - 1) & (rows >= 0) & (rows <= height - 1)
    )
    return inside & (gap <= alpha * size + beta)


def _check_consistency(consistency: tuple[float, float]) -> None:
    if len(consistency) != 2 or min(consistency) < 0:
        msg = (
            "`consistency` must be two thresholds that are 0 or positive; got "
            f"{consistency}."
        )
        raise ValueError(msg)
