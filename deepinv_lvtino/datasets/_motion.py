r"""
Paths of cameras and objects: what makes still pictures move.

Lengths are in pixels of the final frames, coordinates ``(x, y)`` from a frame's centre.
"""

from __future__ import annotations

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
