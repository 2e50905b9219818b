r"""The Gaussian likelihood, with the noise level of the physics at hand."""

from __future__ import annotations

from typing import Any

import torch
from deepinv.optim import DataFidelity
from deepinv.optim.data_fidelity import L2
from deepinv.physics import DecomposablePhysics, LinearPhysics, Physics, StackedPhysics
from deepinv.physics.noise import GaussianNoise
from deepinv.utils import TensorList
from torch import Tensor
from torch.autograd.function import once_differentiable

from deepinv_lvtino.optim.damped import MAX_ITER, require_finite, solve_step
from deepinv_lvtino.physics.decomposed import decomposed_prox, is_decomposable
from deepinv_lvtino.utils import batch_weight


def noise_std(physics: Physics) -> float | Tensor:
    r"""
    Standard deviation of a physics' Gaussian noise.

    :param deepinv.physics.Physics physics: measurement operator.
    :return: (float | torch.Tensor) one value, or one per element of the batch.
    :raises ValueError: if its noise model is not Gaussian, or has no positive deviation.
    """
    if isinstance(physics, StackedPhysics):
        msg = (
            "`physics` is a stack, whose parts have noise of their own; say which noise "
            "the measurements have with `data_fidelity=deepinv.optim.L2(sigma=...)`."
        )
        raise ValueError(msg)
    model = physics.noise_model
    sigma = getattr(model, "sigma", None) if isinstance(model, GaussianNoise) else None
    if sigma is None or not bool((sigma > 0).all()):
        found = type(model).__name__ if sigma is None else f"sigma={sigma.tolist()}"
        msg = (
            "`physics.noise_model` must be a deepinv.physics.GaussianNoise with positive "
            f"`sigma`; got {found}. Set `physics.noise_model`, or say which noise the "
            "measurement has with `data_fidelity=deepinv.optim.L2(sigma=...)`."
        )
        raise ValueError(msg)
    return float(sigma) if sigma.numel() == 1 else sigma


def prox_l2(
    physics: Physics,
    z: Tensor | float | None,
    y: Any,
    gamma: float | Tensor,
    *,
    max_iter: int = MAX_ITER,
) -> Tensor:
    r"""
    Proximal step of the data term: right, or an error.

    .. math::

        \underset{u}{\arg\min} \; \frac{\gamma}{2} \|A u - y\|^2 + \frac12 \|u - z\|^2

    Operators with ``exact_prox`` and those that are not linear answer themselves;
    decomposable ones have a closed form (``deepinv_lvtino.physics.decomposed``). Any
    other linear operator is solved by conjugate gradients
    (``deepinv_lvtino.optim.damped``) to an error below a thousandth of the
    step :math:`u - z`, video by video. The number of iterations grows with
    :math:`\sqrt{\gamma} \|A\|`. Gradients are those of the exact solution.

    :param deepinv.physics.Physics physics: measurement operator.
    :param torch.Tensor z: centre, shape ``(B, C, T, H, W)``; a number stands for a
        constant video, ``None`` for 0.
    :param torch.Tensor y: measurement, ``B`` on its first axis.
    :param float, torch.Tensor gamma: weight of :math:`\frac12 \|A u - y\|^2`; a tensor
        holds one value per video.
    :param int max_iter: most iterations where there is no closed form.
    :return: (:class:`torch.Tensor`) video, shape of ``z``.
    :raises DataStepError: if the solution is not known well enough, or something is not
        finite.
    :raises ValueError: if ``gamma`` is not positive, or the batches do not fit.

    |sep|

    :Examples:

        >>> import torch
        >>> from deepinv.physics import Blur
        >>> from deepinv_lvtino.optim import prox_l2
        >>> from deepinv_lvtino.physics import FramewisePhysics
        >>> physics = FramewisePhysics(Blur(torch.eye(3)[None, None] / 3, "reflect"))
        >>> x = torch.rand(1, 3, 2, 16, 24, generator=torch.Generator().manual_seed(0))
        >>> u = prox_l2(physics, torch.zeros_like(x), physics.A(x), gamma=1e4)
        >>> bool(physics.A(u - x).norm() < 0.5 / 1e4**0.5 * x.norm())
        True
    """
    require_finite(z=z, y=y)
    if getattr(physics, "exact_prox", False) or not isinstance(physics, LinearPhysics):
        u = physics.prox_l2(z, y, gamma)
    elif is_decomposable(physics):
        u = decomposed_prox(physics, z, y, batch_weight("gamma", gamma, y))
    elif isinstance(physics, DecomposablePhysics):
        u = physics.prox_l2(z, y, gamma)
    else:
        u = _iterative_prox(physics, z, y, gamma, max_iter)
    require_finite(**{"the video after the data step": u})
    return u


