r"""Videos with their frame rates: in memory, and stored."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from deepinv_lvtino.datasets._stored import Frames


@dataclass(frozen=True)
class VideoClip:
    r"""
    A video and its frame rate.

    :param torch.Tensor frames: shape ``(3, T, H, W)``, float32, in [0, 1].
    :param fractions.Fraction fps: frames per second.
    :param tuple[str, ...] damage: what is wrong with the file it was read from, where
        that was accepted.
    :param tuple[str, ...] notes: what was done with it, where that was asked for.
    """

    frames: Tensor
    fps: Fraction
    damage: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class StoredVideo:
    r"""
    A video of any length, of which parts are read when they are needed.

    It is what :func:`open_video` gives, and in place of a tensor what
    :meth:`deepinv_lvtino.optim.Windowed.stream` takes: ``video[:, :, 10:20]`` are ten
    frames, shape ``(1, 3, 10, H, W)``.

    :param frames: the frames, as :func:`open_video` keeps them.
    :param fractions.Fraction fps: frames per second.
    :param tuple[str, ...] damage: as of :class:`VideoClip`.
    :param tuple[str, ...] notes: as of :class:`VideoClip`.
    """

    def __init__(
        self,
        frames: Frames,
        fps: Fraction,
        damage: tuple[str, ...] = (),
        notes: tuple[str, ...] = (),
    ) -> None:
        self.frames, self.fps = frames, fps
        self.damage, self.notes = damage, notes
        #: Device of the parts that are taken; the CPU at first.
        self.device = torch.device("cpu")

    def to(self, device: torch.device | str) -> StoredVideo:
        r"""
        The same video, whose parts come on another device.

        :param torch.device, str device: the device.
        :return: (:class:`StoredVideo`) itself.
        """
        self.device = torch.device(device)
        return self

    @property
    def shape(self) -> torch.Size:
        """Shape ``(1, 3, T, H, W)``."""
        channels, height, width = self.frames.shape
        return torch.Size((1, channels, len(self.frames), height, width))

    def __getitem__(self, places: tuple[slice, slice, slice]) -> Tensor:
        r"""
        Some of the frames.

        :param tuple[slice, slice, slice] places: the last of them says which, without
            steps; the others take all.
        :return: (:class:`torch.Tensor`) shape ``(1, 3, n, H, W)``.
        :raises IndexError: if it is not of that form.
        """
        if (
            not isinstance(places, tuple)
            or len(places) != 3
            or any(place != slice(None) for place in places[:2])
            or not isinstance(places[2], slice)
            or places[2].step not in (None, 1)
        ):
            msg = f"frames of a stored video are `video[:, :, 10:20]`; got {places}."
            raise IndexError(msg)
        start, stop, _ = places[2].indices(len(self.frames))
        return self.frames.read(start, max(start, stop))[None].to(self.device)

    def clip(self) -> VideoClip:
        r"""
        The whole video in memory.

        :return: (:class:`VideoClip`) the video.
        """
        return VideoClip(self.frames.read(), self.fps, self.damage, self.notes)
