r"""Wan 2.1 with a few-step distillation (CausVid) as a video prior."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepinv_lvtino.models._hub import locate, lora_or_network, need
from deepinv_lvtino.models._layouts import (
    WAN_AUTOENCODER_FILES,
    WAN_TRANSFORMER,
    build_transformer,
    call_flow_map,
    default_schedule,
    is_flow_map,
    load_autoencoder,
    transformer_weights,
)
from deepinv_lvtino.models._lora import merge_lora
from deepinv_lvtino.models._lora_names import wan_names
from deepinv_lvtino.models._memory import Part
from deepinv_lvtino.models._networks import fill
from deepinv_lvtino.models._prompts import (
    embed_t5,
    load_embeddings,
    save_embeddings,
)
from deepinv_lvtino.models._tiny_decoder import check_tiny_decoder, load_tiny_decoder
from deepinv_lvtino.models._weight_files import (
    Source,
    read_entry,
    read_file,
    read_folder,
)
from deepinv_lvtino.models.adapter import DiffusersConsistencyModel, dtype_of
from deepinv_lvtino.models.noise_schedules import NoiseSchedule

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

    :param torch.nn.Module transformer: diffusers' ``WanTransformer3DModel``; or its
        ``AnyFlowTransformer3DModel``, whose steps then end at time zero.
    :param torch.nn.Module autoencoder: diffusers' ``AutoencoderKLWan``.
    :param torch.Tensor prompt_embeds: embedding of the prompt, ``(1, tokens, dim)``.
    :param NoiseSchedule schedule: noise levels; another shift suits other distillations.
    :param torch.Tensor negative_prompt_embeds: embedding of a negative prompt, for
        ``guidance``.
    :param torch.nn.Module decoder: decodes instead of the autoencoder: from normalised
        latents ``(B, t, c, h, w)``, frames first, to ``(B, T, 3, H, W)`` in [0, 1], with
        :math:`T = 4 (t - 1) + 1`; see :class:`TinyVideoDecoder`.
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
        decoder: nn.Module | None = None,
        **options: Any,
    ) -> None:
        negative = negative_prompt_embeds
        flow_map = is_flow_map(transformer)
        if flow_map and options.get("call") is None:
            options["call"] = call_flow_map
        if schedule is None:
            schedule = default_schedule("AnyFlow" if flow_map else "Wan")
        super().__init__(
            transformer,
            autoencoder,
            schedule,
            prediction="velocity",
            conditioning={"encoder_hidden_states": prompt_embeds},
            negative=None if negative is None else {"encoder_hidden_states": negative},
            **options,
        )
        #: What :meth:`from_pretrained` took of the checkpoint: its path, the ``entry`` of
        #: a file with several networks (``generator_ema``, …), and its ``layout``.
        self.taken: dict[str, str | None] = {}
        self.decoder = decoder
        if decoder is not None:
            check_tiny_decoder(decoder, transformer, self.spec.spatial)
            decoder.eval().requires_grad_(False)
            self._parts["decoder"] = Part("decoder", decoder, self.offload)

    def decode(self, latent: Tensor) -> Tensor:
        if self.decoder is None:
            return super().decode(latent)

        def videos(network: nn.Module) -> list[Tensor]:
            return [
                self._in_tiles(
                    lambda cut: self._decode_tiny(network, cut),
                    piece.to(dtype_of(network)),
                    self.spec.spatial,
                    1,
                ).to(latent.dtype)
                for piece in self._pieces(latent, 1)
            ]

        return torch.cat(self._on_device("decoder", videos, latent))

    @torch.no_grad()
    def _decode_tiny(self, network: nn.Module, latent: Tensor) -> Tensor:
        video = network(latent.transpose(1, 2))
        batch, _, frames, height, width = latent.shape
        frames = self.spec.temporal * (frames - 1) + self.frame_offset
        size = (height * self.spec.spatial, width * self.spec.spatial)
        if video.shape != (batch, frames, 3, *size):
            msg = (
                f"`decoder` gave shape {tuple(video.shape)}; expected "
                f"{(batch, frames, 3, *size)}: frames before channels, as many as the "
                "autoencoder gives, at its size."
            )
            raise ValueError(msg)
        return video.transpose(1, 2)

    def extra_repr(self) -> str:
        taken = "".join(f", {k}={v!r}" for k, v in self.taken.items() if v is not None)
        return super().extra_repr() + taken

    @classmethod
    def from_pretrained(
        cls,
        pretrained: Source | None = WAN_REPOSITORY,
        checkpoint: Source | None = WAN_CHECKPOINT,
        *,
        autoencoder: Source | None = None,
        decoder: Source | nn.Module | None = None,
        config: Source | Mapping[str, Any] | None = None,
        entry: str | None = None,
        prompt: str = WAN_PROMPT,
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
    ) -> WanConsistencyModel:
        r"""
        Load from the Hugging Face Hub, from its cache or from local files.

        The prompt is embedded once, on ``device``; the text encoder is then freed, and it
        is not loaded at all if ``embeddings`` are given. With ``embeddings``,
        ``autoencoder`` and a ``checkpoint`` of the whole transformer the base model is not
        needed at all.

        :param str, pathlib.Path pretrained: base model in the layout of diffusers: a
            repository ``'owner/name'`` or a folder; ``None`` for none.
        :param str, pathlib.Path checkpoint: few-step weights, a local path or
            ``'owner/name/path/in/repository'``: a PyTorch file as CausVid's
            (``{"generator": {"model.…": …}}``), Self-Forcing's or rCM's, a safetensors
            file, a folder in the layout of diffusers (``transformer`` or the like, of Wan
            or AnyFlow, whose configuration then counts), or a LoRA on the base model; names
            may be Wan's or diffusers'. ``None`` if the base model is itself distilled.
        :param str, pathlib.Path autoencoder: autoencoder, a repository or a folder in the
            layout of diffusers, or a file of Wan 2.1's (``Wan2.1_VAE.pth``); that of the
            base model by default.
        :param decoder: decodes instead of the autoencoder, faster and less precisely: a
            file of TAEHV (``taew2_1``), local or ``'owner/name/file'``, or a module as the
            class takes it.
        :param dict config: configuration of the transformer, or a folder with its
            ``config.json``; by default that of the checkpoint's folder, of the base model,
            or, if neither is there, of Wan 2.1 with 1.3 billion parameters.
        :param str entry: which network of a file that holds several to take, such as
            ``'generator'``; by default the averaged one (``'generator_ema'``) where there
            is one. ``taken`` of the model says which it was.
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
        :param str autoencoder_revision: likewise, of ``autoencoder``.
        :param str, pathlib.Path cache_dir: cache of the Hub.
        :param bool local_files_only: use nothing but the cache and local files.
        :param options: further arguments of the class. The default ``schedule`` is that of
            CausVid; for rCM and AnyFlow the noise level is the time itself.
        :return: (:class:`WanConsistencyModel`) the model.
        :raises ImportError: if the extra ``diffusers`` is not installed, or too old for
            AnyFlow.
        :raises OutOfMemory: if the memory does not suffice.
        :raises FileNotFoundError: if a file is not there, or cannot be fetched.
        :raises ValueError: if a file holds other weights than expected: missing and
            unexpected names are listed.
        """
        need("diffusers")
        device, dtype = placement(device, dtype, torch.bfloat16)
        hub: dict[str, Any] = {
            "cache_dir": cache_dir,
            "local_files_only": local_files_only,
        }
        found, low_rank = None, False
        if checkpoint is not None:
            found = locate(checkpoint, revision=checkpoint_revision, **hub)
            found, low_rank = lora_or_network(found)
        settings = _own_config(found) if config is None else config
        wanted = {
            "transformer": found is None or low_rank,
            "text": embeddings is None or negative_prompt is not None,
            "autoencoder": autoencoder is None,
        }
        folder, needed = Path(), any(wanted.values())
        if pretrained is None and needed:
            raise ValueError(_incomplete(wanted))
        if settings is None and not needed and pretrained in (None, WAN_REPOSITORY):
            settings = WAN_TRANSFORMER
        if needed or settings is None:
            files = wan_files(**wanted)
            folder = locate(pretrained or "", files, revision=revision, **hub)
        base = folder / "transformer"
        transformer = build_transformer(base if settings is None else settings)
        weights, taken = _transformer_weights(
            transformer, base, found, low_rank, lora_scale, entry
        )
        fill(transformer, weights, source=found or base, dtype=dtype)
        if options.get("schedule") is None and taken["layout"] == "rCM":
            options["schedule"] = default_schedule("rCM")
        if autoencoder is not None:
            place = locate(
                autoencoder, WAN_AUTOENCODER_FILES, revision=autoencoder_revision, **hub
            )
            vae = load_autoencoder(place, dtype=dtype)
        else:
            vae = load_autoencoder(folder / "vae", dtype=dtype)
        if decoder is not None and not isinstance(decoder, nn.Module):
            decoder = load_tiny_decoder(locate(decoder, **hub), dtype=dtype)
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
        first = embedded[0]["prompt_embeds"]
        model = cls(transformer, vae, first, decoder=decoder, **options)
        model.taken = taken
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


def _own_config(found: Path | None) -> Path | None:
    """Folder whose configuration describes a checkpoint, if it brings one."""
    if found is None or found.is_file():
        return None
    folder = found / "transformer" if (found / "transformer").is_dir() else found
    return folder if (folder / "config.json").is_file() else None


def _incomplete(wanted: Mapping[str, bool]) -> str:
    """What to give where there is no base model."""
    remedies = {
        "transformer": "a `checkpoint` that is no LoRA",
        "text": "`embeddings` (and no `negative_prompt`)",
        "autoencoder": "`autoencoder`",
    }
    missing = [remedies[name] for name, needed in wanted.items() if needed]
    return f"without a base model (`pretrained`=None) give {', '.join(missing)} too."


def _transformer_weights(
    transformer: nn.Module,
    base: Path,
    found: Path | None,
    low_rank: bool,
    lora_scale: float,
    entry: str | None,
) -> tuple[dict[str, Tensor], dict[str, str | None]]:
    """Weights of the transformer, and where they are from."""
    taken: dict[str, str | None] = {"checkpoint": str(found or base)}
    if entry is not None and (found is None or low_rank or not found.is_file()):
        msg = f"`entry`={entry!r} is for a `checkpoint` that is a file of networks."
        raise ValueError(msg)
    if found is None or low_rank:
        layout, weights = transformer_weights(read_folder(base), transformer)
        if found is not None:
            layout, lora = "LoRA", read_file(found)
            weights = merge_lora(
                weights, lora, wan_names, scale=lora_scale, source=found
            )
    else:
        if found.is_file():
            entry, weights = read_entry(found, entry)
        else:
            weights = read_checkpoint(found, "transformer")
        layout, weights = transformer_weights(weights, transformer)
    return weights, taken | {"entry": entry, "layout": layout}


def wan_files(*, transformer: bool, text: bool, autoencoder: bool = True) -> list[str]:
    r"""
    Files of the base model that are needed.

    :param bool transformer: whether its weights are.
    :param bool text: whether tokenizer and text encoder are.
    :param bool autoencoder: whether the autoencoder is.
    :return: (list[str]) patterns.
    """
    files = ["transformer/config.json"]
    if autoencoder:
        files.append("vae/*")
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
