r"""The clips of a benchmark: computed ones, files, and collections."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from deepinv_lvtino.datasets import (
    VideoClip,
    VideoCollection,
    adobe240,
    dead_leaves_clip,
    gopro240,
    procedural_clip,
    read_video,
    resize_video,
)
from deepinv_lvtino.datasets._images import list_frames

#: Collections by the word before the colon of a source.
COLLECTIONS: dict[str, tuple[str, Callable[..., VideoCollection]]] = {
    "adobe240": ("Adobe240", adobe240),
    "gopro240": ("GoPro240", gopro240),
}


@dataclass(frozen=True)
class Clip:
    r"""
    A clean clip, read or computed when it is needed.

    :param str name: name, unique in a benchmark.
    :param str data: what it belongs to: clips of the same data share a row of the table.
    :param tuple[int, int, int, int] shape: its shape, ``(3, T, H, W)``.
    :param Callable load: no argument to the clip, values in [0, 1].
    :param list[str] damage: what is wrong with its file, where that is accepted; known
        when it was loaded.
    """

    name: str
    data: str
    shape: tuple[int, ...]
    load: Callable[[], Tensor]
    damage: list[str] = field(default_factory=list, compare=False)


def find_clips(
    source: str,
    num_frames: int = 25,
    height: int = 192,
    width: int = 320,
    *,
    count: int | None = None,
    damaged: str = "refuse",
) -> list[Clip]:
    r"""
    The clips that a word or a path stands for.

    :param str source: ``'procedural'`` (:func:`deepinv_lvtino.datasets.procedural_clip`),
        ``'dead-leaves'`` (:func:`deepinv_lvtino.datasets.dead_leaves_clip`),
        ``'adobe240:FOLDER'``, ``'gopro240:FOLDER'`` (its test videos), a video file, a
        folder of frames, or a folder of such.
    :param int num_frames: frames of each clip, the first ones of a video.
    :param int height: height in pixels; what is read is resized, the aspect ratio not
        kept.
    :param int width: width in pixels.
    :param int count: how many clips: seeds of the computed ones (1 by default), the first
        videos of a folder (all by default).
    :param str damaged: ``'refuse'`` damaged files, or ``'accept'``: take what is left,
        and say so in ``damage`` of the clip.
    :return: (list[Clip]) the clips.
    :raises FileNotFoundError: if there is no such file or folder, or it holds no video.
    :raises ValueError: if a number is not positive.

    |sep|

    :Examples:

        >>> from deepinv_lvtino.benchmark import find_clips
        >>> [clip.name for clip in find_clips("procedural", 5, 32, 48, count=2)]
        ['procedural/0', 'procedural/1']
    """
    if count is not None and count < 1:
        msg = f"`count` must be 1 or more; got {count}."
        raise ValueError(msg)
    shape = 3, num_frames, height, width
    if source == "procedural":
        return [
            Clip(
                f"procedural/{k}",
                "procedural",
                shape,
                lambda k=k: procedural_clip(num_frames, height, width, seed=k),  # type: ignore[misc]
            )
            for k in range(count or 1)
        ]
    if source == "dead-leaves":
        return [
            Clip(
                f"dead-leaves/{k}",
                "dead leaves",
                shape,
                lambda k=k: dead_leaves_clip(k, num_frames, height, width),  # type: ignore[misc]
            )
            for k in range(count or 1)
        ]
    kind, colon, folder = source.partition(":")
    if colon and kind in COLLECTIONS:
        data, open_collection = COLLECTIONS[kind]
        clips = open_collection(
            folder, num_frames=num_frames, height=height, width=width, damaged=damaged
        )
        return _members(data, clips, count)
    path = Path(source)
    if path.is_dir() and not list_frames(path):
        clips = VideoCollection(path, num_frames, height, width, damaged=damaged)
        return _members(path.resolve().name, clips, count)
    if not path.exists():
        words = ", ".join([*map(repr, ("procedural", "dead-leaves")), *_examples()])
        msg = f"`source` must be {words}, or a file or folder; there is no {source!r}."
        raise FileNotFoundError(msg)
    name = path.resolve().stem

    def read() -> VideoClip:
        clip = read_video(path, num_frames, damaged=damaged)
        return replace(clip, frames=resize_video(clip.frames, height, width))

    return [_noting(name, name, shape, read)]


def _noting(
    name: str, data: str, shape: tuple[int, ...], read: Callable[[], VideoClip]
) -> Clip:
    """A clip that keeps what is wrong with its file."""
    damage: list[str] = []

    def load() -> Tensor:
        clip = read()
        damage[:] = clip.damage
        return clip.frames

    return Clip(name, data, shape, load, damage)


def _examples() -> list[str]:
    return [f"'{kind}:FOLDER'" for kind in COLLECTIONS]


def _members(data: str, clips: VideoCollection, count: int | None) -> list[Clip]:
    return [
        _noting(f"{data}/{name}", data, (3, *clips.size), lambda k=k: clips.read(k))  # type: ignore[misc]
        for k, name in enumerate(clips.names[:count])
    ]


def as_clips(clips: Mapping[str, Tensor] | Sequence[Clip]) -> list[Clip]:
    r"""
    Videos by name, or clips, to clips.

    :param dict[str, torch.Tensor] | Sequence[Clip] clips: videos ``(3, T, H, W)``, each
        its own data; or clips.
    :return: (list[Clip]) the clips.
    :raises ValueError: if there is none, or two have one name.
    :raises TypeError: if one is no clip.
    """
    found = (
        [Clip(name, name, tuple(x.shape), lambda x=x: x) for name, x in clips.items()]  # type: ignore[misc]
        if isinstance(clips, Mapping)
        else list(clips)
    )
    for clip in found:
        if not isinstance(clip, Clip):
            msg = (
                "`clips` must be a dictionary from names to videos, or a list of what "
                f"`find_clips` returns; got {type(clip).__name__} in it."
            )
            raise TypeError(msg)
    names = [clip.name for clip in found]
    if not names or len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        msg = (
            "`clips` must hold one clip or more, with different names; got "
            f"{', '.join(twice) + ' twice' if twice else 'none'}."
        )
        raise ValueError(msg)
    return found
