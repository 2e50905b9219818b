r"""Long videos in windows of time, each conditioned on what the last one decided."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from deepinv.models import Reconstructor
from deepinv.physics import Physics
from torch import Tensor

from deepinv_lvtino.datasets import StoredVideo
from deepinv_lvtino.optim.long import LongPhysics, TemporalRows, temporal_matrix
from deepinv_lvtino.optim.lvtino import LVTINO
from deepinv_lvtino.optim.noise import FrameNoise
from deepinv_lvtino.optim.tiled import Tiled
from deepinv_lvtino.optim.windows import (
    Window,
    in_time,
    plan,
    plan_both,
    scene_cuts,
)
from deepinv_lvtino.physics import FramewisePhysics, SeparableVideoPhysics
from deepinv_lvtino.utils import check_counts, check_integer, check_seed

ORDERS = ("causal", "both")


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
    passed on across it.

    By default only past windows condition a window: the order is causal, and
    :meth:`stream` gives frames as they are decided. With ``order="both"`` every second
    window is decided from its own measured frames alone, and the ones between them are
    conditioned on both neighbours: nothing adds up along the video, but the whole must be
    there.

    Exact where the solver treats frames by themselves, or groups of frames that the
    operator measures as one.

    :param deepinv.models.Reconstructor solver: called with the measurement and the
        operator of a window; :class:`LVTINO` also with start and noise, and so is
        :class:`Tiled`, which cuts frames that are large.
    :param int frames: frames of a window; it begins at a multiple of the number of video
        frames for each measured one, and may be shorter by less than that.
    :param int overlap: frames that a window shares with the one before.
    :param bool cuts: whether scene cuts end a window.
    :param int seed: seed of the noise, 0 by default.
    :param str order: ``'causal'``, or ``'both'`` for both directions of time.
    :raises TypeError: if a number is not an integer.
    :raises ValueError: if ``overlap`` is not below ``frames``, or ``order`` is unknown.

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
        order: str = "causal",
    ) -> None:
        if order not in ORDERS:
            msg = f"`order` must be 'causal' or 'both'; got {order!r}."
            raise ValueError(msg)
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
        self.order = order

    def forward(self, y: Tensor, physics: Physics) -> Tensor:
        r"""
        Restore a whole video.

        :param torch.Tensor y: measurement ``(B, C, t, h, w)``.
        :param deepinv.physics.Physics physics: its operator, separable or frame by frame.
        :return: (:class:`torch.Tensor`) video ``(B, C, T, H, W)``.
        :raises NotImplementedError: if the operator cannot be cut in time.
        :raises ValueError: if the windows are too short for a measured frame, or with
            ``order="both"`` the overlap too large.
        """
        if self.order == "causal":
            return torch.cat(list(self.stream(y, physics)), dim=2)
        rows = _rows(y, physics)
        noise = FrameNoise(self.seed)
        windows = self.windows(y, physics)
        x: Tensor | None = None
        for window in windows:
            past = future = None
            if x is not None:
                first, last = window.seen
                if first < window.start + window.known:
                    past = x[:, :, first : window.start + window.known]
                if last > window.stop - window.after:
                    future = x[:, :, window.stop - window.after : last]
            video = self._window(window, rows, y, physics, past, noise, future)
            if x is None:
                total = rows.total
                x = video.new_zeros(*video.shape[:2], total, *video.shape[3:])
            if past is not None:
                video = _faded(past[:, :, past.shape[2] - window.known :], video)
            if future is not None:
                ahead = future[:, :, : window.after].flip(2)
                video = _faded(ahead, video.flip(2)).flip(2)
            x[:, :, window.start : window.stop] = video
        assert x is not None
        return x

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
        :raises ValueError: if the windows are too short for a measured frame, or
            ``order`` is ``'both'``.
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
        if self.order != "causal":
            msg = (
                f"`order={self.order!r}` decides windows out of their sequence, so that "
                "frames cannot be given one after another, nor a run gone on with. Call "
                "it, or take `order='causal'`."
            )
            raise ValueError(msg)
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
        :return: (list[Window]) the windows, in the sequence in which they are decided.
        :raises NotImplementedError: if the operator cannot be cut in time.
        :raises ValueError: if the windows are too short for a measured frame.
        """
        scenes = scene_cuts(y) if self.cuts else []
        planned = plan if self.order == "causal" else plan_both
        return planned(_rows(y, physics), self.frames, self.overlap, scenes)

    def _window(
        self,
        window: Window,
        rows: TemporalRows,
        y: Tensor | StoredVideo,
        physics: Physics | LongPhysics,
        past: Tensor | None,
        noise: FrameNoise,
        future: Tensor | None = None,
    ) -> Tensor:
        """One window; ``past`` ends with its known frames, ``future`` begins so."""
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
        decided: list[tuple[int, Tensor]] = []  # with their first frame
        if past is not None:
            decided.append((window.start + window.known - past.shape[2], past))
        if future is not None:
            decided.append((window.stop - window.after, future))
        known: list[int] = []  # frames of the window, by number in it
        data, frames = [], []
        for first, video in decided:
            last = first + video.shape[2]
            seen = in_time(physics, None, (len(video[0]), video.shape[2], 1, 1)).A(
                video
            )
            low, high = max(first, window.start), min(last, window.stop)
            for apart in ((first, low), (high, last)):
                share = rows.block(window.measured, apart)
                outside = seen[:, :, apart[0] - first : apart[1] - first]
                part = part - torch.einsum("ij,bcjhw->bcihw", share.to(part), outside)
            known += range(low - window.start, high - window.start)
            data.append(seen[:, :, low - first : high - first])
            frames.append(video[:, :, low - first : high - first])
        if not known:
            return self._solve(part, plain, None, window, noise)
        eye = torch.eye(size, dtype=inside.dtype)[known]
        conditioned = in_time(physics, torch.cat([inside, eye]), physics.img_size)
        start = None
        if isinstance(self.solver, (LVTINO, Tiled)):
            start = self.solver.start(part, plain)
            start[:, :, known] = torch.cat(frames, dim=2)
        joined = torch.cat([part, *data], dim=2)
        return self._solve(joined, conditioned, start, window, noise)

    def _solve(
        self,
        y: Tensor,
        physics: Physics,
        start: Tensor | None,
        window: Window,
        noise: FrameNoise,
    ) -> Tensor:
        if not isinstance(self.solver, (LVTINO, Tiled)):
            return self.solver(y, physics)
        source = noise.of(window.start, window.stop - window.start)
        return self.solver(y, physics, init=start, noise_source=source)


def _rows(y: Tensor | StoredVideo, physics: Physics | LongPhysics) -> TemporalRows:
    if isinstance(physics, LongPhysics):
        return physics.rows
    return TemporalRows(temporal_matrix(physics, y.shape[2]))


def _faded(before: Tensor, video: Tensor) -> Tensor:
    """A window that goes on from the frames of the one before."""
    count = before.shape[2]
    share = (torch.arange(1, count + 1, device=video.device) / (count + 1)).to(video)
    video = video.clone()
    shared = video[:, :, :count]
    shared.copy_(torch.lerp(before, shared.clone(), share.view(-1, 1, 1)))
    return video
