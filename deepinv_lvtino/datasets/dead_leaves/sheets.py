r"""
Sheets: still pictures of opaque leaves, painted from the large to the small.

Lengths are in pixels of the sheet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from deepinv_lvtino.datasets.dead_leaves.outlines import (
    box,
    crown,
    ellipse,
    polygon,
    ring,
)
from deepinv_lvtino.datasets.dead_leaves.textures import (
    fractal,
    make_noises,
    texture,
)

NUM_SHEETS = 128
"""Sheets of a collection; each is painted when a clip first needs it."""

SHEET_SIZE = 768
"""Height and width of a sheet in its own pixels, of which a frame's pixel takes 2 to 6."""

STREAM = 0
"""First word of the random streams of sheets."""

_KEPT = 256  # sheets in memory

_LARGE_LEAVES, _CLUSTERS = (40, 120), (20, 80)  # of a sheet, the end left out
_LARGEST, _SMALLEST = 1 / 2.2, 1 / 30  # large leaves, of the sheet's size
_BARS = 0.12  # one in how many draws ends them
_UPRIGHT = 0.65  # sheets whose boxes stand upright
_LIGHT_SLOPE, _STRONGEST_LIGHT = 2.2, 0.35  # of the light over a sheet

_SCATTERED, _LATTICE = 0.5, 0.8  # ends of the shares of clusters; the rest are rows
_MOST_SCATTERED, _MOST_ACROSS, _MOST_ROWS = 220, 14, 6
_TILT = 0.03  # of what is upright, in radians

_KINDS = ("ellipse", "box", "polygon", "crown", "ring")
_KIND_ENDS = {
    True: (0.2, 0.65, 0.85, 0.95),
    False: (0.4, 0.6, 0.85, 0.95),
}  # if upright
_RIPPLES = (2, 3, 5, 8, 13, 21)
_PLAIN = 10.0  # radius below which leaves have no shading, no texture and no shadow
_SHADED = 0.35
_DIAGONAL = 1.42  # farthest point of a leaf, in radii

_COLOURS = 16
_HUES = {0.65: 0.45, 3.8: 0.35, 1.5: 0.2}  # orange, blue, green: earth, sky and leaves
_HUE_SPREADS = {0.3: 0.75, 1.5: 0.25}
_CHROMA, _STRONG = (
    0.085,
    0.08,
)  # its spread, and the share of colours of four times that


@lru_cache(maxsize=_KEPT)
def sheet(seed: int, number: int) -> tuple[Tensor, Tensor]:
    """One sheet of a collection, uint8 ``(3, S, S)``, and the same at half its size."""
    rng = np.random.default_rng([seed, STREAM, number])
    painted = torch.from_numpy(_paint(rng, SHEET_SIZE).transpose(2, 0, 1).copy())
    painted = painted.clamp(0, 1) * 255
    half = F.avg_pool2d(painted[None], 2)[0]
    return painted.round().byte(), half.round().byte()


@dataclass
class _Brush:
    """What the leaves of one sheet share."""

    rng: np.random.Generator
    sheet: np.ndarray
    palette: np.ndarray
    noises: list[np.ndarray]
    upright: bool


def _paint(rng: np.random.Generator, size: int) -> np.ndarray:
    """A still picture of dead leaves, from the large ones to clusters of small ones."""
    noises = make_noises(rng, size)
    palette = _palette(rng)
    ground = np.empty((size, size, 3), dtype=np.float32)
    ground[:] = palette[0]
    ground *= 1 + 0.1 * noises[2][..., None]
    brush = _Brush(rng, ground, palette, noises, upright=rng.random() < _UPRIGHT)
    count = int(rng.integers(*_LARGE_LEAVES))
    for radius in _sizes(rng, count, size * _SMALLEST, size * _LARGEST):
        _leaf(brush, rng.uniform(0, size, 2), float(radius), share=1.0)
    for _ in range(int(rng.integers(*_CLUSTERS))):
        _cluster(brush)
    for _ in range(int(rng.geometric(_BARS))):
        wide = 0.5 * 8 ** rng.random()
        long = size * rng.uniform(0.1, 0.7)
        _leaf(brush, rng.uniform(0, size, 2), long, 1.0, "bar", wide / long)
    light = 1 + rng.uniform(0, _STRONGEST_LIGHT) * fractal(rng, size, _LIGHT_SLOPE)
    return ground * np.clip(light, 0.2, 2)[..., None]


