r"""Writing of video files and folders of frames."""

from __future__ import annotations

import os
from collections.abc import Iterable
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from deepinv_lvtino._staging import Stage
from deepinv_lvtino.datasets._clips import VideoClip
from deepinv_lvtino.datasets._encode import encode_file
from deepinv_lvtino.datasets._images import list_frames, write_image
from deepinv_lvtino.datasets._rates import exact_fps
from deepinv_lvtino.datasets._streams import Companions
from deepinv_lvtino.utils import check_integer

VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov", ".avi")
# what is above is no overshoot of a solver, but another range
_LARGEST_VALUE = 16.0


def write_video(
    path: str | os.PathLike[str],
    frames: Tensor | VideoClip,
    fps: Fraction | float | None = None,
    *,
    overwrite: bool = False,
    crf: int = 16,
    lossless: bool = False,
    bits: int = 8,
    companions: Companions | None = None,
) -> Path:
    r"""
    Write a video file, or a folder of PNG frames ``00000.png``, ``00001.png``, ...

    A file holds H.264 (``libx264``), or where PyAV was built without it MPEG-4 part 2,
    with BT.709 colours of limited range, tagged so. Sizes are kept: even ones are stored
    as 4:2:0, which every player shows, odd ones as 4:4:4. Values are clamped to [0, 1]
    and rounded to 8 bit. The output appears under its name only when it is complete; a
    link is followed, so that what it points to is replaced.

    :param str path: file ending in .mp4, .mkv, .mov or .avi, or a name without a suffix
        for a folder. Missing parent folders are made.
    :param torch.Tensor, VideoClip frames: the video ``(3, T, H, W)``, values in [0, 1].
    :param fractions.Fraction, float fps: frames per second; that of the clip by default,
        30000/1001 is kept exactly. A folder does not store it.
    :param bool overwrite: replace an existing file, or an existing folder that holds
        nothing but frames.
    :param int crf: quality from 0 (best) to 51.
    :param bool lossless: store the 8-bit RGB values exactly, as H.264 RGB (or FFV1 in
        .mkv and .avi without ``libx264``), which not every player shows. Folders always
        are lossless.
    :param int bits: 8 bits of a value, or 10: H.265 in .mp4 and .mkv, ProRes in .mov, and
        PNG of 16 bit in a folder.
    :param Companions companions: sound, subtitles, chapters, metadata and pixel shape of
        another file to copy as they are, see :func:`find_companions`; what begins after
        the end of the frames is left out.
    :return: (pathlib.Path) the path.
    :raises FileExistsError: if the output exists and may not be replaced.
    :raises BlockingIOError: if another run is writing the same output.
    :raises TypeError: if the frames are not a tensor, or ``crf`` is not an integer.
    :raises ValueError: if an argument is not as above.
    """
    path = Path(path)
    if isinstance(frames, VideoClip):
        fps = frames.fps if fps is None else fps
        frames = frames.frames
    _check_frames(frames)
    crf = check_integer("crf", crf)
    if not 0 <= crf <= 51:
        msg = f"`crf` must be from 0 (best) to 51; got {crf}."
        raise ValueError(msg)
    if fps is None and path.suffix:
        msg = "`fps` is missing: a video file needs its frame rate. Give it in Hz."
        raise ValueError(msg)
    images = (to_levels(frames[:, t], bits) for t in range(frames.shape[1]))
    size = (int(frames.shape[2]), int(frames.shape[3]))
    return write_images(
        path,
        images,
        size,
        fps,
        overwrite=overwrite,
        crf=crf,
        lossless=lossless,
        bits=bits,
        companions=companions,
    )


def write_images(
    path: Path,
    images: Iterable[np.ndarray],
    size: tuple[int, int],
    fps: Fraction | float | None,
    *,
    overwrite: bool = False,
    crf: int = 16,
    lossless: bool = False,
    bits: int = 8,
    companions: Companions | None = None,
) -> Path:
    r"""
    Write frames that come one after the other, as :func:`write_video` does a whole video.

    :param pathlib.Path path: file or folder.
    :param Iterable[numpy.ndarray] images: what :func:`to_levels` gives, one or more.
    :param tuple[int, int] size: ``(H, W)``.
    :param fractions.Fraction, float fps: frames per second of a file.
    :param bool overwrite: replace what exists, as :func:`write_video`.
    :param int crf: quality.
    :param bool lossless: store the 8-bit values exactly.
    :param int bits: 8 or 10.
    :param Companions companions: what is copied beside the frames.
    :return: (pathlib.Path) the path.
    """
    rate = None if fps is None else exact_fps(fps)
    with Stage(
        [path], allowed=partial(check_output, path, overwrite=overwrite)
    ) as stage:
        temporary = stage.path(path)
        if not path.suffix or rate is None:
            temporary.mkdir()
            for index, image in enumerate(images):
                write_image(temporary / f"{index:05d}.png", image)
        else:
            encode_file(
                temporary,
                images,
                size,
                rate,
                crf,
                lossless,
                bits=bits,
                companions=companions,
            )
        stage.commit()
    return path


