r"""Total variation along motion as a reconstructor, with the call of :class:`LVTINO`."""

from __future__ import annotations

from typing import Any

import torch
from deepinv.optim import BaseOptim, DataFidelity, OptimIterator
from deepinv.optim.optim_iterators.optim_iterator import fStep, gStep
from deepinv.physics import Physics
from torch import Tensor

from deepinv_lvtino.flow import optical_flow
from deepinv_lvtino.optim._channels import channels
from deepinv_lvtino.optim.data_fidelity import GaussianLikelihood
from deepinv_lvtino.optim.inverse import filled_inverse
from deepinv_lvtino.optim.measured_motion import start_motion
from deepinv_lvtino.optim.tv.along_motion import MotionVariation
from deepinv_lvtino.optim.tv.motion import Flow, video_motion
from deepinv_lvtino.optim.variation_start import tv_start
from deepinv_lvtino.physics import VideoInpainting
from deepinv_lvtino.utils import check_counts, check_positive


class MotionTV(BaseOptim):
    r"""
    Total variation along the motion of the video, by primal-dual steps.

    .. math::

        \underset{x}{\arg\min} \; \frac{1}{2 \sigma^2} \|A x - y\|^2
        + \lambda \sum \sqrt{ (K_t x)^2 + (\partial_h x)^2 + (\partial_w x)^2 }

    with the differences :math:`K_t` along the flow (:class:`MotionVariation`). The run
    starts from total variation that stands still (:func:`tv_start`; behind a mask from
    :func:`filled_inverse`, of which that knows less), with the flow of the measured frames
    where they are fewer than the video's, else of that start
    (:func:`start_motion`); in every further round flow and trust are those of the video so
    far. Each iteration (:class:`MotionTVIteration`) takes one exact data step.

    :param float lambda_reg: weight :math:`\lambda`, per unit of intensity.
    :param float time_weight: weight of differences along a trusted flow.
    :param float static_weight: weight of other differences in time.
    :param Callable, torch.Tensor, Motion flow: how to estimate the flow, for instance by a
        network, or the flow itself, without or with the trust in it; see
        :func:`deepinv_lvtino.optim.video_motion`.
    :param int rounds: how often the motion is estimated.
    :param int max_iter: iterations of each round.
    :param deepinv.optim.DataFidelity data_fidelity: data fidelity; by default the Gaussian
        likelihood with the noise that the physics declares.
    :param float stepsize: primal step :math:`\tau` of Chambolle and Pock's iteration, in
        squared intensity units; it sets the speed, not the limit. :math:`0.005 / \lambda`
        by default.
    :param kwargs: further arguments of :class:`deepinv.optim.BaseOptim`, such as
        ``custom_metrics``.
    :raises ValueError: if a number is out of range.

    |sep|

    :Examples:

        >>> import torch
        >>> from deepinv_lvtino import make_problem
        >>> from deepinv_lvtino.optim import MotionTV
        >>> physics = make_problem("A", img_size=(3, 8, 32, 32))
        >>> y = physics(torch.rand(1, 3, 8, 32, 32))
        >>> MotionTV(rounds=2, max_iter=5)(y, physics).shape
        torch.Size([1, 3, 8, 32, 32])
    """

    def __init__(
        self,
        lambda_reg: float = 5.0,
        time_weight: float = 3.0,
        static_weight: float = 1.0,
        *,
        flow: Flow = optical_flow,
        rounds: int = 3,
        max_iter: int = 30,
        data_fidelity: DataFidelity | None = None,
        stepsize: float | None = None,
        **kwargs: Any,
    ) -> None:
        check_positive("lambda_reg", lambda_reg)
        check_counts(rounds=rounds, max_iter=max_iter)
        if stepsize is None:
            stepsize = 0.005 / lambda_reg
        check_positive("stepsize", stepsize)
        super().__init__(
            MotionTVIteration(),
            params_algo={
                "lambda": float(lambda_reg),
                "stepsize": float(stepsize),
                "renew": [k % max_iter == 0 for k in range(rounds * max_iter)],
            },
            data_fidelity=(
                GaussianLikelihood() if data_fidelity is None else data_fidelity
            ),
            prior=MotionVariation(None, time_weight, static_weight, flow=flow),
            max_iter=rounds * max_iter,
            early_stop=False,
            custom_init=kwargs.pop("custom_init", _begin),
            **kwargs,
        )
        self.eval()


def _begin(y: Tensor, physics: Physics) -> Tensor:
    start = filled_inverse if isinstance(physics, VideoInpainting) else tv_start
    return start(y, physics)