def has_prox(physics: Physics) -> bool:
    r"""
    Whether :func:`prox_l2` can be asked of an operator.

    :param deepinv.physics.Physics physics: measurement operator, which says so itself if
        it has an attribute ``has_prox``.
    :return: (bool) whether it has a proximal step.
    """
    if isinstance(physics, StackedPhysics):
        return True
    return bool(getattr(physics, "has_prox", hasattr(physics, "prox_l2")))


def _first(y: Tensor | TensorList) -> Tensor:
    return y[0] if isinstance(y, TensorList) else y


def _iterative_prox(
    physics: LinearPhysics,
    z: Tensor | float | None,
    y: Tensor | TensorList,
    gamma: float | Tensor,
    max_iter: int,
) -> Tensor:
    if not isinstance(z, Tensor):
        z = torch.full_like(physics.A_adjoint(y), 0.0 if z is None else float(z))
    if len(_first(y)) != len(z):
        msg = f"`z` holds {len(z)} videos for {len(_first(y))} measurements in `y`."
        raise ValueError(msg)
    weight = torch.as_tensor(batch_weight("gamma", gamma, z), device=z.device)
    return _ImplicitProx.apply(z, y, weight, physics, max_iter)


class _ImplicitProx(torch.autograd.Function):
    """The iterative step, with the gradients of the equation that it solves."""

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, y: Any, gamma: Tensor, physics: Any, max_iter: int
    ) -> Tensor:
        with torch.autocast(z.device.type, enabled=False):
            u = z + solve_step(physics, z, y, gamma, max_iter)
        ctx.save_for_backward(u, gamma, *((y,) if isinstance(y, Tensor) else ()))
        ctx.y, ctx.physics, ctx.max_iter = y, physics, max_iter
        return u

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        u, gamma, *_ = ctx.saved_tensors
        physics, y = ctx.physics, ctx.y
        v = gradient + solve_step(physics, gradient, y * 0, gamma, ctx.max_iter)
        of_y = of_gamma = None
        if ctx.needs_input_grad[1]:
            of_y = gamma.reshape(-1, *[1] * (y.ndim - 1)) * physics.A(v)
        if ctx.needs_input_grad[2]:
            slope = physics.A_adjoint(y - physics.A(u)) * v
            of_gamma = slope.flatten(1).sum(1).reshape(-1, *[1] * (u.ndim - 1))
            of_gamma = of_gamma.sum_to_size(gamma.shape)
        return v, of_y, of_gamma, None, None


def data_weight(data_fidelity: DataFidelity, physics: Physics) -> float:
    r"""
    Factor of :math:`\frac12 \|A u - y\|^2` in a quadratic data fidelity.

    :param deepinv.optim.DataFidelity data_fidelity: :class:`GaussianLikelihood` or
        :class:`deepinv.optim.data_fidelity.L2`.
    :param deepinv.physics.Physics physics: operator, whose noise the former takes.
    :return: (float) :math:`1/\sigma_n^2`.
    :raises TypeError: if the data fidelity is another.
    :raises ValueError: if the noise is not the same for the whole batch.
    """
    if isinstance(data_fidelity, GaussianLikelihood):
        sigma = noise_std(physics)
    elif isinstance(data_fidelity, L2):
        sigma = data_fidelity.norm**-0.5
    else:
        msg = (
            "Total variation needs a quadratic `data_fidelity`, GaussianLikelihood or "
            f"deepinv.optim.L2; got {type(data_fidelity).__name__}."
        )
        raise TypeError(msg)
    if isinstance(sigma, Tensor) and sigma.numel() > 1:
        msg = (
            "Total variation needs one noise level for the whole batch; got "
            f"{sigma.numel()}. Restore the videos one by one."
        )
        raise ValueError(msg)
    return float(sigma) ** -2


