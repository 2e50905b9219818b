r"""Where windows of time begin and end, and in which sequence they are decided."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from deepinv_lvtino.datasets import StoredVideo
from deepinv_lvtino.optim.long import TemporalRows
from deepinv_lvtino.physics import SeparableVideoPhysics

#: Root mean square difference of successive measured frames, in intensity, from which on
#: they may belong to different scenes, and by how much it must exceed the usual one.
CUT_DIFFERENCE, CUT_RATIO = 0.12, 4.0
_AT_A_TIME = 32  # measured frames, in the search for cuts


@dataclass(frozen=True)
class Window:
    r"""
    A window of time.

    :param int start: first frame of the video.
    :param int stop: frame after the last one.
    :param int known: frames at its beginning that the windows before have decided.
    :param bool fresh: whether a scene begins with it, so that nothing before counts.
    :param tuple[int, int] measured: first measured frame, and the one after the last.
    :param int after: frames at its end that are decided already.
    :param tuple[int, int] seen: first frame that it or what it has measured sees, and the
        one after the last; those outside are decided already.
    """

    start: int
    stop: int
    known: int
    fresh: bool
    measured: tuple[int, int]
    after: int = 0
    seen: tuple[int, int] = (0, 0)


def plan(
    temporal: Tensor | TemporalRows,
    frames: int,
    overlap: int,
    cuts: list[int] | None = None,
) -> list[Window]:
    r"""
    Windows over a video.

    :param torch.Tensor, TemporalRows temporal: matrix along time ``(t, T)``.
    :param int frames: frames of a window.
    :param int overlap: frames shared with the window before.
    :param list[int] cuts: measured frames that begin a scene.
    :return: (list[Window]) windows that together cover all frames and measured frames.
    :raises ValueError: if ``frames`` are too few for a measured frame.
    """
    rows = TemporalRows(temporal) if isinstance(temporal, Tensor) else temporal
    measured, total = rows.measured, rows.total
    spans = rows.spans()
    steps = [b[0] - a[0] for a, b in zip(spans[:-1], spans[1:], strict=True)]
    factor = max([1, *steps])  # video frames for each measured one
    # where a scene of the video begins: at the first frame that its rows alone see
    borders = [0, *(spans[j][0] for j in cuts or []), total]
    windows: list[Window] = []
    row = 0
    for begin, end in zip(borders[:-1], borders[1:], strict=True):
        start = begin
        while start < end:
            stop = min(end, start + frames)
            if stop < end:
                stop = max(start + factor, stop // factor * factor)
            after = row
            while after < measured and (spans[after][1] <= stop or stop == total):
                after += 1
            if stop == end and end < total:  # a row that sees both scenes ends this one
                while after < measured and spans[after][0] < stop:
                    after += 1
            if after == row and stop < total:
                raise ValueError(_too_short(frames, start))
            fresh = start == begin
            known = 0 if fresh else windows[-1].stop - start
            windows.append(Window(start, stop, known, fresh, (row, after)))
            if stop == end:
                row = after
                break
            following = max(start + factor, (stop - overlap) // factor * factor)
            start = min(following, stop)
            while row < after and spans[row][1] <= start:
                row += 1
    return windows


def plan_both(
    temporal: Tensor | TemporalRows,
    frames: int,
    overlap: int,
    cuts: list[int] | None = None,
) -> list[Window]:
    r"""
    Windows over a video, in the sequence in which both directions decide them.

    Those of :func:`plan`; in every scene each second one comes first, from its own
    measured frames alone, then those between, which see both neighbours. A last one that
    is shorter than half a window comes after the one before it.

    :param torch.Tensor, TemporalRows temporal: as of :func:`plan`.
    :param int frames: as of :func:`plan`.
    :param int overlap: as of :func:`plan`.
    :param list[int] cuts: as of :func:`plan`.
    :return: (list[Window]) the windows; ``known`` counts the frames at their beginning,
        and ``after`` those at their end, that windows earlier in the list have decided.
    :raises ValueError: if ``frames`` are too few for a measured frame, or the overlap is so
        large that a window meets the next but one.
    """
    rows = TemporalRows(temporal) if isinstance(temporal, Tensor) else temporal
    spans = rows.spans()
    scenes: list[list[Window]] = []
    for window in plan(rows, frames, overlap, cuts):
        if window.fresh:
            scenes.append([])
        scenes[-1].append(window)
    return [
        window
        for scene in scenes
        for window in _two_ways(scene, spans, frames, overlap)
    ]


def _two_ways(
    scene: list[Window], spans: list[tuple[int, int]], frames: int, overlap: int
) -> list[Window]:
    """The windows of a scene, those between others after them."""
    for one, other in zip(scene[:-2], scene[2:], strict=True):
        if other.start < one.stop:
            msg = (
                f"`overlap` must be smaller: of windows of {frames} frames that overlap "
                f"by {overlap}, the one at frame {one.start} meets the next but one, at "
                f"frame {other.start}. With `order='both'` it may be half of `frames`."
            )
            raise ValueError(msg)
    last = len(scene) - 1
    late = (
        last % 2 == 0 and last > 0 and 2 * (scene[-1].stop - scene[-1].start) < frames
    )
    first = [i for i in range(0, last + 1, 2) if not (late and i == last)]
    sequence = [*first, *range(1, last + 1, 2), *([last] if late else [])]
    begin, end = scene[0].start, scene[-1].stop
    numbers = range(scene[0].measured[0], scene[-1].measured[1])
    seen = {j: (max(spans[j][0], begin), min(spans[j][1], end)) for j in numbers}
    planned: list[Window] = []
    used: set[int] = set()
    for place, i in enumerate(sequence):
        window = scene[i]
        before = scene[i - 1] if i - 1 in sequence[:place] else None
        after = scene[i + 1] if i + 1 in sequence[:place] else None
        low = window.start if before is None else before.start
        high = window.stop if after is None else after.stop
        inside = [
            j
            for j, (a, b) in seen.items()
            if low <= a and b <= high and a < window.stop and b > window.start
        ]
        if not inside:
            raise ValueError(_too_short(frames, window.start))
        used.update(inside)
        planned.append(
            Window(
                window.start,
                window.stop,
                0 if before is None else before.stop - window.start,
                before is None and after is None,
                (inside[0], inside[-1] + 1),
                0 if after is None else window.stop - after.start,
                (
                    min(window.start, *(seen[j][0] for j in inside)),
                    max(window.stop, *(seen[j][1] for j in inside)),
                ),
            )
        )
    missing = set(numbers) - used
    if missing:
        raise ValueError(_too_short(frames, spans[min(missing)][0]))
    return planned


def _too_short(frames: int, start: int) -> str:
    return (
        "`frames` must be larger: no measured frame sees only frames of a window of "
        f"{frames} that begins at frame {start}."
    )


def scene_cuts(y: Tensor | StoredVideo) -> list[int]:
    r"""
    Measured frames that begin another scene.

    A frame does if it differs from the one before by ``CUT_DIFFERENCE`` or more (root mean
    square over squares of 8×8 pixels), and ``CUT_RATIO`` times as much as the frames around
    differ from each other.

    :param torch.Tensor y: frames ``(B, C, t, h, w)``, or a stored video; a cut in any of
        the batch counts.
    :return: (list[int]) numbers of frames.
    """
    side = min(8, *y.shape[-2:])
    found = []
    last: Tensor | None = None
    for first in range(0, y.shape[2], _AT_A_TIME):
        part = y[:, :, first : first + _AT_A_TIME]
        small = torch.nn.functional.avg_pool3d(part, (1, side, side))
        joined = small if last is None else torch.cat([last, small], dim=2)
        found.append(joined.diff(dim=2).square().mean(dim=(1, 3, 4)).sqrt())
        last = small[:, :, -1:]
    cuts = set()
    for one in torch.cat(found, dim=1):
        for j, value in enumerate(one.tolist()):
            around = torch.cat([one[max(0, j - 4) : j], one[j + 1 : j + 5]])
            usual = float(around.median()) if len(around) else 0.0
            if value >= CUT_DIFFERENCE and value >= CUT_RATIO * usual:
                cuts.add(j + 1)
    return sorted(cuts)


def in_time(
    physics: SeparableVideoPhysics, temporal: Tensor | None, size: tuple[int, ...]
) -> SeparableVideoPhysics:
    r"""
    The same operator in space, another one along time.

    :param SeparableVideoPhysics physics: the operator.
    :param torch.Tensor temporal: matrix along time ``(t, T)``, or ``None`` for none.
    :param tuple size: ``(C, T, ...)``: channels, and frames where there is no matrix.
    :return: (SeparableVideoPhysics) the other one.
    """
    channels = size[0]
    frames = size[1] if temporal is None else temporal.shape[1]
    return SeparableVideoPhysics(
        (channels, frames, *physics.img_size[2:]),
        temporal=temporal,
        vertical=physics.vertical,
        horizontal=physics.horizontal,
        noise_model=physics.noise_model,
        device=physics.mask.device,
        dtype=physics.mask.dtype,
    )
