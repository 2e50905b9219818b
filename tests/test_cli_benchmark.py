"""The command ``benchmark``, and the scores that ``restore`` reports."""

from __future__ import annotations

import json
import re

import pytest
import torch

import test_cli
from deepinv_lvtino.benchmark import SCORES, SOLVERS
from deepinv_lvtino.cli import _benchmark, main
from deepinv_lvtino.cli._scores import video_scores
from deepinv_lvtino.datasets import procedural_clip, write_video

SMALL = ("--size", "48x32", "--frames", "5", "--device", "cpu")


def run(*arguments):
    return test_cli.run("benchmark", *arguments)


def fails(capsys, *arguments):
    return test_cli.fails(capsys, "benchmark", *arguments)


def test_table_of_a_small_benchmark(tmp_path, capsys):
    out = tmp_path / "out"
    options = ("--solvers", "pinv", "latino", "--problems", "A", "sr4", *SMALL)
    assert run("-o", out, *options, "--count", "2") == 0
    printed = capsys.readouterr().out
    assert "| procedural | A | pinv |" in printed
    assert "| procedural | sr4 | latino |" in printed
    stored = json.loads((out / "benchmark.json").read_text())
    assert [row["clips"] for row in stored["measured"]] == [2] * 4
    assert {cell["device"].split()[0] for cell in stored["cells"]} == {"cpu"}
    # the same command only reads what is there
    before = {path: path.stat().st_mtime_ns for path in (out / "cells").iterdir()}
    assert run("-o", out, *options, "--count", "2") == 0
    assert before == {p: p.stat().st_mtime_ns for p in (out / "cells").iterdir()}


def test_options_reach_the_cells(tmp_path):
    clip = write_video(tmp_path / "clip", procedural_clip(6, 32, 48))
    out = tmp_path / "out"
    options = ("--sigma", "0.02", "--seed", "7", "--grid", "center", "--samples", "2")
    arguments = ("--solvers", "lvtino-mean", "--problems", "B", "--eta", "0.4")
    scores = ("--scores", "psnr", "--published", "--save-videos")
    assert run("-o", out, "--clips", clip, *options, *arguments, *scores, *SMALL) == 0
    (cell,) = json.loads((out / "benchmark.json").read_text())["cells"]
    found = [cell[key] for key in ("sigma", "seed", "alignment", "num_samples", "eta")]
    assert found == [0.02, 7, "center", 2, 0.4]
    assert (cell["clip"], list(cell["scores"])) == ("clip", ["psnr"])
    assert "Quoted from the paper" in (out / "benchmark.md").read_text()
    assert (out / "videos" / "clip" / "B" / "lvtino-mean" / "00004.png").is_file()


def test_damaged_clips_are_refused_or_said(tmp_path, capsys):
    clip = write_video(tmp_path / "clip", procedural_clip(7, 32, 48))
    (clip / "00003.png").unlink()
    out = tmp_path / "out"
    words = (
        "-o",
        out,
        "--clips",
        clip,
        "--solvers",
        "pinv",
        "--problems",
        "sr4",
        *SMALL,
    )
    assert "number 3 is missing" in fails(capsys, *words)
    assert run(*words, "--damaged", "accept", "--scores", "psnr") == 0
    assert "accepted: " in capsys.readouterr().out
    (cell,) = json.loads((out / "benchmark.json").read_text())["cells"]
    assert "number 3 is missing" in cell["damaged_input"][0]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    checkpoints = pytest.importorskip("checkpoints")
    return checkpoints.published_folder(tmp_path_factory.mktemp("weights"))


