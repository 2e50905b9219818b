r"""One sweep of LVTINO as a DeepInverse iteration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from deepinv.optim import DataFidelity, OptimIterator
from deepinv.optim.optim_iterators.optim_iterator import fStep, gStep
from deepinv.physics import Physics
from torch import Tensor

from deepinv_lvtino.models._memory import with_room
from deepinv_lvtino.optim.damped import require_finite
from deepinv_lvtino.optim.data_steps import DataStep, Interval
from deepinv_lvtino.optim.noise import global_noise
from deepinv_lvtino.optim.priors import ProductOfExperts, SAEPrior
from deepinv_lvtino.optim.sweep import Sweep

Callback = Callable[[str, Tensor], None]


class LVTINOIteration(OptimIterator):
    r"""
    One sweep of LVTINO :footcite:p:`spagnoletti2025lvtino` (Algorithm 1).

    .. math::

        x_{k+1/4} &= \operatorname{SAE}_V(x_k, t_k^V) \\
        x_{k+1/2} &= \underset{u}{\arg\min} \; g_y(u)
        + \phi_\lambda(u) + \frac{1}{2 \delta_k \eta} \|u - x_{k+1/4}\|^2 \\
        x_{k+3/4} &= \operatorname{SAE}_I(x_{k+1/2}, t_k^I) \\
        x_{k+1} &= \underset{u}{\arg\min} \; g_y(u)
        + \frac{1}{2 \delta_k (1-\eta)} \|u - x_{k+3/4}\|^2

    A half that the current :class:`Sweep` does not have is passed over. As in every
    DeepInverse iteration the priors act through ``g_step`` and the data through ``f_step``.

    |sep|

    .. footbibliography::
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(has_cost=False, g_first=True, **kwargs)
        self.f_step = fStepLVTINO(g_first=True)
        self.g_step = gStepLVTINO(g_first=True)

    def forward(
        self,
        X: dict[str, Any],
        cur_data_fidelity: DataFidelity,
        cur_prior: ProductOfExperts,
        cur_params: dict[str, Any],
        y: Tensor,
        physics: Physics,
        *args: Any,
        noise_source: Callable[[str, Tensor], Tensor] = global_noise,
        callback: Callback | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        r"""
        Run one sweep.

        :param dict X: current iterate ``{"est": (x, state), "cost": None}``, with the state
            of the data steps (a dual variable, or ``None``); it may be missing. A start may
            also hold ``"first_sweep"``: sweeps before that one are passed over.
        :param deepinv.optim.DataFidelity cur_data_fidelity: data fidelity :math:`g_y`.
        :param ProductOfExperts cur_prior: the priors.
        :param dict cur_params: ``"sweep"`` (:class:`Sweep`), ``"index"`` (number of the
            sweep, for the labels of its noise) and ``"clamp"`` (interval or ``None``).
        :param torch.Tensor y: measurement.
        :param deepinv.physics.Physics physics: measurement operator.
        :param Callable noise_source: ``(label, like)`` to standard normal noise, called
            with ``"k0/video"``, ``"k0/image"``, ``"k1/video"``, …
        :param Callable callback: ``(label, x)``, called with every video of the sweep, see
            :meth:`LVTINO.forward`.
        :return: (dict) next iterate.
        """
        index, first = cur_params["index"], X.get("first_sweep", 0)
        if index < first:
            return X
        tell = callback if callback is not None else _ignore
        x, state = X["est"] if len(X["est"]) == 2 else (X["est"][0], None)
        sweep: Sweep = cur_params["sweep"]
        clamp: Interval = cur_params["clamp"]
        if index == first:
            tell("start", x)
        for half in sweep.halves:
            label = f"k{index}/{half.expert}"
            x = self.g_step(
                x,
                cur_prior.expert(half.expert),
                half.time,
                lambda like, label=label: noise_source(label, like),
                clamp,
            )
            tell(f"{label}/prior", x)
            if half.data_step is not None:
                x, state = self.f_step(
                    x, cur_data_fidelity, half.data_step, y, physics, clamp, state
                )
                tell(f"{label}/data", x)
        return {"est": (x, state), "cost": None}


class gStepLVTINO(gStep):
    r"""Prior half-step: one stochastic autoencoding."""

    def forward(
        self,
        x: Tensor,
        cur_prior: SAEPrior,
        time: float,
        noise: Callable[[Tensor], Tensor],
        clamp: Interval = None,
    ) -> Tensor:
        r"""
        Apply one expert.

        :param torch.Tensor x: video, shape ``(B, C, T, H, W)``.
        :param SAEPrior cur_prior: the expert.
        :param float time: time of the model.
        :param Callable noise: gives the noise for a tensor like its argument.
        :param tuple[float, float] clamp: interval that what an image model is given, and
            what a video model returns, are projected to, or ``None``.
        :return: (:class:`torch.Tensor`) video, shape of ``x``.
        """
        if cur_prior.model.per_frame:
            return cur_prior.prox(_project(x, clamp), time, noise=noise)
        return _project(cur_prior.prox(x, time, noise=noise), clamp)


class fStepLVTINO(fStep):
    r"""Data half-step."""

    def forward(
        self,
        x: Tensor,
        cur_data_fidelity: DataFidelity,
        data_step: DataStep,
        y: Tensor,
        physics: Physics,
        clamp: Interval = None,
        state: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        r"""
        Pull the video towards the measurement.

        :param torch.Tensor x: video, shape ``(B, C, T, H, W)``.
        :param deepinv.optim.DataFidelity cur_data_fidelity: data fidelity :math:`g_y`.
        :param DataStep data_step: the step, with its numbers.
        :param torch.Tensor y: measurement.
        :param deepinv.physics.Physics physics: measurement operator.
        :param tuple[float, float] clamp: interval that the step projects to, its result or
            what its kind says (see :class:`DataStep`), or ``None``.
        :param torch.Tensor state: state of the data steps, see :meth:`DataStep.advance`.
        :return: (tuple) video, shape of ``x``, and new state.
        :raises OutOfMemory: if the memory does not suffice, even once the networks that
            may leave the device have done so.
        :raises DataStepError: if the step has no answer, or one that is not finite.
        """
        data_step = data_step.within(clamp)
        settings = {"a smaller video": "fewer frames or pixels"}
        if x.device.type != "cpu":
            settings = {"`offload=True`": "no network stays on the device"} | settings
        u, state = with_room(
            lambda: data_step.advance(x, y, physics, cur_data_fidelity, state),
            x.device,
            what="data step",
            settings=settings,
        )
        require_finite(**{"the video after the data step": u})
        return (_project(u, clamp) if data_step.clamped else u), state


def _project(x: Tensor, interval: Interval) -> Tensor:
    return x if interval is None else x.clamp(*interval)


def _ignore(label: str, x: Tensor) -> None:
    """Callback of a run that nobody watches."""
