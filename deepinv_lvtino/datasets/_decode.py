r"""Decoding of video files through PyAV, and the checks that nothing is missing."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from deepinv_lvtino.datasets._colour import frame_to_rgb

if TYPE_CHECKING:
    from av import VideoFrame
    from av.video.stream import VideoStream

_CFR_REMEDY = (
    "Re-encode it at a constant rate, for example with "
    "`ffmpeg -i IN -vf fps=30 -crf 12 OUT.mp4`."
)
_COMMON_RATES = [
    Fraction(n) for n in (10, 12, 15, 20, 24, 25, 30, 48, 50, 60, 100, 120)
]
_COMMON_RATES += [Fraction(n * 1000, 1001) for n in (24, 30, 48, 60, 120, 240)]
_COMMON_RATES += [Fraction(n) for n in (240, 480, 960)]


@dataclass
class _Reading:
    """Frames kept, and the times of all frames decoded."""

    frames: list[Tensor]
    times: list[Fraction | None]
    ended: bool = False


def decode_file(
    path: Path, start: int, num_frames: int | None
) -> tuple[list[Tensor], Fraction]:
    r"""
    Frames of a video file.

    :param pathlib.Path path: the file.
    :param int start: frames left out at the beginning.
    :param int num_frames: frames to read; all by default.
    :return: (tuple[list[torch.Tensor], fractions.Fraction]) the frames, ``(3, H, W)``
        each, fewer than asked where the file has fewer, and the frame rate in Hz.
    :raises ValueError: if the file cannot be read as one video of constant frame rate.
    """
    import av

    if path.stat().st_size == 0:
        msg = f"`path`: {path} is empty (0 bytes)."
        raise ValueError(msg)
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                msg = f"`path`: {path} holds no video stream (is it an audio file?)."
                raise ValueError(msg)
            stream = container.streams.video[0]
            _check_index(path, stream)
            stream.thread_type = "AUTO"
            reading = _decode(path, container, stream, start, num_frames)
            if not reading.times:
                msg = f"`path`: no frame of {path} can be decoded. {_TRUNCATED}"
                raise ValueError(msg)
            rate = _frame_rate(path, stream, reading.times)
            if reading.ended:
                _check_complete(path, container, stream, reading.times, rate)
    except av.error.FFmpegError as error:
        reason = error.strerror or str(error)
        msg = f"`path`: {path} cannot be read as a video ({reason}). {_TRUNCATED}"
        raise ValueError(msg) from error
    return reading.frames, rate


_TRUNCATED = "Is the file a complete video? Copy or encode it again."


def _decode(
    path: Path, container: Any, stream: VideoStream, start: int, num_frames: int | None
) -> _Reading:
    reading = _Reading([], [])
    last = None if num_frames is None else start + num_frames
    for packet in container.demux(stream):
        if getattr(packet, "is_corrupt", False):
            msg = f"`path`: {path} is damaged or cut short. {_TRUNCATED}"
            raise ValueError(msg)
        for frame in packet.decode():
            if last is not None and len(reading.times) >= last:
                return reading
            if getattr(frame, "is_corrupt", False):
                msg = (
                    f"`path`: frame {len(reading.times)} of {path} is damaged. "
                    f"{_TRUNCATED}"
                )
                raise ValueError(msg)
            reading.times.append(
                None if frame.pts is None else frame.pts * Fraction(frame.time_base)
            )
            if len(reading.times) > start:
                reading.frames.append(_to_tensor(path, frame))
                if reading.frames[-1].shape != reading.frames[0].shape:
                    msg = (
                        f"`path`: the frame size of {path} changes on the way. Re-encode "
                        "it at one size."
                    )
                    raise ValueError(msg)
    reading.ended = True
    return reading


def _to_tensor(path: Path, frame: VideoFrame) -> Tensor:
    if frame.interlaced_frame:
        msg = (
            f"`path`: {path} is interlaced: each frame mixes two moments. Deinterlace it "
            "first, for example with `ffmpeg -i IN -vf bwdif -crf 12 OUT.mp4`."
        )
        raise ValueError(msg)
    try:
        rgb = frame_to_rgb(frame)
    except ValueError as error:
        msg = f"`path`: {path} cannot be converted to RGB: {error}."
        raise ValueError(msg) from error
    rgb = np.ascontiguousarray(_turn(path, rgb, frame).transpose(2, 0, 1))
    return torch.from_numpy(rgb)


def _turn(path: Path, rgb: np.ndarray, frame: VideoFrame) -> np.ndarray:
    """Apply the display matrix: quarter turns and mirrors, as cameras write them."""
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return rgb
    # source (x, y) shows at (a x + c y, b x + d y)
    a, b, _, c, d = np.frombuffer(bytes(data), dtype=np.int32)[:5] / 65536
    small = 1e-3
    if max(abs(b), abs(c)) < small and min(abs(a), abs(d)) > small:
        x_sign, y_sign = a, d
    elif max(abs(a), abs(d)) < small and min(abs(b), abs(c)) > small:
        rgb = rgb.transpose(1, 0, 2)
        x_sign, y_sign = c, b
    else:
        msg = (
            f"`path`: {path} is to be shown turned by an angle that is not a multiple of "
            "90 degrees. Apply the rotation with an encoder first."
        )
        raise ValueError(msg)
    return rgb[:: 1 if y_sign > 0 else -1, :: 1 if x_sign > 0 else -1]


def _frame_rate(
    path: Path, stream: VideoStream, times: list[Fraction | None]
) -> Fraction:
    """The rate on which all time stamps lie, up to the rounding of the container."""
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
                return rate
        steps = [float(b - a) * 1000 for a, b in pairwise(known)]
        msg = (
            f"`path`: {path} has a variable frame rate (frames {min(steps):.4g} to "
            f"{max(steps):.4g} ms apart), but frames must be equally spaced in time. "
            f"{_CFR_REMEDY}"
        )
        raise ValueError(msg)
    if not rates:
        msg = f"`path`: {path} does not say its frame rate. {_CFR_REMEDY}"
        raise ValueError(msg)
    return rates[0]


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


def _check_index(path: Path, stream: VideoStream) -> None:
    """Refuse a file whose index points beyond its end: it was cut."""
    size = path.stat().st_size
    entries = getattr(stream, "index_entries", None)
    if entries and max(entry.pos + entry.size for entry in entries) > size:
        msg = (
            f"`path`: {path} is cut short: its index points past its end. {_TRUNCATED}"
        )
        raise ValueError(msg)


def _check_complete(
    path: Path,
    container: Any,
    stream: VideoStream,
    times: list[Fraction | None],
    rate: Fraction,
) -> None:
    """Refuse a file that ends well before the duration that it declares."""
    declared: Fraction | None = None
    if stream.duration and stream.time_base:
        declared = stream.duration * Fraction(stream.time_base)
    elif container.duration and len(container.streams) == 1:
        declared = Fraction(container.duration, 1_000_000)
    if declared is not None:
        expected = round(declared * rate)
        missing = expected - len(times)
        if missing > max(1, 0.01 * expected):
            msg = (
                f"`path`: {path} declares {float(declared):.3f} s, about {expected} "
                f"frames, but only {len(times)} can be decoded. {_TRUNCATED}"
            )
            raise ValueError(msg)
    elif stream.frames > len(times):
        msg = (
            f"`path`: {path} declares {stream.frames} frames, but only {len(times)} can "
            f"be decoded. {_TRUNCATED}"
        )
        raise ValueError(msg)
