r"""
Procedural training clips: moving scenes of dead leaves.

Pictures of opaque shapes that hide one another, with sizes that follow a power law, share
the statistics of natural images :footcite:p:`lee2001occlusion`, and networks trained on
nothing else restore photographs well :footcite:p:`achddou2021synthetic`. A clip is made
in two steps.

*Sheets* are still pictures of such leaves, painted from the large to the small: ellipses,
rectangles, polygons, rings, ragged crowns, thin bars, and clusters of small leaves,
scattered like foliage, on a lattice like windows and bricks, or in rows like writing. Each
leaf has a colour of low chroma, a shading gradient, a soft shadow and a texture (flat,
fractal noise, foliage, stripes, grids, blocks). All clips of a collection share
``NUM_SHEETS`` sheets.

*Scenes* put one sheet behind, two times in five tilted like a wall or a street, and cut
a few objects out of others. The camera pans, sways, zooms and turns, by up to 5 pixels per
frame; nearer objects follow it faster (parallax) and move by themselves, by up to 8; some
scenes stand still. Frames are sampled at twice their resolution and averaged, so that
edges are sharp and free of aliasing. Exposure, contrast, tint, lens blur, motion blur and
sensor grain differ from clip to clip.

Everything is a function of ``(seed, index)``: frames of a longer clip need not begin with
those of a shorter one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from deepinv_lvtino._staging import Stage
from deepinv_lvtino.datasets._motion import (
    Outline,
    camera_speed,
    combined,
    moved,
    object_speed,
    random_path,
    seen,
)
from deepinv_lvtino.utils import check_counts, check_integer

NUM_SHEETS = 128
"""Sheets of a collection; each is painted when a clip first needs it."""

SHEET_SIZE = 768
"""Height and width of a sheet in its own pixels, of which a frame's pixel takes 2 to 6."""

_SHEETS, _SCENE = 0, 1  # first word of the random streams
_PART = 16  # clips that a worker renders at a time


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
    _check_numbers(index=index, seed=seed)
    rng = np.random.default_rng([seed, _SCENE, index])
    blurred = rng.random() < 0.12
    times = np.arange(num_frames, dtype=np.float64)
    if blurred:  # motion blur: four moments while the shutter is open
        times = (times[:, None] + rng.uniform(0.1, 0.5) * np.arange(4) / 4).ravel()
    frames = _render(rng, times, 2 * height, 2 * width, seed)
    frames = F.avg_pool2d(frames, 2)
    if blurred:
        frames = frames.unflatten(0, (num_frames, 4)).mean(1)
    return _develop(rng, frames, grain).transpose(0, 1).contiguous()


class DeadLeavesVideos(Dataset[Tensor]):
    r"""
    The clips of :func:`dead_leaves_clip` as a data set of PyTorch.

    Nothing is stored: a clip is rendered when it is asked for, the same one each time.
    Data loaders with worker processes give the same clips; each process paints the sheets
    that it needs.

    :param int num_clips: number of clips.
    :param int num_frames: frames of each.
    :param int height: height in pixels.
    :param int width: width in pixels.
    :param int seed: seed of the collection, 0 or positive.
    :param int first: index in the collection of the first clip.
    :raises ValueError: if a size is not positive, or a number is negative.

    |sep|

    :Examples:

        >>> from deepinv_lvtino.datasets import DeadLeavesVideos
        >>> videos = DeadLeavesVideos(num_clips=100, num_frames=2, height=16, width=24)
        >>> len(videos), videos[3].shape
        (100, torch.Size([3, 2, 16, 24]))
    """

    def __init__(
        self,
        num_clips: int,
        num_frames: int = 9,
        height: int = 64,
        width: int = 64,
        *,
        seed: int = 0,
        first: int = 0,
    ) -> None:
        check_counts(
            num_clips=num_clips, num_frames=num_frames, height=height, width=width
        )
        _check_numbers(seed=seed, first=first)
        self.num_clips = num_clips
        self.size = num_frames, height, width
        self.seed = seed
        self.first = first

    def __len__(self) -> int:
        return self.num_clips

    def __getitem__(self, index: int) -> Tensor:
        r"""
        One clip.

        :param int index: its number; a negative one counts from the end.
        :return: (:class:`torch.Tensor`) clip ``(3, T, H, W)``, float32, in [0, 1].
        :raises IndexError: if there is no such clip.
        """
        if not -self.num_clips <= index < self.num_clips:
            msg = f"`index` must be below {self.num_clips}; got {index}."
            raise IndexError(msg)
        number = self.first + int(index) % self.num_clips
        return dead_leaves_clip(number, *self.size, seed=self.seed)


