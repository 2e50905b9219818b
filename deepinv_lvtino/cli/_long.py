r"""Restoring a measurement of any length, window by window."""

from __future__ import annotations

import argparse
import shutil
import time
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepinv_lvtino._environment import weights_digest
from deepinv_lvtino.cli._errors import UserError, user_errors
from deepinv_lvtino.cli._foresee import duration
from deepinv_lvtino.cli._kept import KeptWindows
from deepinv_lvtino.cli._models import in_words, weights_entry
from deepinv_lvtino.cli._outputs import Outputs, beside
from deepinv_lvtino.cli._picture import Row, draw_comparison, enlarge_measurement
from deepinv_lvtino.cli._report import Stopwatch, digest, write_report
from deepinv_lvtino.cli._solve import (
    announce,
    base_report,
    load_solver,
    restore_report,
    say_duration,
)
from deepinv_lvtino.cli._tasks import LongTask
from deepinv_lvtino.cli._windows import windows_of
from deepinv_lvtino.datasets._encode import GrowingVideo
from deepinv_lvtino.datasets._writing import write_images
from deepinv_lvtino.models import OutOfMemory
from deepinv_lvtino.optim import LVTINO, Windowed, WindowState
from deepinv_lvtino.optim.windows import in_time
from deepinv_lvtino.physics import SeparableVideoPhysics, VideoInpainting

_BYTES_KEPT = 2  # for each value of the video
_ROWS_AT_A_TIME = 16
_FRAMES_IN_PICTURE = 24


def restore_long(
    arguments: argparse.Namespace,
    task: LongTask,
    outputs: Outputs,
    output: Path,
    watch: Stopwatch,
    solver: LVTINO,
    source: Path,
) -> dict[str, Any]:
    """Everything after the measurement, as `restore_and_write` does for a whole video."""
    solver = load_solver(arguments, task, outputs, output, watch, solver)
    windowed = windows_of(arguments, task, solver, task.window)
    windows = windowed.windows(task.y, task.physics)
    _check_room(task, output)
    kept = _kept_windows(arguments, task, output, windowed, solver, source)
    outputs.resumable = kept.folder
    say_duration(arguments, task, solver, windowed)
    announce(task)
    shown = _Stream(kept, task) if arguments.stream else None
    began, latency = _restore(task, windowed, kept, watch, shown)
    outputs.finished = True
    with watch.stage("score"):
        residual = _residual(task, kept)
    metrics = {
        "restoration": {"residual_over_sigma": residual / task.settings["sigma"]}
    }
    with watch.stage("write"), user_errors():
        _, _, height, width = task.physics.img_size
        write_images(
            outputs.path(output),
            kept.images(arguments.bits),
            (height, width),
            task.fps,
            bits=arguments.bits,
            companions=task.companions,
        )
        picture = beside(output, "-comparison.png")
        _draw(outputs.path(picture), task, kept)
        hashes = {
            "output": digest(outputs.path(output)),
            "comparison": digest(outputs.path(picture)),
        }
    report = base_report(arguments, task, watch.device)
    report |= restore_report(arguments, task, solver, str(source), output)
    report |= {
        "sha256": hashes,
        "windows": {
            "frames": windowed.frames,
            "overlap": windowed.overlap,
            "tiles": "{}x{}".format(*arguments.tiles) if arguments.tiles else None,
            "count": len(windows),
            "scenes": sum(window.fresh for window in windows),
            "begun_at_window": began,
            "seconds_to_first_frames": latency,
        },
        "metrics": metrics,
        "seconds": watch.seconds,
    }
    with user_errors():
        write_report(outputs.path(beside(output, ".json")), report)
    outputs.afterwards.append(kept.remove)
    return metrics


def kept_folder(output: Path) -> Path:
    """Where the windows of an output are kept."""
    return beside(output, "-windows")


def _check_room(task: LongTask, output: Path) -> None:
    channels, frames, height, width = task.physics.img_size
    need = channels * frames * height * width * _BYTES_KEPT
    folder = next(one for one in output.absolute().parents if one.exists())
    there = kept_folder(output)
    done = sum(f.stat().st_size for f in there.glob("*.npy")) if there.is_dir() else 0
    free = shutil.disk_usage(folder).free + done
    if need > free:
        msg = (
            f"the windows of {output} need {need / 1e6:.0f} MB until it is complete, and "
            f"{free / 1e6:.0f} MB are free there. Make room, or choose another output."
        )
        raise UserError(msg)


