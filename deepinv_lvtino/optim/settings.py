r"""Settings of a solver in a file: what tuning found, and what is to be used again."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepinv_lvtino._schema import (
    Check,
    choice,
    integer,
    listing,
    number,
    optional,
    read_json,
    record,
    text,
)
from deepinv_lvtino._staging import Stage
from deepinv_lvtino.optim.calibrated import CalibratedSchedule
from deepinv_lvtino.optim.starts import STARTS
from deepinv_lvtino.utils import check_positive

#: Version of the files.
VERSION = 1

#: Variations of the data step that a file can name.
VARIATIONS = ("temporal", "spacetime", "motion")

_STEPS = listing(number(0, 100, above=True), 100, 1)
_FIELDS: dict[str, Check] = {
    "deepinv_lvtino_settings": integer(VERSION, VERSION),
    "delta": _STEPS,
    "eta": optional(number(0, 1)),
    "init": choice(*STARTS),
    "tv": optional(choice(*VARIATIONS)),
    "lambda_reg": number(0, 1e6, above=True),
    "operator": optional(text(10_000)),
    "found": record(
        {
            "criterion": text(),
            "value": number(-100, 1000),
            "one sample": number(-100, 1000),
            "of what the package has": number(-100, 1000),
            "trials": integer(1, 10**9),
            "clips": listing(text(), 10_000),
            "sigma": number(0, 100),
            "size": listing(integer(1, 10**6), 3, 3),
        }
    ),
}
_CHECK = record(_FIELDS, missing=("found", "operator"))


@dataclass(frozen=True)
class Settings:
    r"""
    Schedule and variation of :class:`LVTINO`.

    :param CalibratedSchedule schedule: steps, weight of the video prior, start.
    :param str tv: variation in the data step: ``'temporal'``, ``'spacetime'``,
        ``'motion'`` or ``None``.
    :param float lambda_reg: its weight.
    :raises TypeError: if the schedule is no calibrated one; others have solvers and times
        of their own, which are code and not numbers.
    :raises ValueError: if ``tv`` is another one, or the weight is not positive.

    |sep|

    :Examples:

        >>> from deepinv_lvtino import LVTINO, Schedule
        >>> from deepinv_lvtino.optim import Settings
        >>> settings = Settings(Schedule.embedded("A"))
        >>> LVTINO(**settings.options).num_evaluations
        3
    """

    schedule: CalibratedSchedule
    tv: str | None = None
    lambda_reg: float = 10.0

    def __post_init__(self) -> None:
        if not isinstance(self.schedule, CalibratedSchedule):
            msg = (
                "`schedule` must be a calibrated one, such as Schedule.embedded('A'), to "
                f"be stored in a file; got {type(self.schedule).__name__}."
            )
            raise TypeError(msg)
        if self.schedule.init not in STARTS or self.schedule.clamp is not None:
            msg = (
                "`schedule` must start from a name among STARTS and project nothing, to be "
                f"stored in a file; got init={self.schedule.init!r}, "
                f"clamp={self.schedule.clamp!r}."
            )
            raise ValueError(msg)
        if self.tv is not None and self.tv not in VARIATIONS:
            names = ", ".join(map(repr, VARIATIONS))
            msg = f"`tv` must be one of {names}, or None; got {self.tv!r}."
            raise ValueError(msg)
        check_positive("lambda_reg", self.lambda_reg)

    @property
    def options(self) -> dict[str, Any]:
        """What :class:`LVTINO` is to be called with."""
        return {
            "schedule": self.schedule,
            "tv": self.tv,
            "lambda_reg": self.lambda_reg,
        }

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        operator: str | None = None,
        found: dict[str, Any] | None = None,
        overwrite: bool = False,
    ) -> None:
        r"""
        Write a file of JSON, complete or not at all.

        :param str path: the file.
        :param str operator: description of the operator that they are for.
        :param dict found: how they were found, see :class:`deepinv_lvtino.tuning.Tuning`.
        :param bool overwrite: replace a file that exists.
        :raises FileExistsError: if it exists and may not be replaced.
        """
        path = Path(path)
        document = {
            "deepinv_lvtino_settings": VERSION,
            "delta": list(self.schedule.delta),
            "eta": self.schedule.eta,
            "init": self.schedule.init,
            "tv": self.tv,
            "lambda_reg": self.lambda_reg,
            **({} if operator is None else {"operator": operator}),
            **({} if found is None else {"found": found}),
        }
        _CHECK("", document)

        def allowed() -> None:
            if path.exists() and not overwrite:
                msg = (
                    f"`path`: {path} exists. Choose another name, or allow to replace it "
                    "(`overwrite=True`)."
                )
                raise FileExistsError(msg)

        with Stage([path], allowed=allowed) as stage:
            content = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
            stage.path(path).write_text(content, encoding="utf-8")
            stage.commit()

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Settings:
        r"""
        Read a file of :meth:`save`.

        :param str path: the file.
        :return: (Settings) the settings.
        :raises OSError: if it cannot be read.
        :raises ValueError: if it is no file of settings, or of another version; the
            message names the file and the field.
        """
        document = read_json(Path(path), _CHECK)
        if unknown := sorted(set(document) - set(_FIELDS)):
            msg = f"{path}: no settings have {', '.join(unknown)}. Remove it."
            raise ValueError(msg)
        schedule = CalibratedSchedule(
            delta=tuple(document["delta"]), eta=document["eta"], init=document["init"]
        )
        return cls(schedule, document["tv"], document["lambda_reg"])
