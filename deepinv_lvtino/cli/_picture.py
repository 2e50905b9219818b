r"""Comparison pictures: a few frames and a time slice of several videos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

_MARGIN = 8
_LINE = 22
_INK, _PAPER = (20, 20, 20), (255, 255, 255)
_FRAME_WIDTHS = (200, 420)


class Row(NamedTuple):
    """One video ``(3, T, H, W)`` in [0, 1] and what it is."""

    label: str
    video: Tensor


def enlarge_measurement(
    y: Tensor, size: Sequence[int], frame_factor: int, scale_factor: int
) -> Tensor:
    r"""
    Measurement at the size of the video, by repeating frames and pixels.

    :param torch.Tensor y: measurement ``(C, t, h, w)``.
    :param Sequence[int] size: ``(C, T, H, W)`` of the video.
    :param int frame_factor: video frames per measured frame.
    :param int scale_factor: video pixels per measured pixel, along each axis.
    :return: (torch.Tensor) shape ``(C, T, H, W)``.
    """
    for axis, factor in ((1, frame_factor), (2, scale_factor), (3, scale_factor)):
        y = y.repeat_interleave(factor, dim=axis)
    _, frames, height, width = size
    return y[:, :frames, :height, :width]


def draw_comparison(
    path: Path, rows: Sequence[Row], numbers: Sequence[int] | None = None
) -> None:
    r"""
    Draw videos one below the other: first, middle and last frame, and a time slice.

    The time slice shows the middle column of the picture (marked in the frames) over
    time, from left to right: smooth lines are smooth motion.

    :param pathlib.Path path: PNG file to write.
    :param Sequence[Row] rows: the videos, all of one size.
    :param Sequence[int] numbers: what the frames are called; 0, 1, ... by default.
    """
    _, frames, height, width = rows[0].video.shape
    low, high = _FRAME_WIDTHS
    scale = max(1, -(-low // width)) if width < low else min(1.0, high / width)
    panel = (max(1, round(width * scale)), max(1, round(height * scale)))
    chosen = sorted({0, frames // 2, frames - 1})
    slice_width = max(panel[0] // 2, 170)

    font = ImageFont.load_default(size=14)
    row_height = panel[1] + _LINE + _MARGIN
    total_width = len(chosen) * (panel[0] + _MARGIN) + slice_width + 2 * _MARGIN
    longest = max(font.getlength(row.label) for row in rows)
    total_width = max(total_width, int(longest) + 2 * _MARGIN)
    picture = Image.new(
        "RGB", (total_width, _LINE + _MARGIN + len(rows) * row_height), _PAPER
    )
    draw = ImageDraw.Draw(picture)
    names = range(frames) if numbers is None else numbers
    heads = [f"frame {names[index]}" for index in chosen] + ["middle column over time"]
    for column, text in enumerate(heads):
        x = _MARGIN + column * (panel[0] + _MARGIN)
        draw.text((x, _MARGIN // 2), text, _INK, font=font)
    for number, row in enumerate(rows):
        top = _LINE + _MARGIN // 2 + number * row_height
        draw.text((_MARGIN, top), row.label, _INK, font=font)
        top += _LINE
        for column, index in enumerate(chosen):
            x = _MARGIN + column * (panel[0] + _MARGIN)
            picture.paste(_image(row.video[:, index], panel), (x, top))
            middle = x + panel[0] // 2
            for y in (top, top + panel[1] - 5):
                draw.line([(middle, y), (middle, y + 4)], fill=(255, 60, 60), width=2)
        x = _MARGIN + len(chosen) * (panel[0] + _MARGIN)
        strip = row.video[:, :, :, width // 2].transpose(1, 2)
        picture.paste(_image(strip, (slice_width, panel[1])), (x, top))
    picture.save(path, format="PNG")


def draw_deviation(path: Path, deviation: Tensor) -> None:
    r"""
    Draw a standard deviation, black for none, white for the scale's end.

    :param pathlib.Path path: PNG file to write.
    :param torch.Tensor deviation: shape ``(3, T, H, W)``, not negative.
    """
    grey = deviation.square().mean(0, keepdim=True).sqrt()
    # a few pixels at edges of the picture would else make the rest black
    top = float(np.quantile(grey.cpu().numpy(), 0.999))
    label = f"standard deviation of the samples: black 0, white {top:.3f} or more"
    scaled = (grey / top if top > 0 else grey).expand_as(deviation)
    draw_comparison(path, [Row(label, scaled)])


def _image(pixels: Tensor, size: tuple[int, int]) -> Image.Image:
    values = pixels.detach().clamp(0, 1).permute(1, 2, 0).to("cpu", torch.float32)
    image = Image.fromarray(np.round(values.numpy() * 255).astype(np.uint8))
    smaller = size[0] < image.width or size[1] < image.height
    method = Image.Resampling.BICUBIC if smaller else Image.Resampling.NEAREST
    return image.resize(size, method)