def dead_leaves_pool(
    path: str | Path,
    num_clips: int,
    num_frames: int = 12,
    height: int = 96,
    width: int = 96,
    *,
    seed: int = 0,
    first: int = 0,
    workers: int = 2,
) -> Path:
    r"""
    Write many clips to a file of NumPy's format, to be read through a memory map.

    The clips are those of :func:`dead_leaves_clip`, rounded to 8 bits, whatever the number
    of workers. The file appears when it is complete.

    :param str, pathlib.Path path: file to write (``.npy``); an existing one is replaced.
    :param int num_clips: number of clips.
    :param int num_frames: frames of each.
    :param int height: height in pixels.
    :param int width: width in pixels.
    :param int seed: seed of the collection.
    :param int first: index of the first clip.
    :param int workers: processes to use.
    :return: (pathlib.Path) the file; uint8, shape ``(N, 3, T, H, W)``.
    :raises ValueError: if a number is out of range.
    """
    check_counts(
        num_clips=num_clips,
        num_frames=num_frames,
        height=height,
        width=width,
        workers=workers,
    )
    _check_numbers(seed=seed, first=first)
    path = Path(path)
    shape = num_clips, 3, num_frames, height, width
    size = num_frames, height, width
    jobs: list[_Job] = [
        (range(start, min(start + _PART, num_clips)), first, size, seed)
        for start in range(0, num_clips, _PART)
    ]
    with Stage([path]) as stage:
        pool = np.lib.format.open_memmap(stage.path(path), "w+", np.uint8, shape)
        for part, clips in _mapped(jobs, workers):
            pool[part.start : part.stop] = clips
        pool.flush()
        del pool
        stage.commit()
    return path


def _check_numbers(**numbers: int) -> None:
    for name, value in numbers.items():
        if check_integer(name, value) < 0:
            msg = f"`{name}` must be 0 or positive; got {value}."
            raise ValueError(msg)


_Job = tuple[range, int, tuple[int, int, int], int]


def _mapped(jobs: list[_Job], workers: int) -> Iterator[tuple[range, np.ndarray]]:
    """Results in order; always one thread, for the same sums with any number of workers."""
    if workers == 1:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield from map(_pool_part, jobs)
        finally:
            torch.set_num_threads(threads)
        return
    context = get_context("spawn")  # threads of PyTorch do not survive a fork
    with ProcessPoolExecutor(workers, context, torch.set_num_threads, (1,)) as executor:
        yield from executor.map(_pool_part, jobs)


def _pool_part(job: _Job) -> tuple[range, np.ndarray]:
    part, first, size, seed = job
    clips = [dead_leaves_clip(first + i, *size, seed=seed) for i in part]
    return part, (torch.stack(clips) * 255).round().byte().numpy()


# --- scenes -------------------------------------------------------------------------


