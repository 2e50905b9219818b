r"""Checks of what a user gives, with messages that say what to do."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

#: Largest batch whose videos are computed one by one; see :func:`each`.
ONE_BY_ONE = 64


def each(function: Callable[..., Tensor], *batches: Tensor) -> Tensor:
    r"""
    Apply a function of batches to every element by itself.

    Matrix products and convolutions round differently for another batch size; so each
    element gets what it would get alone, to the last bit, at about the same cost. Batches
    of more than 64 elements (``ONE_BY_ONE``), such as many chains of a few pixels, are
    computed as one.

    :param Callable function: function of batches, whose result is one too.
    :param torch.Tensor batches: the batches, all of the same length.
    :return: (:class:`torch.Tensor`) the results, as one batch.
    """
    if not 1 < len(batches[0]) <= ONE_BY_ONE:
        return function(*batches)
    parts = zip(*(batch.split(1) for batch in batches), strict=True)
    return torch.cat([function(*part) for part in parts])


def check_integer(
    name: str, value: Any, least: int | None = None, most: int | None = None
) -> int:
    r"""
    Check an integer, Python's or NumPy's; ``True`` and ``2.0`` are none.

    :param str name: name of the argument, for the message.
    :param int value: the value.
    :param int least: smallest value allowed; any by default.
    :param int most: largest value allowed; any by default.
    :return: (int) the value, as Python's integer.
    :raises TypeError: if it is not an integer.
    :raises ValueError: if it is out of range.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, (bool, Tensor)):
        msg = (
            f"`{name}` must be an integer; got {_shown(value)} ({type(value).__name__}). "
            "Round it, or convert it with `int(...)`."
        )
        raise TypeError(msg)
    if (least is not None and number < least) or (most is not None and number > most):
        limits = (
            f"at least {least}"
            if most is None
            else f"from {least} to {most}"
            if least is not None
            else f"at most {most}"
        )
        msg = f"`{name}` must be {limits}; got {number}."
        raise ValueError(msg)
    return number


def check_seed(name: str, value: Any) -> int:
    r"""
    Check a seed of a random generator.

    :param str name: name of the argument, for the message.
    :param int value: the seed.
    :return: (int) the seed, as Python's integer.
    :raises TypeError: if it is not an integer.
    :raises ValueError: if it is negative, or above :math:`2^{64} - 1`.
    """
    return check_integer(name, value, 0, 2**64 - 1)


def check_number(
    name: str, value: Any, *, least: float = -math.inf, most: float = math.inf
) -> float:
    r"""
    Check a finite real number: Python's, NumPy's, or a tensor of one value.

    :param str name: name of the argument, for the message.
    :param float value: the value.
    :param float least: smallest value allowed.
    :param float most: largest value allowed.
    :return: (float) the value, as Python's number.
    :raises TypeError: if it is not a real number.
    :raises ValueError: if it is not finite, or out of range.
    """
    number = _as_real(value)
    if number is None:
        msg = (
            f"`{name}` must be a number; got {_shown(value)} ({type(value).__name__}). "
            "Give one real number."
        )
        raise TypeError(msg)
    if not (math.isfinite(number) and least <= number <= most):
        limits = (
            "finite"
            if (least, most) == (-math.inf, math.inf)
            else "0 or positive, and finite"
            if (least, most) == (0, math.inf)
            else f"finite and at least {least:g}"
            if most == math.inf
            else f"finite and at most {most:g}"
            if least == -math.inf
            else f"from {least:g} to {most:g}"
        )
        msg = f"`{name}` must be {limits}; got {number}."
        raise ValueError(msg)
    return number


def _as_real(value: Any) -> float | None:
    """Real number, or ``None``; text and truth values are none."""
    if isinstance(value, (bool, str, bytes)) or value is None:
        return None
    if getattr(value, "ndim", 0) != 0:  # an array, also of one value
        return None
    try:
        return float(value)
    except OverflowError:  # an integer beyond all floats
        return math.inf
    except (TypeError, ValueError, RuntimeError):
        return None


def _shown(value: Any) -> str:
    """What came, in a few words."""
    shape = getattr(value, "shape", None)
    if shape is not None and tuple(shape):
        return f"shape {tuple(shape)}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def check_img_size(img_size: Sequence[int]) -> tuple[int, int, int, int]:
    r"""
    Check a video size.

    :param tuple[int, int, int, int] img_size: ``(C, T, H, W)``, no batch axis.
    :return: (tuple) the size as integers.
    :raises ValueError: if there are not four positive integers.
    """
    return check_sizes("img_size", img_size, "(C, T, H, W) without the batch axis")


def check_sizes(
    name: str, value: Sequence[int], axes: str
) -> tuple[int, int, int, int]:
    r"""
    Check the sizes of four axes.

    :param str name: name of the argument, for the message.
    :param Sequence[int] value: the sizes.
    :param str axes: what they are, for the message.
    :return: (tuple) the sizes as integers.
    :raises ValueError: if there are not four positive integers.
    """
    try:
        size = tuple(value)
        channels, frames, height, width = (operator.index(n) for n in size)
        good = min(channels, frames, height, width) >= 1
        good = good and not any(isinstance(n, bool) for n in size)
    except (TypeError, ValueError):
        good = False
    if not good:
        msg = f"`{name}` must be four positive integers {axes}; got {_shown(value)}."
        raise ValueError(msg)
    return channels, frames, height, width


def check_counts(**counts: int) -> tuple[int, ...]:
    r"""
    Check numbers of which there must be one or more: frames, rows, columns.

    :param int counts: the numbers, by the names of the arguments.
    :return: (tuple[int, ...]) the numbers, as Python's integers.
    :raises TypeError: if one is not an integer.
    :raises ValueError: if one is below 1.
    """
    return tuple(check_integer(name, value, 1) for name, value in counts.items())


def check_positive(name: str, value: float | Tensor) -> None:
    r"""
    Check that a number, or every entry of a tensor, is finite and positive.

    :param str name: name of the argument, for the message.
    :param float, torch.Tensor value: the value.
    :raises TypeError: if it is neither.
    :raises ValueError: if it is not.
    """
    if isinstance(value, Tensor) and not value.is_complex():
        good = bool((torch.isfinite(value) & (value > 0)).all())
    else:
        number = _as_real(value)
        if number is None:
            msg = (
                f"`{name}` must be a positive number; got {_shown(value)} "
                f"({type(value).__name__}). Convert it with `float(...)`."
            )
            raise TypeError(msg)
        good = math.isfinite(number) and number > 0
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
    good = isinstance(interval, Sequence) and not isinstance(interval, str)
    if not (
        good
        and len(interval) == 2
        and check_number(name, interval[0]) < check_number(name, interval[1])
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


def check_tensor(name: str, value: Any) -> None:
    r"""
    Check that something is a tensor.

    :param str name: name of the argument, for the message.
    :param torch.Tensor value: what the caller gave.
    :raises TypeError: if it is not.
    """
    if not isinstance(value, Tensor):
        convert = (
            " Convert an array with `torch.from_numpy(...)`."
            if hasattr(value, "__array__")
            else ""
        )
        msg = f"`{name}` must be a torch.Tensor; got {type(value).__name__}.{convert}"
        raise TypeError(msg)


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
    check_tensor(name, x)
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
