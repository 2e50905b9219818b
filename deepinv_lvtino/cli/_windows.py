r"""Windows of time and tiles of frames, as the options say."""

from __future__ import annotations

import argparse
import math

from deepinv_lvtino.cli._errors import UserError, user_errors
from deepinv_lvtino.cli._tasks import AnyTask, LongTask
from deepinv_lvtino.optim import LVTINO, Tiled, Windowed

#: Frames of the windows of ``--stream`` and ``--tiles`` where nothing is said.
WINDOW = 17


def check_windows(arguments: argparse.Namespace) -> None:
    """Refuse options of windows that contradict others, and set what they imply."""
    if arguments.stream and arguments.simulate:
        msg = "--stream is for measurements: leave out --simulate, or --stream."
        raise UserError(msg)
    given = [
        option
        for option, value in (
            ("--stream", arguments.stream),
            ("--tiles", arguments.tiles),
            ("--window", arguments.window),
        )
        if value
    ]
    if not given:
        if arguments.overlap is not None:
            msg = "--overlap is of windows: give their frames with --window, too."
            raise UserError(msg)
        return
    if arguments.window is None:
        arguments.window = WINDOW
    if arguments.samples > 1:
        msg = (
            f"{given[0]} gives one sample, and --samples asks for "
            f"{arguments.samples}. Leave one of them out."
        )
        raise UserError(msg)
    overlap = arguments.overlap
    if overlap is not None and overlap >= arguments.window:
        msg = f"--overlap {overlap} must be below --window {arguments.window}."
        raise UserError(msg)


def windows_of(
    arguments: argparse.Namespace, task: AnyTask, solver: LVTINO
) -> Windowed | None:
    r"""
    The solver over windows and tiles, if they are asked for or the memory asks for them.

    :param argparse.Namespace arguments: the options.
    :param AnyTask task: measurement and operator.
    :param LVTINO solver: the solver.
    :return: (Windowed) solver over windows, or ``None`` for the whole video at once.
    :raises UserError: if the operator cannot be cut so.
    """
    long = isinstance(task, LongTask)
    physics = task.physics.short if long else task.physics
    window = getattr(task if long else arguments, "window", None)
    if window is None:
        return None
    tiles = getattr(arguments, "tiles", None)
    inner: LVTINO | Tiled = solver
    if tiles is not None:
        width, height = tiles
        option = f"--tiles {width}x{height}"
        try:
            inner = Tiled(solver, (height, width), seed=arguments.seed)
            inner.tiles(physics)
        except (NotImplementedError, ValueError) as error:
            msg = f"{option}: {error} (--tiles, --grid)"
            raise UserError(msg) from error
    with user_errors():
        overlap = min(4, window - 1)
        overlap = overlap if arguments.overlap is None else arguments.overlap
        windowed = Windowed(inner, window, overlap, seed=arguments.seed)
    try:
        windowed.windows(task.y, task.physics)
    except (NotImplementedError, ValueError) as error:
        msg = f"--window {window}: {error} (--time-border, --window)"
        raise UserError(msg) from error
    return windowed


def times_over(windowed: Windowed | None, task: AnyTask) -> float:
    r"""
    How often a pixel is worked on, as windows and tiles overlap.

    :param Windowed windowed: the solver over windows, or ``None``.
    :param AnyTask task: measurement and operator.
    :return: (float) mean over the pixels.
    """
    if windowed is None:
        return 1.0
    again = windowed.frames / max(1, windowed.frames - windowed.overlap)
    if isinstance(windowed.solver, Tiled):
        physics = task.physics.short if isinstance(task, LongTask) else task.physics
        pixels = sum(
            math.prod(span.stop - span.start for span in (tile.rows, tile.columns))
            for tile in windowed.solver.tiles(physics)
        )
        again *= pixels / math.prod(task.physics.img_size[-2:])
    return again