def _render(
    rng: np.random.Generator, times: np.ndarray, height: int, width: int, seed: int
) -> Tensor:
    """Frames ``(T, 3, H, W)`` at twice the final resolution."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    # centred, in pixels of the final resolution
    points = torch.from_numpy(
        np.stack([(x + 0.5 - width / 2) / 2, (y + 0.5 - height / 2) / 2])
    )
    still = rng.random() < 0.06
    camera = random_path(rng, speed=0.0 if still else camera_speed(rng), times=times)
    path = seen(camera, rng.uniform(0.3, 0.9))
    plane = points
    if rng.random() < 0.4:
        plane = _tilted(rng, points)
    frames = _layer(rng, moved(plane, path, np.zeros(2)), seed)
    reach = max(height, width) / 4
    count = min(int(rng.geometric(0.22)) - 1, 10)
    nearness = np.sort(rng.uniform(0.9, 2.0, count))
    grounds = rng.random() < 0.35
    for index, near in enumerate(nearness):
        shape = Outline(rng, reach, ground=grounds and index == 0)
        speed = 0.0 if still or shape.ground else object_speed(rng)
        path = combined(seen(camera, near), random_path(rng, speed=speed, times=times))
        centre = rng.uniform(-1, 1, 2) * [width / 4, height / 4]
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


def _tilted(rng: np.random.Generator, points: Tensor) -> Tensor:
    """The plane of a wall or a street, seen in perspective."""
    direction = rng.choice([0.0, 0.5, 1.0, 1.5]) * np.pi + rng.normal(0, 0.2)
    far = points.abs().amax() * math.sqrt(2)
    along = points[0] * math.cos(direction) + points[1] * math.sin(direction)
    return points / (1 + float(rng.uniform(0.1, 0.55)) * along / far)


def _layer(
    rng: np.random.Generator, inside: Tensor, seed: int, closer: bool = False
) -> Tensor:
    """A sheet seen through a moving window, recoloured, shape ``(T, 3, H, W)``."""
    number = int(rng.integers(NUM_SHEETS))
    # pixels of the sheet for each of the frame's: at least two, for a sharp picture
    scale = 2.2 * (1.6 if closer else 2.7) ** rng.random()
    angle = rng.choice([0.0, 0.5, 1.0, 1.5]) * np.pi + rng.normal(0, 0.08)
    # the map keeps straight lines, so that the extremes are at the corners
    corners = inside[:, :, [0, 0, -1, -1], [0, -1, 0, -1]].flatten(1)
    low, high = corners.amin(1).numpy(), corners.amax(1).numpy()
    middle, half = (low + high) / 2, np.hypot(*(high - low)) / 2 * scale
    spare = max(SHEET_SIZE / 2 - half, 0.1 * SHEET_SIZE)
    place = SHEET_SIZE / 2 + rng.uniform(-1, 1, 2) * spare
    sheet = _sheet(seed, number)[int(scale > 4.4)]
    size = sheet.shape[-1]
    shrink = size / SHEET_SIZE
    turn = (
        scale
        * shrink
        * np.array(
            [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        )
    )
    offset = place * shrink - turn @ middle
    # only the part of the sheet that is seen
    seen = turn @ corners.numpy() + offset[:, None]
    first = np.clip(np.floor(seen.min(1)).astype(int) - 2, 0, size - 8)
    last = np.clip(np.ceil(seen.max(1)).astype(int) + 2, 8, size)
    if seen.min() < 1 or seen.max() > size - 1:  # reflected at the borders
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
    mean = part.mean(dim=(-2, -1))[:, None, None]
    contrast = rng.uniform(0.6, 1.15)
    gain = torch.from_numpy(rng.uniform(0.6, 1.35) * (1 + rng.normal(0, 0.03, 3)))
    gain = gain.float().view(3, 1, 1)
    return colours.mul_(contrast * gain).add_((1 - contrast) * mean * gain)


def _develop(rng: np.random.Generator, frames: Tensor, grain: bool) -> Tensor:
    """Lens, exposure, tone and sensor."""
    if rng.random() < 0.15:
        frames = _blur(frames, float(rng.uniform(0.3, 1.0)))
    # half way from the scene as it is to a mean of the camera's choice
    mean = max(float(frames[0].mean()), 0.02)
    exposure, gamma = math.sqrt(rng.uniform(0.2, 0.7) / mean), rng.uniform(0.75, 1.3)
    haze = max(0.0, rng.normal(0.0, 0.06))
    tint = torch.from_numpy(1 + rng.normal(0, 0.02, 3)).float().view(3, 1, 1)
    frames = (frames.clamp(min=1e-6) * exposure).pow_(float(gamma)) * tint
    frames = float(haze) + (1 - float(haze)) * frames
    # a soft shoulder keeps lights from clipping flat
    frames = torch.where(
        frames > 0.8, 0.8 + 0.2 * torch.tanh((frames - 0.8) / 0.2), frames
    )
    if rng.random() < 0.3 and grain:
        noise = rng.standard_normal(frames.shape, dtype=np.float32)
        frames = frames + float(rng.uniform(0.001, 0.01)) * torch.from_numpy(noise)
    return frames.clamp(0, 1)


def _blur(frames: Tensor, deviation: float) -> Tensor:
    taps = torch.exp(-0.5 * (torch.arange(-3, 4) / deviation) ** 2)
    taps = taps / taps.sum()
    flat = F.pad(frames, (3, 3, 3, 3), mode="replicate").flatten(0, 1)[:, None]
    flat = F.conv2d(F.conv2d(flat, taps.view(1, 1, 1, -1)), taps.view(1, 1, -1, 1))
    return flat.view(frames.shape)


# --- sheets -------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _sheet(seed: int, number: int) -> tuple[Tensor, Tensor]:
    """One sheet of a collection, uint8 ``(3, S, S)``, and the same at half its size."""
    rng = np.random.default_rng([seed, _SHEETS, number])
    sheet = torch.from_numpy(_paint(rng, SHEET_SIZE).transpose(2, 0, 1).copy())
    sheet = sheet.clamp(0, 1) * 255
    half = F.avg_pool2d(sheet[None], 2)[0]
    return sheet.round().byte(), half.round().byte()


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
    noises = [_fractal(rng, size, slope) for slope in (0.5, 1.0, 1.5)]
    noises.append(_patches(rng, noises[1]))
    palette = _palette(rng)
    sheet = np.empty((size, size, 3), dtype=np.float32)
    sheet[:] = palette[0]
    sheet *= 1 + 0.1 * noises[2][..., None]
    brush = _Brush(rng, sheet, palette, noises, upright=rng.random() < 0.65)
    # sizes with density r^-3: equal area in each octave of sizes
    for radius in _sizes(rng, int(rng.integers(40, 120)), size / 30, size / 2.2):
        _leaf(brush, rng.uniform(0, size, 2), float(radius), share=1.0)
    for _ in range(int(rng.integers(20, 80))):
        _cluster(brush)
    for _ in range(int(rng.geometric(0.12))):
        wide = 0.5 * 8 ** rng.random()
        long = size * rng.uniform(0.1, 0.7)
        _leaf(brush, rng.uniform(0, size, 2), long, 1.0, "bar", wide / long)
    light = 1 + rng.uniform(0, 0.35) * _fractal(rng, size, 2.2)
    return sheet * np.clip(light, 0.2, 2)[..., None]


def _sizes(
    rng: np.random.Generator, count: int, smallest: float, largest: float
) -> np.ndarray:
    """Radii with density r^-3 in a range, the larger first but for some disorder."""
    uniform = rng.random(count)
    radii = 1 / np.sqrt(uniform / smallest**2 + (1 - uniform) / largest**2)
    return radii[np.argsort(-radii * np.exp(rng.normal(0, 0.6, count)))]


def _cluster(brush: _Brush) -> None:
    """Small leaves at one place: scattered, on a lattice, or in rows like writing."""
    rng, size = brush.rng, len(brush.sheet)
    centre = rng.uniform(0, size, 2)
    spread = size * 0.02 * 8 ** rng.random()
    kind = rng.random()
    share = rng.uniform(0.15, 1.0)  # of the leaf's own colour
    colour = brush.palette[rng.integers(len(brush.palette))]
    if kind < 0.5:  # foliage, rubble, a crowd
        smallest = 1.0 * 4 ** rng.random()
        count = int(min(6.0 * (spread / smallest) ** 1.2, 220))
        shape = str(rng.choice(["ellipse", "box", "polygon", "any"]))
        own = rng.random() < 0.5
        for radius in _sizes(rng, count, smallest, 8 * smallest):
            place = centre + spread * rng.normal(size=2)
            tone = colour * rng.uniform(0.5, 1.5) if own else None
            _leaf(brush, place, float(radius), share, shape, colour=tone)
        return
    angle = rng.normal(0, 0.03) if brush.upright else rng.uniform(0, np.pi)
    axes = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    period = np.array([1.0, rng.uniform(0.4, 2.5)]) * 5 * 9 ** rng.random()
    if kind < 0.8:  # windows, bricks, railings
        columns, rows = np.clip(2 * spread / period, 1, 14).astype(int)
        radius, aspect = period[0] * rng.uniform(0.15, 0.45), period[1] / period[0]
        aspect *= rng.uniform(0.5, 1.3)
        for row in range(rows):
            for column in range(columns):
                place = [column - columns / 2, row - rows / 2] * period @ axes
                tone = colour * rng.uniform(0.8, 1.2)
                _leaf(brush, centre + place, radius, share, "box", aspect, tone, angle)
        return
    high = 1.2 * 5 ** rng.random()  # rows of short strokes
    for row in range(int(rng.integers(1, 6))):
        at = -spread
        while at < spread:
            wide = high * rng.uniform(0.2, 1.2)
            place = np.array([at + wide, 3.2 * high * row]) @ axes
            tall = high * rng.uniform(0.6, 1.0) / wide
            _leaf(brush, centre + place, wide, share, "box", tall, colour, angle)
            at += 2 * wide + high * rng.choice([0.3, 0.5, 1.5])


def _palette(rng: np.random.Generator) -> np.ndarray:
    """Sixteen colours of low chroma, mostly between orange and blue, some strong."""
    count = 16
    light = np.clip(rng.beta(0.9, 1.2, count) * rng.uniform(0.75, 1.15), 0.02, 1)
    light[0] = rng.uniform(0.1, 0.9)
    # orange, blue and green, as of earth, sky and leaves
    hue = rng.choice([0.65, 3.8, 1.5], count, p=[0.45, 0.35, 0.2])
    hue += rng.normal(0, 1, count) * rng.choice([0.3, 1.5], count, p=[0.75, 0.25])
    chroma = np.abs(rng.normal(0, 0.085, count)) * (1 + 3 * (rng.random(count) < 0.08))
    chroma[0] *= 0.5
    angles = hue[:, None] - np.array([0, 2, 4]) * np.pi / 3
    return (light[:, None] * (1 + 2 * chroma[:, None] * np.cos(angles))).astype("f4")


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
    rng, sheet = brush.rng, brush.sheet
    size = len(sheet)
    if kind == "any":
        draw = rng.random()
        ends = (0.2, 0.65, 0.85, 0.95) if brush.upright else (0.4, 0.6, 0.85, 0.95)
        names = ("ellipse", "box", "polygon", "crown", "ring")
        kind = names[sum(draw > end for end in ends)]
    if aspect is None:
        aspect = rng.uniform(0.3, 1.0)
    reach_x = reach_y = radius * max(1.0, aspect) * 1.42 + 2
    if angle is None:
        angle = rng.uniform(0, 2 * np.pi)
        if brush.upright and kind in ("box", "bar"):
            angle = rng.choice([0, np.pi / 2]) + rng.normal(0, 0.03)
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
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
    patch = sheet[top:bottom, left:right]
    if share < 1:  # small things resemble what they lie on
        row = min(max(int(centre[1]), top), bottom - 1)
        column = min(max(int(centre[0]), left), right - 1)
        colour = share * colour + (1 - share) * sheet[row, column]
    if radius < 10:
        patch += cover * (np.asarray(colour, dtype=np.float32) - patch)
        return
    slope = rng.normal(0, 0.15, 2).astype(np.float32) / np.float32(radius)
    value = 1 + slope[0] * u + slope[1] * v
    value *= _texture(brush, u, v, (left, top, right, bottom))
    if rng.random() < 0.35:  # the dark before a raised edge
        dark = np.clip(inside / np.float32(rng.uniform(3, 20)) + 1, 0, 1)[..., None]
        patch *= 1 - np.float32(rng.uniform(0.1, 0.6)) * dark
    patch += cover * (np.asarray(colour, dtype=np.float32) * value[..., None] - patch)


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
        level = np.sqrt((u / radius) ** 2 + (v / (radius * aspect)) ** 2)
        return (1 - level) * radius * np.minimum(aspect, np.float32(1))
    if kind == "polygon":
        sides = int(rng.integers(3, 7))
        turns = (np.arange(sides) + rng.uniform(-0.25, 0.25, sides)) * 2 * np.pi / sides
        far = (radius * rng.uniform(0.5, 0.95, sides)).astype(np.float32)
        cos, sin = np.cos(turns).astype("f4"), np.sin(turns).astype("f4")
        edge = far[0] - u * cos[0] - v * sin[0]
        for k in range(1, sides):
            np.minimum(edge, far[k] - u * cos[k] - v * sin[k], out=edge)
        return edge
    if kind == "crown":  # a ragged outline
        around = np.arctan2(v, u)
        ragged = np.zeros_like(u)
        for k in (2, 3, 5, 8, 13, 21):
            amount = np.float32(rng.normal() / k**0.7)
            ragged += amount * np.cos(k * around + np.float32(rng.uniform(0, 6)))
        return radius * (np.float32(0.85) + np.float32(0.2) * ragged) - np.hypot(u, v)
    if kind == "ring":
        wide = radius * np.float32(rng.uniform(0.04, 0.25))
        return wide - np.abs(np.hypot(u, v) - np.float32(0.8) * radius)
    return np.minimum(radius - np.abs(u), radius * aspect - np.abs(v))


def _texture(
    brush: _Brush, u: np.ndarray, v: np.ndarray, box: tuple[int, int, int, int]
) -> np.ndarray:
    """Factor on the colour of a leaf: flat, fractal, stripes, a grid or blocks."""
    rng = brush.rng
    kind = rng.random()
    if kind < 0.2:
        return np.ones((), dtype=np.float32)
    if kind < 0.72:
        left, top, right, bottom = box
        noise = brush.noises[rng.choice(4, p=[0.3, 0.25, 0.15, 0.3])]
        size = len(noise)
        dx, dy = (
            int(rng.integers(-a, size - b + 1))
            for a, b in ((left, right), (top, bottom))
        )
        patch = noise[top + dy : bottom + dy, left + dx : right + dx]
        return np.maximum(1 + np.float32(0.45 * rng.random() ** 1.3) * patch, 0)
    period = np.float32(4 * 12 ** rng.random())
    depth = np.float32(rng.uniform(0.1, 0.7))
    share = np.float32(rng.uniform(0.15, 0.8))
    slack = 2 / period

    def wave(a: np.ndarray) -> np.ndarray:  # antialiased square wave
        phase = np.abs((a / period) % 1 - np.float32(0.5)) * 2
        return np.clip((phase - share) / slack + np.float32(0.5), 0, 1)

    if kind < 0.82:
        return 1 - depth * wave(u)
    if kind < 0.92:
        return 1 - depth * wave(u) * wave(v * np.float32(rng.uniform(0.5, 1.5)))
    table = rng.random((16, 16)).astype(np.float32)
    blocks = table[
        (u // period).astype(int) % 16,
        (v // (np.float32(1.4) * period)).astype(int) % 16,
    ]
    return 1 - depth * (blocks if rng.random() < 0.5 else (blocks > 0.5))


def _fractal(rng: np.random.Generator, size: int, slope: float) -> np.ndarray:
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
