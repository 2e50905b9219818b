r"""Prompts as embeddings: made once, kept in small files."""

from __future__ import annotations

import gc
import html
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepinv_lvtino.models._hub import need
from deepinv_lvtino.models._memory import OutOfMemory, Part
from deepinv_lvtino.models._weight_files import Source

Embeddings = dict[str, Tensor]
_CPU = torch.device("cpu")


def clean_prompt(prompt: str) -> str:
    r"""
    A prompt without HTML entities and repeated blanks.

    :param str prompt: the prompt.
    :return: (str) the prompt as the published systems tokenise it.
    """
    return " ".join(html.unescape(html.unescape(prompt)).split())


def save_embeddings(path: Source, embeddings: Mapping[str, Tensor]) -> None:
    r"""
    Write the embeddings of a prompt as safetensors.

    :param str, pathlib.Path path: the file.
    :param Mapping[str, torch.Tensor] embeddings: the embeddings.
    """
    from safetensors.torch import save_file

    save_file({k: v.detach().cpu().contiguous() for k, v in embeddings.items()}, path)


def load_embeddings(
    given: Source | Mapping[str, Tensor], shapes: Mapping[str, Sequence[int | None]]
) -> Embeddings:
    r"""
    Embeddings of a prompt, from a file or as they are, checked.

    :param given: file of :func:`save_embeddings`, or the tensors by name.
    :param Mapping shapes: names that are needed, and their shapes; ``None`` for any size.
    :return: (dict[str, torch.Tensor]) the embeddings.
    :raises ValueError: if names or shapes differ.
    """
    if isinstance(given, Mapping):
        found = dict(given)
    else:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            found = dict(load_file(Path(given)))
        except SafetensorError as error:
            msg = f"{given} is not a file of embeddings ({error})."
            raise ValueError(msg) from error
    good = set(found) == set(shapes) and all(
        found[name].ndim == len(shape)
        and all(b in (None, a) for a, b in zip(found[name].shape, shape, strict=True))
        for name, shape in shapes.items()
    )
    if not good:
        wanted = {
            k: tuple("any" if n is None else n for n in v) for k, v in shapes.items()
        }
        got = {name: tuple(t.shape) for name, t in found.items()}
        msg = f"`embeddings` must hold {wanted} for this model; got {got}."
        raise ValueError(msg)
    return found


