r"""JPEG compression of every frame, by a real codec."""

from __future__ import annotations

import io
from typing import Any, NoReturn

import numpy as np
import torch
from deepinv.physics import Physics
from deepinv.physics.noise import GaussianNoise, ZeroNoise
from PIL import Image
from torch import Tensor

from deepinv_lvtino.utils import (
    check_img_size,
    check_integer,
    check_number,
    check_video,
)


class JPEGCompression(Physics):
    r"""
    Gaussian noise, then JPEG compression of every frame.

    .. math::

        y = \operatorname{JPEG}_q(x + n), \qquad n \sim \mathcal{N}(0, \sigma^2)

    with libjpeg's baseline codec at quality :math:`q` and halved chrominance (4:2:0), as
    most software writes. ``physics.A(x)`` is the whole deterministic operator,
    :math:`\operatorname{JPEG}_q(x)`, and ``physics(x)`` compresses the noisy video: noise
    comes *before* the operator, unlike in other DeepInverse physics.

    Frames are rounded to 8 bit for the codec, which clips values outside of [0, 1].
    Compression happens on the CPU; the result is on the device, and of the dtype, of the
    input. Any height and width is possible.

    The operator is a staircase whose true derivative is zero. Derivatives are those of the
    identity instead (straight-through rule): :meth:`A_vjp`, and automatic
    differentiation of :meth:`A`. There is no adjoint and no proximal step: use
    :class:`deepinv_lvtino.optim.LandweberStep`, as the published settings do
    (``Schedule.published("jpeg")``).

    :param int quality: JPEG quality :math:`q`, 1 to 100.
    :param float sigma: standard deviation :math:`\sigma` of the noise, in intensity units
        of [0, 1] videos; 0 for none. The published problem has 0.01 on [-1, 1] videos, that
        is 0.005.
    :param tuple[int, int, int, int] img_size: video size ``(C, T, H, W)``, if videos are
        to be of that size only.
    :param torch.Generator rng: generator of the noise; PyTorch's global one by default.
    :raises ValueError: if ``quality`` or ``sigma`` is out of range, or ``img_size`` has
        neither one channel nor three.

    |sep|

    :Examples:

        >>> import torch
        >>> from deepinv_lvtino.physics import JPEGCompression
        >>> physics = JPEGCompression(quality=10)
        >>> x = torch.full((1, 3, 2, 9, 7), 0.5, requires_grad=True)
        >>> y = physics.A(x)
        >>> bool((y - x).abs().max() < 0.01)
        True
        >>> y.sum().backward()
        >>> x.grad.unique()
        tensor([1.])
    """

    img_size: Any  # (C, T, H, W), or None

    #: There is no proximal step: :meth:`prox_l2` says so.
    has_prox = False

    def __init__(
        self,
        quality: int = 10,
        sigma: float = 0.0,
        img_size: tuple[int, int, int, int] | None = None,
        rng: torch.Generator | None = None,
    ) -> None:
        quality = check_integer("quality", quality)
        if not 1 <= quality <= 100:
            msg = f"`quality` must be an integer from 1 to 100; got {quality}."
            raise ValueError(msg)
        check_number("sigma", sigma, least=0)
        super().__init__(
            noise_model=GaussianNoise(sigma, rng=rng) if sigma > 0 else ZeroNoise()
        )
        self.quality = quality
        self.img_size = None if img_size is None else check_img_size(img_size)
        if self.img_size is not None:
            _check_channels("img_size", self.img_size[0])

    @property
    def measurement_size(self) -> tuple[int, int, int, int] | None:
        r"""Size ``(C, T, H, W)`` of a measurement, which is that of the video."""
        return self.img_size

    def forward(self, x: Tensor, **kwargs: Any) -> Tensor:
        r"""
        Add noise, then compress.

        :param torch.Tensor x: video, shape ``(B, C, T, H, W)``, values in [0, 1].
        :return: (:class:`torch.Tensor`) measurement of the same shape.
        :raises ValueError: as in :meth:`A`.
        :raises TypeError: as in :meth:`A`.
        """
        self._check("x", x)
        return self.A(self.noise(x, **kwargs))

    def A(self, x: Tensor, **kwargs: Any) -> Tensor:
        r"""
        Compress and decompress every frame, without noise.

        :param torch.Tensor x: video, shape ``(B, C, T, H, W)`` with one channel or three;
            values outside of [0, 1] are clipped.
        :return: (:class:`torch.Tensor`) video of the same shape, dtype and device.
        :raises ValueError: if the shape is another, or ``x`` holds NaN or infinity.
        :raises TypeError: if ``x`` is not a floating-point tensor.
        """
        self._check("x", x)
        if not bool(torch.isfinite(x).all()):
            msg = "`x` must be finite; it holds NaN or infinity. Replace those values."
            raise ValueError(msg)
        return _StraightThrough.apply(x, self.quality)

    def A_vjp(self, x: Tensor, v: Tensor) -> Tensor:
        r"""
        Vector-Jacobian product by the straight-through rule.

        :param torch.Tensor x: video, not used.
        :param torch.Tensor v: measurement, shape ``(B, C, T, H, W)``.
        :return: (:class:`torch.Tensor`) ``v`` itself.
        """
        return v

    def A_dagger(self, y: Tensor, **kwargs: Any) -> Tensor:
        r"""
        The measurement itself: a decoded JPEG is a video that gives that measurement.

        :param torch.Tensor y: measurement, shape ``(B, C, T, H, W)``.
        :return: (:class:`torch.Tensor`) ``y``.
        :raises ValueError: if the shape is another.
        :raises TypeError: if ``y`` is not a floating-point tensor.
        """
        self._check("y", y)
        return y

    def prox_l2(self, z: Any, y: Tensor, gamma: Any, **kwargs: Any) -> NoReturn:
        r"""
        Not available: the data term is not convex.

        :param z: centre.
        :param torch.Tensor y: measurement.
        :param gamma: weight.
        :raises NotImplementedError: always.
        """
        msg = (
            "JPEG compression is not linear and has no proximal step; the default "
            "schedule of LVTINO cannot be used. Give it "
            '`schedule=Schedule.published("jpeg")`, or data steps of the kind '
            "`deepinv_lvtino.optim.LandweberStep` to `Schedule.explicit`."
        )
        raise NotImplementedError(msg)

    def _check(self, name: str, x: Tensor) -> None:
        check_video(name, x, size=self.img_size)
        _check_channels(name, x.shape[1])

    def extra_repr(self) -> str:
        return f"quality={self.quality}"


