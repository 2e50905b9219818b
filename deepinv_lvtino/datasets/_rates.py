r"""Frame rates: as they are given, and as the times of decoded frames say them."""

from __future__ import annotations

import math
from bisect import bisect
from collections import Counter
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deepinv_lvtino.datasets._damage import Faults

if TYPE_CHECKING:
    from av.video.stream import VideoStream

_CFR_REMEDY = (
    "Have frames repeated and left out by their times (`constant_rate=True`, on the "
    "command line --rate constant), or encode it again at a constant rate."
)
_COMMON_RATES = [
    Fraction(n) for n in (10, 12, 15, 20, 24, 25, 30, 48, 50, 60, 100, 120)
]
_COMMON_RATES += [Fraction(n * 1000, 1001) for n in (24, 30, 48, 60, 120, 240)]
_COMMON_RATES += [Fraction(n) for n in (240, 480, 960)]


def exact_fps(fps: Fraction | float) -> Fraction:
    r"""
    Frame rate as a fraction.

    :param fractions.Fraction, float fps: frames per second; 29.97 means 30000/1001.
    :return: (fractions.Fraction) the rate.
    :raises ValueError: if it is not positive and finite.
    """
    if not 0 < fps < float("inf"):
        msg = f"`fps` must be positive and finite; got {fps}."
        raise ValueError(msg)
    if isinstance(fps, float):
        ntsc = Fraction(round(fps * 1.001) * 1000, 1001)
        if ntsc and abs(fps - ntsc) < 0.005 and abs(fps - round(fps)) > 0.005:
            return ntsc
        return Fraction(fps).limit_denominator(100_000)
    return Fraction(fps)


def frame_rate(
    faults: Faults, stream: VideoStream, times: list[Fraction | None], constant: bool
) -> tuple[Fraction, list[int] | None, list[str]]:
    r"""
    The rate on which all time stamps lie, up to the rounding of the container.

    Of a damaged file it is the one that it declares, frames being missing. Of frames at
    uneven times it is a common one near to the usual one, if that is asked for.

    :param Faults faults: what is done about damage.
    :param av.video.stream.VideoStream stream: what declares the rate.
    :param list times: seconds of the frames, where they are known.
    :param bool constant: whether uneven times are resampled.
    :return: (tuple) the rate in Hz; of uneven times, the frame that is shown at each of
        its moments; and what was done in words.
    :raises ValueError: if the times are uneven and may not be, or no rate is known.
    """
    declared = [stream.guessed_rate, stream.average_rate, stream.base_rate]
    rates = [Fraction(rate) for rate in declared if rate]
    known = [time for time in times if time is not None]
    if len(known) == len(times) > 1:
        span = known[-1] - known[0]
        if span > 0:
            mean = (len(known) - 1) / span
            close = [rate for rate in _COMMON_RATES if abs(rate / mean - 1) < 0.005]
            rates += sorted(close, key=lambda rate: abs(rate - mean))
        unit = Fraction(stream.time_base or Fraction(1, 1000))
        for rate in rates:
            if _fits(known, rate, unit):
                return rate, None, []
        if constant and span > 0:
            return _resampled(faults.path, known)
        if faults.notes and rates:
            faults.add("has gaps in time, which are closed up")
            return rates[0], None, []
        steps = [float(b - a) * 1000 for a, b in pairwise(known)]
        msg = (
            f"`path`: {faults.path} has a variable frame rate (frames {min(steps):.4g} to "
            f"{max(steps):.4g} ms apart), but frames must be equally spaced in time. "
            f"{_CFR_REMEDY}"
        )
        raise ValueError(msg)
    if not rates:
        msg = f"`path`: {faults.path} does not say its frame rate. {_CFR_REMEDY}"
        raise ValueError(msg)
    return rates[0], None, []


def _resampled(
    path: Path, times: list[Fraction]
) -> tuple[Fraction, list[int], list[str]]:
    """Frames shown at the moments of the common rate nearest to their usual distance."""
    steps = [float(b - a) for a, b in pairwise(times)]
    usual = float(np.median([step for step in steps if step > 0]))
    rate = min(_COMMON_RATES, key=lambda rate: abs(math.log(rate * usual)))
    count = round((times[-1] - times[0]) * rate) + 1
    # the last frame that begins before the middle of a moment
    starts = [float((time - times[0]) * rate) for time in times]
    order = [bisect(starts, k + 0.5) - 1 for k in range(count)]
    uses = Counter(order)
    doubled = [k for k, used in uses.items() if used > 1]
    dropped = [k for k in range(len(times)) if k not in uses]
    notes = [f"{path} has a variable frame rate, resampled at {float(rate):.6g} Hz"]
    for words, numbers in (("repeated", doubled), ("left out", dropped)):
        if numbers:
            few = ", ".join(map(str, numbers[:20]))
            more = ", ..." if len(numbers) > 20 else ""
            notes.append(f"{len(numbers)} frames are {words}: {few}{more}")
    return rate, order, notes


def _fits(times: list[Fraction], rate: Fraction, unit: Fraction) -> bool:
    period = 1 / rate
    step_slack = float(2 * unit + period / 20)
    total_slack = float(2 * unit + period / 2)
    return all(
        abs(float(b - a - period)) <= step_slack for a, b in pairwise(times)
    ) and all(
        abs(float(time - times[0] - i * period)) <= total_slack
        for i, time in enumerate(times)
    )
