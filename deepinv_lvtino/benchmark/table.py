r"""Tables for people: what is in them once, Markdown and HTML from that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from deepinv_lvtino.benchmark.published import PUBLISHED_COST
from deepinv_lvtino.benchmark.scores import SCORES, heading

if TYPE_CHECKING:
    from deepinv_lvtino.benchmark.results import Row

_COSTS = ("seconds ↓", "memory (GB) ↓", "network evaluations")
_NOTHING = "–"


@dataclass(frozen=True)
class Entry:
    r"""
    One entry of a table.

    :param str text: what is shown.
    :param bool best: whether it is the best of its group, and is set in bold.
    """

    text: str
    best: bool = False


@dataclass(frozen=True)
class Table:
    r"""
    A table: columns of words on the left, columns of numbers on the right.

    :param list[str] titles: of the columns.
    :param list[list[Entry]] rows: the lines.
    :param int words: number of columns of words.
    """

    titles: list[str]
    rows: list[list[Entry]]
    words: int

    def to_markdown(self) -> list[str]:
        r"""
        The table in Markdown.

        :return: (list[str]) its lines.
        """
        numbers = len(self.titles) - self.words
        lines = [
            _line(self.titles),
            _line(["---"] * self.words + ["---:"] * numbers),
        ]
        for row in self.rows:
            lines.append(
                _line([f"**{one.text}**" if one.best else one.text for one in row])
            )
        return lines

    def to_html(self) -> str:
        r"""
        The table in HTML.

        :return: (str) one element ``table``.
        """
        head = "".join(f"<th>{escape(title)}</th>" for title in self.titles)
        body = "".join(
            "<tr>"
            + "".join(
                f"<td><b>{escape(one.text)}</b></td>"
                if one.best
                else f"<td>{escape(one.text)}</td>"
                for one in row
            )
            + "</tr>"
            for row in self.rows
        )
        return (
            '<table class="numbers table">'
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        )


def score_table(rows: Sequence[Row], columns: Sequence[str]) -> Table:
    r"""
    Scores of solvers, the best of each problem and data in bold, and costs if there are.

    :param Sequence[Row] rows: the lines.
    :param Sequence[str] columns: names of the scores.
    :return: (Table) the table.
    """
    timed = any(row.seconds is not None for row in rows)
    titles = ["data", "problem", "solver", *map(heading, columns)]
    titles += _COSTS if timed else ()
    lines = []
    for row in rows:
        rivals = [r for r in rows if (r.data, r.problem) == (row.data, row.problem)]
        line = [Entry(word) for word in (row.data, row.problem, row.solver)]
        for name in columns:
            value = row.scores.get(name)
            best = value is not None and value == _best(name, rivals)
            line.append(Entry(score_text(name, value), best and len(rivals) > 1))
        if timed:
            costs = row.seconds, row.memory, row.evaluations
            line += [Entry(_number(cost, ".3g")) for cost in costs]
        lines.append(line)
    return Table(titles, lines, words=3)


def published_cost_table() -> Table:
    r"""
    Run time and memory as published.

    :return: (Table) the table.
    """
    rows = [
        [
            Entry(solver),
            *(
                Entry(_number(cost[key], "g"))
                for key in ("evaluations", "seconds", "memory")
            ),
        ]
        for solver, cost in PUBLISHED_COST.items()
    ]
    seconds, memory, evaluations = _COSTS
    return Table(["solver", evaluations, seconds, memory], rows, words=1)


def score_text(name: str, value: float | None) -> str:
    r"""
    A score with the digits that its name has.

    :param str name: name of the score.
    :param float value: its value, or ``None``.
    :return: (str) the text.
    """
    if value is None:
        return _NOTHING
    return f"{value:#.{SCORES[name].digits}g}".removesuffix(".")


def _best(name: str, rows: Sequence[Row]) -> float | None:
    values = [row.scores.get(name) for row in rows]
    known = [value for value in values if value is not None]
    if not known or not SCORES[name].ranked:
        return None
    return max(known) if SCORES[name].higher_better else min(known)


def _number(value: float | None, form: str) -> str:
    return _NOTHING if value is None else format(value, form)


def _line(texts: Sequence[str]) -> str:
    return f"| {' | '.join(text.replace('|', chr(92) + '|') for text in texts)} |"
