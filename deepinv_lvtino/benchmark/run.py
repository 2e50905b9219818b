r"""Running a benchmark: one cell per solver, problem and clip, each kept when finished."""

from __future__ import annotations

import hashlib
import math
import os
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
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
from deepinv_lvtino.benchmark._files import (
    cell_path,
    keep_video,
    video_path,
    write_cell,
)
from deepinv_lvtino.benchmark.clips import Clip, as_clips, find_clips
from deepinv_lvtino.benchmark.results import CELL, FILES, Results, summarise
from deepinv_lvtino.benchmark.scores import SCORES, choose_scores, make_metrics
from deepinv_lvtino.benchmark.solvers import (
    Models,
    NotApplicable,
    Setting,
    Solver,
    as_solvers,
)
from deepinv_lvtino.datasets import write_video
from deepinv_lvtino.optim.schedule import check_eta
from deepinv_lvtino.physics import PROBLEMS, make_problem
from deepinv_lvtino.utils import check_integer, check_positive, check_video

#: Solvers and problems if nothing is said.
DEFAULT_SOLVERS = ("pinv", "admm-tv", "pnp-admm", "lvtino", "lvtino-mean")
DEFAULT_PROBLEMS = ("A", "B", "C")

#: Smallest height and width: that of the window of SSIM, and a little more.
LEAST_SIDE = 16


