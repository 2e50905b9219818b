r"""
What a container says about itself: whether all its bytes are there and unchanged.

FFmpeg reads what it can and goes on, as a player should. The containers know more: they
store the sizes of their parts, some a checksum, and an end that a cut file lacks.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

_PIECE = 1 << 20


@dataclass
class Container:
    r"""
    Findings about a container.

    :param str kind: ``'matroska'``, ``'avi'``, ``'mp4'``, ``'gif'``, or ``''``, of which
        nothing is known here.
    :param str fault: what is missing or wrong, to follow the name of the file; empty if
        nothing is.
    :param int frames: pictures that it holds, where a container of one stream says so.
    :param int empty: frames of AVI without content, which repeat the one before.
    """

    kind: str = ""
    fault: str = ""
    frames: int | None = None
    empty: int = 0


class _Fault(ValueError):
    """Found on the way."""


def inspect_container(path: Path) -> Container:
    r"""
    Check the structure of a video file, reading it once.

    :param pathlib.Path path: the file.
    :return: (Container) what was found.
    """
    with path.open("rb") as file:
        head = file.read(12)
        size = file.seek(0, 2)
        file.seek(0)
        for kind, matches, check in (
            ("matroska", head[:4] == b"\x1a\x45\xdf\xa3", _matroska),
            ("avi", head[:4] == b"RIFF" and head[8:12] == b"AVI ", _avi),
            ("mp4", head[4:8] in _FIRST_BOXES, _mp4),
            ("gif", head[:6] in (b"GIF87a", b"GIF89a"), _gif),
        ):
            if not matches:
                continue
            try:
                count = check(file, size)
            except _Fault as fault:
                return Container(kind, str(fault))
            if kind == "avi":
                return Container(kind, empty=count or 0)
            return Container(kind, frames=count)
    return Container()


def _cut(what: str, missing: int) -> NoReturn:
    msg = f"is cut short: {missing} bytes of {what} are missing"
    raise _Fault(msg)


# Matroska: elements of an identifier, a size and a content, with checksums

_SEGMENT, _CLUSTER, _CRC32 = 0x18538067, 0x1F43B675, 0xBF
_LEVEL_1 = {
    0x114D9B74: "seek head",
    0x1549A966: "information",
    0x1654AE6B: "list of tracks",
    _CLUSTER: "cluster",
    0x1C53BB6B: "index",
    0x1941A469: "attachments",
    0x1043A770: "chapters",
    0x1254C367: "tags",
}
_FILLERS = {0xEC, _CRC32}
_IN_CLUSTER = {0xE7, 0xA7, 0xAB, 0xA3, 0xA0, 0xAF, 0x5854} | _FILLERS


def _matroska(file: BinaryIO, size: int) -> None:
    place = 0
    while place < size:
        name, start, end = _element(file, place, size)
        if name == _SEGMENT:
            if end is None:
                end = size
            elif end > size:
                _cut("it", end - size)
            _segment(file, start, end)
        elif end is None or end > size:
            _cut("its header", (end or size + 1) - size)
        place = end


def _segment(file: BinaryIO, start: int, end: int) -> None:
    previous = 0
    place = start
    while place < end:
        name, inside, stop = _element(file, place, end)
        if name not in _LEVEL_1 and name not in _FILLERS:
            msg = f"is damaged: there is no element {name:X} of Matroska (byte {place})"
            raise _Fault(msg)
        what = f"its {_LEVEL_1.get(name, 'filling')} at byte {place}"
        if stop is not None and stop > end:
            _cut(what, stop - end)
        if name == _CLUSTER:
            stop = _cluster(file, inside, stop, end, previous)
            previous = stop - place
        elif stop is None:
            msg = f"is damaged: {what} has no size"
            raise _Fault(msg)
        if name in _LEVEL_1:
            _check_crc(file, inside, stop, what)
        place = stop


def _cluster(
    file: BinaryIO, start: int, stop: int | None, end: int, previous: int
) -> int:
    """Its end; of one without a size, the next element of level 1."""
    place = start
    while place < (end if stop is None else stop):
        name, inside, after = _element(file, place, stop or end)
        if stop is None and name in _LEVEL_1:
            return place
        if name not in _IN_CLUSTER or after is None:
            msg = f"is damaged: element {name:X} in a cluster (byte {place})"
            raise _Fault(msg)
        if after > (stop or end):
            if stop is None:
                _cut(f"a block at byte {place}", after - end)
            msg = f"is damaged: a block at byte {place} is larger than its cluster"
            raise _Fault(msg)
        if name == 0xAB:
            file.seek(inside)
            if (
                previous
                and int.from_bytes(file.read(after - inside), "big") != previous
            ):
                msg = f"is damaged: a cluster is missing or too many at byte {place}"
                raise _Fault(msg)
        place = after
    return place


def _element(file: BinaryIO, place: int, end: int) -> tuple[int, int, int | None]:
    """Identifier, start of the content, and its end (None: it does not say)."""
    file.seek(place)
    head = file.read(min(12, end - place))
    lengths = 9 - head[0].bit_length() if head else 9
    if lengths > 4:
        msg = f"is damaged: no element of Matroska at byte {place}"
        raise _Fault(msg)
    rest = head[lengths:]
    width = 9 - rest[0].bit_length() if rest else 0
    if not 1 <= width <= 8 and rest:
        msg = f"is damaged: no size of an element at byte {place + lengths}"
        raise _Fault(msg)
    if len(rest) < max(width, 1):
        _cut(f"an element at byte {place}", max(width, 1) - len(rest))
    number = int.from_bytes(rest[:width], "big") - (1 << (7 * width))
    start = place + lengths + width
    unknown = number == (1 << (7 * width)) - 1
    return (
        int.from_bytes(head[:lengths], "big"),
        start,
        None if unknown else start + number,
    )


def _check_crc(file: BinaryIO, start: int, end: int, what: str) -> None:
    """Compare with the checksum, where the first element inside is one."""
    file.seek(start)
    head = file.read(min(6, end - start))
    if head[:2] != b"\xbf\x84" or len(head) < 6:
        return
    total, left = 0, end - start - 6
    while left and (piece := file.read(min(_PIECE, left))):
        total = zlib.crc32(piece, total)
        left -= len(piece)
    if total != int.from_bytes(head[2:], "little"):
        msg = f"is damaged: the checksum of {what} does not fit"
        raise _Fault(msg)


# AVI: chunks of a name, a size and a content, and an index of them


def _avi(file: BinaryIO, size: int) -> int:
    empty = 0
    for name, start, end in _chunks(file, 0, size):
        if name != b"RIFF":
            continue  # what follows is no part of the video
        chunks: list[tuple[bytes, int]] = []
        index: bytes | None = None
        for inner, inside, stop in _chunks(file, start + 4, end):
            if inner == b"LIST":
                file.seek(inside)
                kind = file.read(4)
                if kind == b"movi":
                    chunks = [(a, c - b) for a, b, c in _movie(file, inside + 4, stop)]
            elif inner == b"idx1":
                file.seek(inside)
                index = file.read(stop - inside)
        if index is not None and chunks:
            _check_index(index, chunks)
        empty += sum(not size and name[2:3] == b"d" for name, size in chunks)
    return empty


def _chunks(file: BinaryIO, place: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of the content of each."""
    while place + 8 <= end:
        file.seek(place)
        head = file.read(8)
        stop = place + 8 + int.from_bytes(head[4:], "little")
        if stop > end:
            name = head[:4].decode("latin-1")
            if place == 0 or name.isprintable():
                _cut(f"{name!r} at byte {place}", stop - end)
            msg = f"is damaged: no chunk of AVI at byte {place}"
            raise _Fault(msg)
        yield head[:4], place + 8, stop
        place = stop + (stop & 1)


