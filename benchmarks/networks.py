r"""The published networks with random weights: their sizes, and nothing to download."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from deepinv_lvtino.models import SDXLConsistencyModel, WanConsistencyModel
from deepinv_lvtino.models import _published as full
from deepinv_lvtino.models._memory import Part, parameters_on_meta
from deepinv_lvtino.models._networks import build, fill

#: Small networks of the same kinds, to try a script with.
TINY = {
    "WAN_TRANSFORMER": full.WAN_TRANSFORMER
    | {
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "text_dim": 16,
        "freq_dim": 16,
        "ffn_dim": 32,
        "num_layers": 2,
    },
    "WAN_AUTOENCODER": {"base_dim": 8, "num_res_blocks": 1},
    "UMT5_XXL": {
        **full.UMT5_XXL,
        "vocab_size": 64,
        "d_model": 16,
        "d_kv": 4,
        "d_ff": 32,
        "num_layers": 2,
        "num_heads": 4,
    },
    "SDXL_UNET": full.SDXL_UNET
    | {
        "block_out_channels": (8, 16, 16),
        "norm_num_groups": 4,
        "attention_head_dim": (2, 4, 4),
        "transformer_layers_per_block": (1, 1, 1),
        "cross_attention_dim": 20,
        "addition_time_embed_dim": 4,
        "projection_class_embeddings_input_dim": 6 * 4 + 12,
    },
    "SDXL_AUTOENCODER": full.SDXL_AUTOENCODER
    | {"block_out_channels": (8, 8, 16, 16), "norm_num_groups": 4},
    "CLIP_LARGE": full.CLIP_LARGE
    | {
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": 64,
        "projection_dim": 12,
    },
    "CLIP_BIG": full.CLIP_BIG
    | {
        "hidden_size": 12,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": 64,
        "projection_dim": 12,
    },
}


def config(name: str, tiny: bool) -> dict[str, Any]:
    r"""Sizes of a network, as a checkpoint's file has them."""
    sizes = TINY[name] if tiny else getattr(full, name)
    return dict(json.loads(json.dumps(sizes)))


def randomise(network: nn.Module, dtype: torch.dtype, seed: int) -> nn.Module:
    r"""Random weights of a size that keeps signals alive, loaded as a checkpoint is."""
    # drawn on a GPU where there is one: billions of them take minutes on a CPU
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device).manual_seed(seed)
    weights = {}
    for name, parameter in network.state_dict().items():
        if parameter.device.type != "meta":
            weights[name] = parameter  # a buffer
        elif parameter.ndim < 2:
            value = torch.ones if name.endswith("weight") else torch.zeros
            weights[name] = value(parameter.shape, dtype=dtype)
        else:
            noise = torch.randn(
                parameter.shape, generator=generator, dtype=dtype, device=device
            )
            weights[name] = noise.mul_(parameter[0].numel() ** -0.5).cpu()
    return fill(network, weights, source="random weights", dtype=dtype)


def wan(dtype: torch.dtype, tiny: bool = False, **options: Any) -> WanConsistencyModel:
    r"""Wan 2.1 1.3B as a model."""
    import diffusers

    networks = {
        "network": build(
            diffusers.WanTransformer3DModel, config("WAN_TRANSFORMER", tiny)
        ),
        "autoencoder": build(
            diffusers.AutoencoderKLWan, config("WAN_AUTOENCODER", tiny)
        ),
    }
    for seed, network in enumerate(networks.values()):
        randomise(network, dtype, seed)
    return full.wan_model(networks, **options)


def sdxl(
    dtype: torch.dtype, tiny: bool = False, **options: Any
) -> SDXLConsistencyModel:
    r"""SDXL as a model."""
    import diffusers

    networks = {
        "network": build(diffusers.UNet2DConditionModel, config("SDXL_UNET", tiny)),
        "autoencoder": build(diffusers.AutoencoderKL, config("SDXL_AUTOENCODER", tiny)),
    }
    for seed, network in enumerate(networks.values()):
        randomise(network, dtype, seed)
    return full.sdxl_model(networks, **options)


def text_encoders(
    video_dtype: torch.dtype, image_dtype: torch.dtype, tiny: bool = False
) -> dict[str, Part]:
    r"""The text encoders of both models, on the CPU."""
    import transformers

    def large() -> nn.Module:
        settings = transformers.UMT5Config(**config("UMT5_XXL", tiny))
        return transformers.UMT5EncoderModel(settings)

    def clip(name: str, model_class: Any) -> Callable[[], nn.Module]:
        settings = transformers.CLIPTextConfig(
            **config(name, tiny), bos_token_id=1, eos_token_id=2, pad_token_id=0
        )
        return lambda: model_class(settings)

    makers = {
        "umt5": (large, video_dtype),
        "clip": (clip("CLIP_LARGE", transformers.CLIPTextModel), image_dtype),
        "clip_2": (
            clip("CLIP_BIG", transformers.CLIPTextModelWithProjection),
            image_dtype,
        ),
    }
    found = {}
    for seed, (name, (make, dtype)) in enumerate(makers.items()):
        with parameters_on_meta():
            network = make()
        randomise(network, dtype, seed)
        if name == "umt5":  # one table under two names
            network.encoder.embed_tokens.weight = network.shared.weight
        # in transformers all of it is in half precision, but for float16 in T5
        found[name] = Part("text encoder", network.to(dtype), offload=False)
    return found
