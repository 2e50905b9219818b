r"""The JSON report beside an output."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from deepinv_lvtino._environment import describe_device as describe_device
from deepinv_lvtino._environment import versions as versions
from deepinv_lvtino._schema import (
    SchemaError,
    choice,
    integer,
    number,
    rate,
    read_json,
    record,
    table,
    text,
)
from deepinv_lvtino.cli._options import GRIDS, TIME_BORDERS
from deepinv_lvtino.cli._outputs import beside
from deepinv_lvtino.datasets._images import list_frames

#: Limits of what a report may say: no video has more frames, or more pixels on a side.
_MOST_FRAMES, _MOST_PIXELS = 10**7, 10**6

_FRAMES = integer(1, _MOST_FRAMES)
_SIDE = integer(1, _MOST_PIXELS)
# everything that `restore` reads
_DEGRADE_REPORT = record(
    {
        "command": choice("degrade"),
        "problem": text(2_000),
        "grid": choice(*GRIDS),
        "time_border": choice(*TIME_BORDERS),
        "measurement_error": number(0, 1e3, above=True),
        "mask_seed": integer(0, 2**63 - 1),
        "measurement": record(
            {"frames": _FRAMES, "height": _SIDE, "width": _SIDE, "fps": rate}
        ),
        "original": record({"frames": _FRAMES}),
        "sha256": table(text(64)),
    },
    missing=("mask_seed", "sha256", "time_border"),
)


def clip_entry(shape: tuple[int, ...], fps: Fraction) -> dict[str, Any]:
    """Size and frame rate of a clip ``(C, T, H, W)``."""
    _, frames, height, width = shape
    return {"frames": frames, "height": height, "width": width, "fps": str(fps)}


class Stopwatch:
    """Seconds per stage."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = {}
        self.device = device

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what is inside."""
        start = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[name] = round(time.perf_counter() - start, 4)


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Write as JSON; what is no text in a file's name becomes an escape of JSON."""
    text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def digest(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of the frames in a folder."""
    if path.is_dir():
        total = hashlib.sha256()
        for frame in list_frames(path):
            total.update(os.fsencode(frame.name) + b"\0")
            total.update(bytes.fromhex(digest(frame)))
        return total.hexdigest()
    with path.open("rb") as file:
        total = hashlib.sha256()
        while block := file.read(2**20):
            total.update(block)
    return total.hexdigest()


def find_degrade_report(source: Path) -> tuple[Path, dict[str, Any]] | None:
    """Report that ``degrade`` left beside a measurement; a note says why it is not used."""
    path = beside(source, ".json")
    try:
        report = read_json(path)
        if not isinstance(report, dict) or report.get("command") != "degrade":
            return None  # of another command, or of another program
        _DEGRADE_REPORT("", report)
    except OSError:
        return None
    except SchemaError as error:
        reason = str(error).removeprefix(f"{path}: ")
        print(
            f"note: the report {path} is not used: {reason} Say with options what it "
            "should (--problem, --grid, --sigma, ...), or make it again with `degrade`"
        )
        return None
    return path, report


def describes(report: dict[str, Any], source: Path) -> bool | None:
    r"""
    Whether a report was written together with this very file.

    :param dict report: the report.
    :param pathlib.Path source: the file, or the folder of frames.
    :return: (bool) whether; ``None`` if the report is an older one, without a hash.
    """
    known = report.get("sha256")
    if not isinstance(known, dict) or "output" not in known:
        return None
    return bool(known["output"] == digest(source))
