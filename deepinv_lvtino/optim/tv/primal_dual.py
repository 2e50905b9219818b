r"""Accelerated primal-dual steps, for any variation and any linear operator."""

from __future__ import annotations

import math

from torch import Tensor

from deepinv_lvtino.optim.tv.problem import (
    CHECK_EVERY,
    TVOptions,
    TVProblem,
    TVResult,
)


def chambolle_pock(
    problem: TVProblem, options: TVOptions, dual: Tensor | None = None
) -> TVResult:
    r"""
    Accelerated primal-dual steps with the exact data step.

    Algorithm 2 of :footcite:t:`chambolle2011first`; the quadratic part is 1-strongly
    convex.

    :param TVProblem problem: the problem; its operator has an exact ``prox_l2``, or is
        missing.
    :param TVOptions options: tolerance and most iterations.
    :param torch.Tensor dual: dual variable to start from.
    :return: (:class:`TVResult`) the solution.

    |sep|

    .. footbibliography::
    """
    variation = problem.variation
    p = problem.start(dual)
    u = problem.minimise_quadratic(p)
    ahead, gap, k = u, math.inf, 0
    tau = 1.0
    sigma = 1 / (tau * variation.sqnorm)
    best = u
    for k in range(1, options.max_iter + 1):
        p = variation.project(
            p.add(variation.differences(ahead), alpha=sigma), problem.lam
        )
        new = problem.prox_quadratic(u.sub(variation.adjoint(p), alpha=tau), tau)
        theta = 1 / math.sqrt(1 + 2 * tau)
        tau, sigma = theta * tau, sigma / theta
        ahead = new + theta * (new - u)
        u = new
        if k % CHECK_EVERY == 0 or k == options.max_iter:
            best, gap = problem.gap(p)
            if gap <= options.tol:
                break
    return TVResult(best, p, k, gap, gap <= options.tol)


def chambolle_pock_linear(
    problem: TVProblem, options: TVOptions, dual: Tensor | None = None
) -> TVResult:
    r"""
    Accelerated primal-dual steps through :math:`A` and :math:`A^{\top}` alone.

    As :func:`chambolle_pock`, with the data term dualised too: for operators without an
    exact data step. The dual steps of the two terms are scaled by their norms.

    :param TVProblem problem: the problem; its operator is linear.
    :param TVOptions options: tolerance and most iterations.
    :param torch.Tensor dual: dual variable of the variation to start from.
    :return: (:class:`TVResult`) the solution.
    """
    z, y, physics = problem.z, problem.y, problem.physics
    gamma, lam, variation = problem.gamma, problem.lam, problem.variation
    data_sqnorm = 1.05 * float(physics.compute_sqnorm(z[0], verbose=False))
    p = problem.start(dual)
    q = gamma * (physics.A(z) - y)
    u, ahead, gap, k = z, z, math.inf, 0
    tau = 1.0
    step = 1 / (2 * tau)
    for k in range(1, options.max_iter + 1):
        sigma, sigma_data = step / variation.sqnorm, step / data_sqnorm
        p = variation.project(p.add(variation.differences(ahead), alpha=sigma), lam)
        q = (q + sigma_data * (physics.A(ahead) - y)) / (1 + sigma_data / gamma)
        slope = variation.adjoint(p) + physics.A_adjoint(q)
        new = (u - tau * slope + tau * z) / (1 + tau)
        theta = 1 / math.sqrt(1 + 2 * tau)
        tau, step = theta * tau, step / theta
        ahead = new + theta * (new - u)
        u = new
        if k % CHECK_EVERY == 0 or k == options.max_iter:
            slope = variation.adjoint(p) + physics.A_adjoint(q)
            lower = (slope * (z - slope / 2)).sum()
            lower = lower - q.square().sum() / (2 * gamma) - (q * y).sum()
            upper = problem.objective(u)
            gap = float((upper - lower).clamp(min=0) / upper.clamp(min=1e-30))
            if gap <= options.tol:
                break
    return TVResult(u, p, k, gap, gap <= options.tol)
