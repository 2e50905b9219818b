r"""One sweep of the sampler, and what makes a list of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

from deepinv_lvtino.models import ConsistencyModel
from deepinv_lvtino.optim.data_steps import DataStep, Interval
from deepinv_lvtino.optim.tv.prox import as_variation
from deepinv_lvtino.optim.tv.variation import Variation
from deepinv_lvtino.utils import check_number


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


class Half(NamedTuple):
    r"""
    A half-step with the expert that takes it.

    :param str expert: ``'video'`` or ``'image'``, as in :class:`ProductOfExperts`.
    :param float time: time of the stochastic autoencoder, in its model's unit.
    :param DataStep data_step: data step that follows, or ``None`` for none.
    """

    expert: str
    time: float
    data_step: DataStep | None


@dataclass(frozen=True)
class Sweep:
    r"""
    One sweep of the sampler: the video half, then the image half; either may be missing.

    :param HalfStep video: video prior and first data step, or ``None``.
    :param HalfStep image: image prior and second data step, or ``None``.
    """

    video: HalfStep | None = None
    image: HalfStep | None = None

    @property
    def halves(self) -> tuple[Half, ...]:
        r"""The halves that there are, in order."""
        named = (("video", self.video), ("image", self.image))
        return tuple(
            Half(expert, step.time, step.data_step)
            for expert, step in named
            if step is not None
        )

    def with_data_step(self, index: int, data_step: DataStep | None) -> Sweep:
        r"""
        The same sweep with another data step in one of its halves.

        :param int index: which of :attr:`halves`; -1 for the last.
        :param DataStep data_step: the data step, or ``None`` for none.
        :return: (:class:`Sweep`) the sweep.
        """
        steps = {
            half.expert: HalfStep(half.time, half.data_step) for half in self.halves
        }
        half = self.halves[index]
        steps[half.expert] = HalfStep(half.time, data_step)
        return Sweep(steps.get("video"), steps.get("image"))


@runtime_checkable
class SweepPlan(Protocol):
    r"""
    What :class:`LVTINO` needs of a schedule: the sweeps for the models at hand.

    :class:`Schedule` and :class:`CalibratedSchedule` are such plans.
    """

    @property
    def init(self) -> str:
        r"""Where the run starts unless it is told: a name among ``STARTS``."""

    @property
    def clamp(self) -> Interval:
        r"""Interval that intermediate videos are projected to, or ``None``."""

    @property
    def init_clamp(self) -> Interval:
        r"""Interval that the start is projected to; ``None`` for that of the others."""

    @property
    def eta(self) -> float | None:
        r"""Weight of the video prior that it was made for; ``None`` if it has none."""

    @property
    def num_steps(self) -> int:
        r"""Number of sweeps."""

    def resolve(
        self,
        video_model: ConsistencyModel | None,
        image_model: ConsistencyModel | None,
        eta: float | None = None,
    ) -> tuple[Sweep, ...]:
        r"""
        The sweeps for given models.

        :param ConsistencyModel video_model: video model, or ``None``.
        :param ConsistencyModel image_model: image model, or ``None``.
        :param float eta: weight of the video prior; its own by default.
        :return: (tuple[Sweep, ...]) the sweeps, each with something to do.
        """


def with_variation(
    sweeps: Sequence[Sweep],
    tv: str | Variation,
    lambda_reg: float | Sequence[float],
    options: dict[str, Any],
) -> tuple[Sweep, ...]:
    r"""
    Total variation in the first data step of every sweep.

    :param Sequence[Sweep] sweeps: the sweeps.
    :param str, Variation tv: the variation, or its name.
    :param float, Sequence[float] lambda_reg: its weight, one number or one per sweep.
    :param dict options: of :func:`prox_l2_tv`.
    :return: (tuple[Sweep, ...]) sweeps with it.
    :raises ValueError: if there are not as many weights as sweeps, or a sweep begins
        without a data step.
    """
    variation = as_variation("tv", tv)
    if not isinstance(lambda_reg, Sequence):
        lambda_reg = [lambda_reg] * len(sweeps)
    if len(lambda_reg) != len(sweeps):
        msg = (
            f"`lambda_reg` must be one number or one per sweep ({len(sweeps)}); got "
            f"{len(lambda_reg)}."
        )
        raise ValueError(msg)
    varied = []
    for sweep, weight in zip(sweeps, lambda_reg, strict=True):
        step = sweep.halves[0].data_step
        if step is None:
            msg = (
                "`tv` needs a data step in the first half of every sweep of `schedule`; "
                "one is None. Give a step, such as ProximalStep(0.01)."
            )
            raise ValueError(msg)
        step = step.with_variation(variation, weight, options)
        varied.append(sweep.with_data_step(0, step))
    return tuple(varied)