def embed_t5(
    folder: Source,
    prompts: Sequence[str],
    *,
    length: int,
    dtype: torch.dtype,
    device: torch.device,
) -> list[Embeddings]:
    r"""
    Embeddings of prompts by the text encoder of Wan (UMT5), which is freed afterwards.

    :param str, pathlib.Path folder: folder with ``tokenizer`` and ``text_encoder``.
    :param Sequence[str] prompts: the prompts; nothing is loaded if there are none.
    :param int length: number of tokens; those beyond the prompt's are zero.
    :param torch.dtype dtype: dtype of the encoder.
    :param torch.device device: where it runs, if it fits there; else on the CPU.
    :return: (list[dict[str, torch.Tensor]]) for each prompt ``prompt_embeds``,
        ``(1, length, dim)``, on the CPU.
    :raises OutOfMemory: if the memory of the CPU does not suffice either.
    """
    if not prompts:
        return []
    transformers = need("transformers")
    tokenizer = _tokenizer(Path(folder) / "tokenizer")
    part = _encoder(transformers.UMT5EncoderModel, Path(folder) / "text_encoder", dtype)
    found = []
    for prompt in prompts:
        tokens = tokenizer(
            [clean_prompt(prompt)],
            padding="max_length",
            max_length=length,
            truncation=True,
            add_special_tokens=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        mask = tokens.attention_mask
        output = _run(part, tokens.input_ids, device, attention_mask=mask)
        embedded = output.last_hidden_state.cpu() * mask[..., None]
        found.append({"prompt_embeds": embedded})
    del part, output
    _free(device)
    return found


def embed_clip(
    folder: Source,
    prompts: Sequence[str],
    *,
    dtype: torch.dtype,
    device: torch.device,
) -> list[Embeddings]:
    r"""
    Embeddings of prompts by SDXL's two text encoders, which are freed afterwards.

    :param str, pathlib.Path folder: folder with ``tokenizer``, ``tokenizer_2``,
        ``text_encoder`` and ``text_encoder_2``.
    :param Sequence[str] prompts: the prompts; nothing is loaded if there are none.
    :param torch.dtype dtype: dtype of the encoders.
    :param torch.device device: where they run, if they fit there; else on the CPU.
    :return: (list[dict[str, torch.Tensor]]) for each prompt ``prompt_embeds``,
        ``(1, tokens, dim)``, and ``pooled_prompt_embeds``, ``(1, dim)``, on the CPU.
    :raises OutOfMemory: if the memory of the CPU does not suffice either.
    """
    if not prompts:
        return []
    transformers = need("transformers")
    pieces: list[list[Tensor]] = [[] for _ in prompts]
    pooled = []
    for number, model_class in (
        ("", transformers.CLIPTextModel),
        ("_2", transformers.CLIPTextModelWithProjection),
    ):
        tokenizer = _tokenizer(Path(folder) / f"tokenizer{number}")
        part = _encoder(model_class, Path(folder) / f"text_encoder{number}", dtype)
        for prompt, piece in zip(prompts, pieces, strict=True):
            tokens = tokenizer(
                [prompt],
                padding="max_length",
                max_length=tokenizer.model_max_length,
                truncation=True,
                return_tensors="pt",
            )
            output = _run(part, tokens.input_ids, device, output_hidden_states=True)
            piece.append(output.hidden_states[-2].cpu())
            if number:
                pooled.append(output.text_embeds.cpu())
        del part, output
    _free(device)
    return [
        {"prompt_embeds": torch.cat(piece, dim=-1), "pooled_prompt_embeds": last}
        for piece, last in zip(pieces, pooled, strict=True)
    ]


@torch.no_grad()
def _run(part: Part, tokens: Tensor, device: torch.device, **options: Any) -> Any:
    def embed(place: torch.device) -> Any:
        moved = {
            key: value.to(place) if isinstance(value, Tensor) else value
            for key, value in options.items()
        }
        return part.run(lambda net: net(tokens.to(place), **moved), place, settings)

    settings = {"`embeddings=...`": "those of another run, from `save_embeddings`"}
    if next(part.module.parameters()).element_size() > 2:
        settings = {"`dtype=torch.bfloat16`": "half of the memory"} | settings
    # once it did not fit, the next prompt does not try again
    place = device if part.offload is False else _CPU
    try:
        return embed(place)
    except OutOfMemory as error:
        if place.type == "cpu":
            raise
        reason = str(error.__cause__).splitlines()[0]
    part.offload = True
    part.leave()
    text = f"the text encoder does not fit on {device}, and works on the CPU ({reason})"
    warnings.warn(text, stacklevel=2)
    return embed(_CPU)


def _tokenizer(folder: Path) -> Any:
    transformers = need("transformers")
    if not folder.is_dir():
        msg = f"{folder} does not exist; give `embeddings` instead of `prompt`."
        raise FileNotFoundError(msg)
    return transformers.AutoTokenizer.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )


def _encoder(model_class: Any, folder: Path, dtype: torch.dtype) -> Part:
    if not folder.is_dir():
        msg = f"{folder} does not exist; give `embeddings` instead of `prompt`."
        raise FileNotFoundError(msg)
    fp16 = (folder / "model.fp16.safetensors").exists()
    plain = (folder / "model.safetensors").exists()
    model, report = model_class.from_pretrained(
        folder,
        dtype=dtype,
        use_safetensors=True,
        variant="fp16" if fp16 and not plain else None,
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    missing = sorted(report["missing_keys"])
    if missing:
        msg = f"{folder} lacks {len(missing)} weights: {', '.join(missing[:20])}."
        raise ValueError(msg)
    return Part("text encoder", model.eval().requires_grad_(False), offload=False)


def _free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
