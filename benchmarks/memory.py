r"""
The memory of a restoration: foreseen by the command line, and measured.

One sample of problem B from a file, as ``deepinv-lvtino restore`` on the CPU, for several
sizes: what it says it will take, the peak resident memory of the process less what it held
before the work, and seconds. With ``--pieces`` also one evaluation of the embedded video
network on the largest size, in pieces that stay in the processor's cache (as it is), all at
once, and all at once with the allocator as it is by default (before), each in a process of
its own. Usage::

    python benchmarks/memory.py [--sizes 25x192x320 ...] [--pieces] [--quick]
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from embedded_models import Row, write_csv
from measure import RESULTS, provenance, save

from deepinv_lvtino.datasets import procedural_clip, write_video

SIZES = ("17x192x320", "25x384x640", "25x768x1280")
PROBLEM, RATE = "B", 24

#: What a process that has everything loaded holds before it works.
IDLE = """
import deepinv_lvtino.cli
from deepinv_lvtino.models import tiny_image, tiny_video
models = tiny_video(), tiny_image()
"""

EVALUATE = """
import sys, time, torch
from deepinv_lvtino._allocator import keep_freed_memory
from deepinv_lvtino.models import tiny_network, tiny_video
if sys.argv[1] != "before":
    keep_freed_memory()
if sys.argv[1] != "pieces":
    tiny_network.PIECE = sys.maxsize
size = tuple(map(int, sys.argv[2].split("x")))
denoise = tiny_video().as_denoiser()
x = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
with torch.no_grad():
    start = time.perf_counter()
    denoise(x, 0.1)
    print(time.perf_counter() - start)
"""


def run(command: list[str]) -> tuple[str, float, float, float]:
    r"""What it prints, seconds, processor seconds and peak resident bytes."""
    start = time.monotonic()
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, stdout=out)
        _, status, usage = os.wait4(process.pid, 0)
        if status != 0:
            msg = f"{command} ended with status {status}"
            raise RuntimeError(msg)
        seconds = time.monotonic() - start
        out.seek(0)
        spent = usage.ru_utime + usage.ru_stime
        return out.read(), seconds, spent, 1024 * usage.ru_maxrss


def restore(size: str, idle: float) -> Row:
    r"""One restoration of a clip of this size."""
    frames, height, width = (int(n) for n in size.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "y.mkv", Path(folder) / "x.mp4"
        # of random scenes; B's measurement has as many frames, 8 times smaller
        clip = procedural_clip(frames, height // 8, width // 8)
        write_video(source, clip, RATE, lossless=True)
        command = [sys.executable, "-m", "deepinv_lvtino", "restore", str(source)]
        options = ["-o", str(output), "--problem", PROBLEM, "--device", "cpu"]
        said, seconds, spent, peak = run([*command, *options])
    found = re.search(r"memory: about ([\d.e+]+) GB", said)
    assert found is not None
    foreseen = float(found[1])
    time_said = re.search(r"time: about (.+)", said)
    return {
        "size": size,
        "foreseen (GB)": foreseen,
        "measured (GB)": (peak - idle) / 1e9,
        "error (%)": 100 * (foreseen / ((peak - idle) / 1e9) - 1),
        "peak of the process (GB)": peak / 1e9,
        "foreseen time": time_said[1] if time_said else "",
        "seconds": seconds,
        "processor seconds": spent,
    }


def evaluate(size: str, idle: float) -> list[Row]:
    r"""The video network, in pieces and all at once."""
    rows = []
    for how in ("pieces", "whole", "before"):
        said, _, _, peak = run([sys.executable, "-c", EVALUATE, how, size])
        rows.append(
            {"evaluation": how, "size": size, "seconds": float(said)}
            | {"peak less idle (GB)": (peak - idle) / 1e9}
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().split("\n\n")[0])
    parser.add_argument("--sizes", nargs="+", default=SIZES)
    parser.add_argument("--pieces", action="store_true")
    parser.add_argument("--quick", action="store_true", help="a small size, not saved")
    arguments = parser.parse_args()
    sizes = ["9x64x96"] if arguments.quick else arguments.sizes
    idle = run([sys.executable, "-c", IDLE])[3]
    print(f"idle: {idle / 1e9:.2f} GB", flush=True)
    result: dict[str, Any] = {"benchmark": "memory of restorations"}
    result |= provenance(torch.device("cpu")) | {"idle (GB)": idle / 1e9}
    if arguments.pieces:
        result["network"] = evaluate(sizes[-1], idle)
    rows = []
    for size in sizes:
        rows.append(restore(size, idle))
        print(rows[-1], flush=True)
        if not arguments.quick:
            write_csv(rows, RESULTS / "memory-cpu.csv")
            save("memory-cpu", result | {"rows": rows})


if __name__ == "__main__":
    main()