class MotionTVIteration(OptimIterator):
    r"""
    One iteration of :class:`MotionTV` :footcite:p:`chambolle2011first` (Algorithm 1).

    .. math::

        p &\leftarrow \operatorname{proj}_{|p| \le \lambda} (p + \sigma K \bar{x}) \\
        x^+ &\leftarrow \operatorname{prox}_{\tau f} (x - \tau K^{\top} p) \\
        \bar{x} &\leftarrow 2 x^+ - x, \qquad x \leftarrow x^+

    with :math:`\sigma = 1 / (\tau \|K\|^2)`. Where the parameters say so, the motion is
    estimated anew before; the dual variable goes on.

    |sep|

    .. footbibliography::
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(has_cost=False, g_first=True, **kwargs)
        self.f_step = fStepMotionTV(g_first=True)
        self.g_step = gStepMotionTV(g_first=True)

    def forward(
        self,
        X: dict[str, Any],
        cur_data_fidelity: DataFidelity,
        cur_prior: MotionVariation,
        cur_params: dict[str, Any],
        y: Tensor,
        physics: Physics,
        *args: Any,
        **kwargs: Any,
    ) -> dict[str, Any]:
        r"""
        Run one iteration.

        :param dict X: iterate ``{"est": (x, ahead, p, variation), "cost": None}``, or
            ``{"est": (x,), ...}`` to start, which is kept; the others are overwritten.
        :param deepinv.optim.DataFidelity cur_data_fidelity: data fidelity.
        :param MotionVariation cur_prior: the variation.
        :param dict cur_params: ``"lambda"``, ``"stepsize"`` and ``"renew"``, whether to
            estimate the motion.
        :param torch.Tensor y: measurement.
        :param deepinv.physics.Physics physics: measurement operator.
        :return: (dict) the next iterate.
        """
        if len(X["est"]) == 4:
            x, ahead, p, variation = X["est"]
            if cur_params["renew"]:
                motion = video_motion(x.clamp(0, 1), cur_prior.flow)
                variation = cur_prior.with_motion(motion)
        else:
            x = X["est"][0].clone()
            ahead = x.clone()
            p = x.new_zeros((len(x), 3, *x.shape[1:]))
            motion = start_motion(y, physics, x, cur_prior.flow)
            variation = cur_prior.with_motion(motion)
        for c, part in channels(physics, len(x)):
            old, dual = x[:, c], p[:, :, c]
            self.g_step(ahead[:, c], variation, cur_params, dual)
            new = self.f_step(
                old, dual, variation, cur_data_fidelity, cur_params, y[:, c], part
            )
            torch.lerp(old, new, 2.0, out=ahead[:, c])
            old.copy_(new)
        return {"est": (x, ahead, p, variation), "cost": None}


class gStepMotionTV(gStep):
    r"""Dual step of :class:`MotionTVIteration`, in place."""

    def forward(
        self,
        ahead: Tensor,
        variation: MotionVariation,
        cur_params: dict[str, Any],
        p: Tensor,
    ) -> Tensor:
        r"""
        Ascend in the dual variable and project it.

        :param torch.Tensor ahead: extrapolated video.
        :param MotionVariation variation: variation along the present motion.
        :param dict cur_params: ``"stepsize"`` and ``"lambda"``.
        :param torch.Tensor p: dual variable, overwritten.
        :return: (:class:`torch.Tensor`) ``p``.
        """
        step = 1 / (float(cur_params["stepsize"]) * variation.sqnorm)
        return variation.ascend_(p, ahead, step, float(cur_params["lambda"]))


class fStepMotionTV(fStep):
    r"""Data step of :class:`MotionTVIteration`."""

    def forward(
        self,
        x: Tensor,
        p: Tensor,
        variation: MotionVariation,
        cur_data_fidelity: DataFidelity,
        cur_params: dict[str, Any],
        y: Tensor,
        physics: Physics,
    ) -> Tensor:
        r"""
        Descend along the dual variable, then towards the measurement.

        :param torch.Tensor x: video.
        :param torch.Tensor p: dual variable.
        :param MotionVariation variation: variation along the present motion.
        :param deepinv.optim.DataFidelity cur_data_fidelity: data fidelity.
        :param dict cur_params: ``"stepsize"``.
        :param torch.Tensor y: measurement.
        :param deepinv.physics.Physics physics: measurement operator.
        :return: (:class:`torch.Tensor`) video.
        """
        tau = float(cur_params["stepsize"])
        moved = torch.sub(x, variation.adjoint(p), alpha=tau)
        return cur_data_fidelity.prox(moved, y, physics, gamma=tau)
