r"""What a run does in each sweep: times of the models, numbers of the data steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from deepinv.physics import Physics

from deepinv_lvtino.models import ConsistencyModel
from deepinv_lvtino.optim.data_steps import (
    AdamTVStep,
    ConjugateGradientStep,
    DataStep,
    GammaStep,
    PrimalDualTVStep,
    ProximalStep,
)
from deepinv_lvtino.optim.landweber import LandweberStep
from deepinv_lvtino.physics.problems import find_problem
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

#: Of :meth:`Schedule.embedded`: first and last step, number of sweeps, weight of the video
#: prior.
EMBEDDED_SETTINGS = {
    "A": (0.0014, 0.00035, 2, 0.9),
    "B": (0.0056, 0.00035, 3, 0.9),
    "C": (0.0056, 0.00035, 3, 0.9),
    "deblur": (0.14, 0.0014, 5, 0.9),
    "deblur-temporal": (0.14, 0.0014, 5, 0.9),
    "sr4": (0.0056, 0.00035, 3, 0.9),
    "sr4-temporal": (0.0056, 0.00035, 3, 0.9),
}

#: The same for every other operator and any noise: small steps, so that one sample stays
#: near its start, which knows operator and noise.
EMBEDDED_DEFAULT = (0.0014, 0.00012, 2, 0.9)

#: The same where frames are missing, which motion compensation interpolates better than the
#: video prior does: the smallest step there is.
EMBEDDED_MISSING_FRAMES = (0.00012, 0.00012, 1, 1.0)


@dataclass(frozen=True)
class HalfStep:
    r"""
    One prior with the data step that follows it.

    :param float time: time of the stochastic autoencoder, in its model's unit.
    :param DataStep data_step: data step, or ``None`` for none.
    :raises TypeError: if one is neither.
    :raises ValueError: if the time is negative, or not finite.
    """

    time: float
    data_step: DataStep | None

    def __post_init__(self) -> None:
        check_number("time", self.time, least=0.0)
        if self.data_step is not None and not isinstance(self.data_step, DataStep):
            msg = (
                "`data_step` must be a DataStep, such as ProximalStep(0.01), or None; got "
                f"{type(self.data_step).__name__}."
            )
            raise TypeError(msg)


@dataclass(frozen=True)
class Sweep:
    r"""
    One sweep of the sampler: the video half, then the image half; either may be missing.

    :param HalfStep video: video prior and first data step, or ``None``.
    :param HalfStep image: image prior and second data step, or ``None``.
    """

    video: HalfStep | None = None
    image: HalfStep | None = None


@dataclass(frozen=True)
class Schedule:
    r"""
    Times and data steps of every sweep.

    The constructor and :meth:`explicit` take them as they are; :meth:`calibrated` derives
    the times from the steps so that the sampler is statistically consistent (the
    default), and :meth:`published` gives the settings released with the LVTINO paper.

    :param Sequence[Sweep] sweeps: the sweeps, in order.
    :param str init: where the run starts unless it is told: a name among
        :data:`deepinv_lvtino.optim.STARTS`.
    :param tuple[float, float] clamp: interval that intermediate videos are projected to,
        or ``None`` for no projection (the default: projections bias the sampler).
    :param tuple[float, float] init_clamp: interval that the start is projected to, if it
        is another one; by default ``clamp``.
    :raises ValueError: if there is no sweep, or a sweep does nothing.

    |sep|

    :Examples:

        >>> from deepinv_lvtino import Schedule
        >>> Schedule.calibrated(delta=[0.1, 0.02, 0.004], eta=0.3).num_steps
        3
    """

    sweeps: Sequence[Sweep]
    init: str = "pinv"
    clamp: tuple[float, float] | None = None
    init_clamp: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        check_clamp(self.clamp)
        check_clamp(self.init_clamp, "init_clamp")
        if not isinstance(self.sweeps, Sequence) or not all(
            isinstance(sweep, Sweep) for sweep in self.sweeps
        ):
            msg = (
                "`sweeps` must be a list of Sweep; got "
                f"{type(self.sweeps).__name__}. `Schedule.explicit` makes them of numbers."
            )
            raise TypeError(msg)
        object.__setattr__(self, "sweeps", tuple(self.sweeps))
        if not self.sweeps or any(
            sweep.video is None and sweep.image is None for sweep in self.sweeps
        ):
            msg = "`sweeps` must hold one sweep or more, each with a half-step to do."
            raise ValueError(msg)

    @property
    def num_steps(self) -> int:
        r"""Number of sweeps."""
        return len(self.sweeps)

    def resolve(
        self,
        video_model: ConsistencyModel | None,
        image_model: ConsistencyModel | None,
        eta: float | None = None,
    ) -> tuple[Sweep, ...]:
        r"""
        The sweeps for given models: half-steps of a missing model are left out.

        :param ConsistencyModel video_model: video model, or ``None``.
        :param ConsistencyModel image_model: image model, or ``None``.
        :param float eta: weight of the video prior; only a calibrated schedule can follow
            it.
        :return: (tuple[Sweep, ...]) the sweeps, each with something to do.
        :raises ValueError: if ``eta`` is given to explicit steps, or nothing is left.
        """
        if eta is not None:
            msg = (
                "`eta` cannot change a schedule with explicit steps; use "
                "`Schedule.calibrated(eta=...)` or write the steps accordingly."
            )
            raise ValueError(msg)
        kept = [
            Sweep(
                sweep.video if video_model is not None else None,
                sweep.image if image_model is not None else None,
            )
            for sweep in self.sweeps
        ]
        kept = [sweep for sweep in kept if sweep != Sweep()]
        if not kept:
            msg = "`schedule` has no half-step for the given models."
            raise ValueError(msg)
        return tuple(kept)

    @classmethod
    def explicit(
        cls,
        video_times: Sequence[float],
        video_steps: Sequence[float | DataStep],
        image_times: Sequence[float] = (),
        image_steps: Sequence[float | DataStep] = (),
        *,
        init: str = "pinv",
        clamp: tuple[float, float] | None = None,
        init_clamp: tuple[float, float] | None = None,
    ) -> Schedule:
        r"""
        Schedule from lists, one entry per sweep.

        :param Sequence[float] video_times: times of the video model, in its unit.
        :param Sequence[float | DataStep] video_steps: data steps that follow them; a number
            is the size of a :class:`ProximalStep`.
        :param Sequence[float] image_times: times of the image model; sweeps beyond the last
            one have no image half-step (Algorithm 1 has one fewer than sweeps).
        :param Sequence[float | DataStep] image_steps: data steps that follow them.
        :param str init: see the class.
        :param tuple[float, float] clamp: see the class.
        :param tuple[float, float] init_clamp: see the class.
        :return: (:class:`Schedule`) the schedule.
        :raises ValueError: if lengths disagree, or a step is not positive.

        |sep|

        :Examples:

            >>> from deepinv_lvtino import Schedule
            >>> schedule = Schedule.explicit([300, 200], [0.02, 0.01], [250], [0.02])
            >>> [sweep.image is None for sweep in schedule.sweeps]
            [False, True]
        """
        lists = {
            "video_times": video_times,
            "video_steps": video_steps,
            "image_times": image_times,
            "image_steps": image_steps,
        }
        for name, given in lists.items():
            if not isinstance(given, Sequence) or isinstance(given, str):
                msg = (
                    f"`{name}` must be a list, one entry per sweep; got "
                    f"{type(given).__name__}. Use `.tolist()` on an array."
                )
                raise TypeError(msg)
        count = max(len(video_times), len(image_times))
        return cls(
            [
                Sweep(*halves)
                for halves in zip(
                    _half_steps("video", video_times, video_steps, count),
                    _half_steps("image", image_times, image_steps, count),
                    strict=True,
                )
            ],
            init=init,
            clamp=clamp,
            init_clamp=init_clamp,
        )

    @classmethod
    def calibrated(
        cls,
        delta: float | Sequence[float] | None = None,
        eta: float | None = None,
        num_steps: int | None = None,
        **options: Any,
    ) -> CalibratedSchedule:
        r"""
        Steps whose times make the chain sample the product-of-experts posterior.

        A stochastic autoencoder at relative noise variance :math:`r(t)` is, to first
        order, a Langevin step of size :math:`c^2 r(t) / 2`, with :math:`c` the model's
        ``pixel_scale``. The times solve

        .. math::

            \delta_k \eta = \tfrac12 c_V^2 \, r(t_k^V), \qquad
            \delta_k (1 - \eta) = \tfrac12 c_I^2 \, r(t_k^I)

        so that with Gaussian experts and constant :math:`\delta` the chain's stationary
        law tends to the exact posterior at first order in :math:`\delta`.

        :param float, Sequence[float] delta: step :math:`\delta`, one number or one per
            sweep, in squared [0, 1] pixel units; by default a geometric decrease.
        :param float eta: weight :math:`\eta` of the video prior, in [0, 1]; 1/2 by default.
            With one model alone it is 1 (video) or 0 (image).
        :param int num_steps: number of sweeps; 5 by default, or as many as ``delta`` has.
        :param options: ``init``, ``clamp`` and ``init_clamp``, as in the constructor.
        :return: (:class:`CalibratedSchedule`) the schedule.
        :raises ValueError: if an argument is out of range, or lengths disagree.
        """
        check_eta(eta)
        check_num_steps(num_steps)
        if delta is None:
            deltas = _geometric(*DEFAULT_DELTA, num_steps or DEFAULT_NUM_STEPS)
        elif isinstance(delta, Sequence) and not isinstance(delta, str):
            deltas = tuple(check_number("delta", value) for value in delta)
        else:
            value = check_number("delta", delta)
            deltas = (value,) * (num_steps or DEFAULT_NUM_STEPS)
        if num_steps not in (None, len(deltas)):
            msg = (
                f"`delta` has {len(deltas)} values, but `num_steps` is {num_steps}. Give "
                "one number for all sweeps, or one per sweep."
            )
            raise ValueError(msg)
        return CalibratedSchedule(delta=deltas, eta=eta, **options)

    @classmethod
    def embedded(
        cls,
        problem: str | Physics | None = None,
        eta: float | None = None,
        num_steps: int | None = None,
    ) -> CalibratedSchedule:
        r"""
        Calibrated schedule for the embedded models, with one setting per problem.

        The settings (``EMBEDDED_SETTINGS``: first and last step, number of sweeps, weight
        of the video prior) are the best of a grid on computed clips, those of A, B and C
        on footage too, with the problems' noise of 0.001 (``benchmarks/tune.py``, which
        says by what criterion). They start from total variation along the
        motion, ``init="motion"``: the steps are too small to forget a worse start, and
        that one knows operator and noise (:func:`deepinv_lvtino.optim.motion_start`).
        Everything else has ``EMBEDDED_DEFAULT``, the schedule without a name: on nine
        operators and noise from 0.01 to 0.1 the mean of samples was above the start, and
        one sample less than half a decibel below it, but for frames that are missing.
        Where an operator leaves frames out (``"every=2"``), those have
        ``EMBEDDED_MISSING_FRAMES``, one evaluation.

        :param str, deepinv.physics.Physics problem: name or description of a linear problem
            of :func:`deepinv_lvtino.make_problem`, or the operator itself, or ``None`` for
            the default setting.
        :param float eta: another weight of the video prior.
        :param int num_steps: another number of sweeps: fewer between the same first and
            last step, more with steps before them, each twice the next one.
        :return: (:class:`CalibratedSchedule`) the schedule.
        :raises ValueError: if the problem is unknown, or not linear, or a number is out of
            range.

        |sep|

        :Examples:

            >>> from deepinv_lvtino import Schedule
            >>> Schedule.embedded("A").num_steps
            2
            >>> Schedule.embedded("every=2, noise=0.01").num_steps
            1
        """
        missing = False
        if isinstance(problem, Physics):
            missing, problem = _leaves_frames_out(problem), None
        elif problem is not None:
            try:
                found = find_problem(problem)
            except ValueError as error:
                raise ValueError(str(error).replace("`name`", "`problem`")) from error
            if not found.linear:
                msg = (
                    f"`problem` must be linear; {problem!r} is not. Its schedule is "
                    "`Schedule.published('jpeg')`."
                )
                raise ValueError(msg)
            missing = found.operator.leaves_frames_out
            problem = found.name
        default = EMBEDDED_MISSING_FRAMES if missing else EMBEDDED_DEFAULT
        first, last, count, weight = EMBEDDED_SETTINGS.get(problem or "", default)
        check_num_steps(num_steps)
        asked = num_steps or count
        # larger ones before, as the models have no time for steps that are much smaller
        before = [first * 2.0**k for k in range(asked - count, 0, -1)]
        return cls.calibrated(
            [*before, *_geometric(first, last, min(asked, count))],
            weight if eta is None else eta,
            init="motion",
        )

    @classmethod
    def published(cls, problem: str) -> Schedule:
        r"""
        Settings released with the LVTINO paper.

        Numbers of steps, times, weights, projections and the early-stopped solvers are
        those of the released code. The times are in the units of Wan (rectified flow, 1 to
        1000) and SDXL (variance preserving, 0 to 999). Problem C was published with a start
        from an interpolation network, which is to be given as ``init``; ``'jpeg'`` starts
        from the measurement, as no proximal step exists to start from.

        :param str problem: ``'A'``, ``'B'``, ``'C'`` or ``'jpeg'``.
        :return: (:class:`Schedule`) the schedule.
        :raises ValueError: if the problem is unknown.
        """
        if not isinstance(problem, str) or problem not in _PUBLISHED:
            msg = (
                f"`problem` must be one of {', '.join(map(repr, _PUBLISHED))}; got "
                f"{problem!r}."
            )
            raise ValueError(msg)
        return _PUBLISHED[problem]


@dataclass(frozen=True)
class CalibratedSchedule(Schedule):
    r"""
    Schedule whose times follow from its steps; made by :meth:`Schedule.calibrated`.

    The sweeps are known only together with the models: see :meth:`resolve`.

    :param tuple[float, ...] delta: step of every sweep.
    :param float eta: weight of the video prior, or ``None`` for the default.
    :raises ValueError: if a step is not positive.
    """

    sweeps: Sequence[Sweep] = field(default=(), repr=False)
    delta: tuple[float, ...] = ()
    eta: float | None = None

    def __post_init__(self) -> None:
        check_clamp(self.clamp)
        check_clamp(self.init_clamp, "init_clamp")
        if self.sweeps:
            msg = (
                "`sweeps` of a calibrated schedule follow from `delta`; leave them out."
            )
            raise ValueError(msg)
        for value in self.delta:
            check_positive("delta", value)
        if not self.delta:
            msg = "`delta` must hold one step or more."
            raise ValueError(msg)

    @property
    def num_steps(self) -> int:
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


def _leaves_frames_out(physics: Physics) -> bool:
    """Whether no measured frame has anything of some frames of the video."""
    temporal = getattr(physics, "temporal", None)
    return temporal is not None and not bool(temporal.any(dim=0).all())


def _geometric(first: float, last: float, count: int) -> tuple[float, ...]:
    if count == 1:
        return (first,)
    return tuple(first * (last / first) ** (k / (count - 1)) for k in range(count))


def _half_steps(
    name: str, times: Sequence[float], steps: Sequence[float | DataStep], count: int
) -> list[HalfStep | None]:
    """Half-steps of one prior; the sweeps after the last time have none."""
    for time in times:
        check_number(f"{name}_times", time, least=0.0)
    for step in steps:
        if not isinstance(step, DataStep):
            check_positive(f"{name}_steps", step)
    if len(times) != len(steps) or len(times) > count:
        msg = (
            f"`{name}_times` and `{name}_steps` must have the same length, {count} at "
            f"most (the number of sweeps); got {len(times)} and {len(steps)}."
        )
        raise ValueError(msg)
    halves: list[HalfStep | None] = [
        HalfStep(time, step if isinstance(step, DataStep) else ProximalStep(step))
        for time, step in zip(times, steps, strict=True)
    ]
    return halves + [None] * (count - len(halves))


_VIDEO_TIMES = (757, 522, 375, 255, 125)
_IMAGE_TIMES = (374, 249, 124, 124)

# LVTINO, released settings (published constants of problems A, B, C and JPEG).
_PUBLISHED: dict[str, Schedule] = {
    "A": Schedule.explicit(
        _VIDEO_TIMES,
        [PrimalDualTVStep(200, lam=0.0002873789)] * 5,
        _IMAGE_TIMES,
        [ConjugateGradientStep(19, epsilon=1e-6)] * 4,
        init="prox",
        clamp=(0.0, 1.0),
        init_clamp=(-1.0, 1.0),
    ),
    "B": Schedule.explicit(
        _VIDEO_TIMES,
        [GammaStep(3539.0)] * 2 + [GammaStep(1363.0)] * 3,
        _IMAGE_TIMES,
        [GammaStep(16868.0)] * 2 + [GammaStep(2721.0)] * 2,
        init="prox",
        clamp=(0.0, 1.0),
        init_clamp=(-1.0, 1.0),
    ),
    "C": Schedule.explicit(
        _VIDEO_TIMES[:3],
        [AdamTVStep(55, lam=6.178523568938361e-07, learning_rate=0.019848)]
        + [AdamTVStep(55, lam=1.5583416542691956e-06, learning_rate=0.019848)] * 2,
        (249, 63),
        [ConjugateGradientStep(23, epsilon=0.0)] * 2,
        clamp=(0.0, 1.0),
        init_clamp=(-1.0, 1.0),
    ),
    # Published start: as A, which JPEG has no proximal step for; its pseudo-inverse is y.
    "jpeg": Schedule.explicit(
        _VIDEO_TIMES,
        [LandweberStep(10, gamma=0.6026)] * 5,
        _IMAGE_TIMES,
        [LandweberStep(10, gamma=0.5188)] * 4,
        init="pinv",
        clamp=(0.0, 1.0),
        init_clamp=(-1.0, 1.0),
    ),
}

#: Names of the problems that :meth:`Schedule.published` knows.
PUBLISHED_PROBLEMS = tuple(_PUBLISHED)
