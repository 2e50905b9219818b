r"""Channels of large videos one by one, where an operator acts on each alike."""

from __future__ import annotations

import math

from deepinv.physics import Physics

from deepinv_lvtino.optim.tv.abstract import LARGE
from deepinv_lvtino.physics import SeparableVideoPhysics


def channels(physics: Physics, batch: int) -> list[tuple[slice, Physics]]:
    r"""
    What to solve at a time: a third of a large video needs a third of the memory.

    :param deepinv.physics.Physics physics: measurement operator.
    :param int batch: number of videos.
    :return: (list) channels, and the operator on them; all of them together, and the
        operator itself, where the videos are small or the operator may mix channels.
    """
    if isinstance(physics, SeparableVideoPhysics):
        count = physics.img_size[0]
        if count > 1 and batch * math.prod(physics.img_size) > LARGE:
            part = physics.of_one_channel()
            return [(slice(c, c + 1), part) for c in range(count)]
    return [(slice(None), physics)]
