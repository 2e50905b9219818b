r"""Any DeepInverse image operator, on every frame of a video."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from deepinv.physics import LinearPhysics, Physics
from deepinv.physics.noise import NoiseModel
from torch import Tensor

from deepinv_lvtino.physics.decomposed import (
    decomposed_pinv,
    decomposed_prox,
    is_decomposable,
)
from deepinv_lvtino.utils import batch_weight, check_video


def fold_frames(x: Tensor) -> Tensor:
    r"""
    Frames into the batch: ``(B, C, T, ...)`` to ``(B T, C, ...)``.

    :param torch.Tensor x: tensor with time on axis 2.
    :return: (:class:`torch.Tensor`) tensor without a time axis.
    """
    return x.movedim(2, 1).flatten(0, 1)


def unfold_frames(x: Tensor, batch: int) -> Tensor:
    r"""
    Opposite of :func:`fold_frames`: ``(B T, C, ...)`` to ``(B, C, T, ...)``.

    :param torch.Tensor x: tensor with frames in the batch.
    :param int batch: number ``B`` of videos.
    :return: (:class:`torch.Tensor`) tensor with time on axis 2.
    """
    return x.unflatten(0, (batch, -1)).movedim(1, 2)


class FramewisePhysics(Physics):
    r"""
    Image operator applied to every frame.

    .. math::

        y_t = N(A(x_t)), \qquad t = 1, \dots, T

    Frames are folded into the batch, which is kept: ``(B, C, T, H, W)`` becomes
    ``(B T, C, H, W)`` for the image operator, and its measurements ``(B T, C', ...)``
    become ``(B, C', T, ...)``. Operators whose parameters have a batch axis act on the
    folded batch. If the image operator is linear, so is this one (an instance of
    :class:`deepinv.physics.LinearPhysics`). If it is decomposable (``BlurFFT``,
    ``Demosaicing``, ``Inpainting``, ``SinglePixelCamera``, …), proximal step and
    pseudo-inverse are closed forms, computed for all frames at once.

    :param deepinv.physics.Physics image_physics: operator on images ``(B, C, H, W)`` that
        gives tensors.
    :param deepinv.physics.NoiseModel noise_model: noise on the video measurement; by
        default the image operator's.
    :raises TypeError: if ``image_physics`` is not a DeepInverse operator, or its
        measurements are not tensors.

    |sep|

    :Examples:

        >>> import torch
        >>> from deepinv.physics import Inpainting
        >>> from deepinv_lvtino.physics import FramewisePhysics
        >>> physics = FramewisePhysics(Inpainting(img_size=(3, 8, 8), mask=0.5))
        >>> physics(torch.rand(2, 3, 5, 8, 8)).shape
        torch.Size([2, 3, 5, 8, 8])
    """

    def __new__(
        cls, image_physics: Physics | None = None, *args: Any, **kwargs: Any
    ) -> FramewisePhysics:
        if cls is FramewisePhysics and isinstance(image_physics, LinearPhysics):
            cls = FramewiseLinearPhysics
        return super().__new__(cls)

    def __init__(
        self, image_physics: Physics, noise_model: NoiseModel | None = None
    ) -> None:
        if not isinstance(image_physics, Physics):
            msg = (
                "`image_physics` must be a deepinv.physics.Physics on images; got "
                f"{type(image_physics).__name__}."
            )
            raise TypeError(msg)
        super().__init__(
            noise_model=image_physics.noise_model
            if noise_model is None
            else noise_model
        )
        self.image_physics = image_physics

    def _check_measurement(self, y: Tensor) -> None:
        if not isinstance(y, Tensor):
            msg = f"`y` must be a torch.Tensor; got {type(y).__name__}."
            raise TypeError(msg)
        if y.ndim < 3 or y.numel() == 0:
            msg = (
                "`y` must be a non-empty measurement (B, C, T, ...), frames on axis 2; got "
                f"shape {tuple(y.shape)}."
            )
            raise ValueError(msg)
        for like in (*self.image_physics.parameters(), *self.image_physics.buffers()):
            if like.device != y.device:
                msg = (
                    f"`y` is on {y.device} but the image operator is on {like.device}. "
                    "Move one of them with `.to(...)`."
                )
                raise ValueError(msg)

    def _on_frames(self, function: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        result = function(fold_frames(x), *args, **kwargs)
        if not isinstance(result, Tensor):
            msg = (
                "`image_physics` must give one tensor per batch of images; got "
                f"{type(result).__name__}. Lift each part of a stacked operator alone."
            )
            raise TypeError(msg)
        return unfold_frames(result, len(x))

    def A(self, x: Tensor, **kwargs: Any) -> Tensor:
        r"""
        Apply the image operator to every frame.

        :param torch.Tensor x: video, shape ``(B, C, T, H, W)``.
        :return: (:class:`torch.Tensor`) measurement, shape ``(B, C', T, ...)``.
        :raises ValueError: if ``x`` does not have five axes.
        """
        check_video("x", x)
        return self._on_frames(self.image_physics.A, x, **kwargs)

    def sensor(self, x: Tensor) -> Tensor:
        r"""
        Apply the image operator's sensor to every frame.

        :param torch.Tensor x: measurement, shape ``(B, C', T, ...)``.
        :return: (:class:`torch.Tensor`) measurement of the same shape.
        """
        return self._on_frames(self.image_physics.sensor, x)

    def A_dagger(self, y: Tensor, **kwargs: Any) -> Tensor:
        r"""
        Apply the image operator's pseudo-inverse to every frame.

        :param torch.Tensor y: measurement, shape ``(B, C', T, ...)``.
        :return: (:class:`torch.Tensor`) video, shape ``(B, C, T, H, W)``.
        :raises ValueError: if ``y`` is not such a measurement, or on another device.
        """
        self._check_measurement(y)
        with _settings_kept(self.image_physics):
            return self._on_frames(self.image_physics.A_dagger, y, **kwargs)

    def update_parameters(self, **kwargs: Any) -> None:
        r"""
        Update the parameters of the image operator.

        :param dict kwargs: parameters of the image operator.
        """
        self.image_physics.update_parameters(**kwargs)


class FramewiseLinearPhysics(FramewisePhysics, LinearPhysics):
    r"""
    Linear image operator applied to every frame; made by :class:`FramewisePhysics`.

    :param deepinv.physics.LinearPhysics image_physics: linear operator on images.
    :param deepinv.physics.NoiseModel noise_model: noise on the video measurement; by
        default the image operator's.
    """

    @property
    def exact_prox(self) -> bool:
        r"""Whether ``prox_l2`` is a closed form: solvers may rely on it."""
        return is_decomposable(self.image_physics)

    def A_dagger(self, y: Tensor, *, smallest: float = 0.0, **kwargs: Any) -> Tensor:
        r"""
        Apply the pseudo-inverse to every frame.

        That is a closed form if the image operator is decomposable, and else the image
        operator's own method, whose settings pass through ``kwargs``.

        :param torch.Tensor y: measurement, shape ``(B, C', T, ...)``.
        :param float smallest: singular values below this one count as zero; with the
            noise level, what the noise drowns is left out (a truncated pseudo-inverse).
        :return: (:class:`torch.Tensor`) video, shape ``(B, C, T, H, W)``.
        :raises ValueError: if ``y`` is not such a measurement, or on another device, or
            ``smallest`` is given and the singular values are not known.
        """
        if self.exact_prox:
            self._check_measurement(y)
            parameters = _parameters(kwargs)
            if parameters:
                self.update_parameters(**parameters)
            return self._on_frames(
                lambda frames: decomposed_pinv(self.image_physics, frames, smallest), y
            )
        if smallest:
            msg = (
                "`smallest` needs a decomposable image operator, whose singular values "
                f"are known; got {type(self.image_physics).__name__}. Leave it out."
            )
            raise ValueError(msg)
        return super().A_dagger(y, **kwargs)

    def A_adjoint(self, y: Tensor, **kwargs: Any) -> Tensor:
        r"""
        Apply the image operator's adjoint to every frame.

        :param torch.Tensor y: measurement, shape ``(B, C', T, ...)``.
        :return: (:class:`torch.Tensor`) video, shape ``(B, C, T, H, W)``.
        """
        self._check_measurement(y)
        return self._on_frames(self.image_physics.A_adjoint, y, **kwargs)

    def A_vjp(self, x: Tensor, v: Tensor) -> Tensor:
        r"""
        Vector-Jacobian product, which for a linear operator is the adjoint.

        :param torch.Tensor x: video, not used.
        :param torch.Tensor v: measurement, shape ``(B, C', T, ...)``.
        :return: (:class:`torch.Tensor`) video, shape ``(B, C, T, H, W)``.
        """
        return self.A_adjoint(v)

    def prox_l2(
        self, z: Tensor | float | None, y: Tensor, gamma: float | Tensor, **kwargs: Any
    ) -> Tensor:
        r"""
        Proximal step of the data term.

        That is a closed form if the image operator is decomposable, and else the image
        operator's own method, for DeepInverse's operators an iteration that does not say
        how far it came; its settings pass through ``kwargs`` and do not stay on the
        operator. (The sampler does not use the latter: see
        :func:`deepinv_lvtino.optim.prox_l2`.)

        :param torch.Tensor z: centre, shape ``(B, C, T, H, W)``, a number or ``None``.
        :param torch.Tensor y: measurement, shape ``(B, C', T, ...)``.
        :param float, torch.Tensor gamma: weight of :math:`\frac12 \|Au-y\|^2`; a tensor
            holds one value per video of the batch.
        :return: (:class:`torch.Tensor`) video, shape ``(B, C, T, H, W)``.
        """
        self._check_measurement(y)
        gamma = batch_weight("gamma", gamma, y)
        if isinstance(gamma, Tensor):
            each = gamma.reshape(-1).expand(len(y))
            gamma = each.repeat_interleave(y.shape[2]).view(-1, 1, 1, 1)
        if isinstance(z, Tensor):
            z = fold_frames(z)
        if self.exact_prox:
            result = decomposed_prox(self.image_physics, z, fold_frames(y), gamma)
            return unfold_frames(result, len(y))
        with _settings_kept(self.image_physics):
            result = self.image_physics.prox_l2(z, fold_frames(y), gamma, **kwargs)
        return unfold_frames(result, len(y))

    def compute_sqnorm(self, x0: Tensor, **kwargs: Any) -> Tensor:
        r"""
        Squared norm of the image operator, which is that of the video operator.

        :param torch.Tensor x0: video without batch axis, ``(C, T, H, W)``, or with it.
        :return: (:class:`torch.Tensor`) :math:`\|A\|^2`.
        """
        video = x0 if x0.ndim == 5 else x0[None]
        return self.image_physics.compute_sqnorm(fold_frames(video)[:1], **kwargs)


def _parameters(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a pseudo-inverse without the settings of an iteration."""
    settings = ("solver", "max_iter", "tol", "verbose")
    return {key: value for key, value in kwargs.items() if key not in settings}


@contextmanager
def _settings_kept(physics: Physics) -> Iterator[None]:
    r"""
    Undo what DeepInverse's iterative solvers leave on an operator.

    :param deepinv.physics.Physics physics: operator whose solver settings are kept.
    """
    before = {key: getattr(physics, key) for key in ("solver", "max_iter", "tol")}
    try:
        yield
    finally:
        for key, value in before.items():
            setattr(physics, key, value)
