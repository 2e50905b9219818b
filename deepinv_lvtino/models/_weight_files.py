r"""Tensors of files, of which nothing else is unpickled.

Files are safetensors, or PyTorch's with ``weights_only=True``.
"""

from __future__ import annotations

import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepinv_lvtino._schema import (
    read_json,
    record,
    table,
    text,
)

Weights = dict[str, Tensor]
Source = str | Path

#: Names under which published files keep the network's weights, the averaged ones first.
NESTED = ("generator_ema", "generator", "state_dict")

_WEIGHT_FILES = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.fp16.safetensors",
    "diffusion_pytorch_model.bin",
    "diffusion_pytorch_model.fp16.bin",
)

_SHOWN = 20
_INDEX = record({"weight_map": table(text(1000), 100_000)})

#: What PyTorch's reader raises on files that are damaged, or hold more than tensors
UNREADABLE = (
    pickle.UnpicklingError,
    struct.error,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
)


def read_file(path: Source, entry: str | None = None) -> Weights:
    r"""
    Tensors of a file of weights, mapped from the disk where possible.

    :param str, pathlib.Path path: safetensors, or a PyTorch file that holds the weights,
        or holds them under one of ``NESTED``.
    :param str entry: see :func:`read_entry`.
    :return: (dict[str, torch.Tensor]) the weights.
    :raises ValueError: if the file holds anything else.
    """
    return read_entry(path, entry)[1]


def read_entry(path: Source, entry: str | None = None) -> tuple[str | None, Weights]:
    r"""
    Tensors of a file of weights, and the name under which it keeps them.

    :param str, pathlib.Path path: as of :func:`read_file`.
    :param str entry: name of the entry that is wanted; by default the first of ``NESTED``
        that the file has.
    :return: (tuple) name of the entry, ``None`` if the file holds the weights alone, and
        the weights.
    :raises ValueError: if the file holds anything else, or has no such entry.
    """
    path = Path(path)
    if path.suffix.lower() == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        if entry is not None:
            msg = f"{path} holds one network; it has no entry {entry!r} to choose."
            raise ValueError(msg)
        try:
            return None, dict(load_file(path))
        except SafetensorError as error:
            msg = f"{path} is not a safetensors file ({error}); it may be incomplete."
            raise ValueError(msg) from error
    try:
        found = load_tensors(path, mapped=_is_stored(path))
    except UNREADABLE as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise  # it is not there, or may not be read
        msg = (
            f"{path} holds more than weights, or is damaged, and was not loaded "
            f"({reason_of(error)}). Only tensors are read; convert the file to safetensors."
        )
        raise ValueError(msg) from error
    entry, found = _choose_entry(path, found, entry)
    if not isinstance(found, Mapping) or not all(
        isinstance(value, Tensor) for value in found.values()
    ):
        msg = (
            f"{path} does not hold the weights of one network: expected names and tensors, "
            f"alone or under one of {', '.join(map(repr, NESTED))}."
        )
        raise ValueError(msg)
    return entry, dict(found)


def _choose_entry(path: Path, found: Any, entry: str | None) -> tuple[str | None, Any]:
    """The entry that is wanted, or the first known one, or all if there is none."""
    entries: dict[str, Any] = {}
    if isinstance(found, Mapping):
        entries = {k: v for k, v in found.items() if isinstance(v, Mapping)}
    if entry is None:
        entry = next((name for name in NESTED if name in entries), None)
    if entry is None:
        return None, found
    if entry not in entries:
        names = ", ".join(map(repr, list(entries)[:_SHOWN])) or "none"
        msg = f"{path} has no entry {entry!r}; it has {names}."
        raise ValueError(msg)
    return entry, entries[entry]


def load_tensors(path: Path, *, mapped: bool = False) -> Any:
    r"""
    What a PyTorch file holds, on the CPU; nothing is unpickled but tensors.

    :param pathlib.Path path: the file.
    :param bool mapped: whether tensors are mapped from the disk.
    :return: what it holds.
    :raises Exception: one of ``UNREADABLE``.
    """
    with warnings.catch_warnings():
        # files of another pickle protocol are read, or refused, all the same
        warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)


def _is_stored(path: Path) -> bool:
    """
    Whether a file is an archive whose parts lie in it as they are: it can be mapped.

    A mapping takes what is compressed, or encrypted, for numbers as it stands.
    """
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return all(
            part.compress_type == zipfile.ZIP_STORED
            and part.compress_size == part.file_size
            for part in archive.infolist()
        )


def reason_of(error: Exception) -> str:
    r"""
    First sentence of an error, without PyTorch's advice to unpickle all the same.

    :param Exception error: the error.
    :return: (str) the reason, in a few words.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    sentence = lines[0].split(". ")[0]
    return type(error).__name__ if "weights_only" in sentence else sentence


def read_folder(folder: Source) -> Weights:
    r"""
    Weights of a folder in the layout of diffusers, in one file or several.

    :param str, pathlib.Path folder: folder with ``config.json`` and weights.
    :return: (dict[str, torch.Tensor]) the weights.
    :raises FileNotFoundError: if there are none.
    :raises ValueError: if the index of several files is none.
    """
    folder = Path(folder)
    for index in sorted(folder.glob("diffusion_pytorch_model*.safetensors.index.json")):
        names = read_json(index, _INDEX)["weight_map"].values()
        weights: Weights = {}
        for name in sorted(set(names)):
            weights |= read_file(folder / Path(name).name)
        return weights
    for name in _WEIGHT_FILES:
        if (folder / name).exists():
            return read_file(folder / name)
    msg = (
        f"{folder} holds no weights; expected one of {', '.join(_WEIGHT_FILES[:2])} or "
        "their index."
    )
    raise FileNotFoundError(msg)


def listed(title: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} {title}: {', '.join(names[:_SHOWN])}{more}"
