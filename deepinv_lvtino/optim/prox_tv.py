r"""
Data fidelity and total variation together, solved to a known gap.

:func:`prox_l2_tv` is the first data step of LVTINO's sweep in full. Three solvers share its
arguments and its answer; each is a short function below, from a start to a
:class:`TVResult`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from deepinv.physics import LinearPhysics, Physics
from torch import Tensor

from deepinv_lvtino.optim.data_fidelity import prox_l2
from deepinv_lvtino.optim.motion_variation import MotionVariation
from deepinv_lvtino.optim.variation import (
    LARGE,
    SpaceTimeVariation,
    TemporalVariation,
    Variation,
)
from deepinv_lvtino.physics import SeparableVideoPhysics
from deepinv_lvtino.physics.functional import apply_along_axis, check_choice
from deepinv_lvtino.utils import (
    check_integer,
    check_number,
    check_positive,
    check_video,
)

#: Iterations between two evaluations of the gap.
CHECK_EVERY = 10

#: Last iteration after which ADMM's penalty may change (convergence needs an end to it).
ADAPT_UNTIL = 100


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


@dataclass
class _Part:
    """Solution of some channels."""

    video: Tensor
    dual: Tensor
    iterations: int
    gap: float


@dataclass
class _Problem:
    """The problem, with the data term's exact proximal step if it has one."""

    z: Tensor
    y: Any  # a tensor, or None together with the physics
    physics: Any
    gamma: float
    lam: float
    variation: Variation

    def quadratic(self, u: Tensor) -> Tensor:
        """Data term and distance to the centre, summed over the batch."""
        value = 0.5 * (u - self.z).square().sum()
        if self.physics is not None:
            value = value + self.gamma / 2 * (self.physics.A(u) - self.y).square().sum()
        return value

    def objective(self, u: Tensor) -> Tensor:
        return self.quadratic(u) + self.lam * self.variation(u).sum()

    def prox_quadratic(self, x: Tensor, tau: float) -> Tensor:
        """Proximal step of tau times :meth:`quadratic`, from x."""
        centre = (x + tau * self.z) / (1 + tau)
        if self.physics is None:
            return centre
        return self.physics.prox_l2(centre, self.y, self.gamma * tau / (1 + tau))

    def minimise_quadratic(self, p: Tensor) -> Tensor:
        """Minimiser of :meth:`quadratic` plus the linear term ``<p, K u>``."""
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
        """
        u = self.minimise_quadratic(p)
        d = self.variation.differences(u)
        total = self.lam * self.variation.magnitude(d).sum()
        gap = (total - (p * d).sum()).clamp(min=0)
        return u, float(gap / (self.quadratic(u) + total).clamp(min=1e-30))


def prox_l2_tv(
    z: Tensor,
    y: Tensor | None,
    physics: Physics | None,
    gamma: float,
    lam: float,
    kind: str | Variation = "temporal",
    solver: str = "auto",
    *,
    tol: float = 1e-4,
    max_iter: int = 500,
    dual: Tensor | None = None,
    full_output: bool = False,
    **options: Any,
) -> Tensor | TVResult:
    r"""
    Proximal step of data fidelity and total variation together.

    .. math::

        \underset{u}{\arg\min} \; \frac{\gamma}{2} \|A u - y\|^2
        + \lambda \, \mathrm{TV}(u) + \frac12 \|u - z\|^2

    Solvers, with the same arguments and the same answer:

    - ``"admm"``: temporal variation, separable operator or no measurement. The inner
      linear system is solved exactly, for all spatial singular values at once, by the
      generalised eigen-decomposition of one T x T pencil. It works in place: its answer
      has no gradient.
    - ``"chambolle_pock"``: accelerated primal-dual steps
      :footcite:p:`chambolle2011first` with the exact data step if the operator has one
      (``exact_prox``), else through :math:`A` and :math:`A^{\top}` of any linear operator.
    - ``"adam"``: automatic differentiation of the smoothed variation, for any
      differentiable operator. Its answer is that of the smoothed problem, without a
      gradient.

    :param torch.Tensor z: centre, shape ``(B, C, T, H, W)``.
    :param torch.Tensor y: measurement; not used if ``gamma`` is 0.
    :param deepinv.physics.Physics physics: operator; not used if ``gamma`` is 0.
    :param float gamma: weight :math:`\gamma \ge 0` of the data.
    :param float lam: weight :math:`\lambda \ge 0` of the variation. 0 gives
        ``physics.prox_l2(z, y, gamma)``.
    :param str, Variation kind: ``'temporal'``, ``'spacetime'``, ``'motion'`` (along the
        motion of ``z``, estimated), or an instance of :class:`TemporalVariation`,
        :class:`SpaceTimeVariation` or :class:`MotionVariation`.
    :param str solver: ``'admm'``, ``'chambolle_pock'``, ``'adam'``, or ``'auto'``, the
        first of them that applies.
    :param float tol: relative duality gap to stop at (``"adam"``: relative decrease of the
        objective over ten steps). With an operator of this package, each video of a batch
        stops by its own.
    :param int max_iter: most iterations; a warning says the gap if they do not suffice.
    :param torch.Tensor dual: dual variable to start from, of an earlier
        :class:`TVResult`.
    :param bool full_output: return a :class:`TVResult` instead of the video.
    :param options: ``rho`` for ``"admm"``, ``learning_rate`` for ``"adam"``.
    :return: (torch.Tensor | TVResult) the solution.
    :raises ValueError: if a number is out of range, a name is unknown, or a shape does not
        fit.
    :raises TypeError: if the solver cannot serve the operator or the variation.

    |sep|

    :Examples:

        >>> import torch
        >>> from deepinv_lvtino.optim import prox_l2_tv
        >>> z = torch.tensor([0.0, 0.0, 1.0, 1.0]).view(1, 1, 4, 1, 1)
        >>> prox_l2_tv(z, None, None, gamma=0.0, lam=0.5).flatten().round(decimals=3)
        tensor([0.2500, 0.2500, 0.7500, 0.7500])

    |sep|

    .. footbibliography::
    """
    result = solve_l2_tv(
        z, y, physics, gamma, lam, kind, solver, tol, max_iter, dual, **options
    )
    return result if full_output else result.video


def solve_l2_tv(
    z: Tensor,
    y: Tensor | None,
    physics: Physics | None,
    gamma: float,
    lam: float,
    kind: str | Variation,
    solver: str = "auto",
    tol: float = 1e-4,
    max_iter: int = 500,
    dual: Tensor | None = None,
    **options: Any,
) -> TVResult:
    r"""
    :func:`prox_l2_tv` with all that is known of the solution.

    :return: (:class:`TVResult`) the solution; arguments and errors as there.
    """
    check_video("z", z)
    variation = as_variation("kind", kind).at(z)
    for name, value in (("gamma", gamma), ("lam", lam)):
        check_number(name, value, least=0)
    check_positive("tol", tol)
    max_iter = check_integer("max_iter", max_iter, 1)
    if gamma > 0 and (y is None or physics is None):
        msg = "`y` and `physics` are needed unless `gamma` is 0; one of them is None."
        raise ValueError(msg)
    if gamma == 0:
        y, physics = None, None
    problem = _Problem(z, y, physics, float(gamma), float(lam), variation)
    solve = _choose_solver(solver, problem)
    if lam == 0 and solve is not adam:
        u = z if physics is None else prox_l2(physics, z, y, gamma)
        result = TVResult(u, None, 0, 0.0, True)
    else:
        if dual is not None:
            dual = _start(problem, dual)
        found = []
        for part, warm in _videos(problem, dual):
            ready = None if warm is None else _already_solved(part, tol, warm)
            found.append(ready or solve(part, tol, max_iter, warm, **options))
        result = found[0] if len(found) == 1 else _joined(found)
    if not result.converged:
        warnings.warn(
            f"prox_l2_tv stopped after {result.iterations} iterations at a relative gap "
            f"of {result.gap:.1e}, above `tol`={tol:.1e}; raise `max_iter`, or `tol`.",
            stacklevel=3,
        )
    return result


def _videos(
    problem: _Problem, dual: Tensor | None
) -> Iterator[tuple[_Problem, Tensor | None]]:
    """
    The problem of each video, and where it starts: each stops by its own gap.

    An operator that is not of this package may have parameters for each element of the
    batch; its batch stays together.
    """
    ours = problem.physics is None or getattr(problem.physics, "exact_prox", False)
    if len(problem.z) == 1 or not ours:
        yield problem, dual
        return
    for i in range(len(problem.z)):
        one = slice(i, i + 1)
        y = None if problem.y is None else problem.y[one]
        warm = None if dual is None else dual[one]
        variation = problem.variation.of_element(i)
        yield replace(problem, z=problem.z[one], y=y, variation=variation), warm


def _joined(found: list[TVResult]) -> TVResult:
    """One result of those of the videos."""
    duals = [result.dual for result in found if result.dual is not None]
    return TVResult(
        torch.cat([result.video for result in found]),
        torch.cat(duals) if duals else None,
        max(result.iterations for result in found),
        max(result.gap for result in found),
        all(result.converged for result in found),
    )


def as_variation(name: str, kind: str | Variation) -> Variation:
    r"""
    Total variation by name.

    :param str name: name of the argument, for the message.
    :param str, Variation kind: ``'temporal'``, ``'spacetime'``, ``'motion'`` or an
        instance.
    :return: (:class:`Variation`) the instance.
    :raises ValueError: if the name is unknown.
    """
    if isinstance(kind, Variation):
        return kind
    check_choice(name, kind, ("temporal", "spacetime", "motion"))
    if kind == "motion":
        return MotionVariation()
    return TemporalVariation() if kind == "temporal" else SpaceTimeVariation()


def _choose_solver(name: str, problem: _Problem) -> Callable[..., TVResult]:
    check_choice("solver", name, ("auto", "admm", "chambolle_pock", "adam"))
    physics = problem.physics
    temporal = isinstance(problem.variation, TemporalVariation)
    pencil = temporal and (
        physics is None or isinstance(physics, SeparableVideoPhysics)
    )
    linear = physics is None or isinstance(physics, LinearPhysics)
    if name == "auto":
        name = "admm" if pencil else "chambolle_pock" if linear else "adam"
    if name == "admm" and not pencil:
        msg = (
            "`solver='admm'` needs temporal variation and a SeparableVideoPhysics; got "
            f"{type(problem.variation).__name__} and {type(physics).__name__}. Use "
            "'chambolle_pock'."
        )
        raise TypeError(msg)
    if name == "chambolle_pock" and not linear:
        msg = (
            "`solver='chambolle_pock'` needs a LinearPhysics; got "
            f"{type(physics).__name__}. Use 'adam'."
        )
        raise TypeError(msg)
    if name == "admm":
        return admm
    if name == "adam":
        return adam
    exact = physics is None or getattr(physics, "exact_prox", False)
    return chambolle_pock if exact else chambolle_pock_linear


def _start(problem: _Problem, dual: Tensor | None) -> Tensor:
    """A feasible dual variable to start from."""
    like = problem.variation.differences(problem.z)
    if dual is None:
        return torch.zeros_like(like)
    if dual.shape != like.shape:
        msg = (
            f"`dual` must have shape {tuple(like.shape)}; got {tuple(dual.shape)}. Give "
            "the dual variable of a call of the same size and kind."
        )
        raise ValueError(msg)
    return problem.variation.project(dual.to(like), problem.lam)


def _already_solved(problem: _Problem, tol: float, dual: Tensor) -> TVResult | None:
    """The solution, if a warm start is good enough as it is."""
    if problem.physics is not None and not getattr(
        problem.physics, "exact_prox", False
    ):
        return None
    p = _start(problem, dual)
    u, gap = problem.gap(p)
    return TVResult(u, p, 0, gap, True) if gap <= tol else None


@torch.no_grad()
def admm(
    problem: _Problem,
    tol: float,
    max_iter: int,
    dual: Tensor | None = None,
    rho: float | None = None,
    relaxation: float = 1.7,
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

    :param problem: the problem.
    :param float tol: relative duality gap to stop at.
    :param int max_iter: most iterations.
    :param torch.Tensor dual: dual variable to start from.
    :param float rho: penalty :math:`\rho`; by default it starts at :math:`20 \lambda` (the
        weight over a usual difference between frames, 0.05), within [0.1, 20], and is
        corrected where the primal and the dual residual are far apart, relative to the
        differences at the start and to the dual variable.
    :param float relaxation: over-relaxation, in [1, 2).
    :return: (:class:`TVResult`) the solution.
    """
    video = torch.empty_like(problem.z, memory_format=torch.contiguous_format)
    p = _start(problem, dual).contiguous()
    videos, duals = video.flatten(0, 1), p.flatten(0, 1)  # written part by part
    iterations, gap, total = 0, 0.0, 0.0
    for part, place in _channels(problem):
        warm = duals[place].unsqueeze(1)
        with torch.autocast(video.device.type, enabled=False):  # keeps its dtype
            found = _admm_part(part, tol, max_iter, warm, rho, relaxation)
        videos[place], duals[place] = found.video[:, 0], found.dual[:, 0]
        value = float(part.objective(found.video))
        gap, total = gap + found.gap * value, total + value
        iterations = max(iterations, found.iterations)
        del found
    gap /= max(total, 1e-30)
    return TVResult(video, p, iterations, gap, gap <= tol)