class Benchmark:
    r"""
    Solvers, problems and clips, and a folder that keeps what is finished.

    Each clean clip is degraded by each problem, with noise that depends on the seed, the
    problem and the clip alone, and restored by each solver. What comes of one solver, one
    problem and one clip, its scores and its time, is a *cell*, a file in ``cells`` that
    appears when it is complete. :meth:`run` computes the cells that are missing, so that
    an interrupted benchmark goes on where it was, and solvers, problems and clips can be
    added to a folder. A cell of other settings (size, noise, seed, …) is refused rather
    than mixed in.

    A time is that of one call, measurement to video, with the networks loaded; it says
    something beside others of the same machine only.

    :param str folder: folder to write into.
    :param Sequence[str] | dict solvers: names of :data:`SOLVERS`; or a dictionary from
        labels to names, :class:`Solver` objects, or any reconstructor ``(y, physics)`` to
        a video, such as those of DeepInverse.
    :param Sequence[str] problems: names for :func:`deepinv_lvtino.make_problem`.
    :param Sequence[Clip] | dict clips: what :func:`find_clips` returns, or a dictionary
        from names to videos ``(3, T, H, W)``; the procedural clip by default.
    :param Sequence[str] scores: names of :data:`SCORES`; by default all that can be
        computed here without fetching anything.
    :param float sigma: standard deviation of the noise; that of each problem by default.
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
    :raises TypeError: if a solver or a clip is none.

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
        problems: Sequence[str] = DEFAULT_PROBLEMS,
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
        self.problems = _known_problems(problems, eta)
        self.clips = as_clips(find_clips("procedural") if clips is None else clips)
        for clip in self.clips:
            _check_shape(clip)
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
                for problem in self.problems:
                    for label in self.solvers:
                        self._kept(self._setting(clip, problem, label))
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

    def _compute(self) -> Results:
        metrics = self._metrics
        cells, skipped = [], {}
        for clip in self.clips:
            truth = _Truth(clip, self.device, metrics, self.say)
            for name in self.problems:
                for label, solver in self.solvers.items():
                    try:
                        cell = self._cell(label, solver, name, truth)
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

    def _cell(
        self,
        label: str,
        solver: Solver,
        problem: str,
        truth: _Truth,
    ) -> dict[str, Any]:
        """One cell, kept or computed."""
        clip = truth.clip
        solver.check(PROBLEMS[problem])
        setting = self._setting(clip, problem, label)
        kept = None if self.overwrite else self._kept(setting)
        if kept is not None:
            return kept
        sigma = setting["sigma"]
        reconstruct = solver.make(
            Setting(
                PROBLEMS[problem],
                self.models,
                sigma,
                self.device,
                self.seed,
                self.num_samples,
                self.eta,
            )
        )
        x = truth.video()
        noise_seed = _noise_seed(self.seed, problem, clip.name)
        physics = make_problem(
            problem,
            clip.shape,  # type: ignore[arg-type]
            sigma,
            alignment=self.alignment,
            rng=torch.Generator(self.device).manual_seed(noise_seed),
            device=self.device,
        )
        y = physics(x)
        estimate, cost = self._restore(reconstruct, y, physics)
        _check_estimate(label, estimate, x)
        cost |= {"noise_seed": noise_seed}
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
        truth: _Truth,
        cost: dict[str, float],
    ) -> dict[str, Any]:
        """Score a video, and write the cell and what belongs to it."""
        x = truth.video()
        features, scores = None, {}
        for name, metric in self._metrics.items():
            if SCORES[name].of_sets:
                features = metric.features(estimate, x)
            else:
                scores[name] = _number(metric(estimate, x))
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
    ) -> tuple[Tensor, dict[str, float]]:
        """Video, and what it took."""
        cuda = self.device.type == "cuda"
        devices = [self.device] if cuda else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.seed)
            if cuda:
                torch.cuda.reset_peak_memory_stats(self.device)
                torch.cuda.synchronize(self.device)
            start = time.perf_counter()
            estimate = reconstruct(y, physics)
            if cuda:
                torch.cuda.synchronize(self.device)
            cost = {"seconds": round(time.perf_counter() - start, 4)}
        if cuda:
            cost["memory"] = torch.cuda.max_memory_allocated(self.device) / 1e9
        return (estimate.detach() if isinstance(estimate, Tensor) else estimate), cost

    def _setting(self, clip: Clip, problem: str, label: str) -> dict[str, Any]:
        """What identifies a cell, and what it depends on."""
        sigma = PROBLEMS[problem].sigma if self.sigma is None else self.sigma
        return {
            "clip": clip.name,
            "data": clip.data,
            "problem": problem,
            "solver": label,
            "shape": list(clip.shape),
            "sigma": sigma,
            "alignment": self.alignment,
            "seed": self.seed,
            "num_samples": self.num_samples,
            "eta": self.eta,
            "models": self.models.name,
        }

    def _path(self, setting: dict[str, Any]) -> Path:
        return cell_path(self.folder, setting)

    def _kept(self, setting: dict[str, Any]) -> dict[str, Any] | None:
        """A finished cell with all scores, if there is one."""
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
        for name in self.scores:
            found = (
                path.with_suffix(".npz").is_file()
                if SCORES[name].of_sets
                else name in cell["scores"]
            )
            if not found:
                return None
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


class _Truth:
    """A clean clip, loaded when a cell needs it, and its own warping error."""

    def __init__(
        self,
        clip: Clip,
        device: torch.device,
        metrics: dict[str, Metric],
        say: Callable[[str], None],
    ) -> None:
        self.clip, self.device, self.metrics, self.say = clip, device, metrics, say
        self._video: Tensor | None = None
        self._scores: dict[str, float | None] | None = None

    def video(self) -> Tensor:
        if self._video is None:
            x = self.clip.load()[None].to(self.device)
            check_video("clips", x, size=self.clip.shape)
            for note in self.clip.damage:
                self.say(f"accepted: {note}")
            self._video = x
        return self._video

    def scores(self) -> dict[str, float | None]:
        """The value of a perfect restoration, where it is not obvious."""
        if self._scores is None:
            x = self.video()
            names = [name for name in ("warping_error",) if name in self.metrics]
            self._scores = {name: _number(self.metrics[name](x, x)) for name in names}
        return self._scores


def _known_problems(problems: Sequence[str], eta: float | None) -> list[str]:
    unknown = [name for name in problems if name not in PROBLEMS]
    if unknown or not problems:
        msg = (
            f"`problems` must be among {', '.join(map(repr, PROBLEMS))}; got "
            f"{', '.join(map(repr, unknown)) or 'none'}."
        )
        raise ValueError(msg)
    fixed = [name for name in problems if not PROBLEMS[name].linear]
    if eta not in (None, 0, 1) and fixed:
        msg = (
            f"`eta` must be 0 or 1 for problem {fixed[0]}, which is not linear, so that "
            f"its schedule is the published one; got {eta}. Leave one of them out."
        )
        raise ValueError(msg)
    return list(dict.fromkeys(problems))


def _check_shape(clip: Clip) -> None:
    if len(clip.shape) != 4 or clip.shape[0] != 3 or min(clip.shape[2:]) < LEAST_SIDE:
        msg = (
            "`clips` must be videos (3, T, H, W) of 16 pixels or more; got "
            f"{tuple(clip.shape)} for {clip.name!r}."
        )
        raise ValueError(msg)


def _check_estimate(label: str, estimate: Any, x: Tensor) -> None:
    shape = tuple(getattr(estimate, "shape", ()))
    if shape != tuple(x.shape):
        found = shape or type(estimate).__name__
        msg = (
            f"`solvers[{label!r}]` must return a video of shape {tuple(x.shape)}; got "
            f"{found}."
        )
        raise ValueError(msg)


def _noise_seed(seed: int, problem: str, clip: str) -> int:
    """Seed of the measurement noise, another one than that of the solvers."""
    digest = hashlib.sha256(f"{seed}\n{problem}\n{clip}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def _number(value: Tensor) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
