r"""Total variation along the motion of a video instead of along a pixel's time axis."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from deepinv_lvtino.flow import (
    as_images,
    as_video,
    gather,
    optical_flow,
    sampling_grid,
    scatter,
)
from deepinv_lvtino.optim.tv.motion import Flow, Motion, video_motion
from deepinv_lvtino.optim.tv.variation import SpaceTimeVariation
from deepinv_lvtino.utils import check_positive

#: Trust below which a pixel's difference in time is taken where it stands.
LEAST_TRUST = 0.2


class MotionVariation(SpaceTimeVariation):
    r"""
    Isotropic total variation over height, width and the trajectory of every pixel.

    .. math::

        \mathrm{TV}(u) = \sum \sqrt{ (K_t u)^2 + (\partial_h u)^2 + (\partial_w u)^2 },
        \qquad K_t u = d_t \, w_t \, (W_t u_{t+1} - u_t)

    with :math:`W_t` the bilinear warp along the flow from frame :math:`t` to the next and
    :math:`w_t = s + m_t (w - s)` the weight that follows from the trust :math:`m_t` in
    it. Where it is not trusted (below 0.2, ``LEAST_TRUST``) :math:`W_t` is the identity:
    that part is :class:`SpaceTimeVariation` with weight :math:`s`. Where several pixels
    flow to the same place, at occlusions, they share its weight:
    :math:`d_t = \min(1, (W_t W_t^{\top} 1)^{-1/2})`, which also bounds
    :math:`\|d_t W_t\|` by 1 (Schur's test).

    Without ``motion`` it is that of the video at hand, estimated anew by :meth:`at`.

    :param Motion motion: flow and trust, for instance of
        :func:`deepinv_lvtino.optim.video_motion`; estimated by default.
    :param float time_weight: :math:`w`, of a difference along a trusted flow.
    :param float static_weight: :math:`s`, of any other.
    :param Callable, torch.Tensor flow: how to estimate the motion, or the flow of the user
        whose trust is estimated; see :func:`deepinv_lvtino.optim.video_motion`.
    :raises ValueError: if a weight is not positive.
    :raises TypeError: if ``motion`` is not a :class:`Motion`.

    |sep|

    :Examples:

        >>> import torch
        >>> from deepinv_lvtino.optim import Motion, MotionVariation
        >>> x = torch.eye(4).view(1, 1, 4, 1, 4)  # a dot that moves to the right
        >>> flow = torch.tensor([1.0, 0.0]).expand(1, 3, 1, 4, 2)
        >>> moving = MotionVariation(Motion(flow, torch.ones(1, 3, 1, 4)))
        >>> still = MotionVariation(Motion(0 * flow, torch.ones(1, 3, 1, 4)))
        >>> bool(moving(x) < still(x))
        True
    """

    def __init__(
        self,
        motion: Motion | None = None,
        time_weight: float = 3.0,
        static_weight: float = 1.0,
        *,
        flow: Flow = optical_flow,
    ) -> None:
        check_positive("time_weight", time_weight)
        check_positive("static_weight", static_weight)
        # the larger one bounds the norm
        super().__init__(max(time_weight, static_weight))
        if motion is not None and not isinstance(motion, Motion):
            msg = (
                "`motion` must be a Motion, flow and trust; got "
                f"{type(motion).__name__}. A flow alone is given as `flow`."
            )
            raise TypeError(msg)
        self.time_weight = time_weight
        self.static_weight = static_weight
        self.flow = flow
        self.motion = motion
        grid, weight = (None, None) if motion is None else self._along(motion)
        self.register_buffer("_grid", grid, persistent=False)
        self.register_buffer("_weight", weight, persistent=False)

    def at(self, video: Tensor) -> MotionVariation:
        r"""
        The same variation with the motion of a video, unless it has one.

        :param torch.Tensor video: shape ``(B, C, T, H, W)``.
        :return: (:class:`MotionVariation`) variation with linear differences.
        """
        if self.motion is not None:
            return self
        return self.with_motion(video_motion(video.clamp(0, 1), self.flow))

    def of_element(self, i: int) -> MotionVariation:
        r"""
        The variation along the motion of one video of a batch.

        :param int i: which one.
        :return: (:class:`MotionVariation`) the variation.
        """
        if self.motion is None or len(self.motion.trust) == 1:
            return self
        one = slice(i, i + 1)
        return self.with_motion(Motion(self.motion.flow[one], self.motion.trust[one]))

    def with_motion(self, motion: Motion) -> MotionVariation:
        r"""
        The same variation with another motion.

        :param Motion motion: flow and trust.
        :return: (:class:`MotionVariation`) the variation.
        """
        return MotionVariation(
            motion, self.time_weight, self.static_weight, flow=self.flow
        )

    def _add_differences(
        self, d: Tensor, u: Tensor, parts: Sequence[int], factor: float = 1.0
    ) -> None:
        if 0 in parts and u.shape[2] > 1:
            grid, weight = self._needed(u)
            ahead = as_video(gather(as_images(u[:, :, 1:]), grid), len(u))
            d[:, 0, :, :-1].addcmul_(ahead.sub_(u[:, :, :-1]), weight, value=factor)
        super()._add_differences(d, u, [i for i in parts if i > 0], factor)

    def _add_adjoint(self, u: Tensor, p: Tensor, parts: Sequence[int]) -> None:
        if 0 in parts and u.shape[2] > 1:
            grid, weight = self._needed(u)
            along = p[:, 0, :, :-1] * weight
            u[:, :, :-1].sub_(along)
            u[:, :, 1:].add_(as_video(scatter(as_images(along), grid), len(u)))
        super()._add_adjoint(u, p, [i for i in parts if i > 0])

    def _needed(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Grid and weights for a video, or one channel of it."""
        if self.motion is None:
            msg = (
                "MotionVariation has no `motion` yet: its differences are those along the "
                "motion of a video. Take `variation.at(video)`, or give `motion`."
            )
            raise ValueError(msg)
        batch, frames, height, width = self.motion.trust.shape
        if u.shape[2:] != (frames + 1, height, width) or len(u) % batch:
            msg = (
                f"`motion` is that of {batch} videos of {(frames + 1, height, width)} "
                f"frames, rows and columns; got a video of shape {tuple(u.shape)}."
            )
            raise ValueError(msg)
        repeats = len(u) // batch
        if repeats == 1:
            return self._grid, self._weight
        grid = self._grid.view(batch, frames, height, width, 2)
        grid = grid.repeat_interleave(repeats, 0).flatten(0, 1)
        return grid, self._weight.repeat_interleave(repeats, 0)

    def _along(self, motion: Motion) -> tuple[Tensor, Tensor]:
        """Places the warp reads, as one batch, and weights, shape (B, 1, T - 1, H, W)."""
        trust = motion.trust
        if trust.numel() == 0:
            return motion.flow.flatten(0, 1), trust[:, None]
        trusted = trust >= LEAST_TRUST
        grid = sampling_grid((motion.flow * trusted[..., None]).flatten(0, 1))
        ones = torch.ones_like(trust.flatten(0, 1)[:, None])
        crowd = gather(scatter(ones, grid), grid)[:, 0].view_as(trust)
        weight = self.static_weight + trust * trusted * (
            self.time_weight - self.static_weight
        )
        return grid, (weight * crowd.clamp(min=1).rsqrt())[:, None]
