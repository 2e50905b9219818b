r"""Operators described in text: what happened to the video, in order."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from deepinv.physics import Blur, LinearPhysics
from deepinv.physics.functional import gaussian_blur
from deepinv.physics.noise import GaussianNoise, ZeroNoise
from torch import Tensor

from deepinv_lvtino.physics.framewise import FramewiseLinearPhysics
from deepinv_lvtino.physics.functional import FILTERS, separate_kernel
from deepinv_lvtino.physics.jpeg import JPEGCompression
from deepinv_lvtino.physics.masked import VideoInpainting, random_mask
from deepinv_lvtino.physics.operators import (
    TemporalBlur,
    TemporalDecimation,
    TemporalPooling,
    VideoBlur,
    VideoDownsampling,
)
from deepinv_lvtino.physics.separable import SeparableVideoPhysics

Size = tuple[int, int, int, int]

#: What a description may say; see :func:`parse_operator`.
VOCABULARY = """\
  temporal-mean=N        mean of groups of N frames
  temporal-blur=N        uniform blur over N frames
  every=N                one frame in N
  blur=S                 Gaussian blur of standard deviation S pixels
  blur=FILE              blur by a kernel: a picture, or a matrix in a .npy file
  downscale=N[:FILTER]   N times smaller; bicubic, bilinear, gaussian or sinc
  crop=X[:Y]             X columns on the left and right, Y rows above and below cut off
  mask=P                 a share P of the pixels missing, the same in all frames
  mask=FILE              black pixels of a picture or a video missing
  jpeg=Q                 JPEG of quality Q, frame by frame, after the noise
  noise=S                Gaussian noise of standard deviation S, for values in [0, 1]
"""


@dataclass(frozen=True)
class Setting:
    r"""
    What an operator is built for.

    :param tuple[int, int, int, int] img_size: video size ``(C, T, H, W)``.
    :param float sigma: standard deviation of the noise.
    :param str alignment: pixel grid of a downsampling.
    :param str time_border: border of a blur over time.
    :param int mask_seed: seed of a random mask.
    :param torch.Generator rng: generator of the noise.
    :param torch.device, str device: device.
    :param torch.dtype dtype: dtype.
    """

    img_size: Size
    sigma: float
    alignment: str
    time_border: str
    mask_seed: int
    rng: torch.Generator | None
    device: torch.device | str
    dtype: torch.dtype


@dataclass(frozen=True)
class Term:
    r"""
    One step of what happened to the video.

    :param str text: as it is written.
    :param str words: the same for people.
    :param Callable make: from the size of what comes in and the setting to the operator.
    :param int frames: frames that come in for each that goes out.
    :param int pixels: pixels that come in for each that goes out, along each axis.
    :param tuple[int, int] margin: columns and rows that are cut off on either side.
    :param bool groups: whether the frames that come in for one are all used.
    """

    text: str
    words: str
    make: Callable[[Size, Setting], LinearPhysics]
    frames: int = 1
    pixels: int = 1
    margin: tuple[int, int] = (0, 0)
    groups: bool = True

    def before(self, size: Size) -> Size:
        """Largest size that comes in (of frames that are seen) for what goes out."""
        channels, frames, height, width = size
        frames = frames * self.frames if self.groups else (frames - 1) * self.frames + 1
        columns, rows = self.margin
        height, width = (
            height * self.pixels + 2 * rows,
            width * self.pixels + 2 * columns,
        )
        return channels, frames, height, width

    def frames_after(self, frames: int) -> int:
        """Frames that go out."""
        return -(-frames // self.frames)


@dataclass(frozen=True)
class Description:
    r"""
    An operator in text, before its size is known.

    :param tuple terms: its linear steps, in order.
    :param float noise: standard deviation of the noise, if it is said.
    :param int jpeg: quality of a JPEG after the noise, or ``None``.
    :param bool random: whether a mask is a random one.
    :param bool blurs_time: whether frames see others beyond the ends of the video.
    :param tuple files: kernels and masks.
    """

    terms: tuple[Term, ...]
    noise: float | None = None
    jpeg: int | None = None
    random: bool = False
    blurs_time: bool = False
    files: tuple[Path, ...] = ()

    def __str__(self) -> str:
        parts = [term.text for term in self.terms]
        if self.noise is not None:
            parts.append(f"noise={self.noise:g}")
        if self.jpeg is not None:
            parts.append(f"jpeg={self.jpeg}")
        return ", ".join(parts)

    @property
    def leaves_frames_out(self) -> bool:
        """Whether no measured frame has anything of some frames of the video."""
        blurred = False
        for term in self.terms:
            if not term.groups and not blurred:
                return True
            blurred = blurred or term.text.startswith("temporal-blur")
        return False

    @property
    def words(self) -> str:
        """For people."""
        parts = [term.words for term in self.terms]
        if self.jpeg is not None:
            parts.append(f"noise, then JPEG of quality {self.jpeg}, frame by frame")
        return ", then ".join(parts) or "noise alone"

    def build(self, setting: Setting) -> Any:
        r"""
        The operator.

        Products of separable operators are separable, and exact in every step.

        :param Setting setting: size, noise, grid, seed and device.
        :return: (deepinv.physics.Physics) the operator.
        """
        if self.jpeg is not None:
            return JPEGCompression(
                self.jpeg, setting.sigma, setting.img_size, setting.rng
            )
        size = setting.img_size
        physics: LinearPhysics | None = None
        for term in self.terms:
            step = term.make(size, setting)
            size = _size_after(step, size)
            physics = step if physics is None else _after(physics, step)
        if physics is None:
            physics = SeparableVideoPhysics(
                size, device=setting.device, dtype=setting.dtype
            )
        noise = ZeroNoise()
        if setting.sigma > 0:
            noise = GaussianNoise(setting.sigma, rng=setting.rng)
        physics.set_noise_model(noise)
        if getattr(physics, "img_size", None) is None:  # of an operator of any size
            physics.img_size = setting.img_size
        return physics

    def hashes(self) -> dict[str, str]:
        r"""
        What the files of the description hold.

        :return: (dict[str, str]) SHA-256 by name.
        """
        return {
            str(path): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in self.files
            if path.is_file()
        }


def _after(first: LinearPhysics, second: LinearPhysics) -> LinearPhysics:
    """Product; that it may not be decomposable is no surprise, and its steps know."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "At least one input physics", UserWarning)
        return second * first


