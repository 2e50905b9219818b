"""What commands leave behind: stops, failures after the work, links, odd arguments."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import signal
import sys
from collections import namedtuple

import pytest
import torch

from deepinv_lvtino import _staging
from deepinv_lvtino._staging import Stage
from deepinv_lvtino.benchmark import _files, results
from deepinv_lvtino.benchmark import run as run_module
from deepinv_lvtino.cli import _commands, _models, _outputs, _solve, main
from deepinv_lvtino.datasets import procedural_clip, read_video, write_video
from test_cli import fails, names, report_of, run

pytestmark = pytest.mark.usefixtures("usual_signals")

HEIGHT, WIDTH, FRAMES = 32, 48, 5
FAST = ("--steps", "1", "--device", "cpu")
SIMULATE = ("--simulate", *FAST)
BENCHMARK = ("--size", "48x32", "--frames", "5", "--problems", "A", "--scores", "psnr")


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """A clean clip, as a folder of frames."""
    folder = tmp_path_factory.mktemp("clean") / "clean"
    return write_video(folder, procedural_clip(FRAMES, HEIGHT, WIDTH))


@pytest.fixture(scope="module")
def restored(clean, tmp_path_factory):
    """The restoration of an undisturbed run, ``(3, T, H, W)``."""
    output = tmp_path_factory.mktemp("restored") / "out"
    assert run("restore", clean, "-o", output, *SIMULATE) == 0
    return read_video(output).frames


def raises(error):
    def call(*arguments, **options):
        raise error

    return call


def disk_full(*arguments, **options):
    raise OSError(errno.ENOSPC, "No space left on device")


def interrupts(function, signum):
    """A function that is interrupted before it begins."""

    def call(*arguments, **options):
        os.kill(os.getpid(), signum)
        return function(*arguments, **options)

    return call


class TestReport:
    def test_it_names_its_files(self, clean, tmp_path):
        output = tmp_path / "out.mp4"
        options = ("--samples", "2", *SIMULATE)
        assert run("restore", clean, "-o", output, *options) == 0
        files = {
            "output": "out.mp4",
            "mean": "out-mean.mp4",
            "deviation": "out-std.png",
            "comparison": "out-comparison.png",
        }
        assert report_of(tmp_path / "out.json")["sha256"] == {
            key: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
            for key, name in files.items()
        }

    @pytest.mark.parametrize("name", ["m.mkv", "frames"])
    def test_it_is_not_believed_beside_another_measurement(
        self, clean, tmp_path, capsys, name
    ):
        source = tmp_path / name
        options = ("--problem", "A", "--device", "cpu", "--overwrite")
        assert run("degrade", clean, "-o", source, *options) == 0
        report = report_of(tmp_path / source.with_suffix(".json").name)
        # another one of the same size takes its place
        assert run("degrade", clean, "-o", source, *options, "--seed", "1") == 0
        (tmp_path / source.with_suffix(".json").name).write_text(json.dumps(report))
        error = fails(capsys, "restore", source, "-o", tmp_path / "out.mp4")
        assert "--problem is missing" in error
        options = ("--problem", "A", *FAST)
        assert run("restore", source, "-o", tmp_path / "out.mp4", *options) == 0
        printed = capsys.readouterr().out
        assert "report ignored" in printed
        assert report_of(tmp_path / "out.json")["degrade_report"] is None

    def test_older_ones_without_a_hash_are(self, clean, tmp_path, capsys):
        source = tmp_path / "m.mkv"
        assert run("degrade", clean, "-o", source, "--problem", "A") == 0
        report = report_of(tmp_path / "m.json")
        del report["sha256"]
        (tmp_path / "m.json").write_text(json.dumps(report))
        assert run("restore", source, "-o", tmp_path / "out.mp4", *FAST) == 0
        assert "without the SHA-256" in capsys.readouterr().out
        assert report_of(tmp_path / "out.json")["degrade_report"] is not None


class TestWhatWasComputed:
    @pytest.mark.parametrize("what", ["write_video", "_draw", "write_report", "score"])
    def test_is_kept_if_it_cannot_be_written(
        self, clean, restored, tmp_path, capsys, monkeypatch, what
    ):
        # scores are no matter of the disk: a bug there keeps its traceback, and the frames
        bug = what == "score"
        monkeypatch.setattr(
            _solve, what, raises(KeyError("a bug")) if bug else disk_full
        )
        arguments = ("restore", clean, "-o", tmp_path / "out.mp4", *SIMULATE)
        if bug:
            with pytest.raises(KeyError, match="a bug"):
                run(*arguments)
            said = capsys.readouterr().err
        else:
            said = fails(capsys, *arguments)
            assert "No space left on device. What" in said
        assert names(tmp_path) == ["out-kept"]
        assert f"is kept in {tmp_path / 'out-kept'}." in said
        kept = read_video(tmp_path / "out-kept" / "restoration").frames
        assert torch.equal(kept, restored)

    def test_is_kept_elsewhere_if_the_folder_takes_nothing(
        self, clean, tmp_path, capsys, monkeypatch
    ):
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "here").mkdir()
        monkeypatch.setattr(_solve, "write_video", disk_full)
        monkeypatch.setattr(
            _outputs.tempfile, "gettempdir", lambda: str(tmp_path / "elsewhere")
        )
        original = _outputs._new_folder

        def new_folder(parent, name):
            return disk_full() if parent.name == "here" else original(parent, name)

        monkeypatch.setattr(_outputs, "_new_folder", new_folder)
        output = tmp_path / "here" / "out.mp4"
        options = ("--samples", "2", *SIMULATE)
        said = fails(capsys, "restore", clean, "-o", output, *options)
        place = tmp_path / "elsewhere" / "out-kept"
        assert f"is kept in {place}." in said
        assert names(place) == ["deviation.npy", "mean", "restoration"]
        assert not names(tmp_path / "here")

    def test_complete_files_are_kept_as_they_are(
        self, clean, tmp_path, capsys, monkeypatch
    ):
        original = _staging.put

        def put(new, final, old):
            if final.parent == tmp_path:  # else within the hidden folder
                raise PermissionError(errno.EPERM, "Operation not permitted")
            original(new, final, old)

        monkeypatch.setattr(_staging, "put", put)
        said = fails(capsys, "restore", clean, "-o", tmp_path / "out.mp4", *SIMULATE)
        assert "out.mp4 cannot be written (Operation not permitted)" in said
        place = tmp_path / "out-kept"
        assert names(tmp_path) == ["out-kept"]
        assert names(place) == ["out-comparison.png", "out.json", "out.mp4"]
        digest = hashlib.sha256((place / "out.mp4").read_bytes()).hexdigest()
        assert report_of(place / "out.json")["sha256"]["output"] == digest

    def test_of_a_benchmark(self, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr(run_module, "write_cell", disk_full)
        options = ("-o", tmp_path / "out", "--solvers", "pinv", *BENCHMARK)
        error = fails(capsys, "benchmark", *options)
        assert "No space left on device (nothing written)" in error
        (place,) = (tmp_path / "out" / "kept").glob("*/A/pinv")
        assert read_video(place).frames.shape == (3, FRAMES, HEIGHT, WIDTH)

    def test_first_sample_is_kept_if_a_later_one_fails(
        self, clean, restored, tmp_path, capsys, monkeypatch
    ):
        original = _solve.LVTINO.forward
        calls = []

        def forward(self, *arguments, **options):
            calls.append(arguments)
            if len(calls) > 1:
                msg = "out of memory; set `frame_batch=1`"
                raise _solve.OutOfMemory(msg)
            return original(self, *arguments, **options)

        monkeypatch.setattr(_solve.LVTINO, "forward", forward)
        options = ("--samples", "3", *SIMULATE)
        said = fails(capsys, "restore", clean, "-o", tmp_path / "out", *options)
        assert "--frame-batch 1" in said
        kept = read_video(tmp_path / "out-kept" / "restoration").frames
        assert torch.equal(kept, restored)


class TestBeforeTheWork:
    """What would fail after it."""

    @pytest.fixture(autouse=True)
    def _no_work(self, monkeypatch):
        monkeypatch.setattr(_solve, "solve", raises(RuntimeError("it works")))

    def test_frame_rate_that_a_file_cannot_have(self, clean, tmp_path, capsys):
        options = ("--fps", "65536", *SIMULATE)
        error = fails(capsys, "restore", clean, "-o", tmp_path / "out.mkv", *options)
        assert "cannot have the frame rate 65536 Hz" in error
        with pytest.raises(RuntimeError, match="it works"):  # frames have none
            run("restore", clean, "-o", tmp_path / "out", *options)
        assert not names(tmp_path)

    def test_disk_without_room(self, clean, tmp_path, capsys, monkeypatch):
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr(_outputs.shutil, "disk_usage", lambda p: usage(9, 9, 9))
        error = fails(capsys, "restore", clean, "-o", tmp_path / "out.mp4", *SIMULATE)
        assert "are free there" in error
        assert not names(tmp_path)

    def test_scores(self, clean, tmp_path, monkeypatch):
        monkeypatch.setattr(_solve, "video_scores", raises(KeyError("a score")))
        with pytest.raises(KeyError, match="a score"):
            run("restore", clean, "-o", tmp_path / "out.mp4", *SIMULATE)

    def test_name_too_long_for_what_stands_beside_it(self, clean, tmp_path, capsys):
        output = tmp_path / f"{'a' * 245}.mp4"
        error = fails(capsys, "restore", clean, "-o", output, *SIMULATE)
        assert "-comparison.png cannot be a name here" in error

    def test_another_run(self, clean, tmp_path, capsys):
        with Stage([tmp_path / "out.json"]):
            error = fails(
                capsys, "restore", clean, "-o", tmp_path / "out.mp4", *SIMULATE
            )
        assert "out.json is being written by another run" in error

    def test_device_instead_of_a_file(self, clean, tmp_path, capsys):
        os.mkfifo(tmp_path / "out.mp4")
        options = ("--overwrite", *SIMULATE)
        error = fails(capsys, "restore", clean, "-o", tmp_path / "out.mp4", *options)
        assert "neither a file nor a folder" in error


def test_names_that_are_no_text(clean, tmp_path, capsys):
    name = os.fsdecode(b"out-\xff.mkv")
    assert run("degrade", clean, "-o", tmp_path / name, "--problem", "A") == 0
    report = report_of(tmp_path / os.fsdecode(b"out-\xff.json"))
    assert report["output"] == str(tmp_path / name)
    assert "out-\\udcff.mkv" in capsys.readouterr().out
    output = tmp_path / "out.mp4"
    assert run("restore", tmp_path / name, "-o", output, *FAST) == 0


def test_links_are_followed(clean, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "a.mp4").write_text("old")
    (tmp_path / "out.mp4").symlink_to("disk/a.mp4")
    options = ("--overwrite", *SIMULATE)
    assert run("restore", clean, "-o", tmp_path / "out.mp4", *options) == 0
    assert (tmp_path / "out.mp4").is_symlink()
    assert read_video(tmp_path / "disk" / "a.mp4").frames.shape[1] == FRAMES
    assert names(tmp_path / "disk") == ["a.mp4"]


class TestStops:
    @pytest.mark.parametrize(
        ("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)]
    )
    def test_leave_nothing(self, clean, tmp_path, capsys, monkeypatch, name, code):
        stop = interrupts(_commands.simulate, getattr(signal, name))
        monkeypatch.setattr(_commands, "simulate", stop)
        output = tmp_path / "new" / "out.mp4"
        assert run("degrade", clean, "-o", output, "--problem", "A") == code
        assert capsys.readouterr().err.endswith("interrupted, nothing written\n")
        assert not names(tmp_path)

    def test_while_moving_wait(self, clean, tmp_path, capsys, monkeypatch):
        original = _staging.put

        def put(new, final, old):
            if final.parent == tmp_path:  # else within the hidden folder
                os.kill(os.getpid(), signal.SIGTERM)
            original(new, final, old)

        monkeypatch.setattr(_staging, "put", put)
        output = tmp_path / "out"
        assert run("degrade", clean, "-o", output, "--problem", "A") == 143
        assert "were written" in capsys.readouterr().err
        assert names(tmp_path) == ["out", "out.json"]

    def test_keep_what_was_computed(
        self, clean, restored, tmp_path, capsys, monkeypatch
    ):
        stop = interrupts(_solve.score, signal.SIGTERM)
        monkeypatch.setattr(_solve, "score", stop)
        options = ("-o", tmp_path / "out.mp4", *SIMULATE)
        assert run("restore", clean, *options) == 143
        assert "what was computed is kept in" in capsys.readouterr().err
        kept = read_video(tmp_path / "out-kept" / "restoration").frames
        assert torch.equal(kept, restored)

    def test_of_a_benchmark(self, tmp_path, capsys, monkeypatch):
        original, calls = run_module.Benchmark._restore, []

        def second(*arguments):
            calls.append(arguments)
            if len(calls) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return original(*arguments)

        monkeypatch.setattr(run_module.Benchmark, "_restore", second)
        options = ("-o", tmp_path, "--solvers", "pinv", *BENCHMARK)
        options += ("--problems", "A", "sr4")
        monkeypatch.setattr(results, "draw_bars", lambda path, *arguments: path.touch())
        assert run("benchmark", *options) == 143
        error = capsys.readouterr().err
        assert f"finished cells are kept in {tmp_path / 'cells'}" in error
        assert names(tmp_path) == ["cells"]
        assert run("benchmark", *options) == 0
        assert len(calls) == 3

    def test_of_a_download(self, tmp_path, capsys, monkeypatch):
        pytest.importorskip("huggingface_hub")
        monkeypatch.setattr(_models, "fetch", raises(KeyboardInterrupt()))
        assert run("download", "--to", tmp_path) == 130
        assert "what has arrived is kept" in capsys.readouterr().err


class TestBrokenPipe:
    def test_ends_quietly(self, capsys, monkeypatch):
        monkeypatch.setattr(sys, "stdout", _Closed())
        assert main(["info"]) == 141
        assert capsys.readouterr().err == ""

    def test_of_a_restoration_loses_nothing(self, clean, tmp_path, monkeypatch):
        stdout = _Closed(after=" Hz\n")
        monkeypatch.setattr(sys, "stdout", stdout)
        assert run("restore", clean, "-o", tmp_path / "out.mp4", *SIMULATE) == 141
        assert names(tmp_path) == ["out-comparison.png", "out.json", "out.mp4"]


def test_standard_output_on_a_full_disk(capsys, monkeypatch):
    class Full(io.StringIO):
        flush = staticmethod(disk_full)

    monkeypatch.setattr(sys, "stdout", Full())
    monkeypatch.setattr(_commands, "info", lambda arguments: None)
    assert main(["info"]) == 2
    error = capsys.readouterr().err
    assert "not the lines about them (No space left on device)" in error


class _Closed(io.StringIO):
    """Standard output that somebody stops reading."""

    def __init__(self, after: str = "") -> None:
        super().__init__()
        self.after = after

    def write(self, text: str) -> int:
        if self.after in self.getvalue():
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")
        return super().write(text)


class TestBenchmarkFiles:
    def test_names_prepared_by_others_are_not_followed(self, tmp_path):
        victim = tmp_path / "thesis.txt"
        victim.write_text("years of work")
        out = tmp_path / "out"
        out.mkdir()
        for name in ("csv", "md", "json", "png"):
            (out / f".benchmark.{name}").symlink_to(victim)
        assert run("benchmark", "-o", out, "--solvers", "pinv", *BENCHMARK) == 0
        assert victim.read_text() == "years of work"

    def test_a_second_run_is_refused(self, tmp_path, capsys):
        with Stage([tmp_path / "benchmark.csv"]):
            error = fails(capsys, "benchmark", "-o", tmp_path, *BENCHMARK)
        assert "benchmark.csv is being written by another run" in error

    def test_every_cell_has_files_of_its_own(self, tmp_path):
        settings = [
            {"clip": clip, "problem": "A", "solver": "pinv"}
            for clip in ("a b", "a_b", "a\udcffb", "a$b", "x" * 300, "x" * 301)
        ]
        videos = {_files.video_path(tmp_path, "videos", s) for s in settings}
        cells = {_files.cell_path(tmp_path, s) for s in settings}
        assert len(videos) == len(cells) == len(settings)
        for setting in settings:
            _files.write_cell(_files.cell_path(tmp_path, setting), setting, None, print)
        assert len(names(tmp_path / "cells")) == len(settings)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--steps", "1000000000000"),
        ("--steps", "-3"),
        ("--steps", "1e3"),
        ("--steps", "nan"),
        ("--steps", "٣"),
        ("--samples", "99999999"),
        ("--frames", "10000000"),
        ("--size", "99999x99999"),
        ("--size", "0x32"),
        ("--seed", "1" * 30),
        ("--fps", "9" * 400),
        ("--fps", "1e9"),
        ("--fps", "1000001"),
        ("--fps", "25/0"),
        ("--fps", "0.0"),
        ("--fps", "-25"),
    ],
)
def test_odd_numbers_are_refused_by_the_name_of_the_option(capsys, option, value):
    arguments = ["restore", "a.mp4", "-o", "b.mp4", "--simulate", f"{option}={value}"]
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert f"argument {option}: expected" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--sigma", "1e300", "--sigma must be 10 or less"),
        ("--sigma", "inf", "--sigma must be positive and finite"),
        ("--sigma", "-1", "--sigma must be positive and finite"),
        ("--eta", "nan", "`eta` must be finite"),
        ("--eta", "-1e300", "`eta` must lie in"),
        ("--device", "meta", "--device meta cannot be used"),
    ],
)
def test_odd_values_are_refused(clean, tmp_path, capsys, option, value, message):
    for command in (("restore", clean, "--simulate"), ("benchmark", *BENCHMARK)):
        error = fails(capsys, *command, "-o", tmp_path / "out", f"{option}={value}")
        assert message in error
    assert not names(tmp_path)


@pytest.mark.parametrize("value", ["/", ".", "..", "", "a/.."])
def test_outputs_without_a_name(clean, capsys, value):
    for command in (("restore", clean), ("degrade", clean, "--problem", "A")):
        error = fails(capsys, *command, "-o", value)
        assert "--output must name a file or a folder" in error


@pytest.mark.parametrize("command", ["demo", "benchmark"])
def test_the_root_is_no_folder_for_results(capsys, command):
    assert "--output must be a folder" in fails(capsys, command, "-o", "/")
