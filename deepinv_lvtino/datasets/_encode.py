r"""Encoding of video files through PyAV."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deepinv_lvtino.datasets._colour import rgb_to_yuv
from deepinv_lvtino.datasets._names import as_file
from deepinv_lvtino.datasets._streams import Companions, Copying

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import OutputContainer

_LARGEST_TERM = 2**31


def encode_file(
    path: Path,
    images: Iterable[np.ndarray],
    size: tuple[int, int],
    fps: Fraction,
    crf: int,
    lossless: bool,
    *,
    bits: int = 8,
    subsample: bool = True,
    x264: str = "",
    companions: Companions | None = None,
) -> None:
    r"""
    Encode frames; see :func:`deepinv_lvtino.datasets.write_video` for what is written.

    :param pathlib.Path path: the file; its suffix decides the container.
    :param Iterable[numpy.ndarray] images: uint8 RGB frames ``(H, W, 3)``, or uint16 ones
        for 10 bits.
    :param tuple[int, int] size: ``(H, W)``.
    :param fractions.Fraction fps: frames per second.
    :param int crf: quality from 0 (best) to 51.
    :param bool lossless: whether to keep the 8-bit RGB values.
    :param int bits: 8 or 10 bits of a value.
    :param bool subsample: whether colour may be stored at half the resolution.
    :param str x264: further settings of libx264, which is then needed.
    :param Companions companions: sound and the like to copy beside the frames.
    :raises ValueError: if this build of PyAV has no encoder for it, or no file can hold
        the frame rate.
    """
    import av

    if max(fps.numerator, fps.denominator) >= _LARGEST_TERM:
        msg = (
            f"`fps` must be a fraction of numbers below 2**31, as files store it; got "
            f"{fps}. Round it."
        )
        raise ValueError(msg)

    height, width = size
    even = subsample and height % 2 == 0 and width % 2 == 0
    if bits == 10:
        codec, pixels, options = _deep_codec(path.suffix, even, crf, lossless)
    else:
        codec, pixels, options = _codec(path.suffix, even, crf, lossless)
    if x264:
        if codec != "libx264":
            msg = "`path`: this needs PyAV with libx264. Install PyAV's own wheel."
            raise ValueError(msg)
        options = {**options, "x264-params": f"mbtree=0:{x264}"}
    rgb = not pixels.startswith("yuv")
    with av.open(as_file(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        stream.codec_context.time_base = 1 / fps
        if codec == "libx265" and path.suffix.lower() in (".mp4", ".mov"):
            stream.codec_context.codec_tag = "hvc1"  # which Apple's players ask for
        _tag(stream.codec_context, rgb)
        if companions is not None and companions.pixel_shape != 1:
            stream.codec_context.sample_aspect_ratio = companions.pixel_shape
        with _copying(companions, container) as copying:
            # in whole frames, which is all that a constant rate allows
            first = 0 if copying is None else round(copying.video_start * fps)
            index = first - 1
            for index, image in enumerate(images, first):  # noqa: B007
                frame = _frame(image, pixels)
                frame.pts, frame.time_base = index, 1 / fps
                if copying is not None:
                    copying.until(index / fps)
                container.mux(stream.encode(frame))
            if copying is not None:
                copying.until((index + 1) / fps)
            container.mux(stream.encode(None))


class GrowingVideo:
    r"""
    A Matroska file that can be played while frames are added to it.

    No frame refers to a later one, and each is stored when the next one comes.

    :param pathlib.Path path: the file, overwritten.
    :param tuple[int, int] size: ``(H, W)``.
    :param fractions.Fraction fps: frames per second.
    :raises ValueError: if this build of PyAV has no encoder for it.
    """

    def __init__(self, path: Path, size: tuple[int, int], fps: Fraction) -> None:
        import av

        height, width = size
        even = height % 2 == 0 and width % 2 == 0
        codec, self._pixels, options = _codec(".mkv", even, crf=16, lossless=False)
        if codec == "libx264":
            options |= {"tune": "zerolatency", "preset": "veryfast"}
        live = {"live": "1", "flush_packets": "1", "cluster_time_limit": "1"}
        self._container = av.open(as_file(path), "w", format="matroska", options=live)
        stream: Any = self._container.add_stream(codec, rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, self._pixels
        stream.codec_context.time_base = 1 / fps
        _tag(stream.codec_context, rgb=False)
        self._stream, self._fps, self._count = stream, fps, 0

    def add(self, images: Iterable[np.ndarray]) -> None:
        r"""
        Append frames.

        :param Iterable[numpy.ndarray] images: uint8 RGB frames ``(H, W, 3)``.
        """
        for image in images:
            frame = _frame(image, self._pixels)
            frame.pts, frame.time_base = self._count, 1 / self._fps
            self._container.mux(self._stream.encode(frame))
            self._count += 1

    def close(self) -> None:
        """Store what the encoder still holds."""
        self._container.mux(self._stream.encode(None))
        self._container.close()


def _frame(image: np.ndarray, pixels: str) -> VideoFrame:
    """Frame of an encoder's pixel format, from uint8 RGB."""
    import av

    rgb = not pixels.startswith("yuv")
    if rgb:
        frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format=pixels)
    else:
        values = image.astype(np.float32) / np.iinfo(image.dtype).max
        bits = 10 if pixels.endswith("10le") else 8
        planes = rgb_to_yuv(values, "444" not in pixels, bits, "420" in pixels)
        if bits == 8:
            frame = av.VideoFrame.from_ndarray(planes, pixels)
        else:
            frame = av.VideoFrame(image.shape[1], image.shape[0], pixels)
            _fill(frame, planes.ravel())
    _tag(frame, rgb)
    return frame


