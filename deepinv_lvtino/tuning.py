r"""
Settings for an operator of your own, by Optuna.

The criterion is that of the settings that the package has: the mean, over the clips, of
the PSNR of the mean of eight samples; of the trials within 0.02 dB of the best, the one
with the highest PSNR of a sample. Two samples tell the error of a mean of eight: the error
of the mean of infinitely many, plus an eighth of the variance.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from deepinv.physics import Physics
from torch import Tensor

from deepinv_lvtino._environment import weights_digest
from deepinv_lvtino.models import ConsistencyModel, tiny_image, tiny_video
from deepinv_lvtino.optim import LVTINO, STARTS, CalibratedSchedule, Schedule
from deepinv_lvtino.optim.settings import VARIATIONS, Settings
from deepinv_lvtino.utils import check_counts, check_seed

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

#: What a trial is measured by.
CRITERION = "PSNR of the mean of eight samples, mean over the clips (dB)"

#: Trials of the same PSNR but for this are told apart by the PSNR of one sample, in dB.
SAME = 0.02

_SAMPLES, _DRAWN = 8, 2

# relative noise levels of the video model, sweeps, weights
_LEVELS, _RATIOS, _SWEEPS = (0.029, 1.0), (0.02, 1.0), (1, 6)
_ETAS, _LAMBDAS = (0.3, 1.0), (0.3, 30.0)
_NONE = "none"


@dataclass(frozen=True)
class Case:
    r"""
    A clip, and what is measured of it.

    :param str name: for people.
    :param torch.Tensor video: the clip ``(1, C, T, H, W)``, values in [0, 1].
    :param torch.Tensor y: its measurement.
    :param deepinv.physics.Physics physics: the operator.
    """

    name: str
    video: Tensor
    y: Tensor
    physics: Physics


@dataclass
class Tuning:
    r"""
    A search for the settings of :class:`deepinv_lvtino.LVTINO`, which can be gone on with.

    Trials are those of an Optuna study (a tree of Parzen estimators): first and last step
    as relative noise levels of the video model, number of sweeps, weight of the video
    prior, variation of the data step and its weight. The times of the models follow from
    the steps. The first trial has the settings that the package has, so that the result is
    never worse by the criterion.

    :param Sequence[Case] cases: what is restored, one or more.
    :param str name: of the study, for instance the operator's description.
    :param CalibratedSchedule shipped: settings to begin with.
    :param str storage: where trials are kept: a file of
        Optuna's journal, or a URL such as ``sqlite:///tuning.db``; ``None`` for memory.
    :param int seed: of samples and search.
    :param ConsistencyModel video_model: video prior, the embedded one by default.
    :param ConsistencyModel image_model: image prior, the embedded one by default.
    :raises ImportError: if Optuna is missing.
    :raises ValueError: if there is no case, or the storage has a study of something else.
    """

    cases: Sequence[Case]
    name: str
    shipped: CalibratedSchedule
    storage: Any = None
    seed: int = 0
    video_model: ConsistencyModel | None = None
    image_model: ConsistencyModel | None = None
    study: Study = field(init=False)

    def __post_init__(self) -> None:
        if not self.cases:
            msg = "`cases` must have one clip or more."
            raise ValueError(msg)
        self.seed = check_seed("seed", self.seed)
        if self.video_model is None and self.image_model is None:
            device = self.cases[0].y.device
            self.video_model = tiny_video().to(device)
            self.image_model = tiny_image().to(device)
        self._starts = [
            STARTS[self.shipped.init](case.y, case.physics) for case in self.cases
        ]
        self.study = self._open()

    def run(self, trials: int, say: Callable[[str], None] | None = None) -> Settings:
        r"""
        Search until there are so many trials, those of earlier runs included.

        :param int trials: number of trials.
        :param Callable say: called with a line for each trial.
        :return: (Settings) the best.
        :raises ValueError: if ``trials`` is not positive.
        """
        check_counts(trials=trials)
        state = _optuna().trial.TrialState
        while (done := self.done) < trials:
            trial = self.study.ask()
            measured = self._measure(self._settings(trial))
            if measured is None:
                self.study.tell(trial, state=state.PRUNED)
                line = "no time of a model for these steps"
            else:
                value, sample = measured
                trial.set_user_attr("sample", sample)
                self.study.tell(trial, value)
                line = f"{value:.3f} dB (one sample {sample:.3f})"
            if say is not None:
                best = self.study.best_value
                words = f"{line}, {_words(trial.params)}; best {best:.3f}"
                say(f"trial {done + 1} of {trials}: {words}")
        return self.best

    @property
    def done(self) -> int:
        r"""Number of trials that are done."""
        state = _optuna().trial.TrialState
        states = (state.COMPLETE, state.PRUNED)
        return len(self.study.get_trials(deepcopy=False, states=states))

    @property
    def best(self) -> Settings:
        r"""The best settings so far."""
        return self._of(self._best().params)

    def report(self) -> dict[str, Any]:
        r"""
        How the best were found, for :meth:`deepinv_lvtino.optim.Settings.save`.

        :return: (dict) criterion, values of the best and of the first trial, clips, size.
        """
        best, trials = self._best(), self._complete()
        shipped = next(one for one in trials if one.user_attrs.get("shipped"))
        physics = self.cases[0].physics
        return {
            "criterion": CRITERION,
            "value": best.value,
            "one sample": best.user_attrs["sample"],
            "of what the package has": shipped.value,
            "trials": self.done,
            "clips": [case.name for case in self.cases],
            "sigma": float(f"{float(getattr(physics.noise_model, 'sigma', 0.0)):.6g}"),
            "size": list(self.cases[0].video.shape[2:]),
        }

    def _open(self) -> Study:
        optuna = _optuna()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = self.storage
        if isinstance(storage, str) and "://" not in storage:
            backend = optuna.storages.journal.JournalFileBackend(storage)
            storage = optuna.storages.JournalStorage(backend)
        study = optuna.create_study(
            study_name=self.name,
            direction="maximize",
            storage=storage,
            load_if_exists=True,
        )
        # another seed for what goes on, or it would ask for the same trials again
        seed = (self.seed + 1009 * len(study.trials)) % 2**32
        study.sampler = optuna.samplers.TPESampler(seed=seed)
        identity = self._identity()
        known = study.user_attrs.get("identity")
        if known is None:
            study.set_user_attr("identity", identity)
            study.enqueue_trial(self._first(), user_attrs={"shipped": True})
        elif known != identity:
            differ = [key for key in identity if known.get(key) != identity[key]]
            msg = (
                f"`storage` has a study of {self.name!r} with other settings "
                f"({', '.join(differ)}). Give those again to go on with it, or choose "
                "another storage."
            )
            raise ValueError(msg)
        running = optuna.trial.TrialState.RUNNING
        for trial in study.get_trials(states=(running,)):  # of a run that was killed
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            fixed = trial.system_attrs.get("fixed_params", {}) | trial.params
            if fixed:
                study.enqueue_trial(fixed, user_attrs=trial.user_attrs)
        return study

    def _identity(self) -> dict[str, Any]:
        digest = hashlib.sha256()
        for case in self.cases:
            for tensor in (case.video, case.y):
                digest.update(tensor.cpu().numpy().tobytes())
        models = (self.video_model, self.image_model)
        return {
            "clips and measurements": digest.hexdigest(),
            "criterion": CRITERION,
            "seed": self.seed,
            "start": self.shipped.init,
            "weights": [weights_digest(one) for one in models if one is not None],
        }

    def _first(self) -> dict[str, Any]:
        delta, eta = self.shipped.delta, self.shipped.eta
        eta = 1.0 if eta is None else min(max(eta, _ETAS[0]), _ETAS[1])
        first, last = (_level(step, eta) for step in (delta[0], delta[-1]))
        found = {"sweeps": len(delta), "first": first, "eta": eta, "tv": _NONE}
        return found if len(delta) == 1 else found | {"ratio": last / first}

    def _settings(self, trial: Trial) -> Settings:
        count = trial.suggest_int("sweeps", *_SWEEPS)
        trial.suggest_float("first", *_LEVELS, log=True)
        if count > 1:
            trial.suggest_float("ratio", *_RATIOS, log=True)
        trial.suggest_float("eta", *_ETAS)
        tv = trial.suggest_categorical("tv", (_NONE, "spacetime", "motion"))
        if tv != _NONE:
            trial.suggest_float("lambda", *_LAMBDAS, log=True)
        return self._of(trial.params)

    def _of(self, params: dict[str, Any]) -> Settings:
        levels, eta = _levels(params), params["eta"]
        steps = [level**2 / 8 / eta for level in levels]
        schedule = Schedule.calibrated(steps, eta, init=self.shipped.init)
        tv = None if params["tv"] == _NONE else params["tv"]
        assert tv is None or tv in VARIATIONS
        return Settings(schedule, tv, params.get("lambda", 10.0))

    def _measure(self, settings: Settings) -> tuple[float, float] | None:
        """
        PSNR of the mean of eight and of one sample, means over the clips.

        Nothing where a step is one for which a model has no time.
        """
        models = (self.video_model, self.image_model)
        try:
            solver = LVTINO(*models, **settings.options, seed=self.seed)
        except ValueError:
            return None
        means, ones = [], []
        for case, start in zip(self.cases, self._starts, strict=True):
            drawn = _samples(solver, case, start)
            errors = [float((u - case.video).square().mean()) for u in drawn]
            variance = float((drawn[0] - drawn[1]).square().mean()) / 2
            error = sum(errors) / _DRAWN
            ones.append(_decibel(error))
            means.append(_decibel(error - variance * (_SAMPLES - 1) / _SAMPLES))
        return sum(means) / len(means), sum(ones) / len(ones)

    def _complete(self) -> list[FrozenTrial]:
        state = _optuna().trial.TrialState.COMPLETE
        return self.study.get_trials(deepcopy=False, states=(state,))

    def _best(self) -> FrozenTrial:
        trials = self._complete()
        if not trials:
            msg = "there is no trial yet: call `run`."
            raise ValueError(msg)
        best = max(trial.value or -math.inf for trial in trials)
        near = [one for one in trials if (one.value or -math.inf) >= best - SAME]
        return max(near, key=lambda one: one.user_attrs["sample"])


def _samples(solver: LVTINO, case: Case, start: Tensor) -> list[Tensor]:
    drawn: list[Tensor] = []

    def keep(_: int, sample: Tensor) -> None:
        drawn.append(sample.clamp(0, 1))

    with torch.no_grad():
        solver.sample(case.y, case.physics, _DRAWN, init=start, callback=keep)
    return drawn


def _level(step: float, eta: float) -> float:
    """Relative noise of the video half, which is 2 delta eta on the scale of [-1, 1]."""
    return min(max(math.sqrt(8 * step * eta), _LEVELS[0]), _LEVELS[1])


def _levels(params: dict[str, Any]) -> list[float]:
    count = params["sweeps"]
    if count == 1:
        return [params["first"]]
    last = max(_LEVELS[0], params["first"] * params["ratio"])
    ratio = last / params["first"]
    return [params["first"] * ratio ** (k / (count - 1)) for k in range(count)]


def _decibel(error: float) -> float:
    return -10 * math.log10(max(error, 1e-9))


def _words(params: dict[str, Any]) -> str:
    levels, tv = _levels(params), params["tv"]
    variation = "" if tv == _NONE else f", {tv} variation of {params['lambda']:.3g}"
    return (
        f"levels {levels[0]:.3g} to {levels[-1]:.3g} in {len(levels)}, eta "
        f"{params['eta']:.2f}{variation}"
    )


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        msg = "tuning needs Optuna: `pip install 'deepinv-lvtino[tune]'`."
        raise ImportError(msg) from error
    return optuna
