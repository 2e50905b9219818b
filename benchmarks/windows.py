r"""
Windows of time against the whole clip: quality, seams, latency and frames a second.

Problems A and B (a border of time that replicates) at noise 0.001 with the embedded models
and one sample, whole and by windows of 17 frames that overlap by 4. Frame-difference errors
are those of pairs of frames across which one window hands over to the next, and of all
others. Windows are causal, and latency is the time to the first frames; or they go in
both directions, and all frames are there at the end. A figure shows the errors over time.
Usage::

    python benchmarks/windows.py [--clip FILE] [--frames 41] [--quick]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from embedded_models import RESULTS, Row, write_csv
from measure import load_clip, provenance, save
from torch import Tensor

from deepinv_lvtino import LVTINO, Schedule, make_problem
from deepinv_lvtino.optim import Windowed
from deepinv_lvtino.optim.long import temporal_matrix
from deepinv_lvtino.optim.windows import plan

WINDOW, OVERLAP = 17, 4


def psnr(u: Tensor, x: Tensor) -> float:
    return float(-10 * (u.clamp(0, 1) - x).square().mean().log10())


def compare(x: Tensor) -> tuple[list[Row], dict[str, dict[str, Any]]]:
    rows: list[Row] = []
    curves: dict[str, dict[str, Any]] = {}
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
        curves[problem] = {"seams": seams.tolist()}
        for name in ("whole", "windows", "windows, both directions"):
            start = time.perf_counter()
            latency = None
            if name == "whole":
                u = solver(y, physics)
            elif name == "windows":
                pieces = []
                for piece in Windowed(solver, WINDOW, OVERLAP).stream(y, physics):
                    latency = latency or time.perf_counter() - start
                    pieces.append(piece)
                u = torch.cat(pieces, dim=2)
            else:
                u = Windowed(solver, WINDOW, OVERLAP, order="both")(y, physics)
            seconds = time.perf_counter() - start
            error = (u - x).diff(dim=2).square().mean(dim=(0, 1, 3, 4)).sqrt() * 100
            curves[problem][name] = [round(value, 3) for value in error.tolist()]
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
    return rows, curves


def draw(curves: dict[str, dict[str, Any]], path: Path) -> None:
    """Frame-difference error over time, the seams marked."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(curves), 1, figsize=(7, 4.6), sharex=True)
    for axis, (problem, lines) in zip(axes, curves.items(), strict=True):
        for number, seam in enumerate(lines["seams"]):
            if seam:
                axis.axvspan(number + 0.5, number + 1.5, color="0.88", lw=0)
        for name, values in lines.items():
            if name != "seams":
                times = range(1, len(values) + 1)
                axis.plot(times, values, label=name, lw=1.3)
        axis.set_ylabel("error (%)")
        axis.set_title(f"problem {problem}", fontsize=10)
    axes[-1].set_xlabel("frame (difference with the one before); grey: seams")
    axes[0].legend(fontsize=8, ncols=3)
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().split("\n\n")[0])
    parser.add_argument("--clip", help="a video of your own; a computed one by default")
    parser.add_argument("--frames", type=int, default=41)
    parser.add_argument("--quick", action="store_true", help="a small size, not saved")
    arguments = parser.parse_args()
    size = (96, 160) if arguments.quick else (192, 320)
    rows, curves = compare(load_clip(arguments.clip, (arguments.frames, *size)))
    if not arguments.quick:
        name = "procedural" if arguments.clip is None else Path(arguments.clip).stem
        write_csv(rows, RESULTS / f"windows-{name}-cpu.csv")
        save(
            f"windows-{name}-cpu",
            {
                "benchmark": f"windows of {WINDOW} frames, overlap {OVERLAP}, clip {name}",
                **provenance(torch.device("cpu")),
                "rows": rows,
                "frame-difference errors (%)": curves,
            },
        )
        draw(curves, RESULTS / f"windows-{name}-cpu.png")


if __name__ == "__main__":
    main()
