r"""Decoding of video files through PyAV, and the checks that nothing is missing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from deepinv_lvtino.datasets._colour import frame_to_rgb, is_opaque
from deepinv_lvtino.datasets._containers import Container, inspect_container
from deepinv_lvtino.datasets._damage import Faults, Log, decoder_log
from deepinv_lvtino.datasets._names import (
    LARGEST,
    as_file,
    check_size,
    only_this_file,
)
from deepinv_lvtino.datasets._rates import frame_rate
from deepinv_lvtino.datasets._stored import Frames
from deepinv_lvtino.datasets._streams import choose_video

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.video.stream import VideoStream

_FLATTEN = (
    "What is transparent takes its colour from what is behind it. Put it on a background "
    "first, for example with `ffmpeg -c:v libvpx-vp9 -i IN -filter_complex "
    '"color=black[b];[b][0]scale2ref[b][v];[b][v]overlay=shortest=1" -crf 12 OUT.mp4`'
    " (-c:v libvpx-vp9 for VP9 alone)."
)
_ERRORS = "crccheck+bitstream+buffer"
# Decoders that rightly give fewer frames than packets: hidden and skipped ones
_HIDDEN = frozenset({"vp8", "mpeg4", "msmpeg4", "msmpeg4v2", "msmpeg4v1", "libvpx"})


@dataclass(frozen=True)
class Conversions:
    r"""
    What is done with kinds of video that are refused by default.

    :param bool deinterlace: interlaced frames become progressive ones.
    :param bool constant_rate: frames at uneven times are doubled or left out.
    :param bool tonemap: HDR becomes the range of an ordinary display.
    """

    deinterlace: bool = False
    constant_rate: bool = False
    tonemap: bool = False


@dataclass
class _Reading:
    """Frames kept, and the times of all frames decoded."""

    frames: Frames
    times: list[Fraction | None]
    packets: int = 0
    hidden: int = 0
    ended: bool = False


def decode_file(
    path: Path,
    start: int,
    num_frames: int | None,
    faults: Faults,
    frames: Frames,
    conversions: Conversions = Conversions(),
) -> tuple[Frames, Fraction, list[str]]:
    r"""
    Frames of a video file.

    :param pathlib.Path path: the file.
    :param int start: frames left out at the beginning.
    :param int num_frames: frames to read; all by default.
    :param Faults faults: what is done about damage.
    :param Frames frames: where they are put.
    :param Conversions conversions: what is done with unusual kinds.
    :return: (tuple) the frames, ``(3, H, W)`` each, fewer than asked where the file has
        fewer, the frame rate in Hz, and what was done in words.
    :raises ValueError: if the file cannot be read as one video of constant frame rate, or
        is damaged.
    """
    import av

    if path.stat().st_size == 0:
        msg = f"`path`: {path} is empty (0 bytes)."
        raise ValueError(msg)
    known = inspect_container(path)
    if known.fault.startswith("is cut short"):
        faults.add(known.fault)
    try:
        with (
            decoder_log() as log,
            av.open(as_file(path), **only_this_file()) as file,
        ):
            stream = choose_video(path, file.streams)
            if stream.codec_context is None:
                msg = f"`path`: {path} is of a kind that FFmpeg has no decoder for. "
                raise ValueError(msg + _TRUNCATED)
            if stream.metadata.get("alpha_mode") == "1":
                msg = f"`path`: {path} has an alpha channel beside its colours. {_FLATTEN}"
                raise ValueError(msg)
            check_size(path, stream.height or 0, stream.width or 0)
            _check_index(faults, stream)
            stream.codec_context.options = {
                "err_detect": _ERRORS,
                "max_pixels": str(LARGEST),
            }
            stream.codec_context.thread_type = "NONE"
            stream.codec_context.thread_count = 1
            # what is resampled is cut to length afterwards
            asked = (0, None) if conversions.constant_rate else (start, num_frames)
            reading = _decode(faults, file, stream, *asked, log, frames, conversions)
            if not reading.times:
                msg = f"`path`: no frame of {path} can be decoded. {_TRUNCATED}"
                raise ValueError(msg)
            if known.fault:
                faults.add(known.fault)
            rate, order, notes = frame_rate(
                faults, stream, reading.times, conversions.constant_rate
            )
            if reading.ended:
                _check_complete(faults, file, stream, reading, rate, known)
    except av.error.FFmpegError as error:
        reason = error.strerror or str(error)
        msg = f"`path`: {path} cannot be read as a video ({reason}). {_TRUNCATED}"
        raise ValueError(msg) from error
    if order is not None:
        frames.reorder(order)
    if conversions.constant_rate:
        stop = len(frames) if num_frames is None else start + num_frames
        frames.reorder([*range(start, min(stop, len(frames)))])
    return frames, rate, notes


_TRUNCATED = "Is the file a complete video? Copy or encode it again."


def _decode(
    faults: Faults,
    container: Any,
    stream: VideoStream,
    start: int,
    num_frames: int | None,
    log: Log,
    frames_read: Frames,
    conversions: Conversions,
) -> _Reading:
    progressive = Deinterlacer(stream) if conversions.deinterlace else None
    reading = _Reading(frames_read, [])
    last = None if num_frames is None else start + num_frames
    decoder, demuxer = stream.codec_context.name, container.format.name
    size = log.refused_size()
    if size is not None:
        check_size(faults.path, *size)
    # what a decoder said on opening, about the first frames, it will say again
    fault = log.damage(demuxer)
    if fault and demuxer != decoder:
        faults.add(f"is damaged ({fault})")
    for packet in container.demux(stream):
        at = _frame_of(packet, stream, reading)
        fault = log.damage(demuxer)
        if fault:
            faults.add(f"is damaged before frame {at} ({fault})")
        if getattr(packet, "is_corrupt", False):
            faults.add("is damaged or cut short", at)
        frames = _frames_of(packet, faults, at, log)
        if progressive is not None:
            frames = progressive.of(frames, ended=packet.size == 0)
        for frame in frames:
            if last is not None and len(reading.times) >= last:
                return reading
            if getattr(frame, "is_corrupt", False):
                faults.add("is damaged", len(reading.times))
            reading.times.append(
                None
                if frame.pts is None or frame.time_base is None
                else frame.pts * Fraction(frame.time_base)
            )
            if len(reading.times) > start:
                tensor = _to_tensor(faults.path, frame, conversions.tonemap)
                _check_same_size(faults.path, reading.frames, tensor)
                reading.frames.append(tensor)
        fault = log.damage(decoder, demuxer)
        if fault:
            faults.add(f"is damaged ({fault})", at)
        if packet.size:
            reading.packets += 1
            reading.hidden += bool(getattr(packet, "is_discard", False))
    reading.ended = True
    return reading


class Deinterlacer:
    r"""
    FFmpeg's filter ``bwdif``, one frame for each; progressive frames pass.

    :param av.video.stream.VideoStream stream: the video.
    """

    def __init__(self, stream: VideoStream) -> None:
        from av.filter import Graph

        self.graph = Graph()
        source = self.graph.add_buffer(template=stream)
        filtered = self.graph.add("bwdif", "mode=send_frame:deint=interlaced")
        sink = self.graph.add("buffersink")
        source.link_to(filtered)
        filtered.link_to(sink)
        self.graph.configure()

    def of(self, frames: list[VideoFrame], ended: bool) -> list[VideoFrame]:
        r"""
        Progressive frames, one later than they are given.

        :param list frames: decoded frames, in order.
        :param bool ended: whether they are the last.
        :return: (list) what is complete.
        """
        import av

        for frame in [*frames, *([None] if ended else [])]:
            self.graph.push(frame)
        found: list[Any] = []
        while True:
            try:
                found.append(self.graph.pull())
            except (BlockingIOError, av.error.EOFError):
                return found


def _frames_of(packet: Packet, faults: Faults, at: int, log: Log) -> list[VideoFrame]:
    import av

    try:
        return packet.decode()
    except av.error.FFmpegError as error:
        size = log.refused_size()
        if size is not None:
            check_size(faults.path, *size)
        said = log.damage(packet.stream.codec_context.name)
        faults.add(f"cannot be decoded ({said or error.strerror or error})", at)
        return []


def _frame_of(packet: Packet, stream: VideoStream, reading: _Reading) -> int:
    """Number of the frame in a packet: by its time, where that is known."""
    rate = stream.average_rate or stream.guessed_rate
    if packet.pts is None or packet.time_base is None or not rate:
        return reading.packets
    first = next((time for time in reading.times if time is not None), None)
    if first is None:
        first = (stream.start_time or 0) * Fraction(stream.time_base or 1)
    return max(0, round((packet.pts * Fraction(packet.time_base) - first) * rate))


def _check_same_size(path: Path, frames: Frames, frame: Tensor) -> None:
    if len(frames) and frame.shape != frames.shape:
        msg = (
            f"`path`: the frame size of {path} changes on the way. Re-encode it at one "
            "size."
        )
        raise ValueError(msg)


def _to_tensor(path: Path, frame: VideoFrame, tonemap: bool = False) -> Tensor:
    check_size(path, frame.height, frame.width)
    if frame.interlaced_frame:
        msg = (
            f"`path`: {path} is interlaced: each frame mixes two moments. Have it "
            "deinterlaced (`deinterlace=True`, on the command line --deinterlace)."
        )
        raise ValueError(msg)
    if not is_opaque(frame):
        msg = f"`path`: {path} has transparent pixels. {_FLATTEN}"
        raise ValueError(msg)
    try:
        rgb = frame_to_rgb(frame, tonemap)
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


def _check_index(faults: Faults, stream: VideoStream) -> None:
    """Refuse a file whose index points beyond its end: it was cut."""
    size = faults.path.stat().st_size
    entries = getattr(stream, "index_entries", None)
    if entries and max(entry.pos + entry.size for entry in entries) > size:
        faults.add("is cut short: its index points past its end")


def _check_complete(
    faults: Faults,
    container: Any,
    stream: VideoStream,
    reading: _Reading,
    rate: Fraction,
    known: Container,
) -> None:
    """Refuse a file with another number of frames than it declares."""
    count = len(reading.times)
    shown = reading.packets - reading.hidden
    if stream.codec_context.name not in _HIDDEN and count < shown:
        faults.add(f"holds {shown} frames, but only {count} can be decoded")
    declared = known.frames
    if declared is None and known.kind == "mp4" and reading.packets < stream.frames:
        fault = f"declares {stream.frames} frames, but holds {reading.packets}"
        entries = getattr(stream, "index_entries", None)
        if entries is None or reading.packets < len(entries):  # but for edit lists
            faults.add(fault)
    if declared is None and known.kind == "avi":
        declared = (stream.frames - known.empty) if stream.frames else None
    if declared is not None and declared != count:
        faults.add(f"declares {declared} frames, but {count} can be decoded")
    duration = _declared_duration(container, stream, reading.times[0])
    if duration is None:
        if stream.frames > count:
            faults.add(
                f"declares {stream.frames} frames, but only {count} can be decoded"
            )
        return
    missing = float(duration * rate) - count
    if missing > _slack(known, float(duration * rate)):
        faults.add(
            f"declares {float(duration):.3f} s, about {round(duration * rate)} frames, "
            f"but only {count} can be decoded"
        )


def _slack(known: Container, expected: float) -> float:
    """Frames by which a duration may be wrong, by the kind of container."""
    if known.kind == "mp4":
        return 1.5  # cameras let the last frame last longer; the samples are counted
    if known.kind in ("matroska", "avi"):
        return 0.75 + known.empty
    return max(1, 0.01 * expected)


def _declared_duration(
    container: Any, stream: VideoStream, first: Fraction | None
) -> Fraction | None:
    """Seconds from the first frame to the end of the last one."""
    end = None
    if stream.metadata.get("DURATION"):  # of Matroska, whose streams have no other
        end = _seconds(stream.metadata["DURATION"])
    elif stream.duration and stream.time_base:
        return stream.duration * Fraction(stream.time_base)
    if end is None and container.duration and len(container.streams) == 1:
        end = Fraction(container.duration, 1_000_000)
    return None if end is None else end - max(first or Fraction(0), Fraction(0))


def _seconds(text: str) -> Fraction | None:
    """Of a time such as 00:00:01.960000000."""
    match = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", text.strip("\0 "))
    if match is None:
        return None
    return 3600 * int(match[1]) + 60 * int(match[2]) + Fraction(match[3])
