r"""How networks are called, what they predict, and the clean latent that follows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

#: What a network may predict, see :func:`clean_latent`.
PREDICTIONS = ("noise", "velocity", "v", "clean")


def clean_latent(
    prediction: str, noisy: Tensor, output: Tensor, alpha: float, sigma: float
) -> Tensor:
    r"""
    Clean latent from what a network predicts, in double precision.

    With :math:`z_t = a z_0 + s \varepsilon`:

    * ``'noise'``: the output is :math:`\varepsilon`, and
      :math:`z_0 = (z_t - s \varepsilon) / a`;
    * ``'velocity'`` (rectified flow, :math:`a + s = 1`): the output is
      :math:`\varepsilon - z_0`, and :math:`z_0 = z_t - s v`;
    * ``'v'`` (variance preserving, :math:`a^2 + s^2 = 1`): the output is
      :math:`a \varepsilon - s z_0`, and :math:`z_0 = a z_t - s v`;
    * ``'clean'``: the output is :math:`z_0`.

    :param str prediction: one of these.
    :param torch.Tensor noisy: :math:`z_t`.
    :param torch.Tensor output: the network's output, shape of ``noisy``.
    :param float alpha: :math:`a`.
    :param float sigma: :math:`s`.
    :return: (:class:`torch.Tensor`) :math:`z_0`, shape and dtype of ``noisy``.
    :raises ValueError: if ``prediction`` is unknown, or the shapes differ.
    """
    if prediction not in PREDICTIONS:
        names = ", ".join(map(repr, PREDICTIONS))
        msg = f"`prediction` must be one of {names}; got {prediction!r}."
        raise ValueError(msg)
    if output.shape != noisy.shape:
        msg = (
            f"the network's output has shape {tuple(output.shape)}; expected that of its "
            f"input, {tuple(noisy.shape)}."
        )
        raise ValueError(msg)
    if prediction == "clean":
        return output.to(noisy.dtype)
    # Apple's GPUs have no double precision
    double = torch.float32 if noisy.device.type == "mps" else torch.float64
    z, out = noisy.to(double), output.to(double)
    if prediction == "noise":
        clean = (z - sigma * out) / alpha
    elif prediction == "velocity":
        clean = z - sigma * out
    else:
        clean = alpha * z - sigma * out
    return clean.to(noisy.dtype)


def call_network(
    network: nn.Module, latent: Tensor, timestep: Tensor, conditioning: dict[str, Any]
) -> Tensor:
    r"""
    Call a network in the way of most transformers and UNets of diffusers.

    :param torch.nn.Module network: the network.
    :param torch.Tensor latent: noisy latents, first argument.
    :param torch.Tensor timestep: times, one per latent; by its name ``timestep``.
    :param dict conditioning: further arguments by name.
    :return: (:class:`torch.Tensor`) the prediction.
    """
    return network(latent, timestep=timestep, **conditioning, return_dict=False)[0]
