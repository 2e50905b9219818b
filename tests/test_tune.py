r"""Tuning: settings for an operator of one's own, kept, gone on with, and used."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest
import torch

from deepinv_lvtino import LVTINO, Schedule, make_problem
from deepinv_lvtino.cli import main
from deepinv_lvtino.datasets import procedural_clip, read_video, write_video
from deepinv_lvtino.optim import Settings
from deepinv_lvtino.tuning import Case, Tuning
from helpers import psnr

pytest.importorskip("optuna")

OPERATOR = "every=2, downscale=2, noise=0.01"

KILLED = """
import os, signal, sys, torch
torch.set_num_threads(1)
from deepinv_lvtino import tuning
from deepinv_lvtino.cli import main
measure, count = tuning.Tuning._measure, 0
def killed(self, settings):
    global count
    count += 1
    if count == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return measure(self, settings)
tuning.Tuning._measure = killed
main(sys.argv[2:])
"""


@pytest.fixture
def case():
    video = procedural_clip(5, 24, 32)[None]
    rng = torch.Generator().manual_seed(0)
    physics = make_problem("sr4", tuple(video.shape[1:]), 0.01, rng=rng)
    return Case("clip", video, physics(video), physics)


@pytest.fixture
def options(tmp_path):
    command = ["tune", "--operator", OPERATOR, "-o", str(tmp_path / "s.json")]
    return [*command, "--frames", "5", "--size", "32x24", "--device", "cpu"]


def test_first_trial_is_what_the_package_has(case):
    """Its value is that of samples drawn by hand."""
    shipped = Schedule.embedded("sr4")
    tuning = Tuning([case], "a", shipped)
    lines = []
    tuning.run(1, lines.append)
    assert len(lines) == 1
    assert tuning.best.tv is None
    assert tuning.best.schedule.delta == pytest.approx(shipped.delta, rel=1e-6)
    assert tuning.best.schedule.eta == pytest.approx(shipped.eta)
    samples = []
    LVTINO(schedule=shipped, seed=0).sample(
        case.y, case.physics, 2, callback=lambda _, u: samples.append(u.clamp(0, 1))
    )
    report = tuning.report()
    error = torch.stack([(u - case.video).square().mean() for u in samples]).mean()
    assert report["one sample"] == pytest.approx(-10 * float(error.log10()), abs=1e-3)
    # the mean of two has half the variance, that of eight an eighth
    two = psnr(sum(samples) / 2, case.video)
    assert two - 0.01 < report["value"] < two + 3
    assert report["value"] == report["of what the package has"]


def test_result_is_the_best_of_what_was_tried(case):
    tuning = Tuning([case], "a", Schedule.embedded("sr4"))
    tuning.run(5)
    report = tuning.report()
    values = [trial.value for trial in tuning.study.trials if trial.value is not None]
    assert report["value"] >= max(values) - 0.02
    assert report["value"] >= report["of what the package has"] - 0.02
    assert report["trials"] == 5
    LVTINO(**tuning.best.options)(case.y, case.physics)


def test_study_of_something_else_is_refused(case, tmp_path):
    storage = str(tmp_path / "study.log")
    Tuning([case], "a", Schedule.embedded("sr4"), storage).run(1)
    assert Tuning([case], "a", Schedule.embedded("sr4"), storage).done == 1
    other = Case("clip", case.video, case.y + 0.1, case.physics)
    with pytest.raises(ValueError, match=r"`storage`.*\(clips and measurements\)"):
        Tuning([other], "a", Schedule.embedded("sr4"), storage)
    with pytest.raises(ValueError, match=r"`storage`.*\(seed\)"):
        Tuning([case], "a", Schedule.embedded("sr4"), storage, seed=1)
    with pytest.raises(ValueError, match="`cases`"):
        Tuning([], "a", Schedule.embedded("sr4"))


def test_killed_it_goes_on(options, tmp_path, capsys):
    command = [sys.executable, "-c", KILLED, "3", *options, "--trials", "4"]
    died = subprocess.run(command, capture_output=True, text=True, check=False)
    assert died.returncode == -signal.SIGKILL
    assert "trial 2 of 4" in died.stdout
    interrupted = died.stdout.splitlines()
    assert not (tmp_path / "s.json").exists()
    assert main([*options, "--trials", "4"]) == 0
    said = capsys.readouterr().out
    assert "going on after trial 2" in said
    assert "trial 3 of 4" in said
    assert "trial 1 of 4" not in said
    found = json.loads((tmp_path / "s.json").read_text())["found"]
    assert found["trials"] == 4
    first = next(line for line in interrupted if line.startswith("trial 1"))
    assert f"{found['of what the package has']:.3f} dB" in first
    # another command with more trials goes on, and does not overwrite unasked
    assert main([*options, "--trials", "5"]) == 2
    assert "exists" in capsys.readouterr().err
    assert main([*options, "--trials", "5", "--overwrite"]) == 0
    assert "trial 5 of 5" in capsys.readouterr().out


def test_restore_with_settings_is_the_solver_with_them(tmp_path, capsys):
    settings = Settings(
        Schedule.calibrated([0.01, 0.002], 0.7, init="tv"), "motion", 3.0
    )
    settings.save(tmp_path / "s.json", operator=OPERATOR)
    clip = procedural_clip(3, 12, 16)
    write_video(tmp_path / "y.mkv", clip, 12, lossless=True)
    command = ["restore", str(tmp_path / "y.mkv"), "--operator", OPERATOR]
    command += ["--device", "cpu", "--settings", str(tmp_path / "s.json")]
    assert main([*command, "-o", str(tmp_path / "x")]) == 0
    report = json.loads((tmp_path / "x.json").read_text())
    assert report["schedule"]["delta"] == [0.01, 0.002]
    y = read_video(tmp_path / "y.mkv").frames[None]
    physics = make_problem(
        OPERATOR, (3, 5, 24, 32), alignment="center", time_border="replicate"
    )
    with torch.no_grad():
        x = LVTINO(**settings.options, seed=0)(y, physics)[0]
    stored = read_video(tmp_path / "x", fps=24).frames
    assert (stored - x.clamp(0, 1)).abs().max() < 1.01 / 255 / 2 + 1e-6
    capsys.readouterr()
    for more, said in (
        (["--steps", "2"], "--settings has what --steps says"),
        (["--eta", "0.5"], "--settings has what --eta says"),
        (["--model", "wan"], "--model"),
    ):
        assert main([*command, "-o", str(tmp_path / "z.mkv"), *more]) == 2
        assert said in capsys.readouterr().err
    assert main([*command[:-1], "missing.json", "-o", str(tmp_path / "z.mkv")]) == 2
    assert "missing.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--problem", "jpeg"], "not linear"),
        (["--problem", "sr4", "--size", "30x24"], "multiples of 4"),
        (["--problem", "sr4", "--clips", "missing"], "missing"),
        (["--problem", "sr4", "-o", "settings"], "must end in .json"),
    ],
)
def test_mistakes_are_told(tmp_path, capsys, more, said):
    command = ["tune", "-o", str(tmp_path / "s.json"), *more]
    assert main([*command, "--frames", "4", "--trials", "1"]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_without_optuna_the_extra_is_named(case, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r"deepinv-lvtino\[tune\]"):
        Tuning([case], "a", Schedule.embedded("sr4"))


# -- files of settings -----------------------------------------------------------------


def test_what_is_saved_is_loaded(tmp_path):
    path = tmp_path / "s.json"
    for schedule in (
        Schedule.embedded("A"),
        Schedule.embedded(OPERATOR),
        Schedule.calibrated(0.1, 0.3, 4, init="tv"),
        Schedule.calibrated(init="pinv"),
    ):
        for tv, weight in ((None, 10.0), ("spacetime", 0.25)):
            settings = Settings(schedule, tv, weight)
            settings.save(path, overwrite=True)
            assert Settings.load(path) == settings
            if tv is None:
                assert Schedule.load(path) == schedule
    with pytest.raises(FileExistsError, match=r"s\.json exists"):
        settings.save(path)
    with pytest.raises(ValueError, match="have a variation"):
        Schedule.load(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("deepinv_lvtino_settings", 2),
        ("delta", []),
        ("delta", [0.0]),
        ("delta", "0.1"),
        ("eta", 2),
        ("init", "nowhere"),
        ("tv", "total"),
        ("lambda_reg", -1),
        ("more", 1),
    ],
)
def test_file_that_is_none_is_refused(tmp_path, field, value):
    path = tmp_path / "s.json"
    Settings(Schedule.embedded("A")).save(path)
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {field: value}))
    with pytest.raises(ValueError, match=rf"s\.json: .*{field}"):
        Settings.load(path)
    del document["delta"]
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match="delta"):
        Settings.load(path)
    path.write_text("no JSON")
    with pytest.raises(ValueError, match="JSON"):
        Settings.load(path)


def test_only_what_is_numbers_can_be_saved():
    with pytest.raises(TypeError, match="`schedule` must be a calibrated one"):
        Settings(Schedule.published("A"))
    with pytest.raises(ValueError, match="`schedule` must start"):
        Settings(Schedule.calibrated(clamp=(0.0, 1.0)))
    with pytest.raises(ValueError, match="`tv`"):
        Settings(Schedule.embedded("A"), "total")
    with pytest.raises(ValueError, match="`lambda_reg`"):
        Settings(Schedule.embedded("A"), "motion", 0.0)
