r"""
A procedural clip: a moving landscape of overlapping, textured shapes.

Images of objects that hide one another, with sizes that follow a power law ("dead
leaves"), share the statistics of natural images, edges and 1/f spectra above all. Here
the shapes lie at several depths in front of a panning camera, so that nearer ones move
faster, hide and uncover what is behind them, and some move by themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from deepinv_lvtino.utils import check_counts, check_integer

_TEXTURE = 256
_HORIZON = 0.36
_PAN = 2.4  # pixels per frame of the nearest layer, for a height of 192
_SKY = np.array([[0.42, 0.53, 0.66], [0.80, 0.79, 0.74]], dtype=np.float32)
_HILLS = np.array([[0.52, 0.56, 0.58], [0.37, 0.42, 0.38]], dtype=np.float32)
_GROUND = np.array([[0.47, 0.46, 0.35], [0.33, 0.30, 0.22]], dtype=np.float32)
_PALETTE = np.array(
    [
        [0.22, 0.29, 0.15],
        [0.34, 0.38, 0.20],
        [0.30, 0.25, 0.18],
        [0.48, 0.40, 0.29],
        [0.55, 0.52, 0.46],
        [0.27, 0.30, 0.33],
        [0.66, 0.60, 0.49],
        [0.16, 0.18, 0.15],
        [0.55, 0.27, 0.18],
        [0.22, 0.35, 0.45],
    ],
    dtype=np.float32,
)
_SHARES = np.array([4, 4, 3, 3, 3, 2, 2, 2, 0.7, 0.7]) / 24.4


@dataclass(frozen=True)
class _Shape:
    """One textured superellipse; lengths in units of the height, motion per frame."""

    centre: np.ndarray
    speed: np.ndarray
    radius: float
    aspect: float
    power: float
    angle: float
    spin: float
    colour: np.ndarray
    shade: np.ndarray
    contrast: float
    grain_scale: float
    offset: np.ndarray


def procedural_clip(
    num_frames: int = 25, height: int = 192, width: int = 320, seed: int = 0
) -> Tensor:
    r"""
    A synthetic video with the look and the motion of a natural one.

    Textured shapes with power-law sizes and muted colours, at several depths in front of
    hills and a sky; the camera pans and drifts (1 to 3 pixels per frame for the nearer
    shapes at the default size), some shapes move and turn by themselves. Edges are
    antialiased, the lens blurs a little and the sensor adds grain. Needs no download, and
    the same arguments give the same clip.

    :param int num_frames: number of frames; those of a longer clip begin with those of a
        shorter one.
    :param int height: height in pixels; the scene and its motion scale with it.
    :param int width: width in pixels.
    :param int seed: seed of the scene, 0 or positive.
    :return: (torch.Tensor) video ``(3, T, H, W)``, float32, in [0, 1].
    :raises ValueError: if a size is not positive or the seed is negative.

    |sep|

    :Examples:

        >>> from deepinv_lvtino.datasets import procedural_clip
        >>> procedural_clip(num_frames=3, height=32, width=48).shape
        torch.Size([3, 3, 32, 48])
    """
    num_frames, height, width = check_counts(
        num_frames=num_frames, height=height, width=width
    )
    if check_integer("seed", seed) < 0:
        msg = f"`seed` must be 0 or positive; got {seed}."
        raise ValueError(msg)
    rng = np.random.default_rng(seed)
    texture = _fractal_texture(rng)
    profiles = [_hill_profile(rng) for _ in range(2)]
    clouds = rng.uniform(0, _TEXTURE, 2)
    shapes = _scatter(rng, width / height)
    drift = rng.uniform(0, 2 * np.pi, 2)

    video = torch.empty(3, num_frames, height, width)
    for index in range(num_frames):
        camera = _camera(index, drift)
        frame = _background(height, width, camera, texture, profiles, clouds)
        for shape in shapes:
            _draw(frame, shape, index, camera, texture)
        frame = _lens_blur(frame)
        frame += rng.normal(0.0, 0.004, frame.shape).astype(np.float32)
        np.clip(frame, 0.0, 1.0, out=frame)
        video[:, index] = torch.from_numpy(frame.transpose(2, 0, 1))
    return video


def _camera(index: int, drift: np.ndarray) -> np.ndarray:
    """Camera position (x, y) at depth 1: a steady pan and a slow sway."""
    pan = _PAN / 192 * index
    sway = 0.012 * (np.sin(index / 9 + drift) - np.sin(drift))
    return np.array([pan + 0.5 * sway[0], sway[1]], dtype=np.float32)


def _fractal_texture(rng: np.random.Generator) -> np.ndarray:
    """Periodic noise with an amplitude spectrum f^-0.9, of unit variance."""
    frequency = np.fft.fftfreq(_TEXTURE)
    radius = np.hypot(frequency[:, None], frequency[None, :])
    radius[0, 0] = np.inf
    noise = np.fft.fft2(rng.normal(size=(_TEXTURE, _TEXTURE))) / radius**0.9
    texture = np.fft.ifft2(noise).real
    return (texture / texture.std()).astype(np.float32)


def _hill_profile(rng: np.random.Generator) -> np.ndarray:
    """Amplitudes and phases of a ridge line."""
    octaves = np.arange(1, 8)
    return np.stack([rng.normal(size=7) / octaves**1.3, rng.uniform(0, 2 * np.pi, 7)])


def _scatter(rng: np.random.Generator, aspect: float) -> list[_Shape]:
    """Shapes on the ground plane, far ones first."""
    count = int(110 * max(1.0, aspect) + 60)
    depths = np.sort(1 / rng.uniform(0.12, 1.0, count))[::-1]
    shapes = []
    for depth in depths:
        near = 1 / depth
        # power law of sizes: many small shapes, few large ones
        size = 0.045 * (1 - rng.uniform(0, 0.975)) ** -0.55
        radius = float(min(size, 0.26) * (0.25 + 0.75 * near))
        foot = _HORIZON + 0.70 * near + rng.normal() * 0.05
        across = rng.uniform(-0.2, aspect + 0.6 + 0.4 * near)
        moves = rng.uniform() < 0.3
        speed = rng.normal(0, 1.1 / 192, 2) * np.array([1, 0.45]) * moves
        colour = _PALETTE[rng.choice(len(_PALETTE), p=_SHARES)]
        colour = colour * rng.uniform(0.75, 1.25) + rng.normal(0, 0.015, 3)
        colour = 0.6 * colour + 0.4 * colour.mean()
        haze = 0.55 * (1 - near) ** 2
        colour = (1 - haze) * colour + haze * _HILLS[0]
        shapes.append(
            _Shape(
                centre=np.array([across, foot - 0.5 * radius]),
                speed=speed,
                radius=radius,
                aspect=float(rng.uniform(0.45, 1.0)),
                power=float(rng.choice([1.6, 2.0, 2.0, 2.6, 5.0])),
                angle=float(rng.uniform(0, np.pi)),
                spin=float(rng.normal(0, 0.03) * moves),
                colour=colour.astype(np.float32),
                shade=(rng.normal(0, 0.06, 2) + [-0.10, -0.16]).astype(np.float32),
                contrast=float(rng.uniform(0.05, 0.36)),
                grain_scale=float(rng.uniform(130, 260)),
                offset=rng.uniform(0, _TEXTURE, 2),
            )
        )
    return shapes


def _background(
    height: int,
    width: int,
    camera: np.ndarray,
    texture: np.ndarray,
    profiles: list[np.ndarray],
    clouds: np.ndarray,
) -> np.ndarray:
    """Sky with clouds, two ridges, and the ground in perspective."""
    y = ((np.arange(height, dtype=np.float32) + 0.5) / height)[:, None]
    x = ((np.arange(width, dtype=np.float32) + 0.5) / height)[None, :]
    horizon = _HORIZON - camera[1] * 0.15
    cloud = _sample(
        texture, 110 * x + 20 * camera[0] + clouds[0], 260 * y + clouds[1] + 0 * x
    )
    sky = _mix(_SKY[0], _SKY[1], np.clip(y / horizon + 0.22 * cloud, 0, 1))
    frame = sky
    for layer, (profile, colour) in enumerate(zip(profiles, _HILLS, strict=True)):
        near = 0.12 + 0.13 * layer
        position = x[0] + camera[0] * near
        waves = 2.2 * np.arange(1, 8)[:, None] * position + profile[1][:, None]
        ridge = horizon - 0.055 + 0.05 * layer
        ridge = ridge + 0.022 * (profile[0][:, None] * np.sin(waves)).sum(0)
        wood = _sample(texture, 300 * (position + 0 * y), 300 * y + 50 * layer)
        shaded = colour * (1 + (0.06 + 0.08 * layer) * wood[..., None])
        _blend(frame, shaded, _coverage((y - ridge) * height))
    below = np.maximum(y - horizon, 1e-3)
    depth = 0.32 / below
    near = np.clip(below / 0.64, 0, 1)
    plane_x = (x - 0.5 * width / height) * depth + camera[0]
    detail = _sample(texture, 55 * plane_x, 55 * depth + 0 * x)
    fine = _sample(texture, 230 * plane_x + 99, 150 * depth + 0 * x)
    fade = np.clip(near * 5, 0, 1)  # far texture would alias
    ground = _mix(_GROUND[0], _GROUND[1], near + 0 * x)
    ground *= (1 + fade * (0.13 * detail + 0.10 * fine))[..., None]
    _blend(frame, ground, _coverage((y - horizon + 0 * x) * height))
    return frame


def _draw(
    frame: np.ndarray,
    shape: _Shape,
    index: int,
    camera: np.ndarray,
    texture: np.ndarray,
) -> None:
    """Paint one shape, its edge one pixel wide, over the frame."""
    height, width, _ = frame.shape
    # a shape at the foot of the picture is near and moves with the full pan
    near = float(
        np.clip((shape.centre[1] + 0.5 * shape.radius - _HORIZON) / 0.7, 0.1, 1)
    )
    centre = shape.centre + shape.speed * index - camera * near
    reach = shape.radius * 1.25 + 2 / height
    left, top = np.floor((centre - reach) * height).astype(int)
    right, bottom = np.ceil((centre + reach) * height).astype(int)
    left, top = max(left, 0), max(top, 0)
    right, bottom = min(right, width), min(bottom, height)
    if left >= right or top >= bottom:
        return
    x = (np.arange(left, right, dtype=np.float32) + 0.5) / height - centre[0]
    y = (np.arange(top, bottom, dtype=np.float32) + 0.5) / height - centre[1]
    angle = shape.angle + shape.spin * index
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    u = (cos * x[None, :] + sin * y[:, None]).astype(np.float32)
    v = (cos * y[:, None] - sin * x[None, :]).astype(np.float32)
    minor = shape.radius * shape.aspect
    level = np.abs(u / shape.radius) ** shape.power + np.abs(v / minor) ** shape.power
    distance = (1 - level ** (1 / shape.power)) * minor * height
    cover = _coverage(distance)
    patch = frame[top:bottom, left:right]
    patch *= _shadow(x, y, shape)[..., None]
    grain = _sample(
        texture,
        shape.grain_scale * u + shape.offset[0],
        shape.grain_scale * v + shape.offset[1],
    )
    light = (shape.shade[0] * x[None, :] + shape.shade[1] * y[:, None]) / shape.radius
    value = 1 + 1.4 * light + shape.contrast * grain
    _blend(patch, shape.colour * value[..., None], cover)


def _shadow(x: np.ndarray, y: np.ndarray, shape: _Shape) -> np.ndarray:
    """Light left on the ground under a shape: a soft flat ellipse at its foot."""
    across = x[None, :] / shape.radius - 0.15
    down = (y[:, None] / shape.radius - 0.75) / 0.45
    return 1 - 0.5 * np.clip(1 - across**2 - down**2, 0, 1)


def _coverage(distance: np.ndarray) -> np.ndarray:
    """Covered share of a pixel whose centre lies so many pixels inside an edge."""
    return np.clip(distance + 0.5, 0, 1).astype(np.float32)


def _blend(frame: np.ndarray, colour: np.ndarray, cover: np.ndarray) -> None:
    frame += cover[..., None] * (colour - frame)


def _mix(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    return (first + share[..., None] * (second - first)).astype(np.float32)


def _sample(texture: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bilinear values of the periodic texture."""
    x, y = np.broadcast_arrays(x, y)
    column, row = np.floor(x).astype(np.int32), np.floor(y).astype(np.int32)
    a, b = (x - column).astype(np.float32), (y - row).astype(np.float32)
    mask = _TEXTURE - 1
    c0, c1, r0, r1 = column & mask, (column + 1) & mask, row & mask, (row + 1) & mask
    upper = texture[r0, c0] * (1 - a) + texture[r0, c1] * a
    lower = texture[r1, c0] * (1 - a) + texture[r1, c1] * a
    return upper * (1 - b) + lower * b


def _lens_blur(frame: np.ndarray) -> np.ndarray:
    """Gaussian blur of 0.3 pixel, separable, with repeated borders."""
    taps = np.exp(-0.5 * (np.arange(-2, 3) / 0.3) ** 2)
    taps = (taps / taps.sum()).astype(np.float32)
    for axis in (0, 1):
        size = frame.shape[axis]
        pad = [(0, 0)] * 3
        pad[axis] = (2, 2)
        padded = np.pad(frame, pad, mode="edge")
        frame = sum(
            tap * padded.take(range(k, k + size), axis=axis)
            for k, tap in enumerate(taps)
        )
    return frame
