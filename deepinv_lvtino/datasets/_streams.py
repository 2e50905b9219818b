r"""Streams of a video file: which one is the video, and what accompanies it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepinv_lvtino.datasets._images import IMAGE_SUFFIXES
from deepinv_lvtino.datasets._names import as_file, only_this_file

if TYPE_CHECKING:
    from av.video.stream import VideoStream

#: Metadata that describe the file they are in, not what it shows.
_OF_THE_FILE = frozenset(
    {"encoder", "major_brand", "minor_version", "compatible_brands", "duration"}
)
_DEFAULT, _ATTACHED_PICTURE = 1, 1024
_KINDS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".avi": "avi"}


def choose_video(path: Path, streams: Any) -> VideoStream:
    r"""
    The video of a file: the one marked as default, else the first, never a cover.

    :param pathlib.Path path: the file, for the message.
    :param av.container.streams.StreamContainer streams: its streams.
    :return: (av.video.stream.VideoStream) the video.
    :raises ValueError: if there is none.
    """
    moving = [stream for stream in streams.video if not _is_cover(stream)]
    if not moving:
        what = "is an audio file" if streams.audio else "holds no video stream"
        if streams.video:
            what += " with a cover picture"
        msg = f"`path`: {path} {what}. Give a file that holds a video."
        raise ValueError(msg)
    return next((one for one in moving if _flags(one) & _DEFAULT), moving[0])


def _flags(stream: Any) -> int:
    return int(getattr(stream, "disposition", 0) or 0)


def _is_cover(stream: Any) -> bool:
    return bool(_flags(stream) & _ATTACHED_PICTURE)


@dataclass(frozen=True)
class Companions:
    r"""
    What accompanies the video of a file, and can be copied beside another video.

    :param pathlib.Path path: the file.
    :param tuple[int, ...] streams: numbers of its streams that are copied: sound and
        subtitles that the container of the output can hold.
    :param dict[str, str] metadata: title, date and the like.
    :param list chapters: chapters, as PyAV has them.
    :param fractions.Fraction pixel_shape: width of a pixel by its height.
    :param tuple[str, ...] kept: all that in words.
    :param tuple[str, ...] left: what is not copied, in words.
    """

    path: Path
    streams: tuple[int, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    chapters: list[Any] = field(default_factory=list)
    pixel_shape: Fraction = Fraction(1)
    kept: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


def find_companions(path: Path, output: Path) -> Companions:
    r"""
    What of a file can accompany a restored video.

    :param pathlib.Path path: the file; pictures have no companions.
    :param pathlib.Path output: file to be written; into a folder nothing can be copied.
    :return: (Companions) what can, and what cannot.
    """
    import av

    if path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES:
        return Companions(path)
    name = _KINDS.get(output.suffix.lower())
    known = frozenset() if name is None else _codecs(name)
    kept: list[str] = []
    left: list[str] = []
    numbers = []
    with av.open(as_file(path), **only_this_file()) as file:
        video = choose_video(path, file.streams)
        for stream in file.streams:
            if stream.index == video.index:
                continue
            words = _in_words(stream)
            if stream.type in ("audio", "subtitle") and _codec_of(stream) in known:
                numbers.append(stream.index)
                kept.append(words)
            else:
                left.append(words)
        metadata = {
            key: value
            for key, value in file.metadata.items()
            if key.lower() not in _OF_THE_FILE
        }
        chapters = list(file.chapters()) if hasattr(file, "chapters") else []
        shape = Fraction(video.sample_aspect_ratio or 1) or Fraction(1)
    for what, value in (
        ("chapters", chapters),
        (f"metadata ({', '.join(metadata)})", metadata),
    ):
        if value:
            (left if name is None else kept).append(what)
    if name is None:
        metadata, chapters = {}, []
    if shape != 1:
        words = f"pixels of shape {shape.numerator}:{shape.denominator}"
        (left if name is None else kept).append(words)
    return Companions(
        path, tuple(numbers), metadata, chapters, shape, tuple(kept), tuple(left)
    )


def _in_words(stream: Any) -> str:
    codec = _codec_of(stream)
    codec = f" ({codec})" if codec else ""
    language = stream.metadata.get("language")
    kind = {"audio": "sound", "subtitle": "subtitles", "video": "another video"}.get(
        stream.type, f"a stream of {stream.type or 'unknown'} data"
    )
    if stream.type == "video" and _is_cover(stream):
        kind = "cover picture"
    return f"{kind}{codec}" + (
        f" [{language}]" if language not in (None, "und") else ""
    )


def _codec_of(stream: Any) -> str:
    context = stream.codec_context
    return "" if context is None else str(context.codec.canonical_name)


def _codecs(name: str) -> frozenset[str]:
    """Codecs that a kind of container can hold."""
    import av

    with av.open(io.BytesIO(), "w", format=name) as container:
        return frozenset(container.supported_codecs)


class Copying:
    r"""
    Packets of the companions, copied into a file while its video is written.

    :param Companions companions: what to copy.
    :param av.container.OutputContainer output: the file, before its first packet.
    """

    def __init__(self, companions: Companions, output: Any) -> None:
        import av

        self.output = output
        self.source = av.open(as_file(companions.path), **only_this_file())
        video = choose_video(companions.path, self.source.streams)
        self.copies = {
            index: _add_copy(output, self.source.streams[index])
            for index in companions.streams
        }
        starts = [
            _time(stream.start_time, stream.time_base)
            for stream in self.source.streams
            if stream.index in (*companions.streams, video.index)
            and stream.start_time is not None
        ]
        self.first = min(starts, default=Fraction(0))
        #: When the video begins, in seconds after whatever begins first.
        self.video_start = (
            _time(video.start_time or 0, video.time_base) - self.first
            if video.start_time is not None
            else Fraction(0)
        )
        output.metadata.update(companions.metadata)
        if companions.chapters and hasattr(output, "set_chapters"):
            output.set_chapters(companions.chapters)
        self.waiting: Any = None
        self.packets = self._packets()

    def until(self, seconds: Fraction) -> None:
        r"""
        Copy what begins before a time.

        :param fractions.Fraction seconds: time from the beginning of the file.
        """
        while True:
            if self.waiting is None:
                self.waiting = next(self.packets, None)
            if self.waiting is None or self.waiting[0] > seconds:
                return
            self.output.mux(self.waiting[1])
            self.waiting = None

    def close(self) -> None:
        """Close the source; what begins after the video's end is left out."""
        self.source.close()

    def _packets(self) -> Iterator[tuple[Fraction, Any]]:
        if not self.copies:
            return
        for packet in self.source.demux([self.source.streams[i] for i in self.copies]):
            if packet.dts is None:
                continue
            base = Fraction(packet.time_base)
            shift = round(self.first / base)
            seconds = packet.dts * base - self.first
            packet.pts = None if packet.pts is None else packet.pts - shift
            packet.dts -= shift
            packet.stream = self.copies[packet.stream.index]
            yield seconds, packet


def _add_copy(output: Any, stream: Any) -> Any:
    if hasattr(output, "add_stream_from_template"):
        copy = output.add_stream_from_template(stream)
    else:
        copy = output.add_stream(template=stream)
    copy.metadata.update(
        {k: v for k, v in stream.metadata.items() if k.lower() not in _OF_THE_FILE}
    )
    return copy


def _time(value: int | None, base: Fraction | None) -> Fraction:
    return (value or 0) * Fraction(base or 1)
