r"""Video operators that act on time, height and width separately, solved exactly."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from deepinv.physics import DecomposablePhysics, LinearPhysics
from deepinv.physics.noise import NoiseModel, ZeroNoise
from torch import Tensor

from deepinv_lvtino.physics.functional import apply_along_axis
from deepinv_lvtino.utils import (
    check_img_size,
    check_number,
    check_tensor,
    check_video,
    each,
    prox_arguments,
)

_AXES = {"temporal": 2, "vertical": 3, "horizontal": 4}


class SeparableVideoPhysics(DecomposablePhysics):
    r"""
    Linear video operator given by one small matrix per axis.

    .. math::

        A = A_T \otimes A_H \otimes A_W, \qquad A_d = U_d \, \mathrm{diag}(s_d) V_d^{\top}

    The same operator acts on every channel. Its singular value decomposition is the
    product of three small ones, so that every quantity below is in closed form, in a
    few batched matrix products, on whatever device the tensors are:

    .. math::

        \operatorname{prox}(z) &= z + V \left[ \frac{\gamma s \, (U^{\top} y
        - s V^{\top} z)}{1 + \gamma s^2} \right], \\
        A^{\dagger} y &= V \left[ U^{\top} y / s \right]_{s > 0}.

    The decomposition is *thin* by default: :math:`V` has only as many columns as an axis
    has samples, and what it does not span passes through the proximal step unchanged.
    Algorithms that need a square :math:`V`, such as :class:`deepinv.sampling.DDRM`, get
    one from ``full_svd=True``.

    The product ``p * q`` of two such operators is again one. The matrices
    are buffers (``temporal``, ``vertical``, ``horizontal``); they follow ``.to()`` and
    are saved in the state dict, and the decomposition is computed from them in float64.

    :param tuple[int, int, int, int] img_size: video size ``(C, T, H, W)``, no batch axis.
    :param torch.Tensor temporal: matrix of shape ``(T', T)``, or ``None`` (identity).
    :param torch.Tensor vertical: matrix of shape ``(H', H)``, or ``None`` (identity).
    :param torch.Tensor horizontal: matrix of shape ``(W', W)``, or ``None`` (identity).
    :param deepinv.physics.NoiseModel noise_model: measurement noise; none by default.
    :param bool full_svd: complete :math:`V` to a square matrix (zero singular values
        included in ``mask``), at the price of larger products.
    :param torch.device, str device: device of the buffers.
    :param torch.dtype dtype: dtype of the buffers, and of the videos to be given.
    :param sensor_model: callable applied to the noisy measurement; none by default.
    :raises ValueError: if a size or the shape of a matrix is not as above, or a matrix
        is not finite.

    |sep|

    :Examples:

        Average pairs of frames, and keep every third row:

        >>> import torch
        >>> from deepinv_lvtino.physics import SeparableVideoPhysics
        >>> pairs = torch.kron(torch.eye(2), torch.tensor([[0.5, 0.5]]))
        >>> rows = torch.eye(6)[::3]
        >>> physics = SeparableVideoPhysics((1, 4, 6, 5), temporal=pairs, vertical=rows)
        >>> x = torch.rand(2, 1, 4, 6, 5)
        >>> y = physics(x)
        >>> y.shape
        torch.Size([2, 1, 2, 2, 5])
        >>> torch.allclose(physics.A(physics.A_dagger(y)), y, atol=1e-5)
        True
    """

    #: ``prox_l2`` is exact: solvers may rely on it instead of iterating on A.
    exact_prox = True

    temporal: Tensor | None
    vertical: Tensor | None
    horizontal: Tensor | None
    mask: Tensor

    def __init__(
        self,
        img_size: tuple[int, int, int, int],
        temporal: Tensor | None = None,
        vertical: Tensor | None = None,
        horizontal: Tensor | None = None,
        noise_model: NoiseModel | None = None,
        *,
        full_svd: bool = False,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        sensor_model: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        options = {} if sensor_model is None else {"sensor_model": sensor_model}
        super().__init__(
            img_size=check_img_size(img_size),
            noise_model=ZeroNoise() if noise_model is None else noise_model,
            device=device,
            **options,
        )
        self.full_svd = full_svd
        matrices = {
            "temporal": temporal,
            "vertical": vertical,
            "horizontal": horizontal,
        }
        for (name, matrix), size in zip(
            matrices.items(), self.img_size[1:], strict=True
        ):
            self.register_buffer(name, _check_matrix(name, matrix, size, device, dtype))
            self.register_buffer(f"_u_{name}", None, persistent=False)
            self.register_buffer(f"_v_{name}", None, persistent=False)
            self.register_buffer(f"_s_{name}", None, persistent=False)
        self._factorise(torch.device(device), dtype)
        self.register_load_state_dict_post_hook(
            lambda module, _: module._factorise(module.mask.device, module.mask.dtype)
        )

    # -- decomposition -----------------------------------------------------------------

    def _factorise(self, device: torch.device, dtype: torch.dtype) -> None:
        """Compute the three thin decompositions in float64 and store them as buffers."""
        spectrum = torch.ones(1, 1, 1, 1, 1, dtype=torch.float64)
        for name, axis in _AXES.items():
            matrix = getattr(self, name)
            if matrix is None:
                continue
            u, s, v = _svd(matrix.to("cpu", torch.float64), self.full_svd)
            setattr(self, f"_u_{name}", u.to(device, dtype))
            setattr(self, f"_v_{name}", v.to(device, dtype))
            setattr(self, f"_s_{name}", s.to(device, dtype))
            shape = [1] * 5
            shape[axis] = len(s)
            spectrum = spectrum * s.view(shape)
        if self.full_svd:
            spectrum = spectrum.expand(1, *self.img_size)
        mask = spectrum.contiguous().to(device, dtype)
        self.register_buffer("mask", mask, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        before = self._buffers.get("mask")  # missing while DeepInverse constructs
        super()._apply(fn, recurse)
        if before is not None and self.mask.dtype != before.dtype:
            self._factorise(self.mask.device, self.mask.dtype)
        return self

    def spatial_svd(self) -> tuple[tuple[Tensor, Tensor | None], ...]:
        r"""
        Singular values and right singular vectors along height and width.

        :return: (tuple) ``(s, V)`` for each of both axes, shapes ``(r,)`` and ``(n, r)``;
            a one and ``None`` where the operator is the identity.
        """
        return tuple(
            (self.mask.new_ones(1), None)
            if getattr(self, name) is None
            else (getattr(self, f"_s_{name}"), getattr(self, f"_v_{name}"))
            for name in ("vertical", "horizontal")
        )

    def of_one_channel(self) -> SeparableVideoPhysics:
        r"""
        The same operator for videos of one channel; it shares the matrices.

        :return: (:class:`SeparableVideoPhysics`) operator on ``(1, T, H, W)``.
        """
        other = copy.copy(self)
        other.img_size = (1, *self.img_size[1:])
        return other

    @property
    def measurement_size(self) -> tuple[int, int, int, int]:
        r"""Size ``(C, T', H', W')`` of a measurement, no batch axis."""
        sizes = [
            size if getattr(self, name) is None else getattr(self, name).shape[0]
            for name, size in zip(_AXES, self.img_size[1:], strict=True)
        ]
        return (self.img_size[0], *sizes)

    def U(self, x: Tensor) -> Tensor:
        r"""
        Apply :math:`U`, from the spectral domain to measurements.

        :param torch.Tensor x: coefficients, shape ``(B, C, r_T, r_H, r_W)``.
        :return: (:class:`torch.Tensor`) measurement, shape ``(B, *measurement_size)``.
        """
        return self._apply_axes(x, "_u_{}", transpose=False)

    def U_adjoint(self, x: Tensor, **kwargs: Any) -> Tensor:
        r"""
        Apply :math:`U^{\top}`, from measurements to the spectral domain.

        :param torch.Tensor x: measurement, shape ``(B, *measurement_size)``.
        :return: (:class:`torch.Tensor`) coefficients.
        """
        return self._apply_axes(x, "_u_{}", transpose=True)

    def V(self, x: Tensor, **kwargs: Any) -> Tensor:
        r"""
        Apply :math:`V`, from the spectral domain to videos.

        :param torch.Tensor x: coefficients, shape ``(B, C, r_T, r_H, r_W)``.
        :return: (:class:`torch.Tensor`) video, shape ``(B, C, T, H, W)``.
        """
        return self._apply_axes(x, "_v_{}", transpose=False)

    def V_adjoint(self, x: Tensor) -> Tensor:
        r"""
        Apply :math:`V^{\top}`, from videos to the spectral domain.

        :param torch.Tensor x: video, shape ``(B, C, T, H, W)``.
        :return: (:class:`torch.Tensor`) coefficients.
        """
        return self._apply_axes(x, "_v_{}", transpose=True)

    def _apply_axes(self, x: Tensor, pattern: str, transpose: bool) -> Tensor:
        """Apply one matrix per axis, the one that shrinks most (or grows least) first."""
        steps = []
        for name, axis in _AXES.items():
            matrix = getattr(self, pattern.format(name))
            if matrix is not None:
                matrix = matrix.mT if transpose else matrix
                steps.append((matrix.shape[0] / matrix.shape[1], -axis, matrix))
        steps.sort(key=lambda step: step[:2])
        with torch.autocast(
            x.device.type, enabled=False
        ):  # data steps keep their dtype
            return each(lambda part: _apply_in_order(part, steps), x)

    # -- operator ----------------------------------------------------------------------

    def update_parameters(self, **kwargs: Any) -> None:
        r"""
        Refuse new matrices or singular values; other parameters are DeepInverse's.

        :param dict kwargs: parameters; ``temporal``, ``vertical``, ``horizontal`` and
            ``mask`` must be missing or ``None``.
        :raises ValueError: if one of them is given.
        """
        for name in (*_AXES, "mask"):
            if kwargs.pop(name, None) is not None:
                msg = (
                    f"`{name}` is fixed: matrices and singular values belong together. "
                    "Build another SeparableVideoPhysics."
                )
                raise ValueError(msg)
        super().update_parameters(**kwargs)

    def A(self, x: Tensor, mask: Tensor | None = None, **kwargs: Any) -> Tensor:
        r"""
        Apply the operator.

        :param torch.Tensor x: video, shape ``(B, C, T, H, W)``.
        :return: (:class:`torch.Tensor`) noiseless measurement, ``(B, *measurement_size)``.
        :raises ValueError: if shape or device is not the operator's.
        :raises TypeError: if dtype is not the operator's.
        """
        self.update_parameters(mask=mask, **kwargs)
        self._check("x", x, self.img_size)
        return self._apply_axes(x, "{}", transpose=False)

    def A_adjoint(self, y: Tensor, mask: Tensor | None = None, **kwargs: Any) -> Tensor:
        r"""
        Apply the adjoint.

        :param torch.Tensor y: measurement, shape ``(B, *measurement_size)``.
        :return: (:class:`torch.Tensor`) video, shape ``(B, C, T, H, W)``.
        :raises ValueError: if shape or device is not the operator's.
        :raises TypeError: if dtype is not the operator's.
        """
        self.update_parameters(mask=mask, **kwargs)
        self._check("y", y, self.measurement_size)
        return self._apply_axes(y, "{}", transpose=True)

    def A_adjoint_A(
        self, x: Tensor, mask: Tensor | None = None, **kwargs: Any
    ) -> Tensor:
        r"""
        Apply :math:`A^{\top} A = V \mathrm{diag}(s^2) V^{\top}`.

        :param torch.Tensor x: video, shape ``(B, C, T, H, W)``.
        :return: (:class:`torch.Tensor`) video of the same shape.
        :raises ValueError: if shape or device is not the operator's.
        :raises TypeError: if dtype is not the operator's.
        """
        self._check("x", x, self.img_size)
        return super().A_adjoint_A(x, mask=mask, **kwargs)

    def A_A_adjoint(
        self, y: Tensor, mask: Tensor | None = None, **kwargs: Any
    ) -> Tensor:
        r"""
        Apply :math:`A A^{\top} = U \mathrm{diag}(s^2) U^{\top}`.

        :param torch.Tensor y: measurement, shape ``(B, *measurement_size)``.
        :return: (:class:`torch.Tensor`) measurement of the same shape.
        :raises ValueError: if shape or device is not the operator's.
        :raises TypeError: if dtype is not the operator's.
        """
        self._check("y", y, self.measurement_size)
        return super().A_A_adjoint(y, mask=mask, **kwargs)

    def A_dagger(
        self,
        y: Tensor,
        mask: Tensor | None = None,
        *,
        smallest: float = 0.0,
        **kwargs: Any,
    ) -> Tensor:
        r"""
        Apply the Moore-Penrose pseudo-inverse.

        Singular values below the rounding error of the spectrum (largest axis times the
        precision of the dtype, relative to the norm, as in
        :func:`torch.linalg.pinv`) count as zero.

        :param torch.Tensor y: measurement, shape ``(B, *measurement_size)``.
        :param float smallest: singular values below this one count as zero too; with the
            noise level, what the noise drowns is left out (a truncated pseudo-inverse).
        :return: (:class:`torch.Tensor`) least-squares video of smallest norm.
        :raises ValueError: if shape or device is not the operator's.
        :raises TypeError: if dtype is not the operator's.
        """
        self.update_parameters(mask=mask, **kwargs)
        self._check("y", y, self.measurement_size)
        smallest = check_number("smallest", smallest, least=0.0)
        keep = self.mask > self._negligible().clamp(min=smallest)
        reciprocal = torch.where(keep, 1 / torch.where(keep, self.mask, 1.0), 0.0)
        return self.V(self.U_adjoint(y) * reciprocal)

    def _negligible(self) -> Tensor:
        rounding = max(self.img_size[1:]) * torch.finfo(self.mask.dtype).eps
        return rounding * self.mask.max()

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
        s = self.mask
        correction = self.U_adjoint(y)
        correction = correction - s * self.V_adjoint(z)
        correction = correction * (gamma * s / (1 + gamma * s**2))
        return self.V(correction).add_(z)

    def compute_sqnorm(
        self, x0: Tensor | None = None, *args: Any, **kwargs: Any
    ) -> Tensor:
        r"""
        Squared spectral norm, exact.

        :param torch.Tensor x0: not used (DeepInverse's power method starts from it).
        :return: (:class:`torch.Tensor`) :math:`\|A\|^2`, a scalar tensor.
        """
        return self.mask.max() ** 2

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

    def condition_number(
        self, x: Tensor | None = None, *args: Any, **kwargs: Any
    ) -> Tensor:
        r"""
        Ratio of the largest to the smallest non-zero singular value, exact.

        :param torch.Tensor x: not used (DeepInverse's iteration starts from it).
        :return: (:class:`torch.Tensor`) condition number, a scalar tensor; infinite for
            the zero operator.
        """
        kept = self.mask[self.mask > self._negligible()]
        return self.mask.max() / kept.min() if len(kept) else self.mask.max() + math.inf

    # -- algebra -----------------------------------------------------------------------

    def __mul__(self, other: LinearPhysics, **kwargs: Any) -> LinearPhysics:
        r"""
        Composition :math:`A_1 \circ A_2`, separable when both are.

        Noise and sensor models are those of :math:`A_1`, as in DeepInverse. With an
        operator that is not separable this is DeepInverse's own composition, whose
        proximal step is iterative.

        :param deepinv.physics.LinearPhysics other: operator :math:`A_2`.
        :return: (:class:`deepinv.physics.LinearPhysics`) the composition.
        :raises ValueError: if the sizes do not follow on from each other.
        """
        if not isinstance(other, SeparableVideoPhysics):
            return super().__mul__(other, **kwargs)
        if other.measurement_size != self.img_size:
            msg = (
                "`p * q` needs q's measurements to be p's videos; got measurement size "
                f"{other.measurement_size} and video size {self.img_size}. Build p with "
                f"`img_size={other.measurement_size}`."
            )
            raise ValueError(msg)
        return SeparableVideoPhysics(
            other.img_size,
            **{
                name: _product(getattr(self, name), getattr(other, name))
                for name in _AXES
            },
            noise_model=self.noise_model,
            full_svd=self.full_svd or other.full_svd,
            device=self.mask.device,
            dtype=self.mask.dtype,
            sensor_model=self.sensor_model,
        )

    def _check(self, name: str, x: Tensor, size: tuple[int, ...]) -> None:
        check_video(name, x, size=size, like=self.mask)

    def extra_repr(self) -> str:
        return f"{self.img_size} -> {self.measurement_size}"


def _apply_in_order(x: Tensor, steps: list[tuple[float, int, Tensor]]) -> Tensor:
    for _, axis, matrix in steps:
        x = apply_along_axis(x, matrix, -axis)
    return x


def _check_matrix(
    name: str,
    matrix: Tensor | None,
    size: int,
    device: torch.device | str,
    dtype: torch.dtype,
) -> Tensor | None:
    if matrix is None:
        return None
    check_tensor(name, matrix)
    if matrix.ndim != 2 or matrix.shape[1] != size or matrix.shape[0] == 0:
        msg = (
            f"`{name}` must be a matrix of shape (m, {size}), the length of its axis in "
            f"`img_size` being {size}; got shape {tuple(matrix.shape)}."
        )
        raise ValueError(msg)
    if not bool(torch.isfinite(matrix).all()):
        msg = f"`{name}` must be finite; it holds NaN or infinity."
        raise ValueError(msg)
    return matrix.detach().to(device, dtype).contiguous()


def _svd(matrix: Tensor, full: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Decomposition with exact zeros below rounding; ``full`` makes V square."""
    rows, columns = matrix.shape
    u, s, vh = torch.linalg.svd(matrix, full_matrices=full)
    s = torch.where(s > max(rows, columns) * torch.finfo(s.dtype).eps * s.max(), s, 0.0)
    if full:
        rank = min(rows, columns)
        u = torch.cat([u[:, :rank], u.new_zeros(rows, columns - rank)], dim=1)
        s = torch.cat([s, s.new_zeros(columns - rank)])
    return u.contiguous(), s, vh.mT.contiguous()


def _product(left: Tensor | None, right: Tensor | None) -> Tensor | None:
    if left is None or right is None:
        return right if left is None else left
    return left.double() @ right.double()
