r"""
Where a run of LVTINO starts: the named values of its ``init``.

Each start is a function of a measurement and its operator; :data:`STARTS` has them by
name. They can be called by themselves, as baselines or to be looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy

import torch
from deepinv.optim.data_fidelity import L2
from deepinv.physics import GaussianNoise, LinearPhysics, Physics, Tomography
from torch import Tensor

from deepinv_lvtino.flow import optical_flow, warp
from deepinv_lvtino.optim._channels import channels
from deepinv_lvtino.optim._filling import fill_missing
from deepinv_lvtino.optim.data_fidelity import prox_l2
from deepinv_lvtino.optim.measured_frames import frame_centres, spatial_part
from deepinv_lvtino.physics import (
    FramewiseLinearPhysics,
    SeparableVideoPhysics,
    VideoInpainting,
)

#: Weight of the data in :func:`proximal_start`, published.
PROXIMAL_GAMMA = 200.0

#: Weight of the data where a start has to explain the measurement: the squared ratio of
#: what is left to add (0.1) to the usual noise (0.001).
DATA_GAMMA = 1e4

#: Singular values below this one count as zero in :func:`interpolate`: a data step of
#: weight ``DATA_GAMMA`` hardly follows them.
SMALLEST = DATA_GAMMA**-0.5

#: Weight of the variation in :func:`tv_start`, per unit of intensity, that of its temporal
#: part, and number of iterations.
TV_LAMBDA, TIME_WEIGHT, TV_ITERATIONS = 10.0, 2.0, 20

#: The same in :func:`motion_start`, along the motion.
MOTION_LAMBDA = 5.0

#: Weight of the variation per unit of the noise in the data term's gradient, where that is
#: less than the weights above.
NOISE_SHARE = 0.5

#: Smallest noise level that :func:`tv_start` assumes.
LEAST_NOISE = 0.001


def pseudo_inverse(y: Tensor, physics: Physics) -> Tensor:
    r"""
    Pseudo-inverse :math:`A^{\dagger} y`, the start of the published algorithm.

    If the singular values are known (separable and framewise decomposable operators) and
    the operator says its noise level, those below that level are left out: there the noise
    outweighs any video. A linear operator without a closed form is inverted with damping,
    a proximal step from black of weight :math:`(0.1 / \sigma_n)^2`, at most
    :math:`10^4` (``DATA_GAMMA``): its exact pseudo-inverse is beyond single precision. With
    one level per element of the batch, each has its own.

    :param torch.Tensor y: measurement.
    :param deepinv.physics.Physics physics: measurement operator.
    :return: (:class:`torch.Tensor`) video, shape ``(B, C, T, H, W)``.
    :raises DataStepError: if there is no closed form and the iteration fails.
    """
    return _truncated_inverse(y, physics, 0.0)


def filled_inverse(y: Tensor, physics: Physics) -> Tensor:
    r"""
    :func:`pseudo_inverse` of a measurement whose missing pixels are filled first.

    Behind a mask (:class:`VideoInpainting`), pixels that are not seen come from those
    around them, over many if the hole is large (the pull-push algorithm): black, as the
    pseudo-inverse leaves them, is what few iterations of a variation do not forget, and
    what no flow can follow. Every other operator has its pseudo-inverse.

    :param torch.Tensor y: measurement.
    :param deepinv.physics.Physics physics: measurement operator.
    :return: (:class:`torch.Tensor`) video, shape ``(B, C, T, H, W)``.
    """
    if not isinstance(physics, VideoInpainting):
        return pseudo_inverse(y, physics)
    inner = copy(physics.temporal_physics)
    inner.noise_model = physics.noise_model
    return pseudo_inverse(fill_missing(y, physics), inner)


def proximal_start(y: Tensor, physics: Physics) -> Tensor:
    r"""
    Proximal step from black, the start of the published settings.

    .. math::

        \underset{u}{\arg\min} \; \frac{\gamma}{2} \|A u - y\|^2 + \frac12 \|u\|^2

    with :math:`\gamma` = 200 (``PROXIMAL_GAMMA``): a damped pseudo-inverse, darker
    where the operator says little.

    :param torch.Tensor y: measurement.
    :param deepinv.physics.Physics physics: measurement operator.
    :return: (:class:`torch.Tensor`) video, shape ``(B, C, T, H, W)``.
    """
    return prox_l2(physics, 0.0, y, PROXIMAL_GAMMA)


def variation_weight(
    y: Tensor, physics: Physics, sigma: float, largest: float
) -> float:
    r"""
    Weight of a total variation that has to withstand the noise of a measurement.

    The gradient of :math:`\|A x - y\|^2 / 2 \sigma^2` at the true video is the noise
    :math:`A^{\top} n / \sigma^2`, with the root mean square
    :math:`r = \|A\|_F / (\sigma \sqrt{N})` for :math:`N` values of the video. What a
    variation of weight :math:`\lambda` pulls with is of the size of :math:`\lambda`: more
    than a share of :math:`r` flattens the video, and where the operator takes much and the
    noise is strong, :math:`r` is small. So

    .. math::

        \lambda = \min (\lambda_0, \; r / 2)

    with :math:`\lambda_0` for little noise. The share of 1/2 (``NOISE_SHARE``) is
    near the best for eleven operators and noise from 0.001 to 0.1, see the user guide
    (schedules). The norm is found by one random vector (Hutchinson's estimate).

    :param torch.Tensor y: measurement, of which the size counts.
    :param deepinv.physics.Physics physics: measurement operator.
    :param float sigma: standard deviation of the noise.
    :param float largest: :math:`\lambda_0`.
    :return: (float) the weight, per unit of intensity.
    """
    if not isinstance(physics, LinearPhysics):
        return largest
    rng = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, y[:1].shape, generator=rng).to(y) * 2 - 1
    with torch.no_grad():
        back = physics.A_adjoint(signs)
    return min(largest, NOISE_SHARE * float(back.square().mean().sqrt()) / sigma)


def tv_start(y: Tensor, physics: Physics) -> Tensor:
    r"""
    The video of least total variation over space and time that explains the measurement.

    Twenty iterations (``TV_ITERATIONS``) of :class:`ADMMTV` with :math:`\lambda = 10`
    (``TV_LAMBDA``), or less if the noise asks for it (``variation_weight``), and
    twice the weight on time (``TIME_WEIGHT``), for the noise level that the
    physics declares (one, or one per element of the batch), or 0.001 (``LEAST_NOISE``) if
    that is larger. They begin at :func:`filled_inverse`.

    :param torch.Tensor y: measurement.
    :param deepinv.physics.Physics physics: measurement operator.
    :return: (:class:`torch.Tensor`) video, shape ``(B, C, T, H, W)``.
    """
    # the reconstructor starts from `pseudo_inverse`, hence not at the top
    from deepinv_lvtino.optim.baselines import ADMMTV

    def solve(y: Tensor, physics: Physics, sigma: float) -> Tensor:
        weight = variation_weight(y, physics, sigma, TV_LAMBDA)
        solver = ADMMTV(
            weight, TIME_WEIGHT, data_fidelity=L2(sigma), max_iter=TV_ITERATIONS
        )
        begin = filled_inverse(y, physics)
        parts = channels(physics, len(y))
        if len(parts) == 1:
            return solver(y, physics, init=begin)
        return torch.cat(
            [solver(y[:, c], part, init=begin[:, c]) for c, part in parts], dim=1
        )

    return _by_noise(y, physics, solve)


def motion_start(y: Tensor, physics: Physics) -> Tensor:
    r"""
    The video of least total variation along its motion that explains the measurement.

    :class:`MotionTV` for the noise level that the physics declares, or 0.001
    (``LEAST_NOISE``) if that is larger: :func:`tv_start`, or :func:`filled_inverse` behind
    a mask, then three rounds of flow and variation along it, of weight 5
    (``MOTION_LAMBDA``) or less if the noise asks for it (``variation_weight``).

    :param torch.Tensor y: measurement.
    :param deepinv.physics.Physics physics: measurement operator.
    :return: (:class:`torch.Tensor`) video, shape ``(B, C, T, H, W)``.
    """
    # the reconstructor starts from `tv_start`, hence not at the top
    from deepinv_lvtino.optim.motion_tv import MotionTV

    def solve(y: Tensor, physics: Physics, sigma: float) -> Tensor:
        weight = variation_weight(y, physics, sigma, MOTION_LAMBDA)
        return MotionTV(weight, data_fidelity=L2(sigma))(y, physics)

    return _by_noise(y, physics, solve)


def _by_noise(
    y: Tensor, physics: Physics, solve: Callable[[Tensor, Physics, float], Tensor]
) -> Tensor:
    """Solve for the declared noise; elements of a batch with levels of their own alone."""
    sigma = _declared_noise(y, physics, LEAST_NOISE)
    if not isinstance(sigma, Tensor):
        return solve(y, physics, sigma)
    parts = zip(y.split(1), sigma.tolist(), strict=True)
    return torch.cat([solve(part, _with_noise(physics, s), s) for part, s in parts])


def _with_noise(physics: Physics, sigma: float) -> Physics:
    """The same operator (its buffers shared) with another noise level."""
    other = copy(physics)
    other._modules = dict(physics._modules)  # noqa: SLF001
    other.noise_model = GaussianNoise(sigma)
    return other


def interpolate(
    y: Tensor,
    physics: Physics,
    spatial: Callable[[Tensor, Physics], Tensor] | None = None,
) -> Tensor:
    r"""
    Motion-compensated interpolation of the measured frames.

    1. Every measured frame is brought to video size by the pseudo-inverse of the
       operator's spatial part, without singular values below 0.01 (``SMALLEST``) or the
       noise level, or by ``spatial``.
    2. If the operator changes the number of frames: measured frame :math:`j` stands at
       the instant ``frame_centres`` says; the optical flow between successive ones,
       forward and backward, is computed on the mean over the channels
       (``cv2.DISOpticalFlow`` :footcite:p:`kroeger2016fast`, on the CPU whatever the
       device); both neighbours are warped to every instant between them, supposing
       uniform motion, and blended by their distance in time. Before the first and after
       the last measured frame, that frame is repeated. If the operator keeps the number
       of frames, each stays where it is.
    3. One data step of weight :math:`10^4` (``DATA_GAMMA``) makes the result explain
       the measurement.

    The result does not depend on the number of threads.

    :param torch.Tensor y: measurement with values in [0, 1], shape
        ``(B, C, T', H', W')``.
    :param SeparableVideoPhysics physics: measurement operator.
    :param Callable spatial: how to undo the spatial part, a function of the measurement
        and that part, such as :func:`tv_start`: dearer, and better for the flow too.
    :return: (:class:`torch.Tensor`) video, shape ``(B, C, T, H, W)``, on the device of
        ``y``.
    :raises TypeError: if the operator is not separable.
    :raises ImportError: if OpenCV is needed and missing.
    :raises ValueError: if ``y`` does not fit the operator, or the instant of a measured
        frame is not defined.

    |sep|

    .. footbibliography::
    """
    if not isinstance(physics, SeparableVideoPhysics):
        msg = (
            "`init='interpolate'` needs a SeparableVideoPhysics as `physics`, whose "
            f"spatial part can be undone alone; got {type(physics).__name__}. Use 'pinv' "
            "or 'tv', or give a video."
        )
        raise TypeError(msg)
    frames = physics.img_size[1]
    part = spatial_part(physics)
    x = _truncated_inverse(y, part, SMALLEST) if spatial is None else spatial(y, part)
    if physics.temporal is not None and len(physics.temporal) != frames:
        x = _resample(x, frame_centres(physics.temporal), frames)
    return prox_l2(physics, x, y, DATA_GAMMA)


def _truncated_inverse(y: Tensor, physics: Physics, smallest: float) -> Tensor:
    """Pseudo-inverse without what lies below the noise level, or another one."""
    framewise = isinstance(physics, FramewiseLinearPhysics) and physics.exact_prox
    if not isinstance(physics, SeparableVideoPhysics) and not framewise:
        return _damped_inverse(y, physics) if iterates(physics) else physics.A_dagger(y)
    sigma = _declared_noise(y, physics, smallest)
    if not isinstance(sigma, Tensor):
        return physics.A_dagger(y, smallest=sigma)
    parts = zip(y.split(1), sigma.tolist(), strict=True)
    return torch.cat([physics.A_dagger(part, smallest=level) for part, level in parts])


def iterates(physics: Physics) -> bool:
    r"""
    Whether the pseudo-inverse of an operator is DeepInverse's iteration.

    :param deepinv.physics.Physics physics: measurement operator.
    :return: (bool) false for operators with a formula of their own.
    """
    if isinstance(physics, FramewiseLinearPhysics):
        return not physics.exact_prox and iterates(physics.image_physics)
    iterative = (LinearPhysics.A_dagger, Tomography.A_dagger)
    return getattr(type(physics), "A_dagger", None) in iterative


def _damped_inverse(y: Tensor, physics: Physics) -> Tensor:
    """Tikhonov's inverse, for steps of 0.1 and the noise level at hand."""
    weight = DATA_GAMMA * (LEAST_NOISE / _declared_noise(y, physics, LEAST_NOISE)) ** 2
    return prox_l2(
        physics, 0.0, y, weight.to(y) if isinstance(weight, Tensor) else weight
    )


def _declared_noise(y: Tensor, physics: Physics, least: float) -> float | Tensor:
    """
    Standard deviation of the noise that the physics declares, or ``least`` if larger.

    One number, or one per element of the batch, each as it would be alone.
    """
    sigma = getattr(physics.noise_model, "sigma", None)
    if sigma is None:
        return least
    sigma = torch.as_tensor(sigma).to("cpu", torch.float64).flatten().clamp(min=least)
    if sigma.numel() == 1:
        return float(sigma)
    if len(sigma) != len(y):
        msg = (
            "`physics.noise_model.sigma` must be one number or one per element of the "
            f"batch `y` ({len(y)}); got {len(sigma)}."
        )
        raise ValueError(msg)
    return sigma


#: The starts by name, each a function ``(y, physics)`` to a video.
STARTS: dict[str, Callable[[Tensor, Physics], Tensor]] = {
    "pinv": pseudo_inverse,
    "prox": proximal_start,
    "tv": tv_start,
    "motion": motion_start,
    "interpolate": interpolate,
}


def _resample(x: Tensor, centres: Tensor, frames: int) -> Tensor:
    """Frames at the instants 0, 1, … of a video whose frames stand at ``centres``."""
    order = centres.argsort(stable=True)
    x, places = x[:, :, order], centres[order].tolist()
    out = x.new_empty(*x.shape[:2], frames, *x.shape[3:])
    instants = list(range(frames))
    for t in instants:
        if t <= places[0]:
            out[:, :, t] = x[:, :, 0]
        if t >= places[-1]:
            out[:, :, t] = x[:, :, -1]
    for j, (start, end) in enumerate(zip(places[:-1], places[1:], strict=True)):
        between = [t for t in instants if start < t < end]
        for t in instants:
            if t == start:
                out[:, :, t] = x[:, :, j]
        if not between:
            continue
        first, second = x[:, :, j], x[:, :, j + 1]
        forward, backward = optical_flow(first, second), optical_flow(second, first)
        for t in between:
            s = (t - start) / (end - start)
            # Motion from the instant to either frame: uniform, and the mean of what the
            # two flows say of it, each the heavier the nearer its frame.
            to_first = s * (s * backward - (1 - s) * forward)
            to_second = (1 - s) * ((1 - s) * forward - s * backward)
            out[:, :, t] = (1 - s) * warp(first, to_first) + s * warp(second, to_second)
    return out
