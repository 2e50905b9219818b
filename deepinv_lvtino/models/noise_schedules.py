r"""
Noise conventions of diffusion and consistency models, as pure functions of time.

A schedule says how a clean latent :math:`z` becomes a noisy one,
:math:`z_t = a(t) z + s(t) \varepsilon`. It holds no step counter: everything is a
function of :math:`t`, in double precision.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property

from deepinv_lvtino.utils import (
    check_counts,
    check_integer,
    check_number,
    check_positive,
)


class NoiseSchedule(ABC):
    r"""Map from a model's time :math:`t` to signal and noise levels."""

    @abstractmethod
    def alpha(self, t: float) -> float:
        r"""
        Signal level :math:`a(t)`.

        :param float t: time, in the model's own unit.
        :return: (float) the level, in [0, 1].
        """

    @abstractmethod
    def sigma(self, t: float) -> float:
        r"""
        Noise level :math:`s(t)`.

        :param float t: time, in the model's own unit.
        :return: (float) the level, in [0, 1].
        """

    @abstractmethod
    def time(self, noise_ratio: float) -> float:
        r"""
        Time at which :math:`s^2/a^2` has a given value: inverse of :meth:`noise_ratio`.

        :param float noise_ratio: relative noise variance, positive.
        :return: (float) the time.
        :raises ValueError: if the schedule does not reach that value.
        """

    def noise_ratio(self, t: float) -> float:
        r"""
        Relative noise variance :math:`r(t) = s(t)^2 / a(t)^2`.

        :param float t: time, in the model's own unit.
        :return: (float) the ratio; infinite where the signal vanishes.
        """
        alpha = self.alpha(t)
        return (self.sigma(t) / alpha) ** 2 if alpha > 0 else math.inf


@dataclass(frozen=True)
class VariancePreserving(NoiseSchedule):
    r"""
    Variance-preserving noise, of Stable Diffusion (XL) and its distillations.

    .. math::

        a(t) = \sqrt{\bar\alpha_t}, \quad s(t) = \sqrt{1 - \bar\alpha_t}, \quad
        \bar\alpha_t = \prod_{i \le t} (1 - \beta_i), \quad
        \sqrt{\beta_i} \text{ linear from } \sqrt{\beta_0} \text{ to } \sqrt{\beta_{n-1}}

    Times are :math:`t \in [0, n - 1]`. At integers the table is exact; in between
    :math:`\log r(t)` is interpolated linearly.

    :param int num_steps: length :math:`n` of the table.
    :param float beta_start: :math:`\beta_0`.
    :param float beta_end: :math:`\beta_{n-1}`.
    :raises TypeError: if one is not a number, or ``num_steps`` not an integer.
    :raises ValueError: if there are fewer than two steps, or the others do not rise from
        above 0 to below 1.

    |sep|

    :Examples:

        >>> from deepinv_lvtino.models import VariancePreserving
        >>> round(VariancePreserving().alpha(374) ** 2, 5)
        0.46671
    """

    num_steps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012

    def __post_init__(self) -> None:
        check_integer("num_steps", self.num_steps, 2)
        check_positive("beta_start", self.beta_start)
        check_number("beta_end", self.beta_end)
        if not self.beta_start <= self.beta_end < 1:
            msg = (
                "`beta_end` must be below 1, and not below `beta_start`; got "
                f"{self.beta_end} and {self.beta_start}."
            )
            raise ValueError(msg)

    @cached_property
    def _log_ratio(self) -> tuple[float, ...]:
        low, high = math.sqrt(self.beta_start), math.sqrt(self.beta_end)
        step = (high - low) / max(self.num_steps - 1, 1)
        log_abar, table = 0.0, []
        for i in range(self.num_steps):
            log_abar += math.log1p(-((low + i * step) ** 2))
            table.append(math.log(-math.expm1(log_abar)) - log_abar)
        return tuple(table)

    def _log_ratio_at(self, t: float) -> float:
        if not 0 <= check_number("t", t) <= self.num_steps - 1:
            msg = f"`t` must lie in [0, {self.num_steps - 1}]; got {t}."
            raise ValueError(msg)
        below = min(int(t), self.num_steps - 2)
        weight = t - below
        table = self._log_ratio
        return (1 - weight) * table[below] + weight * table[below + 1]

    def alpha(self, t: float) -> float:
        return 1 / math.sqrt(1 + math.exp(self._log_ratio_at(t)))

    def sigma(self, t: float) -> float:
        return 1 / math.sqrt(1 + math.exp(-self._log_ratio_at(t)))

    def time(self, noise_ratio: float) -> float:
        table = self._log_ratio
        target = math.log(noise_ratio) if noise_ratio > 0 else -math.inf
        if not table[0] <= target <= table[-1]:
            msg = (
                f"`noise_ratio` must lie in [{math.exp(table[0]):.3g}, "
                f"{math.exp(table[-1]):.3g}] for this schedule; got {noise_ratio:.3g}. "
                "Change the step `delta` accordingly."
            )
            raise ValueError(msg)
        above = max(bisect_left(table, target), 1)
        low, high = table[above - 1], table[above]
        return above - 1 + (target - low) / (high - low)


@dataclass(frozen=True)
class RectifiedFlow(NoiseSchedule):
    r"""
    Straight-line noise, of Wan and its distillations.

    .. math::

        a(t) = 1 - \sigma, \quad s(t) = \sigma, \quad \sigma = t / n

    Times are :math:`t \in (0, n]`. With ``snap=True`` the noise level is the nearest
    entry of the model's timetable,
    :math:`\sigma_i = k u_i / (1 + (k - 1) u_i)`, :math:`u_i = 1 - i / n`, with shift
    :math:`k`; the time itself is left as requested.

    :param int num_steps: length :math:`n` of the timetable, and largest time.
    :param float shift: shift :math:`k` of the timetable.
    :param bool snap: use the timetable rather than the exact time.
    :raises TypeError: if ``num_steps`` is not an integer, or ``shift`` not a number.
    :raises ValueError: if one is not positive.

    |sep|

    :Examples:

        >>> from deepinv_lvtino.models import RectifiedFlow
        >>> round(RectifiedFlow(shift=8, snap=True).sigma(757), 6)
        0.756757
    """

    num_steps: int = 1000
    shift: float = 8.0
    snap: bool = False

    def __post_init__(self) -> None:
        check_counts(num_steps=self.num_steps)
        check_positive("shift", self.shift)

    @cached_property
    def _table(self) -> tuple[float, ...]:
        ramp = [1 - i / self.num_steps for i in range(self.num_steps)]
        return tuple(self.shift * u / (1 + (self.shift - 1) * u) for u in ramp)

    def sigma(self, t: float) -> float:
        if not 0 < check_number("t", t) <= self.num_steps:
            msg = f"`t` must lie in (0, {self.num_steps}]; got {t}."
            raise ValueError(msg)
        sigma = t / self.num_steps
        if self.snap:
            sigma = min(self._table, key=lambda entry: abs(entry - sigma))
        return sigma

    def alpha(self, t: float) -> float:
        return 1 - self.sigma(t)

    def time(self, noise_ratio: float) -> float:
        if not noise_ratio > 0:
            msg = f"`noise_ratio` must be positive; got {noise_ratio}."
            raise ValueError(msg)
        if math.isinf(noise_ratio):
            return float(self.num_steps)
        root = math.sqrt(noise_ratio)
        return self.num_steps * root / (1 + root)
