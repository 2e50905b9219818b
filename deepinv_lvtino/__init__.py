r"""
LVTINO for DeepInverse: zero-shot restoration of degraded, high-definition video.

``LVTINO(...)(y, physics)`` returns one posterior sample of the video behind a measurement.
The names below are imported on first use, so that the package itself costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepinv_lvtino import (
        benchmark,
        datasets,
        metrics,
        models,
        optim,
        physics,
        plotting,
    )
    from deepinv_lvtino.optim import LVTINO, Schedule
    from deepinv_lvtino.physics import make_problem

__version__ = "0.1.0"

__all__ = [
    "LVTINO",
    "Schedule",
    "benchmark",
    "datasets",
    "make_problem",
    "metrics",
    "models",
    "optim",
    "physics",
    "plotting",
]

_HOME = {"LVTINO": "optim", "Schedule": "optim", "make_problem": "physics"}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        module = importlib.import_module(f"{__name__}.{_HOME[name]}")
        return getattr(module, name)
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
