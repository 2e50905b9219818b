"""A short form of ``fuzz_files.py``: a few damaged files of each format."""

from __future__ import annotations

import pytest

from deepinv_lvtino.datasets import read_video
from fuzz_files import FORMATS, KINDS, judge, mutate, read, write_healthy


@pytest.mark.parametrize("name", FORMATS)
def test_damage_is_never_read_as_something_else(tmp_path, name):
    healthy_path = write_healthy(name, tmp_path)
    healthy = read(healthy_path)
    assert "error" not in healthy
    outcomes = []
    for index in range(2 * len(KINDS)):
        path = tmp_path / f"{index}{healthy_path.suffix}"
        mutate(healthy_path, path, index, seed=1)
        outcomes.append(judge(name, path, healthy, read(path)))
    assert set(outcomes) <= {"same", "refused", "unknowable"}
    assert outcomes.count("refused") >= 4


def test_a_silent_change_would_be_found(tmp_path):
    """The judge itself: a clip that lacks a frame is silent damage, an error is not."""
    healthy_path = write_healthy("PNG folder", tmp_path)
    healthy = read(healthy_path)
    frames = sorted(healthy_path.iterdir())
    frames[-1].unlink()  # the last number: nothing can know, but the frames are fewer
    fewer = read(healthy_path)
    assert fewer["frames"] == healthy["frames"] - 1
    assert judge("PNG folder", healthy_path, healthy, fewer) == "silent"
    frames[1].unlink()
    assert judge("PNG folder", healthy_path, healthy, read(healthy_path)) == "refused"
    broken = {"error": "IndexError: list index out of range", "named": False}
    assert judge("PNG folder", healthy_path, healthy, broken) == "traceback"
    assert judge("PNG folder", healthy_path, healthy, healthy) == "same"
    assert read_video(healthy_path, damaged="accept").frames.shape[1] == 7
