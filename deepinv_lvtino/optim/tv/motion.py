r"""Motion of a video: the flow from every frame to the next one, and the trust in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from deepinv_lvtino.flow import as_images, inside, optical_flow, warp
from deepinv_lvtino.optim.tv.abstract import LARGE

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
        forward = flow_between(flow, first, second)
        trust = trust_in(first, second, forward, flow_between(flow, second, first))
    return forward.unflatten(0, (batch, -1)), trust.unflatten(0, (batch, -1))


def trust_in(
    first: Tensor, second: Tensor, forward: Tensor, backward: Tensor
) -> Tensor:
    r"""
    Trust in the forward flow between images.

    :param torch.Tensor first: images, shape ``(B, C, H, W)``.
    :param torch.Tensor second: the images that follow.
    :param torch.Tensor forward: flow from the first to the second, ``(B, H, W, 2)``.
    :param torch.Tensor backward: flow from the second to the first.
    :return: (:class:`torch.Tensor`) trust in [0, 1], shape ``(B, H, W)``.
    """
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


def flow_between(flow: FlowFunction, first: Tensor, second: Tensor) -> Tensor:
    r"""
    A flow from a function, checked.

    :param Callable flow: ``(first, second)`` to a flow.
    :param torch.Tensor first: images, shape ``(B, C, H, W)``.
    :param torch.Tensor second: the images that follow.
    :return: (:class:`torch.Tensor`) flow, shape ``(B, H, W, 2)``.
    :raises ValueError: if it has another shape, or is not finite.
    """
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
