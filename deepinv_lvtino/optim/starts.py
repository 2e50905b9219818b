r"""
Where a run of LVTINO starts: the named values of its ``init``.

Each start is a function of a measurement and its operator; :data:`STARTS` has them by
name. They can be called by themselves, as baselines or to be looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from deepinv.optim.data_fidelity import L2
from deepinv.physics import Physics
from torch import Tensor

from deepinv_lvtino.flow import optical_flow, warp
from deepinv_lvtino.optim.data_fidelity import prox_l2
from deepinv_lvtino.optim.inverse import DATA_GAMMA, pseudo_inverse, truncated_inverse
from deepinv_lvtino.optim.measured_frames import frame_centres, spatial_part
from deepinv_lvtino.optim.motion_tv import MotionTV
from deepinv_lvtino.optim.variation_start import by_noise, tv_start, variation_weight
from deepinv_lvtino.physics import SeparableVideoPhysics

#: A start: its name, a video, or a function ``(y, physics)``.
Init = str | Tensor | Callable[[Tensor, Physics], Any]

#: Weight of the data in :func:`proximal_start`, published.
PROXIMAL_GAMMA = 200.0

#: Singular values below this one count as zero in :func:`interpolate`: a data step of
#: weight ``DATA_GAMMA`` hardly follows them.
SMALLEST = DATA_GAMMA**-0.5

#: Weight of the variation in :func:`motion_start`, per unit of intensity.
MOTION_LAMBDA = 5.0


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

    def solve(y: Tensor, physics: Physics, sigma: float) -> Tensor:
        weight = variation_weight(y, physics, sigma, MOTION_LAMBDA)
        return MotionTV(weight, data_fidelity=L2(sigma))(y, physics)

    return by_noise(y, physics, solve)


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
    x = truncated_inverse(y, part, SMALLEST) if spatial is None else spatial(y, part)
    if physics.temporal is not None and len(physics.temporal) != frames:
        x = _resample(x, frame_centres(physics.temporal), frames)
    return prox_l2(physics, x, y, DATA_GAMMA)


#: The starts by name, each a function ``(y, physics)`` to a video.
STARTS: dict[str, Callable[[Tensor, Physics], Tensor]] = {
    "pinv": pseudo_inverse,
    "prox": proximal_start,
    "tv": tv_start,
    "motion": motion_start,
    "interpolate": interpolate,
}


def named_start(init: Init) -> Tensor | Callable[[Tensor, Physics], Any]:
    r"""
    A start by name, or what else may stand for one.

    :param str, torch.Tensor, Callable init: name among ``STARTS``, video or function.
    :return: (torch.Tensor | Callable) the function of that name; anything else as it is.
    :raises ValueError: if the name is unknown.
    """
    if not isinstance(init, str):
        return init
    if init not in STARTS:
        names = ", ".join(map(repr, STARTS))
        msg = (
            f"`init` must be {names}, a video or a function init(y, physics); got "
            f"{init!r}."
        )
        raise ValueError(msg)
    return STARTS[init]


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
