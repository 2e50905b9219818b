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
    subsample: bool = True,
    x264: str = "",
    companions: Companions | None = None,
) -> None:
    r"""
    Encode frames; see :func:`deepinv_lvtino.datasets.write_video` for what is written.

    :param pathlib.Path path: the file; its suffix decides the container.
    :param Iterable[numpy.ndarray] images: uint8 RGB frames ``(H, W, 3)``.
    :param tuple[int, int] size: ``(H, W)``.
    :param fractions.Fraction fps: frames per second.
    :param int crf: quality from 0 (best) to 51.
    :param bool lossless: whether to keep the 8-bit RGB values.
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
    codec, pixels, options = _codec(path.suffix, even, crf, lossless)
    if x264:
        if codec != "libx264":
            msg = "`path`: this needs PyAV with libx264. Install PyAV's own wheel."
            raise ValueError(msg)
        options = {**options, "x264-params": x264}
    rgb = not pixels.startswith("yuv")
    with av.open(as_file(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        stream.codec_context.time_base = 1 / fps
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


def _frame(image: np.ndarray, pixels: str) -> VideoFrame:
    """Frame of an encoder's pixel format, from uint8 RGB."""
    import av

    rgb = not pixels.startswith("yuv")
    if rgb:
        frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format=pixels)
    else:
        planes = rgb_to_yuv(
            image.astype(np.float32) / 255, subsample=pixels == "yuv420p"
        )
        frame = av.VideoFrame.from_ndarray(planes, pixels)
    _tag(frame, rgb)
    return frame


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
        return "libx264", pixels, {"crf": str(crf), "preset": "medium", **order}
    if even:
        scale = str(max(1, min(31, round(1 + crf / 8))))
        return "mpeg4", "yuv420p", {"qmin": scale, "qmax": scale}
    msg = (
        "`path`: odd sizes need PyAV with libx264. Write a folder of frames, or install "
        "PyAV's own wheel."
    )
    raise ValueError(msg)
