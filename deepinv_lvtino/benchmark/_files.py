r"""Files of a benchmark: cells, videos, and what is kept of a cell that failed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from deepinv_lvtino._staging import Stage
from deepinv_lvtino.datasets import write_video

# of a name that is made of names of clips and solvers; file systems take 255 bytes
_LONGEST_NAME = 200

_PARTS = ("clip", "problem", "solver")


def cell_path(folder: Path, setting: Mapping[str, Any]) -> Path:
    r"""
    File of a cell.

    :param pathlib.Path folder: folder of the benchmark.
    :param dict setting: clip, problem and solver of the cell.
    :return: (pathlib.Path) the file, another one for every cell.
    """
    parts = [setting[key] for key in _PARTS]
    digest = _digest("\n".join(parts))
    words = "--".join(re.sub(r"[^A-Za-z0-9._-]+", "_", part) for part in parts)
    return folder / "cells" / f"{words[:_LONGEST_NAME]}--{digest}.json"


def video_path(folder: Path, where: str, setting: Mapping[str, Any]) -> Path:
    r"""
    Folder of the frames of a cell.

    :param pathlib.Path folder: folder of the benchmark.
    :param str where: folder in it.
    :param dict setting: clip, problem and solver of the cell.
    :return: (pathlib.Path) the folder, another one for every cell.
    """
    return folder / where / Path(*(_as_name(setting[key]) for key in _PARTS))


def write_cell(
    path: Path,
    cell: Mapping[str, Any],
    features: Sequence[np.ndarray] | None,
    say: Callable[[str], None],
) -> None:
    r"""
    Write a cell and its features; they appear together.

    :param pathlib.Path path: file of the cell.
    :param dict cell: its content.
    :param Sequence[numpy.ndarray] features: those of the estimate and of the reference,
        for scores of sets.
    :param Callable say: called with a line about what a dead run left.
    """
    places = [path] if features is None else [path.with_suffix(".npz"), path]
    text = json.dumps(cell, indent=2, ensure_ascii=False, allow_nan=False)
    with Stage(places, say=say) as stage:
        if features is not None:
            estimate, reference = features
            np.savez(stage.path(places[0]), estimate=estimate, reference=reference)
        # names of files may hold what is no text
        stage.path(path).write_text(
            text + "\n", encoding="utf-8", errors="backslashreplace"
        )
        stage.commit()


def keep_video(folder: Path, setting: Mapping[str, Any], estimate: Tensor) -> Path:
    r"""
    Keep the video of a cell that cannot be written.

    :param pathlib.Path folder: folder of the benchmark.
    :param dict setting: clip, problem and solver of the cell.
    :param torch.Tensor estimate: the video, ``(1, 3, T, H, W)``.
    :return: (pathlib.Path) where the frames are: in ``kept``, or if that fails in the
        folder for temporary files.
    """
    frames = estimate[0].float().nan_to_num()
    path = video_path(folder, "kept", setting)
    try:
        return write_video(path, frames, overwrite=True)
    except OSError:
        elsewhere = Path(tempfile.mkdtemp(prefix="deepinv-lvtino-"))
        return write_video(video_path(elsewhere, "kept", setting), frames)


def _as_name(text: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", text)[:_LONGEST_NAME]
    return name if name == text else f"{name}-{_digest(text)}"


def _digest(text: str) -> str:
    # of bytes: names of files may hold what is no text
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:8]
