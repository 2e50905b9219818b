r"""
What the embedded models are worth: the tables and figures of the user guide.

Four parts, each with its own table: ``denoise`` (denoising at six noise levels against
total variation and BM3D), ``consistency`` (one jump against 64 steps of the probability
flow, and drift of the repeated stochastic autoencoder), ``restore`` (problems A, B and C
against other solvers), ``eta`` (the trade between the two priors on problem A). On the
procedural clip, and on a real one if it is given. Usage::

    python benchmarks/embedded_models.py [PART ...] [--clip FOLDER_OR_FILE] [--quick]

``--footage FOLDER`` takes one clip of each scene that training holds out: ``denoise`` shows
their mean, the other parts a table each. ``--video`` and ``--image`` name other weights to
measure, whose results are printed and not saved.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from deepinv.loss.metric import PSNR, SSIM, HaarPSI, Metric
from measure import RESULTS, load_clip, provenance, timed
from torch import Tensor

from deepinv_lvtino import LVTINO, Schedule, make_problem
from deepinv_lvtino.benchmark.scores import SCORES
from deepinv_lvtino.datasets import read_video
from deepinv_lvtino.models import (
    TinyConsistencyModel,
    load_tiny,
    tiny_image,
    tiny_video,
)
from deepinv_lvtino.optim import ADMMTV, PnPADMM
from deepinv_lvtino.training.evaluate import middle
from deepinv_lvtino.training.footage import find_footage
from deepinv_lvtino.training.losses import SIGMA_MIN

NOISE_LEVELS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7)  # of rectified flow, s / (a + s)
ETAS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
SAMPLES = 8
SIZE = (25, 192, 320)
Row = dict[str, Any]
WEIGHTS: dict[str, Path] = {}  # files to measure in place of the package's own


def embedded(device: torch.device) -> tuple[TinyConsistencyModel, TinyConsistencyModel]:
    r"""The video and the image model that are measured."""
    video, image = (
        load_tiny(WEIGHTS[kind]) if kind in WEIGHTS else make()
        for kind, make in (("video", tiny_video), ("image", tiny_image))
    )
    return video.to(device), image.to(device)


def held_out(folder: Path, size: tuple[int, int, int]) -> dict[str, Tensor]:
    r"""One clip, shape (1, 3, T, H, W), of every scene that training holds out."""
    _, measuring = find_footage(folder)
    scenes = {one.scene: one.path for one in reversed(measuring) if not one.photo}
    return {
        name: middle(read_video(scenes[name], size[0]).frames, size[1:])[None]
        for name in sorted(scenes)
    }


def averaged(tables: list[list[Row]]) -> list[Row]:
    r"""Mean of tables with the same rows."""
    return [
        {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
        for rows in zip(*tables, strict=True)
    ]


def as_frames(x: Tensor) -> Tensor:
    return x[0].transpose(0, 1).clamp(0, 1)


def scores(x: Tensor, truth: Tensor) -> Row:
    r"""PSNR, SSIM, HaarPSI and LPIPS of frames, and the frame-difference error."""
    estimate, reference = as_frames(x), as_frames(truth)
    difference = estimate.diff(dim=0) - reference.diff(dim=0)
    lpips = perceptual(x.device)
    return {
        "PSNR (dB)": -10 * math.log10(float((estimate - reference).square().mean())),
        "SSIM": float(SSIM()(estimate, reference).mean()),
        "HaarPSI": float(HaarPSI(norm_inputs=None)(estimate, reference).mean()),
        **({"LPIPS": float(lpips(x.clamp(0, 1), truth))} if lpips else {}),
        "frame-difference error (%)": 100 * float(difference.square().mean().sqrt()),
    }


@cache
def perceptual(device: torch.device) -> Metric | None:
    r"""LPIPS, where its weights are on this machine (``lpips_weights.py``)."""
    score = SCORES["lpips"]
    return None if score.missing() else score.make(device)


def psnr(x: Tensor, truth: Tensor) -> float:
    return float(PSNR()(as_frames(x), as_frames(truth)).mean())


def denoise(x: Tensor) -> list[Row]:
    r"""Denoising by both models, total variation and BM3D, at six noise levels."""
    from deepinv.models import BM3D, TVDenoiser

    x = x[:, :, :9]
    device = x.device
    rng = torch.Generator(device).manual_seed(0)
    video, image = (model.as_denoiser() for model in embedded(device))
    rows = []
    for level in NOISE_LEVELS:
        # on the latent's range [-1, 1] the model's ratio; on [0, 1] half of it
        sigma = level / (1 - level) / 2
        noise = torch.randn(x.shape, generator=rng, device=device)
        noisy = x + sigma * noise
        frames = noisy[0].transpose(0, 1)
        tv = max(
            psnr(_frames_to_clip(TVDenoiser(n_it_max=200)(frames, weight)), x)
            for weight in (sigma * s for s in (0.5, 0.7, 1.0, 1.4))
        )
        bm3d = torch.cat([BM3D()(frame[None], sigma) for frame in frames.cpu()])
        rows.append(
            {
                "noise level": level,
                "noisy (dB)": psnr(noisy, x),
                "total variation, best weight (dB)": tv,
                "BM3D (dB)": psnr(_frames_to_clip(bm3d).to(x), x),
                "image model (dB)": psnr(image(noisy, sigma), x),
                "video model (dB)": psnr(video(noisy, sigma), x),
            }
        )
    return rows


def _frames_to_clip(frames: Tensor) -> Tensor:
    return frames.transpose(0, 1)[None]


def flow(
    model: TinyConsistencyModel, noisy: Tensor, sigma: float, steps: int
) -> Tensor:
    r"""End of the denoiser's probability flow, by Heun's steps down to its lowest level."""
    low = math.log(SIGMA_MIN)
    high = math.log(sigma)
    levels = [math.exp(high + (low - high) * k / steps) for k in range(steps + 1)]
    state = noisy
    for now, then in zip(levels[:-1], levels[1:], strict=True):
        slope = (state - model.predict(state, now, jump=False)) / now
        moved = state + (then - now) * slope
        again = (moved - model.predict(moved, then, jump=False)) / then
        state = state + (then - now) * (slope + again) / 2
    return model.predict(state, levels[-1], jump=False)


def consistency(x: Tensor) -> list[Row]:
    r"""One jump against 64 steps of the flow, on 9 frames of 128x128."""
    x = x[:, :, :9, :128, :128]
    rng = torch.Generator(x.device).manual_seed(0)
    rows = []
    for name, model in zip(("video", "image"), embedded(x.device), strict=True):
        latent = model.encode(x)
        noise = torch.randn(latent.shape, generator=rng, device=x.device)
        for level in NOISE_LEVELS:
            sigma = level / (1 - level)
            noisy = latent + sigma * noise
            with torch.no_grad():
                end = flow(model, noisy, sigma, 64)
                jump = model.predict(noisy, sigma, jump=True)
                mean = model.predict(noisy, sigma, jump=False)
            moved = (end - latent).norm()
            rows.append(
                {
                    "model": name,
                    "noise level": level,
                    "jump: error (%)": 100 * float((jump - end).norm() / end.norm()),
                    "mean: error (%)": 100 * float((mean - end).norm() / end.norm()),
                    "jump: error / what noise moved": float(
                        (jump - end).norm() / moved
                    ),
                    "mean: error / what noise moved": float(
                        (mean - end).norm() / moved
                    ),
                }
            )
    return rows


def drift(x: Tensor, repeats: int = 50) -> list[Row]:
    r"""Mean, deviation and fine detail of a clip after repeated autoencoding."""
    x = x[:, :, :9, :128, :128]
    rows = []
    level = 0.15
    for name, model in zip(("video", "image"), embedded(x.device), strict=True):
        rng = torch.Generator(x.device).manual_seed(0)
        time_ = model.schedule.time((level / (1 - level)) ** 2)
        u = x
        for k in range(repeats + 1):
            if k in (0, 1, 5, 10, 20, repeats):
                rows.append({"model": name, "repeats": k, **_statistics(u)})
            u = model.sae(u, time_, generator=rng)
    return rows


def _statistics(u: Tensor) -> Row:
    spectrum = torch.fft.fft2(u - u.mean(dim=(-2, -1), keepdim=True)).abs().square()
    power = spectrum.mean(dim=(0, 1, 2))
    radius = torch.fft.fftfreq(u.shape[-2])[:, None].square()
    radius = (radius + torch.fft.fftfreq(u.shape[-1])[None].square()).sqrt()
    bands = [
        power[(radius > a) & (radius <= 2 * a)].mean() for a in (1 / 16, 1 / 8, 1 / 4)
    ]
    return {
        "mean": float(u.mean()),
        "standard deviation": float(u.std()),
        **{
            f"power at {name} cycles/pixel (dB)": 10 * math.log10(float(band))
            for name, band in zip(
                ("1/16-1/8", "1/8-1/4", "1/4-1/2"), bands, strict=True
            )
        },
    }


def restore(x: Tensor, samples: int) -> list[Row]:
    r"""Problems A, B and C against other solvers on the same measurement."""
    return [row for problem in "ABC" for row in restore_one(problem, x, samples)]


def restore_one(problem: str, x: Tensor, samples: int) -> list[Row]:
    r"""One problem."""
    device = x.device
    video, image = embedded(device)
    rng = torch.Generator(device).manual_seed(2**32)
    physics = make_problem(problem, tuple(x.shape[1:]), rng=rng, device=device)
    y = physics(x)
    schedule = Schedule.embedded(problem)
    both = LVTINO(video, image, schedule=schedule, seed=0)
    video_only = LVTINO(video, None, schedule=schedule, seed=0)
    frames_only = LVTINO(None, image, schedule=schedule, seed=0)

    def mean(solver: LVTINO) -> Tensor:
        return solver.sample(y, physics, samples)[0]

    methods: dict[str, Callable[[], Tensor]] = {
        "pseudo-inverse": lambda: physics.A_dagger(y),
        "ADMM-TV": lambda: ADMMTV(problem)(y, physics),
        "PnP-ADMM, same network": lambda: PnPADMM(video.as_denoiser())(y, physics),
        "LVTINO, one sample": lambda: both(y, physics),
        f"LVTINO, mean of {samples}": lambda: mean(both),
        "LVTINO-V, one sample": lambda: video_only(y, physics),
        f"LVTINO-V, mean of {samples}": lambda: mean(video_only),
        "LATINO frame by frame, one sample": lambda: frames_only(y, physics),
    }
    rows = []
    for name, method in methods.items():
        estimate, seconds = timed(torch.no_grad()(method), device)
        row = {"problem": problem, "method": name, **scores(estimate, x)}
        row["seconds"] = seconds
        print(row, flush=True)
        rows.append(row)
    return rows


def eta_sweep(x: Tensor, samples: int) -> tuple[list[Row], Tensor]:
    r"""Weight of the video prior on problem A: numbers, and one column over time."""
    device = x.device
    video, image = embedded(device)
    rng = torch.Generator(device).manual_seed(2**32)
    physics = make_problem("A", tuple(x.shape[1:]), rng=rng, device=device)
    y = physics(x)
    column = x.shape[-1] // 2
    slices = [x[0, :, :, :, column]]
    rows = []
    for eta in ETAS:
        schedule = Schedule.embedded("A", eta=eta)
        solver = LVTINO(
            video if eta > 0 else None,
            image if eta < 1 else None,
            schedule=schedule,
            seed=0,
        )
        first: list[Tensor] = []
        mean, _ = solver.sample(
            y, physics, samples, callback=lambda _, u, kept=first: kept.append(u)
        )
        sample = first[0]
        slices.append(sample[0, :, :, :, column])
        rows.append(
            {
                "eta": eta,
                **{f"{key}, sample": value for key, value in scores(sample, x).items()},
                "sharpness of a sample": _sharpness(sample, x),
                "flicker of a sample": _flicker(sample, x),
                f"PSNR (dB), mean of {samples}": scores(mean, x)["PSNR (dB)"],
            }
        )
        print(rows[-1], flush=True)
    return rows, torch.stack(slices)


def _sharpness(u: Tensor, x: Tensor) -> float:
    r"""Mean size of the spatial gradient, relative to that of the true clip."""

    def size(v: Tensor) -> float:
        return float(v.diff(dim=-1).abs().mean() + v.diff(dim=-2).abs().mean())

    return size(u.clamp(0, 1)) / size(x)


def _flicker(u: Tensor, x: Tensor) -> float:
    r"""Mean size of the second difference in time, relative to that of the true clip."""

    def size(v: Tensor) -> float:
        return float(v.diff(n=2, dim=2).abs().mean())

    return size(u.clamp(0, 1)) / size(x)


def cell(value: Any) -> str:
    r"""A number with three digits or two decimals."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3g}" if abs(value) < 1 else f"{value:.2f}"


