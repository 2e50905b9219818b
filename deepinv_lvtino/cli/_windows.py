r"""Windows of time and tiles of frames, as the options say."""

from __future__ import annotations

import argparse
import math

from deepinv_lvtino.cli._errors import UserError, user_errors
from deepinv_lvtino.cli._tasks import AnyTask
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
    arguments: argparse.Namespace, task: AnyTask, solver: LVTINO, window: int
) -> Windowed:
    r"""
    The solver over windows, and over tiles if they are asked for.

    :param argparse.Namespace arguments: the options.
    :param AnyTask task: measurement and operator.
    :param LVTINO solver: the solver.
    :param int window: frames of a window.
    :return: (Windowed) solver over windows.
    :raises UserError: if the operator cannot be cut so.
    """
    inner: LVTINO | Tiled = solver
    if arguments.tiles is not None:
        width, height = arguments.tiles
        try:
            inner = Tiled(solver, (height, width), seed=arguments.seed)
            inner.tiles(task.operator)
        except (NotImplementedError, ValueError) as error:
            msg = f"--tiles {width}x{height}: {error} (--tiles, --grid)"
            raise UserError(msg) from error
    overlap = arguments.overlap
    if overlap is None:
        overlap = min(4, window - 1)
    with user_errors():
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
        tiles = windowed.solver.tiles(task.operator)
        pixels = sum(tile.num_pixels for tile in tiles)
        again *= pixels / math.prod(task.physics.img_size[-2:])
    return again
