r"""Long videos in windows of time, each conditioned on what the last one decided."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from deepinv.models import Reconstructor
from deepinv.physics import Physics
from torch import Tensor

from deepinv_lvtino.datasets import StoredVideo
from deepinv_lvtino.optim.long import LongPhysics, TemporalRows, temporal_matrix
from deepinv_lvtino.optim.lvtino import LVTINO
from deepinv_lvtino.physics import FramewisePhysics, SeparableVideoPhysics
from deepinv_lvtino.utils import check_counts, check_integer, check_seed

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
    """

    start: int
    stop: int
    known: int
    fresh: bool
    measured: tuple[int, int]


@dataclass(frozen=True)
class WindowState:
    r"""
    What is needed to go on after a window.

    :param int windows: windows that are done.
    :param torch.Tensor kept: frames of theirs ``(B, C, n, H, W)`` that the next one sees;
        ``None`` if it sees none.
    """

    windows: int = 0
    kept: Tensor | None = None


class Windowed(Reconstructor):
    r"""
    A solver over windows of time: memory and latency of a window, videos of any length.

    Windows follow one another in time and overlap. A window sees the measured frames that
    need no frame after its end. What the windows before have decided enters three times:
    where a measured frame also needs frames before the window, their share is subtracted;
    the frames of the overlap are its start; and what the operator does to them in space is
    data of the window, with the noise level of the measurement. The same latent frame has
    the same noise in every window (:class:`FrameNoise`), and over the overlap the result
    goes linearly from one window to the next. A scene cut ends a window, and nothing is
    passed on across it. Only past windows condition a window: the order is causal, and
    :meth:`stream` gives frames as they are decided.

    Exact where the solver treats frames by themselves, or groups of frames that the
    operator measures as one.

    :param deepinv.models.Reconstructor solver: called with the measurement and the
        operator of a window; :class:`LVTINO` also with start and noise.
    :param int frames: frames of a window; it begins at a multiple of the number of video
        frames for each measured one, and may be shorter by less than that.
    :param int overlap: frames that a window shares with the one before.
    :param bool cuts: whether scene cuts end a window.
    :param int seed: seed of the noise, 0 by default.
    :raises TypeError: if a number is not an integer.
    :raises ValueError: if ``overlap`` is not below ``frames``.

    |sep|

    :Examples:

        >>> import torch
        >>> from deepinv_lvtino import LVTINO, Schedule, make_problem
        >>> from deepinv_lvtino.optim import Windowed
        >>> physics = make_problem("A", (3, 24, 16, 16))
        >>> y = physics(torch.rand(1, 3, 24, 16, 16))
        >>> solver = LVTINO(schedule=Schedule.calibrated(0.01, 0.9, 1, init="pinv"))
        >>> Windowed(solver, frames=12, overlap=4)(y, physics).shape
        torch.Size([1, 3, 24, 16, 16])
    """

    def __init__(
        self,
        solver: Reconstructor,
        frames: int = 17,
        overlap: int = 4,
        *,
        cuts: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_counts(frames=frames)
        overlap = check_integer("overlap", overlap, 0)
        if overlap >= frames:
            msg = f"`overlap` must be below `frames`; got {overlap} and {frames}."
            raise ValueError(msg)
        self.solver = solver
        self.frames = frames
        self.overlap = overlap
        self.cuts = cuts
        self.seed = check_seed("seed", seed)

    def forward(self, y: Tensor, physics: Physics) -> Tensor:
        r"""
        Restore a whole video.

        :param torch.Tensor y: measurement ``(B, C, t, h, w)``.
        :param deepinv.physics.Physics physics: its operator, separable or frame by frame.
        :return: (:class:`torch.Tensor`) video ``(B, C, T, H, W)``.
        :raises NotImplementedError: if the operator cannot be cut in time.
        """
        return torch.cat(list(self.stream(y, physics)), dim=2)

    def stream(
        self, y: Tensor | StoredVideo, physics: Physics | LongPhysics
    ) -> Iterator[Tensor]:
        r"""
        Frames of the video as they are decided.

        :param torch.Tensor y: measurement ``(B, C, t, h, w)``; of a long video what
            :func:`deepinv_lvtino.datasets.open_video` gives.
        :param deepinv.physics.Physics, LongPhysics physics: its operator, separable or
            frame by frame.
        :return: (Iterator[torch.Tensor]) pieces ``(B, C, n, H, W)``, one after another.
        :raises NotImplementedError: if the operator cannot be cut in time.
        :raises ValueError: if the windows are too short for a measured frame.
        """
        for decided, _ in self.resume(y, physics):
            yield decided

    def resume(
        self,
        y: Tensor | StoredVideo,
        physics: Physics | LongPhysics,
        state: WindowState | None = None,
    ) -> Iterator[tuple[Tensor, WindowState]]:
        r"""
        Frames as they are decided, each piece with what is needed to go on after it.

        :param torch.Tensor y: as of :meth:`stream`.
        :param deepinv.physics.Physics, LongPhysics physics: as of :meth:`stream`.
        :param WindowState state: where to go on; at the beginning by default.
        :return: (Iterator[tuple]) pieces ``(B, C, n, H, W)``, and the states after them.
        :raises NotImplementedError: as :meth:`stream`.
        :raises ValueError: as :meth:`stream`.
        """
        rows = _rows(y, physics)
        windows = self.windows(y, physics)
        spans = rows.spans()
        noise = FrameNoise(self.seed)
        state = WindowState() if state is None else state
        for number in range(state.windows, len(windows)):
            window = windows[number]
            following = windows[number + 1] if number + 1 < len(windows) else None
            past = None if window.fresh else state.kept
            video = self._window(window, rows, y, physics, past, noise)
            if past is not None:
                apart = past.shape[2] - window.known
                video = _faded(past[:, :, apart:], video)
            shared = following.known if following is not None else 0
            decided = video[:, :, : video.shape[2] - shared]
            kept = None
            if following is not None and not following.fresh:
                # a measured frame may need what lies before the overlap as well
                if past is not None:
                    video = torch.cat([past[:, :, :apart], video], dim=2)
                seen = [spans[j][0] for j in range(*following.measured)]
                need = window.stop - min([following.start, *seen])
                if need > 0:
                    kept = video[:, :, max(0, video.shape[2] - need) :].clone()
            state = WindowState(number + 1, kept)
            yield decided, state

    def windows(
        self, y: Tensor | StoredVideo, physics: Physics | LongPhysics
    ) -> list[Window]:
        r"""
        Windows over a video.

        :param torch.Tensor y: measurement, as of :meth:`stream`.
        :param deepinv.physics.Physics, LongPhysics physics: its operator.
        :return: (list[Window]) the windows, in order.
        :raises NotImplementedError: if the operator cannot be cut in time.
        :raises ValueError: if the windows are too short for a measured frame.
        """
        scenes = scene_cuts(y) if self.cuts else []
        return plan(_rows(y, physics), self.frames, self.overlap, scenes)

    def _window(
        self,
        window: Window,
        rows: TemporalRows,
        y: Tensor | StoredVideo,
        physics: Physics | LongPhysics,
        decided: Tensor | None,
        noise: FrameNoise,
    ) -> Tensor:
        part = y[:, :, slice(*window.measured)]
        size = window.stop - window.start
        if isinstance(physics, LongPhysics):
            if not isinstance(physics.short, SeparableVideoPhysics):
                return self._solve(part, physics.of_frames(size), None, window, noise)
            physics = physics.short
        if isinstance(physics, FramewisePhysics):
            return self._solve(part, physics, None, window, noise)
        assert isinstance(physics, SeparableVideoPhysics)
        part = part.to(physics.mask.device)
        inside = rows.block(window.measured, (window.start, window.stop))
        plain = in_time(physics, inside, physics.img_size)
        if decided is None:
            return self._solve(part, plain, None, window, noise)
        apart = decided.shape[2] - window.known  # frames before the window
        seen = in_time(physics, None, (len(decided[0]), decided.shape[2], 1, 1)).A(
            decided
        )
        share = rows.block(window.measured, (window.start - apart, window.start))
        part = part - torch.einsum(
            "ij,bcjhw->bcihw", share.to(part), seen[:, :, :apart]
        )
        if not window.known:
            return self._solve(part, plain, None, window, noise)
        eye = torch.eye(size, dtype=inside.dtype)[: window.known]
        conditioned = in_time(physics, torch.cat([inside, eye]), physics.img_size)
        start = self._start(part, plain)
        if start is not None:
            start[:, :, : window.known] = decided[:, :, apart:]
        data = torch.cat([part, seen[:, :, apart:]], dim=2)
        return self._solve(data, conditioned, start, window, noise)

    def _start(self, y: Tensor, physics: Physics) -> Tensor | None:
        if not isinstance(self.solver, LVTINO):
            return None
        start = self.solver.custom_init
        return (start(y, physics) if callable(start) else start).clone()

    def _solve(
        self,
        y: Tensor,
        physics: Physics,
        start: Tensor | None,
        window: Window,
        noise: FrameNoise,
    ) -> Tensor:
        if not isinstance(self.solver, LVTINO):
            return self.solver(y, physics)
        source = noise.of(window.start, window.stop - window.start)
        return self.solver(y, physics, init=start, noise_source=source)


class FrameNoise:
    r"""
    Standard normal noise that belongs to the frames of a long video.

    Every latent frame has a generator of its own, from seed, label and number, so that
    overlapping windows have the same noise where they show the same.

    :param int seed: seed.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def of(self, start: int, frames: int) -> Any:
        r"""
        Noise source of a window.

        :param int start: its first frame.
        :param int frames: its number of frames.
        :return: (Callable) ``(label, like)`` to noise, for :class:`LVTINO`.
        """

        def source(label: str, like: Tensor) -> Tensor:
            count = like.shape[2]
            # one latent frame for all (shared noise), for each frame, or for several
            offset = 0 if count == 1 else start * count // frames
            drawn = [self._frame(label, offset + t, like) for t in range(count)]
            return torch.cat(drawn, dim=2).to(like)

        return source

    def _frame(self, label: str, number: int, like: Tensor) -> Tensor:
        key = (zlib.crc32(label.encode()), number)
        seed = np.random.SeedSequence(self.seed, spawn_key=key).generate_state(1)[0]
        generator = torch.Generator().manual_seed(int(seed))
        return torch.randn(like[:, :, :1].shape, generator=generator)


def _rows(y: Tensor | StoredVideo, physics: Physics | LongPhysics) -> TemporalRows:
    if isinstance(physics, LongPhysics):
        return physics.rows
    return TemporalRows(temporal_matrix(physics, y.shape[2]))


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
                msg = (
                    f"`frames` must be larger: no measured frame sees only frames of a "
                    f"window of {frames} that begins at frame {start}."
                )
                raise ValueError(msg)
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


def _faded(before: Tensor, video: Tensor) -> Tensor:
    """A window that goes on from the frames of the one before."""
    count = before.shape[2]
    share = (torch.arange(1, count + 1, device=video.device) / (count + 1)).to(video)
    video = video.clone()
    shared = video[:, :, :count]
    shared.copy_(torch.lerp(before, shared.clone(), share.view(-1, 1, 1)))
    return video
