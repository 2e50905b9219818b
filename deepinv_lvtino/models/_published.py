r"""Sizes of the published networks, built without weights, and what they need."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from deepinv_lvtino.models._hub import need
from deepinv_lvtino.models._layouts import WAN_AUTOENCODER, WAN_TRANSFORMER
from deepinv_lvtino.models._memory import num_bytes, peak_activations
from deepinv_lvtino.models._tiny_decoder import TinyVideoDecoder
from deepinv_lvtino.models.adapter import DiffusersConsistencyModel
from deepinv_lvtino.models.sdxl import SDXLConsistencyModel, pooled_width
from deepinv_lvtino.models.wan import WanConsistencyModel

UMT5_XXL = {
    "vocab_size": 256384,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}
SDXL_UNET = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": (
        "DownBlock2D",
        "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D",
    ),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": (5, 10, 20),
    "transformer_layers_per_block": (1, 2, 10),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
SDXL_AUTOENCODER = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 4,
    "layers_per_block": 2,
    "scaling_factor": 0.13025,
    "force_upcast": False,
}
CLIP_LARGE = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "vocab_size": 49408,
    "projection_dim": 768,
}
CLIP_BIG = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "vocab_size": 49408,
    "projection_dim": 1280,
}


def wan_networks() -> dict[str, nn.Module]:
    r"""
    Wan 2.1 1.3B on the ``meta`` device: sizes without weights.

    :return: (dict[str, torch.nn.Module]) ``network`` and ``autoencoder``.
    """
    diffusers = need("diffusers")
    with torch.device("meta"):
        return {
            "network": diffusers.WanTransformer3DModel(**WAN_TRANSFORMER),
            "autoencoder": diffusers.AutoencoderKLWan(**WAN_AUTOENCODER),
        }


def sdxl_networks() -> dict[str, nn.Module]:
    r"""
    SDXL on the ``meta`` device: sizes without weights.

    :return: (dict[str, torch.nn.Module]) ``network`` and ``autoencoder``.
    """
    diffusers = need("diffusers")
    with torch.device("meta"):
        return {
            "network": diffusers.UNet2DConditionModel(**SDXL_UNET),
            "autoencoder": diffusers.AutoencoderKL(**SDXL_AUTOENCODER),
        }


def wan_text_encoders() -> list[nn.Module]:
    r"""
    Wan's text encoder on the ``meta`` device.

    :return: (list[torch.nn.Module]) the encoder.
    """
    transformers = need("transformers")
    with torch.device("meta"):
        return [transformers.UMT5EncoderModel(transformers.UMT5Config(**UMT5_XXL))]


def sdxl_text_encoders() -> list[nn.Module]:
    r"""
    SDXL's text encoders on the ``meta`` device.

    :return: (list[torch.nn.Module]) both encoders.
    """
    transformers = need("transformers")
    with torch.device("meta"):
        return [
            transformers.CLIPTextModel(transformers.CLIPTextConfig(**CLIP_LARGE)),
            transformers.CLIPTextModelWithProjection(
                transformers.CLIPTextConfig(**CLIP_BIG)
            ),
        ]


def wan_model(networks: Mapping[str, nn.Module], **options: Any) -> WanConsistencyModel:
    r"""
    Wan's networks as a model, with an embedding of zeros on their device.

    :param dict networks: ``network`` and ``autoencoder``.
    :param options: as of :class:`WanConsistencyModel`.
    :return: (WanConsistencyModel) the model.
    """
    network = networks["network"]
    width: Any = network.config.text_dim  # type: ignore[union-attr]
    return WanConsistencyModel(
        network,
        networks["autoencoder"],
        torch.zeros(1, 512, width, device=_device(network)),
        **options,
    )


def sdxl_model(
    networks: Mapping[str, nn.Module], **options: Any
) -> SDXLConsistencyModel:
    r"""
    SDXL's networks as a model, with embeddings of zeros on their device.

    :param dict networks: ``network`` and ``autoencoder``.
    :param options: as of :class:`SDXLConsistencyModel`.
    :return: (SDXLConsistencyModel) the model.
    """
    network = networks["network"]
    width: Any = network.config.cross_attention_dim  # type: ignore[union-attr]
    device = _device(network)
    return SDXLConsistencyModel(
        network,
        networks["autoencoder"],
        torch.zeros(1, 77, width, device=device),
        torch.zeros(1, pooled_width(network), device=device),
        **options,
    )


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


@dataclass(frozen=True)
class _Published:
    networks: Callable[[], dict[str, nn.Module]]
    text_encoders: Callable[[], list[nn.Module]]
    model: Callable[..., DiffusersConsistencyModel]
    half: torch.dtype
    time: float


PUBLISHED = {
    "wan": _Published(
        wan_networks, wan_text_encoders, wan_model, torch.bfloat16, 522.0
    ),
    "sdxl": _Published(
        sdxl_networks, sdxl_text_encoders, sdxl_model, torch.float16, 374.0
    ),
}


@dataclass(frozen=True)
class MemoryEstimate:
    r"""
    Memory that a model needs on its device, in bytes.

    :param int prompt: while the prompt is embedded (once, before all else).
    :param dict weights: of ``network`` and ``autoencoder``, and of ``decoder`` if there is
        a tiny one.
    :param dict activations: of ``encode``, ``denoise`` and ``decode``, beside the weights;
        what the device's libraries take is not in it.
    """

    prompt: int
    weights: dict[str, int] = field(default_factory=dict)
    activations: dict[str, int] = field(default_factory=dict)

    @property
    def resident(self) -> int:
        r"""Largest memory with all networks on the device."""
        return sum(self.weights.values()) + max(self.activations.values())

    @property
    def offloaded(self) -> int:
        r"""Largest memory with one network on the device at a time."""
        decoder = self.weights.get("decoder", self.weights["autoencoder"])
        stages = {
            "encode": self.weights["autoencoder"],
            "denoise": self.weights["network"],
            "decode": decoder,
        }
        return max(stages[stage] + used for stage, used in self.activations.items())


def estimate_memory(
    model: str,
    num_frames: int,
    height: int,
    width: int,
    *,
    dtype: torch.dtype | None = None,
    tiny_decoder: bool = False,
    **options: Any,
) -> MemoryEstimate:
    r"""
    Estimate the memory of a published model before anything is loaded.

    The networks are built without weights, and sizes alone are passed through the very
    code that runs later, so that tiles and batches of frames count as they are.

    :param str model: ``'wan'`` (Wan 2.1 1.3B) or ``'sdxl'``.
    :param int num_frames: frames of the video.
    :param int height: height in pixels.
    :param int width: width in pixels.
    :param torch.dtype dtype: precision of the networks; half precision by default.
    :param bool tiny_decoder: with ``decoder`` of Wan's model, of the published size.
    :param options: as of the model: ``tiling``, ``frame_batch``.
    :return: (:class:`MemoryEstimate`) the estimate.
    :raises ValueError: if the model is unknown, has no tiny decoder, or a size is not
        positive.

    |sep|

    :Examples:

        >>> from deepinv_lvtino.models import estimate_memory
        >>> estimate = estimate_memory("wan", 5, 256, 256)
        >>> round(estimate.weights["network"] / 2**30, 1)
        2.6
    """
    if model not in PUBLISHED:
        msg = (
            f"`model` must be one of {', '.join(map(repr, PUBLISHED))}; got {model!r}."
        )
        raise ValueError(msg)
    if min(num_frames, height, width) < 1:
        msg = (
            "`num_frames`, `height` and `width` must be positive; got "
            f"{num_frames}, {height} and {width}."
        )
        raise ValueError(msg)
    if tiny_decoder and model != "wan":
        msg = f"`tiny_decoder` is for `model='wan'`; got {model!r}."
        raise ValueError(msg)
    known = PUBLISHED[model]
    dtype = known.half if dtype is None else dtype
    networks = {name: cast(net, dtype) for name, net in known.networks().items()}
    if tiny_decoder:
        with torch.device("meta"):
            networks["decoder"] = cast(TinyVideoDecoder(), dtype)
        options["decoder"] = networks["decoder"]
    built = known.model(networks, **options)
    x = torch.empty(1, 3, num_frames, height, width, device="meta")
    latent = built.encode(built.pad(x))
    activations = {
        "encode": peak_activations(lambda: built.encode(built.pad(x))),
        "denoise": peak_activations(lambda: built.denoise(latent, known.time)),
        "decode": peak_activations(lambda: built.decode(latent)),
    }
    prompt = max(
        dtype.itemsize * sum(parameter.numel() for parameter in encoder.parameters())
        for encoder in known.text_encoders()
    )
    weights = {name: num_bytes(net) for name, net in networks.items()}
    return MemoryEstimate(prompt, weights, activations)


def cast(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    r"""
    Change the precision of a network as loading does.

    :param torch.nn.Module network: the network; changed in place.
    :param torch.dtype dtype: precision; weights that diffusers keeps in single precision
        stay in it.
    :return: (torch.nn.Module) the network.
    """
    single = set(getattr(network, "_keep_in_fp32_modules", None) or ())
    for name, parameter in network.named_parameters():
        if parameter.is_floating_point():
            keep = not single.isdisjoint(name.split("."))
            parameter.data = parameter.data.to(torch.float32 if keep else dtype)
    return network
