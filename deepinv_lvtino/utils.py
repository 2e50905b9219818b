r"""Checks of what a user gives, with messages that say what to do."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def check_img_size(img_size: Sequence[int]) -> tuple[int, int, int, int]:
    r"""
    Check a video size.

    :param tuple[int, int, int, int] img_size: ``(C, T, H, W)``, no batch axis.
    :return: (tuple) the size as integers.
    :raises ValueError: if there are not four positive integers.
    """
    size = tuple(img_size) if isinstance(img_size, Sequence) else (img_size,)
    if len(size) != 4 or any(not _is_count(n) for n in size):
        msg = (
            "`img_size` must be four positive integers (C, T, H, W) without the batch "
            f"axis; got {size}."
        )
        raise ValueError(msg)
    channels, frames, height, width = (int(n) for n in size)
    return channels, frames, height, width


def _is_count(value: object) -> bool:
    return isinstance(value, (int, float)) and value >= 1 and value == math.floor(value)


def check_counts(**counts: int) -> None:
    r"""
    Check numbers of which there must be one or more: frames, rows, columns.

    :param int counts: the numbers, by the names of the arguments.
    :raises ValueError: if one is below 1.
    """
    for name, value in counts.items():
        if value < 1:
            msg = f"`{name}` must be at least 1; got {value}."
            raise ValueError(msg)


def check_positive(name: str, value: float | Tensor) -> None:
    r"""
    Check that a number, or every entry of a tensor, is finite and positive.

    :param str name: name of the argument, for the message.
    :param float, torch.Tensor value: the value.
    :raises ValueError: if it is not.
    """
    if isinstance(value, Tensor):
        good = bool((torch.isfinite(value) & (value > 0)).all())
    else:
        good = math.isfinite(value) and value > 0
    if not good:
        msg = f"`{name}` must be positive and finite; got {value}."
        raise ValueError(msg)


def check_clamp(interval: Sequence[float] | None, name: str = "clamp") -> None:
    r"""
    Check an interval to project to.

    :param tuple[float, float] interval: interval, or ``None``.
    :param str name: name of the argument, for the message.
    :raises ValueError: if it is neither.
    """
    if interval is None:
        return
    if (
        not isinstance(interval, Sequence)
        or len(interval) != 2
        or not interval[0] < interval[1]
    ):
        msg = f"`{name}` must be an interval (low, high) or None; got {interval}."
        raise ValueError(msg)


def batch_weight(name: str, value: float | Tensor, like: Tensor) -> float | Tensor:
    r"""
    Check a positive weight, and shape it to multiply a batch of videos.

    :param str name: name of the argument, for the message.
    :param float, torch.Tensor value: one number, or a tensor of one or ``B`` values.
    :param torch.Tensor like: batch ``(B, ...)``.
    :return: (float | torch.Tensor) the number, or a tensor of shape ``(B or 1, 1, ...)``.
    :raises ValueError: if a value is not positive, or their number is another.
    """
    check_positive(name, value)
    if not isinstance(value, Tensor):
        return value
    if value.numel() not in (1, len(like)):
        msg = (
            f"`{name}` must be one number or one per element of the batch "
            f"({len(like)}); got {value.numel()}."
        )
        raise ValueError(msg)
    return value.reshape(-1, *[1] * (like.ndim - 1)).to(like)


def check_video(
    name: str,
    x: Tensor,
    *,
    size: Sequence[int] | None = None,
    like: Tensor | None = None,
) -> None:
    r"""
    Check that a tensor is a floating-point video batch of a given kind.

    :param str name: name of the argument, for the message.
    :param torch.Tensor x: tensor to check, ``(B, C, T, H, W)`` expected.
    :param tuple[int, ...] size: expected ``(C, T, H, W)``; any by default.
    :param torch.Tensor like: tensor whose dtype and device are expected; any floating
        dtype and any device by default.
    :raises TypeError: if ``x`` is not a tensor, or its dtype is not as expected.
    :raises ValueError: if its shape or device is not as expected, or it is empty.
    """
    if not isinstance(x, Tensor):
        msg = f"`{name}` must be a torch.Tensor; got {type(x).__name__}."
        raise TypeError(msg)
    if x.ndim != 5:
        msg = (
            f"`{name}` must have 5 axes (B, C, T, H, W); got shape {tuple(x.shape)}. "
            "Add the missing axes, for example with `video[None]` for one video "
            "(C, T, H, W)."
        )
        raise ValueError(msg)
    if x.numel() == 0:
        msg = (
            f"`{name}` is empty: shape {tuple(x.shape)}. Every axis needs one element."
        )
        raise ValueError(msg)
    if not x.is_floating_point():
        msg = (
            f"`{name}` must be floating point with values in [0, 1]; got {x.dtype}. "
            "Convert 8-bit videos with `video.float() / 255`."
        )
        raise TypeError(msg)
    if size is not None and tuple(x.shape[1:]) != tuple(size):
        msg = (
            f"`{name}` must have shape (B, {', '.join(map(str, size))}) for this "
            f"operator; got {tuple(x.shape)}. Build the operator for that size, or "
            "crop the tensor."
        )
        raise ValueError(msg)
    if like is None:
        return
    if x.device != like.device:
        msg = (
            f"`{name}` is on {x.device} but the operator is on {like.device}. Move one "
            "of them with `.to(...)`."
        )
        raise ValueError(msg)
    if x.dtype != like.dtype:
        msg = (
            f"`{name}` is {x.dtype} but the operator is {like.dtype}. Convert one of "
            "them with `.to(...)`."
        )
        raise TypeError(msg)


def prox_arguments(
    z: Tensor | float | None,
    y: Tensor,
    gamma: float | Tensor,
    img_size: Sequence[int],
) -> tuple[Tensor, float | Tensor]:
    r"""
    Check centre and weight of a proximal step, and bring them to one form.

    :param torch.Tensor z: centre, ``(B, C, T, H, W)``; a number stands for a constant
        video, ``None`` for 0.
    :param torch.Tensor y: measurement, already checked, ``(B, ...)``.
    :param float, torch.Tensor gamma: weight, one number or one per batch element.
    :param tuple[int, ...] img_size: video size ``(C, T, H, W)``.
    :return: (tuple) centre as a video, and weight as :func:`batch_weight` gives it.
    :raises TypeError: if the centre is of another dtype than the measurement.
    :raises ValueError: if shape, batch or device do not fit, or a weight is not positive.
    """
    if z is None or isinstance(z, (int, float)):
        z = y.new_full((len(y), *img_size), 0.0 if z is None else float(z))
    check_video("z", z, size=img_size, like=y)
    if len(z) != len(y):
        msg = f"`z` holds {len(z)} videos for {len(y)} measurements in `y`."
        raise ValueError(msg)
    return z, batch_weight("gamma", gamma, y)
