r"""
The data step of a linear operator without a closed form, solved to a known error.

The step :math:`d = u - z` of a proximal step solves
:math:`(I + \gamma A^{\top} A) d = \gamma A^{\top} r` with :math:`r = y - A z`. It is found
in the space of measurements, as :math:`d = A^{\top} w` with

.. math::

    \left( \tfrac{1}{\gamma} I + A A^{\top} \right) w = r,

by conjugate gradients, for two reasons. What the operator does not see stays exact. And
rounding is amplified by :math:`\sqrt{\gamma} \|A\|` only, where the normal equations for
:math:`d` amplify it by :math:`\gamma \|A\|^2`: for any :math:`w`,

.. math::

    \|d - d^\star\| \le \sqrt{\gamma} \; \| r - A d - w / \gamma \|.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from deepinv.physics import LinearPhysics
from deepinv.utils import TensorList
from torch import Tensor

#: Largest error of a data step, relative to the step, that is returned.
TOLERANCE = 1e-3

#: Most iterations of a data step, one application of the operator and its adjoint each.
MAX_ITER = 10_000

#: Most times that the iteration starts anew from the residual that it has left.
_MAX_CYCLES = 6

#: Stands for 0 in divisions.
_TINY = 1e-30

#: Largest relative difference between both sides of ``<p, A A'p> = |A'p|^2``.
_ADJOINT_MISMATCH = 1e-3


class DataStepError(ArithmeticError):
    r"""
    A data step has no answer that could be trusted; none is returned.

    It is raised if an operator without a closed form could not be solved to a thousandth
    of the step, if its adjoint is not one, or if a video or measurement is not finite. The
    message says which of them, and what to do.
    """


@dataclass
class _System:
    """The equation for w, with measurements as one row of real numbers per video."""

    physics: LinearPhysics
    y: Tensor | TensorList
    gamma: Tensor  # float64, one value per video, shape (B, 1)

    def forward(self, x: Tensor) -> Tensor:
        return flatten(self.physics.A(x))

    def adjoint(self, rows: Tensor) -> Tensor:
        return self.physics.A_adjoint(_unflatten(rows, self.y))


def solve_step(
    physics: LinearPhysics,
    z: Tensor,
    y: Tensor | TensorList,
    gamma: Tensor,
    max_iter: int = MAX_ITER,
) -> Tensor:
    r"""
    The step :math:`u - z` to the minimiser of
    :math:`\frac{\gamma}{2} \|A u - y\|^2 + \frac12 \|u - z\|^2`.

    Conjugate gradients run until the bound of Gauss-Radau quadrature
    :footcite:p:`meurant2013computing` on their error is a fifth of ``TOLERANCE``, or until
    the bound of the module, which needs no exact arithmetic, is below it. Then the
    residual is evaluated anew. A step is accepted if the second bound holds for it, or if
    a second solution, from that residual, changes it by less than half of ``TOLERANCE``:
    that is what rounding does to it. Each video of a batch is solved and judged alone.

    :param deepinv.physics.LinearPhysics physics: operator and adjoint.
    :param torch.Tensor z: centre, shape ``(B, C, T, H, W)``.
    :param torch.Tensor y: measurement with ``B`` on its first axis, or a list of such.
    :param torch.Tensor gamma: weights, one or ``B`` values.
    :param int max_iter: most iterations.
    :return: (:class:`torch.Tensor`) step, shape of ``z``.
    :raises DataStepError: if there is no step that could be trusted.

    |sep|

    .. footbibliography::
    """
    weights = gamma.detach().to(z.device, _wide(z)).reshape(-1, 1)
    system = _System(physics, y, weights.expand(len(z), 1))
    measured, seen = flatten(y), system.forward(z)
    right = measured - seen
    _require_finite("the measurement of the video before the step", right)
    eps = torch.finfo(z.dtype).eps
    rounding = eps * (_norm(measured) + _norm(seen))
    done = _norm(right) <= 2 * rounding  # already explained, to the last digit
    w, step = torch.zeros_like(right), torch.zeros_like(z)
    error = torch.full_like(rounding, math.inf)
    iterations = torch.zeros_like(done, dtype=torch.long)
    for _ in range(_MAX_CYCLES):
        residual = measured - system.forward(z + step) - w / system.gamma.to(w)
        size = _norm(step)
        # a video has no more digits than that, whatever its step
        digits = eps * _norm(z + step)
        bound = system.gamma.sqrt() * _norm(residual)
        error = torch.minimum(error, bound / size.clamp(min=_TINY))
        done = done | (bound <= TOLERANCE / 2 * size + digits)
        if bool(done.all()) or bool((iterations >= max_iter).any()):
            break
        change = _cycle(
            system, residual, step, (rounding, digits), done, iterations, max_iter
        )
        new = torch.where(_like(done, step), step, system.adjoint(w + change))
        moved, size = _norm(new - step), _norm(new)
        finished = ~done & (iterations < max_iter)
        again = torch.minimum(error, moved / size.clamp(min=_TINY) + TOLERANCE / 5)
        error = torch.where(finished, again, error)
        w, step = w + change, new
        done = done | (finished & (moved <= TOLERANCE / 2 * size + digits))
        if not bool(torch.isfinite(moved).all()):
            break
    if not bool(done.all()):
        _raise_unsolved(physics, z, system.gamma, done, error, iterations)
    return step


def _cycle(
    system: _System,
    residual: Tensor,
    step: Tensor,
    floors: tuple[Tensor, Tensor],
    done: Tensor,
    iterations: Tensor,
    max_iter: int,
) -> Tensor:
    """Change of w that answers a residual; counts the iterations of videos not done."""
    rounding, digits = floors
    gamma, root = system.gamma, system.gamma.sqrt()
    change, moved = torch.zeros_like(residual), torch.zeros_like(step)
    left, p = residual.clone(), residual.clone()
    energy = _norm(left) ** 2
    radau = gamma.clone()
    start, active, count = energy.clone(), ~done, 0
    while bool(active.any()):
        back = system.adjoint(p)
        image = system.forward(back)
        curvature = _norm(back) ** 2 + _norm(p) ** 2 / gamma
        if count < 3:
            _check_adjoint(system.physics, p, back, image, active)
        alpha = torch.where(active, energy / curvature.clamp(min=_TINY), 0.0)
        change += alpha.to(p) * p
        moved += _like(alpha, back) * back
        left -= alpha.to(p) * (image + p / gamma.to(p))
        energy, before = torch.where(active, _norm(left) ** 2, energy), energy
        beta = energy / before.clamp(min=_TINY)
        # upper bound on the squared error, per squared residual; no eigenvalue of the
        # system is below 1 / gamma
        rest = radau - alpha
        radau = torch.where(rest > 0, rest / (rest / gamma + beta), gamma)
        count += 1
        iterations += active
        size = _norm(step + moved)
        certain = root * energy.sqrt() <= 0.3 * TOLERANCE * size + digits
        likely = (radau * energy).sqrt() <= TOLERANCE / 5 * size + digits
        unattainable = root * rounding > 0.3 * TOLERANCE * size
        lost = ~torch.isfinite(energy) | (energy > 1e12 * start)
        active = active & ~(certain | (likely & unattainable) | lost)
        active = active & (iterations < max_iter)
        p = left + beta.to(p) * p
    return change


def _check_adjoint(
    physics: LinearPhysics, p: Tensor, back: Tensor, image: Tensor, active: Tensor
) -> None:
    left = (p * image).sum(1, keepdim=True, dtype=_wide(p))
    right = _norm(back) ** 2
    # what rounding may do to the first, which is a sum of terms of either sign
    rounding = 30 * torch.finfo(p.dtype).eps * _norm(p) * _norm(image)
    excess = (left - right).abs() - rounding > _ADJOINT_MISMATCH * right
    if bool((excess & active).any()):
        worst = float(((left - right).abs() / right.clamp(min=_TINY))[active].max())
        msg = (
            f"`A_adjoint` of {type(physics).__name__} is not the adjoint of its `A`: they "
            f"differ by {worst:.1e}, so that a proximal step is not defined. Give the "
            "exact adjoint (for deepinv.physics.Tomography `adjoint_via_backprop=True`)."
        )
        raise DataStepError(msg)


def _raise_unsolved(
    physics: LinearPhysics,
    z: Tensor,
    gamma: Tensor,
    done: Tensor,
    error: Tensor,
    iterations: Tensor,
) -> None:
    worst = float(torch.where(done, 0.0, error).nan_to_num(math.inf).max())
    msg = (
        f"The data step of {type(physics).__name__} has no closed form and was not solved: "
        f"after {int(iterations.max())} iterations in {z.dtype} its error may be "
        f"{worst:.1e} of the step, more than {TOLERANCE:.0e} (weight gamma = "
        f"{float(gamma.max()):.1e}). Use an operator with a closed form (one of "
        "deepinv_lvtino.physics, or FramewisePhysics of a decomposable image operator "
        "such as deepinv.physics.BlurFFT), a larger noise level, a smaller step (`delta` "
        "of the schedule), or float64."
    )
    raise DataStepError(msg)


def require_finite(**tensors: Any) -> None:
    r"""
    Check the arguments or the result of a data step.

    :param torch.Tensor tensors: tensors, or lists of them, by name; others pass.
    :raises DataStepError: if one holds NaN or infinity.
    """
    for name, value in tensors.items():
        if isinstance(value, (Tensor, TensorList)):
            _require_finite(
                f"`{name}`" if name.isidentifier() else name, flatten(value)
            )


def _require_finite(name: str, rows: Tensor) -> None:
    if bool(torch.isfinite(rows.sum())):
        return  # one value that is not would have made the sum so
    bad = ~torch.isfinite(rows)
    if bool(bad.any()):
        msg = (
            f"{name} holds NaN or infinity in {int(bad.sum())} of {rows.numel()} values. "
            "Look at what came before: the network, the operator, or the measurement; a "
            "step of larger noise or smaller weight may stay finite."
        )
        raise DataStepError(msg)


def flatten(y: Tensor | TensorList) -> Tensor:
    r"""
    A measurement as real rows.

    :param torch.Tensor y: measurement ``(B, ...)``, real or complex, or a list of them.
    :return: (:class:`torch.Tensor`) shape ``(B, m)``.
    """
    parts = [
        (torch.view_as_real(part) if part.is_complex() else part).flatten(1)
        if part.ndim > 1
        else part.reshape(len(part), -1)
        for part in (y if isinstance(y, TensorList) else [y])
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def _unflatten(rows: Tensor, like: Tensor | TensorList) -> Tensor | TensorList:
    parts, start = [], 0
    for part in like if isinstance(like, TensorList) else [like]:
        real = torch.view_as_real(part) if part.is_complex() else part
        count = real[0].numel()
        piece = rows[:, start : start + count].reshape(len(rows), *real.shape[1:])
        parts.append(
            torch.view_as_complex(piece.contiguous()) if part.is_complex() else piece
        )
        start += count
    return TensorList(parts) if isinstance(like, TensorList) else parts[0]


def _norm(x: Tensor) -> Tensor:
    """Norm of every element of a batch, summed in float64, shape (B, 1)."""
    rows = x.flatten(1)
    return (rows * rows).sum(1, keepdim=True, dtype=_wide(x)).sqrt()


def _wide(x: Tensor) -> torch.dtype:
    """Float64, where the device has it."""
    return torch.float32 if x.device.type == "mps" else torch.float64


def _like(values: Tensor, x: Tensor) -> Tensor:
    """One value per video, shaped (and unless boolean, typed) to multiply videos."""
    shaped = values.reshape(-1, *[1] * (x.ndim - 1))
    return shaped if shaped.dtype == torch.bool else shaped.to(x.dtype)
