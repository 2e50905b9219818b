r"""The command ``restore-many``."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from deepinv_lvtino._allocator import keep_freed_memory
from deepinv_lvtino._environment import versions
from deepinv_lvtino._signals import Interrupted
from deepinv_lvtino.cli._errors import UserError, user_errors
from deepinv_lvtino.cli._models import published_models
from deepinv_lvtino.cli._outputs import output_path
from deepinv_lvtino.cli._report import digest
from deepinv_lvtino.cli._restore import restore
from deepinv_lvtino.cli._spread import spread_of
from deepinv_lvtino.cluster import Spread
from deepinv_lvtino.datasets._images import list_frames
from deepinv_lvtino.datasets.collections import COLLECTION_SUFFIXES

#: Options that say where and how, not what.
_ELSEWHERE = (
    "command",
    "inputs",
    "output",
    "overwrite",
    "workers",
    "address",
    "threads",
)


class _Job(NamedTuple):
    """One clip, and what is written of it."""

    source: Path
    output: Path


class _Restored(NamedTuple):
    """What became of a clip."""

    seconds: float
    remarks: list[str]


def restore_many(arguments: argparse.Namespace) -> None:
    """Restore many measurements with the same options."""
    folder = output_path(arguments.output)
    with user_errors():
        folder.mkdir(parents=True, exist_ok=True)
    jobs = _jobs(arguments, folder)
    spread = spread_of(arguments)
    log = _Log(folder / "clips.jsonl", _identity(arguments, spread))
    waiting = [job for job in jobs if not log.finished(job)]
    done = len(jobs) - len(waiting)
    if done:
        print(f"{done} of {len(jobs)} clips are finished already", flush=True)
    failed = []
    try:
        for job, result in spread.run(partial(_Restorer, arguments), waiting):
            done += 1
            line = f"{done} of {len(jobs)}: {job.source.name}"
            if isinstance(result, Exception):
                failed.append(job)
                reason = _reason(result)
                log.add(job, error=reason)
                print(f"{line} failed: {reason}", file=sys.stderr, flush=True)
                continue
            log.add(job, seconds=result.seconds, remarks=result.remarks)
            print(
                f"{line} -> {folder / job.output.name} ({result.seconds:.1f} s)",
                flush=True,
            )
            for remark in result.remarks:
                print(f"  {remark}", file=sys.stderr, flush=True)
    except ImportError as error:
        raise UserError(str(error)) from error
    except KeyboardInterrupt as stop:
        state = f"{done} of {len(jobs)} clips are finished: the same command goes on"
        raise Interrupted.of(stop, state) from stop
    if failed:
        msg = (
            f"{len(failed)} of {len(jobs)} clips failed, as said above and in {log.path}; "
            "the others are finished, and the same command tries these again."
        )
        raise UserError(msg)


class _Restorer:
    """Restores one clip after another, in a process that keeps the models."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        keep_freed_memory()
        self.arguments = arguments
        self._models: Any = None

    def __call__(self, job: _Job) -> _Restored:
        arguments = copy(self.arguments)
        arguments.command = "restore"
        arguments.input, arguments.output = str(job.source), str(job.output)
        arguments.load_models = self._load
        start = time.perf_counter()
        remarks = io.StringIO()
        with redirect_stdout(io.StringIO()), redirect_stderr(remarks):
            restore(arguments)
        lines = [line for line in remarks.getvalue().splitlines() if ": " in line]
        return _Restored(round(time.perf_counter() - start, 3), lines)

    def _load(self, arguments: argparse.Namespace, device: torch.device) -> Any:
        """The published models: loaded with the first clip, and kept."""
        if self._models is None:
            self._models = published_models(arguments, device)
        return self._models


class _Log:
    """What became of the clips, a line of JSON for each; the last success counts."""

    def __init__(self, path: Path, identity: dict[str, Any]) -> None:
        self.path, self.identity = path, identity
        self._entries: dict[str, dict[str, Any]] = {}
        with user_errors():
            text = path.read_text(encoding="utf-8") if path.exists() else ""
        for line in text.splitlines():
            try:
                entry = json.loads(line)
                if "sha256" in entry:
                    self._entries[entry["output"]] = entry
            except (ValueError, KeyError, TypeError):
                continue  # torn by a kill: that clip is done again

    def finished(self, job: _Job) -> bool:
        """Whether the output is there, of this very input, options and versions."""
        entry = self._entries.get(job.output.name, {})
        return (
            entry.get("made_with") == self.identity
            and job.output.exists()
            and entry.get("sha256")
            == {"input": digest(job.source), "output": digest(job.output)}
        )

    def add(self, job: _Job, **found: Any) -> None:
        """Note what became of a clip."""
        entry = {"input": str(job.source), "output": job.output.name, **found}
        if "error" not in found:
            entry["sha256"] = {
                "input": digest(job.source),
                "output": digest(job.output),
            }
            entry["made_with"] = self.identity
        with user_errors(), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _jobs(arguments: argparse.Namespace, folder: Path) -> list[_Job]:
    jobs: dict[str, _Job] = {}
    for source in _sources(arguments.inputs):
        output = folder / f"{source.stem}{arguments.suffix}"
        if output.name in jobs:
            msg = (
                f"{jobs[output.name].source} and {source} would both be written to "
                f"{output}. Restore them into different folders."
            )
            raise UserError(msg)
        jobs[output.name] = _Job(source.absolute(), output.absolute())
    return list(jobs.values())


def _sources(inputs: list[str]) -> Iterator[Path]:
    for name in inputs:
        path = Path(name)
        if not path.exists():
            msg = f"INPUT {name} does not exist."
            raise UserError(msg)
        if not path.is_dir() or list_frames(path):
            yield path
            continue
        found = sorted(
            one
            for one in path.iterdir()
            if (one.is_dir() and list_frames(one))
            or one.suffix.lower() in COLLECTION_SUFFIXES
        )
        if not found:
            msg = (
                f"INPUT {name} holds neither frames nor videos "
                f"({', '.join(COLLECTION_SUFFIXES)}) nor folders of frames."
            )
            raise UserError(msg)
        yield from found


def _identity(arguments: argparse.Namespace, spread: Spread) -> dict[str, Any]:
    """What results depend on beside the input."""
    options = {
        name: str(value)
        for name, value in vars(arguments).items()
        if name not in _ELSEWHERE and value is not None
    }
    threads = spread.threads or torch.get_num_threads()
    return {"options": options, "threads": threads, "versions": versions()}


def _reason(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    return f"{type(error).__name__}: {error}"
