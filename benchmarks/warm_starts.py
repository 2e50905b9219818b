r"""
What a warm start is worth: quality against the number of sweeps, problem C.

For every named start, and the last 1, 2, 3, 4 and 6 of six falling steps: PSNR of the
start, of one sample and of the mean of four, and the time that they take. Without a clip,
on the procedural one. Usage::

    python benchmarks/warm_starts.py [--clip FOLDER_OR_FILE] [--device cuda] [--quick]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from deepinv.loss.metric import PSNR
from measure import RESULTS, load_clip, provenance, save, timed
from torch import Tensor

from deepinv_lvtino import LVTINO, Schedule, make_problem
from deepinv_lvtino.optim import STARTS

#: Steps from a relative noise level of the video model of 2 down to 0.05.
DELTA = [0.55 * 0.229**k for k in range(6)]
ETA = 0.9
SWEEPS = (1, 2, 3, 4, 6)
SAMPLES = 4
SIZE = (25, 96, 160)
COLUMNS = (
    ("start", "{}"),
    ("sweeps", "{}"),
    ("PSNR of the start, dB", "{:.2f}"),
    ("PSNR of a sample, dB", "{:.2f}"),
    (f"PSNR of the mean of {SAMPLES}, dB", "{:.2f}"),
    ("seconds of the start", "{:.2f}"),
    ("seconds of a sample", "{:.2f}"),
)


def shortened(sweeps: int) -> Schedule:
    r"""The last steps alone: less noise, fewer sweeps."""
    return Schedule.calibrated(DELTA[-sweeps:], ETA)


def compare(x: Tensor) -> list[dict[str, Any]]:
    device = x.device
    rng = torch.Generator(device).manual_seed(0)
    physics = make_problem("C", tuple(x.shape[1:]), rng=rng, device=device)
    y = physics(x)
    psnr = PSNR()
    rows = []
    for name, function in STARTS.items():
        start, start_seconds = timed(lambda f=function: f(y, physics), device)
        for sweeps in SWEEPS:
            solver = LVTINO(schedule=shortened(sweeps), seed=0).to(device)
            samples: list[Tensor] = []
            (mean, _), seconds = timed(
                lambda solver=solver, start=start, samples=samples: solver.sample(
                    y,
                    physics,
                    SAMPLES,
                    init=start,
                    callback=lambda _, u: samples.append(u),
                ),
                device,
            )
            values = (
                name,
                sweeps,
                float(psnr(start, x)),
                float(psnr(samples[0], x)),
                float(psnr(mean, x)),
                start_seconds,
                seconds / SAMPLES,
            )
            names = [column for column, _ in COLUMNS]
            rows.append(dict(zip(names, values, strict=True)))
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| " + " | ".join(name for name, _ in COLUMNS) + " |",
        "| --- |" + " ---: |" * (len(COLUMNS) - 1),
    ]
    for row in rows:
        cells = (form.format(row[name]) for name, form in COLUMNS)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    r"""PSNR against the number of sweeps, one colour per start."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    (start, _), (sample, _), (mean, _) = COLUMNS[2:5]
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for i, name in enumerate(STARTS):
        own = [row for row in rows if row["start"] == name]
        sweeps = [row["sweeps"] for row in own]
        first = own[0][start]
        axes.plot(
            [0, *sweeps],
            [first, *(row[mean] for row in own)],
            "o-",
            color=f"C{i}",
            label=name,
        )
        axes.plot(
            [0, *sweeps],
            [first, *(row[sample] for row in own)],
            ".--",
            color=f"C{i}",
            linewidth=1,
        )
    # A start that says little (from black) would flatten all the others.
    low = min(min(row[sample], row[mean]) for row in rows)
    high = max(max(row[start], row[mean]) for row in rows)
    axes.set_ylim(low - 1, high + 0.5)
    axes.set_xticks([0, *SWEEPS])
    axes.set_xlabel("sweeps (0: the start itself)")
    axes.set_ylabel("PSNR (dB)")
    axes.set_title(f"Problem C: mean of {SAMPLES} samples (full), one sample (dashed)")
    axes.grid(alpha=0.3)
    figure.legend(title="init", loc="outside right upper")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().split("\n\n")[0])
    parser.add_argument(
        "--clip", help="video or folder of frames; procedural if missing"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="a small size, not saved")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    size = (9, 64, 96) if arguments.quick else SIZE
    x = load_clip(arguments.clip, size).to(device)
    rows = compare(x)
    print(markdown(rows))
    clip = "procedural" if arguments.clip is None else Path(arguments.clip).stem
    name = f"warm_starts-{clip}-{device.type}"
    if arguments.quick:
        path = Path(tempfile.mkdtemp()) / f"{name}.png"
    else:
        frames = "x".join(map(str, x.shape[2:]))
        save(
            name,
            {
                "benchmark": f"problem C, {clip} clip, {frames}, "
                + f"last steps of {', '.join(f'{step:.2g}' for step in DELTA)}",
                **provenance(device),
                "rows": rows,
            },
        )
        path = RESULTS / f"{name}.png"
    draw(rows, path)
    print(f"figure: {path}")


if __name__ == "__main__":
    main()
