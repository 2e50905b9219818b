r"""
Benchmarks: solvers, problems and clips to one table.

``Benchmark(folder, solvers, problems, clips).run()``, or ``deepinv-lvtino benchmark``. (The
scripts that measured the figures of the documentation are in the folder ``benchmarks``.)
"""

from __future__ import annotations

from deepinv_lvtino.benchmark.clips import Clip, find_clips
from deepinv_lvtino.benchmark.published import PUBLISHED_COST, PUBLISHED_SCORES
from deepinv_lvtino.benchmark.results import Results, Row, quoted_rows
from deepinv_lvtino.benchmark.run import Benchmark
from deepinv_lvtino.benchmark.scores import SCORES, Score, make_metrics
from deepinv_lvtino.benchmark.solvers import (
    SOLVERS,
    Models,
    NotApplicable,
    Setting,
    Solver,
)

__all__ = [
    "PUBLISHED_COST",
    "PUBLISHED_SCORES",
    "SCORES",
    "SOLVERS",
    "Benchmark",
    "Clip",
    "Models",
    "NotApplicable",
    "Results",
    "Row",
    "Score",
    "Setting",
    "Solver",
    "find_clips",
    "make_metrics",
    "quoted_rows",
]
