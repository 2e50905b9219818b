r"""What a run needs of its measurement and of its start, checked before it begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from deepinv.optim import DataFidelity
from deepinv.physics import Physics, StackedPhysics
from deepinv.utils import TensorList
from torch import Tensor

from deepinv_lvtino.optim._range import check_range
from deepinv_lvtino.physics import SeparableVideoPhysics
from deepinv_lvtino.utils import check_tensor, check_video


def check_measurement(
    y: Tensor | TensorList,
    physics: Physics,
    data_fidelity: DataFidelity,
    models: Mapping[str, torch.nn.Module | None],
) -> None:
    r"""
    Refuse a measurement that no run can use.

    :param torch.Tensor y: measurement, or a list of them.
    :param deepinv.physics.Physics physics: measurement operator.
    :param deepinv.optim.DataFidelity data_fidelity: data fidelity.
    :param dict models: models by the names of their arguments.
    :raises TypeError: if it is not a floating-point tensor of the operator's dtype.
    :raises ValueError: if it does not fit the operator (shape), is empty or on another
        device than the operator and the models, holds NaN or infinity, or is on another
        scale.
    """
    if isinstance(physics, SeparableVideoPhysics):
        check_video("y", y, size=physics.measurement_size, like=physics.mask)
    for part in y if isinstance(y, TensorList) else (y,):
        _check_values(part)
        for name, owner in {"physics": physics, **models}.items():
            _check_device(part, name, owner)
        _check_finite("y", part)
        check_range("y", part, physics, data_fidelity)


def check_start(x: Any, y: Tensor | TensorList, physics: Physics) -> None:
    r"""
    Refuse a start that is not a batch of videos for a measurement.

    :param torch.Tensor x: start.
    :param torch.Tensor y: measurement, or a list of them.
    :param deepinv.physics.Physics physics: measurement operator.
    :raises TypeError: if it is not a floating-point tensor.
    :raises ValueError: if its shape or device does not fit, or it holds NaN or infinity.
    """
    size = getattr(physics, "img_size", None)
    check_video("init", x, size=size if size and len(size) == 4 else None)
    parts = list(y) if isinstance(y, TensorList) else [y]
    if len(x) != len(parts[0]):
        msg = f"`init` holds {len(x)} videos for {len(parts[0])} measurements in `y`."
        raise ValueError(msg)
    if x.device != parts[0].device:
        msg = f"`init` is on {x.device} but `y` is on {parts[0].device}; move it."
        raise ValueError(msg)
    _check_finite("init", x)
    if not isinstance(physics, SeparableVideoPhysics):  # which checks sizes itself
        measured = physics.A(x)
        found = list(measured) if isinstance(measured, TensorList) else [measured]
        expected = [tuple(part.shape) for part in parts]
        if [tuple(part.shape) for part in found] != expected:
            msg = (
                f"`y` has shape {expected}, but the physics turns the start, of shape "
                f"{tuple(x.shape)}, into {[tuple(part.shape) for part in found]}. Give "
                "the physics of this measurement."
            )
            raise ValueError(msg)


def _check_values(y: Tensor) -> None:
    check_tensor("y", y)
    if not y.is_floating_point() and not y.is_complex():
        msg = (
            f"`y` must be floating point with values in [0, 1]; got {y.dtype}. "
            "Convert 8-bit measurements with `y.float() / 255`."
        )
        raise TypeError(msg)
    if y.numel() == 0:
        msg = f"`y` is empty: shape {tuple(y.shape)}."
        raise ValueError(msg)


def _check_device(y: Tensor, name: str, owner: torch.nn.Module | None) -> None:
    for tensor in _tensors(owner):
        if tensor.device != y.device:
            msg = (
                f"`y` is on {y.device} but `{name}` is on {tensor.device}. Move "
                "one of them with `.to(...)`."
            )
            raise ValueError(msg)


def _check_finite(name: str, x: Tensor) -> None:
    if not bool(torch.isfinite(x).all()):
        msg = (
            f"`{name}` must be finite; it holds NaN or infinity. Replace those values."
        )
        raise ValueError(msg)


def _tensors(module: torch.nn.Module | None) -> list[Tensor]:
    """Parameters and buffers; DeepInverse's stacks keep their parts in a list."""
    if module is None or getattr(module, "follows_device", False):
        return []
    parts = module.physics_list if isinstance(module, StackedPhysics) else [module]
    # DeepInverse's marker of a device is on the CPU where no device was named, also
    # in an operator whose parts are all elsewhere
    return [
        tensor
        for part in parts
        for name, tensor in (*part.named_parameters(), *part.named_buffers())
        if name.rpartition(".")[2] != "_device_holder"
    ]
