r"""The start by total variation over space and time, and the rule for its weight."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy

import torch
from deepinv.optim.data_fidelity import L2
from deepinv.physics import GaussianNoise, LinearPhysics, Physics
from torch import Tensor

from deepinv_lvtino.optim._channels import channels
from deepinv_lvtino.optim.baselines import ADMMTV
from deepinv_lvtino.optim.inverse import (
    LEAST_NOISE,
    declared_noise,
    filled_inverse,
)

#: Weight of the variation in :func:`tv_start`, per unit of intensity, that of its temporal
#: part, and number of iterations.
TV_LAMBDA, TIME_WEIGHT, TV_ITERATIONS = 10.0, 2.0, 20

#: Weight of the variation per unit of the noise in the data term's gradient, where that is
#: less than the weights above.
NOISE_SHARE = 0.5


def variation_weight(
    y: Tensor, physics: Physics, sigma: float, largest: float
) -> float:
    r"""
    Weight of a total variation that has to withstand the noise of a measurement.

    The gradient of :math:`\|A x - y\|^2 / 2 \sigma^2` at the true video is the noise
    :math:`A^{\top} n / \sigma^2`, with the root mean square
    :math:`r = \|A\|_F / (\sigma \sqrt{N})` for :math:`N` values of the video. What a
    variation of weight :math:`\lambda` pulls with is of the size of :math:`\lambda`: more
    than a share of :math:`r` flattens the video, and where the operator takes much and the
    noise is strong, :math:`r` is small. So

    .. math::

        \lambda = \min (\lambda_0, \; r / 2)

    with :math:`\lambda_0` for little noise. The share of 1/2 (``NOISE_SHARE``) is
    near the best for eleven operators and noise from 0.001 to 0.1, see the user guide
    (schedules). The norm is found by one random vector (Hutchinson's estimate).

    :param torch.Tensor y: measurement, of which the size counts.
    :param deepinv.physics.Physics physics: measurement operator.
    :param float sigma: standard deviation of the noise.
    :param float largest: :math:`\lambda_0`.
    :return: (float) the weight, per unit of intensity.
    """
    if not isinstance(physics, LinearPhysics):
        return largest
    rng = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, y[:1].shape, generator=rng).to(y) * 2 - 1
    with torch.no_grad():
        back = physics.A_adjoint(signs)
    return min(largest, NOISE_SHARE * float(back.square().mean().sqrt()) / sigma)


def tv_start(y: Tensor, physics: Physics) -> Tensor:
    r"""
    The video of least total variation over space and time that explains the measurement.

    Twenty iterations (``TV_ITERATIONS``) of :class:`ADMMTV` with :math:`\lambda = 10`
    (``TV_LAMBDA``), or less if the noise asks for it (``variation_weight``), and
    twice the weight on time (``TIME_WEIGHT``), for the noise level that the
    physics declares (one, or one per element of the batch), or 0.001 (``LEAST_NOISE``) if
    that is larger. They begin at :func:`filled_inverse`.

    :param torch.Tensor y: measurement.
    :param deepinv.physics.Physics physics: measurement operator.
    :return: (:class:`torch.Tensor`) video, shape ``(B, C, T, H, W)``.
    """

    def solve(y: Tensor, physics: Physics, sigma: float) -> Tensor:
        weight = variation_weight(y, physics, sigma, TV_LAMBDA)
        solver = ADMMTV(
            weight, TIME_WEIGHT, data_fidelity=L2(sigma), max_iter=TV_ITERATIONS
        )
        begin = filled_inverse(y, physics)
        parts = channels(physics, len(y))
        if len(parts) == 1:
            return solver(y, physics, init=begin)
        return torch.cat(
            [solver(y[:, c], part, init=begin[:, c]) for c, part in parts], dim=1
        )

    return by_noise(y, physics, solve)


def by_noise(
    y: Tensor, physics: Physics, solve: Callable[[Tensor, Physics, float], Tensor]
) -> Tensor:
    r"""
    Solve for the noise that the physics declares, or ``LEAST_NOISE`` if that is larger.

    Elements of a batch with levels of their own are solved alone.

    :param torch.Tensor y: measurement.
    :param deepinv.physics.Physics physics: measurement operator.
    :param Callable solve: from measurement, operator and noise level to a video.
    :return: (:class:`torch.Tensor`) video, shape ``(B, C, T, H, W)``.
    """
    sigma = declared_noise(y, physics, LEAST_NOISE)
    if not isinstance(sigma, Tensor):
        return solve(y, physics, sigma)
    parts = zip(y.split(1), sigma.tolist(), strict=True)
    return torch.cat([solve(part, _with_noise(physics, s), s) for part, s in parts])


def _with_noise(physics: Physics, sigma: float) -> Physics:
    """The same operator (its buffers shared) with another noise level."""
    other = copy(physics)
    other._modules = dict(physics._modules)  # noqa: SLF001
    other.noise_model = GaussianNoise(sigma)
    return other
