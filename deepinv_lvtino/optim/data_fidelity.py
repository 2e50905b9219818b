r"""The Gaussian likelihood, with the noise level of the physics at hand."""

from __future__ import annotations

import warnings
from typing import Any

from deepinv.optim import DataFidelity
from deepinv.optim.data_fidelity import L2
from deepinv.optim.linear import conjugate_gradient
from deepinv.physics import DecomposablePhysics, LinearPhysics, Physics, StackedPhysics
from deepinv.physics.noise import GaussianNoise
from torch import Tensor

from deepinv_lvtino.utils import batch_weight


def noise_std(physics: Physics) -> float | Tensor:
    r"""
    Standard deviation of a physics' Gaussian noise.

    :param deepinv.physics.Physics physics: measurement operator.
    :return: (float | torch.Tensor) one value, or one per element of the batch.
    :raises ValueError: if its noise model is not Gaussian, or has no positive deviation.
    """
    if isinstance(physics, StackedPhysics):
        msg = (
            "`physics` is a stack, whose parts have noise of their own; say which noise "
            "the measurements have with `data_fidelity=deepinv.optim.L2(sigma=...)`."
        )
        raise ValueError(msg)
    model = physics.noise_model
    sigma = getattr(model, "sigma", None) if isinstance(model, GaussianNoise) else None
    if sigma is None or not bool((sigma > 0).all()):
        found = type(model).__name__ if sigma is None else f"sigma={sigma.tolist()}"
        msg = (
            "`physics.noise_model` must be a deepinv.physics.GaussianNoise with positive "
            f"`sigma`; got {found}. Set `physics.noise_model`, or say which noise the "
            "measurement has with `data_fidelity=deepinv.optim.L2(sigma=...)`."
        )
        raise ValueError(msg)
    return float(sigma) if sigma.numel() == 1 else sigma


def prox_l2(physics: Physics, z: Tensor, y: Tensor, gamma: float | Tensor) -> Tensor:
    r"""
    Proximal step of the data term, trustworthy also where no closed form exists.

    Operators with ``exact_prox``, decomposable and non-linear ones answer themselves. For
    other linear operators DeepInverse iterates, by default 50 conjugate-gradient steps; at
    the weights used here that is far from the solution. The step is then solved for the
    *change*, whose right-hand side :math:`A^{\top} (y - A z)` lies in the range of
    :math:`A^{\top}` (what the operator does not see stays exact), with up to 500 steps.

    :param deepinv.physics.Physics physics: measurement operator.
    :param torch.Tensor z: centre, shape ``(B, C, T, H, W)``.
    :param torch.Tensor y: measurement.
    :param float, torch.Tensor gamma: weight of :math:`\frac12 \|A u - y\|^2`.
    :return: (:class:`torch.Tensor`) video, shape of ``z``.
    :raises UserWarning: (a warning) if the steps did not suffice, bounding the error.
    """
    own = getattr(physics, "exact_prox", False) or isinstance(
        physics, DecomposablePhysics
    )
    if own or not isinstance(physics, LinearPhysics):
        return physics.prox_l2(z, y, gamma)
    weight = batch_weight("gamma", gamma, z)
    right = weight * physics.A_adjoint(y - physics.A(z))

    def normal(change: Tensor) -> Tensor:
        return weight * physics.A_adjoint_A(change) + change

    change = conjugate_gradient(normal, right, max_iter=500, tol=1e-8)
    # No eigenvalue of the system is below 1: its residual bounds the error.
    error = float((normal(change) - right).norm() / change.norm().clamp(min=1e-30))
    if error > 0.1:
        warnings.warn(
            "The data step of this operator has no closed form and was not solved: after "
            f"500 conjugate-gradient steps its error may be {error:.1e} of the step. Use "
            "an operator of deepinv_lvtino.physics, or a larger noise level.",
            stacklevel=2,
        )
    return z + change


