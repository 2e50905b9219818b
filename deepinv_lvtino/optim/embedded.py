r"""The settings of the embedded models, one per problem."""

from __future__ import annotations

from typing import NamedTuple

from deepinv.physics import Physics

from deepinv_lvtino.optim.calibrated import (
    CalibratedSchedule,
    check_eta,
    check_num_steps,
    geometric,
)
from deepinv_lvtino.physics.problems import find_problem


class EmbeddedSetting(NamedTuple):
    r"""
    A calibrated schedule in four numbers.

    :param float first: first step, in squared [0, 1] pixel units.
    :param float last: last step.
    :param int num_steps: number of sweeps.
    :param float eta: weight of the video prior.
    """

    first: float
    last: float
    num_steps: int
    eta: float


#: The settings of :meth:`Schedule.embedded` for problems by name.
EMBEDDED_SETTINGS = {
    "A": EmbeddedSetting(0.0014, 0.00035, 2, 0.9),
    "B": EmbeddedSetting(0.0056, 0.00035, 3, 0.9),
    "C": EmbeddedSetting(0.0056, 0.00035, 3, 0.9),
    "deblur": EmbeddedSetting(0.14, 0.0014, 5, 0.9),
    "deblur-temporal": EmbeddedSetting(0.14, 0.0014, 5, 0.9),
    "sr4": EmbeddedSetting(0.0056, 0.00035, 3, 0.9),
    "sr4-temporal": EmbeddedSetting(0.0056, 0.00035, 3, 0.9),
}

#: The same for every other operator and any noise: small steps, so that one sample stays
#: near its start, which knows operator and noise.
EMBEDDED_DEFAULT = EmbeddedSetting(0.0014, 0.00012, 2, 0.9)

#: The same where frames are missing, which motion compensation interpolates better than the
#: video prior does: the smallest step there is.
EMBEDDED_MISSING_FRAMES = EmbeddedSetting(0.00012, 0.00012, 1, 1.0)


def embedded_schedule(
    problem: str | Physics | None = None,
    eta: float | None = None,
    num_steps: int | None = None,
) -> CalibratedSchedule:
    r"""
    See :meth:`Schedule.embedded`.

    :param str, deepinv.physics.Physics problem: name, description or operator, or ``None``.
    :param float eta: another weight of the video prior.
    :param int num_steps: another number of sweeps.
    :return: (:class:`CalibratedSchedule`) the schedule.
    :raises ValueError: if the problem is unknown, or not linear, or a number is out of
        range.
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
    check_eta(eta)
    check_num_steps(num_steps)
    asked = num_steps or count
    # larger ones before, as the models have no time for steps that are much smaller
    before = (first * 2.0**k for k in range(asked - count, 0, -1))
    return CalibratedSchedule(
        (*before, *geometric(first, last, min(asked, count))),
        weight if eta is None else eta,
        init="motion",
    )


def _leaves_frames_out(physics: Physics) -> bool:
    """Whether no measured frame has anything of some frames of the video."""
    temporal = getattr(physics, "temporal", None)
    return temporal is not None and not bool(temporal.any(dim=0).all())