def _channels(problem: _Problem) -> Iterator[tuple[_Problem, slice]]:
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


def _admm_part(
    problem: _Problem,
    tol: float,
    max_iter: int,
    dual: Tensor,
    rho: float | None,
    relaxation: float,
) -> _Part:
    lam, variation = problem.lam, problem.variation
    adapt = rho is None
    rho = min(max(20 * lam, 0.1), 20.0) if rho is None else rho
    step = pencil(problem, rho)
    w = dual / rho
    d, ahead = torch.empty_like(w), torch.empty_like(w)
    # Differences from the solution without variation: the large terms of r, gamma A'y,
    # cancel, and float32 suffices whatever gamma is.
    without = variation.differences(problem.minimise_quadratic(torch.zeros_like(w)))
    size = max(float(without.norm()), 1e-30)
    v = without.clone()
    u, gap, k = problem.z, math.inf, 0
    for k in range(1, max_iter + 1):  # in the same five buffers all the time
        torch.sub(v, w, out=ahead)
        step(ahead.sub_(without), out=d).add_(without)
        torch.mul(d, relaxation, out=ahead).add_(v, alpha=1 - relaxation).add_(w)
        torch.clamp(ahead, -lam / rho, lam / rho, out=w)
        ahead.sub_(w)
        if k % CHECK_EVERY == 0 or k == max_iter:
            u, gap = problem.gap(rho * w)
            if gap <= tol:
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


