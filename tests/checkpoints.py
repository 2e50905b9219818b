r"""Small models with random weights, in the layouts of the published ones."""

from __future__ import annotations

import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
import transformers
from diffusers import (
    AutoencoderKL,
    AutoencoderKLWan,
    UNet2DConditionModel,
    WanTransformer3DModel,
)
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn

TEXT_DIM = 8
WAN_TRANSFORMER = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": TEXT_DIM,
    "freq_dim": 16,
    "ffn_dim": 20,
    "num_layers": 2,
}
WAN_AUTOENCODER = {
    "base_dim": 4,
    "z_dim": 4,
    "dim_mult": [1, 1, 1, 1],
    "num_res_blocks": 1,
    "latents_mean": [0.1, -0.2, 0.3, -0.4],
    "latents_std": [1.5, 0.5, 2.0, 0.8],
}
CLIP_DIMS = (6, 8)
POOLED_DIM = 10
SDXL_UNET = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": (2, 4),
    "cross_attention_dim": sum(CLIP_DIMS),
    "transformer_layers_per_block": 1,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 6 * 4 + POOLED_DIM,
}
SDXL_AUTOENCODER = {
    "block_out_channels": (4, 4, 8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 4,
    "norm_num_groups": 2,
    "layers_per_block": 1,
    "scaling_factor": 0.13025,
}
#: The commit of every repository of :class:`Hub`.
COMMIT = "0123456789abcdef0123456789abcdef01234567"
_VOCABULARY = ("<pad>", "</s>", "<unk>", "a", "high", "resolution", "video", "photo")


def randomise(module: nn.Module, seed: int) -> nn.Module:
    r"""Random values for all weights, also those that start at zero or one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in module.parameters():
            noise = torch.randn(tensor.shape, generator=generator)
            tensor.copy_(tensor + 0.05 * noise)
    return module.eval()


def wan_transformer(seed: int = 0, **changes: Any) -> WanTransformer3DModel:
    torch.manual_seed(seed)
    return randomise(WanTransformer3DModel(**(WAN_TRANSFORMER | changes)), seed)


def any_flow_transformer(seed: int = 0) -> nn.Module:
    from diffusers import AnyFlowTransformer3DModel

    torch.manual_seed(seed)
    return randomise(AnyFlowTransformer3DModel(**WAN_TRANSFORMER), seed)


def wan_autoencoder(seed: int = 1) -> AutoencoderKLWan:
    torch.manual_seed(seed)
    return randomise(AutoencoderKLWan(**WAN_AUTOENCODER), seed)


def sdxl_unet(seed: int = 2, **changes: Any) -> UNet2DConditionModel:
    torch.manual_seed(seed)
    return randomise(UNet2DConditionModel(**(SDXL_UNET | changes)), seed)


def sdxl_autoencoder(seed: int = 3) -> AutoencoderKL:
    torch.manual_seed(seed)
    return randomise(AutoencoderKL(**SDXL_AUTOENCODER), seed)


def tokenizer(length: int) -> transformers.PreTrainedTokenizerFast:
    words = {word: i for i, word in enumerate(_VOCABULARY)}
    made = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", words["</s>"])]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=length,
    )


def wan_folder(folder: Path) -> Path:
    r"""A base model in the layout of ``Wan-AI/Wan2.1-T2V-1.3B-Diffusers``."""
    wan_transformer().save_pretrained(folder / "transformer")
    wan_autoencoder().save_pretrained(folder / "vae")
    torch.manual_seed(4)
    config = transformers.UMT5Config(
        vocab_size=len(_VOCABULARY),
        d_model=TEXT_DIM,
        d_kv=4,
        d_ff=12,
        num_layers=1,
        num_heads=2,
        pad_token_id=0,
        eos_token_id=1,
    )
    transformers.UMT5EncoderModel(config).save_pretrained(folder / "text_encoder")
    tokenizer(512).save_pretrained(folder / "tokenizer")
    return folder


def sdxl_folder(folder: Path) -> Path:
    r"""A base model in the layout of ``stabilityai/stable-diffusion-xl-base-1.0``."""
    sdxl_unet().save_pretrained(folder / "unet", variant="fp16")
    sdxl_autoencoder().save_pretrained(folder / "vae", variant="fp16")
    torch.manual_seed(5)
    for number, width, model_class in (
        ("", CLIP_DIMS[0], transformers.CLIPTextModel),
        ("_2", CLIP_DIMS[1], transformers.CLIPTextModelWithProjection),
    ):
        config = transformers.CLIPTextConfig(
            vocab_size=len(_VOCABULARY),
            hidden_size=width,
            intermediate_size=12,
            projection_dim=POOLED_DIM,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=77,
            pad_token_id=0,
            bos_token_id=3,
            eos_token_id=1,
        )
        model_class(config).save_pretrained(
            folder / f"text_encoder{number}", variant="fp16"
        )
        tokenizer(77).save_pretrained(folder / f"tokenizer{number}")
    return folder


def original_wan_names(num_layers: int) -> dict[str, str]:
    r"""Names of Wan's own code, as CausVid's checkpoint has them, to diffusers' names."""
    pairs = {
        "patch_embedding": "patch_embedding",
        "text_embedding.0": "condition_embedder.text_embedder.linear_1",
        "text_embedding.2": "condition_embedder.text_embedder.linear_2",
        "time_embedding.0": "condition_embedder.time_embedder.linear_1",
        "time_embedding.2": "condition_embedder.time_embedder.linear_2",
        "time_projection.1": "condition_embedder.time_proj",
        "head.head": "proj_out",
    }
    names = {"head.modulation": "scale_shift_table"}
    for i in range(num_layers):
        block = f"blocks.{i}"
        names[f"{block}.modulation"] = f"{block}.scale_shift_table"
        pairs[f"{block}.norm3"] = f"{block}.norm2"
        pairs[f"{block}.ffn.0"] = f"{block}.ffn.net.0.proj"
        pairs[f"{block}.ffn.2"] = f"{block}.ffn.net.2"
        for ours, theirs in (("self_attn", "attn1"), ("cross_attn", "attn2")):
            for a, b in (
                ("q", "to_q"),
                ("k", "to_k"),
                ("v", "to_v"),
                ("o", "to_out.0"),
            ):
                pairs[f"{block}.{ours}.{a}"] = f"{block}.{theirs}.{b}"
            for norm in ("norm_q", "norm_k"):
                names[f"{block}.{ours}.{norm}.weight"] = (
                    f"{block}.{theirs}.{norm}.weight"
                )
    for original, new in pairs.items():
        for kind in ("weight", "bias"):
            names[f"{original}.{kind}"] = f"{new}.{kind}"
    return names


def original_wan_weights(transformer: nn.Module) -> dict[str, Tensor]:
    r"""Weights under the names of Wan's own code."""
    state = transformer.state_dict()
    names = original_wan_names(WAN_TRANSFORMER["num_layers"])
    return {original: state[name].clone() for original, name in names.items()}


def save_causvid(path: Path, transformer: nn.Module) -> Path:
    r"""A checkpoint in the layout of ``tianweiy/CausVid``'s ``model.pt``."""
    weights = original_wan_weights(transformer)
    torch.save({"generator": {f"model.{k}": v for k, v in weights.items()}}, path)
    return path


def low_rank(
    shapes: dict[str, tuple[int, ...]], seed: int = 9, rank: int = 2
) -> dict[str, tuple[Tensor, Tensor]]:
    r"""Factors ``(down, up)`` of low-rank changes, by the names of the layers."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, shape in shapes.items():
        kernel = shape[2:]
        down = torch.randn(rank, shape[1], *kernel, generator=generator)
        up = torch.randn(shape[0], rank, *[1] * len(kernel), generator=generator)
        found[name] = (0.1 * down, 0.1 * up)
    return found


def save_weights(path: Path, weights: dict[str, Tensor]) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path)
    return path


def published_folder(folder: Path) -> Path:
    r"""All that ``download`` fetches, by the names of the repositories."""
    wan_folder(folder / "Wan-AI" / "Wan2.1-T2V-1.3B-Diffusers")
    causvid = folder / "tianweiy" / "CausVid" / "bidirectional_checkpoint2"
    causvid.mkdir(parents=True)
    save_causvid(causvid / "model.pt", wan_transformer(seed=7))
    sdxl_folder(folder / "stabilityai" / "stable-diffusion-xl-base-1.0")
    dmd2 = folder / "tianweiy" / "DMD2"
    dmd2.mkdir()
    torch.save(sdxl_unet(seed=7).state_dict(), dmd2 / "dmd2_sdxl_4step_unet_fp16.bin")
    sdxl_autoencoder().save_pretrained(folder / "madebyollin" / "sdxl-vae-fp16-fix")
    return folder


class Hub:
    r"""
    Stands for the Hugging Face Hub: repositories are folders, and nothing is sent.

    :param pathlib.Path remote: folder of the repositories, each with one commit.
    :param pathlib.Path cache: folder of what has been fetched.
    """

    def __init__(self, remote: Path, cache: Path) -> None:
        self.remote = remote
        self.cache = cache
        self.calls: list[dict[str, Any]] = []
        self.online = True

    def snapshot_download(
        self,
        repo_id: str,
        *,
        revision: str | None = None,
        allow_patterns: list[str],
        cache_dir: Any = None,
        local_dir: Any = None,
        local_files_only: bool = False,
    ) -> str:
        from huggingface_hub.errors import LocalEntryNotFoundError

        self.calls.append({"repo": repo_id, "revision": revision})
        source = self.remote / repo_id
        if revision not in (None, "main", COMMIT) or not source.is_dir():
            msg = f"404 Client Error.\n\nRevision Not Found: {revision} of {repo_id}"
            raise OSError(msg)
        target = Path(local_dir or self.cache / repo_id / "snapshots" / COMMIT)
        if local_files_only or not self.online:
            if not target.is_dir():
                msg = "Cannot find an appropriate cached snapshot folder."
                raise LocalEntryNotFoundError(msg)
            return str(target)
        for path in source.rglob("*"):
            name = path.relative_to(source)
            if path.is_file() and any(fnmatch(str(name), p) for p in allow_patterns):
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target / name)
        return str(target)
