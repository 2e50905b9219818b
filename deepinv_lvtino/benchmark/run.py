r"""Running a benchmark: one cell per solver, problem and clip, each kept when finished."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from deepinv.loss.metric import Metric
from deepinv.physics import Physics
from torch import Tensor

from deepinv_lvtino._environment import describe_device, processor, versions
from deepinv_lvtino._schema import SchemaError, read_json
from deepinv_lvtino._staging import Stage
from deepinv_lvtino.benchmark._cost import Cost
from deepinv_lvtino.benchmark._files import (
    cell_path,
    keep_video,
    video_path,
    write_cell,
)
from deepinv_lvtino.benchmark._identity import (
    Describer,
    Identity,
    changed_by_use,
    code_version,
    difference,
    settled,
)
from deepinv_lvtino.benchmark._truth import (
    Truth,
    check_estimate,
    check_shape,
    finite,
    seed_of_noise,
)
from deepinv_lvtino.benchmark.clips import Clip, as_clips, find_clips
from deepinv_lvtino.benchmark.problems import Case, Factory, as_cases
from deepinv_lvtino.benchmark.results import CELL, FILES, Results, summarise
from deepinv_lvtino.benchmark.scores import SCORES, choose_scores, make_metrics
from deepinv_lvtino.benchmark.solvers import (
    Models,
    NotApplicable,
    Reconstructor,
    Setting,
    Solver,
    as_solvers,
)
from deepinv_lvtino.datasets import write_video
from deepinv_lvtino.optim.calibrated import check_eta
from deepinv_lvtino.utils import check_integer, check_positive

#: Solvers and problems if nothing is said.
DEFAULT_SOLVERS = ("pinv", "admm-tv", "pnp-admm", "lvtino", "lvtino-mean")
DEFAULT_PROBLEMS = ("A", "B", "C")


class Benchmark:
    r"""
    Solvers, problems and clips, and a folder that keeps what is finished.

    Each clean clip is degraded by each problem, with noise that depends on the seed, the
    problem and the clip alone, and restored by each solver. What comes of one solver, one
    problem and one clip, its scores and its time, is a *cell*, a file in ``cells`` that
    appears when it is complete. :meth:`run` computes the cells that are missing, so that
    an interrupted benchmark goes on where it was, and solvers, problems and clips can be
    added to a folder. A cell of other settings (size, noise, seed, …) is refused rather
    than mixed in, and one that something else has produced (another solver under the same
    label, other weights, another operator, another version of this package) is computed
    again, which is said. A solver is known by its class, its attributes, its code, and what
    the code refers to; what a call changes is not counted among its settings.

    A time is that of one call, measurement to video, with the networks loaded; it says
    something beside others of the same machine only. Memory is on a GPU the largest that
    PyTorch has taken, and on the CPU by how much the largest resident memory of the
    process exceeds that before the call (``None`` where the system does not tell; less
    than the need where memory freed before is used again). Evaluations are calls of
    networks, ``None`` where there are none.

    :param str folder: folder to write into.
    :param Sequence[str] | dict solvers: names of :data:`SOLVERS`; or a dictionary from
        labels to names, :class:`Solver` objects, or any reconstructor ``(y, physics)`` to
        a video, such as those of DeepInverse.
    :param Sequence[str] | dict problems: names or descriptions for
        :func:`deepinv_lvtino.make_problem`, such as ``"every=2, downscale=2"``; or a
        dictionary from labels to these, or to functions ``factory(img_size, rng)`` that
        return any DeepInverse physics on videos ``(B, C, T, H, W)``, with its noise.
    :param Sequence[Clip] | dict clips: what :func:`find_clips` returns, or a dictionary
        from names to videos ``(3, T, H, W)``; the procedural clip by default.
    :param Sequence[str] scores: names of :data:`SCORES`; by default all that can be
        computed here without fetching anything.
    :param float sigma: standard deviation of the noise; that of each problem by default. A
        physics of your own has its own.
    :param str alignment: pixel grid, see :func:`deepinv_lvtino.make_problem`.
    :param int seed: seed of all randomness.
    :param int num_samples: samples of ``lvtino-mean``.
    :param float eta: weight of the video prior; the setting of each problem by default.
    :param Models models: networks; the embedded ones by default.
    :param torch.device device: device.
    :param bool published: add the published results to the table, as quoted.
    :param bool save_videos: also write the restored videos, as folders of frames in
        ``videos``.
    :param bool overwrite: compute again what is finished.
    :param Callable say: called with a line for people now and then.
    :raises ValueError: if a name is unknown, an argument is out of range, or a clip is
        smaller than 16 pixels.
    :raises TypeError: if a solver, a problem or a clip is none.

    |sep|

    :Examples:

        >>> import tempfile
        >>> from deepinv_lvtino.benchmark import Benchmark, find_clips
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     results = Benchmark(
        ...         folder,
        ...         {"adjoint": lambda y, physics: physics.A_adjoint(y), "inverse": "pinv"},
        ...         problems=["A"],
        ...         clips=find_clips("procedural", 5, 32, 48),
        ...         scores=["psnr"],
        ...         say=lambda line: None,
        ...     ).run()
        >>> [row.solver for row in results.rows]
        ['adjoint', 'inverse']
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        solvers: Sequence[str] | Mapping[str, Any] = DEFAULT_SOLVERS,
        problems: Sequence[str] | Mapping[str, str | Factory] = DEFAULT_PROBLEMS,
        clips: Sequence[Clip] | Mapping[str, Tensor] | None = None,
        *,
        scores: Sequence[str] | None = None,
        sigma: float | None = None,
        alignment: str = "deepinv",
        seed: int = 0,
        num_samples: int = 8,
        eta: float | None = None,
        models: Models | None = None,
        device: torch.device | str = "cpu",
        published: bool = False,
        save_videos: bool = False,
        overwrite: bool = False,
        say: Callable[[str], None] = print,
    ) -> None:
        self.folder = Path(folder)
        self.solvers = as_solvers(solvers)
        self.problems = as_cases(problems, eta)
        self.clips = as_clips(find_clips("procedural") if clips is None else clips)
        for clip in self.clips:
            check_shape(clip)
        check_eta(eta)
        if sigma is not None:
            check_positive("sigma", sigma)
        num_samples = check_integer("num_samples", num_samples)
        seed = check_integer("seed", seed)
        if num_samples < 1 or seed < 0:
            msg = (
                "`num_samples` must be 1 or more and `seed` 0 or more; got "
                f"{num_samples} and {seed}."
            )
            raise ValueError(msg)
        self.scores = choose_scores(scores, say)
        self.sigma, self.alignment, self.seed = sigma, alignment, seed
        self.num_samples, self.eta = num_samples, eta
        self.device = torch.device(device)
        self.models = models or Models.embedded(self.device)
        self.published, self.save_videos = published, save_videos
        self.overwrite = overwrite
        self.say = say

    @cached_property
    def _metrics(self) -> dict[str, Metric]:
        return make_metrics(self.scores, self.device)

    def check(self) -> None:
        r"""
        Refuse what would not work, before anything is computed; :meth:`run` does so too.

        :raises ValueError: if a kept cell is of other settings.
        :raises ImportError: if a package is missing for a score asked for.
        :raises RuntimeError: if weights of a score are missing.
        """
        if not self.overwrite:
            for clip in self.clips:
                for problem in self.problems.values():
                    for label in self.solvers:
                        self._stored(self._setting(clip, problem, label))
        self._metrics  # noqa: B018

    def run(self) -> Results:
        r"""
        Compute the missing cells, and write the table and the figure.

        :return: (:class:`Results`) the scores of all cells asked for.
        :raises ValueError: if a kept cell is of other settings, a clip cannot be read, or
            a solver returns something else than a video.
        :raises BlockingIOError: if another run is writing into the folder.
        :raises ImportError: if a package is missing for a score asked for.
        :raises RuntimeError: if weights of a score are missing.
        """
        self.check()
        with Stage([self.folder / name for name in FILES], say=self.say) as stage:
            results = self._compute()
            results.write_into(stage, published=self.published)
        return results

    def compute(self) -> None:
        r"""
        Compute the missing cells, and write neither table nor figure.

        Several processes may do so at a time for one folder, each for clips of its own.

        :raises ValueError: as :meth:`run`.
        :raises ImportError: as :meth:`run`.
        :raises RuntimeError: as :meth:`run`.
        """
        self.check()
        self._compute()

    def _compute(self) -> Results:
        metrics = self._metrics
        self._describer = Describer()
        self._sources = self._all_sources()
        cells, skipped = [], {}
        for clip in self.clips:
            truth = Truth(clip, self.device, metrics, self.say)
            for name, case in self.problems.items():
                for label, solver in self.solvers.items():
                    try:
                        cell = self._cell(label, solver, case, truth)
                    except NotApplicable as reason:
                        skipped[name, label] = str(reason)
                        continue
                    cells.append(cell)
        return summarise(
            cells,
            skipped,
            scores=self.scores,
            solvers={
                label: solver.description for label, solver in self.solvers.items()
            },
            features=self._features,
            distance=getattr(metrics.get("fvmd"), "distance", None),
        )

    def _all_sources(self) -> dict[tuple[str, str, tuple[int, ...]], Identity]:
        """
        What each solver is, for each problem and size, before the first call of any.

        A call may change what it is of (counters, caches), and that of what they share.
        """
        found = {}
        for shape in dict.fromkeys(clip.shape for clip in self.clips):
            for name, case in self.problems.items():
                for label, solver in self.solvers.items():
                    try:
                        reconstruct = self._make(solver, case, shape)
                    except NotApplicable:  # said when it is the turn of its cell
                        continue
                    found[name, label, shape] = self._describer.describe(
                        "solver", reconstruct
                    )
        return found

    def _make(
        self, solver: Solver, case: Case, shape: tuple[int, ...]
    ) -> Reconstructor:
        """A solver for a problem."""
        problem = case.at(shape, self.device)  # type: ignore[arg-type]
        solver.check(problem)
        sigma = self._sigma(case)
        setting = Setting(
            problem,
            self.models,
            problem.sigma if sigma is None else sigma,
            self.device,
            self.seed,
            self.num_samples,
            self.eta,
        )
        with self._seeded():
            return solver.make(setting)

    def _identity(self, source: Identity, case: Case, clip: Clip) -> Identity:
        """What produces a cell, with the description of its solver."""
        operator = case.identity(
            clip.shape,  # type: ignore[arg-type]
            self.device,
            self._describer,
        )
        return {"code": code_version(), **operator, **source}

    def _cell(
        self,
        label: str,
        solver: Solver,
        case: Case,
        truth: Truth,
    ) -> dict[str, Any]:
        """One cell, kept or computed."""
        clip, problem = truth.clip, case.label
        setting = self._setting(clip, case, label)
        source = self._sources.get((problem, label, clip.shape))
        if source is None:  # which raises what is to be said
            source = self._describer.describe(
                "solver", self._make(solver, case, clip.shape)
            )
        identity = self._identity(source, case, clip)
        kept = None if self.overwrite else self._kept(setting, identity)
        if kept is not None:
            return kept
        reconstruct = self._make(solver, case, clip.shape)
        x = truth.video()
        noise_seed = seed_of_noise(self.seed, problem, clip.name)
        with self._seeded():  # for physics that draws from the global generator
            physics = case.build(
                clip.shape,  # type: ignore[arg-type]
                setting["sigma"],
                self.alignment,
                noise_seed,
                self.device,
            )
            y = physics(x)
        estimate, cost = self._restore(reconstruct, y, physics)
        check_estimate(label, estimate, x)
        after = self._identity(
            self._describer.describe("solver", reconstruct), case, clip
        )
        state = changed_by_use(identity, after)
        cost |= {
            "noise_seed": noise_seed,
            "identity": settled(identity, state),
            "state": state,
        }
        try:
            cell = self._finish(setting, estimate, truth, cost)
        except Exception:
            place = keep_video(self.folder, setting, estimate)
            self.say(f"the video of the cell that failed is kept in {place}")
            raise
        shown = ", ".join(
            f"{SCORES[name].label} {value:.{SCORES[name].digits}g}"
            for name, value in cell["scores"].items()
            if value is not None
        )
        self.say(
            f"{clip.name}, problem {problem}, {label}: {shown}, {cost['seconds']:.2f} s"
        )
        return cell

    def _finish(
        self,
        setting: dict[str, Any],
        estimate: Tensor,
        truth: Truth,
        cost: dict[str, Any],
    ) -> dict[str, Any]:
        """Score a video, and write the cell and what belongs to it."""
        x = truth.video()
        features, scores = None, {}
        for name, metric in self._metrics.items():
            if SCORES[name].of_sets:
                features = metric.features(estimate, x)
            else:
                scores[name] = finite(metric(estimate, x))
        cell = {
            **setting,
            "scores": scores,
            "clean": truth.scores(),
            **cost,
            "networks": self.models.describe() if self.models.loaded else {},
            "device": describe_device(self.device),
            "processor": processor(),
            "versions": versions(),
        }
        if truth.clip.damage:
            cell["damaged_input"] = list(truth.clip.damage)
        if self.save_videos:
            place = video_path(self.folder, "videos", setting)
            write_video(place, estimate[0].float(), overwrite=True)
        write_cell(self._path(setting), cell, features, self.say)
        return cell

    def _restore(
        self, reconstruct: Callable[..., Tensor], y: Tensor, physics: Physics
    ) -> tuple[Tensor, dict[str, Any]]:
        """Video, and what it took."""
        with self._seeded(), Cost(self.device) as cost:
            estimate = reconstruct(y, physics)
        if isinstance(estimate, Tensor):
            estimate = estimate.detach()
        return estimate, cost.entry()

    @contextmanager
    def _seeded(self) -> Iterator[None]:
        """The global generator seeded, and afterwards as it was."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.seed)
            yield

    def _sigma(self, case: Case) -> float | None:
        """Noise of a problem; one's own physics has its own."""
        if case.problem is None:
            return None
        return case.problem.sigma if self.sigma is None else self.sigma

    def _setting(self, clip: Clip, case: Case, label: str) -> dict[str, Any]:
        """What names a cell, and the settings that are the same for all."""
        return {
            "clip": clip.name,
            "data": clip.data,
            "problem": case.label,
            "solver": label,
            "shape": list(clip.shape),
            "sigma": self._sigma(case),
            "alignment": self.alignment,
            "seed": self.seed,
            "num_samples": self.num_samples,
            "eta": self.eta,
            "models": self.models.name,
        }

    def _path(self, setting: dict[str, Any]) -> Path:
        return cell_path(self.folder, setting)

    def _kept(
        self, setting: dict[str, Any], identity: Identity
    ) -> dict[str, Any] | None:
        """A finished cell with all scores that the same has produced, if there is one."""
        cell = self._stored(setting)
        if cell is None:
            return None
        if "identity" not in cell:
            why: str | None = "the kept one does not say what has produced it"
        else:
            now = settled(identity, cell.get("state", []))
            why = difference(cell["identity"], now)
        if why is None:
            missing = [name for name in self.scores if not self._has(cell, name)]
            if not missing:
                return cell
            why = f"it has no {', '.join(SCORES[name].label for name in missing)}"
        names = f"{setting['clip']}, problem {setting['problem']}, {setting['solver']}"
        self.say(f"{names}: computed again: {why}")
        return None

    def _has(self, cell: dict[str, Any], score: str) -> bool:
        if SCORES[score].of_sets:
            return self._path(cell).with_suffix(".npz").is_file()
        return score in cell["scores"]

    def _stored(self, setting: dict[str, Any]) -> dict[str, Any] | None:
        """The finished cell of a name, if there is one of these settings."""
        path = self._path(setting)
        try:
            cell = read_json(path, CELL)
        except FileNotFoundError:
            return None
        except SchemaError as error:
            self.say(f"a kept result is computed again: {error}")
            return None
        for key, value in setting.items():
            if cell.get(key) != value:
                msg = (
                    f"`folder` {self.folder} holds results with `{key}` {cell.get(key)}, "
                    f"not {value} ({path.name}). Choose another folder, or compute them "
                    "again (`overwrite=True`, on the command line --overwrite)."
                )
                raise ValueError(msg)
        return cell

    def _features(self, cell: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        path = self._path(cell).with_suffix(".npz")
        try:
            with np.load(path) as file:  # never pickled objects
                return file["estimate"], file["reference"]
        except (EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
            msg = (
                f"{path} is damaged: it does not hold the features `estimate` and "
                "`reference` of a kept result. Delete it, and run again."
            )
            raise ValueError(msg) from error
