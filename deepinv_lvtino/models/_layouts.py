r"""Layouts in which Wan's networks and their distillations are published."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepinv_lvtino.models._hub import need
from deepinv_lvtino.models._lora_names import wan_weights
from deepinv_lvtino.models._networks import build, fill, read_config, without_prefix
from deepinv_lvtino.models._weight_files import Source, Weights, read_file, read_folder
from deepinv_lvtino.models.noise_schedules import NoiseSchedule, RectifiedFlow

#: Configuration of the transformer of Wan 2.1 with 1.3 billion parameters.
WAN_TRANSFORMER: dict[str, Any] = {
    "num_attention_heads": 12,
    "attention_head_dim": 128,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 4096,
    "freq_dim": 256,
    "ffn_dim": 8960,
    "num_layers": 30,
}
#: Configuration of the autoencoder of Wan 2.1: the defaults of diffusers.
WAN_AUTOENCODER: dict[str, Any] = {}
#: Files of an autoencoder's repository, or of a whole model's, that are needed.
WAN_AUTOENCODER_FILES = (
    "config.json",
    "diffusion_pytorch_model.safetensors",
    "vae/*",
)

_WAN = "WanTransformer3DModel"
_FLOW_MAP = "AnyFlowTransformer3DModel"
_FLOW_MAP_CAUSAL = "AnyFlowFARTransformer3DModel"
_FLOW_MAP_BEFORE = "FAR_Wan_Transformer3DModel"  # until diffusers took it in
_RCM_PREFIX = "net."
_PATCHES = "patch_embedding.weight"
# what PyTorch's wrappers for training leave in names
_WRAPPERS = ("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_orig_mod.")


def build_transformer(config: Source | Mapping[str, Any]) -> nn.Module:
    r"""
    Wan's transformer, or AnyFlow's, without memory for its weights.

    :param dict config: its configuration, or a folder with ``config.json``.
    :return: (torch.nn.Module) the network, parameters on the ``meta`` device.
    :raises FileNotFoundError: if there is no configuration.
    :raises ImportError: if diffusers is too old for the network.
    :raises ValueError: if it is of another class.
    """
    diffusers = need("diffusers")
    given = isinstance(config, Mapping)
    settings = dict(config) if isinstance(config, Mapping) else read_config(config)
    source = "`config`" if given else str(config)
    name = settings.get("_class_name", _WAN)
    before = name == _FLOW_MAP_BEFORE
    if name == _FLOW_MAP_CAUSAL or (before and settings.get("init_far_model")):
        msg = (
            f"{source} describes a {name}, which denoises one chunk of frames after "
            "another; expected a network of whole videos, such as that of "
            "nvidia/AnyFlow-Wan2.1-T2V-1.3B-Diffusers."
        )
        raise ValueError(msg)
    if name not in (_WAN, _FLOW_MAP, _FLOW_MAP_BEFORE):
        msg = f"{source} describes a {name}; expected a {_WAN} or a {_FLOW_MAP}."
        raise ValueError(msg)
    name = _FLOW_MAP if before else name
    model_class = getattr(diffusers, name, None)
    if model_class is None:
        msg = (
            f"diffusers {diffusers.__version__} has no {name}, which {source} needs. "
            "Install a newer one: pip install -U diffusers"
        )
        raise ImportError(msg)
    if before:  # its class took more settings, which bidirectional networks do not use
        known = inspect.signature(model_class.__init__).parameters
        settings = {key: value for key, value in settings.items() if key in known}
    return build(model_class, settings)


def is_flow_map(network: nn.Module) -> bool:
    r"""
    Whether a network is AnyFlow's: told two times, where a step starts and where it ends.

    :param torch.nn.Module network: transformer of diffusers.
    :return: (bool) whether it is.
    """
    return getattr(getattr(network, "config", None), "deltatime_type", None) is not None


def call_flow_map(
    network: nn.Module, latent: Tensor, timestep: Tensor, conditioning: dict[str, Any]
) -> Tensor:
    r"""
    Call AnyFlow's network for a step that ends at time zero.

    :param torch.nn.Module network: the network; frames come before channels there, and
        each frame has its times.
    :param torch.Tensor latent: noisy latents, ``(B, c, t, h, w)``.
    :param torch.Tensor timestep: times, one per latent.
    :param dict conditioning: further arguments by name.
    :return: (:class:`torch.Tensor`) mean velocity between both times, shape of ``latent``.
    """
    start = timestep[:, None].expand(-1, latent.shape[2])
    output = network(
        latent.transpose(1, 2),
        timestep=start,
        r_timestep=torch.zeros_like(start),
        **conditioning,
        return_dict=False,
    )[0]
    return output.transpose(1, 2)


def default_schedule(layout: str) -> NoiseSchedule:
    r"""
    Noise levels that the authors of a checkpoint use.

    :param str layout: layout, as :func:`transformer_weights` names it, or ``'AnyFlow'``.
    :return: (:class:`NoiseSchedule`) for rCM and AnyFlow the very time; for others that of
        CausVid, the nearest entry of a timetable.
    """
    if layout in ("rCM", "AnyFlow"):
        return RectifiedFlow(shift=1.0)
    return RectifiedFlow(shift=8.0, snap=True)


def transformer_weights(weights: Weights, network: nn.Module) -> tuple[str, Weights]:
    r"""
    Weights of Wan's transformer under diffusers' names and shapes.

    rCM's checkpoints have Wan's own names below ``net.``, and embed patches by a linear
    layer instead of a convolution: the same numbers, as a matrix.

    :param dict[str, torch.Tensor] weights: weights of a file or folder.
    :param torch.nn.Module network: the network that they are for.
    :return: (tuple) the layout, ``'Wan'``, ``'rCM'``, ``'AnyFlow'`` or ``'diffusers'``,
        and the weights.
    :raises ValueError: if two names become the same.
    """
    named = any("condition_embedder." in name for name in weights)
    layout = "AnyFlow" if is_flow_map(network) else "diffusers" if named else "Wan"
    weights = wan_weights(without_prefix(without_wrappers(weights), (_RCM_PREFIX,)))
    patches = weights.get(_PATCHES)
    if patches is not None and patches.ndim == 2 and _PATCHES in network.state_dict():
        shape = network.state_dict()[_PATCHES].shape
        if patches.shape == (shape[0], math.prod(shape[1:])):
            layout = "rCM"
            weights[_PATCHES] = patches.reshape(shape)
    return layout, weights


def without_wrappers(weights: Weights) -> Weights:
    r"""
    Remove from names what training left there, as in Causal-Forcing's averaged weights.

    :param dict[str, torch.Tensor] weights: the weights.
    :return: (dict[str, torch.Tensor]) the weights.
    :raises ValueError: if two names become the same.
    """
    found: Weights = {}
    for name, tensor in weights.items():
        plain = name
        for wrapper in _WRAPPERS:
            plain = plain.replace(wrapper, "")
        if plain in found:
            msg = f"the checkpoint has {plain} twice, once as {name}."
            raise ValueError(msg)
        found[plain] = tensor
    return found


def load_autoencoder(place: Path, *, dtype: torch.dtype | None) -> nn.Module:
    r"""
    Wan's autoencoder.

    :param pathlib.Path place: folder in the layout of diffusers, of the autoencoder or of
        a whole model; or a file of weights of Wan 2.1's, under diffusers' names or its own.
    :param torch.dtype dtype: precision.
    :return: (torch.nn.Module) the autoencoder, frozen.
    :raises FileNotFoundError: if there are no weights.
    :raises ValueError: if the weights are others: missing and unexpected names are listed.
    """
    model_class = need("diffusers").AutoencoderKLWan
    if place.is_file():
        network = build(model_class, WAN_AUTOENCODER)
        weights = autoencoder_weights(read_file(place))
    else:
        place = place / "vae" if (place / "vae").is_dir() else place
        network, weights = build(model_class, place), read_folder(place)
    return fill(network, weights, source=place, dtype=dtype)


def autoencoder_weights(weights: Weights) -> Weights:
    r"""
    Weights of Wan 2.1's autoencoder under diffusers' names.

    :param dict[str, torch.Tensor] weights: as ``Wan2.1_VAE.pth`` or diffusers names them.
    :return: (dict[str, torch.Tensor]) the weights.
    :raises ValueError: if two names become the same.
    """
    if not any(name.startswith("encoder.downsamples.") for name in weights):
        return weights
    utils = need("diffusers.loaders.single_file_utils")
    # the mapping moves values from one dictionary to another: names serve as values
    moved = utils.convert_wan_vae_to_diffusers({name: name for name in weights})
    lost = sorted(set(weights) - set(moved.values()))
    if lost:
        msg = (
            f"{len(lost)} names of the autoencoder are double: {', '.join(lost[:20])}."
        )
        raise ValueError(msg)
    return {name: weights[original] for name, original in moved.items()}