def check_output(path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    r"""
    Check that :func:`write_video` may write there, before a long computation.

    :param str path: file or folder to be written.
    :param bool overwrite: whether an existing one may be replaced.
    :raises FileExistsError: if it exists and may not be replaced.
    :raises ValueError: if its suffix is not one that can be written.
    """
    path = Path(path)
    if path.suffix and path.suffix.lower() not in VIDEO_SUFFIXES:
        msg = (
            f"`path` must end in one of {', '.join(VIDEO_SUFFIXES)}, or have no suffix "
            f"for a folder of PNG frames; got {path.name!r}."
        )
        raise ValueError(msg)
    if not path.exists():
        return
    if not overwrite:
        msg = (
            f"`path`: {path} exists. Choose another name, or allow to replace it "
            "(`overwrite=True`, on the command line --overwrite)."
        )
        raise FileExistsError(msg)
    if path.is_dir() and path.suffix:
        msg = f"`path`: {path} is a folder, not a file. Choose another name."
        raise FileExistsError(msg)
    if path.is_file() and not path.suffix:
        msg = f"`path`: {path} is a file, not a folder. Choose another name."
        raise FileExistsError(msg)
    if not path.is_dir() and not path.is_file():
        msg = f"`path`: {path} is neither a file nor a folder. Choose another name."
        raise FileExistsError(msg)
    if path.is_dir() and set(path.iterdir()) != set(list_frames(path)):
        msg = (
            f"`path`: the folder {path} holds other things than frames, so it is not "
            "replaced. Choose another name, or empty it yourself."
        )
        raise FileExistsError(msg)


def _check_frames(frames: Tensor) -> None:
    if not isinstance(frames, Tensor):
        msg = (
            "`frames` must be a torch tensor (3, T, H, W) with values in [0, 1]; got "
            f"{type(frames).__name__}. Convert 8-bit frames (T, H, W, 3) of NumPy with "
            "`torch.from_numpy(frames).permute(3, 0, 1, 2).float() / 255`."
        )
        raise TypeError(msg)
    if frames.ndim != 4 or frames.shape[0] != 3 or frames.numel() == 0:
        msg = (
            "`frames` must be one RGB video (3, T, H, W) with at least one frame; got "
            f"shape {tuple(frames.shape)}. Take one video of a batch with `video[0]`."
        )
        raise ValueError(msg)
    if not frames.is_floating_point():
        msg = (
            f"`frames` must be floating point with values in [0, 1]; got {frames.dtype}."
            " Convert 8-bit videos with `frames.float() / 255`."
        )
        raise ValueError(msg)
    if not bool(torch.isfinite(frames).all()):
        msg = "`frames` holds values that are not finite. Check what computed it."
        raise ValueError(msg)
    largest = float(frames.max())
    if largest > _LARGEST_VALUE:
        msg = (
            f"`frames` must have values in [0, 1]; got values up to {largest:.4g}. Divide "
            "those of 0 to 255 by 255."
        )
        raise ValueError(msg)


def to_levels(frame: Tensor, bits: int = 8) -> np.ndarray:
    r"""
    A frame as it is stored.

    :param torch.Tensor frame: shape ``(3, H, W)``, values in [0, 1], clamped to that.
    :param int bits: 8, or 10 for 16-bit levels, which an encoder rounds to 10.
    :return: (numpy.ndarray) uint8 or uint16, shape ``(H, W, 3)``.
    :raises ValueError: if ``bits`` is neither.
    """
    if bits not in (8, 10):
        msg = f"`bits` must be 8 or 10; got {bits}."
        raise ValueError(msg)
    kind: type = np.uint8 if bits == 8 else np.uint16
    values = frame.detach().clamp(0, 1).permute(1, 2, 0).to("cpu", torch.float32)
    return np.round(values.numpy() * np.iinfo(kind).max).astype(kind)
