r"""Video files and folders of frames, as tensors, and their sizes."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from deepinv_lvtino.datasets._clips import StoredVideo, VideoClip
from deepinv_lvtino.datasets._damage import Faults, check_damaged
from deepinv_lvtino.datasets._decode import Conversions, decode_file
from deepinv_lvtino.datasets._folders import list_sequence
from deepinv_lvtino.datasets._images import (
    IMAGE_SUFFIXES,
    DamagedImage,
    count_pictures,
    read_image,
    read_stack,
)
from deepinv_lvtino.datasets._rates import exact_fps
from deepinv_lvtino.datasets._stored import Frames
from deepinv_lvtino.utils import check_integer, check_tensor

_FOLDER_FPS = Fraction(24)


def read_video(
    path: str | os.PathLike[str],
    num_frames: int | None = None,
    start: int = 0,
    *,
    fps: Fraction | float | None = None,
    damaged: str = "refuse",
    deinterlace: bool = False,
    constant_rate: bool = False,
    tonemap: bool = False,
) -> VideoClip:
    r"""
    Read a video file, or a folder of frames in natural order.

    Colours are converted to full-range RGB with the matrix and the range that the file
    declares (BT.601 and limited where it does not say, as FFmpeg does), and the rotation
    that cameras note in the file is applied. Grey frames become RGB. A file that is cut
    short or damaged, has a variable frame rate or is interlaced is refused rather than
    read as something else, and so is a folder whose numbers have a gap, or that holds two
    sequences.

    Damage is known from what the container stores (sizes, numbers of frames, checksums)
    and from what the decoder reports. Some formats store too little: a changed bit in
    VP9, GIF or an uncompressed picture may show as other pixels, and nothing can tell.

    :param str path: a video file of any kind that FFmpeg reads, a folder of images
        (PNG, JPEG, TIFF, BMP, WebP, PPM, PGM; 8 or 16 bit, opaque), or a file with
        several pictures (TIFF of many pages, animated WebP or PNG). Of a file with
        several streams it is the default video, never a cover picture.
    :param int num_frames: frames to read; all of them by default.
    :param int start: frames to leave out at the beginning.
    :param fractions.Fraction, float fps: frame rate in Hz of a folder or TIFF, which do
        not store one; 24 by default. A video file has its own.
    :param str damaged: ``'refuse'`` a damaged or incomplete file or folder, or
        ``'accept'``: take what is left, and list what is wrong in ``damage`` of the clip.
    :param bool deinterlace: make progressive frames of interlaced ones, by FFmpeg's filter
        ``bwdif``, as many as there are; refused by default.
    :param bool constant_rate: resample a file with a variable frame rate at the common
        rate nearest to the usual distance of its frames, each moment showing the frame
        that its times say; refused by default.
    :param bool tonemap: bring HDR (PQ, HLG) to the range of an ordinary display: BT.709,
        up to 1000 cd/m², 203 being white, compressed above half of that; refused by
        default.
    :return: (:class:`VideoClip`) frames ``(3, T, H, W)`` in [0, 1] and frame rate.
    :raises FileNotFoundError: if there is no such file or folder.
    :raises TypeError: if a number of frames is not an integer.
    :raises ValueError: if the file or a frame cannot be read, is incomplete, has fewer
        than ``start + num_frames`` frames, is larger than 8192x4320 pixels, or is of a
        kind named above.

    |sep|

    :Examples:

        >>> import tempfile
        >>> import torch
        >>> from deepinv_lvtino.datasets import read_video, write_video
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = write_video(f"{folder}/clip.mp4", torch.rand(3, 5, 32, 48), fps=25)
        ...     clip = read_video(path)
        >>> tuple(clip.frames.shape), clip.fps
        ((3, 5, 32, 48), Fraction(25, 1))
    """
    return open_video(
        path,
        num_frames,
        start,
        fps=fps,
        damaged=damaged,
        deinterlace=deinterlace,
        constant_rate=constant_rate,
        tonemap=tonemap,
    ).clip()


def open_video(
    path: str | os.PathLike[str],
    num_frames: int | None = None,
    start: int = 0,
    *,
    fps: Fraction | float | None = None,
    damaged: str = "refuse",
    deinterlace: bool = False,
    constant_rate: bool = False,
    tonemap: bool = False,
    folder: str | os.PathLike[str] | None = None,
) -> StoredVideo:
    r"""
    Read a video of any length: as :func:`read_video`, but the frames stay out of memory.

    The whole video is decoded and checked; beyond 256 MB its frames lie in a temporary
    file (4 bytes for each value), which is gone when they are no longer needed.

    :param str path: as of :func:`read_video`, and so are the others.
    :param int num_frames: frames to read.
    :param int start: frames to leave out at the beginning.
    :param fractions.Fraction, float fps: frame rate of a folder.
    :param str damaged: what to do with a damaged file.
    :param bool deinterlace: make progressive frames of interlaced ones.
    :param bool constant_rate: resample a variable frame rate.
    :param bool tonemap: bring HDR to the range of an ordinary display.
    :param str folder: where the temporary file is made; in that of the system by default.
    :return: (:class:`StoredVideo`) the video.
    :raises FileNotFoundError: if there is no such file or folder.
    :raises TypeError: as :func:`read_video`.
    :raises ValueError: as :func:`read_video`.
    """
    path = Path(path)
    num_frames = None if num_frames is None else check_integer("num_frames", num_frames)
    start = check_integer("start", start)
    if num_frames is not None and num_frames < 1:
        msg = f"`num_frames` must be at least 1; got {num_frames}."
        raise ValueError(msg)
    if start < 0:
        msg = f"`start` must be 0 or positive; got {start}."
        raise ValueError(msg)
    check_damaged(damaged)
    faults = Faults(path, damaged == "accept")
    if path.is_dir():
        faults.remedy = "Add or replace what is missing"
    if not path.exists():
        msg = f"`path`: there is no file or folder {path}."
        raise FileNotFoundError(msg)
    stack = path.suffix.lower() in IMAGE_SUFFIXES and count_pictures(path) > 1
    frames = Frames(None if folder is None else Path(folder))
    notes: list[str] = []
    if path.is_dir():
        rate = _FOLDER_FPS if fps is None else exact_fps(fps)
        _read_folder(path, start, num_frames, faults, frames)
    elif stack:
        rate = _read_stack(path, start, num_frames, fps, frames)
    else:
        if fps is not None:
            msg = (
                f"`fps` is for folders of frames; {path} is a file, whose own frame rate "
                "is used. Leave `fps` out."
            )
            raise ValueError(msg)
        if path.suffix.lower() in IMAGE_SUFFIXES:
            msg = (
                f"`path`: {path} is one image. Give a video file, or the folder that "
                "holds the frames."
            )
            raise ValueError(msg)
        conversions = Conversions(deinterlace, constant_rate, tonemap)
        frames, rate, notes = decode_file(
            path, start, num_frames, faults, frames, conversions
        )
    if not len(frames) or (num_frames is not None and len(frames) < num_frames):
        wanted = "at least one frame" if num_frames is None else f"{num_frames} frames"
        msg = (
            f"`num_frames`: {wanted} asked for from frame {start} of {path}, which has "
            f"only {len(frames)} from there. Ask for fewer."
        )
        raise ValueError(msg)
    return StoredVideo(frames, rate, tuple(faults.notes), tuple(notes))


def _read_stack(
    path: Path,
    start: int,
    num_frames: int | None,
    fps: Fraction | float | None,
    frames: Frames,
) -> Fraction:
    try:
        pictures, rate = read_stack(path)
    except DamagedImage as error:
        msg = (
            f"`path`: {path} {error}. Make it again, or give the pictures in a folder."
        )
        raise ValueError(msg) from error
    if rate is not None and fps is not None:
        msg = (
            f"`fps` is for pictures without one; {path} has {float(rate):g} Hz of its "
            "own. Leave `fps` out."
        )
        raise ValueError(msg)
    if rate is None:
        rate = _FOLDER_FPS if fps is None else exact_fps(fps)
    stop = None if num_frames is None else start + num_frames
    for rgb in pictures[start:stop]:
        frames.append(torch.from_numpy(rgb.transpose(2, 0, 1)))
    return rate


def _read_folder(
    folder: Path, start: int, num_frames: int | None, faults: Faults, frames: Frames
) -> None:
    paths = list_sequence(folder, faults)
    if not paths:
        msg = (
            f"`path`: the folder {folder} holds no image. Expected frames such as "
            "00000.png, 00001.png, ..."
        )
        raise ValueError(msg)
    stop = None if num_frames is None else start + num_frames
    for path in paths[start:stop]:
        try:
            rgb = read_image(path)
        except DamagedImage as error:
            faults.add(str(error), path=path)
            continue
        frame = torch.from_numpy(rgb.transpose(2, 0, 1))
        if len(frames) and frame.shape != frames.shape:
            msg = (
                f"`path`: all frames must have one size; {path} is "
                f"{rgb.shape[1]}x{rgb.shape[0]}, those before it are "
                f"{frames.shape[2]}x{frames.shape[1]}. Remove or resize it."
            )
            raise ValueError(msg)
        frames.append(frame)


def resize_video(frames: Tensor, height: int, width: int) -> Tensor:
    r"""
    Resize every frame with Pillow's bicubic filter, antialiased as ordinary resizers.

    :param torch.Tensor frames: video ``(C, T, H, W)``, float32.
    :param int height: new height in pixels.
    :param int width: new width in pixels.
    :return: (torch.Tensor) video ``(C, T, height, width)``, clamped to [0, 1].
    :raises ValueError: if the new size is not positive.
    """
    check_tensor("frames", frames)
    height, width = check_integer("height", height), check_integer("width", width)
    if height < 1 or width < 1:
        msg = f"`height` and `width` must be positive; got {height} and {width}."
        raise ValueError(msg)
    if frames.ndim != 4 or not frames.is_floating_point():
        msg = (
            "`frames` must be a floating-point video (C, T, H, W) with values in [0, 1]; "
            f"got {frames.dtype} of shape {tuple(frames.shape)}. Take one video of a "
            "batch, and divide 8-bit values by 255."
        )
        raise ValueError(msg)
    if frames.shape[-2:] == (height, width):
        return frames
    channels, count = frames.shape[:2]
    output = frames.new_empty(channels, count, height, width)
    for channel in range(channels):
        for index in range(count):
            plane = Image.fromarray(frames[channel, index].cpu().float().numpy())
            small = plane.resize((width, height), Image.Resampling.BICUBIC)
            output[channel, index] = torch.from_numpy(np.asarray(small).copy())
    return output.clamp_(0, 1)
