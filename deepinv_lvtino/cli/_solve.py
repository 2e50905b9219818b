r"""Restoring a measurement, and the files that come of it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepinv_lvtino import LVTINO
from deepinv_lvtino.cli._errors import UserError, user_errors
from deepinv_lvtino.cli._foresee import duration, foresee_seconds
from deepinv_lvtino.cli._memory import check_memory
from deepinv_lvtino.cli._models import in_words, weights_entry
from deepinv_lvtino.cli._outputs import Outputs, beside
from deepinv_lvtino.cli._picture import (
    Row,
    draw_comparison,
    draw_deviation,
    enlarge_measurement,
)
from deepinv_lvtino.cli._report import (
    Stopwatch,
    clip_entry,
    describe_device,
    digest,
    versions,
    write_report,
)
from deepinv_lvtino.cli._scores import video_scores
from deepinv_lvtino.cli._solvers import is_published, solver_for
from deepinv_lvtino.cli._tasks import AnyTask, Task, root_mean_square
from deepinv_lvtino.cli._windows import times_over, windows_of
from deepinv_lvtino.datasets import write_video
from deepinv_lvtino.models import OutOfMemory
from deepinv_lvtino.optim import CalibratedSchedule, Windowed
from deepinv_lvtino.optim.calibrated import DEFAULT_ETA

#: Residual in units of the noise level from which on the operator is in doubt.
_UNEXPLAINED = 2.0

_LABELS = {
    "pseudo_inverse": "pseudo-inverse",
    "restoration": "restoration (one sample)",
    "mean": "mean of the samples",
}


def output_files(output: Path, samples: int) -> list[Path]:
    """All files of a restoration, the report last."""
    files = [output]
    if samples > 1:
        files += [beside(output, f"-mean{output.suffix}"), beside(output, "-std.png")]
    return [*files, beside(output, "-comparison.png"), beside(output, ".json")]


def solve(
    task: Task,
    solver: LVTINO,
    num_samples: int,
    watch: Stopwatch,
    computed: dict[str, Tensor],
    windowed: Windowed | None = None,
) -> dict[str, Tensor]:
    """
    Pseudo-inverse, one sample, and with several their mean and deviation.

    What took long is also put into ``computed``, as soon as it is there.
    """
    with torch.no_grad():
        with watch.stage("pseudo_inverse"):
            results = {"pseudo_inverse": task.physics.A_dagger(task.y)}
        if num_samples == 1:
            with watch.stage("restore"):
                results["restoration"] = (
                    solver(task.y, task.physics)
                    if windowed is None
                    else _by_windows(windowed, task)
                )
            computed["restoration"] = results["restoration"][0]
            return results

        def keep(index: int, sample: Tensor) -> None:
            print(f"sample {index + 1} of {num_samples}", flush=True)
            first = results.setdefault("restoration", sample.clone())
            computed.setdefault("restoration", first[0])

        with watch.stage("restore"):
            mean, variance = solver.sample(
                task.y, task.physics, num_samples, callback=keep
            )
    results["mean"] = mean
    results["deviation"] = variance.clamp(min=0).sqrt()
    computed |= {name: results[name][0] for name in ("mean", "deviation")}
    return results


def _by_windows(windowed: Windowed, task: Task) -> Tensor:
    pieces = []
    total = task.physics.img_size[1]
    for piece in windowed.stream(task.y, task.physics):
        pieces.append(piece)
        done = sum(one.shape[2] for one in pieces)
        print(f"frames 1 to {done} of {total}", flush=True)
    return torch.cat(pieces, dim=2)


def score(task: Task, results: dict[str, Tensor]) -> dict[str, Any]:
    """Fit to the measurement and, in a simulation, the scores of the video."""
    sigma = task.settings["sigma"]
    metrics: dict[str, Any] = {}
    for name in _LABELS:
        if name not in results:
            continue
        x = results[name]
        residual = root_mean_square(task.physics.A(x) - task.y, task.physics)
        entry: dict[str, Any] = {"residual_over_sigma": residual / sigma}
        if task.clean is not None:
            entry |= video_scores(x, task.clean)
        metrics[name] = entry
    return metrics


def print_scores(metrics: dict[str, Any]) -> None:
    """Table of the scores."""
    for name, entry in metrics.items():
        text = f"  {_LABELS[name]:<26}"
        if "psnr" in entry:
            text += f"PSNR {entry['psnr']:.2f} dB  "
        if entry.get("ssim") is not None:
            text += f"SSIM {entry['ssim']:.3f}  "
        print(f"{text}residual {entry['residual_over_sigma']:.2f} sigma")


def warn_if_unexplained(metrics: dict[str, Any], task: AnyTask) -> None:
    """Say so if the result cannot be what INPUT was made from."""
    times = metrics["restoration"]["residual_over_sigma"]
    if not task.problem.linear or times <= _UNEXPLAINED:
        return
    sigma = task.settings["sigma"]
    print(
        f"deepinv-lvtino: warning: the result does not explain INPUT: the residual is "
        f"{times * sigma:.2g} where the noise level says {sigma:.2g}. Either INPUT was "
        "made in another way (--problem, --grid, --time-border), and the result is worth "
        f"nothing, or its noise is larger: --sigma {times * sigma:.2g} would fit",
        file=sys.stderr,
    )


def write_results(
    outputs: Outputs,
    output: Path,
    task: Task,
    results: dict[str, Tensor],
    metrics: Any,
    bits: int = 8,
) -> dict[str, str]:
    """Videos and pictures; SHA-256 of each, by what it is."""
    picture = beside(output, "-comparison.png")
    files = {"output": output, "comparison": picture}
    with user_errors():
        options: dict[str, Any] = {"bits": bits, "companions": task.companions}
        video = results["restoration"][0]
        write_video(outputs.path(output), video, task.fps, **options)
        _draw(outputs.path(picture), task, results, metrics)
        if "mean" in results:
            mean = beside(output, f"-mean{output.suffix}")
            video = results["mean"][0]
            write_video(outputs.path(mean), video, task.fps, **options)
            deviation = beside(output, "-std.png")
            draw_deviation(outputs.path(deviation), results["deviation"][0])
            files |= {"mean": mean, "deviation": deviation}
        return {name: digest(outputs.path(path)) for name, path in files.items()}


def _draw(
    path: Path, task: Task, results: dict[str, Tensor], metrics: dict[str, Any]
) -> None:
    size = results["restoration"].shape[1:]
    problem = task.problem
    enlarged = enlarge_measurement(
        task.y[0], size, problem.frame_factor, problem.scale_factor
    )
    _, t, h, w = task.y[0].shape
    rows = [Row(f"measurement: {w}x{h}, {t} frames", enlarged)]
    for name, label in _LABELS.items():
        if name in results:
            psnr = metrics[name].get("psnr")
            text = label if psnr is None else f"{label}: PSNR {psnr:.2f} dB"
            rows.append(Row(text, results[name][0]))
    if task.clean is not None:
        rows.append(Row("reference", task.clean[0]))
    draw_comparison(path, rows)


def base_report(
    arguments: argparse.Namespace, task: AnyTask, device: torch.device
) -> dict[str, Any]:
    """What the reports of all commands say."""
    return {
        "command": arguments.command,
        "problem": task.problem.name,
        "problem_description": task.problem.description,
        **task.settings,
        "seed": arguments.seed,
        "measurement": clip_entry(tuple(task.y.shape[1:]), task.measurement_fps),
        "device": describe_device(device),
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }


def restore_and_write(
    arguments: argparse.Namespace,
    task: Task,
    outputs: Outputs,
    output: Path,
    watch: Stopwatch,
    solver: LVTINO,
    source: str,
) -> dict[str, Any]:
    """Everything after the measurement: restore, score, write; returns the scores."""
    solver = load_solver(arguments, task, outputs, output, watch, solver)
    windowed = None
    window = getattr(arguments, "window", None)
    if window is not None:
        windowed = windows_of(arguments, task, solver, window)
    if arguments.command != "restore" or arguments.simulate:
        foresee_memory(arguments, task)
    say_duration(arguments, task, solver, windowed)
    announce(task)
    try:
        results = solve(
            task, solver, arguments.samples, watch, outputs.computed, windowed
        )
    except OutOfMemory as error:
        raise UserError(in_words(str(error))) from error
    outputs.finished = True
    with watch.stage("score"):
        metrics = score(task, results)
    with watch.stage("write"):
        hashes = write_results(
            outputs, output, task, results, metrics, _bits(arguments)
        )
    report = base_report(arguments, task, watch.device)
    report |= restore_report(arguments, task, solver, source, output)
    report |= {"sha256": hashes, "metrics": metrics, "seconds": watch.seconds}
    with user_errors():
        write_report(outputs.path(beside(output, ".json")), report)
    return metrics


def load_solver(
    arguments: argparse.Namespace,
    task: AnyTask,
    outputs: Outputs,
    output: Path,
    watch: Stopwatch,
    solver: LVTINO,
) -> LVTINO:
    """The solver with its models, after what can fail later has been tried."""
    _rehearse(arguments, task, outputs, output)
    try:
        with watch.stage("load"):
            return solver_for(arguments, task, solver)
    except OutOfMemory as error:
        raise UserError(in_words(str(error))) from error


def announce(task: AnyTask) -> None:
    """What is going to be restored."""
    _, frames, height, width = task.physics.img_size
    print(
        f"{task.description}: {width}x{height}, {frames} frames at {_rate(task)} Hz",
        flush=True,
    )


def say_duration(
    arguments: argparse.Namespace,
    task: AnyTask,
    solver: LVTINO,
    windowed: Windowed | None,
) -> None:
    """How long a large video will take with the embedded models, about."""
    if is_published(arguments):
        return
    again = arguments.samples * times_over(windowed, task)
    seconds = foresee_seconds(task, solver, again)
    if seconds is not None:
        print(f"time: about {duration(seconds)}", flush=True)


def foresee_memory(arguments: argparse.Namespace, task: Task) -> None:
    """Refuse what does not fit; what is simulated is restored in memory."""
    if task.device.type == "cpu" and not is_published(arguments):
        window, tiles = (getattr(arguments, name, None) for name in ("window", "tiles"))
        check_memory(task.physics.img_size, window, tiles, task.problem.frame_factor)


def restore_report(
    arguments: argparse.Namespace,
    task: AnyTask,
    solver: LVTINO,
    source: str,
    output: Path,
) -> dict[str, Any]:
    """What the reports of restorations say beside :func:`base_report`."""
    return {
        "input": source,
        "output": str(output),
        "simulated": isinstance(task, Task) and task.clean is not None,
        "video": clip_entry(tuple(task.physics.img_size), task.fps),
        "samples": arguments.samples,
        "schedule": _schedule_entry(solver),
        "models": {
            "video": _model_name(solver.video_model),
            "image": _model_name(solver.image_model),
        },
        "weights": weights_entry(arguments, solver.video_model)
        if is_published(arguments)
        else None,
    }


def _rehearse(
    arguments: argparse.Namespace, task: AnyTask, outputs: Outputs, output: Path
) -> None:
    """What can fail after the restoration is tried before it, on two frames."""
    size = task.physics.img_size[1:]
    outputs.rehearse(
        output,
        size,
        task.fps,
        copies=1 if arguments.samples == 1 else 2,
        bits=_bits(arguments),
        companions=task.companions,
    )
    if isinstance(task, Task) and task.clean is not None:
        frames = task.clean[:, :, :2]
        video_scores(frames, frames)


def _bits(arguments: argparse.Namespace) -> int:
    return getattr(arguments, "bits", 8)


def _rate(task: AnyTask) -> str:
    return f"{float(task.fps):.6g}"


def _schedule_entry(solver: LVTINO) -> dict[str, Any]:
    schedule = solver.schedule
    entry: dict[str, Any] = {
        "steps": schedule.num_steps,
        "evaluations": solver.num_evaluations,
    }
    if isinstance(schedule, CalibratedSchedule):
        entry["eta"] = DEFAULT_ETA if schedule.eta is None else schedule.eta
        entry["delta"] = list(schedule.delta)
    return entry


def _model_name(model: Any) -> str | None:
    return None if model is None else type(model).__name__
