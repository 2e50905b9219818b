r"""The published inverse problems by name, and any described one."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from deepinv_lvtino.physics._terms import Setting, Size
from deepinv_lvtino.physics.description import Description, parse_operator
from deepinv_lvtino.physics.framewise import FramewiseLinearPhysics
from deepinv_lvtino.physics.functional import ALIGNMENTS, TIME_BORDERS, check_choice
from deepinv_lvtino.physics.jpeg import JPEGCompression
from deepinv_lvtino.physics.masked import VideoInpainting
from deepinv_lvtino.physics.separable import SeparableVideoPhysics
from deepinv_lvtino.utils import (
    check_img_size,
    check_integer,
    check_number,
    check_seed,
    check_sizes,
)

#: The operators that :func:`make_problem` gives; others are products of DeepInverse's.
VideoPhysics = (
    SeparableVideoPhysics | VideoInpainting | JPEGCompression | FramewiseLinearPhysics
)


@dataclass(frozen=True)
class Problem:
    r"""
    An inverse problem, before its size is known.

    :param str name: name for :func:`make_problem`: a short one, or the description.
    :param Description operator: what happened to the video.
    :param float sigma: standard deviation of the noise of a simulation if nothing is said.
    """

    name: str
    operator: Description = field(repr=False)
    sigma: float = 0.001

    @property
    def description(self) -> str:
        """One line for people."""
        return self.operator.words

    @property
    def frame_factor(self) -> int:
        """Video frames per measured frame."""
        factor = 1
        for term in self.operator.terms:
            factor *= term.frames
        return factor

    @property
    def scale_factor(self) -> int:
        """Video pixels per measured pixel, along each axis."""
        factor = 1
        for term in self.operator.terms:
            factor *= term.pixels
        return factor

    @property
    def linear(self) -> bool:
        """Whether it is linear; if not, its schedule has to be the published one."""
        return self.operator.jpeg is None

    @property
    def masked(self) -> bool:
        """Whether it has a random mask."""
        return self.operator.random

    @property
    def blurs_time(self) -> bool:
        """Whether it blurs over time."""
        return self.operator.blurs_time

    def video_size(self, measurement_size: Size, num_frames: int | None = None) -> Size:
        r"""
        Size of the video behind a measurement.

        :param tuple[int, int, int, int] measurement_size: ``(C, t, h, w)``.
        :param int num_frames: number of video frames, where the measurement admits
            several (the last group of frames may not be full); by default the largest
            of which every frame is seen.
        :return: (tuple[int, int, int, int]) ``(C, T, H, W)``.
        :raises ValueError: if no video of ``num_frames`` frames gives that measurement.
        """
        size: Size = check_sizes(
            "measurement_size", measurement_size, "(C, t, h, w) without the batch axis"
        )
        measured = size[1]
        for term in reversed(self.operator.terms):
            size = term.before(size)
        if num_frames is None:
            return size
        total = check_integer("num_frames", num_frames)
        largest = self.frame_factor * measured
        smallest = largest - self.frame_factor + 1
        if not smallest <= total <= largest:
            span = f"{smallest} to {largest}" if smallest < largest else f"{largest}"
            msg = (
                f"`num_frames` must be {span} for a measurement of {measured} frames of "
                f"problem {self.name}; got {total}."
            )
            raise ValueError(msg)
        return size[0], total, *size[2:]

    def build(self, setting: Setting) -> VideoPhysics:
        r"""
        The operator.

        :param Setting setting: size, noise, grid, seed and device.
        :return: (deepinv.physics.Physics) the operator.
        """
        return self.operator.build(setting)


#: The named problems as descriptions, see :func:`make_problem`.
_NAMED = {
    "A": "temporal-mean=4, downscale=4",
    "B": "temporal-blur=7, downscale=8",
    "C": "temporal-mean=8, downscale=8",
    "jpeg": "noise=0.005, jpeg=10",
    "deblur": "blur=3",
    "deblur-temporal": "temporal-blur=7, blur=3",
    "sr4": "downscale=4",
    "sr4-temporal": "temporal-blur=7, downscale=4",
    "inpaint": "mask=0.5",
    "inpaint-temporal": "temporal-blur=7, mask=0.5",
}

#: Other names, which say what happens.
ALIASES = {"frames4-sr4": "A", "blur7-sr8": "B", "frames8-sr8": "C"}


def _problem(name: str, text: str) -> Problem:
    operator = parse_operator(text)
    sigma = 0.001 if operator.noise is None else operator.noise
    return Problem(name, operator, sigma)


#: The named problems, see :func:`make_problem`.
PROBLEMS: dict[str, Problem] = {
    name: _problem(name, text) for name, text in _NAMED.items()
}


def find_problem(name: str) -> Problem:
    r"""
    Problem of a name or of a description.

    :param str name: key of :data:`PROBLEMS` or :data:`ALIASES`, or a description for
        :func:`parse_operator`.
    :return: (Problem) the problem; that of a description has it as its name.
    :raises FileNotFoundError: if a file of the description is missing.
    :raises ValueError: if it is none of these.
    """
    if isinstance(name, str):
        name = ALIASES.get(name, name)
        if name in PROBLEMS:
            return PROBLEMS[name]
        if "=" in name:
            problem = _problem(name, name)
            return Problem(str(problem.operator), problem.operator, problem.sigma)
    msg = (
        f"`name` must be one of {', '.join(map(repr, PROBLEMS))}, or a description such as "
        f"'temporal-mean=2, downscale=2'; got {name!r}."
    )
    raise ValueError(msg)


def make_problem(
    name: str,
    img_size: Size,
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

    Any other one is a description (:func:`parse_operator`), as in
    ``make_problem("temporal-mean=2, blur=1.5, downscale=2, noise=0.02", img_size)``, and
    these are too: ``'B'`` is ``"temporal-blur=7, downscale=8"``. ``'frames4-sr4'``,
    ``'blur7-sr8'`` and ``'frames8-sr8'`` are other names of A, B and C.

    Padding in space is by reflection. The published blurs over time are circular, their
    first frames see the last ones; a recording is not.

    :param str name: name of the problem, a key of :data:`PROBLEMS`, or a description.
    :param tuple[int, int, int, int] img_size: video size ``(C, T, H, W)``.
    :param float sigma: standard deviation of the noise, in intensity units of [0, 1]
        videos; 0 for none. By default what the description says, else 0.001, and 0.005
        for ``'jpeg'``.
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
        :class:`JPEGCompression`) the operator; unless it is JPEG, exact in every step. With
        a kernel that is not separable a :class:`FramewiseLinearPhysics`, and with further
        steps a composition of DeepInverse, whose steps are iterative.
    :raises ValueError: if the name is unknown or an argument is not as above.

    |sep|

    :Examples:

        >>> from deepinv_lvtino import make_problem
        >>> make_problem("A", img_size=(3, 25, 192, 320)).measurement_size
        (3, 7, 48, 80)

    |sep|

    .. footbibliography::
    """
    problem = find_problem(name)
    sigma = problem.sigma if sigma is None else sigma
    sigma = check_number("sigma", sigma, least=0)
    mask_seed = check_seed("mask_seed", mask_seed)
    check_choice("alignment", alignment, ALIGNMENTS)
    check_choice("time_border", time_border, TIME_BORDERS)
    size = check_img_size(img_size)
    return problem.build(
        Setting(size, sigma, alignment, time_border, mask_seed, rng, device, dtype)
    )
