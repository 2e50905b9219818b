r"""Videos of any length: out of memory, in sync, and going on after a kill."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from deepinv_lvtino.cli import _long, main
from deepinv_lvtino.datasets import (
    StoredVideo,
    _stored,
    open_video,
    procedural_clip,
    read_video,
    write_video,
)
from deepinv_lvtino.datasets._stored import Frames

KILLED = """
import os, signal, sys
import torch
torch.set_num_threads(1)  # as the tests do
from deepinv_lvtino.cli import _kept, main
moment, window = sys.argv[1], int(sys.argv[2])
add = _kept.KeptWindows.add
replace = _kept.Path.replace
def die():
    os.kill(os.getpid(), signal.SIGKILL)
def killed(self, frames, state):
    if state.windows == window:
        if moment == "before":
            die()
        if moment == "between":
            def one(path, target):
                replace(path, target)
                die()
            _kept.Path.replace = one
    add(self, frames, state)
    if state.windows == window:
        die()
_kept.KeptWindows.add = killed
main(sys.argv[3:])
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("long") / "y.mkv"
    return write_video(path, procedural_clip(11, 12, 20), 6, lossless=True)


@pytest.fixture(scope="module")
def options(source):
    return [
        *["restore", str(source), "--problem", "A", "--steps", "1", "--seed", "3"],
        *["--device", "cpu", "--window", "13", "--overlap", "4"],
    ]


@pytest.fixture(scope="module")
def undisturbed(options, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "x.mp4"
    assert main([*options, "-o", str(path)]) == 0
    return path


def test_frames_beyond_the_limit_lie_in_a_file(monkeypatch):
    monkeypatch.setattr(_stored, "IN_MEMORY", 2000)
    x = torch.rand(3, 40, 6, 8)
    frames = Frames()
    for frame in x.unbind(1):
        frames.append(frame)
    assert frames._file is not None
    assert not frames._memory
    assert torch.equal(frames.read(), x)
    assert torch.equal(frames.read(7, 30), x[:, 7:30])
    frames.reorder([3, 3, 39, 0])
    assert torch.equal(frames.read(), x[:, [3, 3, 39, 0]])
    stored = StoredVideo(frames, Fraction(25))
    assert stored.shape == (1, 3, 4, 6, 8)
    assert torch.equal(stored[:, :, 1:3][0], x[:, [3, 39]])
    assert torch.equal(stored[:, :, 2:][0], x[:, [39, 0]])
    with pytest.raises(IndexError, match="video\\[:, :, 10:20\\]"):
        stored[0, :, 1:3]


def test_opening_is_reading(source):
    stored, clip = open_video(source, 5, 2), read_video(source, 5, 2)
    assert torch.equal(stored.clip().frames, clip.frames)
    assert stored.fps == clip.fps


@pytest.mark.parametrize(
    ("moment", "window"), [("before", 1), ("before", 3), ("between", 2), ("after", 4)]
)
def test_killed_it_goes_on_and_ends_the_same(
    moment, window, options, undisturbed, tmp_path, capsys
):
    output = tmp_path / "x.mp4"
    command = [sys.executable, "-c", KILLED, moment, str(window)]
    died = subprocess.run(
        [*command, *options, "-o", str(output)], capture_output=True, check=False
    )
    assert died.returncode == -signal.SIGKILL
    assert not output.exists()
    assert main([*options, "-o", str(output)]) == 0
    said = capsys.readouterr().out
    done = window - 1 if moment != "after" else window
    assert ("going on after frame" in said) == (done > 0)
    assert output.read_bytes() == undisturbed.read_bytes()
    report = json.loads((tmp_path / "x.json").read_text())
    assert report["windows"]["begun_at_window"] == done
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "x-comparison.png",
        "x.json",
        "x.mp4",
    ]


def test_other_windows_are_not_gone_on_with(options, tmp_path, capsys):
    output = tmp_path / "x.mp4"
    command = [sys.executable, "-c", KILLED, "after", "2", *options, "-o", str(output)]
    subprocess.run(command, capture_output=True, check=False)
    kept = tmp_path / "x-windows"
    assert kept.is_dir()
    before = {path.name: path.read_bytes() for path in kept.iterdir()}
    assert main([*options, "-o", str(output), "--sigma", "0.02"]) == 2
    assert "with other settings (sigma)" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == before
    (kept / "000001.npy").write_bytes(b"")
    assert main([*options, "-o", str(output)]) == 2
    assert "are damaged" in capsys.readouterr().err
    assert main([*options, "-o", str(output), "--sigma", "0.02", "--overwrite"]) == 0
    assert not kept.exists()
    output.unlink()
    kept.mkdir()
    (kept / "thesis.txt").write_text("years of work")
    assert main([*options, "-o", str(output), "--overwrite"]) == 2
    assert "holds something else" in capsys.readouterr().err
    assert (kept / "thesis.txt").read_text() == "years of work"


