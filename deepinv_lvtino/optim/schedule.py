r"""What a run does in each sweep: times of the models, numbers of the data steps."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deepinv.physics import Physics

from deepinv_lvtino.models import ConsistencyModel
from deepinv_lvtino.optim.calibrated import CalibratedSchedule, check_eta, steps_of
from deepinv_lvtino.optim.data_steps import DataStep, ProximalStep
from deepinv_lvtino.optim.embedded import embedded_schedule
from deepinv_lvtino.optim.published import (
    PUBLISHED_CLAMP,
    PUBLISHED_INIT_CLAMP,
    PUBLISHED_SETTINGS,
)
from deepinv_lvtino.optim.settings import Settings
from deepinv_lvtino.optim.sweep import HalfStep, Sweep
from deepinv_lvtino.utils import check_clamp, check_number, check_positive


@dataclass(frozen=True)
class Schedule:
    r"""
    Times and data steps of every sweep.

    The constructor and :meth:`explicit` take them as they are; :meth:`calibrated` makes a
    :class:`CalibratedSchedule`, whose times follow from the steps so that the sampler is
    statistically consistent (the default), and :meth:`published` gives the settings
    released with the LVTINO paper.

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
        if not all(sweep.halves for sweep in self.sweeps) or not self.sweeps:
            msg = "`sweeps` must hold one sweep or more, each with a half-step to do."
            raise ValueError(msg)

    @property
    def num_steps(self) -> int:
        r"""Number of sweeps."""
        return len(self.sweeps)

    @property
    def eta(self) -> None:
        r"""Weight of the video prior: none, as the steps are what they are."""
        return None

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
        kept = [sweep for sweep in kept if sweep.halves]
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
        return CalibratedSchedule(steps_of(delta, num_steps), eta, **options)

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
        on footage too, with the problems' noise of 0.001 (by the criterion of
        :class:`deepinv_lvtino.tuning.Tuning`). They start from total variation along the
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
        return embedded_schedule(problem, eta, num_steps)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CalibratedSchedule:
        r"""
        Schedule of a file that :meth:`Settings.save` or ``deepinv-lvtino tune`` wrote.

        :param str path: the file.
        :return: (:class:`CalibratedSchedule`) the schedule.
        :raises OSError: if it cannot be read.
        :raises ValueError: if it is no file of settings, or they have a variation, too:
            then ``LVTINO(**Settings.load(path).options)`` takes both.
        """
        settings = Settings.load(path)
        if settings.tv is not None:
            msg = (
                f"`path`: the settings of {path} have a variation (tv={settings.tv!r}) "
                "beside their schedule. Use LVTINO(**Settings.load(path).options)."
            )
            raise ValueError(msg)
        return settings.schedule

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
        if not isinstance(problem, str) or problem not in PUBLISHED_SETTINGS:
            msg = (
                f"`problem` must be one of {', '.join(map(repr, PUBLISHED_SETTINGS))}; "
                f"got {problem!r}."
            )
            raise ValueError(msg)
        setting = PUBLISHED_SETTINGS[problem]
        return cls.explicit(
            setting.video_times,
            setting.video_steps,
            setting.image_times,
            setting.image_steps,
            init=setting.init,
            clamp=PUBLISHED_CLAMP,
            init_clamp=PUBLISHED_INIT_CLAMP,
        )


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
