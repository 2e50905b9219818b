r"""
Motion of a video: the flow from every frame to the next one, and the trust in it.

The flow of what is being restored is not known: it is estimated from the measured frames
(:func:`measured_motion`), whose motion no prior has touched yet, and again from the video
as it improves (:func:`video_motion`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from deepinv.physics import Physics
from torch import Tensor
from torch.nn.functional import avg_pool2d

from deepinv_lvtino.flow import as_images, inside, optical_flow, warp
from deepinv_lvtino.optim._filling import fill_missing
from deepinv_lvtino.optim.measured_frames import frame_centres, spatial_part
from deepinv_lvtino.optim.starts import tv_start
from deepinv_lvtino.optim.variation import LARGE
from deepinv_lvtino.physics import SeparableVideoPhysics, VideoInpainting

#: Distance between a pixel and where forward and backward flow bring it back to, in
#: pixels, at which the trust has fallen to 0.6 (one standard deviation of a Gaussian).
CONSISTENCY = 0.7

#: Root mean square of the difference of colours along the flow at which the trust has
#: fallen to 0.6: what a change of light or a scene cut exceeds.
LIKENESS = 0.15

#: Side, in pixels, of the squares that colours are compared on.
SIDE = 7


@dataclass(frozen=True)
class Motion:
    r"""
    Flow and trust of a video.

    :param torch.Tensor flow: displacement :math:`f_t` in pixels, (x, y), from every frame
        to the next one, shape ``(B, T - 1, H, W, 2)``.
    :param torch.Tensor trust: :math:`m_t` in [0, 1], shape ``(B, T - 1, H, W)``.
    """

    flow: Tensor
    trust: Tensor


#: A flow between images ``(B, C, H, W)``, as :func:`deepinv_lvtino.flow.optical_flow`.
FlowFunction = Callable[[Tensor, Tensor], Tensor]

#: What can be said of the flow: how to estimate it, it, or it and the trust in it.
Flow = FlowFunction | Tensor | Motion


def video_motion(video: Tensor, flow: Flow = optical_flow) -> Motion:
    r"""
    Motion of a video as it is.

    Flow forward and backward between successive frames. The trust is a product of
    Gaussians of two distances, and 0 where the flow leaves the frame: how far from itself
    a pixel comes back by the one and the other flow, and how unlike the colours are that
    the flow connects. A given flow has no backward one; it is trusted where it connects
    colours at least as like as standing still does.

    :param torch.Tensor video: shape ``(B, C, T, H, W)``, values in [0, 1].
    :param Callable, torch.Tensor, Motion flow: ``(first, second)`` to a flow, as
        :func:`deepinv_lvtino.flow.optical_flow`; or the forward flow itself, shape
        ``(T - 1, H, W, 2)`` or ``(B, T - 1, H, W, 2)``; or flow and trust, which are
        taken as they are.
    :return: (:class:`Motion`) flow and trust.
    :raises ValueError: if a flow does not fit the video, or is not finite.
    """
    if isinstance(flow, Motion):
        return flow
    batch, frames = len(video), video.shape[2]
    if frames == 1:
        none = video.new_zeros(batch, 0, *video.shape[3:])
        return Motion(none.unsqueeze(-1).expand(*none.shape, 2), none)
    if isinstance(flow, Tensor):
        flow = _given(flow, video)
    # as many frames at a time as are not large
    step = max(1, LARGE // video[:, :, 0].numel())
    pieces = [
        _between_frames(
            video[:, :, t : t + step],
            video[:, :, t + 1 : t + 1 + step],
            flow[:, t : t + step] if isinstance(flow, Tensor) else flow,
        )
        for t in range(0, frames - 1, step)
    ]
    forward, trust = (torch.cat(parts, dim=1) for parts in zip(*pieces, strict=True))
    return Motion(forward, trust)


def _between_frames(
    frames: Tensor, following: Tensor, flow: FlowFunction | Tensor
) -> tuple[Tensor, Tensor]:
    """Flow and trust from frames to those that follow them, both ``(B, C, T, H, W)``."""
    batch = len(frames)
    following = following[:, :, : frames.shape[2]]
    frames = frames[:, :, : following.shape[2]]
    first, second = as_images(frames), as_images(following)
    if isinstance(flow, Tensor):
        forward = flow.flatten(0, 1)
        moved = _unlikeness(first, second, forward)
        still = _unlikeness(first, second, torch.zeros_like(forward))
        trust = ((moved <= still) & inside(forward)).to(first)
    else:
        forward = _called(flow, first, second)
        trust = _trust(first, second, forward, _called(flow, second, first))
    return forward.unflatten(0, (batch, -1)), trust.unflatten(0, (batch, -1))


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
    forward, backward = _called(flow, first, second), _called(flow, second, first)
    shape = (len(y), len(centres) - 1, *frames.shape[3:])
    there, back = (
        _Leap(leap.view(*shape, 2), trust.view(shape))
        for leap, trust in (
            (forward, _trust(first, second, forward, backward)),
            (backward, _trust(second, first, backward, forward)),
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


def _trust(first: Tensor, second: Tensor, forward: Tensor, backward: Tensor) -> Tensor:
    """Trust in the forward flow between images."""
    returned = forward + warp(backward.movedim(-1, 1), forward).movedim(1, -1)
    distance = returned.square().sum(-1) / CONSISTENCY**2
    unlike = _unlikeness(first, second, forward) / LIKENESS**2
    return torch.exp(-(distance + unlike) / 2) * inside(forward)


def _unlikeness(first: Tensor, second: Tensor, flow: Tensor) -> Tensor:
    """Mean square of the difference of colours along a flow, over a square."""
    square = (warp(second, flow) - first).square().mean(1, keepdim=True)
    return avg_pool2d(
        square, SIDE, stride=1, padding=SIDE // 2, count_include_pad=False
    )[:, 0]


def _called(flow: FlowFunction, first: Tensor, second: Tensor) -> Tensor:
    """A flow from the function, checked."""
    found = flow(first, second)
    expected = (len(first), *first.shape[2:], 2)
    if not isinstance(found, Tensor) or tuple(found.shape) != expected:
        what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        msg = (
            "`flow` must return displacements (x, y) in pixels, a tensor of shape "
            f"{expected} for images {tuple(first.shape)}; got {what}."
        )
        raise ValueError(msg)
    return _finite(found.to(first))


def _given(flow: Tensor, video: Tensor) -> Tensor:
    """A flow of the user's, for every video of the batch, checked."""
    expected = (len(video), video.shape[2] - 1, *video.shape[3:], 2)
    if tuple(flow.shape) not in (expected, expected[1:], (1, *expected[1:])):
        msg = (
            f"`flow` must have shape {expected[1:]} or {expected}, displacements (x, y) "
            f"from every frame to the next; got {tuple(flow.shape)}."
        )
        raise ValueError(msg)
    return _finite(flow.to(video)).expand(expected)


def _finite(flow: Tensor) -> Tensor:
    if not bool(torch.isfinite(flow).all()):
        msg = "`flow` must be finite; it holds NaN or infinity. Replace those values."
        raise ValueError(msg)
    return flow
