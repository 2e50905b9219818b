r"""
The animation and the numbers of the first page: a real clip, four times smaller, restored.

The clip is resized and shrunk by 4 on the grid of ordinary files (``downscale=4``), with
noise of 0.001; then bicubic interpolation, total variation that stands still (with the
best of six weights, which looks at the truth) and the embedded default restore it.
The animation shows the recording, the interpolation, one sample and the truth, whole and
enlarged. Usage::

    python benchmarks/front_page.py CLIP [--start N] [--frames N] [--size WxH] [--zoom X,Y]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from embedded_models import Row, scores, write_csv
from measure import RESULTS, provenance, save, timed
from operators import best_static
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import interpolate

from deepinv_lvtino import LVTINO, make_problem
from deepinv_lvtino.datasets import read_video, resize_video
from deepinv_lvtino.datasets._writing import to_levels
from deepinv_lvtino.optim import motion_start

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "docs" / "source" / "_static" / "butterfly.webp"

FACTOR, SIGMA, SAMPLES = 4, 0.001, 8
COLUMN, GAP, STRIP = 256, 4, 24  # pixels of the animation
RATE = 12  # frames per second, slower than life
LARGEST = 2e6  # bytes


def restored(x: Tensor) -> tuple[dict[str, Tensor], list[Row]]:
    r"""What each method makes of the measurement, and its scores and seconds."""
    rng = torch.Generator().manual_seed(2**31)
    size = tuple(x.shape[1:])
    physics = make_problem(
        f"downscale={FACTOR}, noise={SIGMA}", size, alignment="center", rng=rng
    )
    y = physics(x)
    frames = y[0].transpose(0, 1)

    def bicubic() -> Tensor:
        large = interpolate(frames, size[-2:], mode="bicubic")
        return large.transpose(0, 1)[None]

    solver = LVTINO(seed=0)
    methods = {
        "bicubic interpolation": bicubic,
        "static variation, best weight": lambda: best_static(y, physics, x, SIGMA),
        "variation along the motion, the start": lambda: motion_start(y, physics),
        "LVTINO, one sample": lambda: solver(y, physics),
        f"LVTINO, mean of {SAMPLES}": lambda: solver.sample(y, physics, SAMPLES)[0],
    }
    videos = {
        "recording": y.repeat_interleave(FACTOR, -1).repeat_interleave(FACTOR, -2)
    }
    rows = []
    for method, run in methods.items():
        videos[method], seconds = timed(torch.no_grad()(run), CPU)
        row = {"method": method, **scores(videos[method], x), "seconds": seconds}
        rows.append(row)
        print(row, flush=True)
    return videos, rows


def animation(videos: dict[str, Tensor], zoom: tuple[int, int]) -> list[Image.Image]:
    r"""Frames with one column per video: a label, the whole, and the part enlarged."""
    width, height = next(iter(videos.values())).shape[:2:-1]
    whole = (COLUMN, round(COLUMN * height / width))
    side = COLUMN // 2
    box = (*zoom, zoom[0] + side, zoom[1] + side)
    font = ImageFont.load_default(size=15)
    pictures = []
    for t in range(next(iter(videos.values())).shape[2]):
        sheet = Image.new(
            "RGB",
            (
                len(videos) * (COLUMN + GAP) - GAP,
                STRIP + whole[1] + GAP + COLUMN,
            ),
            "white",
        )
        draw = ImageDraw.Draw(sheet)
        for place, (label, video) in enumerate(videos.items()):
            left = place * (COLUMN + GAP)
            frame = Image.fromarray(to_levels(video[0, :, t].clamp(0, 1)))
            near = Image.Resampling.NEAREST
            part = frame.crop(box).resize((COLUMN, COLUMN), near)
            marked = frame.copy()
            ImageDraw.Draw(marked).rectangle(box, outline="white", width=2)
            small = marked.resize(whole, Image.Resampling.LANCZOS)
            draw.text((left + 4, 2), label, "black", font=font)
            sheet.paste(small, (left, STRIP))
            sheet.paste(part, (left, STRIP + whole[1] + GAP))
        pictures.append(sheet)
    return pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().split("\n\n")[0])
    parser.add_argument("clip", help="a clean clip: video or folder of frames")
    parser.add_argument("--start", type=int, default=0, help="first frame")
    parser.add_argument("--frames", type=int, default=25)
    parser.add_argument("--size", default="480x272")
    parser.add_argument("--zoom", default="176,72", help="left and top of the part")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--quick", action="store_true", help="small, nothing is saved")
    arguments = parser.parse_args()
    width, height = (int(n) for n in arguments.size.split("x"))
    clip = read_video(arguments.clip, arguments.frames, start=arguments.start)
    x = resize_video(clip.frames, height, width)[None]
    if arguments.quick:
        x = resize_video(clip.frames[:, :4], 48, 64)[None]
    videos, rows = restored(x)
    if arguments.quick:
        return
    shown = {
        f"recording, {width // FACTOR} x {height // FACTOR}": videos["recording"],
        "bicubic interpolation": videos["bicubic interpolation"],
        "LVTINO, one sample": videos["LVTINO, one sample"],
        "truth": x,
    }
    left, top = (int(n) for n in arguments.zoom.split(","))
    first, *others = animation(shown, (left, top))
    options = {"quality": 80, "method": 6, "duration": 1000 // RATE, "loop": 0}
    first.save(arguments.output, save_all=True, append_images=others, **options)
    if arguments.output.stat().st_size > LARGEST:
        msg = f"{arguments.output} is larger than 2 MB: take fewer frames."
        raise SystemExit(msg)
    result = {
        "benchmark": f"first page: {Path(arguments.clip).stem}",
        "frames": [arguments.start, arguments.start + arguments.frames],
        "size": arguments.size,
    }
    write_csv(rows, RESULTS / "front_page-cpu.csv")
    save("front_page-cpu", {**result, **provenance(CPU), "rows": rows})


if __name__ == "__main__":
    main()
