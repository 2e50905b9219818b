r"""Low-rank changes of weights, merged into them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from deepinv_lvtino.models._weight_files import Source, Weights, listed

_ROLES = {
    ".lora_A.weight": "down",
    ".lora_A.default.weight": "down",
    ".lora_down.weight": "down",
    ".lora.down.weight": "down",
    ".lora_B.weight": "up",
    ".lora_B.default.weight": "up",
    ".lora_up.weight": "up",
    ".lora.up.weight": "up",
    ".alpha": "alpha",
    ".diff": "weight",
    ".lora_B.bias": "bias",
    ".diff_b": "bias",
    ".diff_m": "modulation",
}


def is_lora(names: Iterable[str]) -> bool:
    r"""
    Whether weights are low-rank changes of others (LoRA).

    :param Iterable[str] names: their names.
    :return: (bool) whether they are.
    """
    return any(_role(name)[1] in ("down", "up") for name in names)


def _role(name: str) -> tuple[str, str | None]:
    """Layer that a name of a LoRA is about, and what it is for that layer."""
    for suffix, role in _ROLES.items():
        if name.endswith(suffix):
            return name.removesuffix(suffix), role
    return name, None


def merge_lora(
    weights: Weights,
    lora: Weights,
    layers: Callable[[list[str]], Mapping[str, str]],
    *,
    scale: float = 1.0,
    source: Source = "the LoRA",
) -> Weights:
    r"""
    Add low-rank changes to the weights of their base model.

    .. math::

        W \leftarrow W + \text{scale} \, \frac{\alpha}{r} \, B A

    with :math:`\alpha = r` where a file does not say otherwise. Full differences
    (``.diff``, ``.diff_b``, ``.diff_m``) are added as they are. Merged once, they cost
    nothing later.

    :param dict[str, torch.Tensor] weights: weights of the base model; changed in place.
    :param dict[str, torch.Tensor] lora: the changes.
    :param Callable layers: maps the file's names of layers to the base model's.
    :param float scale: strength.
    :param str, pathlib.Path source: where the changes are from, for the message.
    :return: (dict[str, torch.Tensor]) the weights.
    :raises ValueError: if a name is not understood, has no counterpart, or a shape does not
        fit; the message lists them.
    """
    changes: dict[str, Weights] = {}
    wrong: list[str] = []
    for name, tensor in lora.items():
        layer, role = _role(name)
        if role is None:
            wrong.append(name)
        else:
            changes.setdefault(layer, {})[role] = tensor
    names = layers(list(changes))
    for layer, parts in changes.items():
        target = names.get(layer, layer)
        wrong += _merge_layer(weights, target, layer, parts, scale)
    if wrong:
        msg = (
            f"{source} does not fit the base model: {listed('unexpected', wrong)}. Give "
            "the LoRA and the base model that belong together."
        )
        raise ValueError(msg)
    return weights


def _merge_layer(
    weights: Weights, target: str, layer: str, parts: Weights, scale: float
) -> list[str]:
    """Change one layer; returns what does not fit."""
    wrong = []
    matrix, bias = f"{target}.weight", f"{target}.bias"
    if target in weights:  # a parameter of its own, such as a modulation
        matrix = target
    if ("down" in parts) != ("up" in parts) or set(parts) == {"alpha"}:
        wrong.append(f"{layer} (one factor of two is missing)")
    elif "down" in parts:
        down, up = parts["down"].float(), parts["up"].float()
        rank = len(down)
        strength = scale * float(parts.get("alpha", torch.tensor(rank))) / rank
        # convolutions: the first factor has their kernel, the second is 1x1
        product = strength * (up.flatten(1) @ down.flatten(1))
        wrong += _add(weights, matrix, product, layer)
    if "weight" in parts:
        wrong += _add(weights, matrix, scale * parts["weight"].float(), layer)
    if "bias" in parts:
        wrong += _add(weights, bias, scale * parts["bias"].float(), layer)
    if "modulation" in parts:
        table = f"{target}.scale_shift_table".removeprefix("head.")
        wrong += _add(weights, table, scale * parts["modulation"].float(), layer)
    return wrong


def _add(weights: Weights, name: str, change: Tensor, layer: str) -> list[str]:
    if name not in weights:
        return [layer]
    old = weights[name]
    if old.numel() != change.numel() or len(old) != len(change):
        return [f"{layer} {tuple(change.shape)} for {tuple(old.shape)}"]
    weights[name] = (old.float() + change.reshape(old.shape)).to(old.dtype)
    return []
