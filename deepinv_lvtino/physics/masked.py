r"""Missing pixels, alone or after an operator along time, solved exactly."""

from __future__ import annotations

from typing import Any

import torch
from deepinv.physics import LinearPhysics
from deepinv.physics.noise import NoiseModel, ZeroNoise
from torch import Tensor

from deepinv_lvtino.physics._pixelwise import (
    is_diagonal,
    pixels_at_a_time,
    solve_positive,
)
from deepinv_lvtino.physics.separable import SeparableVideoPhysics
from deepinv_lvtino.utils import (
    check_counts,
    check_img_size,
    check_number,
    check_seed,
    check_tensor,
    check_video,
    prox_arguments,
)

# Largest condition number of A_T at which the pseudo-inverse goes by normal equations.
_MAX_CONDITION = 1e5


class VideoInpainting(LinearPhysics):
    r"""
    Pixels seen through a mask, alone or after an operator along time.

    .. math::

        y = M A_T x

    with one matrix :math:`A_T` along time for all pixels and a diagonal :math:`M`, one
    weight per measured pixel (0: missing, 1: seen; any real weight is possible), the same
    for all channels. This is not separable, but pixels do not mix, and every quantity is
    exact without iteration. Writing :math:`m` for the weights of one pixel over time,

    .. math::

        \operatorname{prox}(z) = z + \gamma A_T^{\top} M
        \left( I + \gamma M A_T A_T^{\top} M \right)^{-1} (y - M A_T z)

    - is a product of numbers if :math:`A_T A_T^{\top}` is diagonal (no blur in time,
      pooling, decimation), whatever the mask;
    - follows from the singular value decomposition of :math:`A_T` if the mask does not
      vary in time;
    - is one factorisation :math:`L D L^{\top}` of a :math:`T' \times T'` matrix per pixel
      otherwise, in float64 (where the device has it), shared by the channels and the
      batch; many pixels at a time, but not all, so that memory stays bounded.

    Missing pixels carry no noise: they are exactly zero in the measurement.

    The product ``p * q`` with an operator ``q`` that acts on time alone is again one.

    :param tuple[int, int, int, int] img_size: video size ``(C, T, H, W)``, no batch axis.
    :param torch.Tensor mask: weights, of a shape that broadcasts to ``(1, 1, T', H, W)``,
        for example ``(H, W)`` for a mask that is constant in time.
    :param torch.Tensor temporal: matrix :math:`A_T` of shape ``(T', T)``, or ``None``
        (identity).
    :param deepinv.physics.NoiseModel noise_model: noise on the pixels seen; none by
        default.
    :param torch.device, str device: device of the buffers.
    :param torch.dtype dtype: dtype of the buffers, and of the videos to be given.
    :raises ValueError: if a size or a shape is not as above, or a weight is not finite.

    |sep|

    :Examples:

        Half of the pixels, after a mean of pairs of frames:

        >>> import torch
        >>> from deepinv_lvtino.physics import TemporalPooling, VideoInpainting
        >>> pooling = TemporalPooling((3, 6, 4, 4), factor=2)
        >>> mask = torch.arange(16).view(4, 4) % 2
        >>> physics = VideoInpainting(pooling.measurement_size, mask) * pooling
        >>> y = physics(torch.ones(1, 3, 6, 4, 4))
        >>> y.shape, float(y.mean())
        (torch.Size([1, 3, 3, 4, 4]), 0.5)
    """

    #: ``prox_l2`` is exact: solvers may rely on it instead of iterating on A.
    exact_prox = True

    mask: Tensor

    def __init__(
        self,
        img_size: tuple[int, int, int, int],
        mask: Tensor,
        temporal: Tensor | None = None,
        noise_model: NoiseModel | None = None,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(
            img_size=check_img_size(img_size),
            noise_model=ZeroNoise() if noise_model is None else noise_model,
            device=device,
        )
        #: The operator along time, without noise.
        self.temporal_physics = SeparableVideoPhysics(
            self.img_size, temporal=temporal, device=device, dtype=dtype
        )
        mask = _check_mask(mask, self.measurement_size)
        self.register_buffer("mask", mask.to(device, dtype))

    @property
    def temporal(self) -> Tensor | None:
        r"""Matrix along time, shape ``(T', T)``, or ``None``."""
        return self.temporal_physics.temporal

    @property
    def measurement_size(self) -> tuple[int, int, int, int]:
        r"""Size ``(C, T', H, W)`` of a measurement, no batch axis."""
        return self.temporal_physics.measurement_size

    @property
    def visible(self) -> Tensor:
        r"""Whether a pixel is seen: boolean, shape ``(1, 1, 1 or T', H, W)``."""
        largest = self.mask.abs().max()
        return self.mask.abs() > torch.finfo(self.mask.dtype).eps * largest

    # -- operator ----------------------------------------------------------------------

    def update_parameters(self, mask: Tensor | None = None, **kwargs: Any) -> None:
        r"""
        Refuse a new mask; other parameters are those of DeepInverse.

        :param torch.Tensor mask: must be ``None``.
        :raises ValueError: if ``mask`` is given.
        """
        if mask is not None:
            msg = "`mask` cannot be replaced; build another VideoInpainting with it."
            raise ValueError(msg)
        super().update_parameters(**kwargs)

    def A(self, x: Tensor, **kwargs: Any) -> Tensor:
        r"""
        Apply the operator.

        :param torch.Tensor x: video, shape ``(B, C, T, H, W)``.
        :return: (:class:`torch.Tensor`) noiseless measurement, ``(B, *measurement_size)``,
            zero where pixels are missing.
        :raises ValueError: if shape or device is not the operator's.
        :raises TypeError: if dtype is not the operator's.
        """
        self.update_parameters(**kwargs)
        return self.mask * self.temporal_physics.A(x)

    def A_adjoint(self, y: Tensor, **kwargs: Any) -> Tensor:
        r"""
        Apply the adjoint.

        :param torch.Tensor y: measurement, shape ``(B, *measurement_size)``.
        :return: (:class:`torch.Tensor`) video, shape ``(B, C, T, H, W)``.
        :raises ValueError: if shape or device is not the operator's.
        :raises TypeError: if dtype is not the operator's.
        """
        self.update_parameters(**kwargs)
        self._check("y", y, self.measurement_size)
        return self.temporal_physics.A_adjoint(self.mask * y)

    def noise(self, x: Tensor, **kwargs: Any) -> Tensor:
        r"""
        Add noise to the pixels seen.

        :param torch.Tensor x: noiseless measurement.
        :return: (:class:`torch.Tensor`) noisy measurement, zero where pixels are missing.
        """
        return torch.where(self.visible, super().noise(x, **kwargs), 0.0)

    def A_dagger(self, y: Tensor, **kwargs: Any) -> Tensor:
        r"""
        Apply the Moore-Penrose pseudo-inverse.

        Singular values below the rounding error of the largest count as zero.

        :param torch.Tensor y: measurement, shape ``(B, *measurement_size)``.
        :return: (:class:`torch.Tensor`) least-squares video of smallest norm.
        :raises ValueError: if shape or device is not the operator's.
        :raises TypeError: if dtype is not the operator's.
        """
        self.update_parameters(**kwargs)
        self._check("y", y, self.measurement_size)
        y = torch.where(self.visible, y, 0.0)
        gram = self._gram()
        if is_diagonal(gram):
            energy = self._energy(gram)
            keep = energy > self._rounding() ** 2 * energy.max()
            dual = torch.where(keep, y / torch.where(keep, energy, 1.0), 0.0)
            return self.A_adjoint(dual)
        if self.mask.shape[2] == 1:
            inner = self.temporal_physics
            s = inner.mask * self.mask
            keep = s.abs() > self._rounding() * s.abs().max()
            inverse = torch.where(keep, 1 / torch.where(keep, s, 1.0), 0.0)
            return inner.V(inverse * inner.U_adjoint(y))
        weights = self.mask.abs()[self.visible]
        if weights.numel() == 0:
            return self.A_adjoint(y)  # zero
        spread = float(weights.max() / weights.min())
        values = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
        if float(values[-1]) * spread < _MAX_CONDITION * float(values[0]):
            hidden = (~self.visible).to(self.mask)
            return self.A_adjoint(self._solve_pixelwise(gram, y, 1.0, hidden))
        return self._pseudo_inverse_pixelwise(y)

    def prox_l2(
        self, z: Tensor | float | None, y: Tensor, gamma: float | Tensor, **kwargs: Any
    ) -> Tensor:
        r"""
        Exact proximal step of the data term.

        .. math::

            \underset{u}{\arg\min} \; \frac{\gamma}{2} \|A u - y\|^2
            + \frac{1}{2} \|u - z\|^2

        :param torch.Tensor z: centre, shape ``(B, C, T, H, W)``; ``None`` or a number
            stands for a constant video (``None`` is 0).
        :param torch.Tensor y: measurement, shape ``(B, *measurement_size)``.
        :param float, torch.Tensor gamma: weight :math:`\gamma > 0`; a tensor holds one
            value per batch element.
        :return: (:class:`torch.Tensor`) video, shape ``(B, C, T, H, W)``.
        :raises ValueError: if ``gamma`` is not positive, or shape or device is not the
            operator's.
        :raises TypeError: if dtype is not the operator's.
        """
        self._check("y", y, self.measurement_size)
        z, gamma = prox_arguments(z, y, gamma, self.img_size)
        gram = self._gram()
        if not is_diagonal(gram) and self.mask.shape[2] == 1:
            inner = self.temporal_physics
            s = inner.mask * self.mask
            correction = inner.U_adjoint(y) - s * inner.V_adjoint(z)
            return inner.V(correction * (gamma * s / (1 + gamma * s**2))).add_(z)
        residual = y - self.A(z)
        if is_diagonal(gram):
            dual = gamma * residual / (1 + gamma * self._energy(gram))
        else:
            one = torch.ones_like(self.mask)
            dual = gamma * self._solve_pixelwise(gram, residual, gamma, one)
        return self.A_adjoint(dual).add_(z)

    def compute_sqnorm(
        self, x0: Tensor | None = None, *args: Any, **kwargs: Any
    ) -> Tensor:
        r"""
        Squared spectral norm, exact.

        :param torch.Tensor x0: not used (DeepInverse's power method starts from it).
        :return: (:class:`torch.Tensor`) :math:`\|A\|^2`, a scalar tensor.
        """
        gram = self._gram()
        if is_diagonal(gram):
            return self._energy(gram).max()
        if self.mask.shape[2] == 1:
            return (self.temporal_physics.mask.max() * self.mask.abs().max()) ** 2
        # equal pixels count once, and signs do not matter
        patterns = self.mask.abs().flatten(3)[0, 0].T.unique(dim=0).to(gram)
        largest = torch.stack(
            [
                torch.linalg.eigvalsh(m[:, :, None] * gram * m[:, None, :])[:, -1].max()
                for m in patterns.split(pixels_at_a_time(gram))
            ]
        )
        return largest.max().to(self.mask.dtype)

    def compute_norm(
        self, x0: Tensor | None = None, *args: Any, **kwargs: Any
    ) -> Tensor:
        r"""
        Spectral norm, exact; arguments as in :class:`deepinv.physics.LinearPhysics`.

        :param torch.Tensor x0: not used (DeepInverse's power method starts from it).
        :return: (:class:`torch.Tensor`) :math:`\|A\|` with ``squared=False``,
            :math:`\|A\|^2` with DeepInverse's present default ``squared=True``.
        """
        return super().compute_norm(x0, *args, **kwargs)

    # -- linear algebra of single pixels -----------------------------------------------

    def _gram(self) -> Tensor:
        """Gram matrix ``A_T A_T^T``, in float64 where the device has it."""
        exact = torch.float32 if self.mask.device.type == "mps" else torch.float64
        if self.temporal is None:
            frames = self.img_size[1]
            return torch.eye(frames, dtype=exact, device=self.mask.device)
        matrix = self.temporal.to(exact)
        return matrix @ matrix.mT

    def _energy(self, gram: Tensor) -> Tensor:
        """Diagonal of ``A A^T`` as a measurement of one channel, for a diagonal Gram."""
        return self.mask**2 * gram.diagonal().view(-1, 1, 1).to(self.mask)

    def _rounding(self) -> float:
        return max(self.img_size[1:]) * torch.finfo(self.mask.dtype).eps

    def _solve_pixelwise(
        self, gram: Tensor, y: Tensor, gamma: float | Tensor, diagonal: Tensor
    ) -> Tensor:
        r"""
        Solve :math:`(\mathrm{diag}(d) + \gamma M A_T A_T^{\top} M) w = y` for each pixel.

        :param torch.Tensor gram: :math:`A_T A_T^{\top}`, shape ``(T', T')``.
        :param torch.Tensor y: right-hand side, shape ``(B, *measurement_size)``.
        :param float, torch.Tensor gamma: weight, or one per video.
        :param torch.Tensor diagonal: :math:`d`, shape of the mask.
        :return: (:class:`torch.Tensor`) solution, shape of ``y``.
        """
        if isinstance(gamma, Tensor) and gamma.numel() == 1:
            gamma = float(gamma)
        if isinstance(gamma, Tensor):
            parts = [
                self._solve_pixelwise(gram, y[i : i + 1], float(value), diagonal)
                for i, value in enumerate(gamma.flatten().tolist())
            ]
            return torch.cat(parts)
        rows = y.flatten(3).flatten(0, 1)  # (B C, T', H W)
        weights, added = (m.flatten(3)[0, 0] for m in (self.mask, diagonal))
        solution = torch.empty_like(rows)
        count = pixels_at_a_time(gram)
        for start in range(0, rows.shape[-1], count):
            chosen = slice(start, start + count)
            m = weights[:, chosen].to(gram)
            system = gamma * (m[:, None] * gram[:, :, None] * m[None])
            system.diagonal(dim1=0, dim2=1).add_(added[:, chosen].T.to(gram))
            right = rows[..., chosen].transpose(0, 1).to(gram)
            solution[..., chosen] = solve_positive(system, right).transpose(0, 1)
        return solution.reshape(y.shape)

    def _pseudo_inverse_pixelwise(self, y: Tensor) -> Tensor:
        """Pseudo-inverse by one singular value decomposition per pixel."""
        gram = self._gram()
        matrix = self.temporal.to(gram)  # type: ignore[union-attr]
        rows = y.flatten(3).flatten(0, 1)
        weights = self.mask.flatten(3)[0, 0].T
        cutoff = self._rounding() * self.compute_sqnorm().sqrt().to(gram)
        result = rows.new_empty(len(rows), self.img_size[1], rows.shape[-1])
        count = pixels_at_a_time(matrix)
        for start in range(0, rows.shape[-1], count):
            chosen = slice(start, start + count)
            inverse = torch.linalg.pinv(
                weights[chosen].to(gram)[:, :, None] * matrix, atol=cutoff, rtol=0.0
            )
            right = rows[..., chosen].permute(2, 1, 0).to(gram)
            result[..., chosen] = (inverse @ right).permute(2, 1, 0).to(rows)
        return result.reshape(len(y), *self.img_size)

    # -- algebra -----------------------------------------------------------------------

    def __mul__(self, other: LinearPhysics, **kwargs: Any) -> LinearPhysics:
        r"""
        Composition :math:`A_1 \circ A_2`, exact when :math:`A_2` acts on time alone.

        Noise is that of :math:`A_1`, as in DeepInverse. With any other operator this is
        DeepInverse's own composition, whose proximal step is iterative.

        :param deepinv.physics.LinearPhysics other: operator :math:`A_2`.
        :return: (:class:`deepinv.physics.LinearPhysics`) the composition.
        :raises ValueError: if the sizes do not follow on from each other.
        """
        if (
            not isinstance(other, SeparableVideoPhysics)
            or other.vertical is not None
            or other.horizontal is not None
        ):
            return super().__mul__(other, **kwargs)
        product = self.temporal_physics * other  # checks the sizes
        return VideoInpainting(
            other.img_size,
            self.mask,
            product.temporal,
            self.noise_model,
            device=self.mask.device,
            dtype=self.mask.dtype,
        )

    def _check(self, name: str, x: Tensor, size: tuple[int, ...]) -> None:
        check_video(name, x, size=size, like=self.mask)

    def extra_repr(self) -> str:
        return f"{self.img_size} -> {self.measurement_size}"


def random_mask(height: int, width: int, keep: float = 0.5, seed: int = 0) -> Tensor:
    r"""
    Mask of pixels kept at random, independently of each other.

    The same on every call and device.

    :param int height: number of rows.
    :param int width: number of columns.
    :param float keep: probability of a pixel to be kept, in (0, 1].
    :param int seed: seed of the choice.
    :return: (:class:`torch.Tensor`) zeros and ones, shape ``(1, 1, 1, H, W)``.
    :raises ValueError: if ``keep`` is out of range.

    |sep|

    :Examples:

        >>> from deepinv_lvtino.physics import random_mask
        >>> random_mask(64, 96).mean().round(decimals=1)
        tensor(0.5000)
    """
    height, width = check_counts(height=height, width=width)
    seed = check_seed("seed", seed)
    if not 0 < check_number("keep", keep) <= 1:
        msg = f"`keep` must lie in (0, 1]; got {keep}."
        raise ValueError(msg)
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(1, 1, 1, height, width, generator=generator) < keep).float()


def _check_mask(mask: Tensor, size: tuple[int, int, int, int]) -> Tensor:
    """The mask with five axes, two of them of length one."""
    check_tensor("mask", mask)
    mask = torch.as_tensor(mask).detach()
    _, frames, height, width = size
    full = (1, 1, frames, height, width)
    shape = (1,) * (5 - mask.ndim) + tuple(mask.shape)
    if len(shape) != 5 or any(
        have not in (1, want) for have, want in zip(shape, full, strict=True)
    ):
        msg = (
            f"`mask` must have a shape that broadcasts to {full}, one weight per pixel "
            f"for all channels; got {tuple(mask.shape)}."
        )
        raise ValueError(msg)
    if not bool(torch.isfinite(mask).all()):
        msg = "`mask` must be finite; it holds NaN or infinity."
        raise ValueError(msg)
    return mask.reshape(shape).expand(1, 1, -1, height, width).contiguous()
