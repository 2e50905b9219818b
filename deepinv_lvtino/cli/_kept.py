r"""Windows that are done, kept beside the output until it is complete."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepinv_lvtino.cli._errors import UserError
from deepinv_lvtino.optim import WindowState

_RUN = "run.json"
_LEVELS = 65535


class KeptWindows:
    r"""
    A folder with the frames of every window that is done, and what the next one needs.

    ``run.json`` says what they were made from; ``000000.npy``, ... hold the frames in
    levels of 16 bit, ``(n, H, W, 3)``; ``state-000003.npz`` says how many windows are
    done, and holds the frames that the next one sees. Every file appears complete.

    :param pathlib.Path folder: the folder, which need not exist.
    :param dict identity: what the windows are made from: input, operator, settings,
        weights and versions; windows of anything else are not gone on with.
    :param bool overwrite: whether windows of another run may be removed.
    :raises UserError: if the folder is one of another run, or of something else.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], overwrite: bool) -> None:
        self.folder = folder
        identity = json.loads(json.dumps(identity))  # as it will be read back
        if folder.exists():
            self._check(identity, overwrite)
        if not folder.exists():
            folder.mkdir(parents=True)
            _put(folder / _RUN, json.dumps(identity, indent=2).encode())
        for part in folder.glob("*.part"):  # of a run that died
            part.unlink()

    def _check(self, identity: dict[str, Any], overwrite: bool) -> None:
        try:
            found = json.loads((self.folder / _RUN).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = None
        if not isinstance(found, dict):
            if self.folder.is_dir() and not any(self.folder.iterdir()):
                self.folder.rmdir()  # a run died while it made it
                return
            msg = (
                f"{self.folder} is to hold the windows that are done, and holds something "
                "else. Move it away, or choose another output."
            )
            raise UserError(msg)
        other = sorted(
            key for key in {*found, *identity} if found.get(key) != identity.get(key)
        )
        if not other:
            return
        if not overwrite:
            msg = (
                f"{self.folder} holds windows of a run that was not finished, with other "
                f"settings ({', '.join(other)}). Give those again to go on with it, or "
                "--overwrite to begin anew, or choose another output."
            )
            raise UserError(msg)
        shutil.rmtree(self.folder)

    def state(self) -> WindowState:
        r"""
        Where to go on.

        :return: (WindowState) windows that are done, and what the next one needs.
        :raises UserError: if a file is damaged.
        """
        states = sorted(self.folder.glob("state-*.npz"))
        if not states:
            return WindowState()
        try:
            with np.load(states[-1]) as stored:
                count = int(stored["windows"])
                kept = torch.from_numpy(stored["kept"]) if "kept" in stored else None
            for number in range(count):
                np.load(self._piece(number), mmap_mode="r")
        except (OSError, ValueError, EOFError, KeyError) as error:
            msg = (
                f"the windows kept in {self.folder} are damaged ({error}). Remove the "
                "folder to begin anew."
            )
            raise UserError(msg) from error
        return WindowState(count, kept)

    def add(self, frames: Tensor, state: WindowState) -> None:
        r"""
        Keep the frames of a window.

        :param torch.Tensor frames: shape ``(1, 3, n, H, W)``.
        :param WindowState state: where to go on after it.
        """
        values = frames[0].clamp(0, 1).permute(1, 2, 3, 0).cpu().float().numpy()
        levels = np.round(values * _LEVELS).astype(np.uint16)
        number = state.windows - 1
        with (self.folder / "piece.part").open("wb") as file:
            np.save(file, levels)
        (self.folder / "piece.part").replace(self._piece(number))
        arrays: dict[str, Any] = {"windows": np.array(state.windows)}
        if state.kept is not None:
            arrays["kept"] = state.kept.cpu().float().numpy()
        with (self.folder / "state.part").open("wb") as file:
            np.savez(file, **arrays)
        (self.folder / "state.part").replace(
            self.folder / f"state-{state.windows:06d}.npz"
        )
        (self.folder / f"state-{state.windows - 1:06d}.npz").unlink(missing_ok=True)

    def count(self) -> int:
        """Frames that are there."""
        return sum(len(piece) for piece in self._pieces())

    def images(self, bits: int) -> Iterator[np.ndarray]:
        r"""
        All frames for an encoder.

        :param int bits: 8 or 10.
        :return: (Iterator[numpy.ndarray]) uint8 or uint16, ``(H, W, 3)``.
        """
        for piece in self._pieces():
            for frame in piece:
                if bits == 8:
                    yield np.round(frame / (_LEVELS / 255)).astype(np.uint8)
                else:
                    yield np.array(frame)

    def read(self, numbers: range | list[int]) -> Tensor:
        r"""
        Some of the frames.

        :param range, list[int] numbers: which, in order.
        :return: (:class:`torch.Tensor`) shape ``(1, 3, n, H, W)``, in [0, 1].
        """
        wanted = list(numbers)
        found = []
        first = 0
        for piece in self._pieces():
            here = [n - first for n in wanted if first <= n < first + len(piece)]
            if here:
                found.append(np.array(piece[here]))
            first += len(piece)
        values = np.concatenate(found).astype(np.float32) / _LEVELS
        return torch.from_numpy(values).permute(3, 0, 1, 2)[None]

    def remove(self) -> None:
        """Remove the folder, the output being complete."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _piece(self, number: int) -> Path:
        return self.folder / f"{number:06d}.npy"

    def _pieces(self) -> Iterator[np.ndarray]:
        for path in sorted(self.folder.glob("[0-9]*.npy")):
            yield _frames(path)


def _frames(path: Path) -> np.ndarray:
    """An array whose parts are read when they are taken."""
    return np.load(path, mmap_mode="r")


def _put(path: Path, content: bytes) -> None:
    part = path.with_suffix(".part")
    part.write_bytes(content)
    part.replace(path)
