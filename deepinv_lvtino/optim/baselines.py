r"""
The classical competitors, as reconstructors with the call of :class:`LVTINO`.

Both are alternating directions on DeepInverse's optimisers, with the data step
of this package: :class:`ADMMTV` with total variation over space and time, and
:class:`PnPADMM` with a denoiser in its place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from deepinv.models import Denoiser
from deepinv.optim import ADMM, BaseOptim, DataFidelity, OptimIterator, PnP
from deepinv.optim.optim_iterators.optim_iterator import fStep, gStep
from deepinv.physics import Physics
from torch import Tensor

from deepinv_lvtino.optim.data_fidelity import GaussianLikelihood, checked
from deepinv_lvtino.optim.inverse import pseudo_inverse
from deepinv_lvtino.optim.tv.variation import SpaceTimeVariation
from deepinv_lvtino.physics.functional import apply_along_axis
from deepinv_lvtino.utils import check_integer, check_number, check_positive, each


class TVSetting(NamedTuple):
    r"""
    Weights of :class:`ADMMTV`.

    :param float lambda_reg: weight of the variation, per unit of intensity.
    :param float time_weight: weight of the temporal difference.
    """

    lambda_reg: float
    time_weight: float


#: The weights of :class:`ADMMTV` for a named problem.
TV_SETTINGS = {
    "A": TVSetting(10.0, 1.0),
    "B": TVSetting(10.0, 2.0),
    "C": TVSetting(10.0, 2.0),
}


class ADMMTV(BaseOptim):
    r"""
    Total variation over space and time, by alternating directions.

    .. math::

        \underset{x}{\arg\min} \; \frac{1}{2 \sigma^2} \|A x - y\|^2
        + \lambda \sum \sqrt{w^2 (\partial_t x)^2 + (\partial_h x)^2 + (\partial_w x)^2}

    Each iteration (:class:`ADMMTVIteration`) takes one exact data step, one shrinkage and
    one exact linear solve; nothing is iterated inside.

    :param str, float lambda_reg: weight :math:`\lambda`, per unit of intensity; or the name
        of a problem, ``'A'``, ``'B'`` or ``'C'``, for the settings of ``TV_SETTINGS`` (the
        best of a grid on a real clip of 25 frames of 192×320 with :math:`\sigma` = 0.001).
    :param float time_weight: weight :math:`w` of the temporal difference.
    :param deepinv.optim.DataFidelity data_fidelity: data fidelity; by default the Gaussian
        likelihood with the noise that the physics declares.
    :param float threshold: difference, in intensity units, that one shrinkage removes; it
        sets the penalty :math:`\rho = \lambda` / ``threshold`` and with it the speed, not
        the limit.
    :param int max_iter: most iterations.
    :param float thres_conv: relative change of a video to stop at; each video of a batch
        stops by itself.
    :param kwargs: further arguments of :class:`deepinv.optim.BaseOptim`, such as
        ``custom_metrics``.
    :raises ValueError: if a number is not positive, or the problem has no settings.

    |sep|

    :Examples:

        >>> import torch
        >>> from deepinv_lvtino import make_problem
        >>> from deepinv_lvtino.optim import ADMMTV
        >>> physics = make_problem("A", img_size=(3, 8, 32, 32))
        >>> y = physics(torch.rand(1, 3, 8, 32, 32))
        >>> ADMMTV("A", max_iter=5)(y, physics).shape
        torch.Size([1, 3, 8, 32, 32])
    """

    def __init__(
        self,
        lambda_reg: str | float = 10.0,
        time_weight: float | None = None,
        *,
        data_fidelity: DataFidelity | None = None,
        threshold: float = 0.1,
        max_iter: int = 60,
        thres_conv: float = 1e-4,
        **kwargs: Any,
    ) -> None:
        if isinstance(lambda_reg, str):
            if lambda_reg not in TV_SETTINGS:
                msg = (
                    "`lambda_reg` must be a number or the name of a problem with "
                    f"settings, {', '.join(map(repr, TV_SETTINGS))}; got "
                    f"{lambda_reg!r}."
                )
                raise ValueError(msg)
            lambda_reg, tuned = TV_SETTINGS[lambda_reg]
            time_weight = tuned if time_weight is None else time_weight
        for name, value in (
            ("lambda_reg", lambda_reg),
            ("threshold", threshold),
            ("thres_conv", thres_conv),
        ):
            check_positive(name, value)
        max_iter = check_integer("max_iter", max_iter, 1)
        prior = SpaceTimeVariation(1.0 if time_weight is None else time_weight)
        super().__init__(
            ADMMTVIteration(),
            params_algo={
                "lambda": float(lambda_reg),
                "stepsize": threshold / float(lambda_reg),
            },
            data_fidelity=(
                GaussianLikelihood()
                if data_fidelity is None
                else checked(data_fidelity)
            ),
            prior=prior,
            max_iter=max_iter,
            thres_conv=thres_conv,
            early_stop=True,
            custom_init=kwargs.pop("custom_init", pseudo_inverse),
            **kwargs,
        )
        self.eval()

    def check_conv_fn(self, it: int, X_prev: dict[str, Any], X: dict[str, Any]) -> bool:
        r"""
        Whether every video has converged; those that have stay as they are.

        DeepInverse stops by the mean over the batch. Here each video stops when it would
        stop alone, so that its result does not depend on the others.

        :param int it: number of the iteration.
        :param dict X_prev: iterate before.
        :param dict X: iterate; which videos have converged is noted in its ``"done"``.
        :return: (bool) whether all have.
        """
        if self.crit_conv != "residual":
            return super().check_conv_fn(it, X_prev, X)
        pairs = zip(X_prev["est"][0], X["est"][0], strict=True)
        changes = [float((a - b).norm() / (b.norm() + 1e-6)) for a, b in pairs]
        found = torch.tensor([change < self.thres_conv for change in changes])
        done = found.to(X["est"][0].device)
        X["done"] = done | X["done"] if "done" in X else done
        self.has_converged = bool(X["done"].all())
        return self.has_converged


class ADMMTVIteration(OptimIterator):
    r"""
    One iteration of :class:`ADMMTV`, with :math:`\gamma = 1/\rho` the stepsize.

    The video is split into :math:`v = x` for the data and :math:`d = K x` for the
    variation, with scaled dual variables :math:`p`, :math:`q`:

    .. math::

        v &\leftarrow \operatorname{prox}_{\gamma f}(x + p), \qquad
        d \leftarrow \operatorname{prox}_{\gamma \lambda |\cdot|}(K x + q) \\
        p &\leftarrow p + x - v, \qquad q \leftarrow q + K x - d \\
        x &\leftarrow (I + K^{\top} K)^{-1} \left[ (v - p) + K^{\top} (d - q) \right]

    The differences :math:`K` vanish past the border, so that cosines along time, height
    and width diagonalise :math:`K^{\top} K` (``cosine_solve``).
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(has_cost=False, g_first=False, **kwargs)
        self.f_step = fStepADMMTV(g_first=False)
        self.g_step = gStepADMMTV(g_first=False)

    def forward(
        self,
        X: dict[str, Any],
        cur_data_fidelity: DataFidelity,
        cur_prior: SpaceTimeVariation,
        cur_params: dict[str, Any],
        y: Tensor,
        physics: Physics,
        *args: Any,
        **kwargs: Any,
    ) -> dict[str, Any]:
        r"""
        Run one iteration.

        :param dict X: iterate ``{"est": (x, p, q), "cost": None}``; ``p`` and ``q`` start
            at zero if they are missing. Videos marked in ``"done"``, a tensor ``(B,)``,
            stay as they are.
        :param deepinv.optim.DataFidelity cur_data_fidelity: data fidelity.
        :param SpaceTimeVariation cur_prior: total variation.
        :param dict cur_params: ``"stepsize"`` and ``"lambda"``.
        :param torch.Tensor y: measurement.
        :param deepinv.physics.Physics physics: measurement operator.
        :return: (dict) the next iterate, of the same form.
        """
        x, p, q = before = _state(X["est"], cur_prior)
        v = self.f_step(x, p, cur_data_fidelity, cur_params, y, physics)
        p = (p + x).sub_(v)
        right = v.sub_(p)
        moved, q = self.g_step(cur_prior.differences(x), q, cur_prior, cur_params)
        right += cur_prior.adjoint(moved.sub_(q, alpha=2))
        del moved
        x = cosine_solve(right, cur_prior.weights)
        done = X.get("done")
        if done is None:
            return {"est": (x, p, q), "cost": None}
        kept = zip(before, (x, p, q), strict=True)
        est = tuple(torch.where(_along_batch(done, b), a, b) for a, b in kept)
        return {"est": est, "cost": None, "done": done}


