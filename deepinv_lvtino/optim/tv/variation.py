r"""Total variation of videos: difference operators, and priors built on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from deepinv.optim import Prior
from torch import Tensor

from deepinv_lvtino.optim.tv.abstract import AbstractVariation
from deepinv_lvtino.optim.tv.problem import TVOptions, TVProblem
from deepinv_lvtino.optim.tv.solve import solve_l2_tv
from deepinv_lvtino.utils import check_number, check_positive


class Variation(AbstractVariation, Prior):
    r"""
    Total variation :math:`\sum |K u|` for some difference operator :math:`K`.

    A subclass gives what :class:`AbstractVariation` lists: :math:`K`, its adjoint, the
    bound of its norm, and what :math:`|\cdot|` means. The proximal step is
    :func:`deepinv_lvtino.optim.prox_l2_tv` without a measurement.
    """

    def __init__(self) -> None:
        super().__init__()
        self.explicit_prior = True

    def fn(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        r"""
        Total variation of every video of a batch.

        :param torch.Tensor x: videos, shape ``(B, C, T, H, W)``.
        :return: (:class:`torch.Tensor`) values, shape ``(B,)``.
        """
        return self.value(x)

    def prox(self, x: Tensor, *args: Any, gamma: float = 1.0, **kwargs: Any) -> Tensor:
        r"""
        Proximal step :math:`\arg\min_u \gamma \, \mathrm{TV}(u) + \frac12 \|u - x\|^2`.

        :param torch.Tensor x: video, shape ``(B, C, T, H, W)``.
        :param float gamma: weight :math:`\gamma`.
        :param kwargs: ``tol`` and ``max_iter`` of
            :func:`deepinv_lvtino.optim.prox_l2_tv`.
        :return: (:class:`torch.Tensor`) video of the same shape.
        """
        problem = TVProblem(x, None, None, 0.0, gamma, self)
        dual = kwargs.pop("dual", None)
        return solve_l2_tv(problem, TVOptions(**kwargs), dual).video


class TemporalVariation(Variation):
    r"""
    Anisotropic total variation along time alone.

    .. math::

        \mathrm{TV}_t(u) = \sum |u_{t+1} - u_t|

    DeepInverse's :class:`deepinv.optim.TVPrior` has no such case: it is isotropic over all
    axes.

    |sep|

    :Examples:

        >>> import torch
        >>> from deepinv_lvtino.optim import TemporalVariation
        >>> x = torch.tensor([0.0, 1.0, 1.0, 0.5]).view(1, 1, 4, 1, 1)
        >>> TemporalVariation()(x)
        tensor([1.5000])
    """

    sqnorm = 4.0
    along_time = True

    def differences(self, u: Tensor) -> Tensor:
        return torch.diff(u, dim=2)

    def adjoint(self, p: Tensor) -> Tensor:
        return difference_adjoint(p, 2)

    def magnitude(self, d: Tensor) -> Tensor:
        return d.abs()

    def squares(self, d: Tensor) -> Tensor:
        return d.square()

    def project(self, p: Tensor, bound: float) -> Tensor:
        return p.clamp(-bound, bound)


class SpaceTimeVariation(Variation):
    r"""
    Isotropic total variation over time, height and width.

    .. math::

        \mathrm{TV}(u) = \sum \sqrt{ w^2 (\partial_t u)^2 + (\partial_h u)^2
        + (\partial_w u)^2 + \epsilon^2 }

    with forward differences that vanish past the border, a weight :math:`w` on time, and
    optional smoothing. With :math:`w = 1` and :math:`\epsilon = 0` it is DeepInverse's
    :class:`deepinv.optim.TVPrior`, whose proximal step however keeps a hidden warm start
    from call to call, and which has neither weight nor smoothing.

    :param float time_weight: :math:`w`, positive.
    :param float smoothing: :math:`\epsilon \ge 0`, in intensity units; it counts in the
        value and in the ``"adam"`` solver, the proximal solvers work on
        :math:`\epsilon = 0`.
    :raises ValueError: if a parameter is out of range.
    """

    def __init__(self, time_weight: float = 1.0, smoothing: float = 0.0) -> None:
        super().__init__()
        check_positive("time_weight", time_weight)
        check_number("smoothing", smoothing, least=0)
        self.weights = (time_weight, 1.0, 1.0)
        self.smoothing = smoothing
        self.sqnorm = 4 * sum(weight**2 for weight in self.weights)

    def differences(self, u: Tensor) -> Tensor:
        d = u.new_zeros((len(u), 3, *u.shape[1:]))
        self._add_differences(d, u, (0, 1, 2))
        return d

    def adjoint(self, p: Tensor) -> Tensor:
        u = torch.zeros_like(p[:, 0])
        self._add_adjoint(u, p, (0, 1, 2))
        return u

    def _add_differences(
        self, d: Tensor, u: Tensor, parts: Sequence[int], factor: float = 1.0
    ) -> None:
        """Add the differences over time (0), height (1) and width (2) to their part."""
        for i in parts:
            weight, axis = factor * self.weights[i], i + 2
            length = u.shape[axis] - 1
            part = d[:, i].narrow(axis, 0, length)
            part.add_(u.narrow(axis, 1, length), alpha=weight)
            part.sub_(u.narrow(axis, 0, length), alpha=weight)

    def _add_adjoint(self, u: Tensor, p: Tensor, parts: Sequence[int]) -> None:
        """Add the adjoint of these differences."""
        for i in parts:
            weight, axis = self.weights[i], i + 2
            length = u.shape[axis] - 1
            part = p[:, i].narrow(axis, 0, length)
            u.narrow(axis, 1, length).add_(part, alpha=weight)
            u.narrow(axis, 0, length).sub_(part, alpha=weight)

    def magnitude(self, d: Tensor) -> Tensor:
        # many times faster than `torch.linalg.vector_norm` over this axis
        square = d.square().sum(1)
        if self.smoothing > 0:
            return (square + self.smoothing**2).sqrt()
        positive = square > 0
        return square.where(positive, 1).sqrt() * positive  # zero slope at zero

    def project(self, p: Tensor, bound: float) -> Tensor:
        if bound == 0:
            return torch.zeros_like(p)
        return p / _excess(p, bound)

    def ascend_(self, p: Tensor, u: Tensor, step: float, bound: float) -> Tensor:
        r"""
        Dual step in place.

        .. math::

            p \leftarrow \operatorname{proj}_{|p| \le \lambda} (p + \sigma K u)

        :param torch.Tensor p: dual variable, overwritten.
        :param torch.Tensor u: video.
        :param float step: :math:`\sigma`.
        :param float bound: :math:`\lambda`, positive.
        :return: (:class:`torch.Tensor`) ``p``.
        """
        self._add_differences(p, u, (0, 1, 2), step)
        return p.div_(_excess(p, bound))


def _excess(p: Tensor, bound: float) -> Tensor:
    """What to divide by to bring the length over the parts down to a bound."""
    square = p[:, 0].square()
    for part in (p[:, 1], p[:, 2]):
        square.addcmul_(part, part)
    return square.sqrt_().div_(bound).clamp_(min=1).unsqueeze(1)


def difference_adjoint(p: Tensor, axis: int) -> Tensor:
    r"""
    Adjoint of ``torch.diff(u, dim=axis)``.

    :param torch.Tensor p: differences.
    :param int axis: the axis, one shorter than the result's.
    :return: (:class:`torch.Tensor`) tensor one longer along ``axis``.
    """
    size, length = list(p.shape), p.shape[axis]
    size[axis] += 1
    u = p.new_zeros(size)
    u.narrow(axis, 1, length).add_(p)
    u.narrow(axis, 0, length).sub_(p)
    return u
