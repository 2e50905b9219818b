r"""
What a folder of footage holds: clips and photographs, and which are kept for measuring.

A folder of one's own needs nothing but video files, folders of frames, and photographs;
everything in it is used. A folder with an ``index.json`` beside ``clips/`` and
``photos/`` is a collection with rules of its own: some of it is held out for measuring,
some left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from deepinv_lvtino._schema import boolean, listing, read_json, record, text, wrong
from deepinv_lvtino.datasets._images import IMAGE_SUFFIXES, natural_key
from deepinv_lvtino.datasets.collections import COLLECTION_SUFFIXES

#: In a collection: measured on, never trained on.
HELD_OUT = (
    "clips/sam2__bedroom-*",
    "clips/flutter_butterfly-*",
    "clips/mapillary_tools__*",
    "clips/media__sowt-with-video-*",
    "photos/0*",
)
#: In a collection: old film with grain, which a prior of clean clips must not learn.
LEFT_OUT = ("clips/moviepy__chaplin-*", "clips/shared-assets__friday-*")


def _inside(name: str, value: Any) -> None:
    """Check a path below the folder."""
    text(1000)(name, value)
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts or "\\" in value or not value:
        raise wrong(name, "a path below the folder", value)


_CLIP = record({"file": _inside})
_PHOTO = record({"file": _inside, "flower": boolean}, missing=("flower",))
_INDEX = record(
    {"clips": listing(_CLIP, 10**6), "photos": listing(_PHOTO, 10**6)},
    missing=("clips", "photos"),
)


@dataclass(frozen=True)
class Footage:
    r"""
    One clip or photograph.

    :param pathlib.Path path: the file, or the folder of frames.
    :param bool photo: whether it is a photograph.
    :param str scene: what it shares with others of the same place: all clips of a scene
        together are drawn as often as one.
    :param bool flower: whether it is one of many photographs of flowers.
    """

    path: Path
    photo: bool
    scene: str
    flower: bool = False


def find_footage(
    folder: str | Path, hold_out: Sequence[str] | None = None
) -> tuple[list[Footage], list[Footage]]:
    r"""
    Clips and photographs of a folder, for training and for measuring.

    A folder of images counts as a clip if its name or one above it is ``frames``; other
    images are photographs.

    :param str, pathlib.Path folder: the folder, searched at any depth.
    :param Sequence[str] hold_out: patterns of the paths, relative to the folder, that are
        for measuring only (``*`` matches anything); by default those of a collection with
        an ``index.json``, and none without.
    :return: (tuple[list[Footage], list[Footage]]) for training, for measuring.
    :raises FileNotFoundError: if there is no such folder, or nothing in it to train on.
    :raises ValueError: if a file that ``index.json`` names is missing.
    """
    folder = Path(folder)
    if not folder.is_dir():
        msg = f"`folder`: there is no folder {folder}."
        raise FileNotFoundError(msg)
    indexed = (folder / "index.json").is_file()
    found = _indexed(folder) if indexed else _all_files(folder)
    if hold_out is None:
        hold_out = HELD_OUT if indexed else ()
    training, measuring = [], []
    for footage in found:
        name = footage.path.relative_to(folder).as_posix()
        if any(fnmatch(name, pattern) for pattern in hold_out):
            measuring.append(footage)
        elif not (indexed and any(fnmatch(name, pattern) for pattern in LEFT_OUT)):
            training.append(footage)
    if not training:
        msg = (
            f"`folder`: {folder} holds nothing to train on: no video file, no folder of "
            "frames and no photograph that is not held out."
        )
        raise FileNotFoundError(msg)
    return training, measuring


def _indexed(folder: Path) -> list[Footage]:
    entries = read_json(folder / "index.json", _INDEX)
    found = [
        Footage(folder / entry["file"], False, _scene(Path(entry["file"]).stem))
        for entry in entries.get("clips", [])
    ]
    found += [
        Footage(folder / entry["file"], True, entry["file"], entry.get("flower", False))
        for entry in entries.get("photos", [])
    ]
    for footage in found:
        if not footage.path.exists():
            msg = (
                f"`folder`: {footage.path.name}, which index.json names, is missing. "
                "Copy the folder again, or remove index.json to use what is there."
            )
            raise ValueError(msg)
    return found


def _scene(name: str) -> str:
    """The recording that a clip was cut from; one name for a room filmed many times."""
    recording = name.rsplit("-", 1)[0]
    if recording.startswith("sample-videos__") and "detection" not in recording:
        return "sample-videos"
    return recording


def _all_files(folder: Path) -> list[Footage]:
    found, frames = [], set()
    for path in sorted(folder.rglob("*"), key=lambda p: natural_key(p.as_posix())):
        inside = path.relative_to(folder)
        if any(part.startswith(".") for part in inside.parts) or not path.is_file():
            continue
        if path.suffix.lower() in COLLECTION_SUFFIXES:
            found.append(Footage(path, False, inside.as_posix()))
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            if "frames" in inside.parts[:-1]:
                frames.add(path.parent)
            else:
                found.append(Footage(path, True, inside.as_posix()))
    found += [
        Footage(place, False, place.relative_to(folder).as_posix())
        for place in sorted(frames)
    ]
    return found


def draw(
    footage: Sequence[Footage], count: int, rng: np.random.Generator
) -> list[Footage]:
    r"""
    Draw clips or photographs: scene by scene, and flowers at most a third of all.

    :param Sequence[Footage] footage: to draw from, all of one kind.
    :param int count: how many.
    :param numpy.random.Generator rng: generator.
    :return: (list[Footage]) what was drawn; each scene equally often on average.
    """
    scenes: dict[tuple[bool, str], list[Footage]] = {}
    for one in footage:
        scenes.setdefault((one.flower, one.scene), []).append(one)
    groups = list(scenes.values())
    flowers = np.array([group[0].flower for group in groups])
    weights = np.ones(len(groups))
    others = int((~flowers).sum())
    if others and flowers.sum() > others / 2:
        weights[flowers] = others / 2 / flowers.sum()
    picks = rng.choice(len(groups), size=count, p=weights / weights.sum())
    return [groups[k][int(rng.integers(len(groups[k])))] for k in picks]
