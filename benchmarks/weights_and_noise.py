r"""
The question that the LVTINO paper leaves open: what do the weight of the two priors, the
variation and the noise level do to each other?

Problem A, embedded models, start along the motion. Weight of the video prior ``eta``, total
variation in the data step (none, space and time, along the motion) with two weights, noise
of three levels: scores of one sample and of the mean of eight (told by two samples, as
:mod:`deepinv_lvtino.tuning` does), for every clip; and a picture: the error of one frame
for some of the settings. Usage::

    python benchmarks/weights_and_noise.py [--clip FOLDER_OR_FILE] [--quick]
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import matplotlib
import torch
from embedded_models import Row, scores, write_csv
from measure import RESULTS, load_clip, provenance, save
from torch import Tensor

from deepinv_lvtino import LVTINO, Schedule, make_problem
from deepinv_lvtino.datasets import dead_leaves_clip, procedural_clip
from deepinv_lvtino.optim import motion_start

matplotlib.use("Agg")
SIZE, QUICK, HELD_OUT, CPU = (13, 96, 144), (5, 32, 48), 977, torch.device("cpu")
ETAS = (0.0, 0.3, 0.6, 0.9, 1.0)
NOISES = (0.001, 0.01, 0.05)
#: Variation of the data step, and its weight.
VARIATIONS = (
    (None, 0.0),
    ("spacetime", 1.0),
    ("spacetime", 5.0),
    ("motion", 1.0),
    ("motion", 5.0),
)


def settings(x: Tensor, sigma: float) -> tuple[list[Row], dict[str, Tensor]]:
    r"""All weights and variations at one noise level; and samples by their name."""
    rng = torch.Generator().manual_seed(1)
    physics = make_problem("A", tuple(x.shape[1:]), sigma, rng=rng)
    y = physics(x)
    with torch.no_grad():
        start = motion_start(y, physics)
    samples = {"start": start}
    rows: list[Row] = [
        {
            "result": "start",
            "variation": "",
            "eta": "",
            **scores(start, x),
            "PSNR (dB), mean of 8": "",
        }
    ]
    for kind, weight in VARIATIONS:
        for eta in ETAS:
            solver = LVTINO(
                schedule=Schedule.embedded("A", eta),
                tv=kind,
                **({"lambda_reg": weight} if kind else {}),
                seed=0,
            )
            drawn: list[Tensor] = []
            with torch.no_grad():
                solver.sample(
                    y,
                    physics,
                    2,
                    init=start,
                    callback=lambda _, u, kept=drawn: kept.append(u.clamp(0, 1)),
                )
            error = float(torch.stack(drawn).sub(x).square().mean())
            variance = float((drawn[0] - drawn[1]).square().mean()) / 2
            name = f"{kind}, {weight:g}" if kind else "none"
            rows.append(
                {
                    "result": "sample",
                    "variation": name,
                    "eta": eta,
                    **scores(drawn[0], x),
                    "PSNR (dB), mean of 8": -10 * math.log10(error - variance * 7 / 8),
                }
            )
            samples[f"{name}, eta {eta:g}"] = drawn[0]
            print(f"{sigma:g}", rows[-1], flush=True)
    return rows, samples


def draw(maps: dict[float, dict[str, Tensor]], x: Tensor, path: Path) -> None:
    r"""Absolute error of the middle frame, noise by noise, some of the settings."""
    import matplotlib.pyplot as plt

    shown = ["start", *(f"none, eta {eta:g}" for eta in (0.0, 0.6, 1.0))]
    shown += [f"{kind}, {w:g}, eta 0.6" for kind, w in VARIATIONS if kind and w == 5]
    figure, grid = plt.subplots(
        len(maps),
        len(shown),
        figsize=(2.2 * len(shown), 1.7 * len(maps)),
        squeeze=False,
    )
    middle = x.shape[2] // 2
    for line, (sigma, samples) in zip(grid, maps.items(), strict=True):
        for axes, name in zip(line, shown, strict=True):
            error = (samples[name] - x)[0, :, middle].abs().mean(0)
            axes.imshow(error, cmap="magma", vmin=0, vmax=0.15)
            axes.set_xticks([])
            axes.set_yticks([])
            if axes in grid[0]:
                axes.set_title(name.replace(", eta", "\n$\\eta$ ="), fontsize=8)
        line[0].set_ylabel(f"noise {sigma:g}", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def summary(rows: list[Row]) -> list[Row]:
    r"""For each clip, noise and variation: the best weight, and what it is worth."""
    lines = []
    places = {(row["clip"], row["noise"]): None for row in rows}
    for clip, noise in places:
        here = [row for row in rows if (row["clip"], row["noise"]) == (clip, noise)]
        start = next(row for row in here if row["result"] == "start")
        for name in dict.fromkeys(row.get("variation") for row in here):
            if not name:
                continue
            some = [row for row in here if row.get("variation") == name]
            mean = max(some, key=lambda row: row["PSNR (dB), mean of 8"])
            one = max(some, key=lambda row: row["HaarPSI"])
            calm = min(some, key=lambda row: row["frame-difference error (%)"])
            lines.append(
                {
                    "clip": clip,
                    "noise": noise,
                    "variation": name,
                    "start (dB)": start["PSNR (dB)"],
                    "best mean of 8 (dB)": mean["PSNR (dB), mean of 8"],
                    "at eta": mean["eta"],
                    "best HaarPSI of a sample": one["HaarPSI"],
                    "at eta ": one["eta"],
                    "least frame-difference error (%)": calm[
                        "frame-difference error (%)"
                    ],
                    "at eta  ": calm["eta"],
                }
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().split("\n\n")[0])
    parser.add_argument("--clip", help="a real clip: video or folder of frames")
    parser.add_argument("--quick", action="store_true", help="a small size, not saved")
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else SIZE
    clips = {
        "procedural": procedural_clip(*size, seed=HELD_OUT)[None],
        "dead leaves": dead_leaves_clip(0, *size, seed=HELD_OUT)[None],
    }
    if arguments.clip is not None:
        clips = {Path(arguments.clip).stem: load_clip(arguments.clip, size), **clips}
    rows: list[Row] = []
    for name, x in clips.items():
        maps = {}
        for sigma in NOISES:
            found, maps[sigma] = settings(x, sigma)
            rows += [{"clip": name, "noise": sigma, **row} for row in found]
        if name == "procedural" and not arguments.quick:
            draw(maps, x, RESULTS / "weights_and_noise-procedural-cpu.png")
    if not arguments.quick:
        write_csv(rows, RESULTS / "weights_and_noise-cpu.csv")
        write_csv(summary(rows), RESULTS / "weights_and_noise-best-cpu.csv")
        result = {"benchmark": "weights of priors, variation and noise, 13x96x144"}
        save("weights_and_noise-cpu", {**result, **provenance(CPU), "rows": rows})
    else:
        print(summary(rows))


if __name__ == "__main__":
    main()
