r"""
Scenes: sheets in motion before a camera, developed like video.

Lengths are in pixels of the final frames.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from deepinv_lvtino.datasets._motion import (
    camera_speed,
    combined,
    moved,
    object_speed,
    random_path,
    seen,
)
from deepinv_lvtino.datasets.dead_leaves import sheets
from deepinv_lvtino.datasets.dead_leaves.outlines import Outline
from deepinv_lvtino.utils import check_counts, check_integer

STREAM = 1
"""First word of the random streams of scenes."""

_FINE = 2  # samples of a scene for each pixel of a frame, along each axis

# shares of the scenes
_BLURRED, _STILL, _TILTED, _WITH_GROUND = 0.12, 0.06, 0.4, 0.35
_SOFT_LENS, _GRAINY = 0.15, 0.3

_MOMENTS = 4  # in which the shutter is open, of a frame with motion blur
_OPEN = (0.1, 0.5)  # shutter, of a frame
_FARTHEST, _NEAREST = (0.3, 0.9), (0.9, 2.0)  # parallax of the sheet behind, of objects
_OBJECTS, _MOST_OBJECTS = 0.22, 10
_TILT = (0.1, 0.55)

# pixels of a sheet for each of the frame's: at least two, for a sharp picture
_SHEET_SCALE, _ZOOM, _CLOSE_ZOOM = 2.2, 2.7, 1.6
_HALF_SHEET = 4.4  # above which the sheet of half the size is as sharp
_UPRIGHT = 0.08  # deviation from a right angle, in radians

_MIDDLE = (0.2, 0.7)  # mean brightness that a camera chooses
_SHOULDER = 0.8  # brightness above which lights are compressed
_GRAIN = (0.001, 0.01)


def check_numbers(**numbers: int) -> None:
    """Refuse numbers of clips and seeds below 0."""
    for name, value in numbers.items():
        if check_integer(name, value) < 0:
            msg = f"`{name}` must be 0 or positive; got {value}."
            raise ValueError(msg)


def dead_leaves_clip(
    index: int = 0,
    num_frames: int = 9,
    height: int = 64,
    width: int = 64,
    *,
    seed: int = 0,
    grain: bool = True,
) -> Tensor:
    r"""
    One training clip.

    A core renders about sixty clips of the default size in a second, once the sheets that
    they need are painted, which takes 0.4 s for each of them in each process.

    :param int index: number of the clip, 0 or positive.
    :param int num_frames: number of frames.
    :param int height: height in pixels.
    :param int width: width in pixels.
    :param int seed: seed of the whole collection, 0 or positive.
    :param bool grain: whether three clips in ten have the grain of a sensor; what learns
        to draw clips had better not see it.
    :return: (:class:`torch.Tensor`) clip ``(3, T, H, W)``, float32, in [0, 1].
    :raises ValueError: if a size is not positive, or a number is negative.

    |sep|

    :Examples:

        >>> from deepinv_lvtino.datasets import dead_leaves_clip
        >>> dead_leaves_clip(index=3, num_frames=2, height=16, width=24).shape
        torch.Size([3, 2, 16, 24])
    """
    check_counts(num_frames=num_frames, height=height, width=width)
    check_numbers(index=index, seed=seed)
    rng = np.random.default_rng([seed, STREAM, index])
    blurred = rng.random() < _BLURRED
    times = np.arange(num_frames, dtype=np.float64)
    if blurred:
        moments = rng.uniform(*_OPEN) * np.arange(_MOMENTS) / _MOMENTS
        times = (times[:, None] + moments).ravel()
    frames = _render(rng, times, _FINE * height, _FINE * width, seed)
    frames = F.avg_pool2d(frames, _FINE)
    if blurred:
        frames = frames.unflatten(0, (num_frames, _MOMENTS)).mean(1)
    return _develop(rng, frames, grain).transpose(0, 1).contiguous()


def _render(
    rng: np.random.Generator, times: np.ndarray, height: int, width: int, seed: int
) -> Tensor:
    """Frames ``(T, 3, H, W)`` at twice the final resolution."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    # centred, in pixels of the final resolution
    points = torch.from_numpy(
        np.stack([(x + 0.5 - width / 2) / _FINE, (y + 0.5 - height / 2) / _FINE])
    )
    still = rng.random() < _STILL
    camera = random_path(rng, speed=0.0 if still else camera_speed(rng), times=times)
    path = seen(camera, rng.uniform(*_FARTHEST))
    plane = points
    if rng.random() < _TILTED:
        plane = _tilted(rng, points)
    frames = _layer(rng, moved(plane, path, np.zeros(2)), seed)
    reach = max(height, width) / (2 * _FINE)
    count = min(int(rng.geometric(_OBJECTS)) - 1, _MOST_OBJECTS)
    nearness = np.sort(rng.uniform(*_NEAREST, count))
    grounds = rng.random() < _WITH_GROUND
    for index, near in enumerate(nearness):
        shape = Outline(rng, reach, ground=grounds and index == 0)
        speed = 0.0 if still or shape.ground else object_speed(rng)
        path = combined(seen(camera, near), random_path(rng, speed=speed, times=times))
        centre = rng.uniform(-1, 1, 2) * [width / (2 * _FINE), height / (2 * _FINE)]
        rows, columns = shape.box(path, centre, height, width)
        if rows.start >= rows.stop or columns.start >= columns.stop:
            continue
        inside = moved(points[:, rows, columns], path, centre)
        below = frames[:, :, rows, columns]
        if shape.shadow > 0:
            below = below * (1 - shape.shadow * shape.shade(inside))
        leaf = _layer(rng, inside, seed, closer=not shape.ground)
        frames[:, :, rows, columns] = below + shape.cover(inside) * (leaf - below)
    return frames