def _fill(frame: VideoFrame, values: np.ndarray) -> None:
    """Planes of 16-bit values, one after the other, into a frame."""
    first = 0
    for plane in frame.planes:
        width, height = plane.width, plane.height
        part = values[first : first + width * height].reshape(height, width)
        first += part.size
        padded = np.zeros((height, plane.line_size // 2), np.uint16)
        padded[:, :width] = part
        plane.update(padded.tobytes())


@contextmanager
def _copying(
    companions: Companions | None, container: OutputContainer
) -> Iterator[Copying | None]:
    if companions is None or not companions.kept:
        yield None
        return
    copying = Copying(companions, container)
    try:
        yield copying
    finally:
        copying.close()


def _tag(target: Any, rgb: bool) -> None:
    """BT.709 primaries and transfer; matrix and range, of limited YUV or of RGB."""
    target.color_primaries = target.color_trc = 1
    if not rgb:
        target.colorspace, target.color_range = 1, 1


def _deep_codec(
    suffix: str, even: bool, crf: int, lossless: bool
) -> tuple[str, str, dict[str, str]]:
    """H.265 of 10 bit, or ProRes in .mov."""
    import av

    suffix = suffix.lower()
    codec = "prores_ks" if suffix == ".mov" else "libx265"
    if lossless or suffix == ".avi" or not even or codec not in av.codecs_available:
        msg = (
            "`bits`: 10 bits are stored as H.265 in .mp4 and .mkv, or ProRes in .mov, "
            "with loss and for even sizes. Choose one of these, or a folder, which has "
            "PNG frames of 16 bit without loss."
        )
        raise ValueError(msg)
    if codec == "prores_ks":
        return codec, "yuv422p10le", {"profile": "hq", "vendor": "apl0"}
    quiet = {"x265-params": "log-level=error"}
    return codec, "yuv420p10le", {"crf": str(crf), "preset": "medium", **quiet}


def _codec(
    suffix: str, even: bool, crf: int, lossless: bool
) -> tuple[str, str, dict[str, str]]:
    import av

    suffix = suffix.lower()
    # AVI has no presentation times, so no reordered frames
    order = {"bf": "0"} if suffix == ".avi" else {}
    if lossless:
        if "libx264rgb" in av.codecs_available:
            return "libx264rgb", "rgb24", {"qp": "0", "preset": "fast", **order}
        if suffix in (".mkv", ".avi"):
            # a checksum for each slice, and no frame that needs another one
            return "ffv1", "bgr0", {"level": "3", "slicecrc": "1", "g": "1"}
        msg = (
            "`lossless` video needs PyAV with libx264 for .mp4 and .mov. Write .mkv or "
            "a folder of frames."
        )
        raise ValueError(msg)
    if "libx264" in av.codecs_available:
        pixels = "yuv420p" if even else "yuv444p"
        # with its tree of macroblocks the same frames give other bytes every time
        same = {"x264-params": "mbtree=0"}
        return "libx264", pixels, {"crf": str(crf), "preset": "medium", **order, **same}
    if even:
        scale = str(max(1, min(31, round(1 + crf / 8))))
        return "mpeg4", "yuv420p", {"qmin": scale, "qmax": scale}
    msg = (
        "`path`: odd sizes need PyAV with libx264. Write a folder of frames, or install "
        "PyAV's own wheel."
    )
    raise ValueError(msg)
