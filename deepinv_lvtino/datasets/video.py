r"""Video files and folders of frames, as tensors and back."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from deepinv_lvtino._staging import Stage
from deepinv_lvtino.datasets._damage import Faults, check_damaged
from deepinv_lvtino.datasets._decode import Conversions, decode_file
from deepinv_lvtino.datasets._encode import encode_file
from deepinv_lvtino.datasets._folders import list_sequence
from deepinv_lvtino.datasets._images import (
    IMAGE_SUFFIXES,
    DamagedImage,
    count_pictures,
    list_frames,
    read_image,
    read_stack,
    write_image,
)
from deepinv_lvtino.datasets._stored import Frames
from deepinv_lvtino.datasets._streams import Companions
from deepinv_lvtino.utils import check_integer, check_tensor

VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov", ".avi")
_FOLDER_FPS = Fraction(24)
# what is above is no overshoot of a solver, but another range
_LARGEST_VALUE = 16.0


@dataclass(frozen=True)
class VideoClip:
    r"""
    A video and its frame rate.

    :param torch.Tensor frames: shape ``(3, T, H, W)``, float32, in [0, 1].
    :param fractions.Fraction fps: frames per second.
    :param tuple[str, ...] damage: what is wrong with the file it was read from, where
        that was accepted.
    :param tuple[str, ...] notes: what was done with it, where that was asked for.
    """

    frames: Tensor
    fps: Fraction
    damage: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class StoredVideo:
    r"""
    A video of any length, of which parts are read when they are needed.

    It is what :func:`open_video` gives, and in place of a tensor what
    :meth:`deepinv_lvtino.optim.Windowed.stream` takes: ``video[:, :, 10:20]`` are ten
    frames, shape ``(1, 3, 10, H, W)``.

    :param frames: the frames, as :func:`open_video` keeps them.
    :param fractions.Fraction fps: frames per second.
    :param tuple[str, ...] damage: as of :class:`VideoClip`.
    :param tuple[str, ...] notes: as of :class:`VideoClip`.
    """

    def __init__(
        self,
        frames: Frames,
        fps: Fraction,
        damage: tuple[str, ...] = (),
        notes: tuple[str, ...] = (),
    ) -> None:
        self.frames, self.fps = frames, fps
        self.damage, self.notes = damage, notes
        #: Device of the parts that are taken; the CPU at first.
        self.device = torch.device("cpu")

    def to(self, device: torch.device | str) -> StoredVideo:
        r"""
        The same video, whose parts come on another device.

        :param torch.device, str device: the device.
        :return: (:class:`StoredVideo`) itself.
        """
        self.device = torch.device(device)
        return self

    @property
    def shape(self) -> torch.Size:
        """Shape ``(1, 3, T, H, W)``."""
        channels, height, width = self.frames.shape
        return torch.Size((1, channels, len(self.frames), height, width))

    def __getitem__(self, places: tuple[slice, slice, slice]) -> Tensor:
        r"""
        Some of the frames.

        :param tuple[slice, slice, slice] places: the last of them says which, without
            steps; the others take all.
        :return: (:class:`torch.Tensor`) shape ``(1, 3, n, H, W)``.
        :raises IndexError: if it is not of that form.
        """
        if (
            not isinstance(places, tuple)
            or len(places) != 3
            or any(place != slice(None) for place in places[:2])
            or not isinstance(places[2], slice)
            or places[2].step not in (None, 1)
        ):
            msg = f"frames of a stored video are `video[:, :, 10:20]`; got {places}."
            raise IndexError(msg)
        start, stop, _ = places[2].indices(len(self.frames))
        return self.frames.read(start, max(start, stop))[None].to(self.device)

    def clip(self) -> VideoClip:
        r"""
        The whole video in memory.

        :return: (:class:`VideoClip`) the video.
        """
        return VideoClip(self.frames.read(), self.fps, self.damage, self.notes)


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
