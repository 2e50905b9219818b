r"""
Pools of training crops: real clips, photographs in motion and dead leaves, in one file.

A pool is an ordinary video (Matroska, H.264 without chroma subsampling), each crop after
the other and each beginning with a keyframe: small enough to travel, and to be looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from deepinv_lvtino.datasets._colour import frame_to_rgb
from deepinv_lvtino.datasets._encode import encode_file
from deepinv_lvtino.datasets._images import list_frames, read_image
from deepinv_lvtino.datasets._names import as_file, only_this_file
from deepinv_lvtino.datasets.dead_leaves import dead_leaves_clip
from deepinv_lvtino.datasets.video import read_video
from deepinv_lvtino.training.camera import moving_photograph
from deepinv_lvtino.training.footage import Footage, draw, find_footage
from deepinv_lvtino.utils import check_counts

SHARES = (0.45, 0.40, 0.15)  # real clips, photographs in motion, dead leaves
_WINDOW_BYTES = 10**9  # of a long clip that is in memory at a time
_CROPS_OF_WINDOW = 8


def footage_pool(
    path: str | Path,
    folder: str | Path,
    num_clips: int = 1500,
    num_frames: int = 12,
    size: int = 112,
    *,
    shares: Sequence[float] = SHARES,
    hold_out: Sequence[str] | None = None,
    crf: int = 16,
    seed: int = 0,
) -> Path:
    r"""
    Cut training crops out of footage, and pack them into one file.

    :param str, pathlib.Path path: file to write (``.mkv``); it appears when complete.
    :param str, pathlib.Path folder: footage, see
        :func:`deepinv_lvtino.training.find_footage`.
    :param int num_clips: number of crops.
    :param int num_frames: frames of each.
    :param int size: height and width of each in pixels, even.
    :param Sequence[float] shares: of real clips, of photographs in motion, and of dead
        leaves; kinds that the folder lacks leave theirs to the others.
    :param Sequence[str] hold_out: patterns of paths to leave for measuring.
    :param int crf: quality of the compression from 0 (best) to 51.
    :param int seed: seed.
    :return: (pathlib.Path) the file.
    :raises ValueError: if a number or the suffix is wrong, or footage cannot be read.
    :raises FileNotFoundError: if the folder holds nothing to train on.
    """
    check_counts(num_clips=num_clips, num_frames=num_frames, size=size)
    path = Path(path)
    if path.suffix.lower() != ".mkv" or size % 2:
        msg = f"`path` must end in .mkv and `size` be even; got {path.name} and {size}."
        raise ValueError(msg)
    if len(shares) != 3 or min(shares) < 0 or sum(shares) <= 0:
        msg = f"`shares` must be three numbers, none negative; got {tuple(shares)}."
        raise ValueError(msg)
    training, _ = find_footage(folder, hold_out)
    crops = footage_crops(training, num_clips, num_frames, size, shares, seed)
    images = (
        image
        for crop in crops
        for image in (crop * 255).round().byte().permute(1, 2, 3, 0).numpy()
    )
    keys = f"keyint={num_frames}:min-keyint={num_frames}:scenecut=0"
    temporary = path.with_name(path.stem + ".part" + path.suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    encode_file(
        temporary,
        images,
        (size, size),
        Fraction(24),
        crf,
        lossless=False,
        subsample=False,
        x264=keys,
    )
    temporary.replace(path)
    return path


def footage_crops(
    footage: Sequence[Footage],
    num_clips: int,
    num_frames: int,
    size: int,
    shares: Sequence[float] = SHARES,
    seed: int = 0,
) -> Iterator[Tensor]:
    r"""
    Training crops, those of one source after another.

    :param Sequence[Footage] footage: clips and photographs.
    :param int num_clips: number of crops.
    :param int num_frames: frames of each.
    :param int size: height and width of each.
    :param Sequence[float] shares: see :func:`footage_pool`.
    :param int seed: seed.
    :return: (Iterator[torch.Tensor]) crops ``(3, T, size, size)`` in [0, 1].
    :raises ValueError: if a clip or photograph is smaller than a crop.
    """
    rng = np.random.default_rng(seed)
    clips = [one for one in footage if not one.photo]
    photos = [one for one in footage if one.photo]
    weights = np.array(shares, dtype=np.float64) * [bool(clips), bool(photos), True]
    if not weights.any():
        msg = "`shares` leaves nothing: the folder holds no footage of that kind."
        raise ValueError(msg)
    counts = rng.multinomial(num_clips, weights / weights.sum())
    for kind, count in ((clips, counts[0]), (photos, counts[1])):
        drawn = draw(kind, int(count), rng) if count else []
        for one in kind:
            times = drawn.count(one)
            if times:
                yield from _crops_of(one, times, num_frames, size, rng)
    for index in range(int(counts[2])):
        yield dead_leaves_clip(index, num_frames, size, size, seed=seed, grain=False)


def _crops_of(
    one: Footage, count: int, num_frames: int, size: int, rng: np.random.Generator
) -> Iterator[Tensor]:
    try:
        if one.photo:
            photo = torch.from_numpy(read_image(one.path)).permute(2, 0, 1)
            for _ in range(count):
                yield moving_photograph(photo, num_frames, (size, size), rng)
        else:
            for frames, part in _windows(one.path, count, num_frames, rng):
                for _ in range(part):
                    yield crop(frames, num_frames, size, rng)
    except ValueError as error:
        msg = (
            f"`folder`: {one.path}: {error} Move it out of the folder, or ask for "
            "smaller or shorter crops."
        )
        raise ValueError(msg) from error


def _windows(
    path: Path, count: int, num_frames: int, rng: np.random.Generator
) -> Iterator[tuple[Tensor, int]]:
    """Pieces of a clip that fit in memory, and how many crops to cut out of each."""
    total, frame_bytes = _extent(path)
    window = max(2 * num_frames, _WINDOW_BYTES // frame_bytes)
    if total <= window:
        yield read_video(path).frames, count
        return
    for first in range(0, count, _CROPS_OF_WINDOW):
        start = int(rng.integers(total - window + 1))
        part = min(_CROPS_OF_WINDOW, count - first)
        yield read_video(path, window, start).frames, part


def _extent(path: Path) -> tuple[int, int]:
    """Frames of a clip, about and no more than there are, and the bytes of one."""
    if path.is_dir():
        images = list_frames(path)
        return len(images), 4 * read_image(images[0]).size
    import av

    with av.open(as_file(path), **only_this_file()) as container:
        if not container.streams.video:
            return 0, 1  # reading it says what is wrong
        stream = container.streams.video[0]
        total = stream.frames
        if not total and container.duration and stream.average_rate:
            # of containers that do not count frames; rounded down for safety
            seconds = container.duration / av.time_base
            total = max(int(seconds * float(stream.average_rate)) - 2, 0)
        return total, 4 * 3 * max(stream.width * stream.height, 1)


def crop(
    frames: Tensor, num_frames: int, size: int, rng: np.random.Generator
) -> Tensor:
    r"""
    A crop of a real clip, shrunk by 1 to 3.

    Shrinking removes compression noise and gives smaller motions; every second frame,
    where there are enough, larger ones.

    :param torch.Tensor frames: clip, shape ``(3, T, H, W)``.
    :param int num_frames: frames of the crop.
    :param int size: its height and width.
    :param numpy.random.Generator rng: generator.
    :return: (:class:`torch.Tensor`) crop ``(3, num_frames, size, size)`` in [0, 1].
    :raises ValueError: if the clip is shorter or smaller than a crop.
    """
    total, height, width = frames.shape[1:]
    room = min(height, width) / size
    if total < num_frames or room < 1:
        msg = (
            f"`frames` must be at least {num_frames}x{size}x{size}; got "
            f"{total}x{height}x{width}."
        )
        raise ValueError(msg)
    scale = rng.uniform(1, max(1.0, min(3.0, room)))
    stride = 2 if total >= 2 * num_frames - 1 and rng.random() < 0.25 else 1
    taken = min(round(scale * size), height, width)
    t = int(rng.integers(total - stride * (num_frames - 1)))
    i, j = (int(rng.integers(n - taken + 1)) for n in (height, width))
    piece = frames[:, t::stride, i : i + taken, j : j + taken][:, :num_frames]
    small = F.interpolate(
        piece.transpose(0, 1), (size, size), mode="bicubic", antialias=True
    )
    return small.transpose(0, 1).clamp(0, 1)


def read_pool(path: str | Path) -> np.ndarray:
    r"""
    The crops of a pool.

    :param str, pathlib.Path path: file written by :func:`footage_pool`, or an array of
        NumPy's format (``.npy``), which is mapped rather than read.
    :return: (numpy.ndarray) uint8, shape ``(N, 3, T, H, W)``.
    :raises ValueError: if its keyframes do not divide it into clips of one length, or it
        is no array.
    """
    path = Path(path)
    if path.suffix.lower() == ".npy":
        return _mapped(path)
    import av

    images: list[np.ndarray] = []
    starts: list[int] = []
    with av.open(as_file(path), **only_this_file()) as container:
        container.streams.video[0].thread_type = "AUTO"
        for frame in container.decode(video=0):
            if frame.key_frame:
                starts.append(len(images))
            images.append(np.rint(frame_to_rgb(frame) * 255).astype(np.uint8))
    length = starts[1] if len(starts) > 1 else len(images)
    if (
        not images
        or starts != list(range(0, len(images), length))
        or len(images) % length
    ):
        msg = (
            f"`path`: the keyframes of {path} do not divide it into clips of one length; "
            "write it with `python -m deepinv_lvtino.training pool`."
        )
        raise ValueError(msg)
    clips = np.stack(images).reshape(-1, length, *images[0].shape)
    return np.ascontiguousarray(clips.transpose(0, 4, 1, 2, 3))


def _mapped(path: Path) -> np.ndarray:
    """A pool on the disk."""
    try:
        pool = np.load(path, mmap_mode="c")  # never pickled objects
    except (EOFError, ValueError) as error:
        pool = None
        reason: Exception | None = error
    else:
        reason = None
    if not isinstance(pool, np.ndarray):  # an archive of arrays is none
        if pool is not None:
            pool.close()
        msg = (
            f"`pools`: {path} is not a file of one NumPy array (.npy), or is cut short. "
            "Make it again with `python -m deepinv_lvtino.training pool`."
        )
        raise ValueError(msg) from reason
    return pool
