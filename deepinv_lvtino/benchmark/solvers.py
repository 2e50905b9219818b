r"""The solvers of a benchmark by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from deepinv.models import Denoiser
from deepinv.optim.data_fidelity import L2
from deepinv.physics import Physics
from deepinv.sampling import DPS, DiffPIR
from torch import Tensor

from deepinv_lvtino.benchmark.problems import OwnProblem
from deepinv_lvtino.models import (
    ConsistencyModel,
    tiny_image,
    tiny_video,
)
from deepinv_lvtino.models.adapter import measure_pixel_scales
from deepinv_lvtino.optim import (
    ADMMTV,
    LVTINO,
    CalibratedSchedule,
    MotionTV,
    PnPADMM,
    Schedule,
    SweepPlan,
    pseudo_inverse,
)
from deepinv_lvtino.optim.baselines import TV_SETTINGS
from deepinv_lvtino.optim.published import PUBLISHED_PROBLEMS
from deepinv_lvtino.physics import PROBLEMS
from deepinv_lvtino.physics.problems import Problem

Reconstructor = Callable[[Tensor, Physics], Tensor]

#: Steps and guidance of the two diffusion samplers of DeepInverse; see :data:`SOLVERS`.
DIFFPIR_STEPS, DPS_STEPS, DPS_WEIGHT = 20, 100, 200.0


class NotApplicable(Exception):
    r"""A solver has no answer to a problem; the message says why."""


def _no_notes() -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Models:
    r"""
    The networks that the solvers share, loaded when the first one needs them.

    :param Callable load: no argument to the video and the image model, of which one may
        be ``None``, on the device of the benchmark.
    :param str name: what tables and files call them.
    :param Callable schedule: from the name of a problem (a description, or ``'own'`` for
        a physics of one's own) and a weight of the video prior (or ``None``) to the
        schedule of LVTINO. What is not linear has the name ``'jpeg'``.
    :param Callable describe: no argument to what is noted of the loaded networks beside
        their results.
    """

    load: Callable[[], tuple[ConsistencyModel | None, ConsistencyModel | None]]
    name: str
    schedule: Callable[[str, float | None], SweepPlan]
    describe: Callable[[], dict[str, Any]] = _no_notes

    @cached_property
    def pair(self) -> tuple[ConsistencyModel | None, ConsistencyModel | None]:
        r"""Video and image model."""
        return self.load()

    @property
    def loaded(self) -> bool:
        r"""Whether the networks were needed yet."""
        return "pair" in vars(self)

    def settings_for_benchmark(self) -> dict[str, Any]:
        r"""
        What a solver that refers to the networks is known by; they are loaded for it.

        :return: (dict) the name and the networks.
        """
        return {"name": self.name, "pair": self.pair}

    @classmethod
    def embedded(cls, device: torch.device | str = "cpu") -> Models:
        r"""
        The embedded models, with the settings for them.

        :param torch.device device: device.
        :return: (:class:`Models`) the models.
        """

        def schedule(problem: str, eta: float | None) -> SweepPlan:
            if problem not in PROBLEMS:
                return Schedule.embedded(None, eta)
            if PROBLEMS[problem].linear:
                return Schedule.embedded(problem, eta)
            return Schedule.published(problem)

        return cls(
            lambda: (tiny_video().to(device), tiny_image().to(device)),
            "embedded",
            schedule,
        )

    @classmethod
    def published(
        cls,
        load: Callable[[], tuple[ConsistencyModel | None, ConsistencyModel | None]],
        name: str = "wan",
        describe: Callable[[], dict[str, Any]] = _no_notes,
    ) -> Models:
        r"""
        Wan and SDXL, with the published settings where there are any.

        :param Callable load: no argument to the video and the image model.
        :param str name: what tables and files call them.
        :param Callable describe: as in the class.
        :return: (:class:`Models`) the models.
        """

        def schedule(problem: str, eta: float | None) -> SweepPlan:
            if problem in PUBLISHED_PROBLEMS and eta in (None, 0, 1):
                return Schedule.published(problem)
            return Schedule.calibrated(eta=eta)

        return cls(load, name, schedule, describe)

    def denoiser(self) -> Denoiser:
        r"""
        The video model as a denoiser.

        :return: (deepinv.models.Denoiser) the denoiser.
        :raises NotApplicable: if there is no such view of the model.
        """
        view = getattr(self.pair[0], "as_denoiser", None)
        if view is None:
            msg = f"the video model of {self.name!r} has no view as a denoiser"
            raise NotApplicable(msg)
        return view()


@dataclass(frozen=True)
class Setting:
    r"""
    What a solver is built for.

    :param Problem problem: the problem; of a physics of one's own its ``name`` (the label),
        ``linear`` and ``sigma``.
    :param Models models: the networks.
    :param float sigma: standard deviation of the noise; ``None`` where a physics of one's
        own does not say it.
    :param torch.device device: device.
    :param int seed: seed of its randomness.
    :param int num_samples: samples of a posterior mean.
    :param float eta: weight of the video prior; the setting of the problem by default.
    """

    problem: Problem | OwnProblem
    models: Models
    sigma: float | None
    device: torch.device
    seed: int = 0
    num_samples: int = 8
    eta: float | None = None


@dataclass(frozen=True)
class Solver:
    r"""
    A solver by name.

    :param str description: one line for people.
    :param Callable make: from a :class:`Setting` to a reconstructor, a function
        ``(y, physics)`` to a video; may raise :class:`NotApplicable`.
    :param bool linear_only: whether it needs a linear operator.
    """

    description: str
    make: Callable[[Setting], Reconstructor]
    linear_only: bool = True

    def check(self, problem: Problem | OwnProblem) -> None:
        r"""
        Refuse a problem that needs more than the solver can do.

        :param Problem problem: the problem.
        :raises NotApplicable: if it is not linear and has to be.
        """
        if self.linear_only and not problem.linear:
            msg = "it needs a linear operator"
            raise NotApplicable(msg)


def _tuned_name(problem: Problem | OwnProblem) -> str:
    """Name by which there may be settings; the label of one's own says nothing."""
    if isinstance(problem, OwnProblem):
        return "own"
    return problem.name if problem.linear else "jpeg"


def _pinv(setting: Setting) -> Reconstructor:
    return pseudo_inverse


def _admm_tv(setting: Setting) -> Reconstructor:
    name = _tuned_name(setting.problem)
    return ADMMTV(name) if name in TV_SETTINGS else ADMMTV()


def _pnp_admm(setting: Setting) -> Reconstructor:
    return PnPADMM(setting.models.denoiser())


def _diffpir(setting: Setting) -> Reconstructor:
    if not setting.sigma:
        msg = "it needs the level of the noise, which the physics does not say"
        raise NotApplicable(msg)
    return DiffPIR(
        setting.models.denoiser(),
        L2(),
        sigma=setting.sigma,
        max_iter=DIFFPIR_STEPS,
        zeta=1.0,
        device=setting.device,
    )


def _dps(setting: Setting) -> Reconstructor:
    return DPS(
        setting.models.denoiser(),
        num_steps=DPS_STEPS,
        weight=DPS_WEIGHT,
        device=setting.device,
        dtype=torch.float32,
    )


class _Sampler:
    """LVTINO with one or both priors, as one sample or as the mean of several."""

    def __init__(
        self,
        setting: Setting,
        video: bool = True,
        image: bool = True,
        num_samples: int | None = None,
    ) -> None:
        self.setting = setting
        self.num_samples = num_samples
        if isinstance(setting.problem, OwnProblem) and not setting.problem.linear:
            msg = "it has no schedule for a physics of one's own that is not linear"
            raise NotApplicable(msg)
        models = setting.models
        # a weight of 0 or 1 leaves one prior
        wanted = video and setting.eta != 0, image and setting.eta != 1
        self.models = [
            model if kept else None
            for model, kept in zip(models.pair, wanted, strict=True)
        ]
        if self.models == [None, None]:
            msg = f"the models {models.name!r} have none for this prior"
            raise NotApplicable(msg)
        both = None not in self.models
        self.schedule = models.schedule(
            _tuned_name(setting.problem), setting.eta if both else None
        )

    def settings_for_benchmark(self) -> dict[str, Any]:
        """What it is known by; other attributes of the models are measured anew."""
        return {
            "schedule": self.schedule,
            "samples": self.num_samples,
            "seed": self.setting.seed,
            "models": self.models,
        }

    def __call__(self, y: Tensor, physics: Physics) -> Tensor:
        if isinstance(self.schedule, CalibratedSchedule):
            measure_pixel_scales(self.models, y, physics, self.setting.seed)
        solver = LVTINO(*self.models, schedule=self.schedule, seed=self.setting.seed)
        if self.num_samples is None:
            return solver(y, physics)
        return solver.sample(y, physics, self.num_samples)[0]


#: The solvers by name; add your own, or give them to :class:`Benchmark`.
#:
#: ``diffpir`` and ``dps`` are DeepInverse's samplers as they are, on videos of five axes:
#: DiffPIR with 20 steps and fresh noise in each (``zeta=1``), DPS with 100 steps and a
#: guidance of weight 200, ten times fewer steps than published and the best weight of a
#: few on a procedural clip.
SOLVERS: dict[str, Solver] = {
    "pinv": Solver(
        "pseudo-inverse, without what lies below the noise",
        _pinv,
        linear_only=False,
    ),
    "admm-tv": Solver("total variation over space and time, by ADMM", _admm_tv),
    "motion-tv": Solver(
        "total variation along the motion of the video", lambda setting: MotionTV()
    ),
    "pnp-admm": Solver("plug-and-play ADMM with the video network", _pnp_admm),
    "diffpir": Solver("DiffPIR of DeepInverse with the video network", _diffpir),
    "dps": Solver("DPS of DeepInverse with the video network", _dps),
    "lvtino": Solver("LVTINO, one sample", _Sampler, linear_only=False),
    "lvtino-mean": Solver(
        "LVTINO, mean of several samples",
        lambda setting: _Sampler(setting, num_samples=setting.num_samples),
        linear_only=False,
    ),
    "lvtino-v": Solver(
        "LVTINO with the video prior alone, one sample",
        lambda setting: _Sampler(setting, image=False),
        linear_only=False,
    ),
    "latino": Solver(
        "LATINO, the image prior alone frame by frame, one sample",
        lambda setting: _Sampler(setting, video=False),
        linear_only=False,
    ),
}


def as_solvers(solvers: Any) -> dict[str, Solver]:
    r"""
    Names, functions and solvers to solvers by label.

    :param Sequence[str] | dict solvers: names; or a dictionary from labels to names,
        :class:`Solver` objects, or reconstructors, functions ``(y, physics)`` to a video.
    :return: (dict[str, Solver]) the solvers.
    :raises ValueError: if a name is unknown, or there is none.
    :raises TypeError: if one is none of these.
    """
    items = solvers if isinstance(solvers, dict) else {name: name for name in solvers}
    if not items:
        msg = "`solvers` must hold one solver or more; got none."
        raise ValueError(msg)
    found: dict[str, Solver] = {}
    for label, value in items.items():
        if isinstance(value, str):
            if value not in SOLVERS:
                msg = (
                    f"`solvers` must be among {', '.join(map(repr, SOLVERS))}, or a "
                    f"dictionary with your own; got {value!r}."
                )
                raise ValueError(msg)
            value = SOLVERS[value]
        elif not isinstance(value, Solver):
            if not callable(value):
                msg = (
                    f"`solvers[{label!r}]` must be a name, a Solver, or a function "
                    f"(y, physics) to a video; got {type(value).__name__}."
                )
                raise TypeError(msg)
            value = Solver(
                type(value).__name__,
                lambda setting, own=value: own,  # type: ignore[misc]
                linear_only=False,
            )
        found[label] = value
    return found
