r"""
Chambolle-Pock against Adam in the first data step of problem B.

With total variation over time alone and over space and time, both solvers take up to 100
steps from the same point, the video model's output in the middle of a run. The optimum,
with a certified gap, comes from the exact ADMM over time, and from a long run of
Chambolle-Pock over space and time. Also the PSNR of a whole LVTINO run with 100 steps of
each in every data step. Usage::

    python benchmarks/data_step_solvers.py [--clip FOLDER_OR_FILE] [--quick]
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from measure import RESULTS, load_clip, provenance, save, synchronize
from torch import Tensor

from deepinv_lvtino import LVTINO, Schedule, make_problem
from deepinv_lvtino.models import tiny_video
from deepinv_lvtino.optim import TVOptions, TVProblem, TVResult, solve_l2_tv
from deepinv_lvtino.optim.tv.prox import as_variation

STEPS = (5, 10, 20, 50, 100)
KINDS = {"temporal": "time", "spacetime": "space and time"}
SOLVERS = {"chambolle_pock": "Chambolle-Pock", "adam": "Adam"}
STEPSIZE, SIGMA, LAMBDA = 0.03, 0.001, 5.0
SIZE = (25, 96, 160)


def psnr(u: Tensor, x: Tensor) -> float:
    return -10 * math.log10(float((u.clamp(0, 1) - x).square().mean()))


def compare(x: Tensor, long_run: int) -> list[dict[str, Any]]:
    device = x.device
    rng = torch.Generator(device).manual_seed(0)
    physics = make_problem("B", tuple(x.shape[1:]), sigma=SIGMA, rng=rng, device=device)
    y = physics(x)
    model = tiny_video().to(device)
    z = model.sae(physics.A_dagger(y), 250.0, generator=rng)
    gamma, lam = STEPSIZE / SIGMA**2, STEPSIZE * LAMBDA

    def objective(u: Tensor, kind: str) -> float:
        data = gamma / 2 * (physics.A(u) - y).square().sum()
        near = (u - z).square().sum() / 2
        return float(data + near + lam * as_variation("kind", kind)(u).sum())

    def solve(kind: str, solver: str, steps: int, tol: float = 1e-12) -> TVResult:
        return solve_l2_tv(
            TVProblem(z, y, physics, gamma, lam, as_variation("kind", kind)),
            TVOptions(solver, tol=tol, max_iter=steps),
        )

    rows = []
    for kind in KINDS:
        exact = "admm" if kind == "temporal" else "chambolle_pock"
        best = solve(kind, exact, long_run, tol=1e-6)
        optimum = objective(best.video, kind)
        for solver in SOLVERS:
            for steps in STEPS:
                synchronize(device)
                start = time.perf_counter()
                result = solve(kind, solver, steps)
                synchronize(device)
                rows.append(
                    {
                        "variation over": KINDS[kind],
                        "solver": SOLVERS[solver],
                        "steps": steps,
                        "seconds": time.perf_counter() - start,
                        "relative excess of the objective": (
                            objective(result.video, kind) / optimum - 1
                        ),
                        "certified gap of the optimum": best.gap,
                        "PSNR of the step (dB)": psnr(result.video, x),
                        "PSNR of the optimum (dB)": psnr(best.video, x),
                    }
                )
                print(rows[-1], flush=True)
    return rows


def whole_runs(x: Tensor) -> list[dict[str, Any]]:
    device = x.device
    rng = torch.Generator(device).manual_seed(0)
    physics = make_problem("B", tuple(x.shape[1:]), sigma=SIGMA, rng=rng, device=device)
    y = physics(x)
    rows = []
    for kind in (None, *KINDS):
        for solver in SOLVERS if kind else (None,):
            lvtino = LVTINO(
                schedule=Schedule.embedded("B"),
                tv=kind,
                lambda_reg=LAMBDA,
                tv_options={"solver": solver, "max_iter": 100, "tol": 1e-3}
                if kind
                else None,
                seed=0,
            ).to(device)
            synchronize(device)
            start = time.perf_counter()
            u = lvtino(y, physics)
            synchronize(device)
            rows.append(
                {
                    "variation over": KINDS[kind] if kind else "none",
                    "solver": SOLVERS[solver] if solver else "closed form",
                    "seconds": time.perf_counter() - start,
                    "PSNR of a sample (dB)": psnr(u, x),
                }
            )
            print(rows[-1], flush=True)
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "| --- " * len(names) + "|"]
    for row in rows:
        cells = (
            f"{row[n]:.3g}" if isinstance(row[n], float) else str(row[n]) for n in names
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    r"""Excess of the objective against the number of steps."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.5, 4), layout="constrained")
    for i, kind in enumerate(KINDS.values()):
        for solver, style in zip(SOLVERS.values(), ("o-", "s--"), strict=True):
            own = [
                row
                for row in rows
                if row["variation over"] == kind and row["solver"] == solver
            ]
            axes.loglog(
                [row["steps"] for row in own],
                [max(row["relative excess of the objective"], 1e-7) for row in own],
                style,
                color=f"C{i}",
                label=f"{solver}, variation over {kind}",
            )
    axes.set_xlabel("steps")
    axes.set_ylabel("relative excess of the objective")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().split("\n\n")[0])
    parser.add_argument("--clip", help="video or folder of frames; procedural if none")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="a small size, not saved")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    x = load_clip(arguments.clip, (9, 48, 64) if arguments.quick else SIZE).to(device)
    with warnings.catch_warnings():  # that 100 steps do not suffice is what is measured
        warnings.filterwarnings("ignore", message="prox_l2_tv stopped")
        steps = compare(x, 200 if arguments.quick else 1000)
        runs = whole_runs(x)
    print(markdown(steps))
    print(markdown(runs))
    clip = "procedural" if arguments.clip is None else Path(arguments.clip).stem
    name = f"data_step_solvers-{clip}-{device.type}"
    folder = Path(tempfile.mkdtemp()) if arguments.quick else RESULTS
    draw(steps, folder / f"{name}.png")
    if not arguments.quick:
        save(
            name,
            {
                "benchmark": f"problem B, {clip} clip, "
                + "x".join(map(str, x.shape[2:]))
                + f", gamma {STEPSIZE / SIGMA**2:g}, lambda {STEPSIZE * LAMBDA:g}",
                **provenance(device),
                "steps": steps,
                "runs": runs,
            },
        )
    print(f"figure: {folder / name}.png")


if __name__ == "__main__":
    main()
