r"""The separable video operators by name: blur, pooling and downsampling."""

from __future__ import annotations

from typing import Any

import torch
from deepinv.physics.noise import NoiseModel
from torch import Tensor

from deepinv_lvtino.physics.functional import (
    ALIGNMENTS,
    antialiasing_taps,
    check_choice,
    convolution_taps,
    first_sample,
    sampling_matrix,
    separate_kernel,
)
from deepinv_lvtino.physics.separable import SeparableVideoPhysics
from deepinv_lvtino.utils import check_img_size, check_integer, check_tensor


def _check_factor(factor: int) -> int:
    factor = check_integer("factor", factor)
    if factor < 1:
        msg = f"`factor` must be a positive integer; got {factor}."
        raise ValueError(msg)
    return factor


class TemporalBlur(SeparableVideoPhysics):
    r"""
    Blur along time, as of a camera's exposure; space is untouched.

    .. math::

        y_t = \sum_k h_k \, x_{t - k + c}

    with the centre :math:`c` in the middle of the kernel (for an even length the later of
    the two, tap ``K // 2``, which is what :func:`deepinv.physics.functional.conv2d` does).

    :param tuple[int, int, int, int] img_size: video size ``(C, T, H, W)``.
    :param int kernel_size: number of frames of a kernel given by name.
    :param str, torch.Tensor kernel: ``'uniform'``, ``'gaussian'`` (standard deviation a
        sixth of ``kernel_size``) or the taps themselves, shape ``(K,)``, in frames.
    :param str padding: ``'circular'``, ``'replicate'``, ``'reflect'`` or ``'constant'``
        (zeros).
    :param deepinv.physics.NoiseModel noise_model: measurement noise; none by default.
    :param kwargs: further arguments of :class:`SeparableVideoPhysics`.
    :raises ValueError: if a name is unknown, ``kernel_size`` is not a positive integer,
        or the taps are not one-dimensional.

    |sep|

    :Examples:

        >>> import torch
        >>> from deepinv_lvtino.physics import TemporalBlur
        >>> physics = TemporalBlur((1, 4, 1, 1), kernel_size=3)
        >>> x = torch.tensor([3.0, 0, 0, 0]).view(1, 1, 4, 1, 1)
        >>> physics(x).flatten().round(decimals=4)
        tensor([1., 1., 0., 1.])
    """

    def __init__(
        self,
        img_size: tuple[int, int, int, int],
        kernel_size: int = 7,
        kernel: str | Tensor = "uniform",
        padding: str = "circular",
        noise_model: NoiseModel | None = None,
        **kwargs: Any,
    ) -> None:
        check_choice(
            "padding", padding, ("circular", "replicate", "reflect", "constant")
        )
        frames = check_img_size(img_size)[1]
        taps, first = convolution_taps(_temporal_kernel(kernel, kernel_size))
        super().__init__(
            img_size,
            temporal=sampling_matrix(taps, first, 1, frames, padding),
            noise_model=noise_model,
            **kwargs,
        )


def _temporal_kernel(kernel: str | Tensor, kernel_size: int) -> Tensor:
    if isinstance(kernel, Tensor):
        if kernel.ndim != 1 or len(kernel) == 0:
            msg = (
                f"`kernel` must have shape (K,); got {tuple(kernel.shape)}. Give one "
                "weight per frame."
            )
            raise ValueError(msg)
        if not bool(torch.isfinite(kernel).all()):
            msg = "`kernel` must be finite; it holds NaN or infinity."
            raise ValueError(msg)
        return kernel
    if not isinstance(kernel, str):
        check_tensor("kernel", kernel)
    check_choice("kernel", kernel, ("uniform", "gaussian"))
    kernel_size = check_integer("kernel_size", kernel_size, 1)
    if kernel == "uniform":
        return torch.full((kernel_size,), 1 / kernel_size, dtype=torch.float64)
    offset = torch.arange(kernel_size, dtype=torch.float64) - (kernel_size - 1) / 2
    weights = torch.exp(-0.5 * (offset / (kernel_size / 6)) ** 2)
    return weights / weights.sum()


