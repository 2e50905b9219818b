r"""
The closed forms of DeepInverse's decomposable operators, exact in single precision.

With :math:`A = U \, \mathrm{diag}(s) V^*`, DeepInverse computes a proximal step as
:math:`V [V^* (A^{\top} y + z / \gamma) / (s^2 + 1/\gamma)]`. That loses what a thin
:math:`V` does not span (:class:`deepinv.physics.Decolorize`), and multiplies the rounding
of :math:`A^{\top} y` by :math:`\gamma`. The forms here add a correction to :math:`z`, as
:class:`SeparableVideoPhysics` does.
"""

from __future__ import annotations

import torch
from deepinv.physics import DecomposablePhysics
from torch import Tensor


def is_decomposable(physics: object) -> bool:
    r"""
    Whether an operator is decomposable, with DeepInverse's formulas.

    :param deepinv.physics.Physics physics: operator.
    :return: (bool) false also for operators that have formulas of their own.
    """
    kind = DecomposablePhysics
    return isinstance(physics, kind) and (
        type(physics).prox_l2 is kind.prox_l2
        and type(physics).A_dagger is kind.A_dagger
    )


def decomposed_prox(
    physics: DecomposablePhysics,
    z: Tensor | float | None,
    y: Tensor,
    gamma: float | Tensor,
) -> Tensor:
    r"""
    Proximal step of the data term in closed form.

    .. math::

        \operatorname{prox}(z) = z + V \left[ \frac{\gamma \bar s \, (U^* y - s V^* z)}
        {1 + \gamma |s|^2} \right]

    :param deepinv.physics.DecomposablePhysics physics: operator.
    :param torch.Tensor z: centre, ``(B, ...)``; a number stands for a constant one,
        ``None`` for 0.
    :param torch.Tensor y: measurement, ``(B, ...)``.
    :param float, torch.Tensor gamma: positive weight, or one per element of the batch.
    :return: (:class:`torch.Tensor`) solution, ``(B, ...)``.
    """
    s, right = _mask(physics), physics.U_adjoint(y)
    if isinstance(gamma, Tensor):
        gamma = gamma.reshape(-1, *[1] * (right.ndim - 1))
    weight = gamma * s.conj() / (1 + gamma * (s.conj() * s).real)
    if not isinstance(z, Tensor):
        like = physics.V(weight * right)
        if not z:
            return like
        z = torch.full_like(like, float(z))
    return z + physics.V(weight * (right - s * physics.V_adjoint(z)))


def decomposed_pinv(
    physics: DecomposablePhysics, y: Tensor, smallest: float = 0.0
) -> Tensor:
    r"""
    Pseudo-inverse in closed form.

    :param deepinv.physics.DecomposablePhysics physics: operator.
    :param torch.Tensor y: measurement, ``(B, ...)``.
    :param float smallest: singular values below this one count as zero, like those below
        the rounding error of the largest.
    :return: (:class:`torch.Tensor`) least-squares solution of smallest norm.
    """
    s, right = _mask(physics), physics.U_adjoint(y)
    size = s.abs()
    axis = max(right.shape[1:], default=1)
    rounding = axis * torch.finfo(size.dtype).eps * size.max()
    keep = size > rounding.clamp(min=smallest)
    inverse = torch.where(keep, 1 / torch.where(keep, s, 1.0), 0.0)
    return physics.V(right * inverse)


def _mask(physics: DecomposablePhysics) -> Tensor:
    if physics.mask is None:
        msg = (
            f"`{type(physics).__name__}` has no singular values yet; give its mask or "
            "filter when building it, or with `physics.update(...)`."
        )
        raise ValueError(msg)
    return physics.mask
