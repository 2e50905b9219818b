r"""
Motion between images, for starts that follow it and metrics that measure it: a dense
classical flow, and images moved along it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

#: Smallest side, in pixels, of an image that the optical flow is computed on.
_FLOW_SIDE = 16


def optical_flow(first: Tensor, second: Tensor) -> Tensor:
    r"""
    Where every pixel of an image lies in another one.

    Dense inverse search :footcite:p:`kroeger2016fast` on 8-bit greys (mean over the
    channels), on the CPU with one thread.

    :param torch.Tensor first: images in [0, 1], shape ``(B, C, H, W)``.
    :param torch.Tensor second: images of the same shape.
    :return: (:class:`torch.Tensor`) displacement in pixels, (x, y), shape
        ``(B, H, W, 2)``, on the device and of the dtype of ``first``.
    :raises ImportError: if OpenCV is missing.

    |sep|

    .. footbibliography::
    """
    cv2 = _opencv()
    height, width = first.shape[-2:]
    flows = []
    with _one_thread(cv2):
        for pair in zip(_grey(first), _grey(second), strict=True):
            search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
            flows.append(search.calc(*pair, None)[:height, :width])
    return torch.from_numpy(np.stack(flows)).to(first)


def _grey(images: Tensor) -> np.ndarray:
    """8-bit greys, repeated at the border up to the size that the flow needs."""
    grey = images.detach().float().mean(1).clamp(0, 1).mul(255).round()
    pad = [(0, 0), *((0, max(0, _FLOW_SIDE - size)) for size in grey.shape[1:])]
    return np.pad(grey.to("cpu", torch.uint8).numpy(), pad, mode="edge")


def warp(images: Tensor, flow: Tensor) -> Tensor:
    r"""
    Values of images at displaced pixels, bilinear; outside, those of the border.

    :param torch.Tensor images: shape ``(B, C, H, W)``.
    :param torch.Tensor flow: displacement in pixels, (x, y), shape ``(B, H, W, 2)``.
    :return: (:class:`torch.Tensor`) images of the same shape.
    """
    return gather(images, sampling_grid(flow))


def sampling_grid(flow: Tensor) -> Tensor:
    r"""
    Where a flow takes its values from, in the unit of PyTorch's ``grid_sample``.

    :param torch.Tensor flow: displacement in pixels, (x, y), shape ``(B, H, W, 2)``.
    :return: (:class:`torch.Tensor`) places, corners of the image at ±1, same shape.
    """
    height, width = flow.shape[1:3]
    last = flow.new_tensor([max(width - 1, 1), max(height - 1, 1)])
    return (_places(flow) + flow).mul_(2 / last).sub_(1)


def gather(images: Tensor, grid: Tensor) -> Tensor:
    r"""
    Bilinear values of images at the places of a grid; outside, those of the border.

    :param torch.Tensor images: shape ``(B, C, H, W)``.
    :param torch.Tensor grid: places, see :func:`sampling_grid`.
    :return: (:class:`torch.Tensor`) images of the same shape.
    """
    return grid_sample(
        images, grid, mode="bilinear", padding_mode="border", align_corners=True
    )


def scatter(images: Tensor, grid: Tensor) -> Tensor:
    r"""
    Adjoint of :func:`gather`: every value is shared out to the pixels it was taken from.

    :param torch.Tensor images: shape ``(B, C, H, W)``.
    :param torch.Tensor grid: places, see :func:`sampling_grid`.
    :return: (:class:`torch.Tensor`) images of the same shape.
    """
    bilinear, border = 0, 1  # numbers of the modes above
    return torch.ops.aten.grid_sampler_2d_backward(
        images, images, grid, bilinear, border, True, [True, False]
    )[0]


def inside(flow: Tensor) -> Tensor:
    r"""
    Whether a flow stays within the frame.

    :param torch.Tensor flow: displacement in pixels, (x, y), shape ``(B, H, W, 2)``.
    :return: (:class:`torch.Tensor`) boolean, shape ``(B, H, W)``.
    """
    height, width = flow.shape[1:3]
    place = _places(flow) + flow
    return ((place >= 0) & (place <= flow.new_tensor([width - 1, height - 1]))).all(-1)


def as_images(video: Tensor) -> Tensor:
    r"""
    Frames of videos as one batch of images.

    :param torch.Tensor video: shape ``(B, C, T, H, W)``.
    :return: (:class:`torch.Tensor`) shape ``(B T, C, H, W)``.
    """
    return video.transpose(1, 2).flatten(0, 1)


def as_video(images: Tensor, batch: int) -> Tensor:
    r"""
    A batch of images as videos, the opposite of :func:`as_images`.

    :param torch.Tensor images: shape ``(B T, C, H, W)``.
    :param int batch: number of videos.
    :return: (:class:`torch.Tensor`) shape ``(B, C, T, H, W)``.
    """
    return images.unflatten(0, (batch, -1)).transpose(1, 2)


def _places(flow: Tensor) -> Tensor:
    """(x, y) of every pixel, shape ``(H, W, 2)``."""
    height, width = flow.shape[1:3]
    rows = torch.arange(height, device=flow.device, dtype=flow.dtype)
    columns = torch.arange(width, device=flow.device, dtype=flow.dtype)
    return torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)


def _opencv() -> ModuleType:
    try:
        import cv2
    except ImportError as error:
        msg = (
            "The optical flow (of `init='interpolate'` and of the warping error) needs "
            "OpenCV, which cannot be imported. Install it with: pip install "
            '"deepinv-lvtino[flow]"; or take another start, give a flow of your own.'
        )
        raise ImportError(msg) from error
    return cv2


@contextmanager
def _one_thread(cv2: ModuleType) -> Iterator[None]:
    """OpenCV with one thread: its flow depends on how the image is shared out."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
