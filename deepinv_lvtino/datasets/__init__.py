r"""Videos: files and folders of frames, and built-in clips."""

from __future__ import annotations

from deepinv_lvtino.datasets._clips import StoredVideo, VideoClip
from deepinv_lvtino.datasets._streams import Companions, find_companions
from deepinv_lvtino.datasets._writing import check_output, write_video
from deepinv_lvtino.datasets.butterfly import butterfly_clip
from deepinv_lvtino.datasets.collections import (
    VideoCollection,
    adobe240,
    find_videos,
    gopro240,
)
from deepinv_lvtino.datasets.dead_leaves import (
    DeadLeavesVideos,
    dead_leaves_clip,
    dead_leaves_pool,
)
from deepinv_lvtino.datasets.procedural import procedural_clip
from deepinv_lvtino.datasets.video import open_video, read_video, resize_video

__all__ = [
    "Companions",
    "DeadLeavesVideos",
    "StoredVideo",
    "VideoClip",
    "VideoCollection",
    "adobe240",
    "butterfly_clip",
    "check_output",
    "dead_leaves_clip",
    "dead_leaves_pool",
    "find_companions",
    "find_videos",
    "gopro240",
    "open_video",
    "procedural_clip",
    "read_video",
    "resize_video",
    "write_video",
]