def _size_after(step: LinearPhysics, size: Size) -> Size:
    return getattr(step, "measurement_size", size)


def parse_operator(text: str) -> Description:
    r"""
    Operator of a description: steps in order, from the video to what was measured.

    .. code-block:: text

        temporal-mean=4, blur=1.5, downscale=2, noise=0.02

    ``temporal-mean=N`` is :class:`TemporalPooling`, ``temporal-blur=N``
    :class:`TemporalBlur`, ``every=N`` :class:`TemporalDecimation`, ``blur=S`` a Gaussian
    :class:`VideoBlur` (standard deviation in pixels) and ``blur=FILE`` one by the kernel of
    a picture or a ``.npy`` file, divided by its sum, ``downscale=N`` or
    ``downscale=N:FILTER`` :class:`VideoDownsampling` (bicubic by default), ``crop=X`` or
    ``crop=X:Y`` leaves out columns and rows on either side, ``mask=P`` hides a share of
    the pixels and ``mask=FILE`` what is black in a picture or in the frames of a video,
    ``noise=S`` is Gaussian, on values in [0, 1], and added in the end; ``jpeg=Q`` follows
    the noise and stands alone. Borders in space are reflected.

    :param str text: the description.
    :return: (Description) the operator, before its size is known.
    :raises FileNotFoundError: if a file is missing.
    :raises ValueError: if something in it is not known or contradicts the rest.

    |sep|

    :Examples:

        >>> from deepinv_lvtino.physics import parse_operator
        >>> operator = parse_operator("temporal-mean=4,downscale=2, noise=0.02")
        >>> str(operator)
        'temporal-mean=4, downscale=2, noise=0.02'
        >>> operator.words
        'mean of 4 frames, then 2 times smaller'
    """
    if not isinstance(text, str) or not text.strip():
        msg = _say(text, "is empty")
        raise ValueError(msg)
    terms: list[Term] = []
    found: dict[str, Any] = {"files": ()}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if name not in _PARSERS or not equals or not value:
            msg = _say(text, f"says {part.strip()!r}, which is not known")
            raise ValueError(msg)
        if name in ("noise", "jpeg"):
            if name in found:
                msg = _say(text, f"says {name} twice")
                raise ValueError(msg)
            found[name] = _PARSERS[name](value, text)
            continue
        term, path = _PARSERS[name](value, text)
        terms.append(term)
        if path is not None:
            found["files"] += (path,)
        if name == "mask" and path is None:
            found["random"] = True
        if name == "temporal-blur":
            found["blurs_time"] = True
    if "jpeg" in found and terms:
        msg = _say(
            text, "puts jpeg after other steps, for which there is no exact data step"
        )
        raise ValueError(msg)
    return Description(tuple(terms), **found)


