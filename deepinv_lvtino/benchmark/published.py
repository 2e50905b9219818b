r"""
Results quoted from the LVTINO paper, in the layout of the measured ones.

They are data, not measurements of this package: 25 frames of 1280×768, noise 0.001, on
videos of Adobe240 and GoPro240.
"""

from __future__ import annotations

from typing import Any

#: Where the numbers are from.
SOURCE = "A. Spagnoletti, A. Almansa, M. Pereyra: LVTINO, arXiv:2510.01339, 2025"

_COLUMNS = ("fvmd", "psnr", "ssim", "lpips")

_VALUES = {
    ("Adobe240", "LVTINO"): {
        "A": (371.1, 27.25, 0.837, 0.249),
        "B": (42.65, 24.91, 0.741, 0.370),
        "C": (602.5, 23.11, 0.697, 0.411),
    },
    ("Adobe240", "VISION-XL"): {
        "A": (1141.0, 26.03, 0.672, 0.439),
        "B": (82.92, 26.18, 0.749, 0.468),
        "C": (1604.0, 23.38, 0.652, 0.520),
    },
    ("Adobe240", "ADMM-TV"): {
        "A": (427.6, 18.04, 0.767, 0.297),
        "B": (128.2, 21.18, 0.644, 0.452),
        "C": (1645.0, 18.15, 0.663, 0.439),
    },
    ("GoPro240", "LVTINO"): {
        "A": (189.4, 24.01, 0.775, 0.315),
        "B": (46.20, 22.46, 0.687, 0.433),
        "C": (232.6, 22.91, 0.677, 0.445),
    },
}

#: Published scores: rows with ``data``, ``problem``, ``solver`` and ``scores``.
PUBLISHED_SCORES: list[dict[str, Any]] = sorted(
    (
        {
            "data": data,
            "problem": problem,
            "solver": solver,
            "scores": dict(zip(_COLUMNS, values, strict=True)),
        }
        for (data, solver), problems in _VALUES.items()
        for problem, values in problems.items()
    ),
    key=lambda row: (row["data"], row["problem"]),
)

#: Published run time in seconds, memory in GB and network evaluations, by solver.
PUBLISHED_COST: dict[str, dict[str, float | None]] = {
    "LVTINO": {"seconds": 132.0, "memory": 35.15, "evaluations": 9},
    "LVTINO-V": {"seconds": 105.0, "memory": 25.42, "evaluations": 5},
    "VISION-XL": {"seconds": 176.0, "memory": 15.64, "evaluations": 8},
    "ADMM-TV": {"seconds": 13.6, "memory": 22.01, "evaluations": None},
}
