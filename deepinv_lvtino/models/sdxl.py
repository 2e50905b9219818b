r"""Stable Diffusion XL with a few-step distillation (DMD2, LCM, …) as an image prior."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from deepinv_lvtino.models._hub import locate, lora_or_network, need
from deepinv_lvtino.models._lora import merge_lora
from deepinv_lvtino.models._lora_names import UNetNames
from deepinv_lvtino.models._networks import build, fill, without_prefix
from deepinv_lvtino.models._prompts import (
    embed_clip,
    load_embeddings,
    save_embeddings,
)
from deepinv_lvtino.models._weight_files import Source, read_file, read_folder
from deepinv_lvtino.models.adapter import Conditioning, DiffusersConsistencyModel
from deepinv_lvtino.models.noise_schedules import NoiseSchedule, VariancePreserving
from deepinv_lvtino.models.wan import placement, read_checkpoint

#: Base model, in the layout of diffusers.
SDXL_REPOSITORY = "stabilityai/stable-diffusion-xl-base-1.0"
#: DMD2's four-step UNet.
SDXL_CHECKPOINT = "tianweiy/DMD2/dmd2_sdxl_4step_unet_fp16.bin"
#: Autoencoder that is safe in half precision.
SDXL_AUTOENCODER = "madebyollin/sdxl-vae-fp16-fix"
#: Prompt of the published runs.
SDXL_PROMPT = "a high resolution photo"


class SDXLConsistencyModel(DiffusersConsistencyModel):
    r"""
    SDXL's UNet and autoencoder as a frame-wise image consistency model.

    The UNet predicts the noise, in the variance-preserving convention. It is told the size
    of the frames, with no crop. Frames are clipped to [0, 1] before the encoder, and
    latents are posterior means. One noise tensor serves all frames, as in the published
    system :footcite:p:`spagnoletti2025lvtino`, unless ``shared_noise=False``.

    Weights come by :meth:`from_pretrained`.

    :param torch.nn.Module unet: diffusers' ``UNet2DConditionModel``; if it was distilled
        for a given guidance (LCM), it is told ``guidance_embedding``.
    :param torch.nn.Module autoencoder: diffusers' ``AutoencoderKL``.
    :param torch.Tensor prompt_embeds: embedding of the prompt, ``(1, tokens, dim)``.
    :param torch.Tensor pooled_prompt_embeds: pooled embedding, ``(1, dim)``.
    :param NoiseSchedule schedule: noise levels; those of Stable Diffusion by default.
    :param str prediction: what the UNet predicts: ``'noise'``, ``'v'`` or ``'clean'``
        (SDXL-Lightning's one-step UNet).
    :param dict negative: embeddings of a negative prompt by the same names, for
        ``guidance``.
    :param bool shared_noise: whether one noise tensor serves all frames.
    :param float guidance_embedding: guidance that an LCM's UNet is told.
    :param options: as of :class:`DiffusersConsistencyModel`: ``guidance``,
        ``pixel_scale``, ``clip``, ``frame_batch``, ``tiling``, ``offload``,
        ``channels_last``, ``compile``.

    |sep|

    .. footbibliography::
    """

    def __init__(
        self,
        unet: nn.Module,
        autoencoder: nn.Module,
        prompt_embeds: Tensor,
        pooled_prompt_embeds: Tensor,
        *,
        schedule: NoiseSchedule | None = None,
        prediction: str = "noise",
        negative: Mapping[str, Tensor] | None = None,
        shared_noise: bool = True,
        guidance_embedding: float = 8.0,
        **options: Any,
    ) -> None:
        embeddings = {
            "prompt_embeds": prompt_embeds,
            "pooled_prompt_embeds": pooled_prompt_embeds,
        }
        super().__init__(
            unet,
            autoencoder,
            VariancePreserving() if schedule is None else schedule,
            prediction=prediction,
            conditioning=embeddings,
            negative=negative,
            per_frame=True,
            shared_noise=shared_noise,
            **options,
        )
        self.guidance_embedding = guidance_embedding

    def conditions(self, latent: Tensor, conditioning: Conditioning) -> dict[str, Any]:
        fitted = super().conditions(latent, conditioning)
        height, width = (size * self.spec.spatial for size in latent.shape[-2:])
        size = torch.tensor(
            [[height, width, 0, 0, height, width]],
            dtype=torch.float32,
            device=latent.device,
        )
        arguments: dict[str, Any] = {
            "encoder_hidden_states": fitted["prompt_embeds"],
            "added_cond_kwargs": {
                "text_embeds": fitted["pooled_prompt_embeds"],
                "time_ids": size.expand(len(latent), -1),
            },
        }
        features = getattr(self.network.config, "time_cond_proj_dim", None)
        if features is not None:
            told = guidance_features(self.guidance_embedding - 1, features)
            arguments["timestep_cond"] = told.to(latent).expand(len(latent), -1)
        return arguments

    @classmethod
    def from_pretrained(
        cls,
        pretrained: Source = SDXL_REPOSITORY,
        checkpoint: Source | None = SDXL_CHECKPOINT,
        *,
        autoencoder: Source | None = SDXL_AUTOENCODER,
        prompt: str = SDXL_PROMPT,
        embeddings: Source | Mapping[str, Tensor] | None = None,
        negative_prompt: str | None = None,
        lora_scale: float = 1.0,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        revision: str | None = None,
        checkpoint_revision: str | None = None,
        autoencoder_revision: str | None = None,
        cache_dir: Source | None = None,
        local_files_only: bool = False,
        **options: Any,
    ) -> SDXLConsistencyModel:
        r"""
        Load from the Hugging Face Hub, from its cache or from local files.

        The prompt is embedded once, on ``device``; the text encoders are then freed, and
        they are not loaded at all if ``embeddings`` are given.

        :param str, pathlib.Path pretrained: base model in the layout of diffusers: a
            repository ``'owner/name'`` or a folder.
        :param str, pathlib.Path checkpoint: few-step weights, a local path or
            ``'owner/name/path/in/repository'``: a UNet in a PyTorch file as DMD2's, in a
            safetensors file or in a folder in the layout of diffusers (whose configuration
            then counts), or a LoRA on the base model. ``None`` if the base model is itself
            distilled (SDXL-Turbo).
        :param str, pathlib.Path autoencoder: autoencoder, a repository or a folder;
            ``None`` for that of the base model.
        :param str prompt: the prompt.
        :param embeddings: embeddings instead of the prompt, as :meth:`save_embeddings`
            writes them, or ``{"prompt_embeds": …, "pooled_prompt_embeds": …}``.
        :param str negative_prompt: negative prompt, for ``guidance``; none by default.
        :param float lora_scale: strength of a LoRA.
        :param torch.dtype dtype: precision of the networks; float16 on a GPU by default,
            else float32.
        :param torch.device device: where the prompt is embedded; by default a GPU if there
            is one. Networks go where the video is, with ``offload=False`` here at once.
        :param str revision: branch, tag or commit of ``pretrained`` on the Hub.
        :param str checkpoint_revision: likewise, of ``checkpoint``.
        :param str autoencoder_revision: likewise, of ``autoencoder``.
        :param str, pathlib.Path cache_dir: cache of the Hub.
        :param bool local_files_only: use nothing but the cache and local files.
        :param options: further arguments of the class.
        :return: (:class:`SDXLConsistencyModel`) the model.
        :raises ImportError: if the extra ``diffusers`` is not installed.
        :raises OutOfMemory: if the memory does not suffice.
        :raises FileNotFoundError: if a file is not there, or cannot be fetched.
        :raises ValueError: if a file holds other weights than expected: missing and
            unexpected names are listed.
        """
        diffusers = need("diffusers")
        device, dtype = placement(device, dtype, torch.float16)
        hub: dict[str, Any] = {
            "cache_dir": cache_dir,
            "local_files_only": local_files_only,
        }
        found, low_rank = None, False
        if checkpoint is not None:
            found = locate(checkpoint, revision=checkpoint_revision, **hub)
            found, low_rank = lora_or_network(found)
        base_needed = found is None or low_rank
        wanted = {
            "unet": base_needed,
            "text": embeddings is None or negative_prompt is not None,
            "autoencoder": autoencoder is None,
        }
        files = sdxl_files(**wanted)
        folder = locate(pretrained, files, revision=revision, **hub)
        if not all((folder / name).exists() for name in files if "safetensors" in name):
            files = sdxl_files(**wanted, half=False)  # only in single precision
            folder = locate(pretrained, files, revision=revision, **hub)
        unet, source = _config_folder(found, "unet"), found or folder / "unet"
        network = build(diffusers.UNet2DConditionModel, unet or folder / "unet")
        if base_needed:
            weights = read_folder(folder / "unet")
        else:
            weights = read_checkpoint(source, "unet")
            weights = without_prefix(weights, ("feedforward_model.", "unet.", "model."))
        if low_rank:
            weights = merge_lora(
                weights,
                read_file(source),
                UNetNames(network),
                scale=lora_scale,
                source=source,
            )
        fill(network, weights, source=source, dtype=dtype)
        place = folder / "vae"
        if autoencoder is not None:
            place = locate(
                autoencoder,
                SDXL_AUTOENCODER_FILES,
                revision=autoencoder_revision,
                **hub,
            )
        vae = build(diffusers.AutoencoderKL, place)
        # the first autoencoder of SDXL overflows in half precision
        overflows = vae.config.force_upcast  # type: ignore[union-attr]
        precise = torch.float32 if overflows and dtype == torch.float16 else dtype
        fill(vae, read_folder(place), source=place, dtype=precise)
        prompts = [prompt] if embeddings is None else []
        if negative_prompt is not None:
            prompts.append(negative_prompt)
        embedded = embed_clip(folder, prompts, dtype=dtype, device=device)
        if negative_prompt is not None:
            options["negative"] = embedded.pop()
        if embeddings is not None:
            dim: int = network.config.cross_attention_dim  # type: ignore[union-attr,assignment]
            pooled = pooled_width(network)
            shapes = {
                "prompt_embeds": (1, None, dim),
                "pooled_prompt_embeds": (1, pooled),
            }
            embedded.append(load_embeddings(embeddings, shapes))
        first = embedded[0]
        model = cls(
            network,
            vae,
            first["prompt_embeds"],
            first["pooled_prompt_embeds"],
            **options,
        )
        if model.offload is False:  # else each network moves when it is used first
            model.place(device)
        return model

    def save_embeddings(self, path: Source) -> None:
        r"""
        Write the embeddings of the prompt, to be given as ``embeddings`` the next time.

        :param str, pathlib.Path path: file ending in ``.safetensors``.
        """
        save_embeddings(path, self.conditioning)


def pooled_width(unet: nn.Module) -> int:
    r"""
    Length of the pooled embedding that a UNet is told, beside six numbers of the size.

    :param torch.nn.Module unet: the UNet.
    :return: (int) the length.
    """
    config: Any = unet.config
    numbers = 6 * config.addition_time_embed_dim
    return config.projection_class_embeddings_input_dim - numbers


#: Files of the autoencoder's repository that are needed.
SDXL_AUTOENCODER_FILES = ("config.json", "diffusion_pytorch_model.safetensors")


def sdxl_files(
    *, unet: bool, text: bool, autoencoder: bool, half: bool = True
) -> list[str]:
    r"""
    Files of the base model that are needed.

    :param bool unet: whether the weights of the UNet are.
    :param bool text: whether tokenizers and text encoders are.
    :param bool autoencoder: whether the autoencoder is.
    :param bool half: half precision, which most repositories offer beside single.
    :return: (list[str]) patterns.
    """
    ending = "fp16.safetensors" if half else "safetensors"
    files = ["unet/config.json"]
    if unet:
        files.append(f"unet/diffusion_pytorch_model.{ending}")
    if autoencoder:
        files += ["vae/config.json", f"vae/diffusion_pytorch_model.{ending}"]
    if text:
        for number in ("", "_2"):
            files += [
                f"tokenizer{number}/*",
                f"text_encoder{number}/config.json",
                f"text_encoder{number}/model.{ending}",
            ]
    return files


def guidance_features(guidance: float, width: int) -> Tensor:
    r"""
    Sinusoidal features of a guidance scale, for networks distilled with it (LCM).

    :param float guidance: guidance minus one.
    :param int width: number of features.
    :return: (torch.Tensor) features, ``(1, width)``.
    """
    half = width // 2
    rates = 10000 ** (-torch.arange(half, dtype=torch.float64) / max(half - 1, 1))
    angles = 1000 * guidance * rates
    features = torch.cat([angles.sin(), angles.cos()])
    return torch.nn.functional.pad(features, (0, width % 2))[None]


def _config_folder(found: Any, subfolder: str) -> Any:
    """Folder whose configuration describes a checkpoint, if it brings one."""
    if found is None or found.is_file():
        return None
    return found / subfolder if (found / subfolder).is_dir() else found
