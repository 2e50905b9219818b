r"""Memory is foreseen, and what does not fit is refused before the work."""

from __future__ import annotations

import subprocess
import sys

import pytest

from deepinv_lvtino.cli import _memory, main
from deepinv_lvtino.datasets import procedural_clip, write_video

PROGRAM = """
import resource, sys
from deepinv_lvtino.cli import _memory, main
base = {}
real = _memory.check_memory
def check(task, window):
    base["need"] = _memory.needed_memory(task, window)
    base["used"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    real(task, window)
import deepinv_lvtino.cli._solve as solve
solve.check_memory = check
code = main(sys.argv[1:])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print("FOUND", code, base["need"], peak - base["used"])
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("memory") / "y.mkv"
    return write_video(path, procedural_clip(25, 12, 20), 24, lossless=True)


@pytest.mark.parametrize("window", [None, 8])
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of Linux")
def test_no_more_is_taken_than_foreseen(window, source, tmp_path):
    options = ["--problem", "B", "--device", "cpu"]
    options += [] if window is None else ["--window", str(window)]
    command = [sys.executable, "-c", PROGRAM, "restore", str(source)]
    command += ["-o", str(tmp_path / "x.mkv"), *options]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    code, need, taken = said.split("FOUND")[1].split()
    assert int(code) == 0
    assert float(taken) < float(need)


def test_what_does_not_fit_is_refused(source, tmp_path, capsys, monkeypatch):
    output = tmp_path / "x.mkv"
    common = [
        "restore",
        str(source),
        "-o",
        str(output),
        "--problem",
        "B",
        "--steps",
        "1",
    ]
    values = 3 * 25 * 96 * 160
    free = values * (_memory.VIDEO_BYTES + 0.5 * _memory.SOLVER_BYTES)
    free += _memory.FIXED_BYTES
    monkeypatch.setattr(_memory, "available_memory", lambda: free)
    assert main([*common, "--device", "cpu"]) == 2
    message = capsys.readouterr().err
    assert "Restore it by windows: --window 12." in message
    assert not output.exists()
    assert main([*common, "--device", "cpu", "--window", "12"]) == 0
    monkeypatch.setattr(_memory, "available_memory", lambda: 1e6)
    assert main([*common, "--device", "cpu", "--overwrite"]) == 2
    assert "Cut it into shorter pieces" in capsys.readouterr().err


def test_limits_are_read():
    free = _memory.available_memory()
    if free is not None:
        assert 0 <= free < 1e16