class TestPublishedModels:
    """With small networks of random weights in the published layout."""

    def test_published_and_calibrated_schedules(self, weights, tmp_path):
        options = ("--model", "wan", "--weights", weights, "--prompt", "a video")
        arguments = ("--solvers", "pinv", "pnp-admm", "lvtino", "lvtino-v", *SMALL)
        out = tmp_path / "out"
        problems = ("--problems", "B", "sr4", "--scores", "psnr")
        assert run("-o", out, *arguments, *options, *problems) == 0
        stored = json.loads((out / "benchmark.json").read_text())
        found = [(row["problem"], row["solver"]) for row in stored["measured"]]
        assert found == [
            (problem, solver)
            for problem in ("B", "sr4")
            for solver in ("pinv", "lvtino", "lvtino-v")
        ]
        reasons = {entry["reason"] for entry in stored["not_applicable"]}
        assert reasons == {
            "the video model of 'wan (prompt a video)' has no view as a denoiser"
        }
        last = stored["cells"][-1]
        assert last["models"] == "wan (prompt a video)"
        assert last["networks"]["folder"] == str(weights)

    def test_embedded_models_have_no_such_options(self, tmp_path, capsys):
        error = fails(capsys, "-o", tmp_path, "--prompt", "a video", *SMALL)
        assert "--prompt is for --model wan" in error

    def test_missing_weights(self, weights, tmp_path, capsys):
        options = ("--model", "wan", "--weights", tmp_path / "nothing")
        error = fails(capsys, "-o", tmp_path / "out", *options, *SMALL)
        assert "deepinv-lvtino download --to" in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--solvers", "magic"), "`solvers` must be among 'pinv'"),
        (("--problems", "Z"), "`problems` must be among 'A'"),
        (("--scores", "taste"), "`scores` must be among 'psnr'"),
        (("--clips", "nowhere.mp4"), "there is no 'nowhere.mp4'"),
        (("--clips", "gopro240:nowhere"), "no folder test in nowhere"),
        (("--eta", "2"), "`eta` must lie in"),
        (("--sigma", "0"), "--sigma must be positive"),
        (("--size", "50x30"), "multiples of 4 for problem A"),
        (("--device", "abacus"), "--device abacus cannot be used"),
    ],
)
def test_mistakes_are_said_before_anything_is_computed(
    tmp_path, capsys, options, message
):
    defaults = ("--problems", "A", "--size", "48x32", "--frames", "5")
    error = fails(capsys, "-o", tmp_path / "out", *defaults, *options)
    assert message in error
    assert not (tmp_path / "out").exists()


def test_clip_that_is_too_short(tmp_path, capsys):
    clip = write_video(tmp_path / "clip", procedural_clip(2, 32, 48))
    error = fails(capsys, "-o", tmp_path / "out", "--clips", clip, *SMALL)
    assert "only 2" in error


def test_output_that_is_a_file(tmp_path, capsys):
    (tmp_path / "out").write_text("")
    assert "is a file" in fails(capsys, "-o", tmp_path / "out", *SMALL)


def test_other_settings_need_another_folder(tmp_path, capsys):
    options = ("-o", tmp_path, "--solvers", "pinv", "--problems", "A", *SMALL)
    assert run(*options) == 0
    error = fails(capsys, *options, "--sigma", "0.1")
    assert "--overwrite" in error
    assert run(*options, "--sigma", "0.1", "--overwrite") == 0


def test_score_that_lacks_something_is_an_error_if_asked_for(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    arguments = ("-o", tmp_path / "out", "--scores", "psnr", "fvmd", *SMALL)
    assert "FVMD needs" in fails(capsys, *arguments)

    def fetch(device):
        msg = "the weights of LPIPS cannot be fetched"
        raise RuntimeError(msg)

    score = SCORES["lpips"]
    monkeypatch.setitem(SCORES, "lpips", type(score)(score.label, False, fetch))
    arguments = ("-o", tmp_path / "out", "--scores", "lpips", *SMALL)
    assert "weights of LPIPS" in fails(capsys, *arguments)


def test_help_names_every_solver_and_score(capsys):
    with pytest.raises(SystemExit):
        main(["benchmark", "--help"])
    words = set(re.findall(r"[\w-]+", capsys.readouterr().out))
    assert set(SOLVERS) | set(SCORES) <= words
    assert set(_benchmark.DEFAULT_SOLVERS) <= set(SOLVERS)


# -- restore ---------------------------------------------------------------------------


def test_restore_reports_the_scores_of_the_video(tmp_path):
    clean = write_video(tmp_path / "clean", procedural_clip(5, 32, 48))
    output = tmp_path / "out"
    options = ("--simulate", "--steps", "1", "--device", "cpu")
    assert main(["restore", str(clean), "-o", str(output), *options]) == 0
    metrics = json.loads((tmp_path / "out.json").read_text())["metrics"]
    for entry in metrics.values():
        for name in ("psnr", "ssim", "haarpsi", "temporal_difference_error"):
            assert entry[name] > 0
        assert "warping_error" in entry


def test_scores_that_do_not_apply_are_null():
    x = torch.rand(1, 3, 1, 8, 12)
    scores = video_scores(x, x)
    assert scores["psnr"] == pytest.approx(80)
    assert [name for name, value in scores.items() if value is None] == [
        "ssim",
        "warping_error",
        "temporal_difference_error",
    ]
