r"""
The data half-step of a sweep, with its numbers.

The defaults, :class:`ProximalStep` and, with total variation, :class:`VariationStep`,
solve the stated problem (exactly, where the operator has a closed form). The others
repeat what the released LVTINO settings do instead, including their early stops; they
exist for :meth:`Schedule.published`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from deepinv.optim import DataFidelity
from deepinv.optim.data_fidelity import L2
from deepinv.physics import Physics
from torch import Tensor

from deepinv_lvtino.optim.data_fidelity import (
    GaussianLikelihood,
    data_weight,
    has_prox,
    prox_l2,
)
from deepinv_lvtino.optim.tv.problem import TVOptions, TVProblem
from deepinv_lvtino.optim.tv.solve import solve_l2_tv
from deepinv_lvtino.optim.tv.variation import (
    SpaceTimeVariation,
    Variation,
    difference_adjoint,
)
from deepinv_lvtino.utils import (
    check_clamp,
    check_integer,
    check_number,
    check_positive,
)

#: An interval of pixel values, or no projection.
Interval = tuple[float, float] | None


def _check_num_steps(num_steps: int) -> None:
    check_positive("num_steps", num_steps)
    check_integer("num_steps", num_steps)


class DataStep(ABC):
    r"""
    A map :math:`(z, y) \mapsto u` that pulls a video towards the measurement.

    The interval that videos are projected to is the schedule's (``clamp``). A step says
    what of it is projected: its result (``clamped = True``, the default) or nothing
    (``clamped = False``); what is projected in between, :meth:`within` tells it.
    """

    #: Whether a schedule that clamps also clamps the result of this step.
    clamped = True

    def within(self, interval: Interval) -> DataStep:
        r"""
        This step under a schedule that clamps.

        :param tuple[float, float] interval: the interval of the schedule, or ``None``.
        :return: (:class:`DataStep`) the step; another one where iterates inside of it are
            projected too (:class:`AdamTVStep`).
        """
        return self

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

    def check(self, physics: Physics, data_fidelity: DataFidelity) -> None:
        r"""
        Refuse an operator for which there is no such step, before anything is computed.

        :param deepinv.physics.Physics physics: measurement operator.
        :param deepinv.optim.DataFidelity data_fidelity: :math:`g_y`.
        :raises NotImplementedError: if there is none.
        """
        return

    def with_variation(
        self, variation: Variation, weight: float, options: dict[str, Any]
    ) -> DataStep:
        r"""
        This step with total variation in what it minimises.

        :param Variation variation: the total variation.
        :param float weight: :math:`\lambda`, per unit of intensity.
        :param dict options: see :class:`VariationStep`.
        :return: (:class:`DataStep`) the step.
        :raises ValueError: if it minimises something of its own.
        """
        msg = (
            "`tv` needs a schedule with proximal steps (Schedule.calibrated, or "
            f"numbers in Schedule.explicit); got a {type(self).__name__}, "
            "which says itself what it solves."
        )
        raise ValueError(msg)


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

    def check(self, physics: Physics, data_fidelity: DataFidelity) -> None:
        quadratic = isinstance(data_fidelity, (GaussianLikelihood, L2))
        if quadratic and not has_prox(physics):
            msg = (
                f"`physics` ({type(physics).__name__}) is not linear and has no "
                "proximal step, but the data steps of `schedule` are such; for "
                'JPEG use `schedule=Schedule.published("jpeg")`, else data steps '
                "of the kind `deepinv_lvtino.optim.LandweberStep`."
            )
            raise NotImplementedError(msg)

    def with_variation(
        self, variation: Variation, weight: float, options: dict[str, Any]
    ) -> VariationStep:
        return VariationStep(self.stepsize, variation, weight, options)


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
        if not isinstance(self.variation, Variation):
            msg = (
                "`variation` must be a Variation, such as TemporalVariation(); got "
                f"{self.variation!r}."
            )
            raise TypeError(msg)

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
        problem = TVProblem(
            z,
            y,
            physics,
            gamma=self.stepsize * data_weight(data_fidelity, physics),
            lam=self.stepsize * self.weight,
            variation=self.variation,
        )
        result = solve_l2_tv(problem, TVOptions(**self.options), state)
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
    A few conjugate-gradient steps on a nearly plain least-squares problem.

    .. math::

        (A^{\top} A + \epsilon I) \, u = A^{\top} y + \epsilon z

    They start at :math:`z`. For :math:`\epsilon > 0` their limit is the proximal step of
    weight :math:`1 / \epsilon`; for :math:`\epsilon = 0` it is the point nearest to
    :math:`z` that explains the measurement best. The result is not projected.

    A video of the batch is left alone once the norm of its residual is below ``tol``, or
    below what the precision can give: further steps would follow rounding errors, which
    :math:`A` does not see.

    :param int num_steps: number of steps, at most.
    :param float epsilon: :math:`\epsilon`, 0 or positive.
    :param float tol: norm of the residual for videos in [-1, 1], as published.
    :raises ValueError: if ``num_steps`` or ``tol`` is not positive, or ``epsilon`` is
        negative.
    """

    num_steps: int
    epsilon: float = 1e-6
    tol: float = 1e-6
    clamped = False

    def __post_init__(self) -> None:
        _check_num_steps(self.num_steps)
        check_positive("tol", self.tol)
        check_number("epsilon", self.epsilon, least=0)

    def __call__(
        self, z: Tensor, y: Tensor, physics: Physics, data_fidelity: DataFidelity
    ) -> Tensor:
        def system(u: Tensor) -> Tensor:
            return physics.A_adjoint_A(u) + self.epsilon * u

        target = physics.A_adjoint(y) + self.epsilon * z
        precision = torch.finfo(z.dtype).eps ** 2 * _energy(target)
        least = precision.clamp(min=(self.tol / 2) ** 2)
        u, residual = z, target - system(z)
        direction, energy = residual, _energy(residual)
        for _ in range(self.num_steps):
            active = energy > least
            if not bool(active.any()):
                break
            image = system(direction)
            slope = (direction * image).flatten(1).sum(1).reshape_as(energy)
            step = torch.where(active, energy / slope, 0.0)
            u = u + step * direction
            residual = residual - step * image
            before, energy = energy, _energy(residual)
            direction = residual + torch.where(active, energy / before, 0.0) * direction
        return u


