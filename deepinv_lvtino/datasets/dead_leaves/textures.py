r"""Textures of sheets and their leaves: flat, fractal, foliage, stripes, grids, blocks."""

from __future__ import annotations

import numpy as np

_SLOPES = (0.5, 1.0, 1.5)  # of the amplitude spectra of the noises of a sheet
_FOLIAGE = 1  # the noise that is cut into patches
_NOISE_SHARES = (0.3, 0.25, 0.15, 0.3)  # of the noises, the patches last
_STRONGEST_NOISE = 0.45
_ENDS = {
    "flat": 0.2,
    "noise": 0.72,
    "stripes": 0.82,
    "grid": 0.92,
}  # the rest are blocks
_TABLE = 16  # blocks, across and down, before they repeat
_BLOCK_ASPECT = 1.4

Box = tuple[int, int, int, int]
"""Left, top, right and bottom of a part of a sheet."""


def make_noises(rng: np.random.Generator, size: int) -> list[np.ndarray]:
    """The noises that the leaves of one sheet share, each ``(S, S)``."""
    noises = [fractal(rng, size, slope) for slope in _SLOPES]
    return [*noises, _patches(rng, noises[_FOLIAGE])]


def fractal(rng: np.random.Generator, size: int, slope: float) -> np.ndarray:
    """Periodic noise with amplitude spectrum ``f**-slope``, of unit variance."""
    vertical = np.fft.fftfreq(size)[:, None]
    horizontal = np.fft.rfftfreq(size)[None]
    radius = np.hypot(vertical, horizontal)
    radius[0, 0] = np.inf
    white = np.fft.rfft2(rng.standard_normal((size, size)))
    noise = np.fft.irfft2(white / radius**slope, s=(size, size))
    return (noise / noise.std()).astype(np.float32)


def _patches(rng: np.random.Generator, noise: np.ndarray) -> np.ndarray:
    """Foliage: noise cut at a few levels, so that it has edges of every shape."""
    levels = int(rng.integers(3, 7))
    values = rng.normal(size=levels + 1).astype(np.float32)
    steps = np.clip((noise + 1.5) * (levels / 3), 0, levels)
    whole = np.minimum(steps.astype(int), levels - 1)
    rest = np.clip((steps - whole - 0.5) * 6 + 0.5, 0, 1)
    patches = values[whole] + rest * (values[whole + 1] - values[whole])
    return ((patches - patches.mean()) / max(patches.std(), 1e-3)).astype(np.float32)


def texture(
    rng: np.random.Generator,
    noises: list[np.ndarray],
    u: np.ndarray,
    v: np.ndarray,
    place: Box,
) -> np.ndarray:
    """Factor on the colour of a leaf with coordinates ``u`` and ``v``."""
    kind = rng.random()
    if kind < _ENDS["flat"]:
        return np.ones((), dtype=np.float32)
    if kind < _ENDS["noise"]:
        noise = noises[rng.choice(len(noises), p=_NOISE_SHARES)]
        patch = _somewhere(rng, noise, place)
        strength = np.float32(_STRONGEST_NOISE * rng.random() ** 1.3)
        return np.maximum(1 + strength * patch, 0)
    period = np.float32(4 * 12 ** rng.random())
    depth = np.float32(rng.uniform(0.1, 0.7))
    share = np.float32(rng.uniform(0.15, 0.8))
    if kind < _ENDS["stripes"]:
        return 1 - depth * _wave(u, period, share)
    if kind < _ENDS["grid"]:
        across = _wave(u, period, share)
        return 1 - depth * across * _wave(
            v * np.float32(rng.uniform(0.5, 1.5)), period, share
        )
    table = rng.random((_TABLE, _TABLE)).astype(np.float32)
    blocks = table[
        (u // period).astype(int) % _TABLE,
        (v // (np.float32(_BLOCK_ASPECT) * period)).astype(int) % _TABLE,
    ]
    return 1 - depth * (blocks if rng.random() < 0.5 else (blocks > 0.5))


def _somewhere(rng: np.random.Generator, noise: np.ndarray, place: Box) -> np.ndarray:
    """A part of a noise of the size of a place, from anywhere."""
    left, top, right, bottom = place
    size = len(noise)
    dx, dy = (
        int(rng.integers(-a, size - b + 1)) for a, b in ((left, right), (top, bottom))
    )
    return noise[top + dy : bottom + dy, left + dx : right + dx]


def _wave(a: np.ndarray, period: np.float32, share: np.float32) -> np.ndarray:
    """A square wave, its edges two pixels wide."""
    phase = np.abs((a / period) % 1 - np.float32(0.5)) * 2
    return np.clip((phase - share) / (2 / period) + np.float32(0.5), 0, 1)
