r"""DeepInverse's image metrics on video, averaged over the frames."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from deepinv.loss.metric import Metric
from torch import Tensor

from deepinv_lvtino.metrics._checks import Clamp, check_pair, clamped
from deepinv_lvtino.utils import check_clamp


class FrameMetric(Metric):
    r"""
    An image metric on every frame of a video, averaged over the frames.

    .. math::

        m(\hat{x}, x) = \frac{1}{T} \sum_t m_{\text{image}}(\hat{x}_t, x_t)

    Any DeepInverse metric can be wrapped, with or without a reference. What it does to
    its inputs (``norm_inputs``, ``center_crop``, ``complex_abs``) it does to each frame.
    Metrics made for volumes, or for video, need no wrapper. :func:`deepinv.test` and the
    trainer call a metric by the name of its class: to give them several frame metrics,
    derive a class from this one for each.

    The estimate is projected to [0, 1] first, since a sampler's output may leave that
    interval by a little and many metrics are only defined there; the reference is taken
    as it is. For the metric of the raw values, or its gradient, use ``clamp=None``.

    :param deepinv.loss.metric.Metric metric: metric of images ``(N, C, H, W)``, without
        a reduction of its own.
    :param tuple[float, float] clamp: interval that the estimate is projected to before
        the metric, or ``None``.
    :param int frame_batch: frames that the metric works on at once: memory, not value.
    :param bool train_loss: invert a metric of which higher is better, as in
        :class:`deepinv.loss.metric.Metric`.
    :param str, Callable reduction: what to do with the values of a batch: ``'mean'``,
        ``'sum'``, or ``None`` (the default) to return one value per video.
    :raises TypeError: if ``metric`` is not a DeepInverse metric.
    :raises ValueError: if ``metric`` has a reduction, or another argument is not as above.

    |sep|

    :Examples:

        >>> import torch
        >>> from deepinv.loss.metric import PSNR
        >>> from deepinv_lvtino.metrics import FrameMetric
        >>> x = torch.zeros(2, 3, 5, 16, 24)
        >>> FrameMetric(PSNR())(x + 0.1, x)
        tensor([20.0000, 20.0000])
        >>> FrameMetric(PSNR()).per_frame(x + 0.1, x).shape
        torch.Size([2, 5])
    """

    def __init__(
        self,
        metric: Metric,
        *,
        clamp: Clamp = (0.0, 1.0),
        frame_batch: int = 8,
        train_loss: bool = False,
        reduction: str | Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if not isinstance(metric, Metric):
            msg = (
                "`metric` must be a deepinv.loss.metric.Metric, such as "
                f"deepinv.loss.metric.SSIM(); got {type(metric).__name__}."
            )
            raise TypeError(msg)
        if metric.reducer(torch.zeros(2)).shape != (2,):
            msg = (
                "`metric` must return one value per image, but has a reduction. Build it "
                "without, and give `reduction` to FrameMetric."
            )
            raise ValueError(msg)
        check_clamp(clamp)
        if frame_batch < 1:
            msg = f"`frame_batch` must be 1 or more; got {frame_batch}."
            raise ValueError(msg)
        super().__init__(train_loss=train_loss, reduction=reduction)
        self.image_metric = metric
        self.clamp = clamp
        # statistics over a batch of images: those of one frame are meant
        self.frame_batch = 1 if metric.norm_inputs == "standardize" else frame_batch
        self.lower_better = metric.lower_better or metric.train_loss

    def metric(
        self,
        x_net: Tensor | None = None,
        x: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        r"""
        Mean over the frames.

        :param torch.Tensor x_net: estimate, shape ``(B, C, T, H, W)``.
        :param torch.Tensor x: reference of the same shape; ``None`` for a metric without
            one.
        :param args: passed on to the image metric, as are ``kwargs``.
        :return: (:class:`torch.Tensor`) one value per video, shape ``(B,)``.
        :raises TypeError: if a video is not a floating-point tensor.
        :raises ValueError: if shapes do not fit.
        """
        return self.per_frame(x_net, x, *args, **kwargs).mean(1)

    def per_frame(
        self,
        x_net: Tensor | None = None,
        x: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        r"""
        The image metric of every frame.

        :param torch.Tensor x_net: estimate, shape ``(B, C, T, H, W)``.
        :param torch.Tensor x: reference of the same shape; ``None`` for a metric without
            one.
        :param args: passed on to the image metric, as are ``kwargs``.
        :return: (:class:`torch.Tensor`) shape ``(B, T)``.
        :raises TypeError: if a video is not a floating-point tensor.
        :raises ValueError: if shapes do not fit.
        """
        x_net = check_pair(x_net, x)
        batch, _, frames = x_net.shape[:3]
        estimates = clamped(x_net, self.clamp).transpose(1, 2).flatten(0, 1)
        references = None if x is None else x.transpose(1, 2).flatten(0, 1)
        scores = []
        for start in range(0, batch * frames, self.frame_batch):
            part = slice(start, start + self.frame_batch)
            truth = None if references is None else references[part]
            score = self.image_metric(estimates[part], truth, *args, **kwargs)
            scores.append(score.reshape(len(estimates[part])))
        return torch.cat(scores).unflatten(0, (batch, frames))

    def invert_metric(self, m: Tensor) -> Tensor:
        r"""
        Invert as the image metric does.

        :param torch.Tensor m: value of which higher is better.
        :return: (:class:`torch.Tensor`) value of which lower is better.
        """
        return self.image_metric.invert_metric(m)
