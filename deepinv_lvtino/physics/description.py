r"""Operators described in text: what happened to the video, in order."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepinv.physics import LinearPhysics
from deepinv.physics.noise import GaussianNoise, ZeroNoise

from deepinv_lvtino.physics._steps import PARSERS, wrong
from deepinv_lvtino.physics._terms import Setting, Size, Term
from deepinv_lvtino.physics.jpeg import JPEGCompression
from deepinv_lvtino.physics.separable import SeparableVideoPhysics


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
        msg = wrong(text, "is empty")
        raise ValueError(msg)
    terms: list[Term] = []
    found: dict[str, Any] = {"files": ()}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if name not in PARSERS or not equals or not value:
            msg = wrong(text, f"says {part.strip()!r}, which is not known")
            raise ValueError(msg)
        if name in ("noise", "jpeg"):
            if name in found:
                msg = wrong(text, f"says {name} twice")
                raise ValueError(msg)
            found[name] = PARSERS[name](value, text)
            continue
        term, path = PARSERS[name](value, text)
        terms.append(term)
        if path is not None:
            found["files"] += (path,)
        if name == "mask" and path is None:
            found["random"] = True
        if name == "temporal-blur":
            found["blurs_time"] = True
    if "jpeg" in found and terms:
        msg = wrong(
            text, "puts jpeg after other steps, for which there is no exact data step"
        )
        raise ValueError(msg)
    return Description(tuple(terms), **found)
