r"""Checks that the video metrics share."""

from __future__ import annotations

from torch import Tensor

from deepinv_lvtino.utils import check_video

Clamp = tuple[float, float] | None


def check_pair(x_net: Tensor | None, x: Tensor | None, least_frames: int = 1) -> Tensor:
    r"""
    Check an estimate and its reference.

    :param torch.Tensor x_net: estimate, ``(B, C, T, H, W)`` expected.
    :param torch.Tensor x: reference of the same shape, or ``None``.
    :param int least_frames: smallest number of frames.
    :return: (torch.Tensor) the estimate.
    :raises TypeError: if one is not a floating-point tensor.
    :raises ValueError: if shapes, devices or the number of frames are not as expected.
    """
    x_net = checked("x_net", x_net)
    if x is not None:
        check_video("x", x)
        if x.shape != x_net.shape:
            msg = (
                f"`x` must have the shape of `x_net`, {tuple(x_net.shape)}; got "
                f"{tuple(x.shape)}. Crop or resize one of them."
            )
            raise ValueError(msg)
        if x.device != x_net.device:
            msg = (
                f"`x` is on {x.device} but `x_net` is on {x_net.device}. Move one of "
                "them with `.to(...)`."
            )
            raise ValueError(msg)
    if x_net.shape[2] < least_frames:
        msg = (
            f"`x_net` must have {least_frames} frames or more; got {x_net.shape[2]}. "
            "Give a longer video."
        )
        raise ValueError(msg)
    return x_net


def checked(name: str, x: Tensor | None) -> Tensor:
    r"""
    Check that a tensor is there, and a video.

    :param str name: name of the argument, for the message.
    :param torch.Tensor x: the tensor.
    :return: (torch.Tensor) the same.
    :raises TypeError: if it is not a floating-point tensor.
    :raises ValueError: if it does not have five axes.
    """
    check_video(name, x)  # type: ignore[arg-type]  # refuses None
    return x  # type: ignore[return-value]


def need_reference(name: str, x: Tensor | None) -> Tensor:
    r"""
    Check that there is a reference.

    :param str name: name of the metric, for the message.
    :param torch.Tensor x: the reference.
    :return: (torch.Tensor) the reference.
    :raises ValueError: if it is ``None``.
    """
    if x is None:
        msg = (
            f"`x` is missing: {name} compares with a reference video. Call it as "
            "metric(x_net, x)."
        )
        raise ValueError(msg)
    return x


def clamped(x: Tensor, clamp: Clamp) -> Tensor:
    r"""
    Project to an interval.

    :param torch.Tensor x: any tensor.
    :param tuple[float, float] clamp: interval, or ``None`` for none.
    :return: (torch.Tensor) the projected tensor.
    """
    return x if clamp is None else x.clamp(*clamp)
