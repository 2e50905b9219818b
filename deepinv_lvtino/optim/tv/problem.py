r"""Data fidelity and total variation together: the problem, how to solve it, the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deepinv_lvtino.optim.tv.abstract import AbstractVariation
from deepinv_lvtino.physics.functional import check_choice
from deepinv_lvtino.utils import (
    check_integer,
    check_number,
    check_positive,
    check_video,
)

#: Iterations between two evaluations of the gap.
CHECK_EVERY = 10

#: Names of the solvers.
SOLVERS = ("auto", "admm", "chambolle_pock", "adam")


@dataclass(frozen=True, eq=False)
class TVProblem:
    r"""
    Proximal step of data fidelity and total variation together.

    .. math::

        \underset{u}{\arg\min} \; \frac{\gamma}{2} \|A u - y\|^2
        + \lambda \, \mathrm{TV}(u) + \frac12 \|u - z\|^2

    :func:`solve_l2_tv` solves it.

    :param torch.Tensor z: centre, shape ``(B, C, T, H, W)``.
    :param torch.Tensor y: measurement; not used if ``gamma`` is 0.
    :param deepinv.physics.Physics physics: operator; not used if ``gamma`` is 0.
    :param float gamma: weight :math:`\gamma \ge 0` of the data.
    :param float lam: weight :math:`\lambda \ge 0` of the variation.
    :param Variation variation: the total variation, such as :class:`TemporalVariation`.
    :raises ValueError: if a number is out of range, or a shape does not fit.
    :raises TypeError: if ``variation`` is not one.
    """

    z: Tensor
    y: Any  # a tensor, or None together with the physics
    physics: Any
    gamma: float
    lam: float
    variation: AbstractVariation

    def __post_init__(self) -> None:
        check_video("z", self.z)
        if not isinstance(self.variation, AbstractVariation):
            msg = (
                "`variation` must be a Variation, such as TemporalVariation(); got "
                f"{self.variation!r}."
            )
            raise TypeError(msg)
        for name in ("gamma", "lam"):
            value = check_number(name, getattr(self, name), least=0)
            object.__setattr__(self, name, value)
        if self.gamma > 0 and (self.y is None or self.physics is None):
            msg = (
                "`y` and `physics` are needed unless `gamma` is 0; one of them is None."
            )
            raise ValueError(msg)
        if self.gamma == 0:
            object.__setattr__(self, "y", None)
            object.__setattr__(self, "physics", None)

    @property
    def exact(self) -> bool:
        r"""Whether the quadratic part has an exact proximal step."""
        return self.physics is None or getattr(self.physics, "exact_prox", False)

    def quadratic(self, u: Tensor) -> Tensor:
        r"""
        Data term and distance to the centre, summed over the batch.

        :param torch.Tensor u: video, shape ``(B, C, T, H, W)``.
        :return: (:class:`torch.Tensor`) one value.
        """
        value = 0.5 * (u - self.z).square().sum()
        if self.physics is not None:
            value = value + self.gamma / 2 * (self.physics.A(u) - self.y).square().sum()
        return value

    def objective(self, u: Tensor) -> Tensor:
        r"""
        What is minimised, summed over the batch.

        :param torch.Tensor u: video, shape ``(B, C, T, H, W)``.
        :return: (:class:`torch.Tensor`) one value.
        """
        return self.quadratic(u) + self.lam * self.variation.value(u).sum()

    def prox_quadratic(self, x: Tensor, tau: float) -> Tensor:
        r"""
        Proximal step of :math:`\tau` times :meth:`quadratic`.

        :param torch.Tensor x: where from.
        :param float tau: :math:`\tau`.
        :return: (:class:`torch.Tensor`) video, shape ``(B, C, T, H, W)``.
        """
        centre = (x + tau * self.z) / (1 + tau)
        if self.physics is None:
            return centre
        return self.physics.prox_l2(centre, self.y, self.gamma * tau / (1 + tau))

    def minimise_quadratic(self, p: Tensor) -> Tensor:
        r"""
        Minimiser of :meth:`quadratic` plus the linear term :math:`\langle p, K u \rangle`.

        :param torch.Tensor p: dual variable.
        :return: (:class:`torch.Tensor`) video, shape ``(B, C, T, H, W)``.
        """
        centre = self.z - self.variation.adjoint(p)
        if self.physics is None:
            return centre
        return self.physics.prox_l2(centre, self.y, self.gamma)

    def gap(self, p: Tensor) -> tuple[Tensor, float]:
        r"""
        Primal point of a feasible dual variable, and its relative duality gap.

        With :math:`u_p` the minimiser of the quadratic part plus
        :math:`\langle p, K u \rangle`, the gap between the objective at :math:`u_p` and
        the dual value of :math:`p` is :math:`\lambda |K u_p|_1 - \langle p, K u_p \rangle`.

        :param torch.Tensor p: dual variable, feasible.
        :return: (tuple) :math:`u_p` and the gap.
        """
        u = self.minimise_quadratic(p)
        d = self.variation.differences(u)
        total = self.lam * self.variation.magnitude(d).sum()
        gap = (total - (p * d).sum()).clamp(min=0)
        return u, float(gap / (self.quadratic(u) + total).clamp(min=1e-30))

    def start(self, dual: Tensor | None) -> Tensor:
        r"""
        A feasible dual variable to start from.

        :param torch.Tensor dual: dual variable of an earlier solution, or ``None`` for 0.
        :return: (:class:`torch.Tensor`) dual variable.
        :raises ValueError: if it is of another shape.
        """
        like = self.variation.differences(self.z)
        if dual is None:
            return torch.zeros_like(like)
        if dual.shape != like.shape:
            msg = (
                f"`dual` must have shape {tuple(like.shape)}; got {tuple(dual.shape)}. "
                "Give the dual variable of a call of the same size and kind."
            )
            raise ValueError(msg)
        return self.variation.project(dual.to(like), self.lam)


@dataclass(frozen=True)
class TVOptions:
    r"""
    How to solve a :class:`TVProblem`.

    :param str solver: ``'admm'``, ``'chambolle_pock'``, ``'adam'``, or ``'auto'``, the
        first of them that applies (see :func:`prox_l2_tv`).
    :param float tol: relative duality gap to stop at (``"adam"``: relative decrease of the
        objective over ten steps). With an operator of this package, each video of a batch
        stops by its own.
    :param int max_iter: most iterations; a warning says the gap if they do not suffice.
    :param float rho: penalty of ``"admm"``; chosen and corrected by default.
    :param float relaxation: over-relaxation of ``"admm"``, in [1, 2); 1.7 by default.
    :param float learning_rate: first step of ``"adam"``, in intensity units; 0.01 by
        default.
    :param float smoothing: :math:`\epsilon` of ``"adam"`` where the variation does not
        have its own; 0.001 by default.
    :raises ValueError: if a number is out of range, or the name is unknown.
    """

    solver: str = "auto"
    tol: float = 1e-4
    max_iter: int = 500
    rho: float | None = None
    relaxation: float | None = None
    learning_rate: float | None = None
    smoothing: float | None = None

    def __post_init__(self) -> None:
        check_choice("solver", self.solver, SOLVERS)
        check_positive("tol", self.tol)
        count = check_integer("max_iter", self.max_iter, 1)
        object.__setattr__(self, "max_iter", count)
        for name in ("rho", "relaxation", "learning_rate", "smoothing"):
            value = getattr(self, name)
            if value is not None:
                check_positive(name, value)


@dataclass
class TVResult:
    r"""
    What a solver found, and how well.

    Of a batch solved video by video, ``iterations`` and ``gap`` are the largest.

    :param torch.Tensor video: solution, shape ``(B, C, T, H, W)``.
    :param torch.Tensor dual: dual variable of the variation, a warm start for a next call;
        ``None`` from ``"adam"``.
    :param int iterations: iterations used.
    :param float gap: what the solver stopped by: duality gap relative to the objective, or
        relative decrease of the objective for ``"adam"``.
    :param bool converged: whether that is at most the tolerance.
    """

    video: Tensor
    dual: Tensor | None
    iterations: int
    gap: float
    converged: bool
