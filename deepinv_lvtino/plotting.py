r"""
Pictures of videos that DeepInverse's ``plot`` and ``plot_videos`` do not make.

Time slices (one column or row of pixels over time, where flicker and wrong motion show),
strips of the iterates of a run, and video files with several videos side by side. Figures
are returned, neither shown nor closed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from deepinv_lvtino.datasets import write_video
from deepinv_lvtino.utils import check_integer, check_tensor

if TYPE_CHECKING:
    from deepinv.physics import Physics
    from matplotlib.figure import Figure

    from deepinv_lvtino.optim import LVTINO

__all__ = [
    "plot_sweeps",
    "plot_time_slices",
    "sweep_iterates",
    "time_slice",
    "write_side_by_side",
]

_LABEL_HEIGHT, _PAPER = 22, 1.0


def time_slice(
    video: Tensor, *, column: int | None = None, row: int | None = None
) -> Tensor:
    r"""
    One column, or one row, of pixels over time.

    :param torch.Tensor video: shape ``(C, T, H, W)``, or with a batch axis of one.
    :param int column: number of the column, negative from the right; the middle one by
        default.
    :param int row: number of a row instead.
    :return: (:class:`torch.Tensor`) image ``(C, H, T)``, time to the right; of a row
        ``(C, T, W)``, time downwards.
    :raises ValueError: if it is not one video, both are given, or the video has no such
        column or row.

    |sep|

    :Examples:

        >>> import torch
        >>> from deepinv_lvtino.plotting import time_slice
        >>> time_slice(torch.rand(3, 25, 32, 48)).shape
        torch.Size([3, 32, 25])
        >>> time_slice(torch.rand(3, 25, 32, 48), row=-1).shape
        torch.Size([3, 25, 48])
    """
    video = _one_video("video", video)
    if column is not None and row is not None:
        msg = f"give `column` or `row`, not both; got {column} and {row}."
        raise ValueError(msg)
    height, width = video.shape[2:]
    if row is not None:
        return video[:, :, _place("row", row, height)]
    column = width // 2 if column is None else column
    return video[..., _place("column", column, width)].transpose(1, 2)


def plot_time_slices(
    videos: Mapping[str, Tensor],
    *,
    column: int | None = None,
    row: int | None = None,
    frame: int | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Figure:
    r"""
    Time slices of several videos: of a column beside, of a row below each other.

    The first panel shows a frame of the last video (the reference, usually), with the
    column or row that the others follow over time. Smooth lines are smooth motion.

    :param dict[str, torch.Tensor] videos: from labels to videos ``(C, T, H, W)``, all of
        one size, values in [0, 1], one or three channels.
    :param int column: column to follow, as in :func:`time_slice`.
    :param int row: row to follow instead.
    :param int frame: frame of the first panel; the middle one by default.
    :param str save: image file to write, of a kind that matplotlib writes.
    :return: (matplotlib.figure.Figure) the figure.
    :raises ValueError: if there is no video, sizes differ, or as in :func:`time_slice`.
    """
    from matplotlib import pyplot

    shown = _same_size(videos)
    slices = {
        label: time_slice(video, column=column, row=row)
        for label, video in shown.items()
    }
    last = list(shown.values())[-1]
    _, frames, height, width = last.shape
    number = _place("frame", frames // 2 if frame is None else frame, frames)
    # time gets half of the picture's width or height, however many frames there are
    count = len(slices)
    if row is None:
        place = width // 2 if column is None else _place("column", column, width)
        spans = [width, *[0.5 * width] * count]
        size = (2.6 / height * sum(spans) + 0.2 * count, 2.6 + 0.5)
        grid: dict[str, Any] = {"nrows": 1, "ncols": count + 1, "width_ratios": spans}
        mark, aspect = "axvline", height / (0.5 * width)
    else:
        place = _place("row", row, height)
        spans = [height, *[0.5 * height] * count]
        size = (5.2, 5.2 / width * sum(spans) + 0.35 * (count + 1))
        grid = {"nrows": count + 1, "ncols": 1, "height_ratios": spans}
        mark, aspect = "axhline", 0.5 * height / width
    figure, axes = pyplot.subplots(figsize=size, layout="constrained", **grid)
    first, *others = axes.flat
    _show(first, last[:, number], f"frame {number}")
    getattr(first, mark)(place, color="tab:red", lw=1)
    for axis, (label, pixels) in zip(others, slices.items(), strict=True):
        _show(axis, pixels, label)
        axis.set_aspect(aspect * pixels.shape[2] / pixels.shape[1])
    _save(figure, save)
    return figure


def sweep_iterates(
    solver: LVTINO, y: Tensor, physics: Physics, **options: Any
) -> list[Tensor]:
    r"""
    Run a solver and keep the start and the video after every sweep.

    :param LVTINO solver: the solver, or another :class:`deepinv.optim.BaseOptim`.
    :param torch.Tensor y: measurement.
    :param deepinv.physics.Physics physics: measurement operator.
    :param options: further arguments of the call, such as ``seed`` and ``init``.
    :return: (list[torch.Tensor]) the start, then one video ``(B, C, T, H, W)`` per sweep;
        the last one is what the solver returns.

    |sep|

    :Examples:

        >>> import torch
        >>> from deepinv_lvtino import LVTINO, make_problem
        >>> from deepinv_lvtino.plotting import sweep_iterates
        >>> physics = make_problem("A", img_size=(3, 8, 32, 32))
        >>> y = physics(torch.rand(1, 3, 8, 32, 32))
        >>> len(sweep_iterates(LVTINO(), y, physics, seed=0))
        3
    """
    kept: list[Tensor] = []

    def keep(module: Any, inputs: tuple[Any, ...], output: dict[str, Any]) -> None:
        if not kept:
            kept.append(inputs[0]["est"][0].detach().clone())
        kept.append(output["est"][0].detach().clone())

    hook = solver.fixed_point.iterator.register_forward_hook(keep)
    try:
        solver(y, physics, **options)
    finally:
        hook.remove()
    return kept


def plot_sweeps(
    iterates: Sequence[Tensor] | Mapping[str, Sequence[Tensor]],
    *,
    frame: int | None = None,
    reference: Tensor | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Figure:
    r"""
    Strip of one frame over the sweeps of a run, or one strip per run.

    :param Sequence[torch.Tensor] iterates: successive videos ``(C, T, H, W)``, or with a
        batch axis of one, such as :func:`sweep_iterates` returns: the start, then the
        sweeps; or a dictionary from labels to such lists.
    :param int frame: number of the frame; the middle one by default.
    :param torch.Tensor reference: true video, shown at the end; the titles then say the
        PSNR of the frame.
    :param str save: image file to write, of a kind that matplotlib writes.
    :return: (matplotlib.figure.Figure) the figure.
    :raises ValueError: if there is no iterate, or sizes differ.
    """
    from matplotlib import pyplot

    runs = dict(iterates) if isinstance(iterates, Mapping) else {"": iterates}
    if not runs or not all(len(run) for run in runs.values()):
        msg = "`iterates` must hold one video or more; got none."
        raise ValueError(msg)
    named = {
        f"{label} {k}": video
        for label, run in runs.items()
        for k, video in enumerate(run)
    }
    truth = None if reference is None else _one_video("reference", reference)
    shown = _same_size(named if truth is None else named | {"reference": truth})
    _, frames, height, width = next(iter(shown.values())).shape
    number = _place("frame", frames // 2 if frame is None else frame, frames)
    columns = max(len(run) for run in runs.values()) + (truth is not None)
    figure, axes = pyplot.subplots(
        len(runs),
        columns,
        figsize=(2.2 * columns, (2.2 * height / width + 0.35) * len(runs)),
        layout="constrained",
        squeeze=False,
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for line, (label, run) in zip(axes, runs.items(), strict=True):
        for k in range(len(run)):
            image = shown[f"{label} {k}"][:, number]
            title = "start" if k == 0 else f"sweep {k}"
            if truth is not None:
                title += f", {_psnr(image, truth[:, number]):.1f} dB"
            _show(line[k], image, f"{label}\n{title}" if label and k == 0 else title)
        if truth is not None:
            _show(line[-1], truth[:, number], "reference")
    _save(figure, save)
    return figure


def write_side_by_side(
    path: str | os.PathLike[str],
    videos: Mapping[str, Tensor] | Sequence[Tensor],
    fps: Fraction | float | None = None,
    *,
    columns: int | None = None,
    gap: int = 4,
    **options: Any,
) -> Path:
    r"""
    Write several videos as one, side by side.

    :param str path: video file or folder, as for
        :func:`deepinv_lvtino.datasets.write_video`.
    :param dict[str, torch.Tensor] videos: from labels, written above each, to videos
        ``(C, T, H, W)``, all of one size, values in [0, 1]; or a list, without labels.
    :param fractions.Fraction, float fps: frames per second.
    :param int columns: videos per line; all in one line by default.
    :param int gap: white pixels between them.
    :param options: further arguments of ``write_video``, such as ``overwrite``.
    :return: (pathlib.Path) the path.
    :raises ValueError: if there is no video, sizes differ, ``columns`` is not positive or
        ``gap`` is negative.
    :raises FileExistsError: if the output exists and may not be replaced.
    """
    labelled = isinstance(videos, Mapping)
    named = (
        dict(videos)
        if isinstance(videos, Mapping)
        else {str(index): video for index, video in enumerate(videos)}
    )
    shown = _same_size(named)
    columns = len(shown) if columns is None else columns
    if columns < 1 or gap < 0:
        msg = (
            f"`columns` must be 1 or more and `gap` 0 or more; got {columns} and {gap}."
        )
        raise ValueError(msg)
    tiles = []
    for label, video in shown.items():
        video = video.detach().to("cpu", torch.float32).clamp(0, 1)
        video = video.expand(3, *video.shape[1:])
        if labelled:
            strip = _label(label, video.shape[-1])[:, None]
            strip = strip.expand(-1, video.shape[1], -1, -1)
            video = torch.cat([strip, video], dim=2)
        tiles.append(video)
    blank = torch.full_like(tiles[0], _PAPER)
    tiles += [blank] * (-len(tiles) % columns)
    lines = [
        _joined(tiles[start : start + columns], 3, gap)
        for start in range(0, len(tiles), columns)
    ]
    return write_video(path, _joined(lines, 2, gap), fps, **options)


def _one_video(name: str, video: Tensor) -> Tensor:
    check_tensor(name, video)
    if video.ndim == 5 and len(video) == 1:
        video = video[0]
    if video.ndim != 4 or video.shape[0] not in (1, 3) or video.numel() == 0:
        msg = (
            f"`{name}` must be one video (C, T, H, W) with one or three channels; got "
            f"shape {tuple(video.shape)}. Take one of a batch with `video[0]`."
        )
        raise ValueError(msg)
    return video


def _same_size(videos: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if not videos:
        msg = "`videos` must hold one video or more; got none."
        raise ValueError(msg)
    shown = {label: _one_video("videos", video) for label, video in videos.items()}
    sizes = {label: tuple(video.shape[1:]) for label, video in shown.items()}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{label} {size}" for label, size in sizes.items())
        msg = (
            f"`videos` must be of one size (T, H, W); got {listed}. Enlarge a measurement "
            "first, for example with `repeat_interleave`."
        )
        raise ValueError(msg)
    return shown


def _place(name: str, place: int, size: int) -> int:
    if not -size <= check_integer(name, place) < size:
        msg = (
            f"`{name}` must lie in 0 to {size - 1}, or from -{size} to -1; got {place}."
        )
        raise ValueError(msg)
    return place % size


def _show(axis: Any, pixels: Tensor, title: str) -> None:
    values = pixels.detach().clamp(0, 1).to("cpu", torch.float32)
    image = values.expand(3, -1, -1).permute(1, 2, 0).numpy()
    axis.imshow(image, interpolation="nearest")
    axis.set_title(title, fontsize=9)
    axis.set_axis_off()


def _psnr(image: Tensor, truth: Tensor) -> float:
    error = (image.clamp(0, 1) - truth.to(image)).square().mean()
    return float(-10 * error.clamp(min=1e-10).log10())


def _save(figure: Figure, path: str | os.PathLike[str] | None) -> None:
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)


def _label(text: str, width: int) -> Tensor:
    """A strip of paper with a line of text, ``(3, height, width)``."""
    from PIL import Image, ImageDraw, ImageFont

    strip = Image.new("L", (width, _LABEL_HEIGHT), 255)
    font = ImageFont.load_default(size=14)
    ImageDraw.Draw(strip).text((4, 2), text, 20, font=font)
    grey = torch.from_numpy(np.array(strip, dtype=np.float32) / 255)
    return grey.expand(3, -1, -1)


def _joined(parts: Sequence[Tensor], axis: int, gap: int) -> Tensor:
    shape = list(parts[0].shape)
    shape[axis] = gap
    paper = parts[0].new_full(shape, _PAPER)
    pieces = [parts[0]]
    for part in parts[1:]:
        pieces += [paper, part]
    return torch.cat(pieces, dim=axis)
