r"""Photographs seen by a moving camera: the synthetic half of the footage."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from deepinv_lvtino.datasets._motion import (
    MotionPath,
    camera_speed,
    combined,
    moved,
    object_speed,
    random_path,
    seen,
)
from deepinv_lvtino.datasets.dead_leaves.outlines import Outline

_MOMENTS = 6  # in which the shutter is open, of a frame with motion blur
_FINE = 1.5  # pixels of a photograph for one of a frame, at most


def view(
    photo: Tensor,
    path: MotionPath,
    scale: float,
    centre: np.ndarray,
    size: tuple[int, int],
    oversample: int = 2,
) -> Tensor:
    r"""
    Frames of a photograph that moves along a path.

    :param torch.Tensor photo: photograph, shape ``(3, H, W)``.
    :param tuple path: what the camera sees of the motion: shifts ``(T, 2)`` along x and y
        in pixels of a frame, angles ``(T,)`` in radians, magnifications ``(T,)``.
    :param float scale: pixels of the photograph for one of a frame.
    :param numpy.ndarray centre: point ``(x, y)`` of the photograph, in its pixels, that
        the path moves about, and which a frame at rest has in its middle.
    :param tuple[int, int] size: height and width of a frame.
    :param int oversample: a frame is the mean of this many times as many samples along
        each axis, which removes what would alias; the photograph goes on mirrored
        outside.
    :return: (:class:`torch.Tensor`) frames, shape ``(T, 3, h, w)``.
    """
    points = grid(size, oversample)
    frames = _layer(photo, moved(points, path, np.zeros(2)), scale, centre)
    return F.avg_pool2d(frames, oversample)


def grid(size: tuple[int, int], oversample: int) -> Tensor:
    """Centres of samples, shape ``(2, k h, k w)``, in pixels from the middle."""
    height, width = size
    y, x = np.mgrid[: oversample * height, : oversample * width].astype(np.float32)
    return torch.from_numpy(
        np.stack(
            [(x + 0.5) / oversample - width / 2, (y + 0.5) / oversample - height / 2]
        )
    )


def _layer(photo: Tensor, inside: Tensor, scale: float, centre: np.ndarray) -> Tensor:
    height, width = photo.shape[-2:]
    x = (scale * inside[0] + float(centre[0])) * (2 / width) - 1
    y = (scale * inside[1] + float(centre[1])) * (2 / height) - 1
    place = torch.stack([x, y], dim=-1)
    frames = F.grid_sample(
        photo.expand(len(place), -1, -1, -1),
        place,
        mode="bicubic",
        padding_mode="reflection",
        align_corners=False,
    )
    return frames.clamp_(0, 1)


def shrunk(photo: Tensor, scale: float) -> tuple[Tensor, float]:
    r"""
    Shrink a photograph, without aliasing, to at most 1.5 pixels for one of a frame.

    :param torch.Tensor photo: photograph, shape ``(3, H, W)``.
    :param float scale: pixels of it for one of a frame.
    :return: (tuple[torch.Tensor, float]) photograph, and how many of its pixels make one
        of a frame now.
    """
    if scale <= _FINE:
        return photo, scale
    size = [round(n * _FINE / scale) for n in photo.shape[-2:]]
    small = F.interpolate(photo[None], size, mode="bicubic", antialias=True)
    return small[0].clamp(0, 1), _FINE


def shake(rng: np.random.Generator, times: np.ndarray) -> MotionPath:
    r"""
    Trembling of a hand: a few unsteady swings along each axis and about the view.

    :param numpy.random.Generator rng: generator.
    :param numpy.ndarray times: moments, in frames, shape ``(T,)``.
    :return: (tuple) shifts up to about two pixels, angles of a few thousandths.
    """
    paces = rng.uniform(0.3, 2.2, (3, 4))
    phases = rng.uniform(0, 2 * np.pi, (3, 4))
    sizes = rng.normal(size=(3, 4)) / (1 + paces)
    swings = (sizes * np.sin(times[:, None, None] * paces + phases)).sum(-1)
    strength = rng.uniform(0.1, 1.2)
    return (
        strength * swings[:, :2],
        0.003 * strength * swings[:, 2],
        np.ones(len(times)),
    )


def moving_photograph(
    photo: Tensor,
    num_frames: int,
    size: tuple[int, int],
    rng: np.random.Generator,
) -> Tensor:
    r"""
    A photograph under a random camera: pan, zoom, turn, shake, parallax and motion blur.

    One to three pixels of the photograph make one of a frame. Half of the clips have one
    or two nearer layers, pieces of the same photograph elsewhere, which follow the camera
    faster and move by themselves. No grain is added.

    :param torch.Tensor photo: photograph in [0, 1], shape ``(3, H, W)``, at least as large
        as a frame.
    :param int num_frames: number of frames.
    :param tuple[int, int] size: height and width of a frame.
    :param numpy.random.Generator rng: generator.
    :return: (:class:`torch.Tensor`) clip, shape ``(3, T, h, w)``, in [0, 1].
    :raises ValueError: if the photograph is smaller than a frame.
    """
    height, width = photo.shape[-2:]
    room = min(height / size[0], width / size[1])
    if room < 1:
        msg = (
            f"`photo` must be at least as large as a frame, {size[0]}x{size[1]}; got "
            f"{height}x{width}."
        )
        raise ValueError(msg)
    scale = float(rng.uniform(1, max(1.0, min(3.0, 0.9 * room))))
    photo, scale = shrunk(photo, scale)
    height, width = photo.shape[-2:]
    times = np.arange(num_frames, dtype=np.float64)
    moments = _MOMENTS if rng.random() < 0.2 else 1
    opened = rng.uniform(0.1, 0.6) * np.arange(moments) / moments
    times = (times[:, None] + opened).ravel()
    camera = random_path(rng, speed=camera_speed(rng), times=times)
    if rng.random() < 0.4:
        camera = combined(camera, shake(rng, times))
    points = grid(size, 2)
    path = seen(camera, float(rng.uniform(0.4, 1.0)))
    centre = _centre(rng, path, scale, photo, size)
    frames = _layer(photo, moved(points, path, np.zeros(2)), scale, centre)
    for near in np.sort(
        rng.uniform(1.1, 2.0, int(rng.choice([0, 1, 2], p=[0.5, 0.3, 0.2])))
    ):
        outline = Outline(rng, max(size) / 2)
        own = random_path(rng, speed=object_speed(rng), times=times)
        path = combined(seen(camera, near), own)
        place = rng.uniform(-0.5, 0.5, 2) * [size[1], size[0]]
        inside = moved(points, path, place)
        leaf = _layer(photo, inside, scale, rng.uniform(0.2, 0.8, 2) * [width, height])
        frames = frames + outline.cover(inside) * (leaf - frames)
    frames = F.avg_pool2d(frames, 2)
    frames = frames.unflatten(0, (num_frames, moments)).mean(1)
    return frames.transpose(0, 1).contiguous()


def _centre(
    rng: np.random.Generator,
    path: MotionPath,
    scale: float,
    photo: Tensor,
    size: tuple[int, int],
) -> np.ndarray:
    """A place for the view to start from, so that it stays inside where there is room."""
    full = np.array(photo.shape[:-3:-1], dtype=np.float64)
    half = scale * np.array(size[::-1]) / 2
    # the layer moves one way, the view over it the other
    low = half + scale * path[0].max(0)
    high = full - half + scale * path[0].min(0)
    middle = (low + high) / 2
    reach = np.maximum(high - low, 0) / 2
    return middle + rng.uniform(-1, 1, 2) * reach
