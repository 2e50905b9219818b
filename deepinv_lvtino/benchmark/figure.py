r"""The figure of a benchmark: bars by score, problem and solver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepinv_lvtino.benchmark.scores import heading

if TYPE_CHECKING:
    from deepinv_lvtino.benchmark.results import Row

_PANEL, _COLUMNS = (4.4, 2.7), 3


def draw_bars(
    path: Path,
    rows: Sequence[Row],
    scores: Sequence[str],
    clean: Mapping[str, Mapping[str, float | None]] | None = None,
) -> None:
    r"""
    One panel per score and one for the time; groups of problems, a bar per solver.

    :param pathlib.Path path: PNG file to write.
    :param Sequence[Row] rows: the lines of the table, as measured.
    :param Sequence[str] scores: names of the scores.
    :param dict clean: scores of the clean clips, by data; dashed lines.
    """
    import matplotlib as mpl
    from matplotlib import pyplot

    several = len({row.data for row in rows}) > 1
    groups = list(dict.fromkeys((row.data, row.problem) for row in rows))
    solvers = list(dict.fromkeys(row.solver for row in rows))
    panels = [*scores, "seconds"]
    lines = -(-len(panels) // _COLUMNS)
    columns = min(_COLUMNS, len(panels))
    colours = mpl.colormaps["tab10"]
    figure, axes = pyplot.subplots(
        lines,
        columns,
        figsize=(_PANEL[0] * columns, _PANEL[1] * lines + 0.5),
        layout="constrained",
        squeeze=False,
    )
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for axis, name in zip(axes.flat, panels, strict=False):
        width = 0.8 / max(len(solvers), 1)
        for k, solver in enumerate(solvers):
            places, heights = [], []
            for row in rows:
                value = row.seconds if name == "seconds" else row.scores.get(name)
                if row.solver == solver and value is not None:
                    group = groups.index((row.data, row.problem))
                    places.append(group + (k - (len(solvers) - 1) / 2) * width)
                    heights.append(value)
            axis.bar(
                places, heights, width, color=colours(k % 10), label=_plain(solver)
            )
        for group, (data, _) in enumerate(groups):
            level = (clean or {}).get(data, {}).get(name)
            if level is not None:
                label = None if group else "clean clip"
                ends = group - 0.45, group + 0.45
                axis.hlines(level, *ends, "black", "dashed", lw=1, label=label)
        axis.set_xticks(
            range(len(groups)),
            [
                f"{_lines(problem)}\n{_plain(data)}" if several else _lines(problem)
                for data, problem in groups
            ],
            fontsize=8,
        )
        axis.set_title(_title(name), fontsize=9)
        axis.tick_params(axis="y", labelsize=8)
        if name == "seconds":
            axis.set_yscale("log")
        elif name == "psnr":
            _cut(axis, [row.scores.get(name) for row in rows])
    entries: dict[str, Any] = {}
    for axis in axes.flat:
        handles, labels = axis.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    if entries:
        figure.legend(
            list(entries.values()),
            list(entries),
            loc="outside lower center",
            ncols=5,
            fontsize=8,
        )
    figure.savefig(path, dpi=120, format="png")
    pyplot.close(figure)


def _plain(text: str) -> str:
    """A name as it is, though it may look like a formula."""
    return text.replace("$", r"\$")


def _lines(problem: str) -> str:
    """A description with one step a line."""
    return _plain(problem).replace(", ", ",\n")


def _title(name: str) -> str:
    if name == "seconds":
        return "seconds ↓ (logarithmic)"
    return heading(name)


def _cut(axis: Any, values: Sequence[float | None]) -> None:
    """Decibels have no zero: begin a little below the lowest."""
    known = [value for value in values if value is not None]
    if known:
        least, most = min(known), max(known)
        room = 0.1 * (most - least) + 0.5
        axis.set_ylim(least - room, most + room)
