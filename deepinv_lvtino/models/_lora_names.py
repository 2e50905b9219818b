r"""Names of layers in LoRA files, and how the base models call them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import nn

from deepinv_lvtino.models._hub import need
from deepinv_lvtino.models._networks import without_prefix
from deepinv_lvtino.models._weight_files import Weights

_WAN_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "transformer.", "model.")
_WAN_ORIGINAL = (
    "self_attn.",
    "cross_attn.",
    "time_embedding.",
    "text_embedding.",
    "time_projection.",
    "head.head",
    "ffn.0",
    "ffn.2",
)
_KOHYA_WAN = re.compile(
    r"lora_unet_blocks_(\d+)_(?:(self_attn|cross_attn)_(\w+)|(ffn)_(\d+))"
)
_KOHYA_WAN_OTHER = re.compile(
    r"lora_unet_(time_embedding|text_embedding|time_projection|head)_(\w+)"
)


def wan_names(names: list[str]) -> dict[str, str]:
    r"""
    Names of Wan's layers as diffusers has them.

    :param list[str] names: names of layers, original or diffusers', with the prefixes and
        underscores that LoRA files have.
    :return: (dict[str, str]) from given to diffusers' names.
    """
    plain = {name: _wan_plain(name) for name in names}
    original = any(
        mark in f"{name}." for name in plain.values() for mark in _WAN_ORIGINAL
    )
    if not original:
        return plain
    renamed = wan_to_diffusers_names([f"{name}.weight" for name in plain.values()])
    return {
        given: renamed.get(f"{name}.weight", name).removesuffix(".weight")
        for given, name in plain.items()
    }


def _wan_plain(name: str) -> str:
    found = _KOHYA_WAN.fullmatch(name)
    if found:
        number, attention, layer, ffn, index = found.groups()
        return f"blocks.{number}.{attention or ffn}.{layer or index}"
    found = _KOHYA_WAN_OTHER.fullmatch(name)
    if found:
        return f"{found[1]}.{found[2]}"
    for prefix in _WAN_PREFIXES:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def wan_to_diffusers_names(names: list[str]) -> dict[str, str]:
    r"""
    Names of Wan's weights by diffusers' own mapping.

    :param list[str] names: original names.
    :return: (dict[str, str]) from original to diffusers' names.
    """
    utils = need("diffusers.loaders.single_file_utils")
    # the mapping moves values from one dictionary to another: names serve as values; it
    # also splits tensors of parts that text-to-video models do not have
    other = [
        name for name in names if "motion_encoder" in name or "face_adapter" in name
    ]
    moved = utils.convert_wan_transformer_to_diffusers(
        {name: name for name in names if name not in other}
    )
    return {original: name for name, original in moved.items()} | dict(
        zip(other, other, strict=True)
    )


def wan_weights(weights: Weights) -> Weights:
    r"""
    Weights of Wan's transformer under diffusers' names.

    :param dict[str, torch.Tensor] weights: original or diffusers' names, with the prefixes
        of published files.
    :return: (dict[str, torch.Tensor]) the weights.
    :raises ValueError: if two names become the same.
    """
    weights = without_prefix(weights, _WAN_PREFIXES)
    if any(name.startswith("condition_embedder.") for name in weights):
        return weights
    names = wan_to_diffusers_names(list(weights))
    if len(names) < len(weights):
        lost = sorted(set(weights) - set(names))
        msg = f"{len(lost)} names of the checkpoint are double: {', '.join(lost[:20])}."
        raise ValueError(msg)
    return {names[name]: tensor for name, tensor in weights.items()}


_ORIGINAL_BLOCKS = ("input_blocks", "middle_block", "output_blocks")
# in this order: the first input block is a convolution of its own
_ORIGINAL_LAYERS = {
    "unet_input_blocks_0_0": "unet_conv_in",
    "unet_out_2": "unet_conv_out",
    "unet_time_embed_0": "unet_time_embedding_linear_1",
    "unet_time_embed_2": "unet_time_embedding_linear_2",
    "unet_label_emb_0_0": "unet_add_embedding_linear_1",
    "unet_label_emb_0_2": "unet_add_embedding_linear_2",
    "input_blocks": "down_blocks",
    "middle_block": "mid_block",
    "output_blocks": "up_blocks",
    "in_layers_2": "conv1",
    "emb_layers_1": "time_emb_proj",
    "out_layers_3": "conv2",
    "skip_connection": "conv_shortcut",
    "downsamplers_0_op": "downsamplers_0_conv",
}


class UNetNames:
    r"""
    Names of layers in LoRA files to those of a UNet of diffusers.

    :param torch.nn.Module unet: the UNet.
    """

    def __init__(self, unet: nn.Module) -> None:
        self.config = getattr(unet, "config", None)
        self.layers = {
            name.replace(".", "_"): name for name, _ in unet.named_modules() if name
        }

    def __call__(self, names: list[str]) -> Mapping[str, str]:
        r"""
        Map names.

        :param list[str] names: names as the file has them.
        :return: (Mapping[str, str]) from given to the UNet's names; unknown ones stay.
        """
        found = {}
        for name, mapped in self._from_blocks(names).items():
            plain = mapped
            for prefix in ("lora_unet_", "base_model.model.", "unet."):
                plain = plain.removeprefix(prefix)
            plain = plain.replace(".processor.", ".").replace("_lora", "")
            found[name] = self.layers.get(plain.replace(".", "_"), name)
        return found

    def _from_blocks(self, names: list[str]) -> Mapping[str, str]:
        """Names of Stability's code to diffusers', the blocks by its own mapping."""
        if not any(mark in name for name in names for mark in _ORIGINAL_BLOCKS):
            return {name: name for name in names}
        utils = need("diffusers.loaders.lora_conversion_utils")
        # diffusers has no public one (the LoRA loaders call this)
        translate = getattr(utils, "_maybe_map_sgm_blocks_to_diffusers", None)
        if translate is None:
            version = need("diffusers").__version__
            msg = (
                f"diffusers {version} no longer has the table of block names that this "
                "LoRA file (of Stability's code) needs. Install an earlier one, such as "
                "diffusers==0.35, or a file with diffusers' own names."
            )
            raise ImportError(msg)
        # as above: names serve as values
        moved = translate({f"{name}.alpha": name for name in names}, self.config)
        found = {}
        for name, given in moved.items():
            plain = name.removesuffix(".alpha")
            for original, new in _ORIGINAL_LAYERS.items():
                plain = plain.replace(original, new)
            found[given] = plain
        return found
