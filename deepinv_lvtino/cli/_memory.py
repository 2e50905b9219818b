r"""Memory of a restoration on the CPU, foreseen."""

from __future__ import annotations

import math
from pathlib import Path

from deepinv_lvtino.cli._errors import UserError
from deepinv_lvtino.optim.tiles import UNIT, plan_tiles

#: Bytes for each value of the video that the solver works on at a time, and for each of
#: the whole video, and what does not grow with it (plots, encoders). Measured by
#: ``benchmarks/memory.py``.
SOLVER_BYTES, VIDEO_BYTES, FIXED_BYTES = 75, 18, 2.5e8

_GIGABYTE = 1e9
# of the memory that is free, for the windows, and the shortest that is chosen
_SHARE, _LEAST_WINDOW = 0.9, 9

_SIDES = (1024, 768, 512, 384, 256)  # of tiles that are proposed, in pixels


def needed_memory(
    size: tuple[int, int, int, int],
    window: int | None,
    tiles: tuple[int, int] | None = None,
    *,
    stored: bool = False,
) -> float:
    r"""
    Bytes that a restoration with the embedded models will take, beside those in use.

    :param tuple[int, int, int, int] size: ``(C, T, H, W)`` of the video.
    :param int window: frames of a window, or ``None`` for the whole video at once.
    :param tuple[int, int] tiles: width and height of tiles, or ``None`` for whole frames.
    :param bool stored: whether the video stays out of memory, but for a window.
    :return: (float) bytes.
    """
    channels, frames, height, width = size
    values = channels * height * width
    worked = frames if window is None else min(window, frames)
    held = worked if stored else frames
    at_once = values
    if tiles is not None:  # what is too small for a tile is refused later
        side = (max(2 * UNIT, tiles[1]), max(2 * UNIT, tiles[0]))
        planned = plan_tiles((height, width), side)
        at_once = channels * max(tile.num_pixels for tile in planned)
    return FIXED_BYTES + SOLVER_BYTES * worked * at_once + VIDEO_BYTES * held * values


def available_memory() -> float | None:
    r"""
    Bytes that this process may still take: of the machine, its limit, its container.

    :return: (float) bytes; ``None`` where the system does not say.
    """
    found = [_of_machine(), _of_process(), _of_container()]
    known = [value for value in found if value is not None]
    return min(known) if known else None


def check_memory(
    size: tuple[int, int, int, int],
    window: int | None,
    tiles: tuple[int, int] | None,
    factor: int,
) -> None:
    r"""
    Say what a simulation will take, and refuse what does not fit.

    :param tuple[int, int, int, int] size: ``(C, T, H, W)`` of the video.
    :param int window: frames of a window, or ``None`` for the whole video at once.
    :param tuple[int, int] tiles: width and height of tiles, or ``None`` for whole frames.
    :param int factor: video frames for each measured one.
    :raises UserError: if it takes more memory than there is; the remedy is a window.
    """
    need, free = needed_memory(size, window, tiles), available_memory()
    if free is None or need <= free:
        _say(need if free is not None else None)
        return
    fits = _fitting(size, tiles, free, stored=False)
    remedy = (
        f"Restore it by windows: --window {min(fits, size[1])}."
        if fits > factor + 1
        else "Cut it into shorter pieces, or make the frames smaller."
    )
    raise UserError(_too_much(need, free, remedy))


def choose_window(
    size: tuple[int, int, int, int],
    asked: int | None,
    tiles: tuple[int, int] | None,
    factor: int,
    samples: int,
) -> int | None:
    r"""
    Frames of the windows of a restoration: as asked, else so many as there is room for.

    :param tuple[int, int, int, int] size: ``(C, T, H, W)`` of the video.
    :param int asked: frames of a window, or ``None`` if nothing was said.
    :param tuple[int, int] tiles: width and height of tiles, or ``None`` for whole frames.
    :param int factor: video frames for each measured one.
    :param int samples: number of samples; windows give one.
    :return: (int) frames of a window, or ``None`` for the whole video at once.
    :raises UserError: if it takes more memory than there is.
    """
    free = available_memory()
    need = needed_memory(size, asked, tiles, stored=asked is not None)
    if free is None or need <= free:
        _say(need if free is not None else None)
        return asked
    fits = math.floor(_SHARE * _fitting(size, tiles, free, stored=True))
    fits = fits // factor * factor + 1 if factor > 1 else fits
    short = fits < max(_LEAST_WINDOW, 2 * factor + 1)
    if short:
        raise UserError(_too_much(need, free, _tiles_that_fit(size, free, factor)))
    if asked is not None or samples > 1:
        one = "" if samples == 1 else " (which gives one sample)"
        remedy = f"Restore it by windows: --window {fits}{one}."
        raise UserError(_too_much(need, free, remedy))
    print(
        f"restored by windows of {fits} frames: as a whole it needs about "
        f"{need / _GIGABYTE:.2g} GB of memory, and {free / _GIGABYTE:.2g} GB are free",
        flush=True,
    )
    return fits


def _say(need: float | None) -> None:
    if need is not None:
        print(f"memory: about {need / _GIGABYTE:.2g} GB", flush=True)


def _tiles_that_fit(size: tuple[int, int, int, int], free: float, factor: int) -> str:
    """Tiles and windows that there is room for, as options."""
    frames = max(_LEAST_WINDOW, 2 * factor + 1)
    for side in _SIDES:
        if needed_memory(size, frames, (side, side), stored=True) <= _SHARE * free:
            return (
                f"Restore it in tiles: --tiles {side}x{side} --window {frames} (which "
                "gives one sample)."
            )
    return "Make the frames smaller, or the memory free."


def _fitting(
    size: tuple[int, int, int, int],
    tiles: tuple[int, int] | None,
    free: float,
    *,
    stored: bool,
) -> int:
    """Frames of a window that there is room for."""
    fixed = needed_memory(size, 0, tiles, stored=stored)
    per_frame = needed_memory(size, 1, tiles, stored=stored) - fixed
    return math.floor((free - fixed) / per_frame)


def _too_much(need: float, free: float, remedy: str) -> str:
    return (
        f"the restoration needs about {need / _GIGABYTE:.2g} GB of memory, and "
        f"{free / _GIGABYTE:.2g} GB are free. {remedy}"
    )


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
