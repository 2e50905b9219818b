r"""Wan 2.1 with a few-step distillation (CausVid) as a video prior."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepinv_lvtino.models._checkpoints import (
    Source,
    build,
    fill,
    locate,
    lora_or_network,
    merge_lora,
    need,
    read_file,
    read_folder,
)
from deepinv_lvtino.models._lora_names import wan_names, wan_weights
from deepinv_lvtino.models._prompts import (
    embed_t5,
    load_embeddings,
    save_embeddings,
)
from deepinv_lvtino.models.adapter import DiffusersConsistencyModel
from deepinv_lvtino.models.noise_schedules import NoiseSchedule, RectifiedFlow

#: Base model, in the layout of diffusers.
WAN_REPOSITORY = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
#: CausVid's bidirectional few-step checkpoint.
WAN_CHECKPOINT = "tianweiy/CausVid/bidirectional_checkpoint2/model.pt"
#: Prompt of the published runs.
WAN_PROMPT = "a high resolution video"
_TOKENS = 512


class WanConsistencyModel(DiffusersConsistencyModel):
    r"""
    Wan's transformer and autoencoder as a video consistency model.

    The transformer predicts the velocity of a rectified flow. It is given the time that is
    asked for, while the noise level is the nearest entry of its timetable
    (:class:`RectifiedFlow` with shift 8 and ``snap=True``), as in the published system
    :footcite:p:`spagnoletti2025lvtino`. Latents are posterior means, normalised channel by
    channel. Inside, videos have :math:`4n + 1` frames, and heights and widths that are
    multiples of 16.

    Weights come by :meth:`from_pretrained`.

    :param torch.nn.Module transformer: diffusers' ``WanTransformer3DModel``.
    :param torch.nn.Module autoencoder: diffusers' ``AutoencoderKLWan``.
    :param torch.Tensor prompt_embeds: embedding of the prompt, ``(1, tokens, dim)``.
    :param NoiseSchedule schedule: noise levels; another shift suits other distillations.
    :param torch.Tensor negative_prompt_embeds: embedding of a negative prompt, for
        ``guidance``.
    :param options: as of :class:`DiffusersConsistencyModel`: ``guidance``,
        ``pixel_scale``, ``clip``, ``tiling``, ``offload``, ``channels_last``, ``compile``.

    |sep|

    .. footbibliography::
    """

    def __init__(
        self,
        transformer: nn.Module,
        autoencoder: nn.Module,
        prompt_embeds: Tensor,
        *,
        schedule: NoiseSchedule | None = None,
        negative_prompt_embeds: Tensor | None = None,
        **options: Any,
    ) -> None:
        negative = negative_prompt_embeds
        super().__init__(
            transformer,
            autoencoder,
            RectifiedFlow(shift=8.0, snap=True) if schedule is None else schedule,
            prediction="velocity",
            conditioning={"encoder_hidden_states": prompt_embeds},
            negative=None if negative is None else {"encoder_hidden_states": negative},
            **options,
        )

    @classmethod
    def from_pretrained(
        cls,
        pretrained: Source = WAN_REPOSITORY,
        checkpoint: Source | None = WAN_CHECKPOINT,
        *,
        prompt: str = WAN_PROMPT,
        embeddings: Source | Mapping[str, Tensor] | None = None,
        negative_prompt: str | None = None,
        lora_scale: float = 1.0,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        revision: str | None = None,
        checkpoint_revision: str | None = None,
        cache_dir: Source | None = None,
        local_files_only: bool = False,
        **options: Any,
    ) -> WanConsistencyModel:
        r"""
        Load from the Hugging Face Hub, from its cache or from local files.

        The prompt is embedded once, on ``device``; the text encoder is then freed, and it
        is not loaded at all if ``embeddings`` are given.

        :param str, pathlib.Path pretrained: base model in the layout of diffusers: a
            repository ``'owner/name'`` or a folder.
        :param str, pathlib.Path checkpoint: few-step weights, a local path or
            ``'owner/name/path/in/repository'``: a PyTorch file as CausVid's
            (``{"generator": {"model.…": …}}``), a safetensors file, a folder in the layout
            of diffusers (``transformer`` or the like), or a LoRA on the base model; names
            may be Wan's or diffusers'. ``None`` if the base model is itself distilled.
        :param str prompt: the prompt.
        :param embeddings: embeddings instead of the prompt, as :meth:`save_embeddings`
            writes them, or ``{"prompt_embeds": …}``.
        :param str negative_prompt: negative prompt, for ``guidance``; none by default.
        :param float lora_scale: strength of a LoRA.
        :param torch.dtype dtype: precision of the networks; bfloat16 on a GPU by default,
            else float32.
        :param torch.device device: where the prompt is embedded; by default a GPU if there
            is one. Networks go where the video is, with ``offload=False`` here at once.
        :param str revision: branch, tag or commit of ``pretrained`` on the Hub.
        :param str checkpoint_revision: likewise, of ``checkpoint``.
        :param str, pathlib.Path cache_dir: cache of the Hub.
        :param bool local_files_only: use nothing but the cache and local files.
        :param options: further arguments of the class.
        :return: (:class:`WanConsistencyModel`) the model.
        :raises ImportError: if the extra ``diffusers`` is not installed.
        :raises OutOfMemory: if the memory does not suffice.
        :raises FileNotFoundError: if a file is not there, or cannot be fetched.
        :raises ValueError: if a file holds other weights than expected: missing and
            unexpected names are listed.
        """
        diffusers = need("diffusers")
        device, dtype = placement(device, dtype, torch.bfloat16)
        hub: dict[str, Any] = {
            "cache_dir": cache_dir,
            "local_files_only": local_files_only,
        }
        found, base_needed = None, True
        if checkpoint is not None:
            found = locate(checkpoint, revision=checkpoint_revision, **hub)
            found, base_needed = lora_or_network(found)
        folder = locate(
            pretrained,
            wan_files(
                transformer=base_needed,
                text=embeddings is None or negative_prompt is not None,
            ),
            revision=revision,
            **hub,
        )
        transformer = build(diffusers.WanTransformer3DModel, folder / "transformer")
        weights = read_folder(folder / "transformer") if base_needed else {}
        source: Source = folder / "transformer"
        if found is not None:
            source = found
            if base_needed:
                weights = merge_lora(
                    weights,
                    read_file(found),
                    wan_names,
                    scale=lora_scale,
                    source=found,
                )
            else:
                weights = wan_weights(read_checkpoint(found, "transformer"))
        fill(transformer, weights, source=source, dtype=dtype)
        autoencoder = build(diffusers.AutoencoderKLWan, folder / "vae")
        fill(
            autoencoder,
            read_folder(folder / "vae"),
            source=folder / "vae",
            dtype=dtype,
        )
        prompts = [prompt] if embeddings is None else []
        if negative_prompt is not None:
            prompts.append(negative_prompt)
        embedded = embed_t5(folder, prompts, length=_TOKENS, dtype=dtype, device=device)
        if negative_prompt is not None:
            options["negative_prompt_embeds"] = embedded.pop()["prompt_embeds"]
        if embeddings is not None:
            dim: int = transformer.config.text_dim  # type: ignore[union-attr,assignment]
            shapes = {"prompt_embeds": (1, None, dim)}
            embedded.append(load_embeddings(embeddings, shapes))
        model = cls(transformer, autoencoder, embedded[0]["prompt_embeds"], **options)
        if model.offload is False:  # else each network moves when it is used first
            model.place(device)
        return model

    def save_embeddings(self, path: Source) -> None:
        r"""
        Write the embedding of the prompt, to be given as ``embeddings`` the next time.

        :param str, pathlib.Path path: file ending in ``.safetensors``.
        """
        embedding = self.conditioning["encoder_hidden_states"]
        save_embeddings(path, {"prompt_embeds": embedding})


def wan_files(*, transformer: bool, text: bool) -> list[str]:
    r"""
    Files of the base model that are needed.

    :param bool transformer: whether its weights are.
    :param bool text: whether tokenizer and text encoder are.
    :return: (list[str]) patterns.
    """
    files = ["transformer/config.json", "vae/*"]
    if transformer:
        files.append("transformer/*")
    if text:
        files += ["tokenizer/*", "text_encoder/*"]
    return files


def read_checkpoint(path: Path, subfolder: str) -> dict[str, Tensor]:
    r"""
    Weights of a file, or of a folder in the layout of diffusers.

    :param pathlib.Path path: file, folder of the network, or folder of the whole model.
    :param str subfolder: name of the network in a whole model.
    :return: (dict[str, torch.Tensor]) the weights.
    """
    if path.is_file():
        return read_file(path)
    return read_folder(path / subfolder if (path / subfolder).is_dir() else path)


def placement(
    device: torch.device | str | None, dtype: torch.dtype | None, half: torch.dtype
) -> tuple[torch.device, torch.dtype]:
    r"""
    Device and precision, with their defaults.

    :param torch.device device: device, or ``None`` for a GPU if there is one.
    :param torch.dtype dtype: precision, or ``None`` for the default of the device.
    :param torch.dtype half: default on a GPU.
    :return: (tuple) both.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(device)
    if dtype is None:
        dtype = torch.float32 if device.type == "cpu" else half
    return device, dtype
