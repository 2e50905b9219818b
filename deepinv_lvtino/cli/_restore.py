r"""The command ``restore``."""

from __future__ import annotations

import argparse
from pathlib import Path

from deepinv_lvtino.cli._errors import UserError
from deepinv_lvtino.cli._long import restore_long
from deepinv_lvtino.cli._models import check_model
from deepinv_lvtino.cli._outputs import beside, output_path, writing
from deepinv_lvtino.cli._report import Stopwatch
from deepinv_lvtino.cli._setup import (
    accompanied,
    check_sigma,
    choose_device,
    clean_clip,
    damage_entry,
    get_problem,
    measured,
    simulate,
)
from deepinv_lvtino.cli._solve import (
    output_files,
    print_scores,
    restore_and_write,
    warn_if_unexplained,
)
from deepinv_lvtino.cli._solvers import load_settings, make_solver
from deepinv_lvtino.cli._tasks import LongTask, Task
from deepinv_lvtino.cli._windows import check_windows


def restore(arguments: argparse.Namespace) -> None:
    """Restore a measurement, or simulate one first."""
    source, output = Path(arguments.input), output_path(arguments.output)
    files = output_files(output, arguments.samples)
    with writing(files, arguments.overwrite, source) as outputs:
        if arguments.sigma is not None:
            check_sigma(arguments.sigma, auto=not arguments.simulate)
        if arguments.size is not None and not arguments.simulate:
            msg = (
                "--size is for --simulate: the size of a restored video follows from the "
                "measurement and the problem."
            )
            raise UserError(msg)
        check_windows(arguments)
        load_settings(arguments)
        check_model(arguments)
        device = choose_device(arguments.device)
        solver = make_solver(arguments, device)
        watch = Stopwatch(device)
        if arguments.simulate:
            problem = get_problem(arguments.problem or "A")
            with watch.stage("read"):
                clip = clean_clip(arguments, source)
            with watch.stage("degrade"):
                task: Task | LongTask = simulate(
                    arguments, problem, clip.frames, clip.fps, device
                )
                task.settings.update(damage_entry(clip))
        else:
            with watch.stage("read"):
                task = measured(arguments, source, device, outputs.folder)
        task = accompanied(task, source, output)
        if isinstance(task, LongTask):
            metrics = restore_long(
                arguments, task, outputs, output, watch, solver, source
            )
        else:
            metrics = restore_and_write(
                arguments, task, outputs, output, watch, solver, str(source)
            )
    print_scores(metrics)
    warn_if_unexplained(metrics, task)
    print(f"written: {output}, report {beside(output, '.json')}")
