r"""Measurements on another scale than videos in [0, 1]: 0 to 255, most often."""

from __future__ import annotations

import math

import torch
from deepinv.optim import DataFidelity
from deepinv.optim.data_fidelity import L2
from deepinv.physics import LinearPhysics, Physics
from deepinv.physics.noise import GaussianNoise
from torch import Tensor

from deepinv_lvtino.physics import JPEGCompression

#: Root mean square, in [0, 1] units, that a video must at least have to be refused.
LARGEST = 4.0

#: Below this one no measurement is looked at: an operator would have to be very weak.
_HARMLESS = 2.0


def check_range(
    name: str, y: Tensor, physics: Physics, data_fidelity: DataFidelity
) -> None:
    r"""
    Refuse a measurement that no video with values in [0, 1] can have given.

    If :math:`y = A x + n`, then by Cauchy and Schwarz

    .. math::

        \|y\| \, (\|y\| - \|n\|) \le \|A^{\top} y\| \, \|x\|

    so that a lower bound of the root mean square of :math:`x` follows, whatever the scale
    of the operator (sums, blurs, masks) and however noisy the measurement. It is refused
    above 4 (``LARGEST``), while no video in [0, 1] exceeds 1. Operators that are not
    linear, JPEG excepted, and noise whose size is not known, are let through.

    :param str name: name of the argument, for the message.
    :param torch.Tensor y: measurement, real and finite.
    :param deepinv.physics.Physics physics: operator.
    :param deepinv.optim.DataFidelity data_fidelity: data fidelity, whose noise level counts
        if it has one.
    :raises ValueError: if it is on another scale.
    """
    if y.is_complex() or _rms(y) <= _HARMLESS:
        return
    sigma = _noise(physics, data_fidelity)
    if sigma is None:
        return
    with torch.no_grad():
        bound = _bound(y, physics, sigma)
    if bound > LARGEST:
        msg = (
            f"`{name}` must be the measurement of a video with values in [0, 1]; any that "
            f"explains it has a root mean square of {bound:.3g} or more. Divide 8-bit "
            f"values by 255 (`{name} / 255`), or build the operator with its own scale."
        )
        raise ValueError(msg)


def _bound(y: Tensor, physics: Physics, sigma: float) -> float:
    """Lower bound of the root mean square of the video."""
    if isinstance(physics, JPEGCompression):
        return _rms(y)
    if not isinstance(physics, LinearPhysics):
        return 0.0
    back = physics.A_adjoint(y)
    if not isinstance(back, Tensor) or back.is_complex():
        return 0.0
    size = float(y.double().norm())
    signal = size - 2 * sigma * math.sqrt(y.numel())
    reach = float(back.double().norm()) * math.sqrt(back.numel())
    return size * signal / max(reach, 1e-300) if signal > 0 else 0.0


def _noise(physics: Physics, data_fidelity: DataFidelity) -> float | None:
    """Largest standard deviation of the noise, or ``None`` if it is not known."""
    if isinstance(physics, JPEGCompression):
        return 0.0  # a bound is not needed: such measurements lie in [0, 1]
    if isinstance(data_fidelity, L2):
        return float(torch.as_tensor(data_fidelity.norm).min()) ** -0.5
    model = getattr(physics, "noise_model", None)
    if isinstance(model, GaussianNoise):
        return float(model.sigma.max())
    return None


def _rms(x: Tensor) -> float:
    return float(x.double().square().mean().sqrt())
