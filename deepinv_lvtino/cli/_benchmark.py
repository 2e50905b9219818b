r"""The command ``benchmark``."""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from deepinv_lvtino._signals import Interrupted
from deepinv_lvtino.benchmark import Benchmark, Clip, Models, find_clips
from deepinv_lvtino.benchmark.results import FILES
from deepinv_lvtino.benchmark.run import DEFAULT_PROBLEMS, DEFAULT_SOLVERS
from deepinv_lvtino.cli._errors import UserError, user_errors
from deepinv_lvtino.cli._models import (
    check_model,
    in_words,
    published_models,
    weights_entry,
)
from deepinv_lvtino.cli._outputs import output_folder
from deepinv_lvtino.cli._setup import check_divides, check_sigma, choose_device
from deepinv_lvtino.cli._spread import spread_of
from deepinv_lvtino.cluster import Spread
from deepinv_lvtino.models import (
    OutOfMemory,
    SDXLConsistencyModel,
    WanConsistencyModel,
)


def benchmark(arguments: argparse.Namespace) -> None:
    """Compare solvers on problems and clips."""
    folder = output_folder(arguments.output)
    if folder.exists() and not folder.is_dir():
        msg = f"{folder} is a file; the benchmark needs a folder."
        raise UserError(msg)
    if arguments.sigma is not None:
        check_sigma(arguments.sigma)
    width, height = arguments.size
    spread = spread_of(arguments)
    if spread.threads is not None:  # a time is one of so many threads
        torch.set_num_threads(spread.threads)
    check_model(arguments)
    device = choose_device(arguments.device)
    with user_errors():
        clips = _clips(arguments)
        task = _task(arguments, clips, _networks(arguments, device), device)
    for case in task.problems.values():
        if case.problem is not None:
            check_divides(case.problem, width, height)
    try:
        with user_errors():
            task.check()
    except (ImportError, RuntimeError) as error:  # what a score needs
        raise UserError(str(error)) from error
    try:
        with _file_errors(folder):
            if not spread.here:
                _compute_elsewhere(arguments, spread, len(clips))
            results = task.run()
    except OutOfMemory as error:
        raise UserError(in_words(str(error))) from error
    except KeyboardInterrupt as stop:
        raise Interrupted.of(stop, _state(folder)) from stop
    print()
    print(results.to_markdown(published=arguments.published))
    print(f"written to {folder}: {', '.join(FILES)}")


def _clips(arguments: argparse.Namespace) -> list[Clip]:
    width, height = arguments.size
    return [
        clip
        for source in dict.fromkeys(arguments.clips)
        for clip in find_clips(
            source,
            arguments.frames,
            height,
            width,
            count=arguments.count,
            damaged=arguments.damaged,
        )
    ]


def _task(
    arguments: argparse.Namespace,
    clips: list[Clip],
    models: Models,
    device: torch.device,
) -> Benchmark:
    return Benchmark(
        output_folder(arguments.output),
        arguments.solvers or DEFAULT_SOLVERS,
        arguments.problems or DEFAULT_PROBLEMS,
        [_guarded(clip) for clip in clips],
        scores=arguments.scores,
        sigma=arguments.sigma,
        alignment=arguments.grid or "deepinv",
        seed=arguments.seed,
        num_samples=arguments.samples,
        eta=arguments.eta,
        models=models,
        device=device,
        published=arguments.published,
        save_videos=arguments.save_videos,
        overwrite=arguments.overwrite,
        say=lambda line: print(line, flush=True),
    )


def _compute_elsewhere(
    arguments: argparse.Namespace, spread: Spread, count: int
) -> None:
    """The cells of each clip by one of several workers; the table is made here."""
    try:
        for number, said in spread.run(partial(_Cells, arguments), range(count)):
            if isinstance(said, Exception):
                raise said
            for line in said:
                print(line, flush=True)
            print(f"clip {number + 1} of {count} is done", flush=True)
    except ImportError as error:
        raise UserError(str(error)) from error


class _Cells:
    """Computes the cells of one clip after another, in a process that keeps the models."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.device = choose_device(arguments.device)
        self.models = _networks(arguments, self.device)

    def __call__(self, number: int) -> list[str]:
        said = io.StringIO()
        with redirect_stdout(said), user_errors():
            clip = _clips(self.arguments)[number]
            _task(self.arguments, [clip], self.models, self.device).compute()
        return said.getvalue().splitlines()


@contextmanager
def _file_errors(folder: Path) -> Iterator[None]:
    """What the disk refuses is no bug; what is finished by then is worth saying."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        with user_errors():
            msg = f"{error} ({_state(folder)})"
            raise OSError(msg) from error


def _state(folder: Path) -> str:
    if any((folder / "cells").glob("*.json")):
        return (
            f"finished cells are kept in {folder / 'cells'}: the same command goes on "
            "from there"
        )
    return "nothing written"


def _networks(arguments: argparse.Namespace, device: torch.device) -> Models:
    if arguments.model == "embedded":
        return Models.embedded(device)

    def load() -> tuple[WanConsistencyModel | None, SDXLConsistencyModel | None]:
        print("loading the published models", flush=True)
        return published_models(arguments, device)

    # what changes the results is part of the name
    options = {
        "prompt": arguments.prompt,
        "dtype": arguments.dtype,
        "tile": arguments.tile,
        "decoder": arguments.decoder,
        "revision": ", ".join("=".join(pair) for pair in arguments.revision or ()),
    }
    chosen = "; ".join(f"{key} {value}" for key, value in options.items() if value)
    name = f"{arguments.model} ({chosen})" if chosen else arguments.model
    return Models.published(load, name, lambda: weights_entry(arguments))


def _guarded(clip: Clip) -> Clip:
    """A clip whose file, if it cannot be read, is a mistake of the user."""

    def load() -> Tensor:
        with user_errors():
            return clip.load()

    return replace(clip, load=load)
