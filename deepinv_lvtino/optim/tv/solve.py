r"""
Data fidelity and total variation together, solved to a known gap.

Three solvers share one problem and one answer; each is a short function in a module of its
own, from a start to a :class:`TVResult`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import fields, replace

import torch
from deepinv.physics import LinearPhysics
from torch import Tensor

from deepinv_lvtino.optim.data_fidelity import prox_l2
from deepinv_lvtino.optim.tv.adam import adam
from deepinv_lvtino.optim.tv.admm import admm
from deepinv_lvtino.optim.tv.primal_dual import chambolle_pock, chambolle_pock_linear
from deepinv_lvtino.optim.tv.problem import TVOptions, TVProblem, TVResult
from deepinv_lvtino.physics import SeparableVideoPhysics

#: A solver: the problem, how to solve it, and a dual variable to start from.
Solver = Callable[[TVProblem, TVOptions, Tensor | None], TVResult]

#: The solver that an option is for; those of all are not listed.
OWN_OPTIONS = {
    "rho": "admm",
    "relaxation": "admm",
    "learning_rate": "adam",
    "smoothing": "adam",
}


def solve_l2_tv(
    problem: TVProblem,
    options: TVOptions | None = None,
    dual: Tensor | None = None,
) -> TVResult:
    r"""
    :func:`prox_l2_tv` with all that is known of the solution.

    :param TVProblem problem: what to solve.
    :param TVOptions options: how; ``TVOptions()`` by default.
    :param torch.Tensor dual: dual variable to start from, of an earlier
        :class:`TVResult`.
    :return: (:class:`TVResult`) the solution. A warning says the gap if the iterations did
        not suffice.
    :raises ValueError: if ``dual`` is of another shape.
    :raises TypeError: if the solver cannot serve the operator or the variation, or an
        option is for another one.

    |sep|

    :Examples:

        >>> import torch
        >>> from deepinv_lvtino.optim import TemporalVariation, TVProblem, solve_l2_tv
        >>> z = torch.tensor([0.0, 0.0, 1.0, 1.0]).view(1, 1, 4, 1, 1)
        >>> result = solve_l2_tv(TVProblem(z, None, None, 0.0, 0.5, TemporalVariation()))
        >>> result.converged, result.gap <= 1e-4
        (True, True)
    """
    options = TVOptions() if options is None else options
    result = solved(problem, options, dual)
    warn_unsolved(result, options)
    return result


def solved(problem: TVProblem, options: TVOptions, dual: Tensor | None) -> TVResult:
    r"""
    :func:`solve_l2_tv` without its warning.

    :param TVProblem problem: what to solve.
    :param TVOptions options: how.
    :param torch.Tensor dual: dual variable to start from, or ``None``.
    :return: (:class:`TVResult`) the solution; errors as there.
    """
    problem = replace(problem, variation=problem.variation.at(problem.z))
    solve = _choose_solver(problem, options)
    if problem.lam == 0 and solve is not adam:
        z, y, physics = problem.z, problem.y, problem.physics
        u = z if physics is None else prox_l2(physics, z, y, problem.gamma)
        return TVResult(u, None, 0, 0.0, True)
    if dual is not None:
        dual = problem.start(dual)
    found = []
    for part, warm in _videos(problem, dual):
        ready = None if warm is None else _already_solved(part, options.tol, warm)
        found.append(ready or solve(part, options, warm))
    return found[0] if len(found) == 1 else _joined(found)


def warn_unsolved(result: TVResult, options: TVOptions) -> None:
    r"""
    Warn the caller's caller of a solution that is not within the tolerance.

    :param TVResult result: the solution.
    :param TVOptions options: how it was to be solved.
    """
    if not result.converged:
        warnings.warn(
            f"prox_l2_tv stopped after {result.iterations} iterations at a relative gap "
            f"of {result.gap:.1e}, above `tol`={options.tol:.1e}; raise `max_iter`, or "
            "`tol`.",
            stacklevel=3,
        )


def _videos(
    problem: TVProblem, dual: Tensor | None
) -> Iterator[tuple[TVProblem, Tensor | None]]:
    """
    The problem of each video, and where it starts: each stops by its own gap.

    An operator that is not of this package may have parameters for each element of the
    batch; its batch stays together.
    """
    if len(problem.z) == 1 or not problem.exact:
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


def _choose_solver(problem: TVProblem, options: TVOptions) -> Solver:
    physics, name = problem.physics, options.solver
    pencil = problem.variation.along_time and (
        physics is None or isinstance(physics, SeparableVideoPhysics)
    )
    linear = physics is None or isinstance(physics, LinearPhysics)
    if name == "auto":
        name = "admm" if pencil else "chambolle_pock" if linear else "adam"
    _check_own(name, options)
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
    return chambolle_pock if problem.exact else chambolle_pock_linear


def _check_own(solver: str, options: TVOptions) -> None:
    """Refuse options of a solver that is not the one."""
    for field in fields(options):
        owner = OWN_OPTIONS.get(field.name, solver)
        if owner != solver and getattr(options, field.name) is not None:
            msg = (
                f"`{field.name}` is an option of solver {owner!r}; the one that solves "
                f"this problem is {solver!r}. Leave it out, or ask for `solver={owner!r}`."
            )
            raise TypeError(msg)


def _already_solved(problem: TVProblem, tol: float, dual: Tensor) -> TVResult | None:
    """The solution, if a warm start is good enough as it is."""
    if not problem.exact:
        return None
    p = problem.start(dual)
    u, gap = problem.gap(p)
    return TVResult(u, p, 0, gap, True) if gap <= tol else None
