r"""The table of a benchmark: from cells to CSV, Markdown, JSON and a figure."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deepinv_lvtino._schema import (
    integer,
    listing,
    number,
    optional,
    record,
    table,
    text,
)
from deepinv_lvtino._staging import Stage
from deepinv_lvtino.benchmark.figure import draw_bars
from deepinv_lvtino.benchmark.published import (
    PUBLISHED_COST,
    PUBLISHED_SCORES,
    SOURCE,
)
from deepinv_lvtino.benchmark.scores import SCORES
from deepinv_lvtino.benchmark.table import (
    published_cost_table,
    score_table,
    score_text,
)

if TYPE_CHECKING:
    import pandas

#: Files that :meth:`Results.write` writes.
FILES = ("benchmark.csv", "benchmark.md", "benchmark.json", "benchmark.png")

_NAME = text(1000)
_SCORES = table(optional(number(-1e30, 1e30)))
_FACTS = table(optional(text()))

#: Check of a cell as it is kept: all that the table reads.
CELL = record(
    {
        "clip": _NAME,
        "data": _NAME,
        "problem": _NAME,
        "solver": _NAME,
        "shape": listing(integer(1, 10**7), 4, shortest=4),
        "sigma": optional(number(0, 1e3)),
        "alignment": _NAME,
        "seed": integer(0, 2**64 - 1),
        "num_samples": integer(1, 10**9),
        "eta": optional(number(0, 1)),
        "models": _NAME,
        "scores": _SCORES,
        "clean": _SCORES,
        "seconds": number(0, 1e12),
        "memory": optional(number(0, 1e9)),
        "evaluations": optional(integer(1, 10**12)),
        "identity": table(text(), 100_000),
        "state": listing(text(), 100_000),
        "device": text(),
        "processor": text(),
        "versions": _FACTS,
    },
    missing=("memory", "evaluations", "identity", "state"),
)


@dataclass(frozen=True)
class Row:
    r"""
    One line of the table: means over the clips of the same data.

    :param str data: what the clips are.
    :param str problem: name of the problem.
    :param str solver: label of the solver.
    :param int clips: number of clips; 0 for what is quoted.
    :param dict[str, float] scores: mean of each score; ``None`` where there is none.
    :param dict[str, float] spread: standard deviation of each score over the clips.
    :param float seconds: mean time of a call, or ``None``.
    :param float memory: largest memory of a call in GB, or ``None``: on a CUDA device what
        PyTorch takes, on the CPU what is resident beyond that before the call.
    :param float evaluations: mean number of network evaluations of a call, or ``None``.
    """

    data: str
    problem: str
    solver: str
    clips: int
    scores: dict[str, float | None]
    spread: dict[str, float | None] = field(default_factory=dict)
    seconds: float | None = None
    memory: float | None = None
    evaluations: float | None = None


def quoted_rows() -> list[Row]:
    r"""
    The published results, quoted from the paper, as rows.

    :return: (list[Row]) the rows; nothing in them was measured here.
    """
    return [Row(clips=0, **entry) for entry in PUBLISHED_SCORES]


@dataclass(frozen=True)
class Results:
    r"""
    What a benchmark found.

    :param list[Row] rows: the lines, as measured.
    :param list[str] scores: names of the scores.
    :param list[dict] cells: the cells behind them, with seeds, versions and hardware.
    :param dict skipped: reason by problem and solver, where a solver has no answer.
    :param dict solvers: what the solvers are, by label.
    """

    rows: list[Row]
    scores: list[str]
    cells: list[dict[str, Any]]
    skipped: dict[tuple[str, str], str]
    solvers: dict[str, str]

    def write(self, folder: Path, *, published: bool = False) -> list[Path]:
        r"""
        Write ``benchmark.csv``, ``benchmark.md``, ``benchmark.json`` and the figure
        ``benchmark.png``.

        :param pathlib.Path folder: folder to write into.
        :param bool published: whether the published results are added, as quoted.
        :return: (list[pathlib.Path]) the files; they appear together, or not at all.
        :raises BlockingIOError: if another run is writing them.
        """
        files = [Path(folder) / name for name in FILES]
        with Stage(files) as stage:
            self.write_into(stage, published=published)
        return files

    def write_into(self, stage: Stage, *, published: bool = False) -> None:
        r"""
        The same for outputs that are claimed already.

        :param stage: outputs named as in ``FILES``.
        :param bool published: whether the published results are added, as quoted.
        """
        table, page, data, figure = map(stage.path, stage.outputs)
        _write(page, self.to_markdown(published=published))
        text = json.dumps(
            self.to_dict(published=published), indent=2, ensure_ascii=False
        )
        _write(data, text + "\n")
        self._write_csv(table, published)
        draw_bars(figure, self.rows, self.scores, _clean(self.cells))
        stage.commit()

    def to_dict(self, *, published: bool = False) -> dict[str, Any]:
        r"""
        Everything, for JSON.

        :param bool published: whether the published results are added, as quoted.
        :return: (dict) measured rows, cells, and what was left out; quoted rows apart.
        """
        content: dict[str, Any] = {
            "measured": [asdict(row) for row in self.rows],
            "solvers": self.solvers,
            "not_applicable": [
                {"problem": problem, "solver": solver, "reason": reason}
                for (problem, solver), reason in self.skipped.items()
            ],
            "cells": self.cells,
        }
        if published:
            content["quoted"] = {
                "source": SOURCE,
                "rows": [asdict(row) for row in quoted_rows()],
                "cost": PUBLISHED_COST,
            }
        return content

    def to_markdown(self, *, published: bool = False) -> str:
        r"""
        The table for people.

        :param bool published: whether the published results are added, as quoted.
        :return: (str) Markdown.
        """
        columns = self._columns(published)
        lines = ["# Benchmark", "", "## Measured", ""]
        lines += score_table(self.rows, columns).to_markdown()
        lines += ["", *self._notes()]
        if published:
            lines += [
                "",
                "## Quoted from the paper, not measured here",
                "",
                f"{SOURCE}: 25 frames of 1280x768, noise 0.001.",
                "",
                *score_table(quoted_rows(), columns).to_markdown(),
                "",
                "Run time and memory, as published:",
                "",
                *published_cost_table().to_markdown(),
            ]
        return "\n".join(lines) + "\n"

    def to_dataframe(self) -> pandas.DataFrame:
        r"""
        The measured rows for pandas: one column for each score, cost and name.

        :return: (pandas.DataFrame) the rows; what is not known is NaN.
        :raises ImportError: if pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            msg = f"`to_dataframe` needs pandas ({error}): pip install pandas"
            raise ImportError(msg) from error
        records = [asdict(row) for row in self.rows]
        for one in records:
            spread = one.pop("spread")
            one |= one.pop("scores")
            one |= {f"{name} spread": value for name, value in spread.items()}
        return pandas.DataFrame.from_records(records)

    def _repr_html_(self) -> str:
        """The measured rows as a table, which notebooks and the gallery show."""
        return score_table(self.rows, self._columns(False)).to_html()

    def _columns(self, published: bool) -> list[str]:
        quoted = set(PUBLISHED_SCORES[0]["scores"]) if published else set()
        return [name for name in SCORES if name in {*self.scores, *quoted}]

    def _notes(self) -> list[str]:
        notes = [
            "Means over the clips, of the memory the largest; the best of each group in "
            "bold.",
            "Memory: on a GPU the largest that is taken, on a CPU by how much the largest "
            "resident memory exceeds that before the call.",
        ]
        notes += [
            f"`{label}`: {description}." for label, description in self.solvers.items()
        ]
        clean = _clean(self.cells)
        for name in sorted({name for values in clean.values() for name in values}):
            listed = ", ".join(
                f"{data} {score_text(name, values.get(name))}"
                for data, values in clean.items()
            )
            notes.append(
                f"The {SCORES[name].label} of the clean clips, which is the goal: "
                f"{listed}."
            )
        notes += [
            f"`{solver}` has no answer to problem {problem}: {reason}."
            for (problem, solver), reason in self.skipped.items()
        ]
        for key, word in (
            ("shape", "Videos (channels, frames, height, width)"),
            ("sigma", "Noise"),
            ("alignment", "Pixel grid"),
            ("seed", "Seed"),
            ("num_samples", "Samples of a mean"),
            ("eta", "Weight of the video prior"),
            ("models", "Models"),
            ("device", "Device"),
            ("processor", "Processor"),
            ("versions", "Versions"),
        ):
            own = key == "sigma"
            values = list(
                dict.fromkeys(
                    "that of the physics"
                    if own and cell[key] is None
                    else _plain(cell[key])
                    for cell in self.cells
                )
            )
            if values and values != ["default"]:
                notes.append(f"{word}: {'; '.join(values)}")
        return [f"- {note}" for note in notes]

    def _write_csv(self, path: Path, published: bool) -> None:
        columns = self._columns(published)
        with path.open(
            "w", encoding="utf-8", newline="", errors="backslashreplace"
        ) as file:
            writer = csv.writer(file)
            writer.writerow(
                ["source", "data", "problem", "solver", "clips", *columns, "seconds"]
                + ["memory", "evaluations"]
            )
            groups = [("measured", self.rows)]
            groups += [("quoted", quoted_rows())] if published else []
            for source, rows in groups:
                for row in rows:
                    values = [row.scores.get(name) for name in columns]
                    writer.writerow(
                        [source, row.data, row.problem, row.solver, row.clips or None]
                        + [*values, row.seconds, row.memory, row.evaluations]
                    )