def _say(text: Any, what: str) -> str:
    return (
        f"`operator` {text!r} {what}. Expected steps in order, separated by commas, such "
        f"as 'temporal-mean=4, blur=1.5, downscale=2, noise=0.02':\n{VOCABULARY}"
    )


def _count(value: str, text: str, least: int = 1) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", value) or int(value) < least:
        msg = _say(text, f"has {value!r} where a number from {least} is expected")
        raise ValueError(msg)
    return int(value)


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if np.isfinite(number) else None


def _temporal_mean(value: str, text: str) -> tuple[Term, None]:
    count = _count(value, text)

    def make(size: Size, setting: Setting) -> LinearPhysics:
        return TemporalPooling(size, count, device=setting.device, dtype=setting.dtype)

    term = Term(f"temporal-mean={count}", f"mean of {count} frames", make, frames=count)
    return term, None


def _temporal_blur(value: str, text: str) -> tuple[Term, None]:
    count = _count(value, text)

    def make(size: Size, setting: Setting) -> LinearPhysics:
        return TemporalBlur(
            size,
            count,
            padding=setting.time_border,
            device=setting.device,
            dtype=setting.dtype,
        )

    return Term(f"temporal-blur={count}", f"blur over {count} frames", make), None


def _every(value: str, text: str) -> tuple[Term, None]:
    count = _count(value, text)

    def make(size: Size, setting: Setting) -> LinearPhysics:
        return TemporalDecimation(
            size, count, device=setting.device, dtype=setting.dtype
        )

    words = f"one frame in {count}"
    return Term(f"every={count}", words, make, frames=count, groups=False), None


def _blur(value: str, text: str) -> tuple[Term, Path | None]:
    sigma = _number(value)
    if sigma is None:
        path = _file(value, text)
        kernel = _kernel(path)
        return Term(f"blur={value}", f"blur by {path.name}", _blur_by(kernel)), path
    if not 0 < sigma <= 100:
        msg = _say(text, f"has a blur of {sigma:g} pixels; it must be from 0 to 100")
        raise ValueError(msg)
    kernel = gaussian_blur(sigma=(sigma, sigma), dtype=torch.float64)
    words = f"Gaussian blur of standard deviation {sigma:g} pixels"
    return Term(f"blur={sigma:g}", words, _blur_by(kernel)), None


def _blur_by(kernel: Tensor) -> Callable[[Size, Setting], LinearPhysics]:
    kernel = kernel[None, None] if kernel.ndim == 2 else kernel
    try:
        separate_kernel(kernel)
        separable = True
    except ValueError:
        separable = False

    def make(size: Size, setting: Setting) -> LinearPhysics:
        if separable:
            return VideoBlur(
                size, kernel, "reflect", device=setting.device, dtype=setting.dtype
            )
        plain = kernel.to(setting.device, setting.dtype)
        return FramewiseLinearPhysics(Blur(plain, padding="reflect"))

    return make


def _downscale(value: str, text: str) -> tuple[Term, None]:
    number, _, name = value.partition(":")
    factor, name = _count(number, text), name.strip() or "bicubic"
    if name not in FILTERS:
        msg = _say(text, f"has the filter {name!r}; it must be {', '.join(FILTERS)}")
        raise ValueError(msg)

    def make(size: Size, setting: Setting) -> LinearPhysics:
        return VideoDownsampling(
            size,
            factor,
            filter=name,
            alignment=setting.alignment,
            device=setting.device,
            dtype=setting.dtype,
        )

    special = "" if name == "bicubic" else f":{name}"
    words = f"{factor} times smaller{f' ({name})' if special else ''}"
    return Term(f"downscale={factor}{special}", words, make, pixels=factor), None


