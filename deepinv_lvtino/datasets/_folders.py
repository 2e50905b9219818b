r"""Folders of frames: which files are one sequence, in which order, and what is missing."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

from deepinv_lvtino.datasets._damage import Faults
from deepinv_lvtino.datasets._images import list_frames

_REMEDY = "Move what is no part of the video to another folder."


def list_sequence(folder: Path, faults: Faults) -> list[Path]:
    r"""
    Frames of a folder in the order of their numbers.

    The number is the part of the names that changes, with what is before and after it the
    same in all names: ``f-1.png``, ``f0.png``, ``f1.png`` begin at -1. Numbers may begin
    anywhere and be equally spaced (every fifth frame). Names without numbers are in
    natural order.

    :param pathlib.Path folder: the folder.
    :param Faults faults: what is done about a gap.
    :return: (list[pathlib.Path]) the images.
    :raises ValueError: if the folder holds two sequences (masks beside the frames, each
        frame in two formats), or, unless that is accepted, a number is missing.
    """
    images = list_frames(folder)
    names = [_split(path) for path in images]
    if len(images) < 2 or not all(numbers for _, numbers in names):
        if any(numbers for _, numbers in names) and len(images) > 1:
            odd = next(p.name for p, (_, n) in zip(images, names, strict=True) if not n)
            msg = (
                f"`path`: the folder {folder} holds numbered images and {odd}, which has "
                f"no number. {_REMEDY}"
            )
            raise ValueError(msg)
        return images
    _check_one_kind(folder, images, [words for words, _ in names])
    numbers = _signed(images, _changing(folder, images, [n for _, n in names]))
    if numbers is None:
        return images
    _check_twins(folder, numbers)
    ordered = sorted(numbers)
    _check_gaps(folder, ordered, faults)
    return [numbers[number][0] for number in ordered]


def _split(path: Path) -> tuple[str, list[str]]:
    """Words of a name with ``#`` for each number, and the numbers."""
    return re.sub(r"\d+", "#", path.name), re.findall(r"\d+", path.name)


def _check_one_kind(folder: Path, images: list[Path], words: list[str]) -> None:
    """Refuse names of several kinds; a sign before the number makes no other kind."""
    kinds: dict[str, list[Path]] = defaultdict(list)
    for path, word in zip(images, words, strict=True):
        kinds[re.sub(r"-(#[^#]*)$", r"\1", word)].append(path)
    if len(kinds) == 1:
        return
    by_stem = Counter(path.stem for path in images)
    twin = next((stem for stem, count in by_stem.items() if count > 1), None)
    if twin is not None:
        pair = " and ".join(path.name for path in images if path.stem == twin)
        msg = f"`path`: the folder {folder} holds frames twice: {pair}. {_REMEDY}"
        raise ValueError(msg)
    first = [paths[0].name for paths in kinds.values()]
    counts = [str(len(paths)) for paths in kinds.values()]
    what = ", ".join(
        f"{name} ... ({count})" for name, count in zip(first, counts, strict=True)
    )
    msg = f"`path`: the folder {folder} holds {len(kinds)} sequences: {what}. {_REMEDY}"
    raise ValueError(msg)


def _changing(
    folder: Path, images: list[Path], numbers: list[list[str]]
) -> list[str] | None:
    """The number that counts the frames: the only one that changes."""
    columns = list(zip(*numbers, strict=True))
    changing = [column for column in columns if len(set(column)) > 1]
    if len(changing) == 1:
        return list(changing[0])
    if not changing:
        return None
    # a counter that begins again belongs to another sequence; a date does not
    groups: dict[tuple[str, ...], set[int]] = defaultdict(set)
    first: dict[tuple[str, ...], str] = {}
    for path, values in zip(images, zip(*changing, strict=True), strict=True):
        groups[values[:-1]].add(int(values[-1]))
        first.setdefault(values[:-1], path.name)
    sets = sorted(groups.values(), key=len)[-2:]
    if len(sets) == 2 and len(sets[0]) > 1 and sets[0] & sets[1]:
        some = ", ".join(f"{name} ..." for name in list(first.values())[:3])
        msg = (
            f"`path`: the folder {folder} holds {len(groups)} sequences: {some}. "
            f"{_REMEDY}"
        )
        raise ValueError(msg)
    return None


def _signed(
    images: list[Path], digits: list[str] | None
) -> dict[int, list[Path]] | None:
    """Images by number; a dash is a sign where other names have none there."""
    if digits is None:
        return None
    dashed = [
        re.search(rf"-0*{int(text)}\D*$", path.name) is not None
        for path, text in zip(images, digits, strict=True)
    ]
    signs = any(dashed) and not all(dashed)
    numbers: dict[int, list[Path]] = defaultdict(list)
    for path, text, dash in zip(images, digits, dashed, strict=True):
        numbers[-int(text) if signs and dash else int(text)].append(path)
    return numbers


def _check_twins(folder: Path, numbers: dict[int, list[Path]]) -> None:
    for number, paths in numbers.items():
        if len(paths) > 1:
            pair = " and ".join(path.name for path in paths)
            msg = (
                f"`path`: the folder {folder} holds number {number} twice: {pair}. "
                f"{_REMEDY}"
            )
            raise ValueError(msg)


def _check_gaps(folder: Path, ordered: list[int], faults: Faults) -> None:
    steps = [b - a for a, b in pairwise(ordered)]
    step = min(steps)
    # numbers such as times in nanoseconds do not count frames
    if any(other % step for other in steps):
        return
    missing = [
        number
        for a, b in pairwise(ordered)
        if b - a > step
        for number in range(a + step, min(b, a + 4 * step), step)
    ]
    if missing:
        count = (ordered[-1] - ordered[0]) // step + 1 - len(ordered)
        which = ", ".join(map(str, missing[:3])) + (" ..." if count > 3 else "")
        many = "s" if count > 1 else ""
        faults.add(
            f"has a gap: number{many} {which} {'are' if many else 'is'} missing "
            f"({ordered[0]} to {ordered[-1]} are there)"
        )