def test_a_stop_says_what_is_kept(options, tmp_path, capsys, monkeypatch):
    from deepinv_lvtino.cli import _kept

    add = _kept.KeptWindows.add

    def stopped(self, frames, state):
        add(self, frames, state)
        if state.windows == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(_kept.KeptWindows, "add", stopped)
    output = tmp_path / "x.mp4"
    assert main([*options, "-o", str(output)]) == 130
    assert "the same command goes on there" in capsys.readouterr().err
    assert (tmp_path / "x-windows").is_dir()


@pytest.mark.parametrize("problem", ["sr4-temporal", "jpeg", "inpaint", "deblur"])
def test_every_problem_of_a_file_by_windows(problem, tmp_path):
    """As a folder of measurements, each against the residual of its operator."""
    clean = write_video(
        tmp_path / "clean.mkv", procedural_clip(21, 16, 24), 24, lossless=True
    )
    y = tmp_path / "y.mkv"
    degrade = ["degrade", str(clean), "-o", str(y), "--problem", problem]
    border = ["--time-border", "replicate"]
    assert main([*degrade, *border, "--device", "cpu"]) == 0
    x = tmp_path / "x.mp4"
    command = ["restore", str(y), "-o", str(x), "--device", "cpu", "--window", "13"]
    if problem != "jpeg":
        command += ["--steps", "1"]
    assert main(command) == 0
    report = json.loads((tmp_path / "x.json").read_text())
    assert report["video"]["frames"] == 21
    assert read_video(x).frames.shape == read_video(clean).frames.shape
    if problem != "jpeg":
        assert report["metrics"]["restoration"]["residual_over_sigma"] < 2


def test_sound_stays_in_sync(options, source, tmp_path):
    clip = read_video(source)
    path = tmp_path / "y.mkv"
    seconds = clip.frames.shape[1] / clip.fps
    with av.open(str(path), "w") as file:
        video = file.add_stream("ffv1", rate=clip.fps)
        video.width, video.height, video.pix_fmt = 20, 12, "bgr0"
        sound = file.add_stream("pcm_s16le", rate=8000, layout="mono")
        for image in (clip.frames.permute(1, 2, 3, 0) * 255).round().byte().numpy():
            file.mux(video.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        tone = np.sin(np.arange(round(8000 * seconds)) / 5)[None] * 20000
        frame = av.AudioFrame.from_ndarray(tone.astype(np.int16), "s16", "mono")
        frame.rate = 8000
        file.mux(sound.encode(frame))
        file.mux(video.encode(None))
        file.mux(sound.encode(None))
    output = tmp_path / "x.mp4"
    command = [str(path) if one == str(source) else one for one in options]
    assert main([*command, "-o", str(output)]) == 0
    with av.open(str(output)) as file:
        frames = list(file.decode(audio=0))
        heard = np.concatenate([one.to_ndarray().ravel() for one in frames])
        assert frames[0].time == 0
    assert np.array_equal(heard, tone.astype(np.int16)[0])
    assert read_video(output).frames.shape[1] / read_video(output).fps == seconds


FOLLOWED = """
import sys, torch
torch.set_num_threads(1)
from deepinv_lvtino.cli import _long, main
seen = []
update = _long._Stream.update
def followed(self):
    update(self)
    if self._shown:
        import av
        with av.open(str(self.path)) as file:  # while it is being written
            seen.append(sum(1 for _ in file.decode(video=0)))
_long._Stream.update = followed
code = main(sys.argv[1:])
print("seen", seen)
sys.exit(code)
"""


def test_stream_can_be_followed_and_changes_nothing(options, undisturbed, tmp_path):
    output = tmp_path / "x.mp4"
    command = [sys.executable, "-c", FOLLOWED, *options, "--stream", "-o", str(output)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    seen = json.loads(said.split("seen")[-1])
    assert (
        len(seen) == json.loads((tmp_path / "x.json").read_text())["windows"]["count"]
    )
    assert seen == sorted(set(seen))
    assert seen[-1] == 43  # the last one is stored when the next one comes, or the end
    assert output.read_bytes() == undisturbed.read_bytes()
    assert not (tmp_path / "x-windows").exists()
    report = json.loads((tmp_path / "x.json").read_text())
    assert (
        0 < report["windows"]["seconds_to_first_frames"] <= report["seconds"]["restore"]
    )


def test_stream_after_a_kill_shows_what_was_done_before(options, tmp_path, monkeypatch):
    output = tmp_path / "x.mp4"
    options = [*options, "-o", str(output), "--stream"]
    command = [sys.executable, "-c", KILLED, "after", "2", *options]
    subprocess.run(command, capture_output=True, check=False)
    shown = []

    class Watched(_long._Stream):
        def update(self):
            super().update()
            shown.append(self._shown)

    monkeypatch.setattr(_long, "_Stream", Watched)
    assert main(options) == 0
    assert shown[0] > 0
    assert shown[-1] == 44


@pytest.mark.parametrize(
    ("more", "said"),
    [(["--samples", "2"], "--stream gives one sample"), (["--simulate"], "--stream")],
)
def test_stream_and_what_contradicts_it(source, tmp_path, capsys, more, said):
    options = ["restore", str(source), "-o", str(tmp_path / "x.mp4"), "--stream", *more]
    assert main([*options, "--problem", "A"]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