def _check_channels(name: str, channels: int) -> None:
    if channels not in (1, 3):
        msg = (
            f"`{name}` must have one channel (grey) or three (RGB) for JPEG; got "
            f"{channels}."
        )
        raise ValueError(msg)


class _StraightThrough(torch.autograd.Function):
    """JPEG whose derivative is that of the identity."""

    @staticmethod
    def forward(x: Tensor, quality: int) -> Tensor:
        return _compress(x, quality)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def _compress(x: Tensor, quality: int) -> Tensor:
    """Every frame of ``(B, C, T, H, W)`` through the codec."""
    pixels = x.detach().float().clamp(0, 1).mul(255).round_().to("cpu", torch.uint8)
    frames = pixels.movedim(1, -1).contiguous()  # (B, T, H, W, C)
    decoded = torch.empty_like(frames)
    for source, target in zip(
        frames.flatten(0, 1).numpy(), decoded.flatten(0, 1).numpy(), strict=True
    ):
        target[...] = _codec(source, quality)
    result = decoded.movedim(-1, 1).contiguous().to(x.device)
    return result.to(x.dtype).div_(255)


def _codec(image: np.ndarray, quality: int) -> np.ndarray:
    """One image ``(H, W, C)`` of 8-bit values, compressed and decompressed."""
    grey = image.shape[2] == 1
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if grey else image).save(
        buffer, format="JPEG", quality=quality, subsampling=0 if grey else 2
    )
    buffer.seek(0)
    with Image.open(buffer) as decoded:
        return np.asarray(decoded).reshape(image.shape)