def _crop(value: str, text: str) -> tuple[Term, None]:
    first, _, second = value.partition(":")
    columns = _count(first, text, 0)
    rows = _count(second, text, 0) if second else columns

    def make(size: Size, setting: Setting) -> LinearPhysics:
        height, width = size[2:]
        return SeparableVideoPhysics(
            size,
            vertical=torch.eye(height, dtype=torch.float64)[rows : height - rows],
            horizontal=torch.eye(width, dtype=torch.float64)[columns : width - columns],
            device=setting.device,
            dtype=setting.dtype,
        )

    words = f"{columns} columns and {rows} rows cut off on either side"
    return Term(f"crop={columns}:{rows}", words, make, margin=(columns, rows)), None


def _mask(value: str, text: str) -> tuple[Term, Path | None]:
    share = _number(value)
    if share is not None:
        if not 0 < share < 1:
            msg = _say(text, f"hides a share of {share:g}; it must lie between 0 and 1")
            raise ValueError(msg)
        amount = "half" if share == 0.5 else f"{100 * share:g} %"
        words = f"{amount} of the pixels missing, the same in all frames"
        return Term(f"mask={share:g}", words, _hide(share)), None
    path = _file(value, text)
    return Term(f"mask={value}", f"pixels missing by {path.name}", _hide(path)), path


def _hide(what: float | Path) -> Callable[[Size, Setting], LinearPhysics]:
    def make(size: Size, setting: Setting) -> LinearPhysics:
        if isinstance(what, Path):
            mask = _visible(what, size)
        else:
            mask = random_mask(*size[2:], keep=1 - what, seed=setting.mask_seed)
        return VideoInpainting(size, mask, device=setting.device, dtype=setting.dtype)

    return make


def _jpeg(value: str, text: str) -> int:
    quality = _count(value, text)
    if quality > 100:
        msg = _say(text, f"has a JPEG quality of {quality}; it must be from 1 to 100")
        raise ValueError(msg)
    return quality


def _noise(value: str, text: str) -> float:
    sigma = _number(value)
    if sigma is None or not 0 <= sigma <= 10:
        msg = _say(text, f"has the noise {value!r}; it must be a number from 0 to 10")
        raise ValueError(msg)
    return sigma


def _file(value: str, text: str) -> Path:
    path = Path(value)
    if not path.exists():
        msg = _say(text, f"names {value}, and there is no such file")
        raise FileNotFoundError(msg)
    return path


def _kernel(path: Path) -> Tensor:
    """Kernel of a picture or of a matrix, divided by its sum."""
    if path.suffix.lower() == ".npy":
        try:
            values = np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as error:
            msg = f"`operator`: {path} is no matrix of NumPy ({error})."
            raise ValueError(msg) from error
    else:
        from deepinv_lvtino.datasets._images import read_image

        values = read_image(path).mean(axis=2)
    shape = np.shape(values)
    if len(shape) != 2 or min(shape) < 1 or not np.issubdtype(values.dtype, np.number):
        msg = f"`operator`: the kernel {path} must be a matrix (h, w); got {shape}."
        raise ValueError(msg)
    kernel = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64))
    total = float(kernel.sum())
    if not bool(torch.isfinite(kernel).all()) or total <= 1e-6:
        msg = f"`operator`: the kernel {path} must be finite and have a positive sum."
        raise ValueError(msg)
    return kernel / total


def _visible(path: Path, size: Size) -> Tensor:
    """Mask of a picture, or one for each frame of a video: what is not black is seen."""
    from deepinv_lvtino.datasets._images import IMAGE_SUFFIXES, read_image
    from deepinv_lvtino.datasets.video import read_video

    if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES:
        frames = torch.from_numpy(read_image(path).mean(axis=2))[None]
    else:
        frames = read_video(path).frames.mean(dim=0)
    _, count, height, width = size
    if frames.shape[1:] != (height, width) or len(frames) not in (1, count):
        have, want = tuple(frames.shape), f"(1 or {count}, {height}, {width})"
        msg = (
            f"`operator`: the mask {path} must have the size of what it hides, frames, "
            f"rows and columns {want}; got {have}. Resize it."
        )
        raise ValueError(msg)
    return (frames > 0.5).float()[None, None]


_PARSERS: dict[str, Callable[[str, str], Any]] = {
    "temporal-mean": _temporal_mean,
    "temporal-blur": _temporal_blur,
    "every": _every,
    "blur": _blur,
    "downscale": _downscale,
    "crop": _crop,
    "mask": _mask,
    "jpeg": _jpeg,
    "noise": _noise,
}
