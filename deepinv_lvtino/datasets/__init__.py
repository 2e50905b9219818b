r"""Videos: files and folders of frames, and a procedural clip."""

from __future__ import annotations

from deepinv_lvtino.datasets.procedural import procedural_clip
from deepinv_lvtino.datasets.video import (
    VideoClip,
    check_output,
    read_video,
    resize_video,
    write_video,
)

__all__ = [
    "VideoClip",
    "check_output",
    "procedural_clip",
    "read_video",
    "resize_video",
    "write_video",
]
