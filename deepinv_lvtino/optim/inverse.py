r"""The pseudo-inverse of an operator, without what the noise outweighs."""

from __future__ import annotations

from copy import copy

import torch
from deepinv.physics import LinearPhysics, Physics, Tomography
from torch import Tensor

from deepinv_lvtino.optim._filling import fill_missing
from deepinv_lvtino.optim.data_fidelity import prox_l2
from deepinv_lvtino.physics import (
    FramewiseLinearPhysics,
    SeparableVideoPhysics,
    VideoInpainting,
)

#: Weight of the data where a start has to explain the measurement: the squared ratio of
#: what is left to add (0.1) to the usual noise (0.001).
DATA_GAMMA = 1e4

#: Smallest noise level that a start assumes.
LEAST_NOISE = 0.001


def pseudo_inverse(y: Tensor, physics: Physics) -> Tensor:
    r"""
    Pseudo-inverse :math:`A^{\dagger} y`, the start of the published algorithm.

    If the singular values are known (separable and framewise decomposable operators) and
    the operator says its noise level, those below that level are left out: there the noise
    outweighs any video. A linear operator without a closed form is inverted with damping,
    a proximal step from black of weight :math:`(0.1 / \sigma_n)^2`, at most
    :math:`10^4` (``DATA_GAMMA``): its exact pseudo-inverse is beyond single precision. With
    one level per element of the batch, each has its own.

    :param torch.Tensor y: measurement.
    :param deepinv.physics.Physics physics: measurement operator.
    :return: (:class:`torch.Tensor`) video, shape ``(B, C, T, H, W)``.
    :raises DataStepError: if there is no closed form and the iteration fails.
    """
    return truncated_inverse(y, physics, 0.0)


def filled_inverse(y: Tensor, physics: Physics) -> Tensor:
    r"""
    :func:`pseudo_inverse` of a measurement whose missing pixels are filled first.

    Behind a mask (:class:`deepinv_lvtino.physics.VideoInpainting`), pixels that are not
    seen come from those around them, over many if the hole is large (the pull-push
    algorithm): black, as the pseudo-inverse leaves them, is what few iterations of a
    variation do not forget, and what no flow can follow. Every other operator has its
    pseudo-inverse.

    :param torch.Tensor y: measurement.
    :param deepinv.physics.Physics physics: measurement operator.
    :return: (:class:`torch.Tensor`) video, shape ``(B, C, T, H, W)``.
    """
    if not isinstance(physics, VideoInpainting):
        return pseudo_inverse(y, physics)
    inner = copy(physics.temporal_physics)
    inner.noise_model = physics.noise_model
    return pseudo_inverse(fill_missing(y, physics), inner)


def truncated_inverse(y: Tensor, physics: Physics, smallest: float) -> Tensor:
    r"""
    :func:`pseudo_inverse` without what lies below the noise level, or another one.

    :param torch.Tensor y: measurement.
    :param deepinv.physics.Physics physics: measurement operator.
    :param float smallest: singular values below it are left out too.
    :return: (:class:`torch.Tensor`) video, shape ``(B, C, T, H, W)``.
    """
    framewise = isinstance(physics, FramewiseLinearPhysics) and physics.exact_prox
    if not isinstance(physics, SeparableVideoPhysics) and not framewise:
        return _damped_inverse(y, physics) if iterates(physics) else physics.A_dagger(y)
    sigma = declared_noise(y, physics, smallest)
    if not isinstance(sigma, Tensor):
        return physics.A_dagger(y, smallest=sigma)
    parts = zip(y.split(1), sigma.tolist(), strict=True)
    return torch.cat([physics.A_dagger(part, smallest=level) for part, level in parts])


def iterates(physics: Physics) -> bool:
    r"""
    Whether the pseudo-inverse of an operator is DeepInverse's iteration.

    :param deepinv.physics.Physics physics: measurement operator.
    :return: (bool) false for operators with a formula of their own.
    """
    if isinstance(physics, FramewiseLinearPhysics):
        return not physics.exact_prox and iterates(physics.image_physics)
    iterative = (LinearPhysics.A_dagger, Tomography.A_dagger)
    return getattr(type(physics), "A_dagger", None) in iterative


def _damped_inverse(y: Tensor, physics: Physics) -> Tensor:
    """Tikhonov's inverse, for steps of 0.1 and the noise level at hand."""
    weight = DATA_GAMMA * (LEAST_NOISE / declared_noise(y, physics, LEAST_NOISE)) ** 2
    return prox_l2(
        physics, 0.0, y, weight.to(y) if isinstance(weight, Tensor) else weight
    )


def declared_noise(y: Tensor, physics: Physics, least: float) -> float | Tensor:
    r"""
    Standard deviation of the noise that the physics declares, or ``least`` if larger.

    :param torch.Tensor y: measurement, ``B`` on its first axis.
    :param deepinv.physics.Physics physics: measurement operator.
    :param float least: smallest level.
    :return: (float | torch.Tensor) one number, or one per element of the batch, each as it
        would be alone.
    :raises ValueError: if there are as many levels as neither.
    """
    sigma = getattr(physics.noise_model, "sigma", None)
    if sigma is None:
        return least
    sigma = torch.as_tensor(sigma).to("cpu", torch.float64).flatten().clamp(min=least)
    if sigma.numel() == 1:
        return float(sigma)
    if len(sigma) != len(y):
        msg = (
            "`physics.noise_model.sigma` must be one number or one per element of the "
            f"batch `y` ({len(y)}); got {len(sigma)}."
        )
        raise ValueError(msg)
    return sigma