def _kept_windows(
    arguments: argparse.Namespace,
    task: LongTask,
    output: Path,
    windowed: Windowed,
    solver: LVTINO,
    source: Path,
) -> KeptWindows:
    report = base_report(arguments, task, task.device)
    same = (
        "problem",
        "grid",
        "time_border",
        "sigma",
        "mask_seed",
        "seed",
        "measurement",
        "versions",
    )
    identity = {key: report[key] for key in same if key in report}
    identity |= {
        "device": task.device.type,
        "input": digest(source),
        "frames": task.physics.img_size[1],
        "window": windowed.frames,
        "overlap": windowed.overlap,
        "tiles": list(arguments.tiles) if arguments.tiles else None,
        "schedule": repr(solver.schedule),
        "weights": [
            weights_digest(model)
            for model in (solver.video_model, solver.image_model)
            if model is not None
        ]
        if arguments.model == "embedded"
        else weights_entry(arguments, solver.video_model),
    }
    with user_errors():
        return KeptWindows(kept_folder(output), identity, arguments.overwrite)


class _Stream:
    """What is decided, for a player that follows; those of a run before come first."""

    def __init__(self, kept: KeptWindows, task: LongTask) -> None:
        self.path = kept.folder / "stream.mkv"
        self._kept, self._shown = kept, 0
        with user_errors():
            self._file = GrowingVideo(self.path, task.physics.img_size[2:], task.fps)

    def update(self) -> None:
        self._file.add(islice(self._kept.images(8), self._shown, None))
        self._shown = self._kept.count()

    def close(self) -> None:
        self._file.close()


def _restore(
    task: LongTask,
    windowed: Windowed,
    kept: KeptWindows,
    watch: Stopwatch,
    shown: _Stream | None,
) -> tuple[int, float | None]:
    """
    The windows that are not done yet.

    Gives the number of the first of them, and the seconds until its frames were there.
    """
    state = kept.state()
    total = task.physics.img_size[1]
    done = kept.count()
    began = state.windows
    if began:
        print(
            f"going on after frame {done} of {total}: the windows before are kept in "
            f"{kept.folder}",
            flush=True,
        )
        if state.kept is not None:
            state = WindowState(began, state.kept.to(task.device))
    first, start = done, time.monotonic()
    latency = None
    if shown is not None:
        print(f"frames are shown as they are decided in {shown.path}", flush=True)
        shown.update()
    with watch.stage("restore"), torch.no_grad():
        try:
            for piece, after in windowed.resume(task.y, task.physics, state):
                with user_errors():
                    kept.add(piece, after)
                    if shown is not None:
                        shown.update()
                done += piece.shape[2]
                spent = time.monotonic() - start
                latency = spent if latency is None else latency
                left = spent / (done - first) * (total - done)
                rest = f", about {duration(left)} left" if done < total else ""
                print(f"frames 1 to {done} of {total}{rest}", flush=True)
        except OutOfMemory as error:
            raise UserError(in_words(str(error))) from error
        finally:
            if shown is not None:
                shown.close()
    return began, latency


def _residual(task: LongTask, kept: KeptWindows) -> float:
    """Root mean square of the residual over what was measured."""
    physics = task.physics
    spans = physics.rows.spans()
    total, count = 0.0, 0
    for first in range(0, len(spans), _ROWS_AT_A_TIME):
        last = min(first + _ROWS_AT_A_TIME, len(spans))
        start = min(span[0] for span in spans[first:last])
        stop = max(span[1] for span in spans[first:last])
        frames = kept.read(range(start, stop)).to(task.device)
        if isinstance(physics.short, SeparableVideoPhysics):
            block = physics.rows.block((first, last), (start, stop))
            operator: Any = in_time(physics.short, block, physics.img_size)
        else:
            operator = physics.of_frames(last - first)
        square = (operator.A(frames) - task.y[:, :, first:last]).square()
        if isinstance(operator, VideoInpainting):
            square = square[operator.visible.expand_as(square)]
        total += float(square.sum())
        count += square.numel()
    return (total / count) ** 0.5


def _draw(path: Path, task: LongTask, kept: KeptWindows) -> None:
    channels, frames, height, width = task.physics.img_size
    count = min(frames, _FRAMES_IN_PICTURE)
    numbers = [round(i * (frames - 1) / max(1, count - 1)) for i in range(count)]
    factor, scale = task.problem.frame_factor, task.problem.scale_factor
    measured = [
        task.y[:, :, number // factor : number // factor + 1] for number in numbers
    ]
    y: Tensor = torch.cat(measured, dim=2)[0].cpu()
    size = (channels, count, height, width)
    _, t, h, w = task.y.shape[1:]
    rows = [
        Row(
            f"measurement: {w}x{h}, {t} frames", enlarge_measurement(y, size, 1, scale)
        ),
        Row("restoration (one sample)", kept.read(numbers)[0]),
    ]
    draw_comparison(path, rows, numbers)
