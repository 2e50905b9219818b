r"""Alternating directions for variation along time, with nothing iterated inside."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from deepinv_lvtino.optim.tv.abstract import LARGE
from deepinv_lvtino.optim.tv.problem import (
    CHECK_EVERY,
    TVOptions,
    TVProblem,
    TVResult,
)
from deepinv_lvtino.physics import SeparableVideoPhysics
from deepinv_lvtino.physics.functional import apply_along_axis

#: Last iteration after which the penalty may change (convergence needs an end to it).
ADAPT_UNTIL = 100

#: Over-relaxation.
RELAXATION = 1.7


@dataclass
class _Part:
    """Solution of some channels."""

    video: Tensor
    dual: Tensor
    iterations: int
    gap: float


@torch.no_grad()
def admm(
    problem: TVProblem, options: TVOptions, dual: Tensor | None = None
) -> TVResult:
    r"""
    Alternating directions on :math:`v = D u`, temporal variation.

    The step on :math:`u` is :math:`(\gamma A^{\top} A + I + \rho D^{\top} D) u = r`. With
    :math:`W` the generalised eigenvectors of the T x T pencil
    :math:`(A_T^{\top} A_T, \; I + \rho D^{\top} D)`, eigenvalues :math:`\mu`, and
    :math:`s`, :math:`V` the spatial singular values and vectors of :math:`A`, it is

    .. math::

        u = W \left[ p + V \left( \frac{1}{1 + \gamma s^2 \mu} - 1 \right) V^{\top} p
        \right], \qquad p = W^{\top} r

    so that nothing is iterated inside (:func:`pencil`). Channels do not mix: those of a
    large video are solved one after the other, in a third of the memory.

    Unless it is given, the penalty :math:`\rho` starts at :math:`20 \lambda` (the weight
    over a usual difference between frames, 0.05), within [0.1, 20], and is corrected where
    the primal and the dual residual are far apart, relative to the differences at the
    start and to the dual variable.

    :param TVProblem problem: the problem; its variation is along time, its operator
        separable or missing.
    :param TVOptions options: tolerance, most iterations, ``rho`` and ``relaxation``.
    :param torch.Tensor dual: dual variable to start from.
    :return: (:class:`TVResult`) the solution.
    """
    video = torch.empty_like(problem.z, memory_format=torch.contiguous_format)
    p = problem.start(dual).contiguous()
    videos, duals = video.flatten(0, 1), p.flatten(0, 1)  # written part by part
    iterations, gap, total = 0, 0.0, 0.0
    for part, place in _channels(problem):
        warm = duals[place].unsqueeze(1)
        with torch.autocast(video.device.type, enabled=False):  # keeps its dtype
            found = _admm_part(part, options, warm)
        videos[place], duals[place] = found.video[:, 0], found.dual[:, 0]
        value = float(part.objective(found.video))
        gap, total = gap + found.gap * value, total + value
        iterations = max(iterations, found.iterations)
        del found
    gap /= max(total, 1e-30)
    return TVResult(video, p, iterations, gap, gap <= options.tol)


def _channels(problem: TVProblem) -> Iterator[tuple[TVProblem, slice]]:
    """The problem of each channel of each video, as many at a time as are not large."""
    z, y, physics = problem.z, problem.y, problem.physics
    if physics is not None:
        physics, y = physics.of_one_channel(), y.flatten(0, 1).unsqueeze(1)
    z = z.flatten(0, 1).unsqueeze(1)
    step = max(1, LARGE // z[0].numel())
    for start in range(0, len(z), step):
        place = slice(start, start + step)
        part = None if y is None else y[place]
        yield replace(problem, z=z[place], y=part, physics=physics), place


def _admm_part(problem: TVProblem, options: TVOptions, dual: Tensor) -> _Part:
    lam, variation = problem.lam, problem.variation
    adapt = options.rho is None
    rho = min(max(20 * lam, 0.1), 20.0) if options.rho is None else options.rho
    relaxation = RELAXATION if options.relaxation is None else options.relaxation
    step = pencil(problem, rho)
    w = dual / rho
    d, ahead = torch.empty_like(w), torch.empty_like(w)
    # Differences from the solution without variation: the large terms of r, gamma A'y,
    # cancel, and float32 suffices whatever gamma is.
    without = variation.differences(problem.minimise_quadratic(torch.zeros_like(w)))
    size = max(float(without.norm()), 1e-30)
    v = without.clone()
    u, gap, k = problem.z, math.inf, 0
    for k in range(1, options.max_iter + 1):  # in the same five buffers all the time
        torch.sub(v, w, out=ahead)
        step(ahead.sub_(without), out=d).add_(without)
        torch.mul(d, relaxation, out=ahead).add_(v, alpha=1 - relaxation).add_(w)
        torch.clamp(ahead, -lam / rho, lam / rho, out=w)
        ahead.sub_(w)
        if k % CHECK_EVERY == 0 or k == options.max_iter:
            u, gap = problem.gap(rho * w)
            if gap <= options.tol:
                break
            if adapt and k <= ADAPT_UNTIL:
                apart = float(d.sub_(ahead).norm()) / size
                moved = float(v.sub_(ahead).norm()) / max(float(w.norm()), 1e-30)
                factor = math.sqrt((apart + 1e-7) / (moved + 1e-7))
                factor = min(max(factor, 0.2), 5.0)
                if not 0.3 < factor < 3:
                    rho, w = rho * factor, w.div_(factor)
                    step = pencil(problem, rho)
        v, ahead = ahead, v
    return _Part(u, w.mul_(rho), k, gap)


def pencil(problem: TVProblem, rho: float) -> Callable[..., Tensor]:
    r"""
    Exact solver of :math:`(\gamma A^{\top} A + I + \rho D^{\top} D) u = \rho D^{\top} e`.

    :param TVProblem problem: the problem; its operator is separable or missing.
    :param float rho: :math:`\rho`.
    :return: (Callable) ``step(e, out)`` writes :math:`D u` into a tensor of the shape of
        :math:`e`, and returns it.
    """
    z, physics = problem.z, problem.physics
    frames = z.shape[2]
    identity = torch.eye(frames, dtype=torch.float64)
    difference = torch.diff(identity, dim=0)
    metric = identity + rho * difference.T @ difference
    root = torch.linalg.inv(torch.linalg.cholesky(metric))
    temporal = physics.temporal if isinstance(physics, SeparableVideoPhysics) else None
    a = identity if temporal is None else temporal.to("cpu", torch.float64)
    mu, rotation = torch.linalg.eigh(root @ a.T @ a @ root.T)
    # from the largest eigenvalue: where it vanishes, the data say nothing
    mu, w = mu.flip(0).clamp(min=0), difference @ root.T @ rotation.flip(1)
    back, forth = w.to(z), (rho * w.T).to(z)
    p = torch.empty_like(z, memory_format=torch.contiguous_format)

    def along_time(x: Tensor, matrix: Tensor, out: Tensor) -> Tensor:
        x, flat = x.flatten(0, 1).flatten(2), out.flatten(0, 1).flatten(2)
        torch.bmm(matrix.expand(len(x), -1, -1), x, out=flat)
        return out

    if not isinstance(physics, SeparableVideoPhysics):
        return lambda e, out: along_time(along_time(e, forth, p), back, out)
    (s_h, v_h), (s_w, v_w) = physics.spatial_svd()
    seen = int((mu > 1e-12 * mu[0]).sum())
    s_squared = (s_h[:, None] * s_w[None, :]) ** 2
    scale = problem.gamma * mu[:seen].to(z).view(-1, 1, 1) * s_squared
    change = -scale / (1 + scale)

    def step(e: Tensor, out: Tensor) -> Tensor:
        along_time(e, forth, p)
        # height first and last: the longer width is then met by fewer rows
        q = apply_along_axis(p[:, :, :seen], None if v_h is None else v_h.mT, 3)
        q = apply_along_axis(q, None if v_w is None else v_w.mT, 4)
        q = apply_along_axis(change * q, v_w, 4)
        p[:, :, :seen] += apply_along_axis(q, v_h, 3)
        return along_time(p, back, out)

    return step
