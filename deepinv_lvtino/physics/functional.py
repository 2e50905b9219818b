r"""
One-dimensional sampling matrices and their application to one axis of a video.

Every operator of this package that is separable is described by three small dense
matrices, one per axis. This module builds them (:func:`sampling_matrix` and the
kernels that go with it) and applies them (:func:`apply_along_axis`). Pure functions,
no state; matrices are built in float64 on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

#: Boundary rules, named as in :func:`deepinv.physics.functional.conv2d`.
PADDINGS = ("circular", "replicate", "reflect", "constant", "valid")

#: Pixel grids of a downsampled image, see :func:`first_sample`.
ALIGNMENTS = ("deepinv", "deepinv-0.3", "center")

#: What a blur over time sees before the first and after the last frame of a named problem.
TIME_BORDERS = ("circular", "replicate", "reflect")

#: Anti-aliasing filters that DeepInverse's ``Downsampling`` offers by name.
FILTERS = ("bicubic", "bilinear", "gaussian", "sinc")


def check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    r"""
    Refuse a name that is not in a list.

    :param str name: name of the argument, for the message.
    :param str value: what the caller gave.
    :param tuple[str, ...] allowed: accepted values.
    :raises ValueError: if ``value`` is not one of ``allowed``.
    """
    if not isinstance(value, str) or value not in allowed:
        msg = f"`{name}` must be one of {', '.join(map(repr, allowed))}; got {value!r}."
        raise ValueError(msg)


def padded_indices(positions: Tensor, size: int, padding: str) -> Tensor:
    r"""
    Where a position outside an axis takes its value from.

    :param torch.Tensor positions: integer positions, any shape, possibly outside
        ``[0, size)``.
    :param int size: length of the axis.
    :param str padding: one of :data:`PADDINGS`. Reflection does not repeat the border
        sample and, like the others, goes on periodically on very short axes.
    :return: (:class:`torch.Tensor`) indices in ``[0, size)``, or ``-1`` where the
        value is zero (``'constant'``); same shape as ``positions``.
    :raises ValueError: if ``padding`` is unknown, or ``'valid'`` and a position lies
        outside.
    """
    check_choice("padding", padding, PADDINGS)
    inside = (positions >= 0) & (positions < size)
    if padding == "circular":
        return positions % size
    if padding == "replicate":
        return positions.clamp(0, size - 1)
    if padding == "reflect":
        period = max(2 * (size - 1), 1)
        folded = positions % period
        return torch.minimum(folded, period - folded) if size > 1 else 0 * positions
    if padding == "constant":
        return torch.where(inside, positions, -1)
    if not bool(inside.all()):
        msg = "`padding='valid'` needs every tap inside the axis."
        raise ValueError(msg)
    return positions


def sampling_matrix(
    taps: Tensor, first: int, step: int, size: int, padding: str
) -> Tensor:
    r"""
    Matrix of "filter, then keep one sample in ``step``" on one axis.

    .. math::

        y_j = \sum_k w_k \, x_{f + j s + k}, \qquad j = 0, 1, \dots

    with taps :math:`w`, first position :math:`f` and step :math:`s`; positions outside
    of the axis follow ``padding``. There are ``ceil(size / step)`` samples, or with
    ``padding='valid'`` as many as have all their taps inside (then ``first`` is not
    used: the first window starts at 0).

    :param torch.Tensor taps: weights :math:`w` of shape ``(K,)``, in reading order (a
        convolution kernel must be flipped first).
    :param int first: position of the first tap of sample 0.
    :param int step: distance between samples.
    :param int size: length of the axis.
    :param str padding: one of :data:`PADDINGS`.
    :return: (:class:`torch.Tensor`) matrix of shape ``(samples, size)``, float64.
    :raises ValueError: if ``padding='valid'`` and the filter is longer than the axis.
    """
    taps = taps.detach().to("cpu", torch.float64)
    if padding == "valid":
        first = 0
        count = (size - len(taps)) // step + 1
        if count < 1:
            msg = (
                f"`padding='valid'` needs an axis of at least {len(taps)} samples, the "
                f"length of the filter; got {size}. Use another padding."
            )
            raise ValueError(msg)
    else:
        count = -(-size // step)
    start = first + step * torch.arange(count)
    source = padded_indices(
        start[:, None] + torch.arange(len(taps))[None, :], size, padding
    )
    matrix = torch.zeros(count, size + 1, dtype=torch.float64)  # last column: zeros
    matrix.scatter_add_(
        1, torch.where(source < 0, size, source), taps.expand(count, -1)
    )
    return matrix[:, :size].contiguous()


def convolution_taps(kernel: Tensor, early: bool = False) -> tuple[Tensor, int]:
    r"""
    Taps and first position of a convolution that keeps the size of the axis.

    The centre of a kernel of length :math:`K` is tap ``K // 2``, odd or even, which is what
    :func:`deepinv.physics.functional.conv2d` does.

    :param torch.Tensor kernel: convolution kernel of shape ``(K,)``.
    :param bool early: as that function did until DeepInverse 0.3.5: the centre of a kernel
        of even length is tap ``K // 2 - 1``.
    :return: (tuple) flipped kernel and position of its first tap for sample 0.
    """
    length = len(kernel)
    longer = 0 if early else (length - 1) % 2
    return kernel.flip(0), -(length // 2 - longer)


def first_sample(name: str, factor: int, alignment: str) -> float:
    r"""
    Position, in high-resolution pixels, of low-resolution pixel 0.

    Low-resolution pixel :math:`j` sits at this position plus :math:`j f`. In the grid
    ``'deepinv'`` (:class:`deepinv.physics.Downsampling`, version 0.4 and later) it is
    0.5 for the filters of even length and 0 for the Gaussian one; in ``'deepinv-0.3'``
    (until version 0.3.5) -0.5 and 0. In the grid ``'center'`` (FFmpeg, PIL, cameras) the
    pixel sits in the middle of its block, at :math:`(f - 1)/2`.

    :param str name: one of :data:`FILTERS`.
    :param int factor: downsampling factor :math:`f`.
    :param str alignment: one of :data:`ALIGNMENTS`.
    :return: (float) the position.
    """
    check_choice("alignment", alignment, ALIGNMENTS)
    if alignment == "center":
        return (factor - 1) / 2
    if name == "gaussian":
        return 0.0
    return 0.5 if alignment == "deepinv" else -0.5


def antialiasing_taps(name: str, factor: int, position: float) -> tuple[Tensor, int]:
    r"""
    Taps of a named anti-aliasing filter centred anywhere on the pixel grid.

    The filters are those of :class:`deepinv.physics.Downsampling` (bicubic with
    :math:`a=-1/2`, bilinear, Gaussian of standard deviation ``factor`` pixels,
    Kaiser-windowed cardinal sine), each sampled at the distances from ``position`` and
    normalised to sum one.

    :param str name: one of :data:`FILTERS`.
    :param int factor: downsampling factor, which sets the width.
    :param float position: centre of the filter, in pixels; an integer or half-integer.
    :return: (tuple) taps of shape ``(K,)`` in float64 and position of the first one.
    :raises ValueError: if ``name`` is unknown.
    """
    check_choice("filter", name, FILTERS)
    profile, reach = _PROFILES[name](factor)
    first = math.ceil(position - reach)
    last = math.floor(position + reach)
    distance = torch.arange(first, last + 1, dtype=torch.float64) - position
    taps = profile(distance)
    return taps / taps.sum(), first


def _bicubic(factor: int) -> tuple[Callable[[Tensor], Tensor], float]:
    def profile(distance: Tensor) -> Tensor:
        u = distance.abs() / factor
        near = 1.5 * u**3 - 2.5 * u**2 + 1
        far = -0.5 * u**3 + 2.5 * u**2 - 4 * u + 2
        return torch.where(u <= 1, near, torch.where(u < 2, far, 0.0))

    return profile, 2 * factor - 0.5


def _bilinear(factor: int) -> tuple[Callable[[Tensor], Tensor], float]:
    return lambda distance: 1 - distance.abs() / factor, factor - 0.5


def _gaussian(factor: int) -> tuple[Callable[[Tensor], Tensor], float]:
    return lambda distance: torch.exp(-0.5 * (distance / factor) ** 2), float(
        int(factor / 0.3 + 1)
    )


def _sinc(factor: int) -> tuple[Callable[[Tensor], Tensor], float]:
    length = 4 * factor
    half = (length - 1) / 2
    attenuation = 2.285 * (length - 1) * math.pi * 2 * (2 - math.sqrt(2)) / factor
    attenuation += 7.95
    if attenuation <= 21:
        beta = 0.0
    elif attenuation <= 50:
        beta = 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    else:
        beta = 0.1102 * (attenuation - 8.7)

    def profile(distance: Tensor) -> Tensor:
        window = torch.i0(beta * (1 - (distance / half) ** 2).clamp(min=0).sqrt())
        return torch.sinc(distance / factor) * window

    return profile, half


_PROFILES = {
    "bicubic": _bicubic,
    "bilinear": _bilinear,
    "gaussian": _gaussian,
    "sinc": _sinc,
}


def separate_kernel(kernel: Tensor, tolerance: float = 1e-5) -> tuple[Tensor, Tensor]:
    r"""
    Split a rank-one image kernel into a vertical and a horizontal one.

    :param torch.Tensor kernel: kernel of shape ``(h, w)``, or ``(1, 1, h, w)`` as
        DeepInverse writes it.
    :param float tolerance: largest second singular value, relative to the first, of a
        kernel that counts as separable.
    :return: (tuple[torch.Tensor, torch.Tensor]) kernels of shapes ``(h,)`` and
        ``(w,)``, float64, with outer product ``kernel``; both sum to the square root of
        the sum of ``kernel`` when that is positive.
    :raises ValueError: if the shape is another, or the kernel is not separable.
    """
    original = tuple(kernel.shape)
    while kernel.ndim > 2 and kernel.shape[0] == 1:
        kernel = kernel[0]
    if kernel.ndim != 2:
        msg = (
            "`filter` must have shape (h, w) or (1, 1, h, w), one kernel for all "
            f"channels and frames; got {original}. Wrap a DeepInverse image operator "
            "in `FramewisePhysics` for one kernel per channel."
        )
        raise ValueError(msg)
    u, s, vh = torch.linalg.svd(kernel.detach().to("cpu", torch.float64))
    if len(s) > 1 and s[1] > tolerance * s[0]:
        msg = (
            "`filter` must be separable (rank one); its second singular value is "
            f"{float(s[1] / s[0]):.1e} of the first. For a circular border use "
            "`FramewisePhysics(deepinv.physics.BlurFFT(img_size, filter=...))`, exact "
            "too; else, with iterative data steps, "
            "`FramewisePhysics(deepinv.physics.Blur(filter=...))` or "
            "`FramewisePhysics(deepinv.physics.Downsampling(filter=...))`."
        )
        raise ValueError(msg)
    vertical, horizontal = u[:, 0] * s[0].sqrt(), vh[0] * s[0].sqrt()
    if vertical.sum() < 0:
        vertical, horizontal = -vertical, -horizontal
    if vertical.sum() > 0 and horizontal.sum() > 0:
        balance = (horizontal.sum() / vertical.sum()).sqrt()
        vertical, horizontal = vertical * balance, horizontal / balance
    return vertical, horizontal


def apply_along_axis(x: Tensor, matrix: Tensor | None, axis: int) -> Tensor:
    r"""
    Multiply one axis of a video by a matrix, as one batched matrix product.

    :param torch.Tensor x: tensor of shape ``(B, C, T, H, W)``.
    :param torch.Tensor matrix: matrix of shape ``(m, n)`` with ``n`` the length of the
        axis, or ``None`` for the identity.
    :param int axis: 2 (time), 3 (height) or 4 (width).
    :return: (:class:`torch.Tensor`) ``x`` with length ``m`` along ``axis``.
    """
    if matrix is None:
        return x
    if axis == 4:
        return x @ matrix.mT
    if axis == 3:
        return matrix @ x
    batch, channels, frames, height, width = x.shape
    flat = matrix @ x.reshape(batch, channels, frames, height * width)
    return flat.reshape(batch, channels, -1, height, width)