def _energy(x: Tensor) -> Tensor:
    """Squared norm of every video of a batch, shape ``(B, 1, ...)``."""
    return x.flatten(1).square().sum(1).reshape(-1, *[1] * (x.ndim - 1))


@dataclass(frozen=True)
class PrimalDualTVStep(DataStep):
    r"""
    A few primal-dual steps on :math:`\frac12 \|A u - y\|^2 + \lambda \|D_t u\|_1`.

    :math:`D_t` is the temporal difference. The iteration is that of
    :footcite:t:`chambolle2011first` with two dual variables, one for :math:`A u` and one
    for :math:`D_t u`, both updated at the extrapolated point :math:`\bar u`:

    .. math::

        q &\leftarrow \frac{q + \sigma (A \bar u - y)}{1 + \sigma}, \qquad
        p \leftarrow \operatorname{clip}_{[-\lambda, \lambda]}
        (p + \sigma D_t \bar u), \\
        u^+ &= u - \tau (A^{\top} q + D_t^{\top} p), \qquad
        \bar u = 2 u^+ - u.

    It starts at :math:`u = \bar u = z` with zero dual variables; there is no quadratic
    term, and the early stop stands in for it.

    :param int num_steps: number of steps.
    :param float lam: :math:`\lambda` for videos in [-1, 1], as published (half of it acts
        on videos in [0, 1]).
    :param float tau: primal step :math:`\tau`.
    :param float sigma: dual step :math:`\sigma`; the iteration converges for
        :math:`\tau \sigma (\|A\|^2 + 4) \le 1`.
    :raises ValueError: if an argument is not positive.

    |sep|

    .. footbibliography::
    """

    num_steps: int
    lam: float
    tau: float = 0.25
    sigma: float = 0.25

    def __post_init__(self) -> None:
        _check_num_steps(self.num_steps)
        for name in ("lam", "tau", "sigma"):
            check_positive(name, getattr(self, name))

    def __call__(
        self, z: Tensor, y: Tensor, physics: Physics, data_fidelity: DataFidelity
    ) -> Tensor:
        bound = self.lam / 2
        u = ahead = z
        misfit, slope = 0.0 * y, torch.zeros_like(z[:, :, 1:])
        for _ in range(self.num_steps):
            misfit = (misfit + self.sigma * (physics.A(ahead) - y)) / (1 + self.sigma)
            slope = slope + self.sigma * torch.diff(ahead, dim=2)
            slope = slope.clamp_(-bound, bound)
            pull = physics.A_adjoint(misfit) + difference_adjoint(slope, 2)
            new = u - self.tau * pull
            u, ahead = new, 2 * new - u
        return u


@dataclass(frozen=True)
class AdamTVStep(DataStep):
    r"""
    A few Adam steps on :math:`\frac12 \|A u - y\|^2 + \lambda \mathrm{TV}_\epsilon(u)`.

    The total variation is isotropic over time, height and width, smoothed as
    :math:`\sqrt{|\nabla u|^2 + \epsilon^2}`; differentiation is automatic, through the
    physics only. The steps are those that Adam takes on videos in [-1, 1], with its
    defaults there. A schedule that clamps projects the video after every one of them.

    :param int num_steps: number of steps.
    :param float lam: :math:`\lambda` for videos in [-1, 1], as published.
    :param float learning_rate: Adam's step for videos in [-1, 1], as published.
    :param float smoothing: :math:`\epsilon` for videos in [-1, 1], as published.
    :param tuple[float, float] clamp: interval that the video is projected to after every
        step; that of the schedule by default.
    :raises ValueError: if a number is not positive, or ``clamp`` is not an interval.
    """

    num_steps: int
    lam: float
    learning_rate: float
    smoothing: float = 1e-2
    clamp: Interval = None

    def __post_init__(self) -> None:
        _check_num_steps(self.num_steps)
        for name in ("lam", "learning_rate", "smoothing"):
            check_positive(name, getattr(self, name))
        check_clamp(self.clamp)

    def within(self, interval: Interval) -> AdamTVStep:
        return self if self.clamp is not None else replace(self, clamp=interval)

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
                # Twice: the slope that Adam, which adds a small number to its size, is
                # given is that of the loss for videos in [-1, 1].
                (2 * (data + self.lam / 2 * variation(u).sum())).backward()
                optimizer.step()
                if self.clamp is not None:
                    with torch.no_grad():
                        u.clamp_(*self.clamp)
        return u.detach()
