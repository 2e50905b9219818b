r"""
Twelve described operators: is the default ever worse than what is simpler?

For each operator and clip: the pseudo-inverse, interpolation of the measurement (bicubic in
space, linear in time, missing pixels from their neighbours), total variation that stands
still with the best of six weights (which looks at the truth), the start, one sample and the
mean of eight with ``Schedule.embedded`` of the description. Clips: a real one if it is
given, the procedural clip and dead leaves that no training saw. Usage::

    python benchmarks/operators.py [--clip FOLDER_OR_FILE] [--size 13x96x144] [--quick]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from deepinv.optim.data_fidelity import L2
from embedded_models import Row, scores, write_csv
from measure import RESULTS, load_clip, provenance, save, timed
from PIL import Image
from torch import Tensor

from deepinv_lvtino import LVTINO, Schedule, make_problem
from deepinv_lvtino.datasets import dead_leaves_clip, procedural_clip
from deepinv_lvtino.optim import ADMMTV, motion_start, pseudo_inverse
from deepinv_lvtino.physics import VideoInpainting

HELD_OUT, SAMPLES, CPU = 977, 8, torch.device("cpu")
WEIGHTS = (0.5, 1, 2, 5, 10, 30)


def operators(folder: Path, height: int, width: int) -> list[str]:
    r"""The descriptions; two of them with a file, of a kernel and of a mask."""
    motion = np.zeros((9, 9))
    np.fill_diagonal(motion, 1)  # a shake along the diagonal: not separable
    np.save(folder / "kernel.npy", motion)
    mask = np.full((height, width), 255, np.uint8)
    mask[height // 3 : height // 3 + 6] = 0  # a scratch, and a logo
    mask[-24:-8, -40:-8] = 0
    Image.fromarray(mask).save(folder / "mask.png")
    return [
        "downscale=2, noise=0.01",
        "downscale=3, noise=0.001",
        "every=2, noise=0.01",
        f"blur={folder}/kernel.npy, noise=0.01",
        f"mask={folder}/mask.png, noise=0.01",
        "noise=0.1",
        "noise=0.03",
        "blur=1.5, noise=0.003",
        "temporal-mean=2, downscale=2, noise=0.03",
        "temporal-mean=4, blur=1.5, downscale=2, noise=0.02",
        "temporal-blur=5, downscale=4, noise=0.01",
        "mask=0.7, noise=0.05",
    ]


def interpolated(y: Tensor, physics: object, size: tuple[int, ...]) -> Tensor:
    r"""Measurement at the size of the video."""
    if isinstance(physics, VideoInpainting):
        seen = physics.visible.float().expand(1, 1, y.shape[2], *y.shape[3:])
        weight, total = seen, y * seen
        for _ in range(64):  # from the neighbours, until every pixel has some
            if bool((weight > 0).all()):
                break
            pool = partial(
                torch.nn.functional.avg_pool3d,
                kernel_size=(1, 3, 3),
                stride=1,
                padding=(0, 1, 1),
            )
            near, count = pool(total * (weight > 0)), pool((weight > 0).float())
            fill = near / count.clamp(min=1e-6)
            total = torch.where(weight > 0, total, fill)
            weight = (count > 0).float()
        return total
    batch, channels, frames = y.shape[:3]
    flat = y.transpose(1, 2).flatten(0, 1)
    large = torch.nn.functional.interpolate(flat, size=size[-2:], mode="bicubic")
    video = large.unflatten(0, (batch, frames)).transpose(1, 2)
    if frames == size[1]:
        return video
    return torch.nn.functional.interpolate(
        video, size=size[1:], mode="trilinear", align_corners=False
    )


def best_static(y: Tensor, physics: object, x: Tensor, sigma: float) -> Tensor:
    found = [
        ADMMTV(weight, 2.0, data_fidelity=L2(sigma), max_iter=40)(y, physics)
        for weight in WEIGHTS
    ]
    return min(found, key=lambda u: float((u.clamp(0, 1) - x).square().mean()))


def measure(name: str, clip: str, x: Tensor, folder: Path) -> list[Row]:
    rng = torch.Generator().manual_seed(2**31)
    size = tuple(x.shape[1:])
    physics = make_problem(
        name, size, alignment="center", time_border="replicate", rng=rng
    )
    y = physics(x)
    sigma = float(physics.noise_model.sigma)
    solver = LVTINO(schedule=Schedule.embedded(name), seed=0)
    start: list[Tensor] = []

    def begin() -> Tensor:
        start.append(motion_start(y, physics))
        return start[0]

    methods: dict[str, Callable[[], Tensor]] = {
        "pseudo-inverse": lambda: pseudo_inverse(y, physics),
        "interpolation": lambda: interpolated(y, physics, size),
        "static variation, best weight": lambda: best_static(y, physics, x, sigma),
        "start": begin,
        "LVTINO, one sample": lambda: solver(y, physics, init=start[0]),
        f"LVTINO, mean of {SAMPLES}": lambda: solver.sample(
            y, physics, SAMPLES, init=start[0]
        )[0],
    }
    rows = []
    for method, run in methods.items():
        u, seconds = timed(torch.no_grad()(run), CPU)
        rows.append(
            {
                "operator": name.replace(f"{folder}/", ""),
                "clip": clip,
                "method": method,
                **scores(u, x),
                "seconds": seconds,
            }
        )
    print(
        name, clip, *(f"{row['PSNR (dB)']:.2f}" for row in rows), sep=" | ", flush=True
    )
    return rows


def by_method(rows: list[Row]) -> list[Row]:
    r"""PSNR of the methods side by side."""
    table: dict[tuple[str, str], Row] = {}
    for row in rows:
        place = row["operator"], row["clip"]
        line = table.setdefault(place, {"operator": place[0], "clip": place[1]})
        line[row["method"]] = row["PSNR (dB)"]
    return list(table.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().split("\n\n")[0])
    parser.add_argument("--clip", help="a real clip: video or folder of frames")
    parser.add_argument("--size", default="13x96x144")
    parser.add_argument("--quick", action="store_true", help="a small size, not saved")
    arguments = parser.parse_args()
    frames, height, width = (int(n) for n in arguments.size.split("x"))
    if arguments.quick:
        frames, height, width = 5, 48, 72
    size = (frames, height, width)
    clips = {
        "procedural": procedural_clip(*size, seed=HELD_OUT)[None],
        "dead leaves": dead_leaves_clip(0, *size, seed=HELD_OUT)[None],
    }
    if arguments.clip is not None:
        clips = {Path(arguments.clip).stem: load_clip(arguments.clip, size), **clips}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in operators(Path(folder), height, width):
            for clip, x in clips.items():
                rows += measure(name, clip, x, Path(folder))
    if not arguments.quick:
        write_csv(rows, RESULTS / "operators-cpu.csv")
        write_csv(by_method(rows), RESULTS / "operators-psnr-cpu.csv")
        result = {"benchmark": f"described operators, {arguments.size}"}
        save("operators-cpu", {**result, **provenance(CPU), "rows": rows})


if __name__ == "__main__":
    main()