def _right_angle(rng: np.random.Generator, deviation: float) -> float:
    """One of four right angles, about."""
    return float(rng.choice([0.0, 0.5, 1.0, 1.5]) * np.pi + rng.normal(0, deviation))


def _tilted(rng: np.random.Generator, points: Tensor) -> Tensor:
    """The plane of a wall or a street, seen in perspective."""
    direction = _right_angle(rng, 0.2)
    far = points.abs().amax() * math.sqrt(2)
    along = points[0] * math.cos(direction) + points[1] * math.sin(direction)
    return points / (1 + float(rng.uniform(*_TILT)) * along / far)


def _layer(
    rng: np.random.Generator, inside: Tensor, seed: int, closer: bool = False
) -> Tensor:
    """A sheet seen through a moving window, recoloured, shape ``(T, 3, H, W)``."""
    number = int(rng.integers(sheets.NUM_SHEETS))
    scale = _SHEET_SCALE * (_CLOSE_ZOOM if closer else _ZOOM) ** rng.random()
    angle = _right_angle(rng, _UPRIGHT)
    # the map keeps straight lines, so that the extremes are at the corners
    corners = inside[:, :, [0, 0, -1, -1], [0, -1, 0, -1]].flatten(1)
    low, high = corners.amin(1).numpy(), corners.amax(1).numpy()
    middle, half = (low + high) / 2, np.hypot(*(high - low)) / 2 * scale
    whole = sheets.SHEET_SIZE
    place = whole / 2 + rng.uniform(-1, 1, 2) * max(whole / 2 - half, 0.1 * whole)
    sheet = sheets.sheet(seed, number)[int(scale > _HALF_SHEET)]
    shrink = sheet.shape[-1] / whole
    turn = scale * shrink * _rotation(angle)
    part, colours = _look(sheet, inside, turn, place * shrink - turn @ middle)
    mean = part.mean(dim=(-2, -1))[:, None, None]
    contrast = rng.uniform(0.6, 1.15)
    gain = torch.from_numpy(rng.uniform(0.6, 1.35) * (1 + rng.normal(0, 0.03, 3)))
    gain = gain.float().view(3, 1, 1)
    return colours.mul_(contrast * gain).add_((1 - contrast) * mean * gain)


def _rotation(angle: float) -> np.ndarray:
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin], [sin, cos]])


def _look(
    sheet: Tensor, inside: Tensor, turn: np.ndarray, offset: np.ndarray
) -> tuple[Tensor, Tensor]:
    """The part of a sheet that is seen, and it at ``turn @ inside + offset``."""
    size = sheet.shape[-1]
    corners = inside[:, :, [0, 0, -1, -1], [0, -1, 0, -1]].flatten(1)
    reached = turn @ corners.numpy() + offset[:, None]
    first = np.clip(np.floor(reached.min(1)).astype(int) - 2, 0, size - 8)
    last = np.clip(np.ceil(reached.max(1)).astype(int) + 2, 8, size)
    if reached.min() < 1 or reached.max() > size - 1:  # reflected at the borders
        first, last = np.zeros(2, dtype=int), np.full(2, size)
    part = sheet[:, first[1] : last[1], first[0] : last[0]].float() / 255
    to_grid = 2 / (last - first)
    offset = (offset - first) * to_grid - 1
    turn = turn * to_grid[:, None]
    grid = torch.empty(*inside.shape[1:], 2)
    for axis in (0, 1):
        a, b, c = (float(value) for value in (*turn[axis], offset[axis]))
        torch.add(inside[0] * a + c, inside[1], alpha=b, out=grid[..., axis])
    colours = F.grid_sample(
        part.expand(len(grid), -1, -1, -1),
        grid,
        mode="bilinear",
        padding_mode="reflection",
        align_corners=False,
    )
    return part, colours


def _develop(rng: np.random.Generator, frames: Tensor, grain: bool) -> Tensor:
    """Lens, exposure, tone and sensor."""
    if rng.random() < _SOFT_LENS:
        frames = _blur(frames, float(rng.uniform(0.3, 1.0)))
    # half way from the scene as it is to a mean of the camera's choice
    mean = max(float(frames[0].mean()), 0.02)
    exposure, gamma = math.sqrt(rng.uniform(*_MIDDLE) / mean), rng.uniform(0.75, 1.3)
    haze = max(0.0, rng.normal(0.0, 0.06))
    tint = torch.from_numpy(1 + rng.normal(0, 0.02, 3)).float().view(3, 1, 1)
    frames = (frames.clamp(min=1e-6) * exposure).pow_(float(gamma)) * tint
    frames = float(haze) + (1 - float(haze)) * frames
    # a soft shoulder keeps lights from clipping flat
    room = 0.2
    soft = _SHOULDER + room * torch.tanh((frames - _SHOULDER) / room)
    frames = torch.where(frames > _SHOULDER, soft, frames)
    if rng.random() < _GRAINY and grain:
        noise = rng.standard_normal(frames.shape, dtype=np.float32)
        frames = frames + float(rng.uniform(*_GRAIN)) * torch.from_numpy(noise)
    return frames.clamp(0, 1)


def _blur(frames: Tensor, deviation: float) -> Tensor:
    """Gaussian, cut at three pixels."""
    taps = torch.exp(-0.5 * (torch.arange(-3, 4) / deviation) ** 2)
    taps = taps / taps.sum()
    flat = F.pad(frames, (3, 3, 3, 3), mode="replicate").flatten(0, 1)[:, None]
    flat = F.conv2d(F.conv2d(flat, taps.view(1, 1, 1, -1)), taps.view(1, 1, -1, 1))
    return flat.view(frames.shape)
