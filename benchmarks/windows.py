r"""
Windows of time against the whole clip: quality, seams, latency and frames a second.

Problems A and B (a border of time that replicates) at noise 0.001 with the embedded models
and one sample, whole and by windows of 17 frames that overlap by 4. Frame-difference errors
are those of pairs of frames across which one window hands over to the next, and of all
others. The windows are causal: latency is the time to the first frames. Usage::

    python benchmarks/windows.py [--clip FILE] [--frames 41] [--quick]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from embedded_models import RESULTS, Row, write_csv
from measure import load_clip, provenance, save
from torch import Tensor

from deepinv_lvtino import LVTINO, Schedule, make_problem
from deepinv_lvtino.optim import Windowed
from deepinv_lvtino.optim.long import temporal_matrix
from deepinv_lvtino.optim.windowed import plan

WINDOW, OVERLAP = 17, 4


def psnr(u: Tensor, x: Tensor) -> float:
    return float(-10 * (u.clamp(0, 1) - x).square().mean().log10())


def compare(x: Tensor) -> list[Row]:
    rows: list[Row] = []
    for problem in "AB":
        rng = torch.Generator().manual_seed(2**31)
        physics = make_problem(
            problem, tuple(x.shape[1:]), 0.001, time_border="replicate", rng=rng
        )
        y = physics(x)
        solver = LVTINO(schedule=Schedule.embedded(problem), seed=0)
        windows = plan(temporal_matrix(physics, y.shape[2]), WINDOW, OVERLAP)
        seams = torch.zeros(x.shape[2] - 1, dtype=torch.bool)
        for window in windows[1:]:  # over the overlap and into it
            seams[window.start - 1 : window.start + window.known] = True
        for name in ("whole", "windows"):
            start = time.perf_counter()
            latency = None
            if name == "whole":
                u = solver(y, physics)
            else:
                pieces = []
                for piece in Windowed(solver, WINDOW, OVERLAP).stream(y, physics):
                    latency = latency or time.perf_counter() - start
                    pieces.append(piece)
                u = torch.cat(pieces, dim=2)
            seconds = time.perf_counter() - start
            error = (u - x).diff(dim=2).square().mean(dim=(0, 1, 3, 4)).sqrt() * 100
            rows.append(
                {
                    "problem": problem,
                    "result": name,
                    "PSNR (dB)": psnr(u, x),
                    "frame-difference error at seams (%)": float(error[seams].mean()),
                    "elsewhere (%)": float(error[~seams].mean()),
                    "seconds": seconds,
                    "latency (s)": latency or seconds,
                    "frames a second": x.shape[2] / seconds,
                }
            )
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().split("\n\n")[0])
    parser.add_argument("--clip", help="a video of your own; a computed one by default")
    parser.add_argument("--frames", type=int, default=41)
    parser.add_argument("--quick", action="store_true", help="a small size, not saved")
    arguments = parser.parse_args()
    size = (96, 160) if arguments.quick else (192, 320)
    rows = compare(load_clip(arguments.clip, (arguments.frames, *size)))
    if not arguments.quick:
        name = "procedural" if arguments.clip is None else Path(arguments.clip).stem
        write_csv(rows, RESULTS / f"windows-{name}-cpu.csv")
        save(
            f"windows-{name}-cpu",
            {
                "benchmark": f"windows of {WINDOW} frames, overlap {OVERLAP}, clip {name}",
                **provenance(torch.device("cpu")),
                "rows": rows,
            },
        )


if __name__ == "__main__":
    main()
