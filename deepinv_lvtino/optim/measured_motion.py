r"""
Motion to begin with: that of the measured frames, where they are fewer than the video's.

The flow of what is being restored is not known: it is estimated from the measured frames
(:func:`measured_motion`), whose motion no prior has touched yet, and again from the video
as it improves (:func:`video_motion`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from deepinv.physics import Physics
from torch import Tensor

from deepinv_lvtino.flow import as_images, optical_flow, warp
from deepinv_lvtino.optim._filling import fill_missing
from deepinv_lvtino.optim.measured_frames import frame_centres, spatial_part
from deepinv_lvtino.optim.tv.motion import (
    Flow,
    FlowFunction,
    Motion,
    flow_between,
    trust_in,
    video_motion,
)
from deepinv_lvtino.optim.variation_start import tv_start
from deepinv_lvtino.physics import SeparableVideoPhysics, VideoInpainting


def measured_motion(
    y: Tensor, physics: SeparableVideoPhysics, flow: FlowFunction = optical_flow
) -> Motion:
    r"""
    Motion of a video of which fewer frames were measured.

    A video that total variation has filled in stands still within a group of frames that
    were measured as one, and jumps between groups; its flow says so too. Here the flow is
    that between successive *measured* frames, each brought to video size by
    :func:`tv_start` of the operator's spatial part, and shared out over the frames
    between the instants they stand at (``frame_centres``), supposing uniform motion: the
    velocity of a pixel is that of the measured pixel it was, or will be.

    :param torch.Tensor y: measurement, shape ``(B, C, T', H', W')``.
    :param SeparableVideoPhysics physics: operator whose temporal part lowers the number of
        frames, with two measured frames or more.
    :param Callable flow: ``(first, second)`` to a flow.
    :return: (:class:`Motion`) flow and trust between the frames of the video.
    :raises ValueError: if the operator leaves time as it is, or a flow does not fit.
    """
    if physics.temporal is None:
        msg = (
            "`physics` must lower the number of frames; it leaves time as it is. Take "
            "`video_motion` of the measured video."
        )
        raise ValueError(msg)
    frames = tv_start(y, spatial_part(physics)).clamp(0, 1)
    centres, order = frame_centres(physics.temporal).sort(stable=True)
    frames = frames[:, :, order]
    first, second = as_images(frames[:, :, :-1]), as_images(frames[:, :, 1:])
    forward, backward = (
        flow_between(flow, first, second),
        flow_between(flow, second, first),
    )
    shape = (len(y), len(centres) - 1, *frames.shape[3:])
    there, back = (
        _Leap(leap.view(*shape, 2), trust.view(shape))
        for leap, trust in (
            (forward, trust_in(first, second, forward, backward)),
            (backward, trust_in(second, first, backward, forward)),
        )
    )
    steps = [
        _between(t, centres.tolist(), there, back)
        for t in range(physics.img_size[1] - 1)
    ]
    flows, trusts = zip(*steps, strict=True)
    return Motion(torch.stack(flows, dim=1), torch.stack(trusts, dim=1))


def start_motion(
    y: Tensor, physics: Physics, video: Tensor, flow: Flow = optical_flow
) -> Motion:
    r"""
    Motion to begin with: of the measured frames if they are fewer, else of a video.

    :param torch.Tensor y: measurement.
    :param deepinv.physics.Physics physics: measurement operator.
    :param torch.Tensor video: first estimate, shape ``(B, C, T, H, W)``.
    :param Callable, torch.Tensor, Motion flow: see :func:`video_motion`.
    :return: (:class:`Motion`) flow and trust between the frames of the video.
    """
    if isinstance(physics, VideoInpainting):
        y, physics = fill_missing(y, physics), physics.temporal_physics
    fewer = (
        isinstance(physics, SeparableVideoPhysics)
        and physics.temporal is not None
        and 2 <= len(physics.temporal) < physics.img_size[1]
    )
    if fewer and not isinstance(flow, Tensor | Motion):
        return measured_motion(y, physics, flow)
    return video_motion(video.clamp(0, 1), flow)


@dataclass(frozen=True)
class _Leap:
    """Flow from every measured frame to a neighbour, and the trust in it."""

    flow: Tensor
    trust: Tensor

    def at(self, j: int, passed: float) -> tuple[Tensor, Tensor]:
        r"""
        What leap ``j`` says of pixels that have made this part of it already.

        :return: (tuple) displacement of the whole leap, and trust.
        """
        flow, trust = self.flow[:, j], self.trust[:, j]
        start = -passed * flow  # from the pixel to where it set out
        both = torch.cat([flow.movedim(-1, 1), trust[:, None]], dim=1)
        both = warp(both, start)
        return both[:, :2].movedim(1, -1), both[:, 2]


def _between(
    t: int, centres: list[float], there: _Leap, back: _Leap
) -> tuple[Tensor, Tensor]:
    """Flow and trust from frame t to the next, from the leaps that cover that time."""
    flow: Tensor | float = 0.0
    trust: Tensor | float = 0.0
    last = len(centres) - 2
    for j, (start, end) in enumerate(zip(centres[:-1], centres[1:], strict=True)):
        begin = t if j == 0 else max(t, start)  # the ends go on as the nearest leap
        finish = t + 1 if j == last else min(t + 1, end)
        share = finish - begin
        if share <= 0:
            continue
        length = end - start
        passed = (t - start) / length
        ahead, trust_ahead = there.at(j, passed)
        behind, trust_behind = back.at(j, 1 - passed)
        near = min(max(passed, 0.0), 1.0)  # the nearer frame counts more
        flow = flow + share / length * ((1 - near) * ahead - near * behind)
        trust = trust + share * ((1 - near) * trust_ahead + near * trust_behind)
    return flow, trust  # type: ignore[return-value]