def data_weight(data_fidelity: DataFidelity, physics: Physics) -> float:
    r"""
    Factor of :math:`\frac12 \|A u - y\|^2` in a quadratic data fidelity.

    :param deepinv.optim.DataFidelity data_fidelity: :class:`GaussianLikelihood` or
        :class:`deepinv.optim.data_fidelity.L2`.
    :param deepinv.physics.Physics physics: operator, whose noise the former takes.
    :return: (float) :math:`1/\sigma_n^2`.
    :raises TypeError: if the data fidelity is another.
    :raises ValueError: if the noise is not the same for the whole batch.
    """
    if isinstance(data_fidelity, GaussianLikelihood):
        sigma = noise_std(physics)
    elif isinstance(data_fidelity, L2):
        sigma = data_fidelity.norm**-0.5
    else:
        msg = (
            "Total variation needs a quadratic `data_fidelity`, GaussianLikelihood or "
            f"deepinv.optim.L2; got {type(data_fidelity).__name__}."
        )
        raise TypeError(msg)
    if isinstance(sigma, Tensor) and sigma.numel() > 1:
        msg = (
            "Total variation needs one noise level for the whole batch; got "
            f"{sigma.numel()}. Restore the videos one by one."
        )
        raise ValueError(msg)
    return float(sigma) ** -2


class GaussianLikelihood(DataFidelity):
    r"""
    Gaussian negative log-likelihood, with the noise level that the physics declares.

    .. math::

        g_y(u) = \frac{1}{2 \sigma_n^2} \|A u - y\|^2

    where :math:`\sigma_n` is read from ``physics.noise_model`` at every call, so that one
    solver serves problems of different noise. Equal to
    :class:`deepinv.optim.data_fidelity.L2` with that ``sigma``; nothing is stored.

    :raises ValueError: on use, if the physics does not say its noise
        (:func:`noise_std`).

    |sep|

    :Examples:

        >>> import torch
        >>> from deepinv.physics import GaussianNoise
        >>> from deepinv_lvtino.optim import GaussianLikelihood
        >>> from deepinv_lvtino.physics import TemporalPooling
        >>> physics = TemporalPooling((1, 4, 2, 2), 2, noise_model=GaussianNoise(0.5))
        >>> x = torch.ones(1, 1, 4, 2, 2)
        >>> GaussianLikelihood()(x, physics.A(x) + 1, physics)  # 8 values of 1 / (2 * 0.25)
        tensor([16.0000])
    """

    def fn(
        self, x: Tensor, y: Tensor, physics: Physics, *args: Any, **kw: Any
    ) -> Tensor:
        r"""
        Value :math:`g_y(x)`.

        :param torch.Tensor x: video, shape ``(B, C, T, H, W)``.
        :param torch.Tensor y: measurement.
        :param deepinv.physics.Physics physics: operator with Gaussian noise.
        :return: (:class:`torch.Tensor`) one value per element of the batch.
        """
        return L2(noise_std(physics)).fn(x, y, physics)

    def grad(
        self, x: Tensor, y: Tensor, physics: Physics, *args: Any, **kw: Any
    ) -> Tensor:
        r"""
        Gradient :math:`A^{\top}(A x - y) / \sigma_n^2`.

        :param torch.Tensor x: video, shape ``(B, C, T, H, W)``.
        :param torch.Tensor y: measurement.
        :param deepinv.physics.Physics physics: operator with Gaussian noise.
        :return: (:class:`torch.Tensor`) gradient, shape of ``x``.
        """
        sigma = noise_std(physics)
        if isinstance(sigma, Tensor):
            sigma = sigma.reshape(-1, *[1] * (x.ndim - 1))
        return L2(1.0).grad(x, y, physics) / sigma**2

    def prox(
        self,
        x: Tensor,
        y: Tensor,
        physics: Physics,
        *args: Any,
        gamma: float | Tensor = 1.0,
        **kw: Any,
    ) -> Tensor:
        r"""
        Proximal step :math:`\arg\min_u \tau g_y(u) + \frac12 \|u - x\|^2`.

        :param torch.Tensor x: centre, shape ``(B, C, T, H, W)``.
        :param torch.Tensor y: measurement.
        :param deepinv.physics.Physics physics: operator with Gaussian noise.
        :param float gamma: step :math:`\tau`; the physics solves for
            :math:`\tau / \sigma_n^2`.
        :return: (:class:`torch.Tensor`) video, shape of ``x``.
        """
        return prox_l2(physics, x, y, gamma / noise_std(physics) ** 2)
