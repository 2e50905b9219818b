r"""
The proximal step of data fidelity and total variation, by name.

:func:`prox_l2_tv` is the first data step of LVTINO's sweep in full.
"""

from __future__ import annotations

from typing import Any

from deepinv.physics import Physics
from torch import Tensor

from deepinv_lvtino.optim.tv.along_motion import MotionVariation
from deepinv_lvtino.optim.tv.problem import TVOptions, TVProblem
from deepinv_lvtino.optim.tv.solve import solved, warn_unsolved
from deepinv_lvtino.optim.tv.variation import (
    SpaceTimeVariation,
    TemporalVariation,
    Variation,
)
from deepinv_lvtino.physics.functional import check_choice


def prox_l2_tv(
    z: Tensor,
    y: Tensor | None,
    physics: Physics | None,
    gamma: float,
    lam: float,
    kind: str | Variation = "temporal",
    solver: str = "auto",
    *,
    dual: Tensor | None = None,
    **options: Any,
) -> Tensor:
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
    :param torch.Tensor dual: dual variable to start from, of an earlier
        :class:`TVResult`.
    :param options: ``tol``, ``max_iter`` and what else :class:`TVOptions` holds. A warning
        says the gap if the iterations did not suffice.
    :return: (:class:`torch.Tensor`) the solution; :func:`solve_l2_tv` also says how well it
        is known.
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
    problem = TVProblem(z, y, physics, gamma, lam, as_variation("kind", kind))
    settings = TVOptions(solver, **options)
    result = solved(problem, settings, dual)
    warn_unsolved(result, settings)
    return result.video


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