def pencil(problem: _Problem, rho: float) -> Callable[..., Tensor]:
    r"""
    Exact solver of :math:`(\gamma A^{\top} A + I + \rho D^{\top} D) u = \rho D^{\top} e`.

    :param problem: the problem; its operator is separable or missing.
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


def chambolle_pock(
    problem: _Problem, tol: float, max_iter: int, dual: Tensor | None = None
) -> TVResult:
    r"""
    Accelerated primal-dual steps with the exact data step.

    Algorithm 2 of :footcite:t:`chambolle2011first`; the quadratic part is 1-strongly
    convex.

    :param problem: the problem; its operator has an exact ``prox_l2``, or is missing.
    :param float tol: relative duality gap to stop at.
    :param int max_iter: most iterations.
    :param torch.Tensor dual: dual variable to start from.
    :return: (:class:`TVResult`) the solution.

    |sep|

    .. footbibliography::
    """
    variation = problem.variation
    p = _start(problem, dual)
    u = problem.minimise_quadratic(p)
    ahead, gap, k = u, math.inf, 0
    tau = 1.0
    sigma = 1 / (tau * variation.sqnorm)
    best = u
    for k in range(1, max_iter + 1):
        p = variation.project(
            p.add(variation.differences(ahead), alpha=sigma), problem.lam
        )
        new = problem.prox_quadratic(u.sub(variation.adjoint(p), alpha=tau), tau)
        theta = 1 / math.sqrt(1 + 2 * tau)
        tau, sigma = theta * tau, sigma / theta
        ahead = new + theta * (new - u)
        u = new
        if k % CHECK_EVERY == 0 or k == max_iter:
            best, gap = problem.gap(p)
            if gap <= tol:
                break
    return TVResult(best, p, k, gap, gap <= tol)


def chambolle_pock_linear(
    problem: _Problem, tol: float, max_iter: int, dual: Tensor | None = None
) -> TVResult:
    r"""
    Accelerated primal-dual steps through :math:`A` and :math:`A^{\top}` alone.

    As :func:`chambolle_pock`, with the data term dualised too: for operators without an
    exact data step. The dual steps of the two terms are scaled by their norms.

    :param problem: the problem; its operator is linear.
    :param float tol: relative duality gap to stop at.
    :param int max_iter: most iterations.
    :param torch.Tensor dual: dual variable of the variation to start from.
    :return: (:class:`TVResult`) the solution.
    """
    z, y, physics = problem.z, problem.y, problem.physics
    gamma, lam, variation = problem.gamma, problem.lam, problem.variation
    data_sqnorm = 1.05 * float(physics.compute_sqnorm(z[0], verbose=False))
    p = _start(problem, dual)
    q = gamma * (physics.A(z) - y)
    u, ahead, gap, k = z, z, math.inf, 0
    tau = 1.0
    step = 1 / (2 * tau)
    for k in range(1, max_iter + 1):
        sigma, sigma_data = step / variation.sqnorm, step / data_sqnorm
        p = variation.project(p.add(variation.differences(ahead), alpha=sigma), lam)
        q = (q + sigma_data * (physics.A(ahead) - y)) / (1 + sigma_data / gamma)
        slope = variation.adjoint(p) + physics.A_adjoint(q)
        new = (u - tau * slope + tau * z) / (1 + tau)
        theta = 1 / math.sqrt(1 + 2 * tau)
        tau, step = theta * tau, step / theta
        ahead = new + theta * (new - u)
        u = new
        if k % CHECK_EVERY == 0 or k == max_iter:
            slope = variation.adjoint(p) + physics.A_adjoint(q)
            lower = (slope * (z - slope / 2)).sum()
            lower = lower - q.square().sum() / (2 * gamma) - (q * y).sum()
            upper = problem.objective(u)
            gap = float((upper - lower).clamp(min=0) / upper.clamp(min=1e-30))
            if gap <= tol:
                break
    return TVResult(u, p, k, gap, gap <= tol)


def adam(
    problem: _Problem,
    tol: float,
    max_iter: int,
    dual: Tensor | None = None,
    learning_rate: float = 0.01,
    smoothing: float = 1e-3,
) -> TVResult:
    r"""
    Adam on the smoothed objective, differentiated through the operator.

    The step decreases as one over the square root of the iteration.

    :param problem: the problem; its operator is differentiable.
    :param float tol: relative decrease of the objective over ten steps to stop at.
    :param int max_iter: most iterations.
    :param torch.Tensor dual: not used.
    :param float learning_rate: first step, in intensity units.
    :param float smoothing: :math:`\epsilon`, where the variation does not have its own.
    :return: (:class:`TVResult`) the solution, without a dual variable.
    """
    smooth = problem.variation
    if isinstance(smooth, SpaceTimeVariation) and smooth.smoothing > 0:
        smoothing = smooth.smoothing

    def objective(u: Tensor) -> Tensor:
        d = smooth.differences(u)
        square = (
            d.square() if isinstance(smooth, TemporalVariation) else d.square().sum(1)
        )
        variation = (square + smoothing**2).sqrt().sum()
        return problem.quadratic(u) + problem.lam * variation

    with torch.enable_grad():
        u = problem.z.detach().clone().requires_grad_()
        optimizer = torch.optim.Adam([u], lr=learning_rate)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda k: (1 + k / 10) ** -0.5
        )
        last, change, k = math.inf, math.inf, 0
        for k in range(1, max_iter + 1):
            optimizer.zero_grad()
            value = objective(u)
            value.backward()
            optimizer.step()
            schedule.step()
            if k % CHECK_EVERY == 0 or k == max_iter:
                current = float(value.detach())
                change = abs(last - current) / max(current, 1e-30)
                last = current
                if change <= tol:
                    break
    return TVResult(u.detach(), None, k, change, change <= tol)
