"""Many clips: each as `restore` gives it, nothing done twice, none that stops others."""

import json
import shutil

import pytest

from deepinv_lvtino.cli import main
from deepinv_lvtino.datasets import procedural_clip, read_video, write_video

OPTIONS = ["--problem", "B", "--steps", "1", "--device", "cpu"]


@pytest.fixture
def clips(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for k in range(2):
        clip = procedural_clip(3, 8, 12, seed=k)
        write_video(folder / f"clip{k}.mkv", clip, 24, lossless=True)
    write_video(folder / "frames", procedural_clip(3, 8, 12, seed=2))
    return folder


def entries(folder):
    lines = (folder / "clips.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_every_clip_is_what_restore_gives(clips, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["restore-many", str(clips), "-o", str(out), *OPTIONS]) == 0
    said = capsys.readouterr().out
    assert "1 of 3: clip0.mkv -> " in said and "3 of 3: frames -> " in said
    for name in ("clip0.mkv", "clip1.mkv", "frames"):
        alone = tmp_path / "alone.mp4"
        command = ["restore", str(clips / name), "-o", str(alone), "--overwrite"]
        assert main([*command, *OPTIONS]) == 0
        found = out / f"{name.split('.')[0]}.mp4"
        assert found.read_bytes() == alone.read_bytes()
        assert found.with_suffix(".json").exists()
    assert [entry["output"] for entry in entries(out)] == [
        "clip0.mp4",
        "clip1.mp4",
        "frames.mp4",
    ]


def test_what_is_finished_is_not_done_again(clips, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["restore-many", str(clips), "-o", str(out), *OPTIONS]
    assert main(command) == 0
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.mp4")}
    (out / "frames.mp4").unlink()
    for path in out.glob("frames*"):
        path.unlink()
    capsys.readouterr()
    with (out / "clips.jsonl").open("a") as file:
        file.write('{"input": "torn')  # by a kill
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "2 of 3 clips are finished already" in said and "clip0" not in said
    after = {path: path.stat().st_mtime_ns for path in out.glob("*.mp4")}
    assert {p for p in after if after[p] != before[p]} == {out / "frames.mp4"}
    # other options, another input: done again, and nothing replaced without a word
    assert main([*command, "--seed", "1"]) == 2
    assert "exists" in capsys.readouterr().err
    (clips / "clip0.mkv").unlink()
    write_video(
        clips / "clip0.mkv", procedural_clip(3, 8, 12, seed=9), 24, lossless=True
    )
    assert main([*command, "--overwrite"]) == 0
    assert "2 of 3 clips are finished already" in capsys.readouterr().out


def test_a_bad_clip_does_not_stop_the_others(clips, tmp_path, capsys):
    (clips / "a.mp4").write_bytes(b"nothing")
    out = tmp_path / "out"
    assert main(["restore-many", str(clips), "-o", str(out), *OPTIONS]) == 2
    said = capsys.readouterr()
    assert "1 of 4: a.mp4 failed: " in said.err and "1 of 4 clips failed" in said.err
    assert len(list(out.glob("*.mp4"))) == 3
    assert "cannot be read as a video" in entries(out)[0]["error"]


def test_two_clips_of_one_name_are_refused(clips, tmp_path, capsys):
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(clips / "clip0.mkv", other)
    out = tmp_path / "out"
    inputs = [str(clips), str(other)]
    assert main(["restore-many", *inputs, "-o", str(out), *OPTIONS]) == 2
    assert "would both be written to" in capsys.readouterr().err
    (other / "clip0.mkv").unlink()
    assert main(["restore-many", str(other), "-o", str(out), *OPTIONS]) == 2
    assert "holds neither frames nor videos" in capsys.readouterr().err
    assert main(["restore-many", "missing.mp4", "-o", str(out), *OPTIONS]) == 2
    assert "missing.mp4 does not exist" in capsys.readouterr().err


def test_workers_write_the_same_files(clips, tmp_path, ray, capsys):
    one, two = tmp_path / "one", tmp_path / "two"
    command = ["restore-many", str(clips), *OPTIONS, "--threads", "1"]
    assert main([*command, "-o", str(one)]) == 0
    assert main([*command, "-o", str(two), "--workers", "2"]) == 0
    for path in one.glob("*.mp4"):
        assert path.read_bytes() == (two / path.name).read_bytes()
    assert read_video(two / "clip0.mp4").frames.shape == (3, 3, 64, 96)
    assert "3 of 3: " in capsys.readouterr().out