def markdown(rows: list[Row]) -> str:
    r"""The table as text."""
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "| --- " * len(names) + "|"]
    lines += ["| " + " | ".join(cell(row[n]) for n in names) + " |" for row in rows]
    return "\n".join(lines)


def write_csv(rows: list[Row], path: Path) -> None:
    r"""The table for the documentation."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        names = dict.fromkeys(name for row in rows for name in row)
        # what only some rows have stands before the scores, as it does in those rows
        names = (
            list(max(rows, key=len)) if len(names) == max(map(len, rows)) else [*names]
        )
        writer.writerow(names)
        writer.writerows([cell(row.get(name, "")) for name in names] for row in rows)


def draw_denoising(rows: list[Row], path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.5, 4), layout="constrained")
    for name in list(rows[0])[1:]:
        axes.plot(
            [row["noise level"] for row in rows],
            [row[name] for row in rows],
            "o-",
            label=name.replace(" (dB)", ""),
        )
    axes.set_xlabel("noise level (rectified flow)")
    axes.set_ylabel("PSNR (dB)")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw_eta(rows: list[Row], slices: Tensor, path: Path) -> None:
    r"""Numbers above, one column of pixels over time (to the right) below."""
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(9, 6.5), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(1, 1.2))
    etas = [row["eta"] for row in rows]
    for axes, names in zip(
        upper.subplots(1, 2),
        (
            [name for name in rows[0] if name.startswith("PSNR")],
            ("sharpness of a sample", "flicker of a sample"),
        ),
        strict=True,
    ):
        for name in names:
            axes.plot(etas, [row[name] for row in rows], "o-", label=name)
        axes.set_xlabel("eta (weight of the video prior)")
        axes.grid(alpha=0.3)
        axes.legend()
    titles = ["truth", *(f"eta = {eta:g}" for eta in etas)]
    for axes, title, picture in zip(
        lower.subplots(1, len(titles)), titles, slices, strict=True
    ):
        axes.imshow(picture.permute(2, 1, 0).clamp(0, 1), aspect="auto")
        axes.set_title(title, fontsize=9)
        axes.set_axis_off()
    figure.savefig(path, dpi=120)
    plt.close(figure)


PARTS = ("denoise", "consistency", "restore", "eta")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().split("\n\n")[0])
    parser.add_argument("parts", nargs="*", help=f"{', '.join(PARTS)}; all by default")
    parser.add_argument("--clip", help="a real clip: video or folder of frames")
    parser.add_argument("--footage", type=Path, help="folder with held-out clips")
    parser.add_argument("--video", type=Path, help="video weights (.safetensors)")
    parser.add_argument("--image", type=Path, help="image weights (.safetensors)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--size", help="frames x height x width, 25x192x320 by default")
    parser.add_argument("--quick", action="store_true", help="a small size, not saved")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"unknown part {', '.join(sorted(unknown))}")
    import matplotlib

    matplotlib.use("Agg")
    device = torch.device(arguments.device)
    size = (9, 64, 96) if arguments.quick else SIZE
    if arguments.size:
        size = tuple(int(number) for number in arguments.size.split("x"))
    for kind in ("video", "image"):
        if getattr(arguments, kind) is not None:
            WEIGHTS[kind] = getattr(arguments, kind)
    saved = not arguments.quick and not WEIGHTS
    folder = RESULTS if saved else Path(tempfile.mkdtemp())
    if arguments.footage is not None:
        clips = held_out(arguments.footage, size)
    else:
        clip = "procedural" if arguments.clip is None else Path(arguments.clip).stem
        clips = {clip: load_clip(arguments.clip, size, seed=2024)}
    clips = {name: x.to(device) for name, x in clips.items()}
    for part in arguments.parts or PARTS:
        if part == "denoise" and arguments.footage is not None:
            tables = [denoise(x) for x in clips.values()]
            each = {
                f"denoise, {name}": t for name, t in zip(clips, tables, strict=True)
            }
            rows = averaged(tables)
            for name, table in each.items():
                print(f"\n{name}\n{markdown(table)}", flush=True)
            write(part, "held_out", size, {"denoise": rows}, folder, device, each)
            continue
        for clip, x in clips.items():
            # a picture of a clip given by the user stays out of the results
            private = arguments.clip is not None or arguments.footage is not None
            picture = Path(tempfile.mkdtemp()) if private else folder
            tables = tables_of(part, x, arguments.samples, clip, picture)
            write(part, clip, tuple(x.shape[2:]), tables, folder, device)
    print(f"written to {folder}")


def tables_of(
    part: str, x: Tensor, samples: int, clip: str, picture: Path
) -> dict[str, list[Row]]:
    r"""The tables of one part; the picture of the sweep goes to a folder of its own."""
    if part == "denoise":
        return {"denoise": denoise(x)}
    if part == "consistency":
        return {"consistency": consistency(x), "drift": drift(x)}
    if part == "restore":
        return {"restore": restore(x, samples)}
    rows, slices = eta_sweep(x, samples)
    draw_eta(rows, slices, picture / f"embedded-eta-{clip}-{x.device.type}.png")
    print(f"picture in {picture}")
    return {"eta": rows}


def write(
    part: str,
    clip: str,
    size: tuple[int, ...],
    tables: dict[str, list[Row]],
    folder: Path,
    device: torch.device,
    more: dict[str, list[Row]] | None = None,
) -> None:
    r"""Print the tables of one part, and write them beside their provenance."""
    stem = f"embedded-{part}-{clip}-{device.type}"
    for name, rows in tables.items():
        print(f"\n{clip}\n{markdown(rows)}", flush=True)
        write_csv(rows, folder / f"embedded-{name}-{clip}-{device.type}.csv")
    if part == "denoise":
        draw_denoising(tables["denoise"], folder / f"{stem}.png")
    result = {
        "benchmark": f"embedded models, {part}, {clip} clip, "
        + "x".join(map(str, size)),
        **provenance(device),
        **tables,
        **(more or {}),
    }
    (folder / f"{stem}.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