def _movie(file: BinaryIO, place: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    for name, start, stop in _chunks(file, place, end):
        if name == b"LIST":
            yield from _chunks(file, start + 4, stop)
        elif name[:2].isdigit() or name in (b"JUNK", b"ix00") or name[:2] == b"ix":
            yield name, start, stop
        else:
            msg = f"is damaged: no chunk of AVI at byte {start - 8}"
            raise _Fault(msg)


def _check_index(index: bytes, chunks: list[tuple[bytes, int]]) -> None:
    streams = [(name, size) for name, size in chunks if name[:2].isdigit()]
    listed = [
        (index[i : i + 4], int.from_bytes(index[i + 12 : i + 16], "little"))
        for i in range(0, len(index) - 15, 16)
    ]
    listed = [(name, size) for name, size in listed if name[:2].isdigit()]
    if sorted(streams) != sorted(listed):
        msg = (
            f"is damaged: its index lists {len(listed)} chunks, and the {len(streams)} "
            "that it holds are not these"
        )
        raise _Fault(msg)


# MP4 and MOV: boxes of a size, a name and a content

_FIRST_BOXES = {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"}


def _mp4(file: BinaryIO, size: int) -> None:
    seen: set[bytes] = set()
    place = 0
    while place < size:
        file.seek(place)
        head = file.read(16)
        name = head[4:8]
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        elif length == 0:
            length = size - place
        whole = {b"moov", b"mdat"} <= seen
        if length < 8 or not name.isalnum():
            if whole:
                return  # cameras append things of their own
            msg = f"is damaged: no box of MP4 at byte {place}"
            raise _Fault(msg)
        if place + length > size:
            if whole and name not in (b"moof", b"mdat", b"moov"):
                return
            _cut(f"the box {name.decode('ascii')!r}", place + length - size)
        seen.add(name)
        place += length
    for name, what in ((b"moov", "description"), (b"mdat", "data")):
        if name not in seen:
            msg = f"is cut short or damaged: it has no {what} (box {name.decode()!r})"
            raise _Fault(msg)


# GIF: blocks up to a trailer


def _gif(file: BinaryIO, size: int) -> int:
    head = file.read(13)
    if len(head) < 13:
        _cut("its header", 13 - len(head))
    _skip_table(file, head[10])
    pictures = 0
    while True:
        mark = file.read(1)
        if mark == b"\x3b":
            return pictures
        if mark == b"\x21":
            file.seek(1, 1)
        elif mark == b"\x2c":
            pictures += 1
            described = file.read(9)
            if len(described) == 9:
                _skip_table(file, described[8])
            file.seek(1, 1)
        elif mark:
            msg = f"is damaged: no block of GIF at byte {file.tell() - 1}"
            raise _Fault(msg)
        _skip_blocks(file, size)


def _skip_table(file: BinaryIO, flags: int) -> None:
    if flags & 0x80:
        file.seek(3 << ((flags & 7) + 1), 1)


def _skip_blocks(file: BinaryIO, size: int) -> None:
    while length := file.read(1):
        if length == b"\0":
            return
        file.seek(length[0], 1)
    msg = "is cut short: a GIF ends with a trailer, which is missing"
    raise _Fault(msg)
