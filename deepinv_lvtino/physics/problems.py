r"""The published inverse problems by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from deepinv.physics.functional import gaussian_blur
from deepinv.physics.noise import GaussianNoise, ZeroNoise

from deepinv_lvtino.physics.functional import ALIGNMENTS, TIME_BORDERS, check_choice
from deepinv_lvtino.physics.jpeg import JPEGCompression
from deepinv_lvtino.physics.masked import VideoInpainting, random_mask
from deepinv_lvtino.physics.operators import (
    TemporalBlur,
    TemporalPooling,
    VideoBlur,
    VideoDownsampling,
)
from deepinv_lvtino.physics.separable import SeparableVideoPhysics
from deepinv_lvtino.utils import (
    check_img_size,
    check_integer,
    check_number,
    check_seed,
    check_sizes,
)

_Size = tuple[int, int, int, int]

#: The operators that :func:`make_problem` gives.
VideoPhysics = SeparableVideoPhysics | VideoInpainting | JPEGCompression


@dataclass(frozen=True)
class _Setting:
    r"""
    What a problem is built for.

    :param tuple[int, int, int, int] img_size: video size ``(C, T, H, W)``.
    :param float sigma: standard deviation of the noise.
    :param str alignment: pixel grid of a downsampling.
    :param str time_border: border of a blur over time.
    :param int mask_seed: seed of a random mask.
    :param torch.Generator rng: generator of the noise.
    :param torch.device, str device: device.
    :param torch.dtype dtype: dtype.
    """

    img_size: _Size
    sigma: float
    alignment: str
    time_border: str
    mask_seed: int
    rng: torch.Generator | None
    device: torch.device | str
    dtype: torch.dtype


@dataclass(frozen=True)
class Problem:
    r"""
    An inverse problem by name, before its size is known.

    :param str name: name for :func:`make_problem`.
    :param str description: one line for people.
    :param int frame_factor: video frames per measured frame.
    :param int scale_factor: video pixels per measured pixel, along each axis.
    :param Callable build: from what it is built for (size, noise, grid, seed, device) to
        the operator.
    :param float sigma: standard deviation of the noise if nothing is said.
    :param bool linear: whether the operator is linear. If not, the schedule has to be the
        published one of that name.
    :param bool masked: whether the operator has a random mask.
    :param bool blurs_time: whether the operator blurs over time.
    """

    name: str
    description: str
    frame_factor: int
    scale_factor: int
    build: Callable[[_Setting], VideoPhysics]
    sigma: float = 0.001
    linear: bool = True
    masked: bool = False
    blurs_time: bool = False

    def video_size(
        self, measurement_size: _Size, num_frames: int | None = None
    ) -> _Size:
        r"""
        Size of the video behind a measurement.

        :param tuple[int, int, int, int] measurement_size: ``(C, t, h, w)``.
        :param int num_frames: number of video frames, where the measurement admits
            several (the last group of frames may not be full); the largest by default.
        :return: (tuple[int, int, int, int]) ``(C, T, H, W)``.
        :raises ValueError: if no video of ``num_frames`` frames gives that measurement.
        """
        channels, frames, height, width = check_sizes(
            "measurement_size", measurement_size, "(C, t, h, w) without the batch axis"
        )
        largest = self.frame_factor * frames
        smallest = largest - self.frame_factor + 1
        total = (
            largest if num_frames is None else check_integer("num_frames", num_frames)
        )
        if not smallest <= total <= largest:
            span = f"{smallest} to {largest}" if smallest < largest else f"{largest}"
            msg = (
                f"`num_frames` must be {span} for a measurement of {frames} frames of "
                f"problem {self.name}; got {total}."
            )
            raise ValueError(msg)
        scale = self.scale_factor
        return channels, total, scale * height, scale * width


_Spatial = Callable[[_Size, _Setting], SeparableVideoPhysics | VideoInpainting]


def _noise(setting: _Setting) -> GaussianNoise | ZeroNoise:
    if setting.sigma == 0:
        return ZeroNoise()
    return GaussianNoise(setting.sigma, rng=setting.rng)


def _shrink(size: _Size, factor: int, setting: _Setting) -> VideoDownsampling:
    return VideoDownsampling(
        size,
        factor,
        alignment=setting.alignment,
        noise_model=_noise(setting),
        device=setting.device,
        dtype=setting.dtype,
    )


def _blur(size: _Size, setting: _Setting) -> VideoBlur:
    return VideoBlur(
        size,
        gaussian_blur(sigma=(3.0, 3.0), dtype=torch.float64),
        "reflect",
        noise_model=_noise(setting),
        device=setting.device,
        dtype=setting.dtype,
    )


def _hide(size: _Size, setting: _Setting) -> VideoInpainting:
    return VideoInpainting(
        size,
        random_mask(*size[2:], seed=setting.mask_seed),
        noise_model=_noise(setting),
        device=setting.device,
        dtype=setting.dtype,
    )


def _pooled(factor: int) -> Callable[[_Setting], VideoPhysics]:
    """Mean of groups of frames, then downsampling, both by ``factor``."""

    def build(setting: _Setting) -> VideoPhysics:
        temporal = TemporalPooling(
            setting.img_size, factor, device=setting.device, dtype=setting.dtype
        )
        return _shrink(temporal.measurement_size, factor, setting) * temporal

    return build


def _alone(spatial: _Spatial) -> Callable[[_Setting], VideoPhysics]:
    return lambda setting: spatial(setting.img_size, setting)


def _averaged(
    spatial: _Spatial,
) -> Callable[[_Setting], VideoPhysics]:
    """Uniform blur over 7 frames, then ``spatial``."""

    def build(setting: _Setting) -> VideoPhysics:
        temporal = TemporalBlur(
            setting.img_size,
            7,
            padding=setting.time_border,
            device=setting.device,
            dtype=setting.dtype,
        )
        return spatial(temporal.measurement_size, setting) * temporal

    return build


def _compressed(setting: _Setting) -> JPEGCompression:
    return JPEGCompression(10, setting.sigma, setting.img_size, setting.rng)


_SPATIAL: tuple[tuple[str, str, int, _Spatial], ...] = (
    ("deblur", "Gaussian blur of standard deviation 3 pixels", 1, _blur),
    ("sr4", "4 times smaller", 4, lambda size, setting: _shrink(size, 4, setting)),
    ("inpaint", "half of the pixels missing, the same in all frames", 1, _hide),
)


def _all_problems() -> list[Problem]:
    problems = [
        Problem("A", "mean of 4 frames, then 4 times smaller", 4, 4, _pooled(4)),
        Problem(
            "B",
            "blur over 7 frames, then 8 times smaller",
            1,
            8,
            _averaged(lambda size, setting: _shrink(size, 8, setting)),
            blurs_time=True,
        ),
        Problem("C", "mean of 8 frames, then 8 times smaller", 8, 8, _pooled(8)),
        Problem(
            "jpeg",
            "noise, then JPEG of quality 10, frame by frame",
            1,
            1,
            _compressed,
            sigma=0.005,
            linear=False,
        ),
    ]
    for name, description, factor, spatial in _SPATIAL:
        masked = spatial is _hide
        problems += [
            Problem(
                name,
                description,
                1,
                factor,
                _alone(spatial),
                masked=masked,
            ),
            Problem(
                f"{name}-temporal",
                f"blur over 7 frames, then {description}",
                1,
                factor,
                _averaged(spatial),
                masked=masked,
                blurs_time=True,
            ),
        ]
    return problems


#: The named problems, see :func:`make_problem`.
PROBLEMS: dict[str, Problem] = {problem.name: problem for problem in _all_problems()}


def make_problem(
    name: str,
    img_size: _Size,
    sigma: float | None = None,
    *,
    alignment: str = "deepinv",
    time_border: str = "circular",
    mask_seed: int = 0,
    rng: torch.Generator | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> VideoPhysics:
    r"""
    Operator of a published problem, with Gaussian noise.

    The problems of LVTINO :footcite:p:`spagnoletti2025lvtino`:

    - ``'A'``: mean of groups of 4 frames (the last group completed by repeating the last
      frame, so that 25 frames give 7), then bicubic downsampling by 4;
    - ``'B'``: uniform blur over 7 frames, then bicubic downsampling by 8;
    - ``'C'``: mean of groups of 8 frames, then bicubic downsampling by 8;
    - ``'jpeg'``: JPEG compression of quality 10, frame by frame, *after* the noise. It is
      not linear, see :class:`JPEGCompression`.

    Those of VISION-XL:

    - ``'deblur'``: Gaussian blur of standard deviation 3 pixels, cut off beyond 11 pixels;
    - ``'sr4'``: bicubic downsampling by 4;
    - ``'inpaint'``: pixels missing at random with probability 1/2; one mask for all
      frames and channels (:func:`random_mask`);
    - ``'deblur-temporal'``, ``'sr4-temporal'``, ``'inpaint-temporal'``: the same after a
      uniform blur over 7 frames.

    Padding in space is by reflection. The published blurs over time are circular, their
    first frames see the last ones; a recording is not.

    :param str name: name of the problem, a key of :data:`PROBLEMS`.
    :param tuple[int, int, int, int] img_size: video size ``(C, T, H, W)``.
    :param float sigma: standard deviation of the noise, in intensity units of [0, 1]
        videos; 0 for none. By default 0.001, and 0.005 for ``'jpeg'``.
    :param str alignment: pixel grid of the downsampling, ``'deepinv'`` (the published
        problems), ``'deepinv-0.3'`` (measurements made with DeepInverse up to 0.3.5) or
        ``'center'`` (ordinary resizers), see :class:`VideoDownsampling`; without effect
        where there is no downsampling.
    :param str time_border: what a blur over time sees beyond the first and the last frame:
        ``'circular'`` (the published problems), ``'replicate'`` (the frame at the end goes
        on, for recordings) or ``'reflect'``; without effect where nothing blurs over time.
    :param int mask_seed: seed of the mask of the inpainting problems.
    :param torch.Generator rng: generator of the noise; PyTorch's global one by default.
    :param torch.device, str device: device of the operator.
    :param torch.dtype dtype: dtype of the operator (JPEG takes videos of any).
    :return: (:class:`SeparableVideoPhysics` | :class:`VideoInpainting` |
        :class:`JPEGCompression`) the operator; unless it is JPEG, exact in every step.
    :raises ValueError: if the name is unknown or an argument is not as above.

    |sep|

    :Examples:

        >>> from deepinv_lvtino import make_problem
        >>> make_problem("A", img_size=(3, 25, 192, 320)).measurement_size
        (3, 7, 48, 80)

    |sep|

    .. footbibliography::
    """
    if not isinstance(name, str) or name not in PROBLEMS:
        msg = f"`name` must be one of {', '.join(map(repr, PROBLEMS))}; got {name!r}."
        raise ValueError(msg)
    problem = PROBLEMS[name]
    sigma = problem.sigma if sigma is None else sigma
    sigma = check_number("sigma", sigma, least=0)
    mask_seed = check_seed("mask_seed", mask_seed)
    check_choice("alignment", alignment, ALIGNMENTS)
    check_choice("time_border", time_border, TIME_BORDERS)
    size = check_img_size(img_size)
    return problem.build(
        _Setting(size, sigma, alignment, time_border, mask_seed, rng, device, dtype)
    )
