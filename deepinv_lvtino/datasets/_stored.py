r"""Frames in memory as long as they are few, and in a temporary file beyond that."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

#: Bytes of frames that are kept in memory.
IN_MEMORY = 2**28


class Frames:
    r"""
    Frames of one size, float32, in the order in which they are added.

    Beyond ``IN_MEMORY`` bytes they lie in a file without a name, which is gone when the
    program ends in whatever way.

    :param pathlib.Path folder: where that file is made; that of temporary files by
        default.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._memory: list[np.ndarray] = []
        self._file: IO[bytes] | None = None
        self._order: list[int] = []
        self._count = 0
        #: Shape of a frame, ``(3, H, W)``, once there is one.
        self.shape = torch.Size()

    def __del__(self) -> None:
        if self._file is not None:
            self._file.close()

    def __len__(self) -> int:
        return len(self._order)

    def append(self, frame: Tensor) -> None:
        r"""
        Add a frame.

        :param torch.Tensor frame: shape ``(3, H, W)``.
        """
        values = np.ascontiguousarray(frame.numpy(), dtype=np.float32)
        self.shape = frame.shape
        if self._file is None and self._count * values.nbytes > IN_MEMORY:
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
            for one in self._memory:
                self._file.write(one.tobytes())
            self._memory.clear()
        if self._file is None:
            self._memory.append(values)
        else:
            self._file.seek(self._count * values.nbytes)
            self._file.write(values.tobytes())
        self._order.append(self._count)
        self._count += 1

    def reorder(self, order: list[int]) -> None:
        r"""
        Frames in another order; some may be left out, and others repeated.

        :param list[int] order: number of the frame for each place.
        """
        self._order = [self._order[number] for number in order]

    def read(self, start: int = 0, stop: int | None = None) -> Tensor:
        r"""
        Frames as a video.

        :param int start: first frame.
        :param int stop: frame after the last one; all by default.
        :return: (:class:`torch.Tensor`) shape ``(3, n, H, W)``.
        """
        numbers = self._order[start:stop]
        channels, height, width = self.shape
        video = np.empty((channels, len(numbers), height, width), np.float32)
        for place, number in enumerate(numbers):
            video[:, place] = self._frame(number)
        return torch.from_numpy(video)

    def _frame(self, number: int) -> np.ndarray:
        if self._file is None:
            return self._memory[number]
        size = 4 * self.shape.numel()
        self._file.seek(number * size)
        return np.frombuffer(self._file.read(size), np.float32).reshape(self.shape)
