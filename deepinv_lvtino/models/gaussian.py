r"""Gaussian priors, whose consistency function is known exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from deepinv_lvtino.models.consistency import ConsistencyModel
from deepinv_lvtino.models.noise_schedules import (
    NoiseSchedule,
    RectifiedFlow,
    VariancePreserving,
)
from deepinv_lvtino.physics.functional import apply_along_axis
from deepinv_lvtino.utils import check_number, check_positive, check_tensor


def gaussian_gain(variance: Tensor, alpha: float, sigma: float) -> Tensor:
    r"""
    Factor that a Gaussian's consistency function applies along a principal axis.

    The probability flow of :math:`\mathcal{N}(m, \lambda)` maps
    :math:`z_t - a m` to :math:`\sqrt{\lambda / (a^2 \lambda + s^2)} \, (z_t - a m)`, so
    that the law of :math:`z_t` becomes that of :math:`z_0`.

    :param torch.Tensor variance: variances :math:`\lambda \ge 0`, any shape.
    :param float alpha: signal level :math:`a`.
    :param float sigma: noise level :math:`s`.
    :return: (:class:`torch.Tensor`) factors, same shape.
    """
    return (variance / (alpha**2 * variance + sigma**2)).sqrt()


class GaussianConsistencyModel(ConsistencyModel):
    r"""
    Gaussian prior :math:`\mathcal{N}(m, S)` with a dense covariance, for exact tests.

    .. math::

        f(z_t, t) = m + S^{1/2} (a^2 S + s^2 I)^{-1/2} (z_t - a m)

    which leaves the prior invariant under :meth:`~ConsistencyModel.sae`. Pixel values are
    used as they are (the latent is the video).

    :param torch.Tensor mean: mean of a clip flattened from ``(C, T, H, W)``, or of a frame
        flattened from ``(C, H, W)`` if ``per_frame``; any shape with that many elements.
    :param torch.Tensor covariance: covariance, shape ``(d, d)``, symmetric positive
        semi-definite.
    :param bool per_frame: prior of one frame, the same for each, frames independent.
    :param NoiseSchedule schedule: noise convention; variance preserving by default.
    :raises ValueError: if shapes disagree, or the covariance is not symmetric positive
        semi-definite.

    |sep|

    :Examples:

        >>> import torch
        >>> from deepinv_lvtino.models import GaussianConsistencyModel
        >>> model = GaussianConsistencyModel(torch.zeros(6), torch.eye(6))
        >>> model.sae(torch.zeros(4, 1, 2, 1, 3), t=500.0).shape
        torch.Size([4, 1, 2, 1, 3])
    """

    mean: Tensor
    variances: Tensor
    axes: Tensor

    def __init__(
        self,
        mean: Tensor,
        covariance: Tensor,
        per_frame: bool = False,
        schedule: NoiseSchedule | None = None,
    ) -> None:
        super().__init__(
            VariancePreserving() if schedule is None else schedule, per_frame=per_frame
        )
        check_tensor("mean", mean)
        check_tensor("covariance", covariance)
        dimension = mean.numel()
        if covariance.shape != (dimension, dimension):
            msg = (
                f"`covariance` must have shape {(dimension, dimension)}, `mean` having "
                f"{dimension} elements; got {tuple(covariance.shape)}."
            )
            raise ValueError(msg)
        exact = covariance.double()
        if not (bool(torch.isfinite(exact).all()) and bool(torch.isfinite(mean).all())):
            msg = "`mean` and `covariance` must be finite; they hold NaN or infinity."
            raise ValueError(msg)
        scale = float(exact.abs().max())
        values, vectors = torch.linalg.eigh((exact + exact.mT) / 2)
        if (
            float((exact - exact.mT).abs().max()) > 1e-6 * scale
            or float(values.min()) < -1e-6 * scale
        ):
            msg = (
                "`covariance` must be symmetric positive semi-definite; its smallest "
                f"eigenvalue is {float(values.min()):.3g}."
            )
            raise ValueError(msg)
        self.register_buffer("mean", mean.detach().reshape(1, -1).clone())
        self.register_buffer("variances", values.clamp(min=0).to(mean.dtype))
        self.register_buffer("axes", vectors.to(mean.dtype))

    def denoise(self, latent: Tensor, t: float) -> Tensor:
        r"""
        Exact consistency function.

        :param torch.Tensor latent: noisy clip, shape ``(B, C, T, H, W)``.
        :param float t: time, in the unit of ``schedule``.
        :return: (:class:`torch.Tensor`) clip of the same shape.
        :raises ValueError: if a clip (a frame) does not have the mean's number of elements.
        """
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        ordered = latent.movedim(2, 1) if self.per_frame else latent
        flat = ordered.reshape(-1, ordered[0, 0 if self.per_frame else ...].numel())
        if flat.shape[1] != self.mean.shape[1]:
            unit = "frame" if self.per_frame else "clip"
            msg = (
                f"`latent` has {flat.shape[1]} elements per {unit}, but `mean` has "
                f"{self.mean.shape[1]}; got shape {tuple(latent.shape)}."
            )
            raise ValueError(msg)
        gain = gaussian_gain(self.variances, alpha, sigma)
        clean = (
            self.mean + ((flat - alpha * self.mean) @ self.axes * gain) @ self.axes.mT
        )
        clean = clean.reshape(ordered.shape)
        return clean.movedim(1, 2) if self.per_frame else clean


@dataclass(frozen=True)
class PowerSpectrum:
    r"""
    Power spectrum of natural video.

    .. math::

        P(k, \omega) = \frac{p}{(k^2 + k_0^2)^{\beta/2}} \;
        \frac{1}{\pi} \frac{v \bar k}{\omega^2 + (v \bar k)^2} + n, \qquad
        \bar k^2 = k^2 + k_0^2

    with spatial frequency :math:`k` in cycles per pixel and temporal frequency
    :math:`\omega` in cycles per frame: the :math:`1/k^2` law of natural images, spread in
    time by a distribution of speeds :footcite:p:`dong1995statistics`. An image has the
    same spectrum without the second factor. ``power`` and ``floor`` are variances in [0, 1]
    intensity units; colour follows one luminance and two chrominance channels with a
    fraction ``chroma`` of the power.

    :param float power: :math:`p`, power at one cycle per pixel.
    :param float slope: :math:`\beta`, 2 for scale invariance.
    :param float corner: :math:`k_0`, in cycles per pixel.
    :param float speed: typical speed :math:`v`, in pixels per frame.
    :param float floor: white part :math:`n`.
    :param float chroma: power of a chrominance channel relative to luminance.
    :raises ValueError: if a parameter is not positive (``floor`` may be 0).

    |sep|

    .. footbibliography::
    """

    power: float = 1.1e-3
    slope: float = 2.3
    corner: float = 2e-3
    speed: float = 0.4
    floor: float = 0.0
    chroma: float = 0.02

    def __post_init__(self) -> None:
        for name in ("power", "slope", "corner", "speed", "chroma"):
            check_positive(name, getattr(self, name))
        check_number("floor", self.floor, least=0)

    def variances(
        self, frames: int | None, height: int, width: int, device: torch.device
    ) -> Tensor:
        r"""
        Variance of every cosine coefficient of a luminance clip.

        :param int frames: number of frames, or ``None`` for the spectrum of an image.
        :param int height: number of rows.
        :param int width: number of columns.
        :param torch.device device: device of the result.
        :return: (:class:`torch.Tensor`) shape ``(T, H, W)`` (``T`` is 1 for an image),
            float32.
        """
        k_y, k_x = (
            torch.arange(n, device=device, dtype=torch.float32) / (2 * n)
            for n in (height, width)
        )
        k_squared = k_y[:, None] ** 2 + k_x[None, :] ** 2 + self.corner**2
        spatial = self.power * k_squared ** (-self.slope / 2)
        if frames is None:
            return (spatial + self.floor)[None]
        omega = torch.arange(frames, device=device, dtype=torch.float32) / (2 * frames)
        width_k = self.speed * k_squared.sqrt()
        spread = width_k / (omega[:, None, None] ** 2 + width_k**2) / math.pi
        return spatial * spread + self.floor


#: Rows: luminance and two chrominances, an orthonormal basis of colour.
_OPPONENT = (
    (3**-0.5, 3**-0.5, 3**-0.5),
    (2**-0.5, 0.0, -(2**-0.5)),
    (6**-0.5, -2 * 6**-0.5, 6**-0.5),
)


class SpectralGaussianModel(ConsistencyModel):
    r"""
    Stationary Gaussian prior with a natural-video power spectrum, for any size.

    The covariance is diagonal in the cosine transform over time, height and width (and
    in an orthonormal luminance-chrominance basis for three channels), so that the
    consistency function is exact:

    .. math::

        f(z_t, t) = m + \mathcal{C}^{\top} \left[ \sqrt{\frac{\lambda}{a^2 \lambda + s^2}}
        \; \mathcal{C} (z_t - a m) \right]

    with orthonormal cosine transform :math:`\mathcal{C}` (applied as matrix products,
    which are faster than the available cosine transforms at video sizes) and variances
    :math:`\lambda` from a :class:`PowerSpectrum`. It has no weights, works on any size, and
    is the default model until a learned one is given. Pixel values are used as they are.

    :param bool per_frame: image prior (frames independent) instead of a video prior.
    :param PowerSpectrum spectrum: power spectrum; that of natural video by default.
    :param float mean: mean intensity.
    :param NoiseSchedule schedule: noise convention; by default rectified flow for video
        and variance preserving for images.

    |sep|

    :Examples:

        >>> import torch
        >>> from deepinv_lvtino.models import SpectralGaussianModel
        >>> model = SpectralGaussianModel()
        >>> model.sae(torch.rand(1, 3, 5, 17, 22), t=300.0).shape
        torch.Size([1, 3, 5, 17, 22])
    """

    one_by_one = True

    def __init__(
        self,
        per_frame: bool = False,
        spectrum: PowerSpectrum | None = None,
        mean: float = 0.5,
        schedule: NoiseSchedule | None = None,
    ) -> None:
        if schedule is None:
            schedule = VariancePreserving() if per_frame else RectifiedFlow()
        super().__init__(schedule, per_frame=per_frame)
        self.spectrum = PowerSpectrum() if spectrum is None else spectrum
        self.mean = mean
        # Transforms and variances of the last size: the same in every sweep.
        self._size: tuple[object, ...] | None = None
        self._transforms: dict[int, Tensor] = {}
        self._variances = torch.empty(0)
        self._weights: tuple[float, ...] = ()
        self._colour = torch.empty(0)

    def denoise(self, latent: Tensor, t: float) -> Tensor:
        r"""
        Exact consistency function.

        :param torch.Tensor latent: noisy clip, shape ``(B, C, T, H, W)``.
        :param float t: time, in the unit of ``schedule``.
        :return: (:class:`torch.Tensor`) clip of the same shape.
        """
        self._prepare(latent)
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        coefficients = self._transform(latent - alpha * self.mean)
        for channel, weight in enumerate(self._weights):
            gain = gaussian_gain(weight * self._variances, alpha, sigma)
            coefficients[:, channel] *= gain.to(latent.dtype)
        return self._transform(coefficients, inverse=True).add_(self.mean)

    def log_density(self, x: Tensor) -> Tensor:
        r"""
        Log-density of clips under the prior, up to a constant that the size fixes.

        :param torch.Tensor x: clips, shape ``(B, C, T, H, W)``.
        :return: (:class:`torch.Tensor`) one value per clip, shape ``(B,)``.
        """
        self._prepare(x)
        variances = self.coefficient_variances(x)
        whitened = self._transform(x - self.mean).square() / variances
        log_volume = variances.log().expand(x.shape).sum(dim=(1, 2, 3, 4))
        return -0.5 * (whitened.sum(dim=(1, 2, 3, 4)) + log_volume)

    def coefficient_variances(self, x: Tensor) -> Tensor:
        r"""
        Variances :math:`\lambda` of the cosine coefficients of clips of a given size.

        :param torch.Tensor x: a clip of that size, shape ``(B, C, T, H, W)``.
        :return: (:class:`torch.Tensor`) shape ``(C, T, H, W)`` (``T`` is 1 per frame).
        """
        self._prepare(x)
        weights = self._variances.new_tensor(self._weights).view(-1, 1, 1, 1)
        return weights * self._variances

    def _prepare(self, x: Tensor) -> None:
        size = (x.shape[1:], x.device, x.dtype)
        if size == self._size:
            return
        channels, frames, height, width = x.shape[1:]
        axes = (
            {3: height, 4: width}
            if self.per_frame
            else {2: frames, 3: height, 4: width}
        )
        self._transforms = {axis: _cosine_basis(n, x) for axis, n in axes.items()}
        variances = self.spectrum.variances(
            None if self.per_frame else frames, height, width, x.device
        )
        # Their range exceeds that of half precision.
        self._variances = variances.double() if x.dtype == torch.float64 else variances
        chroma = [self.spectrum.chroma] * 2 if channels == 3 else [1.0] * (channels - 1)
        self._weights = (1.0, *chroma)
        self._colour = x.new_tensor(_OPPONENT)
        self._size = size

    def _transform(self, x: Tensor, inverse: bool = False) -> Tensor:
        for axis, basis in self._transforms.items():
            x = apply_along_axis(x, basis.mT if inverse else basis, axis)
        if x.shape[1] == 3:
            colour = self._colour.mT if inverse else self._colour
            x = torch.einsum("dc,bcthw->bdthw", colour, x)
        return x


def _cosine_basis(size: int, like: Tensor) -> Tensor:
    """Orthonormal cosine transform (type II) of one axis, as a matrix."""
    index = torch.arange(size, dtype=torch.float64)
    basis = torch.cos(math.pi / size * index[:, None] * (index[None, :] + 0.5))
    basis *= math.sqrt(2 / size)
    basis[0] *= math.sqrt(0.5)
    return basis.to(like)


def spectral_video() -> SpectralGaussianModel:
    r"""
    Spectral video prior, the embedded default.

    :return: (:class:`SpectralGaussianModel`) the model, with rectified-flow time.
    """
    return SpectralGaussianModel()


def spectral_image() -> SpectralGaussianModel:
    r"""
    Spectral image prior, the embedded default.

    :return: (:class:`SpectralGaussianModel`) the model, with variance-preserving time.
    """
    return SpectralGaussianModel(per_frame=True)
