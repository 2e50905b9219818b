r"""
Grid search behind ``Schedule.embedded``: first and last step, sweeps, weight, start.

For every setting and problem, on held-out computed clips (dead leaves of a seed that no
training saw, and the procedural clip) and on the clips that are given: PSNR of one sample
and of the mean of eight, HaarPSI and frame-difference error of one sample, the same for
tuned total variation and for the start, which follows the motion. Two samples tell the
mean squared error of a mean of eight: error of the mean of infinitely many plus an eighth
of the variance. The criterion is the mean, over the clips, of the PSNR of the mean of
eight; of the settings within 0.02 dB of the best, the one with the highest PSNR of a
sample. Clips that results are reported on have no part in it. Usage::

    python benchmarks/tune.py [PROBLEM ...] [--clips FILE ...] [--quick]
"""

from __future__ import annotations

import argparse
import itertools
import math
from pathlib import Path
from typing import Any

import torch
from deepinv.loss.metric import HaarPSI
from measure import load_clip, provenance, save
from torch import Tensor

from deepinv_lvtino import LVTINO, Schedule, make_problem
from deepinv_lvtino.datasets import dead_leaves_clip, procedural_clip
from deepinv_lvtino.models import tiny_image, tiny_video
from deepinv_lvtino.optim import ADMMTV, STARTS
from deepinv_lvtino.optim.baselines import TV_SETTINGS

HELD_OUT = 977  # seed of the dead leaves
SIZE = (13, 96, 160)

#: Relative noise levels of the video model in the first and the last sweep, and sweeps.
LEVELS = ((0.1, 0.05, 2), (0.2, 0.05, 3), (0.4, 0.05, 4), (0.6, 0.1, 4), (1.0, 0.1, 5))
ETAS = (0.9,)
START = "motion"


def clips(size: tuple[int, int, int], files: list[str]) -> list[Tensor]:
    leaves = [dead_leaves_clip(i, *size, seed=HELD_OUT)[None] for i in range(2)]
    own = [_middle(file, size) for file in files]
    return [*leaves, procedural_clip(*size, seed=HELD_OUT)[None], *own]


def _middle(file: str, size: tuple[int, int, int]) -> Tensor:
    """Middle of a clip at twice the size: motion and detail of a whole one."""
    frames, height, width = size
    x = load_clip(file, (frames, 2 * height, 2 * width))
    return x[..., height // 2 : -height // 2, width // 2 : -width // 2].contiguous()


def decibel(error: float) -> float:
    return -10 * math.log10(max(error, 1e-12))


def quality(u: Tensor, x: Tensor) -> dict[str, float]:
    u = u.clamp(0, 1)
    frames, truth = u[0].transpose(0, 1), x[0].transpose(0, 1)
    return {
        "HaarPSI": float(HaarPSI(norm_inputs=None)(frames, truth).mean()),
        "frame-difference error (%)": 100
        * float((u - x).diff(dim=2).square().mean().sqrt()),
    }


def deltas(first: float, last: float, count: int, eta: float) -> list[float]:
    r"""Steps whose video half has these relative noise levels."""
    levels = [first * (last / first) ** (k / (count - 1)) for k in range(count)]
    return [level**2 / 8 / eta for level in levels]


def average(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}


def tune(problem: str, videos: list[Tensor]) -> list[dict[str, Any]]:
    video, image = tiny_video(), tiny_image()
    cases = []
    for x in videos:
        rng = torch.Generator().manual_seed(1)
        physics = make_problem(problem, tuple(x.shape[1:]), rng=rng)
        y = physics(x)
        cases.append((x, y, physics, STARTS[START](y, physics)))
    rows = []
    for name in ("total variation", "start"):
        found = []
        for x, y, physics, start in cases:
            u = start
            if name != "start":
                u = ADMMTV(problem if problem in TV_SETTINGS else "A")(y, physics)
            error = float((u.clamp(0, 1) - x).square().mean())
            found.append({"PSNR (dB)": decibel(error), **quality(u, x)})
        rows.append({"setting": name, **average(found)})
        print(rows[-1], flush=True)
    for (first, last, count), eta in itertools.product(LEVELS, ETAS):
        schedule = Schedule.calibrated(deltas(first, last, count, eta), eta)
        found = []
        for x, y, physics, start in cases:
            solver = LVTINO(video, image, schedule=schedule, seed=0)
            samples: list[Tensor] = []
            solver.sample(
                y,
                physics,
                2,
                init=start,
                callback=lambda _, u, kept=samples: kept.append(u),
            )
            a, b = (u.clamp(0, 1) for u in samples)
            variance = float((a - b).square().mean()) / 2
            error = float(((a - x).square() + (b - x).square()).mean()) / 2
            found.append(
                {
                    "PSNR (dB), sample": decibel(error),
                    "PSNR (dB), mean of 8": decibel(error - variance * 7 / 8),
                    **quality(a, x),
                }
            )
        rows.append(
            {
                "setting": f"levels {first:g} to {last:g} in {count}, eta {eta:g}",
                "delta": deltas(first, last, count, eta),
                **average(found),
            }
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().split("\n\n")[0])
    parser.add_argument("problems", nargs="*", default=["A", "B", "C"])
    parser.add_argument("--clips", nargs="+", default=[], help="videos of your own")
    parser.add_argument("--quick", action="store_true", help="a small size, not saved")
    arguments = parser.parse_args()
    size = (5, 48, 64) if arguments.quick else SIZE
    videos = clips(size, arguments.clips)
    tables = {problem: tune(problem, videos) for problem in arguments.problems}
    if not arguments.quick:
        for problem, rows in tables.items():
            save(
                f"tune-{problem}-cpu",
                {
                    "benchmark": f"settings of the embedded models, problem {problem}",
                    **provenance(torch.device("cpu")),
                    "clips": [Path(file).stem for file in arguments.clips],
                    "rows": rows,
                },
            )


if __name__ == "__main__":
    main()
