r"""Collections of dead-leaves clips: as a data set, and as a file of many."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from deepinv_lvtino._staging import Stage
from deepinv_lvtino.datasets.dead_leaves.scenes import check_numbers, dead_leaves_clip
from deepinv_lvtino.utils import check_counts

_PART = 16  # clips that a worker renders at a time


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
        check_numbers(seed=seed, first=first)
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
    check_numbers(seed=seed, first=first)
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