def _sizes(
    rng: np.random.Generator, count: int, smallest: float, largest: float
) -> np.ndarray:
    """
    Radii in a range, the larger first but for some disorder.

    Their density is r^-3: equal area in each octave of sizes.
    """
    uniform = rng.random(count)
    radii = 1 / np.sqrt(uniform / smallest**2 + (1 - uniform) / largest**2)
    return radii[np.argsort(-radii * np.exp(rng.normal(0, 0.6, count)))]


def _palette(rng: np.random.Generator) -> np.ndarray:
    """Colours of low chroma, mostly between orange and blue, some strong."""
    count = _COLOURS
    light = np.clip(rng.beta(0.9, 1.2, count) * rng.uniform(0.75, 1.15), 0.02, 1)
    light[0] = rng.uniform(0.1, 0.9)
    hue = rng.choice(list(_HUES), count, p=list(_HUES.values()))
    spread = rng.normal(0, 1, count)
    hue += spread * rng.choice(list(_HUE_SPREADS), count, p=list(_HUE_SPREADS.values()))
    chroma = np.abs(rng.normal(0, _CHROMA, count))
    chroma *= 1 + 3 * (rng.random(count) < _STRONG)
    chroma[0] *= 0.5
    angles = hue[:, None] - np.array([0, 2, 4]) * np.pi / 3
    return (light[:, None] * (1 + 2 * chroma[:, None] * np.cos(angles))).astype("f4")


# -- clusters ----------------------------------------------------------------------------


def _cluster(brush: _Brush) -> None:
    """Small leaves at one place: scattered, on a lattice, or in rows like writing."""
    rng, size = brush.rng, len(brush.sheet)
    centre = rng.uniform(0, size, 2)
    spread = size * 0.02 * 8 ** rng.random()
    kind = rng.random()
    share = rng.uniform(0.15, 1.0)  # of the leaf's own colour
    colour = brush.palette[rng.integers(len(brush.palette))]
    if kind < _SCATTERED:
        _scatter(brush, centre, spread, share, colour)
        return
    angle = rng.normal(0, _TILT) if brush.upright else rng.uniform(0, np.pi)
    axes = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    place = _Grid(centre, spread, angle, axes)
    period = np.array([1.0, rng.uniform(0.4, 2.5)]) * 5 * 9 ** rng.random()
    if kind < _LATTICE:
        _lattice(brush, place, period, share, colour)
    else:
        _writing(brush, place, share, colour)


@dataclass
class _Grid:
    """Where the leaves of a cluster lie in order."""

    centre: np.ndarray
    spread: float
    angle: float
    axes: np.ndarray


def _scatter(
    brush: _Brush,
    centre: np.ndarray,
    spread: float,
    share: float,
    colour: np.ndarray,
) -> None:
    """Foliage, rubble, a crowd."""
    rng = brush.rng
    smallest = 1.0 * 4 ** rng.random()
    count = int(min(6.0 * (spread / smallest) ** 1.2, _MOST_SCATTERED))
    shape = str(rng.choice(["ellipse", "box", "polygon", "any"]))
    own = rng.random() < 0.5
    for radius in _sizes(rng, count, smallest, 8 * smallest):
        place = centre + spread * rng.normal(size=2)
        tone = colour * rng.uniform(0.5, 1.5) if own else None
        _leaf(brush, place, float(radius), share, shape, colour=tone)


def _lattice(
    brush: _Brush, at: _Grid, period: np.ndarray, share: float, colour: np.ndarray
) -> None:
    """Windows, bricks, railings."""
    rng = brush.rng
    columns, rows = np.clip(2 * at.spread / period, 1, _MOST_ACROSS).astype(int)
    radius, aspect = period[0] * rng.uniform(0.15, 0.45), period[1] / period[0]
    aspect *= rng.uniform(0.5, 1.3)
    for row in range(rows):
        for column in range(columns):
            place = (
                at.centre + [column - columns / 2, row - rows / 2] * period @ at.axes
            )
            tone = colour * rng.uniform(0.8, 1.2)
            _leaf(brush, place, radius, share, "box", aspect, tone, at.angle)


def _writing(brush: _Brush, at: _Grid, share: float, colour: np.ndarray) -> None:
    """Rows of short strokes."""
    rng = brush.rng
    high = 1.2 * 5 ** rng.random()
    for row in range(int(rng.integers(1, _MOST_ROWS))):
        along = -at.spread
        while along < at.spread:
            wide = high * rng.uniform(0.2, 1.2)
            place = at.centre + np.array([along + wide, 3.2 * high * row]) @ at.axes
            tall = high * rng.uniform(0.6, 1.0) / wide
            _leaf(brush, place, wide, share, "box", tall, colour, at.angle)
            along += 2 * wide + high * rng.choice([0.3, 0.5, 1.5])