class GaussianLikelihood(DataFidelity):
    r"""
    Gaussian negative log-likelihood, with the noise level that the physics declares.

    .. math::

        g_y(u) = \frac{1}{2 \sigma_n^2} \|A u - y\|^2

    where :math:`\sigma_n` is read from ``physics.noise_model`` at every call, so that one
    solver serves problems of different noise. Equal to
    :class:`deepinv.optim.data_fidelity.L2` with that ``sigma``; nothing is stored.

    :raises ValueError: on use, if the physics does not say its noise
        (:func:`noise_std`).

    |sep|

    :Examples:

        >>> import torch
        >>> from deepinv.physics import GaussianNoise
        >>> from deepinv_lvtino.optim import GaussianLikelihood
        >>> from deepinv_lvtino.physics import TemporalPooling
        >>> physics = TemporalPooling((1, 4, 2, 2), 2, noise_model=GaussianNoise(0.5))
        >>> x = torch.ones(1, 1, 4, 2, 2)
        >>> GaussianLikelihood()(x, physics.A(x) + 1, physics)  # 8 values of 1 / (2 * 0.25)
        tensor([16.0000])
    """

    def fn(
        self, x: Tensor, y: Tensor, physics: Physics, *args: Any, **kw: Any
    ) -> Tensor:
        r"""
        Value :math:`g_y(x)`.

        :param torch.Tensor x: video, shape ``(B, C, T, H, W)``.
        :param torch.Tensor y: measurement.
        :param deepinv.physics.Physics physics: operator with Gaussian noise.
        :return: (:class:`torch.Tensor`) one value per element of the batch.
        """
        return L2(noise_std(physics)).fn(x, y, physics)

    def grad(
        self, x: Tensor, y: Tensor, physics: Physics, *args: Any, **kw: Any
    ) -> Tensor:
        r"""
        Gradient :math:`A^{\top}(A x - y) / \sigma_n^2`.

        :param torch.Tensor x: video, shape ``(B, C, T, H, W)``.
        :param torch.Tensor y: measurement.
        :param deepinv.physics.Physics physics: operator with Gaussian noise.
        :return: (:class:`torch.Tensor`) gradient, shape of ``x``.
        """
        sigma = noise_std(physics)
        if isinstance(sigma, Tensor):
            sigma = sigma.reshape(-1, *[1] * (x.ndim - 1))
        return L2(1.0).grad(x, y, physics) / sigma**2

    def prox(
        self,
        x: Tensor,
        y: Tensor,
        physics: Physics,
        *args: Any,
        gamma: float | Tensor = 1.0,
        **kw: Any,
    ) -> Tensor:
        r"""
        Proximal step :math:`\arg\min_u \tau g_y(u) + \frac12 \|u - x\|^2`.

        :param torch.Tensor x: centre, shape ``(B, C, T, H, W)``.
        :param torch.Tensor y: measurement.
        :param deepinv.physics.Physics physics: operator with Gaussian noise.
        :param float gamma: step :math:`\tau`; the physics solves for
            :math:`\tau / \sigma_n^2`.
        :return: (:class:`torch.Tensor`) video, shape of ``x``.
        """
        sigma = noise_std(physics)
        if isinstance(sigma, Tensor):
            # in double precision: each weight as it would be alone, to the last bit
            sigma = sigma.flatten().to("cpu", torch.float64)
            gamma = torch.as_tensor(gamma, dtype=torch.float64, device="cpu")
            return prox_l2(physics, x, y, (gamma / sigma**2).to(x))
        return prox_l2(physics, x, y, gamma / sigma**2)


class _CheckedL2(L2):
    """DeepInverse's quadratic fidelity with the proximal step of :func:`prox_l2`."""

    def prox(
        self, x: Tensor, y: Tensor, physics: Physics, *args: Any, **kwargs: Any
    ) -> Tensor:
        return prox_l2(physics, x, y, kwargs.pop("gamma", 1.0) * self.norm)


def checked(data_fidelity: Any) -> Any:
    r"""
    A data fidelity whose proximal step is that of :func:`prox_l2`.

    :param deepinv.optim.DataFidelity data_fidelity: data fidelity.
    :return: the same, but for :class:`deepinv.optim.data_fidelity.L2`, whose own step
        takes whatever DeepInverse's iteration has found.
    """
    if type(data_fidelity) is not L2:
        return data_fidelity
    return _CheckedL2(data_fidelity.norm**-0.5)
