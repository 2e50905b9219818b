r"""
Frames in tiles against whole frames: quality, seams, seconds, memory.

One sample of problem B and of super-resolution ×4, with whole frames and in tiles of
several sizes: PSNR, the error of differences of neighbouring pixels across the middle of
the overlaps (where one tile has faded half into the next) beside that of all others,
seconds and the largest resident memory. Usage::

    python benchmarks/tiles.py [--clip FOLDER_OR_FILE] [--size 17x192x320] [--quick]
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
from embedded_models import Row, write_csv
from measure import RESULTS, Peak, load_clip, provenance, save, timed
from torch import Tensor

from deepinv_lvtino import LVTINO, Schedule, make_problem
from deepinv_lvtino.optim import Tiled

PROBLEMS = ("B", "sr4")
TILES = ((192, 192), (128, 128), (96, 96))
NOISE = 0.001
CPU = torch.device("cpu")


def seam_error(x: Tensor, truth: Tensor, tiled: Tiled, size: tuple[int, int]) -> Row:
    r"""Error of differences of neighbouring pixels, at seams and elsewhere, ×1000."""
    physics = make_problem("sr4", (3, 1, *size), alignment="center")
    seams: dict[int, set[int]] = {3: set(), 4: set()}
    for tile in tiled.tiles(physics):
        for axis, span in ((3, tile.rows), (4, tile.columns)):
            if span.after:
                middle = span.stop - span.after // 2
                seams[axis] |= set(range(middle - 8, middle + 8))
    at, rest = [], []
    for axis, places in seams.items():
        error = (
            (x - truth).diff(dim=axis).square().transpose(axis, 0).flatten(1).mean(1)
        )
        inside = torch.tensor([i in places for i in range(len(error))])
        at.append(error[inside])
        rest.append(error[~inside])
    return {
        "at seams": 1000 * float(torch.cat(at).mean().sqrt()),
        "elsewhere": 1000 * float(torch.cat(rest).mean().sqrt()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Tiles against whole frames.")
    parser.add_argument("--clip", help="folder of frames or video; computed without")
    parser.add_argument("--size", default="17x192x320", help="FRAMESxHEIGHTxWIDTH")
    parser.add_argument("--quick", action="store_true", help="one problem, not saved")
    options = parser.parse_args()
    frames, height, width = map(int, options.size.split("x"))
    truth = load_clip(options.clip, (frames, height, width))
    rows: list[Row] = []
    for problem in PROBLEMS[:1] if options.quick else PROBLEMS:
        physics = make_problem(
            problem,
            tuple(truth.shape[1:]),
            NOISE,
            alignment="center",
            time_border="replicate",
        )
        torch.manual_seed(0)
        y = physics(truth)
        solver = LVTINO(schedule=Schedule.embedded(problem), seed=0)
        whole: Tensor | None = None
        for size in (None, *TILES):
            run = solver if size is None else Tiled(solver, size)
            with Peak(CPU) as peak:
                x, seconds = timed(partial(run, y, physics), CPU)
            row: Row = {
                "problem": problem,
                "tiles": "whole" if size is None else f"{size[1]}x{size[0]}",
                "PSNR": float(-10 * (x - truth).square().mean().log10()),
            }
            if isinstance(run, Tiled) and whole is not None:
                row |= seam_error(x, truth, run, (height, width))
                row["whole, at seams"] = seam_error(whole, truth, run, (height, width))[
                    "at seams"
                ]
            else:
                whole = x
            row |= {"seconds": seconds, "peak, GB": peak.allocated / 1e9}
            rows.append(row)
            print(row, flush=True)
    if options.quick:
        return
    name = "procedural" if options.clip is None else "street_clip"
    write_csv(rows, RESULTS / f"tiles-{name}-cpu.csv")
    save(
        f"tiles-{name}-cpu",
        {
            "benchmark": "tiles of frames against whole frames, one sample",
            **provenance(CPU),
            "size": options.size,
            "noise": NOISE,
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
