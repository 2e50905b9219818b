r"""A real clip that comes with the package."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from torch import Tensor

from deepinv_lvtino.datasets.video import read_video, resize_video
from deepinv_lvtino.utils import check_counts

#: Frames of the clip, and frames per second.
FRAMES, RATE = 25, Fraction(30)

_FILE = Path(__file__).parent / "clips" / "butterfly.mp4"


def butterfly_clip(num_frames: int = 25, height: int = 192, width: int = 320) -> Tensor:
    r"""
    A real clip: a butterfly closes its wings (CC0, see ``clips/README.md`` beside it).

    No network of this package was trained on it. It is stored as 25 frames of 192×320 and
    brought to other sizes (Pillow's bicubic, the aspect ratio not kept).

    :param int num_frames: number of frames, the first ones.
    :param int height: height in pixels.
    :param int width: width in pixels.
    :return: (torch.Tensor) video ``(3, T, H, W)``, float32, in [0, 1].
    :raises ValueError: if a size is not positive, or there are not so many frames.

    |sep|

    :Examples:

        >>> from deepinv_lvtino.datasets import butterfly_clip
        >>> butterfly_clip(num_frames=3, height=32, width=48).shape
        torch.Size([3, 3, 32, 48])
    """
    num_frames, height, width = check_counts(
        num_frames=num_frames, height=height, width=width
    )
    if num_frames > FRAMES:
        msg = (
            f"`num_frames` must be {FRAMES} or less, which the clip has; got {num_frames}. "
            "A procedural_clip has as many as you like."
        )
        raise ValueError(msg)
    frames = read_video(_FILE, num_frames).frames
    if frames.shape[2:] == (height, width):
        return frames
    return resize_video(frames, height, width)
