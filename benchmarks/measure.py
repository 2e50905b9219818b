r"""Time, peak memory and provenance of a measurement."""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deepinv
import torch
from torch import Tensor

from deepinv_lvtino.datasets import procedural_clip, read_video, resize_video

RESULTS = Path(__file__).parent / "results"


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(function: Callable[[], Any], device: torch.device, repeats: int) -> float:
    r"""Best wall-clock time of several calls; one call is taken cold, more are warmed."""
    if repeats > 1:
        function()
    times = []
    for _ in range(repeats):
        synchronize(device)
        start = time.perf_counter()
        function()
        synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times)


def timed(function: Callable[[], Any], device: torch.device) -> tuple[Any, float]:
    r"""Result of one call, and its seconds."""
    synchronize(device)
    start = time.perf_counter()
    result = function()
    synchronize(device)
    return result, time.perf_counter() - start


def load_clip(clip: str | None, size: tuple[int, int, int], seed: int = 0) -> Tensor:
    r"""A clip of the user's, or the procedural one, shape (1, 3, T, H, W)."""
    if clip is None:
        return procedural_clip(*size, seed=seed)[None]
    return resize_video(read_video(clip, size[0]).frames, *size[1:])[None]


def peak_bytes(function: Callable[[], Any], device: torch.device) -> int:
    r"""
    Largest memory in use during a call, beyond what was in use before it.

    On the CPU this is the resident set (Linux), whose high-water mark is reset first.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    function()
    return _status("VmHWM") - before


class Peak:
    r"""
    Largest memory in use inside a ``with`` block, with what was in use before it.

    On a GPU ``allocated`` is what tensors take and ``reserved`` what PyTorch holds; on the
    CPU both are the resident set (Linux), whose high-water mark is reset first.

    :param torch.device device: the device.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.allocated = self.reserved = 0

    def __enter__(self) -> Peak:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            trim_heap()
            Path("/proc/self/clear_refs").write_text("5")
        return self

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            self.allocated = torch.cuda.max_memory_allocated(self.device)
            self.reserved = torch.cuda.max_memory_reserved(self.device)
        else:
            self.allocated = self.reserved = resident_bytes(largest=True)


def resident_bytes(largest: bool = False) -> int:
    r"""Resident memory of this process, or the largest that it has had (Linux)."""
    return _status("VmHWM" if largest else "VmRSS")


def trim_heap() -> None:
    r"""Give freed memory back, so that a peak is not hidden in it (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return 1024 * int(line.split()[1])
    raise KeyError(key)


def provenance(device: torch.device) -> dict[str, Any]:
    r"""Hardware and versions, for the file of results."""
    if device.type == "cuda":
        hardware = torch.cuda.get_device_name(device)
    else:
        hardware = f"{torch.get_num_threads()} threads, {_processor()}"
    return {
        "hardware": hardware,
        "cores": os.cpu_count(),
        "load before": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "deepinv": deepinv.__version__,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def arguments(description: str) -> tuple[torch.device, bool]:
    r"""Device, and whether a small size will do, from the command line."""
    parser = argparse.ArgumentParser(description=description.strip().split("\n\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="a small size, not saved")
    found = parser.parse_args()
    return torch.device(found.device), found.quick


def save(name: str, results: dict[str, Any]) -> None:
    r"""Write results as JSON beside this script, and print them."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(results, indent=2)
    (RESULTS / f"{name}.json").write_text(text + "\n")
    print(text)
