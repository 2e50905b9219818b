r"""Memory is foreseen, and what does not fit is refused before the work."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from deepinv_lvtino.cli import _foresee, _memory, main
from deepinv_lvtino.datasets import procedural_clip, read_video, write_video

PROGRAM = """
import resource, sys
from deepinv_lvtino.cli import _memory, main
base = {}
real = _memory.choose_window
def choose(size, window, tiles, factor, samples):
    stored = window is not None
    base["need"] = _memory.needed_memory(size, window, tiles, stored=stored)
    base["used"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return real(size, window, tiles, factor, samples)
import deepinv_lvtino.cli._setup as setup
setup.choose_window = choose
code = main(sys.argv[1:])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print("FOUND", code, base["need"], peak - base["used"])
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("memory") / "y.mkv"
    return write_video(path, procedural_clip(25, 12, 20), 24, lossless=True)


@pytest.mark.parametrize(
    "cut", [[], ["--window", "8"], ["--window", "16", "--tiles", "128x96"]]
)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of Linux")
def test_no_more_is_taken_than_foreseen(cut, source, tmp_path):
    options = ["--problem", "B", "--device", "cpu", *cut]
    command = [sys.executable, "-c", PROGRAM, "restore", str(source)]
    command += ["-o", str(tmp_path / "x.mkv"), *options]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    code, need, taken = said.split("FOUND")[1].split()
    assert int(code) == 0
    assert float(taken) < float(need)


def test_what_does_not_fit_is_restored_by_windows_or_refused(
    source, tmp_path, capsys, monkeypatch
):
    output = tmp_path / "x.mkv"
    common = ["restore", str(source), "-o", str(output), "--problem", "B"]
    common += ["--steps", "1", "--device", "cpu"]
    values = 3 * 25 * 96 * 160
    free = _memory.FIXED_BYTES
    free += 0.5 * values * (_memory.VIDEO_BYTES + _memory.SOLVER_BYTES)
    monkeypatch.setattr(_memory, "available_memory", lambda: free)
    assert main([*common, "--samples", "2"]) == 2
    message = capsys.readouterr().err
    assert "Restore it by windows: --window 10 (which gives one sample)." in message
    assert main([*common, "--window", "20"]) == 2
    assert "--window 10" in capsys.readouterr().err
    assert not output.exists()
    assert main(common) == 0
    said = capsys.readouterr().out
    assert "restored by windows of 10 frames" in said
    assert "frames 1 to 25 of 25" in said
    assert read_video(output).frames.shape == (3, 25, 96, 160)
    assert [path.suffix for path in tmp_path.iterdir() if path.is_dir()] == []
    monkeypatch.setattr(_memory, "available_memory", lambda: 1e6)
    assert main([*common, "--overwrite"]) == 2
    assert "Make the frames smaller" in capsys.readouterr().err


def test_frames_that_do_not_fit_are_restored_in_tiles(
    source, tmp_path, capsys, monkeypatch
):
    output = tmp_path / "x.mkv"
    common = ["restore", str(source), "-o", str(output), "--problem", "B"]
    common += ["--steps", "1", "--device", "cpu"]
    monkeypatch.setattr(_memory, "_SIDES", (160, 96))
    need = _memory.needed_memory((3, 25, 96, 160), 9, (96, 96), stored=True)
    monkeypatch.setattr(_memory, "available_memory", lambda: need / 0.89)
    monkeypatch.setattr(_memory, "_LEAST_WINDOW", 9)
    monkeypatch.setattr(_memory, "SOLVER_BYTES", 2000)
    need = _memory.needed_memory((3, 25, 96, 160), 9, (96, 96), stored=True)
    assert main(common) == 2
    message = capsys.readouterr().err
    assert "Restore it in tiles: --tiles 96x96 --window 9 (which gives one" in message
    assert main([*common, "--tiles", "96x96", "--samples", "2"]) == 2
    assert "--tiles gives one sample" in capsys.readouterr().err
    assert main([*common, "--tiles", "96x96", "--window", "9"]) == 0
    tiled = read_video(output).frames
    monkeypatch.undo()
    assert main([*common, "--window", "9", "--overwrite"]) == 0
    difference = (tiled - read_video(output).frames).square().mean().sqrt()
    assert 0 < float(difference) < 0.1
    np.save(tmp_path / "shake.npy", np.eye(5))  # not separable
    operator = ["--operator", f"blur={tmp_path}/shake.npy", "--tiles", "32x32"]
    assert main([*common[:4], *operator, *common[6:], "--overwrite"]) == 2
    assert "--tiles 32x32: `physics` cannot be cut" in capsys.readouterr().err


def test_a_simulation_that_does_not_fit_is_refused(
    source, tmp_path, capsys, monkeypatch
):
    output = tmp_path / "x.mkv"
    common = ["restore", str(source), "-o", str(output), "--simulate"]
    common += ["--problem", "sr4", "--steps", "1", "--device", "cpu"]
    monkeypatch.setattr(_memory, "available_memory", lambda: 1e6)
    assert main(common) == 2
    assert "Cut it into shorter pieces" in capsys.readouterr().err
    values = 3 * 25 * 12 * 20
    free = values * (_memory.VIDEO_BYTES + 0.5 * _memory.SOLVER_BYTES)
    monkeypatch.setattr(_memory, "available_memory", lambda: free + _memory.FIXED_BYTES)
    assert main(common) == 2
    assert "Restore it by windows: --window 12." in capsys.readouterr().err


def test_limits_are_read():
    free = _memory.available_memory()
    if free is not None:
        assert 0 <= free < 1e16


@pytest.mark.parametrize("window", [None, 17])
def test_time_of_a_large_video_is_said_before_the_work(
    source, tmp_path, capsys, monkeypatch, window
):
    """And saying it changes nothing."""
    command = ["restore", str(source), "--problem", "sr4", "--steps", "1"]
    command += ["--device", "cpu", "--samples", "1"]
    command += [] if window is None else ["--window", str(window)]
    assert main([*command, "-o", str(tmp_path / "x.mkv")]) == 0
    assert "time: about" not in capsys.readouterr().out
    monkeypatch.setattr(_foresee, "LEAST_VALUES", 1)
    monkeypatch.setattr(_foresee, "_SIDES", (16, 40))
    assert main([*command, "-o", str(tmp_path / "again.mkv")]) == 0
    said = capsys.readouterr().out
    assert said.index("time: about") < said.index("frames at")
    first, second = (read_video(tmp_path / name) for name in ("x.mkv", "again.mkv"))
    assert torch.equal(first.frames, second.frames)


def test_time_is_not_guessed_for_operators_of_one_size(
    source, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(_foresee, "LEAST_VALUES", 1)
    size = read_video(source).frames.shape[2:]
    Image.fromarray(np.full(size, 255, np.uint8)).save(tmp_path / "mask.png")
    command = ["restore", str(source), "--operator", f"mask={tmp_path}/mask.png"]
    command += ["--steps", "1", "--device", "cpu", "-o", str(tmp_path / "x.mkv")]
    assert main(command) == 0
    assert "time: about" not in capsys.readouterr().out
