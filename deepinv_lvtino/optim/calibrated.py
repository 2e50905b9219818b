r"""Schedules whose times follow from their steps and the models at hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from deepinv_lvtino.models import ConsistencyModel
from deepinv_lvtino.optim.data_steps import ProximalStep
from deepinv_lvtino.optim.sweep import HalfStep, Sweep
from deepinv_lvtino.utils import (
    check_clamp,
    check_integer,
    check_number,
    check_positive,
)

#: Weight of the video prior when both priors are used and nothing is said.
DEFAULT_ETA = 0.5

#: First and last step of the default schedule, in squared [0, 1] pixel units.
DEFAULT_DELTA = (0.5, 0.01)

#: Number of sweeps of the default schedule.
DEFAULT_NUM_STEPS = 5


@dataclass(frozen=True)
class CalibratedSchedule:
    r"""
    Schedule whose times follow from its steps; made by :meth:`Schedule.calibrated`.

    The sweeps are known only together with the models: see :meth:`resolve`.

    :param tuple[float, ...] delta: step of every sweep.
    :param float eta: weight of the video prior, or ``None`` for the default.
    :param str init: where the run starts unless it is told: a name among
        :data:`deepinv_lvtino.optim.STARTS`.
    :param tuple[float, float] clamp: interval that intermediate videos are projected to,
        or ``None`` for no projection (the default: projections bias the sampler).
    :param tuple[float, float] init_clamp: interval that the start is projected to, if it
        is another one; by default ``clamp``.
    :raises ValueError: if a step is not positive, or ``eta`` out of range.
    """

    delta: tuple[float, ...]
    eta: float | None = None
    init: str = "pinv"
    clamp: tuple[float, float] | None = None
    init_clamp: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        check_clamp(self.clamp)
        check_clamp(self.init_clamp, "init_clamp")
        check_eta(self.eta)
        for value in self.delta:
            check_positive("delta", value)
        if not self.delta:
            msg = "`delta` must hold one step or more."
            raise ValueError(msg)

    @property
    def num_steps(self) -> int:
        r"""Number of sweeps."""
        return len(self.delta)

    def resolve(
        self,
        video_model: ConsistencyModel | None,
        image_model: ConsistencyModel | None,
        eta: float | None = None,
    ) -> tuple[Sweep, ...]:
        r"""
        The sweeps for given models.

        :param ConsistencyModel video_model: video model, or ``None`` (frame-wise LATINO).
        :param ConsistencyModel image_model: image model, or ``None`` (LVTINO-V).
        :param float eta: weight of the video prior; the schedule's own by default.
        :return: (tuple[Sweep, ...]) the sweeps. With both models the last sweep ends after
            its first data step (Algorithm 1).
        :raises ValueError: if a model's noise schedule does not reach a step.
        """
        if video_model is None or image_model is None:
            eta = 0.0 if video_model is None else 1.0
        elif eta is None:
            eta = DEFAULT_ETA if self.eta is None else self.eta
        sweeps = []
        for k, delta in enumerate(self.delta):
            last = k == len(self.delta) - 1
            sweeps.append(
                Sweep(
                    _calibrated_half(video_model, delta * eta),
                    _calibrated_half(image_model, delta * (1 - eta))
                    if eta == 0 or not last
                    else None,
                )
            )
        return tuple(sweeps)


def check_eta(eta: float | None) -> None:
    r"""
    Check the weight of the video prior.

    :param float eta: weight, or ``None`` for the default.
    :raises ValueError: if it lies outside [0, 1].
    """
    if eta is not None and not 0 <= check_number("eta", eta) <= 1:
        msg = f"`eta` must lie in [0, 1]; got {eta}."
        raise ValueError(msg)


def check_num_steps(num_steps: int | None) -> None:
    r"""
    Check a number of sweeps.

    :param int num_steps: number, or ``None`` for the default.
    :raises ValueError: if it is not a positive integer.
    """
    if num_steps is not None and check_integer("num_steps", num_steps) < 1:
        msg = f"`num_steps` must be a positive integer; got {num_steps}."
        raise ValueError(msg)


def steps_of(
    delta: float | Sequence[float] | None, num_steps: int | None
) -> tuple[float, ...]:
    r"""
    The step of every sweep.

    :param float, Sequence[float] delta: one number or one per sweep; by default a
        geometric decrease from the first to the last of ``DEFAULT_DELTA``.
    :param int num_steps: number of sweeps; 5 by default, or as many as ``delta`` has.
    :return: (tuple[float, ...]) the steps.
    :raises ValueError: if lengths disagree, or a number is out of range.
    """
    check_num_steps(num_steps)
    count = num_steps or DEFAULT_NUM_STEPS
    if delta is None:
        return geometric(*DEFAULT_DELTA, count)
    if not isinstance(delta, Sequence) or isinstance(delta, str):
        return (check_number("delta", delta),) * count
    deltas = tuple(check_number("delta", value) for value in delta)
    if num_steps not in (None, len(deltas)):
        msg = (
            f"`delta` has {len(deltas)} values, but `num_steps` is {num_steps}. Give "
            "one number for all sweeps, or one per sweep."
        )
        raise ValueError(msg)
    return deltas


def geometric(first: float, last: float, count: int) -> tuple[float, ...]:
    r"""
    Numbers from a first to a last one, each the same multiple of the one before.

    :param float first: first number.
    :param float last: last number; not used if there is one only.
    :param int count: how many.
    :return: (tuple[float, ...]) the numbers.
    """
    if count == 1:
        return (first,)
    return tuple(first * (last / first) ** (k / (count - 1)) for k in range(count))


def _calibrated_half(
    model: ConsistencyModel | None, stepsize: float
) -> HalfStep | None:
    if model is None or stepsize == 0:
        return None
    time = model.schedule.time(2 * stepsize / model.pixel_scale**2)
    # A timetable that snaps realises a slightly other step: the data step follows it.
    realised = model.pixel_scale**2 * model.schedule.noise_ratio(time) / 2
    if not 0.5 < realised / stepsize < 2:
        msg = (
            f"the noise schedule {model.schedule} has no time for a step of "
            f"{stepsize:.3g} (`delta` times `eta`, or times 1 - `eta`); the nearest is "
            f"{realised:.3g}. Change `delta` or `eta`."
        )
        raise ValueError(msg)
    exact = math.isclose(realised, stepsize, rel_tol=1e-6)
    return HalfStep(time, ProximalStep(stepsize if exact else realised))
