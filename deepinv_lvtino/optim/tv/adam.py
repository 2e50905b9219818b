r"""Adam on the smoothed variation, for any differentiable operator."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deepinv_lvtino.optim.tv.problem import (
    CHECK_EVERY,
    TVOptions,
    TVProblem,
    TVResult,
)

#: First step, in intensity units, and smoothing of a variation without one of its own.
LEARNING_RATE, SMOOTHING = 0.01, 1e-3


def adam(
    problem: TVProblem, options: TVOptions, dual: Tensor | None = None
) -> TVResult:
    r"""
    Adam on the smoothed objective, differentiated through the operator.

    The step decreases as one over the square root of the iteration.

    :param TVProblem problem: the problem; its operator is differentiable.
    :param TVOptions options: tolerance (relative decrease of the objective over ten steps),
        most iterations, ``learning_rate`` and ``smoothing``.
    :param torch.Tensor dual: not used.
    :return: (:class:`TVResult`) the solution, without a dual variable.
    """
    variation, rate = problem.variation, options.learning_rate
    smoothing = SMOOTHING if options.smoothing is None else options.smoothing
    if variation.smoothing > 0:
        smoothing = variation.smoothing

    def objective(u: Tensor) -> Tensor:
        square = variation.squares(variation.differences(u))
        smooth = (square + smoothing**2).sqrt().sum()
        return problem.quadratic(u) + problem.lam * smooth

    with torch.enable_grad():
        u = problem.z.detach().clone().requires_grad_()
        optimizer = torch.optim.Adam([u], lr=LEARNING_RATE if rate is None else rate)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda k: (1 + k / 10) ** -0.5
        )
        last, change, k = math.inf, math.inf, 0
        for k in range(1, options.max_iter + 1):
            optimizer.zero_grad()
            value = objective(u)
            value.backward()
            optimizer.step()
            schedule.step()
            if k % CHECK_EVERY == 0 or k == options.max_iter:
                current = float(value.detach())
                change = abs(last - current) / max(current, 1e-30)
                last = current
                if change <= options.tol:
                    break
    return TVResult(u.detach(), None, k, change, change <= options.tol)
