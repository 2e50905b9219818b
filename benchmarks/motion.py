r"""
What following the motion is worth: total variation along the flow against variation that
stands still, and the sampler that starts from either.

Four parts: ``variation`` (problems A, B and C: static variation, along the estimated flow,
along the flow of the true clip, which nobody has), ``sampler`` (embedded models, one sample
and the mean of eight), ``robust`` (clips with nothing to follow, and a wrong flow),
``cost`` (seconds and memory of the start at 25x768x1280). On the procedural clip, or on
those that are given. Usage::

    python benchmarks/motion.py [PART ...] [--clip FOLDER_OR_FILE ...] [--quick]
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import torch
from embedded_models import Row, scores, write_csv
from measure import RESULTS, Peak, load_clip, provenance, save, timed
from torch import Tensor

from deepinv_lvtino import LVTINO, Schedule, make_problem
from deepinv_lvtino._allocator import keep_freed_memory
from deepinv_lvtino.flow import optical_flow
from deepinv_lvtino.optim import (
    ADMMTV,
    MotionTV,
    motion_start,
    pseudo_inverse,
    video_motion,
)
from deepinv_lvtino.optim.baselines import TV_SETTINGS

SIZE, LARGE, QUICK = (25, 192, 320), (25, 768, 1280), (9, 48, 80)
SAMPLES = 8
STATIC = "static, tuned on the street clip"
PROBLEMS = ["A", "B", "C"]
TV_OPTIONS = {"tol": 1e-2}  # 1e-3 moves the PSNR by less than 0.001 dB


def measurement(problem: str, x: Tensor, sigma: float = 0.001):  # noqa: ANN201
    rng = torch.Generator().manual_seed(2**32)
    physics = make_problem(problem, tuple(x.shape[1:]), sigma, rng=rng)
    return physics(x), physics


def variation(x: Tensor) -> list[Row]:
    r"""Variation alone."""
    solvers = {
        "pseudo-inverse": lambda problem: pseudo_inverse,
        STATIC: lambda problem: ADMMTV(problem if problem in TV_SETTINGS else "A"),
        "along the motion": lambda problem: MotionTV(),
        "along the true flow": lambda problem: MotionTV(flow=video_motion(x)),
    }
    rows = []
    for problem in PROBLEMS:
        y, physics = measurement(problem, x)
        for name, make in solvers.items():
            u, seconds = timed(partial(make(problem), y, physics), x.device)
            if name == STATIC and problem not in TV_SETTINGS:
                name = "static, with the settings of A"
            rows.append(
                {"problem": problem, "solver": name, **scores(u, x), "seconds": seconds}
            )
            print(rows[-1], flush=True)
    return rows


def sampler(x: Tensor) -> list[Row]:
    r"""LVTINO with the embedded models, from the start along the motion."""
    rows = []
    for problem in PROBLEMS:
        y, physics = measurement(problem, x)
        start, started = timed(partial(motion_start, y, physics), x.device)
        rows.append(
            {
                "problem": problem,
                "result": "start",
                **scores(start, x),
                "seconds": started,
            }
        )
        print(rows[-1], flush=True)
        for tv in (None, "motion") if problem in "ABC" else (None,):
            solver = LVTINO(
                schedule=Schedule.embedded(problem),
                tv=tv,
                tv_options=TV_OPTIONS,
                seed=0,
            )
            samples: list[Tensor] = []
            (mean, _), seconds = timed(
                partial(
                    solver.sample,
                    y,
                    physics,
                    SAMPLES,
                    init=start,
                    callback=lambda _, u, kept=samples: kept.append(u),
                ),
                x.device,
            )
            seconds = started + seconds / SAMPLES
            for name, video in (
                ("one sample", samples[0]),
                (f"mean of {SAMPLES}", mean),
            ):
                rows.append(
                    {
                        "problem": problem,
                        "result": name,
                        "tv": tv or "none",
                        **scores(video, x),
                        "seconds": seconds,  # of one sample, with its start
                    }
                )
                print(rows[-1], flush=True)
    return rows


def robust(x: Tensor) -> list[Row]:
    r"""Where there is nothing to follow, or what is followed is wrong."""
    rng = torch.Generator().manual_seed(0)
    half = x.shape[2] // 2
    cases = {
        "still": x[:, :, :1].expand_as(x).contiguous(),
        "scene cut": torch.cat([x[:, :, :half], x[:, :, half:].flip(-1, -2)], dim=2),
        "noise": torch.rand(x.shape, generator=rng),
        "random flow of 5 pixels": x,
    }
    rows = []
    for problem in PROBLEMS:
        for name, clip in cases.items():
            y, physics = measurement(problem, clip)
            flow = optical_flow
            if name.startswith("random"):
                shape = (clip.shape[2] - 1, *clip.shape[3:], 2)
                flow = 5 * torch.randn(shape, generator=rng)
            static = scores(ADMMTV(problem)(y, physics), clip)["PSNR (dB)"]
            moving = scores(MotionTV(flow=flow)(y, physics), clip)["PSNR (dB)"]
            rows.append(
                {
                    "problem": problem,
                    "clip": name,
                    "static (dB)": static,
                    "along the motion (dB)": moving,
                }
            )
            print(rows[-1], flush=True)
    return rows


def cost(x: Tensor) -> list[Row]:
    r"""Seconds and memory of the start, with the allocator of the command line."""
    keep_freed_memory()
    rows = []
    for problem in "AB":
        motion_start(*measurement(problem, x[..., :64, :64]))  # warm
        y, physics = measurement(problem, x)
        with Peak(x.device) as peak:
            before = peak.allocated
            _, seconds = timed(partial(motion_start, y, physics), x.device)
        rows.append(
            {
                "problem": problem,
                "size": "x".join(map(str, x.shape[2:])),
                "seconds": seconds,
                "peak of the process (GB)": (peak.allocated - before) / 1e9,
            }
        )
        print(rows[-1], flush=True)
    return rows


PARTS = {"variation": variation, "sampler": sampler, "robust": robust, "cost": cost}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().split("\n\n")[0])
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], default=[])
    parser.add_argument("--clip", nargs="+", default=[None], help="videos of your own")
    parser.add_argument("--problems", nargs="+", help="other problems than A, B and C")
    parser.add_argument("--quick", action="store_true", help="a small size, not saved")
    arguments = parser.parse_args()
    if arguments.problems:
        PROBLEMS[:] = arguments.problems
    for clip in arguments.clip:
        name = "procedural" if clip is None else Path(clip).stem
        for part in arguments.parts or PARTS:
            size = QUICK if arguments.quick else LARGE if part == "cost" else SIZE
            rows = PARTS[part](load_clip(clip, size))
            if not arguments.quick:
                others = f"-{'-'.join(PROBLEMS)}" if arguments.problems else ""
                file = f"motion-{part}{others}-{name}-cpu"
                write_csv(rows, RESULTS / f"{file}.csv")
                save(
                    file,
                    {
                        "benchmark": f"{part} along the motion, clip {name}",
                        **provenance(torch.device("cpu")),
                        "rows": rows,
                    },
                )


if __name__ == "__main__":
    main()
