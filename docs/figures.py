r"""
The drawn figures of the guide: one sweep, the pixel grids, what each problem measures.

    python docs/figures.py

writes ``sweep.svg``, ``pixel_grids.svg`` and ``problems.webp`` into
``docs/source/_static``. The pictures of the problems are of the package's own clip (CC0).
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from PIL import Image, ImageDraw, ImageFont

from deepinv_lvtino import make_problem
from deepinv_lvtino.datasets import butterfly_clip
from deepinv_lvtino.physics import PROBLEMS

STATIC = Path(__file__).parent / "source" / "_static"
BLUE, ORANGE, GREEN, GREY = "#2b6cb0", "#c05621", "#2f855a", "#4a5568"
TILE = (320, 192)  # width and height of a picture of a problem
CAPTION = 32


WIDTH, STEP = 2.4, 3.7  # of a box, and from one to the next


def arrow(axes: Axes, start: float, stop: float) -> None:
    axes.add_patch(
        FancyArrowPatch((start, 0.5), (stop, 0.5), arrowstyle="-|>", mutation_scale=9)
    )


def box(axes: Axes, x: float, title: str, text: str, colour: str) -> None:
    axes.add_patch(
        FancyBboxPatch(
            (x, 0),
            WIDTH,
            1,
            boxstyle="round,pad=0.05",
            facecolor=colour + "22",
            edgecolor=colour,
        )
    )
    middle = x + WIDTH / 2
    axes.text(middle, 0.76, title, ha="center", va="center", color=colour, size=10)
    axes.text(middle, 0.3, text, ha="center", va="center", color=GREY, size=8)


def sweep() -> None:
    r"""One sweep: two half-steps of a prior and a data step."""
    figure = Figure(figsize=(10, 2.0))
    axes = figure.subplots()
    steps = (
        ("video prior", "encode, add noise,\njump, decode", BLUE),
        ("data step", "towards videos\nthat give $y$", GREEN),
        ("image prior", "the same,\nframe by frame", ORANGE),
        ("data step", "towards videos\nthat give $y$", GREEN),
    )
    names = ("$x_k$", "$x_{k+1/4}$", "$x_{k+1/2}$", "$x_{k+3/4}$", "$x_{k+1}$")
    gap = STEP - WIDTH
    for i, (title, text, colour) in enumerate(steps):
        box(axes, STEP * i, title, text, colour)
    for i, name in enumerate(names):
        x = STEP * i - gap / 2
        arrow(axes, x - gap / 2 + 0.1, x + gap / 2 - 0.1)
        axes.text(x, 0.78, name, ha="center", va="center", size=11)
    first, last = -gap / 2, STEP * len(steps) - gap / 2
    axes.add_patch(
        FancyArrowPatch(
            (last, 0.3),
            (first, 0.3),
            connectionstyle="bar,fraction=-0.05",
            arrowstyle="-|>",
            mutation_scale=9,
            color=GREY,
        )
    )
    axes.text(
        (first + last) / 2,
        -0.62,
        "the next sweep, with less noise",
        ha="center",
        va="center",
        color=GREY,
        size=9,
    )
    axes.set(xlim=(-gap - 0.1, last + gap / 2 + 0.2), ylim=(-1.1, 1.15))
    axes.axis("off")
    figure.savefig(STATIC / "sweep.svg", bbox_inches="tight", transparent=True)


def pixel_grids(factor: int = 4, blocks: int = 4) -> None:
    r"""Where the pixels of a small video lie in those of the large one."""
    figure = Figure(figsize=(9, 2.2))
    axes = figure.subplots()
    size = factor * blocks
    grids = (
        ("center", (factor - 1) / 2, GREEN),
        ("deepinv", 0.5, BLUE),
        ("deepinv-0.3", -0.5, ORANGE),
    )
    for row, (name, offset, colour) in enumerate(grids):
        y = -row
        for i in range(size):
            edge = "#1a202c" if i % factor == 0 else "#cbd5e0"
            axes.plot([i - 0.5, i - 0.5], [y - 0.3, y + 0.3], color=edge, lw=1)
        axes.plot([size - 0.5] * 2, [y - 0.3, y + 0.3], color="#1a202c", lw=1)
        axes.plot([-0.5, size - 0.5], [y - 0.3] * 2, color="#cbd5e0", lw=1)
        axes.plot([-0.5, size - 0.5], [y + 0.3] * 2, color="#cbd5e0", lw=1)
        places = np.arange(blocks) * factor + offset
        axes.plot(places, [y] * blocks, "o", color=colour, ms=10)
        axes.text(-1, y, f'"{name}"', ha="right", va="center", color=colour, size=11)
    for i in range(size):
        axes.text(i, 0.5, str(i), ha="center", va="bottom", color=GREY, size=8)
    axes.set(xlim=(-4.2, size), ylim=(-2.5, 1))
    axes.axis("off")
    figure.savefig(STATIC / "pixel_grids.svg", bbox_inches="tight", transparent=True)


def picture(values: torch.Tensor) -> Image.Image:
    levels = (255 * values.clamp(0, 1)).round().byte().permute(1, 2, 0)
    return Image.fromarray(levels.numpy())


def problems() -> None:
    r"""One measured frame of each problem, every pixel as large as it is."""
    clip = butterfly_clip(16, TILE[1], TILE[0])[None]
    tiles = [("the video", picture(clip[0, :, 8]))]
    for name in PROBLEMS:
        y = make_problem(name, tuple(clip.shape[1:]))(clip)[0]
        frame = picture(y[:, y.shape[1] // 2])
        tiles.append((name, frame.resize(TILE, Image.Resampling.NEAREST)))
    columns = 4
    rows = -(-len(tiles) // columns)
    step = TILE[0] + 8, TILE[1] + CAPTION + 8
    sheet = Image.new("RGB", (columns * step[0] - 8, rows * step[1] - 8), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(25)
    for i, (name, tile) in enumerate(tiles):
        x, y = (i % columns) * step[0], (i // columns) * step[1]
        draw.text((x, y + 1), name, fill="black", font=font)
        sheet.paste(tile, (x, y + CAPTION))
    sheet.save(STATIC / "problems.webp", quality=78, method=6)


def main() -> None:
    torch.manual_seed(0)
    mpl.rcParams["svg.hashsalt"] = "deepinv-lvtino"
    sweep()
    pixel_grids()
    problems()


if __name__ == "__main__":
    main()