def _along_batch(value: Tensor, like: Tensor) -> Tensor:
    return value.view(-1, *[1] * (like.ndim - 1))


def _state(est: tuple[Tensor, ...], prior: SpaceTimeVariation) -> tuple[Tensor, ...]:
    x = est[0]
    if len(est) == 3:
        return est
    return x, torch.zeros_like(x), torch.zeros_like(prior.differences(x))


class fStepADMMTV(fStep):
    r"""Data step of :class:`ADMMTVIteration`."""

    def forward(
        self,
        x: Tensor,
        p: Tensor,
        cur_data_fidelity: DataFidelity,
        cur_params: dict[str, Any],
        y: Tensor,
        physics: Physics,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        r"""
        Proximal step of the data fidelity.

        :param torch.Tensor x: video.
        :param torch.Tensor p: its scaled dual variable.
        :param deepinv.optim.DataFidelity cur_data_fidelity: data fidelity.
        :param dict cur_params: ``"stepsize"``.
        :param torch.Tensor y: measurement.
        :param deepinv.physics.Physics physics: measurement operator.
        :return: (:class:`torch.Tensor`) video.
        """
        return cur_data_fidelity.prox(x + p, y, physics, gamma=cur_params["stepsize"])


class gStepADMMTV(gStep):
    r"""Shrinkage of :class:`ADMMTVIteration`."""

    def forward(
        self,
        d: Tensor,
        q: Tensor,
        cur_prior: SpaceTimeVariation,
        cur_params: dict[str, Any],
        *args: Any,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        r"""
        Proximal step of the size of the differences (Moreau's identity).

        :param torch.Tensor d: differences.
        :param torch.Tensor q: their scaled dual variable.
        :param SpaceTimeVariation cur_prior: total variation.
        :param dict cur_params: ``"stepsize"`` and ``"lambda"``.
        :return: (tuple) :math:`K x + q`, which takes the place of ``d``, and the next
            :math:`q`, its projection; what is between them are the shrunk differences.
        """
        bound = cur_params["stepsize"] * cur_params["lambda"]
        moved = d.add_(q)
        return moved, cur_prior.project(moved, float(bound))


def cosine_solve(right: Tensor, weights: Sequence[float]) -> Tensor:
    r"""
    Solve :math:`(I + \sum_i w_i^2 D_i^{\top} D_i) x = r` for forward differences.

    :param torch.Tensor right: :math:`r`, shape ``(B, C, T, H, W)``.
    :param Sequence[float] weights: :math:`w` of time, height and width.
    :return: (:class:`torch.Tensor`) :math:`x`.
    """
    total: Any = 1.0
    bases = []
    for axis, weight in zip((2, 3, 4), weights, strict=True):
        basis, values = _cosines(right.shape[axis], right.dtype, right.device)
        bases.append(basis)
        shape = [1, 1, 1]
        shape[axis - 2] = -1
        total = total + weight**2 * values.view(shape)

    def solve(r: Tensor) -> Tensor:
        for axis, basis in zip((2, 3, 4), bases, strict=True):
            r = apply_along_axis(r, basis, axis)
        r = r / total
        for axis, basis in zip((2, 3, 4), bases, strict=True):
            r = apply_along_axis(r, basis.mT, axis)
        return r

    return each(solve, right)


@lru_cache(maxsize=16)
def _cosines(
    size: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Orthonormal cosines, a row each, and the eigenvalues of D'D."""
    order = torch.arange(size, dtype=torch.float64)
    basis = torch.cos(math.pi / size * order[:, None] * (order + 0.5))
    basis = basis / torch.linalg.vector_norm(basis, dim=1, keepdim=True)
    values = 2 - 2 * torch.cos(math.pi * order / size)
    return basis.to(device, dtype), values.to(device, dtype)


class PnPADMM(ADMM):
    r"""
    Plug-and-play alternating directions with decreasing noise levels.

    DeepInverse's :class:`deepinv.optim.ADMM` with a denoiser as prior. The noise level
    falls geometrically, and the data step follows it as in DPIR
    :footcite:p:`zhang2021plug`: :math:`\gamma_k = s_k^2 / \lambda`.

    :param deepinv.models.Denoiser denoiser: denoiser of videos ``(B, C, T, H, W)`` in
        [0, 1], called with the standard deviation of the noise, such as
        ``tiny_video().as_denoiser()``.
    :param tuple[float, float] sigma_denoiser: first and last noise level.
    :param float lambda_reg: :math:`\lambda`.
    :param int max_iter: iterations.
    :param deepinv.optim.DataFidelity data_fidelity: data fidelity; by default the Gaussian
        likelihood with the noise that the physics declares.
    :param kwargs: further arguments of :class:`deepinv.optim.ADMM`.
    :raises TypeError: if ``denoiser`` cannot be called.
    :raises ValueError: if a level is not positive, or they do not decrease.

    |sep|

    .. footbibliography::
    """

    def __init__(
        self,
        denoiser: Denoiser | Callable[..., Tensor],
        sigma_denoiser: tuple[float, float] = (0.25, 0.02),
        lambda_reg: float = 0.25,
        max_iter: int = 12,
        *,
        data_fidelity: DataFidelity | None = None,
        **kwargs: Any,
    ) -> None:
        if not callable(denoiser):
            msg = (
                "`denoiser` must be a denoiser, called as denoiser(x, sigma); got "
                f"{type(denoiser).__name__}."
            )
            raise TypeError(msg)
        if not isinstance(sigma_denoiser, Sequence) or len(sigma_denoiser) != 2:
            msg = (
                "`sigma_denoiser` must be a first and a last level; got "
                f"{sigma_denoiser!r}."
            )
            raise TypeError(msg)
        first, last = (check_number("sigma_denoiser", s) for s in sigma_denoiser)
        check_positive("lambda_reg", lambda_reg)
        if not 0 < last <= first:
            msg = (
                "`sigma_denoiser` must be a first and a last level with 0 < last <= "
                f"first; got {sigma_denoiser}."
            )
            raise ValueError(msg)
        max_iter = check_integer("max_iter", max_iter, 1)
        ratio = (last / first) ** (1 / max(max_iter - 1, 1))
        levels = [first * ratio**k for k in range(max_iter)]
        super().__init__(
            data_fidelity=(
                GaussianLikelihood()
                if data_fidelity is None
                else checked(data_fidelity)
            ),
            prior=PnP(denoiser=denoiser),
            params_algo={
                "lambda": 1.0,
                "stepsize": [level**2 / lambda_reg for level in levels],
                "g_param": levels,
                "beta": 1.0,
            },
            max_iter=max_iter,
            early_stop=False,
            custom_init=kwargs.pop("custom_init", _pseudo_inverse_and_zero),
            **kwargs,
        )
        self.eval()


def _pseudo_inverse_and_zero(y: Tensor, physics: Physics) -> tuple[Tensor, Tensor]:
    x = pseudo_inverse(y, physics)
    return x, torch.zeros_like(x)