# -- leaves ------------------------------------------------------------------------------


def _leaf(
    brush: _Brush,
    centre: np.ndarray,
    radius: float,
    share: float,
    kind: str = "any",
    aspect: float | None = None,
    colour: np.ndarray | None = None,
    angle: float | None = None,
) -> None:
    """Paint one leaf over the sheet, its edge one pixel wide."""
    rng, size = brush.rng, len(brush.sheet)
    if kind == "any":
        draw = rng.random()
        kind = _KINDS[sum(draw > end for end in _KIND_ENDS[bool(brush.upright)])]
    if aspect is None:
        aspect = rng.uniform(0.3, 1.0)
    if angle is None:
        angle = rng.uniform(0, 2 * np.pi)
        if brush.upright and kind in ("box", "bar"):
            angle = rng.choice([0, np.pi / 2]) + rng.normal(0, _TILT)
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    reach_x = reach_y = radius * max(1.0, aspect) * _DIAGONAL + 2
    if kind in ("box", "bar"):
        reach_x = radius * (abs(cos) + aspect * abs(sin)) + 2
        reach_y = radius * (abs(sin) + aspect * abs(cos)) + 2
    left, top = max(int(centre[0] - reach_x), 0), max(int(centre[1] - reach_y), 0)
    right = min(int(centre[0] + reach_x) + 1, size)
    bottom = min(int(centre[1] + reach_y) + 1, size)
    if left >= right or top >= bottom:
        return
    x = np.arange(left, right, dtype=np.float32) - np.float32(centre[0])
    y = np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(centre[1])
    u, v = cos * x + sin * y, cos * y - sin * x
    inside = _inside(rng, kind, u, v, np.float32(radius), np.float32(aspect))
    cover = np.clip(inside + 0.5, 0, 1)[..., None]
    if colour is None:
        colour = brush.palette[rng.integers(len(brush.palette))]
        colour = colour * np.float32(rng.uniform(0.8, 1.2))
    if share < 1:  # small things resemble what they lie on
        row = min(max(int(centre[1]), top), bottom - 1)
        column = min(max(int(centre[0]), left), right - 1)
        colour = share * colour + (1 - share) * brush.sheet[row, column]
    patch = brush.sheet[top:bottom, left:right]
    tone = np.asarray(colour, dtype=np.float32)
    if radius >= _PLAIN:
        slope = rng.normal(0, 0.15, 2).astype(np.float32) / np.float32(radius)
        value = 1 + slope[0] * u + slope[1] * v
        value *= texture(rng, brush.noises, u, v, (left, top, right, bottom))
        if rng.random() < _SHADED:  # the dark before a raised edge
            dark = np.clip(inside / np.float32(rng.uniform(3, 20)) + 1, 0, 1)[..., None]
            patch *= 1 - np.float32(rng.uniform(0.1, 0.6)) * dark
        tone = tone * value[..., None]
    patch += cover * (tone - patch)


def _inside(
    rng: np.random.Generator,
    kind: str,
    u: np.ndarray,
    v: np.ndarray,
    radius: np.float32,
    aspect: np.float32,
) -> np.ndarray:
    """Distance to the edge of a leaf, positive inside, in pixels, about."""
    if kind == "ellipse":
        return ellipse(u, v, radius, aspect) * radius * min(aspect, np.float32(1))
    if kind == "polygon":
        sides = int(rng.integers(3, 7))
        turns = (np.arange(sides) + rng.uniform(-0.25, 0.25, sides)) * 2 * np.pi / sides
        far = (radius * rng.uniform(0.5, 0.95, sides)).astype(np.float32)
        return polygon(u, v, list(far), turns.tolist())
    if kind == "crown":
        waves = [
            (k, np.float32(rng.normal() / k**0.7), np.float32(rng.uniform(0, 6)))
            for k in _RIPPLES
        ]
        return crown(u, v, radius, 0.85, 0.2, waves)
    if kind == "ring":
        wide = radius * np.float32(rng.uniform(0.04, 0.25))
        return ring(u, v, np.float32(0.8) * radius, wide)
    return box(u, v, radius, aspect)
