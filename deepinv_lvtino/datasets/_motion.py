r"""
Paths of cameras and objects, and outlines of objects: what makes still pictures move.

Lengths are in pixels of the final frames, coordinates ``(x, y)`` from a frame's centre.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor


def camera_speed(rng: np.random.Generator) -> float:
    """Pixels per frame: a fifth of all cameras stands still."""
    return 0.0 if rng.random() < 0.2 else float(0.1 * 50 ** rng.random())


def object_speed(rng: np.random.Generator) -> float:
    return 0.0 if rng.random() < 0.35 else float(0.1 * 80 ** rng.random())


MotionPath = tuple[
    np.ndarray, np.ndarray, np.ndarray
]  # shift (T, 2), angle (T,), zoom (T,)


def random_path(
    rng: np.random.Generator, speed: float, times: np.ndarray
) -> MotionPath:
    """Position, angle and scale over time; at rest if the speed is zero."""
    direction = rng.uniform(0, 2 * np.pi)
    velocity = speed * np.array([np.cos(direction), 0.6 * np.sin(direction)])
    sway = rng.uniform(0, 0.5) * speed * rng.normal(size=2)
    phase, pace = rng.uniform(0, 2 * np.pi), rng.uniform(0.15, 0.6)
    shift = times[:, None] * velocity + np.sin(phase + pace * times)[:, None] * sway
    turning = speed > 0 and rng.random() < 0.5
    angle = times * (rng.normal(0, 0.01) if turning else 0.0)
    zoom = np.exp(times * (rng.normal(0, 0.006) if turning else 0.0))
    return shift, angle, zoom


def seen(path: MotionPath, near: float) -> MotionPath:
    """The camera's path as it shows at some depth."""
    shift, angle, zoom = path
    return near * shift, angle, zoom**near


def combined(first: MotionPath, second: MotionPath) -> MotionPath:
    return first[0] + second[0], first[1] + second[1], first[2] * second[2]


def moved(points: Tensor, path: MotionPath, centre: np.ndarray) -> Tensor:
    """Coordinates on a moving layer, shape ``(2, T, H, W)``, in final pixels."""
    shift, angle, zoom = (torch.from_numpy(v).float() for v in path)
    origin = torch.from_numpy(centre).float()
    cos, sin = angle.cos() / zoom, angle.sin() / zoom
    across, down = shift[:, 0] + origin[0], shift[:, 1] + origin[1]
    return torch.stack(
        [
            _affine(points, cos, sin, -cos * across - sin * down),
            _affine(points, -sin, cos, sin * across - cos * down),
        ]
    )


def _affine(points: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """``a x + b y + c`` for each frame, shape ``(T, H, W)``."""
    a, b, c = (value.view(-1, 1, 1) for value in (a, b, c))
    return torch.addcmul(c, a, points[0]).addcmul_(b, points[1])


class Outline:
    """Shape of an object, and of its shadow, in the object's coordinates."""

    def __init__(
        self, rng: np.random.Generator, reach: float, ground: bool = False
    ) -> None:
        kinds = ["ellipse", "box", "polygon", "bar", "crown"]
        self.ground = ground
        self.kind = str(rng.choice(kinds, p=[0.2, 0.35, 0.2, 0.15, 0.1]))
        self.radius = reach * min(0.10 * (1 - rng.uniform(0, 0.97)) ** -0.65, 1.0)
        self.aspect = rng.uniform(0.35, 1.0)
        if self.kind == "bar":
            self.radius = 3 * reach
            self.aspect = 0.35 * 10 ** rng.random() / self.radius
        slanted = rng.random() < 0.4
        angle = rng.uniform(0, np.pi) if slanted else rng.normal(0, 0.06)
        if self.kind == "bar" and not slanted and rng.random() < 0.7:
            angle += np.pi / 2  # a pole
        self.cos, self.sin = math.cos(angle), math.sin(angle)
        self.start, self.sizes = rng.uniform(0, 2 * np.pi), rng.uniform(0.6, 1.0, 6)
        self.corner = rng.uniform(0.05, 0.6) * (rng.random() < 0.4)
        self.waves = rng.normal(size=(2, 9)) / np.arange(2, 11) ** 0.7
        self.shadow = float(rng.uniform(0.1, 0.6) * (rng.random() < 0.5))
        self.far = rng.uniform(0.5, 4, 2) * rng.choice([-1, 1], 2)
        self.soft = float(rng.uniform(0.7, 6))

    def box(
        self, path: MotionPath, centre: np.ndarray, height: int, width: int
    ) -> tuple[slice, slice]:
        """Rows and columns (of the fine grid) that the object and its shadow reach."""
        shift, _, zoom = path
        if self.ground or self.kind == "bar":
            return slice(0, height), slice(0, width)
        reach = 1.45 * self.radius * zoom.max() + 10
        low = 2 * ((shift + centre).min(0) - reach) + [width / 2, height / 2]
        high = 2 * ((shift + centre).max(0) + reach) + [width / 2, height / 2]
        left, top = np.clip(low.astype(int), 0, [width, height]).tolist()
        right, bottom = np.clip(high.astype(int), 0, [width, height]).tolist()
        return slice(top, bottom), slice(left, right)

    def cover(self, inside: Tensor) -> Tensor:
        return self._covered(inside[0], inside[1], 0.5)

    def shade(self, inside: Tensor) -> Tensor:
        x, y = inside[0] - float(self.far[0]), inside[1] - float(self.far[1])
        return self._covered(x, y, self.soft)

    def _covered(self, x: Tensor, y: Tensor, width: float) -> Tensor:
        u, v = x * self.cos + y * self.sin, y * self.cos - x * self.sin
        distance = self._distance(u, v)
        return (distance / width + 0.5).clamp_(0, 1).unsqueeze(1)

    def _distance(self, u: Tensor, v: Tensor) -> Tensor:
        """Distance to the edge, positive inside, in final pixels, about."""
        radius, minor = self.radius, self.radius * self.aspect
        if self.ground:
            return v
        if self.kind == "ellipse":
            level = ((u / radius).square() + (v / minor).square()).sqrt_()
            return (1 - level) * minor
        if self.kind == "crown":  # a ragged outline
            around = torch.atan2(v, u)
            ragged = sum(
                float(a) * torch.cos(k * around + float(9 * b))
                for k, a, b in zip((2, 3, 5, 8, 13, 21, 34), *self.waves, strict=False)
            )
            return radius * (0.8 + 0.09 * ragged) - torch.hypot(u, v)
        if self.kind == "polygon":
            edge = None
            for k, size in enumerate(self.sizes):
                turn = self.start + k * np.pi / 3
                one = radius * size - u * math.cos(turn) - v * math.sin(turn)
                edge = one if edge is None else torch.minimum(edge, one)
            return edge  # type: ignore[return-value]
        box = torch.minimum(radius - u.abs(), minor - v.abs())
        if self.corner and self.kind == "box":  # cut corners
            cut = (radius + minor) * (1 - 0.5 * self.corner) - u.abs() - v.abs()
            box = torch.minimum(box, cut * 0.7)
        return box
