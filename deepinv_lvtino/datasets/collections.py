r"""
Collections of videos on disk, as clips of one size.

:func:`adobe240` and :func:`gopro240` read the two high-speed data sets that LVTINO was
published with, as they are distributed; :class:`VideoCollection` reads any folder.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from deepinv_lvtino.datasets._clips import VideoClip
from deepinv_lvtino.datasets._damage import check_damaged
from deepinv_lvtino.datasets._images import list_frames, natural_key
from deepinv_lvtino.datasets._writing import VIDEO_SUFFIXES
from deepinv_lvtino.datasets.video import read_video, resize_video
from deepinv_lvtino.utils import check_counts, check_integer

#: Suffixes of the files that count as videos in a collection.
COLLECTION_SUFFIXES = (*VIDEO_SUFFIXES, ".m4v")


class VideoCollection(Dataset[Tensor]):
    r"""
    One clip of every video in a folder, all resized to one size.

    A video is a file (.mp4, .mkv, .mov, .avi, .m4v) or a folder that holds frames, at any
    depth. Clips are read when they are asked for; see
    :func:`deepinv_lvtino.datasets.read_video` for what can be read.

    :param str root: the folder.
    :param int num_frames: successive frames of a clip.
    :param int height: height in pixels; the aspect ratio is not kept.
    :param int width: width in pixels.
    :param int start: frames to leave out at the beginning of each video.
    :param Sequence[pathlib.Path] videos: the videos, if not all below ``root``.
    :param str damaged: ``'refuse'`` a damaged video, or ``'accept'``: take what is left.
    :raises FileNotFoundError: if there is no such folder, or no video in it.
    :raises ValueError: if a size is not positive, or ``start`` is negative.

    |sep|

    :Examples:

        >>> import tempfile
        >>> import torch
        >>> from deepinv_lvtino.datasets import VideoCollection, write_video
        >>> with tempfile.TemporaryDirectory() as root:
        ...     path = write_video(f"{root}/test/seq_1", torch.rand(3, 6, 18, 32))
        ...     clips = VideoCollection(root, num_frames=5, height=16, width=24)
        ...     clips.names, clips[0].shape
        (['test/seq_1'], torch.Size([3, 5, 16, 24]))
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        num_frames: int = 25,
        height: int = 768,
        width: int = 1280,
        *,
        start: int = 0,
        videos: Sequence[Path] | None = None,
        damaged: str = "refuse",
    ) -> None:
        self.root = Path(root)
        check_counts(num_frames=num_frames, height=height, width=width)
        if check_integer("start", start) < 0:
            msg = f"`start` must be 0 or positive; got {start}."
            raise ValueError(msg)
        self.size = num_frames, height, width
        check_damaged(damaged)
        self.start = start
        self.damaged = damaged
        self.videos = list(find_videos(self.root) if videos is None else videos)

    @property
    def names(self) -> list[str]:
        r"""Paths of the videos below the root, with ``/`` between the parts."""
        return [video.relative_to(self.root).as_posix() for video in self.videos]

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> Tensor:
        r"""
        Read one clip.

        :param int index: number of the video.
        :return: (:class:`torch.Tensor`) clip ``(3, T, H, W)``, float32, in [0, 1].
        :raises ValueError: if it cannot be read, or is too short.
        """
        return self.read(index).frames

    def read(self, index: int) -> VideoClip:
        r"""
        Read one clip, with its frame rate and what is wrong with its file.

        :param int index: number of the video.
        :return: (:class:`VideoClip`) frames ``(3, T, H, W)`` in [0, 1], and the rest.
        :raises ValueError: if it cannot be read, or is too short.
        """
        num_frames, height, width = self.size
        clip = read_video(
            self.videos[index], num_frames, self.start, damaged=self.damaged
        )
        return replace(clip, frames=resize_video(clip.frames, height, width))


def find_videos(root: str | os.PathLike[str]) -> list[Path]:
    r"""
    Video files, and folders of frames, at any depth of a folder, in natural order.

    :param str root: the folder; what is hidden is left out.
    :return: (list[pathlib.Path]) their paths.
    :raises FileNotFoundError: if there is no such folder, or no video in it.
    """
    root = Path(root)
    if not root.is_dir():
        msg = f"`root`: there is no folder {root}."
        raise FileNotFoundError(msg)
    found: list[Path] = []
    for place, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        here = Path(place)
        found += [
            here / name
            for name in files
            if Path(name).suffix.lower() in COLLECTION_SUFFIXES
            and not name.startswith(".")
        ]
        if list_frames(here):
            found.append(here)
    if not found:
        msg = (
            f"`root`: the folder {root} holds no video: no file ending in "
            f"{', '.join(COLLECTION_SUFFIXES)}, and no folder of images."
        )
        raise FileNotFoundError(msg)
    return sorted(
        found, key=lambda path: natural_key(path.relative_to(root).as_posix())
    )


def adobe240(root: str | os.PathLike[str], **options: Any) -> VideoCollection:
    r"""
    Adobe240: hand-held videos of 240 frames per second :footcite:p:`su2017deep`.

    :param str root: folder with the original videos
        (``original_high_fps_videos/*.mov`` and the like), or with one folder of frames
        for each of them, at any depth.
    :param options: further arguments of :class:`VideoCollection`.
    :return: (:class:`VideoCollection`) the clips.
    :raises FileNotFoundError: if there is no video.

    |sep|

    .. footbibliography::
    """
    return VideoCollection(root, **options)


def gopro240(
    root: str | os.PathLike[str], split: str = "test", **options: Any
) -> VideoCollection:
    r"""
    GoPro: videos of 240 frames per second, as frames :footcite:p:`nah2017deep`.

    :param str root: the folder ``GOPRO_Large_all``, or the one that holds it, with
        sequences ``train/GOPR…/000001.png`` and ``test/GOPR…/000001.png``.
    :param str split: ``'train'`` or ``'test'``.
    :param options: further arguments of :class:`VideoCollection`.
    :return: (:class:`VideoCollection`) the clips.
    :raises FileNotFoundError: if there is no such folder.
    :raises ValueError: if ``split`` is another, or the folder is the set of averaged
        frames, ``GOPRO_Large``, which has no such videos.

    |sep|

    .. footbibliography::
    """
    if not isinstance(split, str) or split not in ("train", "test"):
        msg = f"`split` must be 'train' or 'test'; got {split!r}."
        raise ValueError(msg)
    root = Path(root)
    if (root / "GOPRO_Large_all").is_dir():
        root = root / "GOPRO_Large_all"
    place = root / split
    if not place.is_dir():
        msg = (
            f"`root`: there is no folder {split} in {root}. Give the folder "
            "GOPRO_Large_all, with its train and test."
        )
        raise FileNotFoundError(msg)
    videos = find_videos(place)
    if any(video.name in ("blur", "blur_gamma", "sharp") for video in videos):
        msg = (
            f"`root`: {root} is GOPRO_Large, every seventh frame and averages of them. "
            "Give GOPRO_Large_all, which holds all the frames."
        )
        raise ValueError(msg)
    return VideoCollection(root, videos=videos, **options)
