r"""Prompts as embeddings: made once, kept in small files."""

from __future__ import annotations

import gc
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepinv_lvtino.models._checkpoints import Source, need

Embeddings = dict[str, Tensor]


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
    prompt: str,
    *,
    length: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Embeddings:
    r"""
    Embedding of a prompt by the text encoder of Wan (UMT5), which is freed afterwards.

    :param str, pathlib.Path folder: folder with ``tokenizer`` and ``text_encoder``.
    :param str prompt: the prompt.
    :param int length: number of tokens; those beyond the prompt's are zero.
    :param torch.dtype dtype: dtype of the encoder.
    :param torch.device device: where it runs.
    :return: (dict[str, torch.Tensor]) ``prompt_embeds``, ``(1, length, dim)``, on the CPU.
    """
    transformers = need("transformers")
    tokenizer = _tokenizer(Path(folder) / "tokenizer")
    encoder = _encoder(
        transformers.UMT5EncoderModel, Path(folder) / "text_encoder", dtype
    )
    tokens = tokenizer(
        [clean_prompt(prompt)],
        padding="max_length",
        max_length=length,
        truncation=True,
        add_special_tokens=True,
        return_attention_mask=True,
        return_tensors="pt",
    )
    mask = tokens.attention_mask.to(device)
    with torch.no_grad():
        encoder = encoder.to(device)
        embedded = encoder(tokens.input_ids.to(device), mask).last_hidden_state
        embedded = embedded * mask[..., None]
    found = {"prompt_embeds": embedded.cpu()}
    del encoder, embedded
    _free(device)
    return found


def embed_clip(
    folder: Source, prompt: str, *, dtype: torch.dtype, device: torch.device
) -> Embeddings:
    r"""
    Embedding of a prompt by the two text encoders of SDXL, which are freed afterwards.

    :param str, pathlib.Path folder: folder with ``tokenizer``, ``tokenizer_2``,
        ``text_encoder`` and ``text_encoder_2``.
    :param str prompt: the prompt.
    :param torch.dtype dtype: dtype of the encoders.
    :param torch.device device: where they run.
    :return: (dict[str, torch.Tensor]) ``prompt_embeds``, ``(1, tokens, dim)``, and
        ``pooled_prompt_embeds``, ``(1, dim)``, on the CPU.
    """
    transformers = need("transformers")
    pieces, found = [], {}
    for number, model_class in (
        ("", transformers.CLIPTextModel),
        ("_2", transformers.CLIPTextModelWithProjection),
    ):
        tokenizer = _tokenizer(Path(folder) / f"tokenizer{number}")
        encoder = _encoder(model_class, Path(folder) / f"text_encoder{number}", dtype)
        tokens = tokenizer(
            [prompt],
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        with torch.no_grad():
            output = encoder.to(device)(
                tokens.input_ids.to(device), output_hidden_states=True
            )
        pieces.append(output.hidden_states[-2].cpu())
        if number:
            found["pooled_prompt_embeds"] = output.text_embeds.cpu()
        del encoder, output
        _free(device)
    found["prompt_embeds"] = torch.cat(pieces, dim=-1)
    return found


def _tokenizer(folder: Path) -> Any:
    transformers = need("transformers")
    if not folder.is_dir():
        msg = f"{folder} does not exist; give `embeddings` instead of `prompt`."
        raise FileNotFoundError(msg)
    return transformers.AutoTokenizer.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )


def _encoder(model_class: Any, folder: Path, dtype: torch.dtype) -> Any:
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
    return model.eval().requires_grad_(False)


def _free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
