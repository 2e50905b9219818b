r"""The steps of a description by name: text to steps."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from deepinv.physics import Blur, LinearPhysics
from deepinv.physics.functional import gaussian_blur
from torch import Tensor

from deepinv_lvtino._vocabulary import VOCABULARY
from deepinv_lvtino.physics._terms import Setting, Size, Term
from deepinv_lvtino.physics.framewise import FramewiseLinearPhysics
from deepinv_lvtino.physics.functional import FILTERS, separate_kernel
from deepinv_lvtino.physics.masked import VideoInpainting, random_mask
from deepinv_lvtino.physics.operators import (
    TemporalBlur,
    TemporalDecimation,
    TemporalPooling,
    VideoBlur,
    VideoDownsampling,
)
from deepinv_lvtino.physics.separable import SeparableVideoPhysics


def wrong(text: Any, what: str) -> str:
    return (
        f"`operator` {text!r} {what}. Expected steps in order, separated by commas, such "
        f"as 'temporal-mean=4, blur=1.5, downscale=2, noise=0.02':\n{VOCABULARY}"
    )


def _count(value: str, text: str, least: int = 1) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", value) or int(value) < least:
        msg = wrong(text, f"has {value!r} where a number from {least} is expected")
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
        msg = wrong(text, f"has a blur of {sigma:g} pixels; it must be from 0 to 100")
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
        msg = wrong(text, f"has the filter {name!r}; it must be {', '.join(FILTERS)}")
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
            msg = wrong(
                text, f"hides a share of {share:g}; it must lie between 0 and 1"
            )
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
        msg = wrong(text, f"has a JPEG quality of {quality}; it must be from 1 to 100")
        raise ValueError(msg)
    return quality


def _noise(value: str, text: str) -> float:
    sigma = _number(value)
    if sigma is None or not 0 <= sigma <= 10:
        msg = wrong(text, f"has the noise {value!r}; it must be a number from 0 to 10")
        raise ValueError(msg)
    return sigma


def _file(value: str, text: str) -> Path:
    path = Path(value)
    if not path.exists():
        msg = wrong(text, f"names {value}, and there is no such file")
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


PARSERS: dict[str, Callable[[str, str], Any]] = {
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
