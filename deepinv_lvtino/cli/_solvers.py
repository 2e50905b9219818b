r"""The solver that the options ask for."""

from __future__ import annotations

import argparse
import sys
from typing import Any

import torch

from deepinv_lvtino import LVTINO, Schedule
from deepinv_lvtino.cli._errors import UserError, user_errors
from deepinv_lvtino.cli._models import published_models
from deepinv_lvtino.cli._tasks import AnyTask
from deepinv_lvtino.models.adapter import measure_pixel_scales
from deepinv_lvtino.optim import CalibratedSchedule, SweepPlan
from deepinv_lvtino.optim.published import PUBLISHED_PROBLEMS
from deepinv_lvtino.optim.settings import Settings
from deepinv_lvtino.physics.problems import Problem


def make_solver(arguments: argparse.Namespace, device: torch.device) -> LVTINO:
    """Solver with the embedded models, its options checked; see :func:`solver_for`."""
    with user_errors():
        schedule = Schedule.calibrated(eta=arguments.eta, num_steps=arguments.steps)
        return LVTINO(schedule=schedule, seed=arguments.seed).to(device)


def solver_for(arguments: argparse.Namespace, task: AnyTask, solver: LVTINO) -> LVTINO:
    """The solver with the schedule of a problem, and the models asked for."""
    video, image = solver.video_model, solver.image_model
    published = is_published(arguments)
    given = load_settings(arguments)
    options: dict[str, Any]
    if given is not None and task.problem.linear:
        options = given.options
    elif given is not None:
        msg = (
            f"--settings cannot be followed for problem {task.problem.name}, which is not "
            "linear: its schedule is the published one. Leave it out."
        )
        raise UserError(msg)
    else:
        asked = solver.schedule
        options = {"schedule": _schedule_for(arguments, task.problem, asked, published)}
    if published:
        print("loading the published models", flush=True)
        load = getattr(arguments, "load_models", published_models)
        video, image = load(arguments, task.device)
        if isinstance(options["schedule"], CalibratedSchedule):
            measure_pixel_scales((video, image), *task.excerpt(), arguments.seed)
    with user_errors():
        return LVTINO(
            video,
            image,
            **options,
            seed=arguments.seed,
            show_progress_bar=sys.stderr.isatty(),
        )


def load_settings(arguments: argparse.Namespace) -> Settings | None:
    """What ``--settings`` names, and nothing that contradicts it."""
    path = getattr(arguments, "settings", None)
    if path is None:
        return None
    for option, value in (("--steps", arguments.steps), ("--eta", arguments.eta)):
        if value is not None:
            msg = f"--settings has what {option} says, too. Leave one of them out."
            raise UserError(msg)
    if is_published(arguments):
        msg = "--settings are of the embedded models: leave out --model, or --settings."
        raise UserError(msg)
    with user_errors():
        return Settings.load(path)


def is_published(arguments: argparse.Namespace) -> bool:
    return getattr(arguments, "model", "embedded") == "wan"


def _schedule_for(
    arguments: argparse.Namespace, problem: Problem, asked: SweepPlan, published: bool
) -> SweepPlan:
    """
    The schedule of a problem: what the options ask for, else the setting made for it.

    Settings exist for the embedded models, and published ones for the published models,
    of which one alone may be used.
    """
    alone = arguments.eta in (0, 1)
    if problem.linear:
        if not published:
            return Schedule.embedded(problem.name, arguments.eta, arguments.steps)
        explicit = arguments.steps is not None or not (arguments.eta is None or alone)
        if explicit or problem.name not in PUBLISHED_PROBLEMS:
            return asked
        return Schedule.published(problem.name)
    eta = None if published and alone else arguments.eta
    for option, value in (("--steps", arguments.steps), ("--eta", eta)):
        if value is not None:
            msg = (
                f"{option} cannot be followed for problem {problem.name}, which is not "
                "linear: its schedule is the published one. Leave it out."
            )
            raise UserError(msg)
    return Schedule.published(problem.name)
