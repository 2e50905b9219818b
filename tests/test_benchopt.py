r"""The folder for DeepInverse's benchmark suite: its parts fit as benchopt expects."""

from __future__ import annotations

import importlib.util
import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from deepinv.physics import Denoising

from deepinv_lvtino import LVTINO, Schedule, make_problem
from deepinv_lvtino.datasets import procedural_clip
from deepinv_lvtino.metrics import FrameMetric

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks" / "benchopt"

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="needs the source tree")


@pytest.fixture
def load(monkeypatch):
    """Import a file of the folder, with the base classes of benchopt or none."""
    if importlib.util.find_spec("benchopt") is None:
        stub = ModuleType("benchopt")
        for name in ("BaseSolver", "BaseDataset", "BaseObjective"):
            setattr(stub, name, type(name, (), {}))
        monkeypatch.setitem(sys.modules, "benchopt", stub)

    def load_file(name):
        spec = importlib.util.spec_from_file_location(Path(name).stem, FOLDER / name)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load_file


def made(cls, **values):
    """An object with the parameters that benchopt would choose."""
    instance = cls()
    chosen = {
        name: options[0] for name, options in getattr(cls, "parameters", {}).items()
    }
    for name, value in (chosen | values).items():
        setattr(instance, name, value)
    return instance


@pytest.fixture
def data(load):
    return made(load("datasets/procedural.py").Dataset, debug=True).get_data()


# what `deepinv.test` says where there is no GPU
@pytest.mark.filterwarnings("ignore:non_blocking_transfers")
@pytest.mark.parametrize("name", ("lvtino", "pseudo_inverse"))
def test_solver_is_scored_by_the_objective(load, data, name):
    objective = made(load("objective.py").Objective)
    objective.set_data(**data)
    solver = made(load(f"solvers/{name}.py").Solver)
    solver.set_objective(**objective.get_objective())
    solver.run(None)
    result = solver.get_result()
    assert list(result) == ["model"]
    scores = objective.evaluate_result(**result)
    for score in ("FramePSNR", "FrameSSIM", "FrameHaarPSI", "TemporalDifferenceError"):
        assert scores[score] > 0
    assert scores["FramePSNR"] > 18
    objective.evaluate_result(**objective.get_one_result())


def test_solver_is_lvtino(load):
    module = load("solvers/lvtino.py")
    x = procedural_clip(5, 32, 48)[None]
    physics = make_problem("A", x.shape[1:])
    y = physics(x)

    def answer(**values):
        solver = made(module.Solver, **values)
        solver.set_objective(train_dataset=None, physics=physics)
        return solver.get_result()["model"](y, physics)

    expected = LVTINO(seed=0)
    assert torch.equal(answer(), expected(y, physics))
    assert torch.equal(answer(num_samples=2), expected.sample(y, physics, 2)[0])
    physics.problem = "A"
    embedded = LVTINO(schedule=Schedule.embedded("A", 0.3), seed=0)
    assert torch.equal(answer(eta=0.3), embedded(y, physics))


def test_solver_has_the_interface_of_the_suite(load):
    solver = load("solvers/lvtino.py").Solver
    assert solver.sampling_strategy == "run_once"
    assert list(inspect.signature(solver.set_objective).parameters) == [
        "self",
        "train_dataset",
        "physics",
    ]
    skipped, reason = made(solver).skip(physics=Denoising())
    assert skipped
    assert "videos" in reason
    assert made(solver).skip(physics=make_problem("A", (3, 4, 8, 8))) == (False, None)


def test_every_metric_has_a_class_of_its_own(load):
    classes = [
        value
        for value in vars(load("objective.py")).values()
        if isinstance(value, type) and issubclass(value, FrameMetric)
    ]
    names = {cls.__name__ for cls in classes}
    assert {"FramePSNR", "FrameSSIM", "FrameHaarPSI"} <= names


def test_benchopt_runs_it(tmp_path):
    pytest.importorskip("benchopt")
    command = [sys.executable, "-m", "benchopt", "run", str(FOLDER), "--no-plot"]
    command += ["-d", "procedural[problem=A,debug=True]", "--no-cache", "-r", "1"]
    command += ["-s", "pseudo-inverse", "--output", str(tmp_path / "result")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "pseudo-inverse" in done.stdout
