r"""
Outlines of leaves and of the objects of a scene.

Each shape is a function of coordinates that gives the distance to its edge, positive
inside and about right near the edge, for arrays of NumPy (sheets) and tensors (scenes).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from deepinv_lvtino.datasets._motion import MotionPath

Array = TypeVar("Array", np.ndarray, Tensor)

Number = float | np.float32

Wave = tuple[int, Number, Number]
"""Ripples around a crown, their amplitude, and their phase."""


def _functions(array: np.ndarray | Tensor) -> Any:
    """NumPy or PyTorch: they agree on the names used here."""
    return torch if isinstance(array, Tensor) else np


# -- shapes ------------------------------------------------------------------------------


def ellipse(u: Array, v: Array, radius: Number, aspect: Number) -> Array:
    """From 1 at the centre to 0 at the edge: a distance in half-axes, not in pixels."""
    level = (u / float(radius)) ** 2 + (v / float(radius * aspect)) ** 2
    return 1 - _functions(u).sqrt(level)


def box(u: Array, v: Array, radius: Number, aspect: Number) -> Array:
    return _functions(u).minimum(radius - abs(u), radius * aspect - abs(v))


def cut_box(
    u: Array, v: Array, radius: Number, aspect: Number, corner: Number
) -> Array:
    """A box without its corners."""
    both = (radius + radius * aspect) * (1 - 0.5 * corner)
    cut = (both - abs(u) - abs(v)) * 0.7  # across a diagonal: 1 / sqrt(2)
    return _functions(u).minimum(box(u, v, radius, aspect), cut)


def polygon(
    u: Array, v: Array, far: Sequence[Number], turns: Sequence[Number]
) -> Array:
    """Straight edges at some distances and angles around the centre."""
    edges = (
        one - u * math.cos(turn) - v * math.sin(turn)
        for one, turn in zip(far, turns, strict=True)
    )
    return reduce(_functions(u).minimum, edges)


def ring(u: Array, v: Array, radius: Number, wide: Number) -> Array:
    return wide - abs(_functions(u).hypot(u, v) - radius)


def crown(
    u: Array,
    v: Array,
    radius: Number,
    mean: Number,
    depth: Number,
    waves: Iterable[Wave],
) -> Array:
    """A ragged outline, of a mean distance (of the radius) and ripples around it."""
    xp = _functions(u)
    around = xp.arctan2(v, u)
    ragged = sum(
        amount * xp.cos(count * around + phase) for count, amount, phase in waves
    )
    return radius * (mean + depth * ragged) - xp.hypot(u, v)


# -- objects -----------------------------------------------------------------------------

KINDS = {"ellipse": 0.2, "box": 0.35, "polygon": 0.2, "bar": 0.15, "crown": 0.1}
"""Shares of the objects of scenes."""

_SMALLEST, _TAIL = 0.1, 0.65  # radii: a power law, cut at the reach
_BAR_LENGTH = 3.0  # of the reach
_BAR_HALF_WIDTH = 0.35  # pixels, to ten times that
_SLANTED, _POLE = 0.4, 0.7
_CUT_CORNERS, _SHADOWED = 0.4, 0.5
_SIDES = 6
_RIPPLES = (2, 3, 5, 8, 13, 21, 34)
_DRAWN_RIPPLES = (
    9  # two more than are shown: the stream of numbers is that of all clips
)
_MARGIN = 10  # pixels of the frame around an object, for its shadow
_FARTHEST = 1.45  # from the centre, in radii


class Outline:
    """Shape of an object, and of its shadow, in the object's coordinates."""

    def __init__(
        self, rng: np.random.Generator, reach: float, ground: bool = False
    ) -> None:
        self.ground = ground
        self.kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
        self.radius = reach * min(_SMALLEST * (1 - rng.uniform(0, 0.97)) ** -_TAIL, 1.0)
        self.aspect = rng.uniform(0.35, 1.0)
        if self.kind == "bar":
            self.radius = _BAR_LENGTH * reach
            self.aspect = _BAR_HALF_WIDTH * 10 ** rng.random() / self.radius
        slanted = rng.random() < _SLANTED
        angle = rng.uniform(0, np.pi) if slanted else rng.normal(0, 0.06)
        if self.kind == "bar" and not slanted and rng.random() < _POLE:
            angle += np.pi / 2
        self.cos, self.sin = math.cos(angle), math.sin(angle)
        start, sizes = rng.uniform(0, 2 * np.pi), rng.uniform(0.6, 1.0, _SIDES)
        self.turns = start + np.arange(_SIDES) * np.pi / 3
        self.far = self.radius * sizes
        self.corner = rng.uniform(0.05, 0.6) * (rng.random() < _CUT_CORNERS)
        amounts, phases = rng.normal(size=(2, _DRAWN_RIPPLES))
        amounts /= np.arange(2, 2 + _DRAWN_RIPPLES) ** 0.7
        phases /= np.arange(2, 2 + _DRAWN_RIPPLES) ** 0.7
        self.waves = [
            (count, float(amount), float(9 * phase))
            for count, amount, phase in zip(_RIPPLES, amounts, phases, strict=False)
        ]
        self.shadow = float(rng.uniform(0.1, 0.6) * (rng.random() < _SHADOWED))
        self.shift = rng.uniform(0.5, 4, 2) * rng.choice([-1, 1], 2)
        self.soft = float(rng.uniform(0.7, 6))

    def box(
        self, path: MotionPath, centre: np.ndarray, height: int, width: int
    ) -> tuple[slice, slice]:
        """Rows and columns (of the fine grid) that the object and its shadow reach."""
        shift, _, zoom = path
        if self.ground or self.kind == "bar":
            return slice(0, height), slice(0, width)
        reach = _FARTHEST * self.radius * zoom.max() + _MARGIN
        low = 2 * ((shift + centre).min(0) - reach) + [width / 2, height / 2]
        high = 2 * ((shift + centre).max(0) + reach) + [width / 2, height / 2]
        left, top = np.clip(low.astype(int), 0, [width, height]).tolist()
        right, bottom = np.clip(high.astype(int), 0, [width, height]).tolist()
        return slice(top, bottom), slice(left, right)

    def cover(self, inside: Tensor) -> Tensor:
        """What the object hides, from 0 to 1, with an edge of half a pixel."""
        return self._covered(inside[0], inside[1], 0.5)

    def shade(self, inside: Tensor) -> Tensor:
        """What its shadow reaches, from 0 to 1."""
        x, y = inside[0] - float(self.shift[0]), inside[1] - float(self.shift[1])
        return self._covered(x, y, self.soft)

    def _covered(self, x: Tensor, y: Tensor, width: float) -> Tensor:
        u, v = x * self.cos + y * self.sin, y * self.cos - x * self.sin
        distance = self._distance(u, v)
        return (distance / width + 0.5).clamp_(0, 1).unsqueeze(1)

    def _distance(self, u: Tensor, v: Tensor) -> Tensor:
        """Distance to the edge, positive inside, in final pixels, about."""
        if self.ground:
            return v
        if self.kind == "ellipse":
            minor = self.radius * self.aspect
            return ellipse(u, v, self.radius, self.aspect) * minor
        if self.kind == "crown":
            return crown(u, v, self.radius, 0.8, 0.09, self.waves)
        if self.kind == "polygon":
            return polygon(u, v, self.far.tolist(), self.turns.tolist())
        if self.corner and self.kind == "box":
            return cut_box(u, v, self.radius, self.aspect, float(self.corner))
        return box(u, v, self.radius, self.aspect)
