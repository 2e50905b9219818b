r"""
Forty small clips: one process, two workers of Ray, and two of which one is killed.

``deepinv-lvtino restore-many`` on clips that this script computes, one thread for every
process: seconds of each, whether all files are the same bit for bit, and whether a run one
of whose workers is killed in the middle (SIGKILL) ends with all of them. Usage::

    python benchmarks/cluster.py [--clips 40] [--frames 5] [--workers 2] [--quick]
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from measure import provenance, save

from deepinv_lvtino.datasets import procedural_clip, write_video

PROBLEM, HEIGHT, WIDTH, RATE = "sr4", 24, 32, 24
NAME = "ray::_Worker"  # of the processes of Ray that restore


def command(source: Path, output: Path, workers: int | None) -> list[str]:
    program = [sys.executable, "-m", "deepinv_lvtino", "restore-many", str(source)]
    options = ["--problem", PROBLEM, "--device", "cpu", "--threads", "1"]
    spread = [] if workers is None else ["--workers", str(workers)]
    return [*program, "-o", str(output), *options, *spread]


def restored(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(output.glob("*.mp4"))}


def workers_running() -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words and words[0].decode(errors="replace").startswith(NAME):
            found.append(int(folder.name))
    return found


def killed_in_the_middle(
    source: Path, output: Path, workers: int, count: int
) -> dict[str, Any]:
    r"""A run one of whose workers is killed when a third of the clips is there."""
    start = time.perf_counter()
    killed = None
    with subprocess.Popen(
        command(source, output, workers), stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        for number, _ in enumerate(run.stdout, 1):
            if killed is None and number >= count // 3:
                killed = workers_running()[0]
                os.kill(killed, signal.SIGKILL)
    seconds = time.perf_counter() - start
    return {"exit code": run.returncode, "killed": killed is not None, "s": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description="Many clips on Ray.")
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--frames", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="six clips, not saved")
    options = parser.parse_args()
    count = 6 if options.quick else options.clips
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "in"
        source.mkdir()
        for k in range(count):
            clip = procedural_clip(options.frames, HEIGHT, WIDTH, seed=k)
            write_video(source / f"clip{k:02}.mkv", clip, RATE, lossless=True)
        seconds, files = {}, {}
        for name, workers in (("one process", None), ("workers", options.workers)):
            output = Path(folder) / name
            start = time.perf_counter()
            subprocess.run(
                command(source, output, workers), check=True, stdout=subprocess.DEVNULL
            )
            seconds[name] = time.perf_counter() - start
            files[name] = restored(output)
        output = Path(folder) / "killed"
        lost = killed_in_the_middle(source, output, options.workers, count)
        files["killed"] = restored(output)
    results = {
        "benchmark": "restore-many: one process against workers of Ray",
        **provenance(torch.device("cpu")),
        "settings": vars(options),
        "clips": count,
        "seconds": seconds,
        "times faster": seconds["one process"] / seconds["workers"],
        "same bit for bit": files["one process"] == files["workers"],
        "one worker killed": {
            **lost,
            "all there, same bit for bit": files["killed"] == files["one process"],
        },
    }
    if options.quick:
        print(results)
        return
    save("cluster-cpu", results)


if __name__ == "__main__":
    main()
