r"""Folders of videos, in the layouts that the data sets are distributed in."""

from __future__ import annotations

import pytest
import torch

from deepinv_lvtino.datasets import (
    VideoCollection,
    adobe240,
    find_videos,
    gopro240,
    resize_video,
    write_video,
)
from helpers import rand


def store(path, seed=0, frames=6):
    """Frames of 32x18 under a name, rounded to 8 bit."""
    video = (
        255 * rand(3, frames, 18, 32, seed=seed, dtype=torch.float32)
    ).round() / 255
    write_video(path, video, 24 if path.suffix else None, lossless=bool(path.suffix))
    return video


@pytest.fixture
def gopro(tmp_path):
    root = tmp_path / "GOPRO_Large_all"
    for split, names in {
        "train": ["GOPR0372_07_00"],
        "test": ["GOPR1", "GOPR02"],
    }.items():
        for name in names:
            store(root / split / name)
    return root


def test_gopro_is_read_by_split(gopro):
    clips = gopro240(gopro, num_frames=4, height=18, width=32)
    assert clips.names == ["test/GOPR1", "test/GOPR02"]
    assert len(clips) == 2
    assert gopro240(gopro.parent, "train").names == ["train/GOPR0372_07_00"]


def test_clip_is_successive_frames_resized(gopro):
    video = store(gopro / "test" / "GOPR03", seed=3)
    clips = gopro240(gopro, num_frames=4, height=16, width=24, start=1)
    expected = resize_video(video[:, 1:5], 16, 24)
    torch.testing.assert_close(clips[2], expected)
    same_size = gopro240(gopro, num_frames=6, height=18, width=32)
    torch.testing.assert_close(same_size[2], video)


def test_adobe_is_videos_or_folders_of_frames(tmp_path):
    store(tmp_path / "original_high_fps_videos" / "IMG_2.mov", seed=1)
    video = store(tmp_path / "original_high_fps_videos" / "IMG_10.MOV", seed=2)
    store(tmp_path / "frame" / "test" / "clip")
    (tmp_path / "original_high_fps_videos" / "readme.txt").write_text("no video")
    (tmp_path / "original_high_fps_videos" / "._IMG_2.mov").write_bytes(b"no video")
    clips = adobe240(tmp_path, num_frames=3, height=18, width=32)
    assert clips.names == [
        "frame/test/clip",
        "original_high_fps_videos/IMG_2.mov",
        "original_high_fps_videos/IMG_10.MOV",
    ]
    torch.testing.assert_close(clips[2], video[:, :3])


def test_published_size_is_the_default(gopro):
    assert gopro240(gopro).size == (25, 768, 1280)


def test_refusals(gopro, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        find_videos(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no video"):
        adobe240(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="no folder test"):
        gopro240(tmp_path / "empty")
    with pytest.raises(ValueError, match="`split`"):
        gopro240(gopro, "val")
    with pytest.raises(ValueError, match="only 6"):
        gopro240(gopro, num_frames=7)[0]
    with pytest.raises(ValueError, match="`width`"):
        VideoCollection(gopro, width=0)
    with pytest.raises(ValueError, match="`start`"):
        VideoCollection(gopro, start=-1)
    store(gopro / "test" / "GOPR9" / "sharp")
    with pytest.raises(ValueError, match="Give GOPRO_Large_all"):
        gopro240(gopro)
