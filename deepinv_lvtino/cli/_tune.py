r"""The command ``tune``."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from deepinv_lvtino import Schedule, make_problem
from deepinv_lvtino._signals import Interrupted
from deepinv_lvtino.benchmark import find_clips
from deepinv_lvtino.cli._errors import UserError, user_errors
from deepinv_lvtino.cli._outputs import beside, check_outputs
from deepinv_lvtino.cli._setup import (
    check_divides,
    check_sigma,
    choose_device,
    get_problem,
)
from deepinv_lvtino.tuning import Case, Tuning

#: Clips where none are given: no training saw them.
_COMPUTED = (("dead-leaves", 2), ("procedural", 1))


def tune(arguments: argparse.Namespace) -> None:
    """Search for settings of an operator, and write them."""
    output = Path(arguments.output)
    if output.suffix != ".json":
        msg = f"--output must end in .json; got {arguments.output!r}."
        raise UserError(msg)
    check_outputs([output], arguments.overwrite, None)
    if arguments.sigma is not None:
        check_sigma(arguments.sigma)
    problem = get_problem(arguments.problem)
    if not problem.linear:
        msg = (
            f"problem {problem.name} is not linear: its schedule is the published one."
        )
        raise UserError(msg)
    width, height = arguments.size
    check_divides(problem, width, height)
    device = choose_device(arguments.device)
    cases = _cases(arguments, device)
    storage = arguments.storage or str(beside(output, "-study.log"))
    print(
        f"problem {problem.name} ({problem.description}): {len(cases)} clips of "
        f"{arguments.frames} frames of {width}x{height}, trials kept in {storage}",
        flush=True,
    )
    try:
        with user_errors():
            tuning = Tuning(
                cases,
                name=str(problem.operator),
                shipped=Schedule.embedded(problem.name),
                storage=storage,
                seed=arguments.seed,
            )
            if tuning.done:
                print(f"going on after trial {tuning.done}", flush=True)
            best = tuning.run(arguments.trials, lambda line: print(line, flush=True))
    except ImportError as error:
        raise UserError(str(error)) from error
    except KeyboardInterrupt as stop:
        state = f"trials are kept in {storage}: the same command goes on there"
        raise Interrupted.of(stop, state) from stop
    found = tuning.report()
    with user_errors():
        best.save(
            output,
            operator=str(problem.operator),
            found=found,
            overwrite=arguments.overwrite,
        )
    print(
        f"best {found['value']:.3f} dB, what the package has "
        f"{found['of what the package has']:.3f} dB"
    )
    print(f"written: {output}, for `restore --settings`")


def _cases(arguments: argparse.Namespace, device: torch.device) -> list[Case]:
    width, height = arguments.size
    sources = (
        [(source, None) for source in dict.fromkeys(arguments.clips)]
        if arguments.clips
        else list(_COMPUTED)
    )
    cases = []
    with user_errors():
        for source, count in sources:
            clips = find_clips(
                source, arguments.frames, height, width, count=count, damaged="refuse"
            )
            for clip in clips:
                video = clip.load()[None].to(device)
                size = (3, arguments.frames, height, width)
                rng = torch.Generator(device).manual_seed(arguments.seed)
                physics = make_problem(
                    arguments.problem,
                    size,
                    arguments.sigma,
                    alignment=arguments.grid or "center",
                    time_border=arguments.time_border or "replicate",
                    mask_seed=arguments.mask_seed or 0,
                    rng=rng,
                    device=device,
                )
                with torch.no_grad():
                    y = physics(video)
                cases.append(Case(clip.name, video, y, physics))
    return cases
