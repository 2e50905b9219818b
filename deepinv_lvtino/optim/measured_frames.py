r"""Measured frames of a separable operator: when they stand, and what space did to them."""

from __future__ import annotations

import torch
from torch import Tensor

from deepinv_lvtino.physics import SeparableVideoPhysics


def frame_centres(temporal: Tensor) -> Tensor:
    r"""
    Instant of every measured frame: the centre of mass of its weights.

    .. math::

        c_j = \sum_t t \, a_{jt} \Big/ \sum_t a_{jt}

    A frame whose weights wrap around the ends of the video has no such place in time;
    the formula then gives one near the middle.

    :param torch.Tensor temporal: matrix along time, shape ``(T', T)``.
    :return: (:class:`torch.Tensor`) instants in video frames from 0, shape ``(T',)``,
        float64, on the CPU.
    :raises ValueError: if the weights of a frame sum to zero.

    |sep|

    :Examples:

        >>> from deepinv_lvtino.optim.measured_frames import frame_centres
        >>> from deepinv_lvtino.physics import TemporalPooling
        >>> frame_centres(TemporalPooling((1, 9, 1, 1), factor=4).temporal)
        tensor([1.5000, 5.5000, 8.0000], dtype=torch.float64)
    """
    weights = temporal.detach().to("cpu", torch.float64)
    total = weights.sum(1)
    empty = total.abs() <= 1e-6 * weights.abs().sum(1)
    if bool(empty.any()):
        msg = (
            f"`temporal` gives measured frame {int(empty.nonzero()[0])} no place in "
            "time: its weights sum to zero. Use another start, 'pinv' or 'tv'."
        )
        raise ValueError(msg)
    return (weights @ torch.arange(weights.shape[1], dtype=torch.float64)) / total


def spatial_part(physics: SeparableVideoPhysics) -> SeparableVideoPhysics:
    r"""
    What a separable operator does to every frame, leaving time alone.

    :param SeparableVideoPhysics physics: the operator.
    :return: (:class:`SeparableVideoPhysics`) operator on as many frames as are measured.
    """
    return SeparableVideoPhysics(
        (physics.img_size[0], physics.measurement_size[1], *physics.img_size[2:]),
        vertical=physics.vertical,
        horizontal=physics.horizontal,
        noise_model=physics.noise_model,
        device=physics.mask.device,
        dtype=physics.mask.dtype,
    )