def summarise(
    cells: Sequence[dict[str, Any]],
    skipped: dict[tuple[str, str], str],
    *,
    scores: Sequence[str],
    solvers: dict[str, str],
    features: Callable[[dict[str, Any]], tuple[np.ndarray, np.ndarray]],
    distance: Callable[[np.ndarray, np.ndarray], float] | None = None,
) -> Results:
    r"""
    Mean over the clips of the same data.

    :param Sequence[dict] cells: cells, in the order of the rows.
    :param dict skipped: reason by problem and solver, where a solver has no answer.
    :param Sequence[str] scores: names of the scores.
    :param dict solvers: what the solvers are, by label.
    :param Callable features: from a cell to its features, for scores of sets.
    :param Callable distance: between two sets of features, for scores of sets.
    :return: (:class:`Results`) the rows and the cells.
    """
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for cell in cells:
        key = cell["data"], cell["problem"], cell["solver"]
        groups.setdefault(key, []).append(cell)
    rows = []
    for (data, problem, solver), group in groups.items():
        means: dict[str, float | None] = {}
        spread: dict[str, float | None] = {}
        for name in scores:
            if SCORES[name].of_sets:
                parts = [features(cell) for cell in group]
                estimate, reference = map(np.concatenate, zip(*parts, strict=True))
                means[name] = (
                    None if distance is None else distance(estimate, reference)
                )
                continue
            values = [cell["scores"][name] for cell in group]
            known = [value for value in values if value is not None]
            means[name] = float(np.mean(known)) if known else None
            spread[name] = float(np.std(known, ddof=1)) if len(known) > 1 else None
        memory = _known(group, "memory")
        evaluations = _known(group, "evaluations")
        rows.append(
            Row(
                data,
                problem,
                solver,
                len(group),
                means,
                spread,
                float(np.mean([cell["seconds"] for cell in group])),
                max(memory) if memory else None,
                float(np.mean(evaluations)) if evaluations else None,
            )
        )
    return Results(rows, list(scores), list(cells), skipped, solvers)


def _known(cells: Sequence[dict[str, Any]], key: str) -> list[float]:
    return [cell[key] for cell in cells if cell.get(key) is not None]


def _clean(cells: Sequence[dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Scores of the clean clips, by data."""
    clips = {(cell["data"], cell["clip"]): cell["clean"] for cell in cells}
    found: dict[str, dict[str, float | None]] = {}
    for data in dict.fromkeys(data for data, _ in clips):
        parts = [clean for (where, _), clean in clips.items() if where == data]
        for name in parts[0]:
            known = [part[name] for part in parts if part.get(name) is not None]
            mean = float(np.mean(known)) if known else None
            found.setdefault(data, {})[name] = mean
    return found


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {entry}" for key, entry in value.items())
    if isinstance(value, list):
        return "x".join(map(str, value))
    return "default" if value is None else str(value)


def _write(path: Path, text: str) -> None:
    # names of files may hold what is no text
    path.write_text(text, encoding="utf-8", errors="backslashreplace")
