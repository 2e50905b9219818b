r"""Networks that begin where a trained one, smaller or of another kind, has ended."""

from __future__ import annotations

import torch

from deepinv_lvtino.models.tiny_network import TinyNetwork


def start_from(network: TinyNetwork, source: TinyNetwork) -> None:
    r"""
    Copy weights, so that the network computes at first what the source does.

    The network may have coarser resolutions that the source lacks; what comes back from
    there is zero at first, and the blocks on the way are the identity. A video network may
    begin as an image network on every frame: its temporal convolutions are zero at first.

    :param TinyNetwork network: the network that receives them, new.
    :param TinyNetwork source: the network that gives them.
    :raises ValueError: if the sizes of the source are not the first of the network's, or a
        video model is to begin an image model.
    """
    ours, theirs = network.config, source.config
    depth = len(theirs.channels)
    if (
        ours.channels[:depth] != theirs.channels
        or ours.blocks[:depth] != theirs.blocks
        or ours.embedding != theirs.embedding
        or (theirs.temporal and not ours.temporal)
    ):
        msg = (
            "`source` must have the sizes of `network`, or its first resolutions, and be "
            f"no video model for an image model; got {theirs} for {ours}."
        )
        raise ValueError(msg)
    weights = source.state_dict()
    if len(ours.channels) > depth:
        # what was the coarsest resolution is met on the way down now
        inside, outside = "middle.", f"descent.{depth - 1}."
        weights = {
            outside + name.removeprefix(inside)
            if name.startswith(inside)
            else name: value
            for name, value in weights.items()
        }
    kept = network.state_dict()
    unknown = sorted(weights.keys() - kept.keys())
    if unknown:
        msg = f"`source` does not fit: {unknown} are not in the network."
        raise ValueError(msg)
    network.load_state_dict({**kept, **weights})
    if len(ours.channels) > depth:
        with torch.no_grad():
            for parameter in network.up[depth - 1].parameters():
                parameter.zero_()
