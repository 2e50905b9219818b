r"""
The data half-step of a sweep, with its numbers.

The defaults, :class:`ProximalStep` and, with total variation, :class:`VariationStep`,
solve the stated problem (exactly, where the operator has a closed form). The others
repeat what the released LVTINO settings do instead, including their early stops; they
exist for :meth:`Schedule.published`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch
from deepinv.optim import DataFidelity
from deepinv.optim.data_fidelity import L2
from deepinv.optim.linear import conjugate_gradient
from deepinv.physics import Physics
from torch import Tensor

from deepinv_lvtino.optim.data_fidelity import data_weight, prox_l2
from deepinv_lvtino.optim.prox_tv import solve_l2_tv
from deepinv_lvtino.optim.variation import (
    SpaceTimeVariation,
    Variation,
    difference_adjoint,
)
from deepinv_lvtino.utils import check_positive


class DataStep(ABC):
    r"""A map :math:`(z, y) \mapsto u` that pulls a video towards the measurement."""

    #: Whether a schedule that clamps also clamps the result of this step.
    clamped = True

    @abstractmethod
    def __call__(
        self, z: Tensor, y: Tensor, physics: Physics, data_fidelity: DataFidelity
    ) -> Tensor:
        r"""
        Apply the step.

        :param torch.Tensor z: video, shape ``(B, C, T, H, W)``.
        :param torch.Tensor y: measurement.
        :param deepinv.physics.Physics physics: measurement operator.
        :param deepinv.optim.DataFidelity data_fidelity: :math:`g_y`.
        :return: (:class:`torch.Tensor`) video, shape of ``z``.
        """

    def advance(
        self,
        z: Tensor,
        y: Tensor,
        physics: Physics,
        data_fidelity: DataFidelity,
        state: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        r"""
        Apply the step, with a state that is handed from sweep to sweep.

        :param torch.Tensor z: video, shape ``(B, C, T, H, W)``.
        :param torch.Tensor y: measurement.
        :param deepinv.physics.Physics physics: measurement operator.
        :param deepinv.optim.DataFidelity data_fidelity: :math:`g_y`.
        :param torch.Tensor state: what the step of the sweep before has left, or ``None``.
        :return: (tuple) video and new state; steps without one hand it on.
        """
        return self(z, y, physics, data_fidelity), state


@dataclass(frozen=True)
class ProximalStep(DataStep):
    r"""
    Proximal step on the data fidelity (LVTINO, Algorithm 1).

    .. math::

        u = \underset{u}{\arg\min} \; g_y(u) + \frac{1}{2 \tau} \|u - z\|^2

    :param float stepsize: :math:`\tau`, that is :math:`\delta \eta` after the video model
        and :math:`\delta (1 - \eta)` after the image model, in squared [0, 1] pixel units.
    :raises ValueError: if ``stepsize`` is not positive.
    """

    stepsize: float

    def __post_init__(self) -> None:
        check_positive("stepsize", self.stepsize)

    def __call__(
        self, z: Tensor, y: Tensor, physics: Physics, data_fidelity: DataFidelity
    ) -> Tensor:
        if type(data_fidelity) is L2:
            weight = self.stepsize * data_fidelity.norm
            return prox_l2(physics, z, y, weight)
        return data_fidelity.prox(z, y, physics, gamma=self.stepsize)


@dataclass(frozen=True)
class VariationStep(DataStep):
    r"""
    Proximal step on data fidelity and total variation together (LVTINO, Algorithm 1).

    .. math::

        u = \underset{u}{\arg\min} \; g_y(u) + \lambda \, \mathrm{TV}(u)
        + \frac{1}{2 \tau} \|u - z\|^2

    solved to a tolerance by :func:`deepinv_lvtino.optim.prox_l2_tv`; the dual variable is
    the state that goes from sweep to sweep.

    :param float stepsize: :math:`\tau`, as in :class:`ProximalStep`.
    :param Variation variation: the total variation.
    :param float weight: :math:`\lambda`, per unit of intensity.
    :param dict options: ``solver``, ``tol`` and ``max_iter`` of the solver.
    :raises ValueError: if a number is not positive.
    """

    stepsize: float
    variation: Variation
    weight: float
    options: dict[str, Any] = field(default_factory=lambda: {"tol": 1e-3})

    def __post_init__(self) -> None:
        check_positive("stepsize", self.stepsize)
        check_positive("weight", self.weight)

    def __call__(
        self, z: Tensor, y: Tensor, physics: Physics, data_fidelity: DataFidelity
    ) -> Tensor:
        return self.advance(z, y, physics, data_fidelity, None)[0]

    def advance(
        self,
        z: Tensor,
        y: Tensor,
        physics: Physics,
        data_fidelity: DataFidelity,
        state: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        if state is not None:  # of another step size: the dual scales with it
            state = state * self.stepsize
        result = solve_l2_tv(
            z,
            y,
            physics,
            self.stepsize * data_weight(data_fidelity, physics),
            self.stepsize * self.weight,
            self.variation,
            dual=state,
            **self.options,
        )
        dual = None if result.dual is None else result.dual / self.stepsize
        return result.video, dual


@dataclass(frozen=True)
class GammaStep(DataStep):
    r"""
    Proximal step with a given weight, whatever noise the physics declares.

    .. math::

        u = \underset{u}{\arg\min} \; \frac{\gamma}{2} \|A u - y\|^2
        + \frac{1}{2} \|u - z\|^2

    :param float gamma: :math:`\gamma`.
    :raises ValueError: if ``gamma`` is not positive.
    """

    gamma: float

    def __post_init__(self) -> None:
        check_positive("gamma", self.gamma)

    def __call__(
        self, z: Tensor, y: Tensor, physics: Physics, data_fidelity: DataFidelity
    ) -> Tensor:
        return prox_l2(physics, z, y, self.gamma)


@dataclass(frozen=True)
class ConjugateGradientStep(DataStep):
    r"""
    A few conjugate-gradient steps on :math:`(A^{\top} A + \epsilon I) u = A^{\top} y`.

    They start at :math:`z`, and the early stop stands in for the quadratic term.

    :param int num_steps: number of steps.
    :param float epsilon: :math:`\epsilon`.
    """

    num_steps: int
    epsilon: float = 1e-6
    clamped = False

    def __call__(
        self, z: Tensor, y: Tensor, physics: Physics, data_fidelity: DataFidelity
    ) -> Tensor:
        return conjugate_gradient(
            lambda u: physics.A_adjoint_A(u) + self.epsilon * u,
            physics.A_adjoint(y),
            max_iter=self.num_steps,
            tol=0.0,
            eps=torch.finfo(z.dtype).tiny,
            init=z,
        )


@dataclass(frozen=True)
class PrimalDualTVStep(DataStep):
    r"""
    A few primal-dual steps on :math:`\frac12 \|A u - y\|^2 + \lambda \|D_t u\|_1`.

    :math:`D_t` is the temporal difference. The iteration is that of Condat and Vu,
    started at :math:`z` with zero dual variable; there is no quadratic term, and the early
    stop stands in for it.

    :param int num_steps: number of steps.
    :param float lam: :math:`\lambda` for videos in [-1, 1], as published (half of it acts
        on videos in [0, 1]).
    :param float tau: primal step.
    :param float sigma: dual step.
    """

    num_steps: int
    lam: float
    tau: float = 0.25
    sigma: float = 0.25
    clamped = False

    def __call__(
        self, z: Tensor, y: Tensor, physics: Physics, data_fidelity: DataFidelity
    ) -> Tensor:
        bound = self.lam / 2
        target = physics.A_adjoint(y)
        u, dual = z, torch.zeros_like(z[:, :, 1:])
        for _ in range(self.num_steps):
            gradient = physics.A_adjoint_A(u) - target + difference_adjoint(dual, 2)
            new = u - self.tau * gradient
            dual = dual + self.sigma * torch.diff(2 * new - u, dim=2)
            dual = dual.clamp_(-bound, bound)
            u = new
        return u


@dataclass(frozen=True)
class AdamTVStep(DataStep):
    r"""
    A few Adam steps on :math:`\frac12 \|A u - y\|^2 + \lambda \mathrm{TV}_\epsilon(u)`.

    The total variation is isotropic over time, height and width, smoothed as
    :math:`\sqrt{|\nabla u|^2 + \epsilon^2}`; differentiation is automatic, through the
    physics only.

    :param int num_steps: number of steps.
    :param float lam: :math:`\lambda` for videos in [-1, 1], as published.
    :param float learning_rate: Adam's step for videos in [-1, 1], as published.
    :param float smoothing: :math:`\epsilon` for videos in [-1, 1], as published.
    """

    num_steps: int
    lam: float
    learning_rate: float
    smoothing: float = 1e-2
    clamped = False

    def __call__(
        self, z: Tensor, y: Tensor, physics: Physics, data_fidelity: DataFidelity
    ) -> Tensor:
        variation = SpaceTimeVariation(smoothing=self.smoothing / 2)
        with torch.enable_grad():
            u = z.detach().clone().requires_grad_()
            optimizer = torch.optim.Adam([u], lr=self.learning_rate / 2)
            for _ in range(self.num_steps):
                optimizer.zero_grad()
                data = 0.5 * (physics.A(u) - y).square().sum()
                (data + self.lam / 2 * variation(u).sum()).backward()
                optimizer.step()
        return u.detach()