class TemporalPooling(SeparableVideoPhysics):
    r"""
    Average of groups of consecutive frames: a slower camera with a long exposure.

    .. math::

        y_j = \frac{1}{f} \sum_{k=0}^{f-1} x_{j f + k}

    :param tuple[int, int, int, int] img_size: video size ``(C, T, H, W)``.
    :param int factor: number of frames :math:`f` in a group.
    :param str tail: what becomes of frames that do not fill a group: ``'replicate'``
        completes it by repeating the last frame, ``'drop'`` leaves them out.
    :param deepinv.physics.NoiseModel noise_model: measurement noise; none by default.
    :param kwargs: further arguments of :class:`SeparableVideoPhysics`.
    :raises ValueError: if ``tail`` is unknown, ``factor`` is not a positive integer, or
        no group is left.

    |sep|

    :Examples:

        >>> import torch
        >>> from deepinv_lvtino.physics import TemporalPooling
        >>> physics = TemporalPooling((3, 25, 8, 8), factor=4)
        >>> physics.measurement_size
        (3, 7, 8, 8)
    """

    def __init__(
        self,
        img_size: tuple[int, int, int, int],
        factor: int,
        tail: str = "replicate",
        noise_model: NoiseModel | None = None,
        **kwargs: Any,
    ) -> None:
        check_choice("tail", tail, ("replicate", "drop"))
        factor = _check_factor(factor)
        frames = check_img_size(img_size)[1]
        taps = torch.full((factor,), 1 / factor, dtype=torch.float64)
        matrix = sampling_matrix(taps, 0, factor, frames, "replicate")
        if tail == "drop":
            matrix = matrix[: frames // factor]
        if len(matrix) == 0:
            msg = (
                f"`factor`={factor} with `tail='drop'` leaves none of {frames} frames. "
                "Use `tail='replicate'` or a smaller factor."
            )
            raise ValueError(msg)
        super().__init__(img_size, temporal=matrix, noise_model=noise_model, **kwargs)


class TemporalDecimation(SeparableVideoPhysics):
    r"""
    One frame in ``factor``, the others lost: frame-rate reduction without exposure.

    .. math::

        y_j = x_{o + j f}

    :param tuple[int, int, int, int] img_size: video size ``(C, T, H, W)``.
    :param int factor: distance :math:`f` between the frames that are kept.
    :param int offset: first frame :math:`o` that is kept, in ``[0, T)``.
    :param deepinv.physics.NoiseModel noise_model: measurement noise; none by default.
    :param kwargs: further arguments of :class:`SeparableVideoPhysics`.
    :raises ValueError: if ``factor`` is not a positive integer or ``offset`` is outside.

    |sep|

    :Examples:

        >>> import torch
        >>> from deepinv_lvtino.physics import TemporalDecimation
        >>> x = torch.arange(5.0).view(1, 1, 5, 1, 1)
        >>> TemporalDecimation((1, 5, 1, 1), factor=2)(x).flatten()
        tensor([0., 2., 4.])
    """

    def __init__(
        self,
        img_size: tuple[int, int, int, int],
        factor: int,
        offset: int = 0,
        noise_model: NoiseModel | None = None,
        **kwargs: Any,
    ) -> None:
        factor = _check_factor(factor)
        frames = check_img_size(img_size)[1]
        offset = check_integer("offset", offset)
        if not 0 <= offset < frames:
            msg = f"`offset` must lie in [0, {frames}); got {offset}."
            raise ValueError(msg)
        matrix = torch.eye(frames, dtype=torch.float64)[offset::factor]
        super().__init__(img_size, temporal=matrix, noise_model=noise_model, **kwargs)


class VideoDownsampling(SeparableVideoPhysics):
    r"""
    Anti-aliased downsampling of every frame.

    .. math::

        y = S (h * x)

    with a separable low-pass filter :math:`h` and one pixel kept in ``factor`` along each
    axis. Several pixel grids exist, three pixels apart at a factor of 8: low-resolution
    pixel :math:`j` sits at high-resolution position

    - ``alignment='deepinv'``: :math:`j f + 1/2` (:math:`j f` for a filter of odd length),
      equal to :class:`deepinv.physics.Downsampling`, which the published problems use;
    - ``alignment='deepinv-0.3'``: :math:`j f - 1/2` (:math:`j f` for a filter of odd
      length), equal to that class until DeepInverse 0.3.5, whose padding had one pixel
      more before and one fewer after. Take this one for measurements made with it;
    - ``alignment='center'``: :math:`j f + (f-1)/2`, the middle of its block, as in FFmpeg,
      PIL and cameras. Take this one for files shrunk by somebody else.

    :param tuple[int, int, int, int] img_size: video size ``(C, T, H, W)``. With
        the grids of DeepInverse any size is possible (``ceil(H / factor)`` rows); the grid
        ``'center'`` needs sizes that ``factor`` divides.
    :param int factor: downsampling factor :math:`f`.
    :param str, torch.Tensor filter: ``'bicubic'``, ``'bilinear'``, ``'gaussian'``,
        ``'sinc'``, or a separable kernel of shape ``(h, w)`` or ``(1, 1, h, w)``.
    :param str padding: ``'reflect'``, ``'circular'``, ``'replicate'``, ``'constant'``
        (zeros) or, with the grids of DeepInverse, ``'valid'`` (the same in both).
    :param str alignment: ``'deepinv'``, ``'deepinv-0.3'`` or ``'center'``.
    :param deepinv.physics.NoiseModel noise_model: measurement noise; none by default.
    :param kwargs: further arguments of :class:`SeparableVideoPhysics`.
    :raises ValueError: if a name is unknown, the kernel is not separable, ``factor`` is
        not a positive integer, or the combination is not possible.

    |sep|

    :Examples:

        >>> import torch
        >>> from deepinv_lvtino.physics import VideoDownsampling
        >>> physics = VideoDownsampling((3, 5, 32, 48), factor=8)
        >>> physics.measurement_size
        (3, 5, 4, 6)
        >>> bool((physics(torch.ones(1, 3, 5, 32, 48)) - 1).abs().max() < 1e-6)
        True
    """

    def __init__(
        self,
        img_size: tuple[int, int, int, int],
        factor: int,
        filter: str | Tensor = "bicubic",
        padding: str = "reflect",
        alignment: str = "deepinv",
        noise_model: NoiseModel | None = None,
        **kwargs: Any,
    ) -> None:
        check_choice("alignment", alignment, ALIGNMENTS)
        factor = _check_factor(factor)
        height, width = check_img_size(img_size)[2:]
        if alignment == "center":
            _check_centre_grid(factor, padding, height, width)
        if isinstance(filter, Tensor):
            kernels = separate_kernel(filter)
            taps = [_place_kernel(kernel, factor, alignment) for kernel in kernels]
        else:
            if not isinstance(filter, str):
                check_tensor("filter", filter)
            position = first_sample(filter, factor, alignment)
            taps = [antialiasing_taps(filter, factor, position)] * 2
        vertical, horizontal = (
            sampling_matrix(weights, first, factor, size, padding)
            for (weights, first), size in zip(taps, (height, width), strict=True)
        )
        super().__init__(
            img_size,
            vertical=vertical,
            horizontal=horizontal,
            noise_model=noise_model,
            **kwargs,
        )


def _check_centre_grid(factor: int, padding: str, height: int, width: int) -> None:
    if padding == "valid":
        msg = (
            "`padding='valid'` moves the first sample inwards and has no centred grid; "
            "use `alignment='deepinv'`, or another padding."
        )
        raise ValueError(msg)
    for name, size in (("height", height), ("width", width)):
        if size % factor:
            below = size - size % factor
            choice = f"{below} or {below + factor}" if below else f"{factor}"
            msg = (
                f"`factor`={factor} does not divide the {name} {size}, so that a "
                f"centred grid of blocks does not exist; crop or pad to {choice}."
            )
            raise ValueError(msg)


def _place_kernel(kernel: Tensor, factor: int, alignment: str) -> tuple[Tensor, int]:
    taps, first = convolution_taps(kernel, early=alignment == "deepinv-0.3")
    if alignment != "center":
        return taps, first
    shift = (factor - len(kernel)) / 2  # first tap, for a kernel centred on the block
    if shift != int(shift):
        parity = "odd" if factor % 2 else "even"
        msg = (
            f"`filter` of length {len(kernel)} cannot be centred on blocks of {factor} "
            f"pixels; give a kernel of {parity} length, or use `alignment='deepinv'`."
        )
        raise ValueError(msg)
    return taps, int(shift)


class VideoBlur(SeparableVideoPhysics):
    r"""
    Separable blur of every frame; time is untouched.

    Equal to :class:`deepinv.physics.Blur` frame by frame. A kernel that is not separable
    is for :class:`FramewisePhysics`: of :class:`deepinv.physics.BlurFFT` if the border is
    circular (exact too), else of :class:`deepinv.physics.Blur`.

    :param tuple[int, int, int, int] img_size: video size ``(C, T, H, W)``.
    :param torch.Tensor, tuple[torch.Tensor, torch.Tensor] filter: separable kernel of
        shape ``(h, w)`` or ``(1, 1, h, w)``, in pixels (for example
        :func:`deepinv.physics.functional.gaussian_blur`), or the pair of its vertical and
        horizontal kernels, shapes ``(h,)`` and ``(w,)``.
    :param str padding: ``'circular'``, ``'reflect'``, ``'replicate'``, ``'constant'``
        (zeros) or ``'valid'`` (smaller measurement).
    :param deepinv.physics.NoiseModel noise_model: measurement noise; none by default.
    :param kwargs: further arguments of :class:`SeparableVideoPhysics`.
    :raises ValueError: if the kernel is not separable or ``padding`` is unknown.

    |sep|

    :Examples:

        >>> import torch
        >>> from deepinv.physics.functional import gaussian_blur
        >>> from deepinv_lvtino.physics import VideoBlur
        >>> physics = VideoBlur((3, 5, 32, 48), gaussian_blur(sigma=(3.0, 3.0)))
        >>> physics.measurement_size
        (3, 5, 32, 48)
    """

    def __init__(
        self,
        img_size: tuple[int, int, int, int],
        filter: Tensor | tuple[Tensor, Tensor],
        padding: str = "circular",
        noise_model: NoiseModel | None = None,
        **kwargs: Any,
    ) -> None:
        sizes = check_img_size(img_size)[2:]
        if not isinstance(filter, (tuple, list)):
            check_tensor("filter", filter)
        kernels = separate_kernel(filter) if isinstance(filter, Tensor) else filter
        for kernel in kernels:
            check_tensor("filter", kernel)
        if len(kernels) != 2 or any(kernel.ndim != 1 for kernel in kernels):
            msg = (
                "`filter` must be one kernel of shape (h, w) or a pair of kernels of "
                f"shapes (h,) and (w,); got {len(kernels)} of "
                f"{[tuple(kernel.shape) for kernel in kernels]}."
            )
            raise ValueError(msg)
        vertical, horizontal = (
            sampling_matrix(*convolution_taps(kernel), 1, size, padding)
            for kernel, size in zip(kernels, sizes, strict=True)
        )
        super().__init__(
            img_size,
            vertical=vertical,
            horizontal=horizontal,
            noise_model=noise_model,
            **kwargs,
        )
