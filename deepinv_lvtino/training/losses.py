r"""The two losses: denoising (stage 1) and consistency distillation (stage 2)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepinv_lvtino.models.tiny import SIGMA_DATA, precondition

SIGMA_MIN, SIGMA_MAX = 0.02, 5.0

#: Heun steps of a trajectory in the consistency stage.
NUM_STEPS = 6

#: Sides of the blocks, in latents of two pixels, over which errors are averaged.
BLOCKS = (1, 2, 4, 8)


def draw_sigma(batch_size: int, generator: torch.Generator | None = None) -> Tensor:
    r"""
    Random relative noise levels, log-uniform between 0.02 and 5.

    :param int batch_size: how many.
    :param torch.Generator generator: generator.
    :return: (:class:`torch.Tensor`) levels, shape ``(B,)``; one in each of ``B`` equal
        parts of the range, in random order, which lowers the variance of a batch.
    """
    device = None if generator is None else generator.device
    low, high = math.log(SIGMA_MIN), math.log(SIGMA_MAX)
    strata = torch.randperm(batch_size, generator=generator, device=device)
    inside = torch.rand(batch_size, generator=generator, device=device)
    return (low + (high - low) * (strata + inside) / batch_size).exp()


def multiscale(
    error: Tensor, penalty: Callable[[Tensor], Tensor] = torch.square
) -> Tensor:
    r"""
    Penalty of an error, and of its means over blocks.

    .. math::

        \sum_{b \in \{1, 2, 4, 8\}} b \, \operatorname{mean} \rho(P_b e)

    with :math:`P_b` the mean over blocks of ``b × b`` latents of a frame. A small error of
    the whole contrast costs next to nothing pixel by pixel, but grows with every
    application of the model; here it counts. With :math:`\rho = |\cdot|^2` the minimiser
    is the posterior mean whatever the weights are.

    :param torch.Tensor error: error, shape ``(B, 12, T, h, w)``; blocks larger than a
        frame are left out.
    :param Callable penalty: :math:`\rho`, element by element.
    :return: (:class:`torch.Tensor`) the sum for each clip, shape ``(B,)``.
    """
    total = torch.zeros(len(error), device=error.device)
    for block in BLOCKS:
        if block <= min(error.shape[-2:]):
            means = F.avg_pool3d(error, (1, block, block))
            total = total + block * penalty(means).mean(dim=(1, 2, 3, 4))
    return total


def _normal(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """White noise of a tensor's shape, drawn on the generator's device."""
    device = like.device if generator is None else generator.device
    return torch.randn(like.shape, generator=generator, device=device).to(like.device)


def denoising_loss(
    network: nn.Module, clean: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    r"""
    Weighted squared error of the denoiser (stage 1).

    .. math::

        \frac{\sigma^2 + \sigma_d^2}{\sigma^2 \sigma_d^2}
        \| D(z + \sigma \varepsilon; \sigma) - z \|^2

    the norm being :func:`multiscale`, the weight the one that makes the network's own
    target of unit variance :footcite:p:`karras2022edm`.

    :param torch.nn.Module network: the network.
    :param torch.Tensor clean: clean latents :math:`z`, shape ``(B, 12, T, h, w)``.
    :param torch.Generator generator: generator of noise and levels, on any device.
    :return: (:class:`torch.Tensor`) loss of each clip, shape ``(B,)``.

    |sep|

    .. footbibliography::
    """
    batch = len(clean)
    sigma = draw_sigma(batch, generator).to(clean.device)
    noise = _normal(clean, generator)
    noisy = clean + sigma.view(-1, 1, 1, 1, 1) * noise
    estimate = precondition(network, noisy, sigma, torch.zeros_like(sigma))
    weight = (sigma**2 + SIGMA_DATA**2) / (sigma * SIGMA_DATA) ** 2
    return weight * multiscale(estimate - clean)


def flow_step(
    network: nn.Module, noisy: Tensor, sigma: Tensor, target: Tensor
) -> Tensor:
    r"""
    One Heun step of the denoiser's probability flow, from ``sigma`` to ``target``.

    :param torch.nn.Module network: the network; its denoiser is used.
    :param torch.Tensor noisy: latent at noise level ``sigma``, shape
        ``(B, 12, T, h, w)``.
    :param torch.Tensor sigma: noise level, shape ``(B,)``.
    :param torch.Tensor target: lower noise level, positive, shape ``(B,)``.
    :return: (:class:`torch.Tensor`) latent at noise level ``target``.
    """
    shape = (-1, 1, 1, 1, 1)
    mean = torch.zeros_like(sigma)
    step = (target - sigma).view(shape)
    slope = (noisy - precondition(network, noisy, sigma, mean)) / sigma.view(shape)
    moved = noisy + step * slope
    again = (moved - precondition(network, moved, target, mean)) / target.view(shape)
    return noisy + step * (slope + again) / 2


def consistency_loss(
    network: nn.Module,
    teacher: nn.Module,
    clean: Tensor,
    generator: torch.Generator | None = None,
    num_steps: int = NUM_STEPS,
) -> Tensor:
    r"""
    Consistency by distillation of whole trajectories (stage 2).

    The teacher's probability flow is followed from :math:`z + \sigma \varepsilon` to its
    end; from every point on the way, one jump of the network must reach that end (the
    defining property of a consistency function :footcite:p:`song2023consistency`). The
    way has ``num_steps`` Heun steps, geometric in :math:`\sigma`, down to the lowest level
    that the denoiser was trained on, where its mean closes it.

    :param torch.nn.Module network: the network under training.
    :param torch.nn.Module teacher: the network of stage 1, frozen.
    :param torch.Tensor clean: clean latents, one for each trajectory, shape
        ``(B, 12, T, h, w)``.
    :param torch.Generator generator: generator of noise and levels, on any device.
    :param int num_steps: steps of a trajectory.
    :return: (:class:`torch.Tensor`) pseudo-Huber loss (:func:`multiscale`) of each
        point, shape ``(B * num_steps,)``.

    |sep|

    .. footbibliography::
    """
    shape = (-1, 1, 1, 1, 1)
    batch = len(clean)
    sigma = draw_sigma(batch, generator).to(clean.device)
    noise = _normal(clean, generator)
    state = clean + sigma.view(shape) * noise
    last = (SIGMA_MIN / sigma) ** (1 / num_steps)
    points, levels = [], []
    with torch.no_grad():
        for _ in range(num_steps):
            points.append(state)
            levels.append(sigma)
            state = flow_step(teacher, state, sigma, sigma * last)
            sigma = sigma * last
        end = precondition(teacher, state, sigma, torch.zeros_like(sigma))
    noisy, sigma = torch.cat(points), torch.cat(levels)
    target = end.repeat(num_steps, 1, 1, 1, 1)
    estimate = precondition(network, noisy, sigma, torch.ones_like(sigma))
    # in units of the network's output; below 0.03 errors count quadratically
    weight = (sigma**2 + SIGMA_DATA**2).sqrt() / (sigma * SIGMA_DATA)
    error = weight.view(shape) * (estimate - target)
    width = 0.03
    return multiscale(error, lambda e: (e.square() + width**2).sqrt() - width)
