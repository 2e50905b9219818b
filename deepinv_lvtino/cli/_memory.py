r"""Memory of a restoration on the CPU, foreseen."""

from __future__ import annotations

import math
from pathlib import Path

from deepinv_lvtino.cli._errors import UserError
from deepinv_lvtino.cli._setup import Task

#: Bytes for each value of the video that the solver works on at a time, and for each of
#: the whole video, and what does not grow with it (plots, encoders). Peaks of whole
#: commands: 1.57 GB at 25 frames of 320x192, 2.85 GB at 640x384, 0.75 GB before the work.
SOLVER_BYTES, VIDEO_BYTES, FIXED_BYTES = 75, 18, 4e8

_GIGABYTE = 1e9


def needed_memory(task: Task, window: int | None) -> float:
    r"""
    Bytes that a restoration with the embedded models will take, beside those in use.

    :param Task task: measurement and operator.
    :param int window: frames of a window, or ``None`` for the whole video at once.
    :return: (float) bytes.
    """
    channels, frames, height, width = task.physics.img_size
    values = channels * frames * height * width
    share = 1.0 if window is None else min(1.0, window / frames)
    return FIXED_BYTES + values * (SOLVER_BYTES * share + VIDEO_BYTES)


def available_memory() -> float | None:
    r"""
    Bytes that this process may still take: of the machine, its limit, its container.

    :return: (float) bytes; ``None`` where the system does not say.
    """
    found = [_of_machine(), _of_process(), _of_container()]
    known = [value for value in found if value is not None]
    return min(known) if known else None


def check_memory(task: Task, window: int | None) -> None:
    r"""
    Say what a restoration will take, and refuse what does not fit.

    :param Task task: measurement and operator, on the CPU.
    :param int window: frames of a window, or ``None`` for the whole video at once.
    :raises UserError: if it takes more memory than there is; the remedy is a window.
    """
    need, free = needed_memory(task, window), available_memory()
    if free is None:
        return
    if need <= free:
        print(f"memory: about {need / _GIGABYTE:.2g} GB", flush=True)
        return
    frames = task.physics.img_size[1]
    fixed = needed_memory(task, 0)
    per_frame = (needed_memory(task, None) - fixed) / frames
    fits = math.floor((free - fixed) / per_frame)
    remedy = (
        f"Restore it by windows: --window {min(fits, frames)}."
        if fits > task.problem.frame_factor + 1
        else "Cut it into shorter pieces, or make the frames smaller."
    )
    msg = (
        f"the restoration needs about {need / _GIGABYTE:.2g} GB of memory, and "
        f"{free / _GIGABYTE:.2g} GB are free. {remedy}"
    )
    raise UserError(msg)


def _of_machine() -> float | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    text = fields.get("MemAvailable")
    return None if text is None else 1024.0 * int(text.split()[0])


def _of_process() -> float | None:
    """What is left of a limit of addresses (``ulimit -v``)."""
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):
        return None
    if limit == resource.RLIM_INFINITY:
        return None
    return float(max(0, limit - pages * resource.getpagesize()))


def _of_container() -> float | None:
    """What is left of a limit of control groups, version 2."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else float(max(0, int(limit) - used))
