"""The command line, run in this process on tiny clips."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction

import pytest
import torch
from PIL import Image

from deepinv_lvtino import make_problem
from deepinv_lvtino.cli import main
from deepinv_lvtino.cli._parser import build_parser
from deepinv_lvtino.cli._picture import enlarge_measurement
from deepinv_lvtino.datasets import procedural_clip, read_video, write_video
from deepinv_lvtino.physics.functional import ALIGNMENTS

WIDTH, HEIGHT, FRAMES = 48, 32, 9
FPS = Fraction(30000, 1001)
FAST = ("--steps", "2", "--device", "cpu")


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """A clean clip as a file."""
    path = tmp_path_factory.mktemp("clean") / "clean.mkv"
    return write_video(path, procedural_clip(FRAMES, HEIGHT, WIDTH), FPS, lossless=True)


def run(*arguments):
    return main([str(argument) for argument in arguments])


def report_of(path):
    return json.loads(path.read_text(encoding="utf-8"))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def fails(capsys, *arguments):
    """Message of a command that must fail as a mistake of the user."""
    capsys.readouterr()
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("deepinv-lvtino: error: ")
    assert error.count("\n") == 1
    return error


@pytest.fixture(scope="module")
def folder(clean, tmp_path_factory):
    """Measurements of all problems as files, and one as a folder."""
    folder = tmp_path_factory.mktemp("measured")
    for problem in "ABC":
        output = folder / f"{problem}.mp4"
        options = ("--problem", problem, "--device", "cpu")
        assert run("degrade", clean, "-o", output, *options) == 0
    output = folder / "frames"
    assert run("degrade", clean, "-o", output, "--problem", "A") == 0
    return folder


class TestArguments:
    @pytest.mark.parametrize(
        "arguments",
        [
            [],
            ["restore", "a.mp4"],
            ["restore", "a.mp4", "-o", "b.mp4", "--size", "48"],
            ["restore", "a.mp4", "-o", "b.mp4", "--frames", "0"],
            ["restore", "a.mp4", "-o", "b.mp4", "--fps", "0"],
            ["restore", "a.mp4", "-o", "b.mp4", "--grid", "corner"],
            ["degrade", "a.mp4", "-o", "b.mp4"],
            ["demo", "--seed", "-1"],
        ],
    )
    def test_mistakes_end_with_code_2(self, arguments, capsys):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2
        assert "error:" in capsys.readouterr().err

    @pytest.mark.parametrize("grid", ALIGNMENTS)
    def test_all_grids_of_the_operators(self, grid):
        for command in ("restore a.mp4 -o b.mp4", "degrade a.mp4 -o b.mp4", "demo"):
            words = [*command.split(), "--problem", "A", "--grid", grid]
            assert build_parser().parse_args(words).grid == grid

    def test_help_does_not_wait_for_torch(self):
        code = (
            "import sys; from deepinv_lvtino.cli import main\n"
            "try: main(['restore', '--help'])\n"
            "except SystemExit: print('torch' in sys.modules)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert "--simulate" in done.stdout
        assert done.stdout.splitlines()[-1] == "False"


class TestSimulate:
    def test_files_report_and_scores(self, clean, tmp_path, capsys):
        output = tmp_path / "new" / "out.mp4"
        assert run("restore", clean, "-o", output, "--simulate", *FAST) == 0
        assert names(output.parent) == ["out-comparison.png", "out.json", "out.mp4"]
        clip = read_video(output)
        assert clip.frames.shape == (3, FRAMES, HEIGHT, WIDTH)
        assert clip.fps == FPS

        report = report_of(output.with_suffix(".json"))
        assert (report["problem"], report["grid"], report["sigma"]) == (
            "A",
            "deepinv",
            0.001,
        )
        assert report["simulated"] is True
        assert report["schedule"]["steps"] == 2
        assert report["measurement"] == {
            "frames": 3,
            "height": 8,
            "width": 12,
            "fps": "7500/1001",
        }
        assert report["video"]["fps"] == "30000/1001"
        assert report["versions"]["torch"] == torch.__version__
        assert report["device"].startswith("cpu")
        assert {"read", "degrade", "restore", "score", "write"} <= set(
            report["seconds"]
        )
        printed = capsys.readouterr().out
        assert "grid deepinv" in printed
        assert "PSNR" in printed

    def test_scores_are_those_of_the_python_interface(self, clean, tmp_path):
        output = tmp_path / "out"
        assert run("restore", clean, "-o", output, "--simulate", *FAST) == 0
        report = report_of(tmp_path / "out.json")
        x = read_video(clean).frames[None]
        assert (report["noise_seed"] - report["seed"]) % 2**32 != 0
        rng = torch.Generator().manual_seed(report["noise_seed"])
        physics = make_problem("A", x.shape[1:], report["sigma"], rng=rng)
        estimate = physics.A_dagger(physics(x)).clamp(0, 1)
        error = (estimate - x)[0].square().mean((0, 2, 3))
        psnr = -10 * error.log10().mean()
        assert report["metrics"]["pseudo_inverse"]["psnr"] == pytest.approx(
            float(psnr), abs=1e-3
        )
        # the frames on disk are the restoration that was scored
        frames = read_video(output).frames
        error = (frames - x[0]).square().mean((0, 2, 3))
        scored = report["metrics"]["restoration"]["psnr"]
        assert float(-10 * error.log10().mean()) == pytest.approx(scored, abs=0.02)

    def test_seed_decides_everything(self, clean, tmp_path):
        for name, seed in (("a", 1), ("b", 1), ("c", 2)):
            options = ("--simulate", "--seed", seed, *FAST)
            assert run("restore", clean, "-o", tmp_path / name, *options) == 0
        a, b, c = (read_video(tmp_path / name).frames for name in "abc")
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
        assert (
            report_of(tmp_path / "a.json")["metrics"]
            == report_of(tmp_path / "b.json")["metrics"]
        )

    def test_size_frames_problem_and_eta(self, clean, tmp_path):
        output = tmp_path / "out.mkv"
        options = ("--size", "64x48", "--frames", "7", "--problem", "B", "--eta", "1")
        assert run("restore", clean, "-o", output, "--simulate", *options, *FAST) == 0
        report = report_of(tmp_path / "out.json")
        assert read_video(output).frames.shape == (3, 7, 48, 64)
        assert report["measurement"]["frames"] == 7
        assert report["schedule"]["eta"] == 1
        assert report["models"]["image"] is None

    def test_samples(self, clean, tmp_path):
        output = tmp_path / "out.mp4"
        # half of the pixels, drawn by frames alone: samples differ much
        problem = ("--simulate", "--problem", "inpaint", "--eta", "0", *FAST)
        assert run("restore", clean, "-o", output, "--samples", "3", *problem) == 0
        assert names(tmp_path) == [
            "out-comparison.png",
            "out-mean.mp4",
            "out-std.png",
            "out.json",
            "out.mp4",
        ]
        metrics = report_of(tmp_path / "out.json")["metrics"]
        assert metrics["mean"]["psnr"] > metrics["restoration"]["psnr"] + 0.2
        # the first sample is the one that a run of one sample gives
        single = tmp_path / "single.mp4"
        assert run("restore", clean, "-o", single, *problem) == 0
        first, of_three = read_video(single).frames, read_video(output).frames
        # up to the encoder, which is not repeatable to the bit on a busy machine
        torch.testing.assert_close(first, of_three, atol=4 / 255, rtol=0)

    def test_comparison_shows_reference_and_result(self, clean, tmp_path):
        output = tmp_path / "out.mp4"
        assert run("restore", clean, "-o", output, "--simulate", *FAST) == 0
        with Image.open(tmp_path / "out-comparison.png") as picture:
            assert picture.mode == "RGB"
            # measurement, pseudo-inverse, restoration, reference; frames 5x as large
            assert picture.height > 4 * 5 * HEIGHT
            assert picture.width > 3 * 5 * WIDTH


class TestMeasurement:
    @pytest.mark.parametrize("problem", ["A", "B", "C"])
    def test_degrade_writes_the_measurement(self, clean, folder, problem):
        report = report_of(folder / f"{problem}.json")
        x = read_video(clean).frames[None]
        rng = torch.Generator().manual_seed(report["noise_seed"])
        physics = make_problem(problem, x.shape[1:], 0.001, rng=rng)
        clip = read_video(folder / f"{problem}.mp4")
        expected = physics(x)[0].clamp(0, 1)
        assert (clip.frames - expected).abs().max() <= 0.5 / 255 + 1e-6
        assert clip.fps == FPS / {"A": 4, "B": 1, "C": 8}[problem]
        # noise of 0.001 and rounding of 1/255/sqrt(12)
        assert report["measurement_error"] == pytest.approx(0.0015, abs=3e-4)

    @pytest.mark.parametrize("problem", ["A", "B", "C"])
    def test_report_gives_size_frames_and_rate_back(
        self, folder, tmp_path, capsys, problem
    ):
        output = tmp_path / "out.mp4"
        assert run("restore", folder / f"{problem}.mp4", "-o", output, *FAST) == 0
        clip = read_video(output)
        assert clip.frames.shape == (3, FRAMES, HEIGHT, WIDTH)
        assert clip.fps == FPS
        report = report_of(tmp_path / "out.json")
        known = report_of(folder / f"{problem}.json")
        assert report["problem"] == problem
        assert report["grid"] == "deepinv"
        assert report["sigma"] == known["measurement_error"]
        assert report["simulated"] is False
        assert "psnr" not in report["metrics"]["restoration"]
        # the restoration explains the measurement
        assert report["metrics"]["restoration"]["residual_over_sigma"] < 2
        printed = capsys.readouterr().out
        assert "report of degrade found" in printed
        assert "grid deepinv" in printed

    def test_folder_of_frames(self, folder, tmp_path):
        output = tmp_path / "out.mp4"
        assert run("restore", folder / "frames", "-o", output, *FAST) == 0
        assert read_video(output).fps == FPS
        assert read_video(output).frames.shape[1] == FRAMES

    def test_file_of_unknown_origin(self, folder, tmp_path, capsys):
        source = tmp_path / "small.mp4"
        source.write_bytes((folder / "A.mp4").read_bytes())
        output = tmp_path / "out.mp4"
        error = fails(capsys, "restore", source, "-o", output)
        assert "--problem is missing" in error
        assert "--simulate" in error
        assert run("restore", source, "-o", output, "--problem", "A", *FAST) == 0
        report = report_of(tmp_path / "out.json")
        assert (report["grid"], report["sigma"]) == ("center", 0.01)
        assert report["video"]["frames"] == 12
        assert report["degrade_report"] is None
        assert "grid center" in capsys.readouterr().out

    def test_options_win_over_the_report(self, folder, tmp_path, capsys):
        options = ("--grid", "center", "--sigma", "0.02", "--frames", "10", *FAST)
        output = tmp_path / "out.mp4"
        assert run("restore", folder / "A.mp4", "-o", output, *options) == 0
        report = report_of(tmp_path / "out.json")
        assert (report["grid"], report["sigma"]) == ("center", 0.02)
        assert report["video"]["frames"] == 10

    def test_contradiction_with_the_report_is_said(self, folder, tmp_path, capsys):
        output = tmp_path / "out.mp4"
        options = ("--problem", "C", *FAST)
        assert run("restore", folder / "A.mp4", "-o", output, *options) == 0
        assert "contradicts the report" in capsys.readouterr().out
        assert read_video(output).frames.shape == (3, 24, 64, 96)

    def test_report_of_another_file_is_not_used(self, folder, tmp_path, capsys):
        (tmp_path / "small.mp4").write_bytes((folder / "B.mp4").read_bytes())
        (tmp_path / "small.json").write_bytes((folder / "A.json").read_bytes())
        options = ("restore", tmp_path / "small.mp4", "-o", tmp_path / "out.mp4")
        assert "--problem is missing" in fails(capsys, *options)

    @pytest.mark.parametrize(
        "text", ["{", "[]", "7", '{"command": "degrade", "measurement": 5}']
    )
    def test_damaged_report_is_not_used(self, folder, tmp_path, capsys, text):
        (tmp_path / "small.mp4").write_bytes((folder / "B.mp4").read_bytes())
        (tmp_path / "small.json").write_text(text)
        options = ("restore", tmp_path / "small.mp4", "-o", tmp_path / "out.mp4")
        assert "--problem is missing" in fails(capsys, *options)

    def test_impossible_number_of_frames(self, folder, tmp_path, capsys):
        options = ("-o", tmp_path / "out.mp4", "--frames", "13")
        error = fails(capsys, "restore", folder / "A.mp4", *options)
        assert "must be 9 to 12" in error

    def test_size_is_for_simulations(self, folder, tmp_path, capsys):
        options = ("-o", tmp_path / "out.mp4", "--size", "64x48")
        assert "--size is for --simulate" in fails(
            capsys, "restore", folder / "A.mp4", *options
        )


class TestRefusals:
    def test_missing_input(self, tmp_path, capsys):
        arguments = ("restore", tmp_path / "no.mp4", "-o", tmp_path / "out.mp4")
        error = fails(capsys, *arguments, "--simulate")
        assert "no file or folder" in error
        assert names(tmp_path) == []

    def test_truncated_input(self, clean, tmp_path, capsys):
        source = tmp_path / "cut.mkv"
        source.write_bytes(clean.read_bytes()[:-3000])
        error = fails(
            capsys, "restore", source, "-o", tmp_path / "out.mp4", "--simulate"
        )
        assert "cut.mkv" in error
        assert names(tmp_path) == ["cut.mkv"]

    @pytest.mark.parametrize("command", ["restore", "degrade"])
    def test_unknown_problem(self, clean, tmp_path, capsys, command):
        options = ["--simulate"] if command == "restore" else []
        output = tmp_path / "out.mp4"
        error = fails(capsys, command, clean, "-o", output, "--problem", "Z", *options)
        assert "mean of 4 frames" in error
        assert "'Z'" in error

    def test_size_that_does_not_divide(self, clean, tmp_path, capsys):
        options = ("--size", "50x35", "--simulate", "--problem", "B")
        error = fails(capsys, "restore", clean, "-o", tmp_path / "out.mp4", *options)
        assert "50x35" in error
        assert "--size 48x32" in error

    @pytest.mark.parametrize(
        ("option", "value", "message"),
        [
            ("--sigma", "0", "--sigma must be positive"),
            ("--sigma", "nan", "--sigma must be positive"),
            ("--eta", "1.5", "`eta` must lie in"),
            ("--device", "abacus", "--device abacus cannot be used"),
            ("--frames", "99", "99 frames asked for"),
            ("--fps", "25", "`fps` is for folders"),
        ],
    )
    def test_values(self, clean, tmp_path, capsys, option, value, message):
        arguments = ("restore", clean, "-o", tmp_path / "out.mp4", "--simulate")
        assert message in fails(capsys, *arguments, option, value)
        assert names(tmp_path) == []

    def test_output_suffix(self, clean, tmp_path, capsys):
        arguments = ("restore", clean, "-o", tmp_path / "out.gif", "--simulate")
        assert ".mp4, .mkv" in fails(capsys, *arguments)

    def test_input_is_never_the_output(self, clean, tmp_path, capsys):
        source = tmp_path / "a.mkv"
        source.write_bytes(clean.read_bytes())
        arguments = ("restore", source, "-o", source, "--simulate", "--overwrite")
        assert "is the input" in fails(capsys, *arguments)
        assert source.read_bytes() == clean.read_bytes()

    @pytest.mark.parametrize(
        "existing", ["out.mp4", "out.json", "out-comparison.png", "out-mean.mp4"]
    )
    def test_any_existing_output_stops_before_the_input_is_read(
        self, tmp_path, capsys, existing
    ):
        (tmp_path / existing).write_text("precious")
        arguments = ("restore", "missing.mp4", "-o", tmp_path / "out.mp4")
        options = ("--simulate", "--samples", "2")
        error = fails(capsys, *arguments, *options)
        assert f"{existing} exists" in error
        assert (tmp_path / existing).read_text() == "precious"

    def test_overwrite(self, clean, tmp_path):
        (tmp_path / "out.mp4").write_text("old")
        (tmp_path / "out.json").write_text("old")
        output = tmp_path / "out.mp4"
        options = ("--simulate", "--overwrite", *FAST)
        assert run("restore", clean, "-o", output, *options) == 0
        assert read_video(output).frames.shape[1] == FRAMES
        assert report_of(tmp_path / "out.json")["command"] == "restore"

    def test_a_bug_keeps_its_traceback_and_leaves_nothing(
        self, clean, tmp_path, monkeypatch
    ):
        def broken(*arguments):
            msg = "a bug"
            raise ValueError(msg)

        monkeypatch.setattr("deepinv_lvtino.cli._solve.solve", broken)
        with pytest.raises(ValueError, match="a bug"):
            run("restore", clean, "-o", tmp_path / "out.mp4", "--simulate", *FAST)
        assert names(tmp_path) == []


class TestDemoAndInfo:
    def test_demo(self, tmp_path, capsys):
        target = tmp_path / "demo"
        small = ("--size", "48x32", "--frames", "5", "--samples", "2", *FAST)
        assert run("demo", "-o", target, *small) == 0
        assert names(target) == [
            "measurement.mp4",
            "original.mp4",
            "restored-comparison.png",
            "restored-mean.mp4",
            "restored-std.png",
            "restored.json",
            "restored.mp4",
        ]
        assert report_of(target / "restored.json")["video"]["frames"] == 5
        assert "exists" in fails(capsys, "demo", "-o", target, *small)
        assert run("demo", "-o", target, "--overwrite", *small) == 0

    def test_demo_of_a_computed_clip_may_be_longer(self, tmp_path, capsys):
        small = ("--size", "24x16", "--frames", "26", "--samples", "1", *FAST)
        error = fails(capsys, "demo", "-o", tmp_path / "demo", *small)
        assert "25 or less" in error
        assert "--clip procedural" in error
        computed = ("--clip", "procedural", "--problem", "B")
        assert run("demo", "-o", tmp_path / "demo", *small, *computed) == 0
        assert report_of(tmp_path / "demo" / "restored.json")["video"]["frames"] == 26

    def test_demo_needs_a_folder(self, tmp_path, capsys):
        (tmp_path / "demo").touch()
        assert "is a file" in fails(capsys, "demo", "-o", tmp_path / "demo")

    def test_info(self, capsys):
        assert run("info") == 0
        printed = capsys.readouterr().out
        for expected in (
            torch.__version__,
            "threads",
            "mean of 8 frames",
            "tiny_video",
            "video prior of LVTINO",
        ):
            assert expected in printed

    def test_module(self):
        done = subprocess.run(
            [sys.executable, "-m", "deepinv_lvtino", "--help"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert "restore" in done.stdout


def test_enlarged_measurement_repeats_frames_and_pixels():
    y = torch.arange(2 * 2 * 3.0).reshape(1, 2, 2, 3)
    large = enlarge_measurement(y, (1, 3, 8, 12), 2, 4)
    assert large.shape == (1, 3, 8, 12)
    assert torch.equal(large[0, 2, 4:, 8:], torch.full((4, 4), 11.0))


class TestDamagedInput:
    @pytest.fixture
    def gap(self, tmp_path):
        """A folder of frames with a number missing."""
        folder = write_video(tmp_path / "gap", procedural_clip(6, HEIGHT, WIDTH))
        (folder / "00004.png").unlink()
        return folder

    def test_refused_by_default(self, gap, tmp_path, capsys):
        output = tmp_path / "out.mp4"
        for command in (
            ["restore", gap],
            ["restore", gap, "--simulate"],
            ["degrade", gap],
        ):
            error = fails(capsys, *command, "-o", output, "--problem", "sr4")
            assert "number 4 is missing" in error
            assert "--damaged accept" in error
        assert names(tmp_path) == ["gap"]

    def test_accepted_and_said(self, gap, tmp_path, capsys):
        words = ("--problem", "sr4", "--damaged", "accept")
        commands = {
            "a.mp4": ("restore", gap, *FAST),
            "b.mp4": ("restore", gap, "--simulate", *FAST),
            "c.mkv": ("degrade", gap, "--device", "cpu"),
        }
        for name, command in commands.items():
            output = tmp_path / name
            assert run(*command, "-o", output, *words) == 0
            assert "accepted: " in capsys.readouterr().out
            (note,) = report_of(output.with_suffix(".json"))["damaged_input"]
            assert "number 4 is missing" in note

    def test_nothing_is_said_of_a_healthy_one(self, clean, tmp_path, capsys):
        output = tmp_path / "a.mkv"
        words = ("--problem", "sr4", "--damaged", "accept", "--device", "cpu")
        assert run("degrade", clean, "-o", output, *words) == 0
        assert "accepted" not in capsys.readouterr().out
        assert "damaged_input" not in report_of(output.with_suffix(".json"))
