r"""
Weights from files, folders and the Hugging Face Hub, every name accounted for.

Nothing is unpickled: files are safetensors, or PyTorch's with ``weights_only=True``.
"""

from __future__ import annotations

import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from deepinv_lvtino._schema import (
    SchemaError,
    integer,
    listing,
    number,
    read_json,
    record,
    table,
    text,
)
from deepinv_lvtino.models._memory import parameters_on_meta

Weights = dict[str, Tensor]
Source = str | Path

#: Names under which published files keep the network's weights, the averaged ones first.
NESTED = ("generator_ema", "generator", "state_dict")

_FILES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
_WEIGHT_FILES = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.fp16.safetensors",
    "diffusion_pytorch_model.bin",
    "diffusion_pytorch_model.fp16.bin",
)
_LORA_FILE = "pytorch_lora_weights.safetensors"
_SHOWN = 20

#: Beyond what a configuration may ask for: weights, weights in one layer, and bytes of
#: tables that are no weights.
MOST_WEIGHTS, MOST_IN_A_LAYER, MOST_TABLES = 10**11, 2**32, 2**30

_MOST = 2**31  # of any number in a configuration
_COUNTED = ("layers", "num_blocks", "num_res_blocks", "depth")  # each builds modules
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

# what a network's constructor raises on numbers that do not make one
_NOT_BUILT = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)


def need(name: str) -> ModuleType:
    r"""
    Import a library of the extra ``diffusers``.

    :param str name: module.
    :return: (module) the module.
    :raises ImportError: if it is not installed; the message says how to.
    """
    try:
        return import_module(name)
    except ImportError as error:
        msg = (
            f"this model needs {name.split('.')[0]}, which could not be imported "
            f"({error}). Install the extra: pip install 'deepinv-lvtino[diffusers]'"
        )
        raise ImportError(msg) from error


def is_file_name(source: Source) -> bool:
    r"""
    Whether a source names a file of weights rather than a folder or repository.

    :param str, pathlib.Path source: the source.
    :return: (bool) whether it does.
    """
    return str(source).lower().endswith(_FILES)


def locate(
    source: Source,
    patterns: Sequence[str] = ("*",),
    *,
    revision: str | None = None,
    cache_dir: Source | None = None,
    local_files_only: bool = False,
) -> Path:
    r"""
    Local path of a source, fetched from the Hub if it is not one.

    Fetching resumes, and respects ``HF_HUB_OFFLINE`` and ``HF_HOME``.

    :param str, pathlib.Path source: local file or folder; or a repository
        ``'owner/name'``; or a file in one, ``'owner/name/path/to/file.pt'``.
    :param Sequence[str] patterns: files to fetch of a repository.
    :param str revision: branch, tag or commit on the Hub; the main branch by default.
    :param str, pathlib.Path cache_dir: cache of the Hub; its default place by default.
    :param bool local_files_only: use only what the cache holds.
    :return: (pathlib.Path) file or folder.
    :raises FileNotFoundError: if there is no such path and no such repository name, or the
        Hub cannot provide it.
    """
    path = Path(source)
    if path.exists():
        return path
    pieces = str(source).split("/")
    if len(pieces) < 2 or not all(pieces) or pieces[0] in (".", "..", "~"):
        msg = (
            f"{source} does not exist. Give a file, a folder, or a repository of the "
            "Hugging Face Hub, such as 'Wan-AI/Wan2.1-T2V-1.3B-Diffusers'."
        )
        raise FileNotFoundError(msg)
    repo, inside = "/".join(pieces[:2]), "/".join(pieces[2:])
    if inside:
        patterns = (inside,) if is_file_name(inside) else (f"{inside}/*",)
    try:
        folder = fetch(
            repo,
            patterns,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )
    except FileNotFoundError as error:
        msg = (
            f"{source} is no local path, and the Hugging Face Hub cannot provide it "
            f"({error}). Fetch it beforehand with `deepinv-lvtino download`, or give a "
            "local folder."
        )
        raise FileNotFoundError(msg) from error
    found = folder / inside if inside else folder
    if not found.exists():
        msg = (
            f"{repo} holds no {inside} (revision {revision or 'main'}). Check the name, or "
            "fetch it if only the cache may be used."
        )
        raise FileNotFoundError(msg)
    return found


def fetch(
    repository: str,
    patterns: Sequence[str],
    *,
    revision: str | None = None,
    cache_dir: Source | None = None,
    local_dir: Source | None = None,
    local_files_only: bool = False,
) -> Path:
    r"""
    Fetch files of a repository of the Hub, or find them in its cache.

    :param str repository: ``'owner/name'``.
    :param Sequence[str] patterns: the files.
    :param str revision: branch, tag or commit; the main branch by default.
    :param str, pathlib.Path cache_dir: cache of the Hub; its default place by default.
    :param str, pathlib.Path local_dir: folder to write to instead of the cache.
    :param bool local_files_only: use only what is there already.
    :return: (pathlib.Path) the folder that holds them.
    :raises FileNotFoundError: if the Hub cannot provide them; the message is its reason.
    """
    hub = need("huggingface_hub")
    # connections that break off are errors of its HTTP library, which has changed
    transport = getattr(hub.errors, "HTTPError", OSError)
    try:
        found = hub.snapshot_download(
            repository,
            revision=revision,
            allow_patterns=list(patterns),
            cache_dir=cache_dir,
            local_dir=local_dir,
            local_files_only=local_files_only,
        )
    except (OSError, ValueError, transport) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FileNotFoundError(reason) from error
    return Path(found)


def lora_or_network(path: Path) -> tuple[Path, bool]:
    r"""
    Whether weights are those of a network, or low-rank changes (LoRA).

    :param pathlib.Path path: file, or folder in the layout of diffusers.
    :return: (tuple[pathlib.Path, bool]) the path, that of the file for a folder with a
        LoRA, and whether it is one.
    """
    if (path / _LORA_FILE).is_file():
        path = path / _LORA_FILE
    return path, path.is_file() and is_lora(read_file(path))


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


def read_config(folder: Source) -> dict[str, Any]:
    r"""
    Configuration of a network in the layout of diffusers.

    :param str, pathlib.Path folder: folder with ``config.json``.
    :return: (dict[str, Any]) the configuration.
    :raises FileNotFoundError: if there is none.
    :raises ValueError: if it is none, or a number in it is out of all bounds.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        msg = f"{path} does not exist; expected a folder in the layout of diffusers."
        raise FileNotFoundError(msg)
    return read_json(path, table(_entry))


def build(model_class: Any, config: Source | Mapping[str, Any]) -> nn.Module:
    r"""
    A network of diffusers without memory for its weights.

    :param model_class: its class.
    :param dict config: its configuration, or a folder with ``config.json``.
    :return: (torch.nn.Module) the network, parameters on the ``meta`` device.
    :raises FileNotFoundError: if there is no configuration.
    :raises ValueError: if it is of another class, describes no network of it, or one
        larger than any there is.
    """
    source: Any = "the configuration"
    if isinstance(config, Mapping):
        settings = dict(config)
    else:
        settings, source = read_config(config), Path(config) / "config.json"
        name = settings.get("_class_name", model_class.__name__)
        if name != model_class.__name__:
            path = Path(config) / "config.json"
            msg = f"{path} describes a {name}; expected a {model_class.__name__}."
            raise ValueError(msg)
    try:
        _check_size(source, model_class, settings)
        with parameters_on_meta():
            return model_class.from_config(settings).eval()
    except TooLarge:
        raise
    except _NOT_BUILT as error:
        msg = (
            f"{source} does not describe a {model_class.__name__} "
            f"({reason_of(error)}). Give the base model's own config.json."
        )
        raise ValueError(msg) from error


class TooLarge(ValueError):
    r"""A configuration asks for more than any published network has."""


def _entry(name: str, value: Any) -> None:
    """Check an entry of a configuration: numbers bounded, nothing deep."""
    if isinstance(value, bool) or value is None:
        return
    if isinstance(value, str):
        text()(name, value)
    elif isinstance(value, list):
        listing(_entry, 4096)(name, value)
    elif isinstance(value, dict):
        table(_entry)(name, value)
    elif isinstance(value, int):
        counted = any(word in name for word in _COUNTED)
        integer(-_MOST, 1024 if counted else _MOST)(name, value)
    else:
        number(-1e12, 1e12)(name, value)


def _check_size(source: Any, model_class: Any, settings: dict[str, Any]) -> None:
    """Refuse a configuration of more weights or tables than any network has."""
    for name, value in settings.items():
        try:
            _entry(name, value)
        except SchemaError as error:
            msg = f"{source}: {error}"
            raise TooLarge(msg) from error
    with torch.device("meta"):  # nothing is allocated
        network = model_class.from_config(settings)
    parameters = [p.numel() for p in network.parameters()]
    # what is no parameter is allocated: buffers, and tensors kept as attributes
    tables = [b.numel() * b.element_size() for b in network.buffers()] + [
        t.numel() * t.element_size()
        for module in network.modules()
        for t in vars(module).values()
        if isinstance(t, Tensor)
    ]
    for what, found, most in (
        ("weights", sum(parameters), MOST_WEIGHTS),
        ("weights in one layer", max(parameters, default=0), MOST_IN_A_LAYER),
        ("bytes of tables (rotary positions and the like)", sum(tables), MOST_TABLES),
    ):
        if found > most:
            msg = (
                f"{source} asks for {found} {what}; the largest networks have fewer than "
                f"{most}. Give the configuration that was published with the weights."
            )
            raise TooLarge(msg)


def fill(
    module: nn.Module, weights: Weights, *, source: Source, dtype: torch.dtype | None
) -> nn.Module:
    r"""
    Give a network its weights; each name has to fit.

    :param torch.nn.Module module: network, its parameters on the ``meta`` device.
    :param dict[str, torch.Tensor] weights: the weights; emptied on the way.
    :param str, pathlib.Path source: where they are from, for the message.
    :param torch.dtype dtype: dtype of floating-point weights (those that diffusers keeps
        in single precision excepted); as they are by default.
    :return: (torch.nn.Module) the network, frozen.
    :raises ValueError: if names or shapes differ; the message lists them.
    """
    check_names(module, weights, source)
    ready: Weights = {}
    single = set(getattr(module, "_keep_in_fp32_modules", None) or ())
    for name in list(weights):
        tensor = weights.pop(name)
        if dtype is not None and tensor.is_floating_point():
            keep = not single.isdisjoint(name.split("."))
            tensor = tensor.to(torch.float32 if keep else dtype)
        ready[name] = tensor
    module.load_state_dict(ready, strict=True, assign=True)
    return module.eval().requires_grad_(False)


def check_names(module: nn.Module, weights: Weights, source: Source) -> None:
    r"""
    Check that weights are those of a network, no more and no fewer.

    :param torch.nn.Module module: the network.
    :param dict[str, torch.Tensor] weights: the weights.
    :param str, pathlib.Path source: where they are from, for the message.
    :raises ValueError: if names or shapes differ; the message lists them.
    """
    expected = {name: tuple(t.shape) for name, t in module.state_dict().items()}
    missing = [name for name in expected if name not in weights]
    unexpected = [name for name in weights if name not in expected]
    shapes = [
        f"{name} {tuple(weights[name].shape)} instead of {shape}"
        for name, shape in expected.items()
        if name in weights and tuple(weights[name].shape) != shape
    ]
    problems = [
        _listed(title, names)
        for title, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", shapes),
        )
        if names
    ]
    if problems:
        msg = (
            f"{source} does not fit {type(module).__name__}: {'; '.join(problems)}. Give "
            "the checkpoint and the base model that belong together."
        )
        raise ValueError(msg)


def _listed(title: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} {title}: {', '.join(names[:_SHOWN])}{more}"


def without_prefix(weights: Weights, prefixes: Iterable[str]) -> Weights:
    r"""
    Remove the first prefix that all names have.

    :param dict[str, torch.Tensor] weights: the weights.
    :param Iterable[str] prefixes: prefixes to look for, in order.
    :return: (dict[str, torch.Tensor]) the weights.
    """
    for prefix in prefixes:
        if weights and all(name.startswith(prefix) for name in weights):
            return {name.removeprefix(prefix): t for name, t in weights.items()}
    return weights


_ROLES = {
    ".lora_A.weight": "down",
    ".lora_A.default.weight": "down",
    ".lora_down.weight": "down",
    ".lora.down.weight": "down",
    ".lora_B.weight": "up",
    ".lora_B.default.weight": "up",
    ".lora_up.weight": "up",
    ".lora.up.weight": "up",
    ".alpha": "alpha",
    ".diff": "weight",
    ".lora_B.bias": "bias",
    ".diff_b": "bias",
    ".diff_m": "modulation",
}


def is_lora(names: Iterable[str]) -> bool:
    r"""
    Whether weights are low-rank changes of others (LoRA).

    :param Iterable[str] names: their names.
    :return: (bool) whether they are.
    """
    return any(_role(name)[1] in ("down", "up") for name in names)


def _role(name: str) -> tuple[str, str | None]:
    """Layer that a name of a LoRA is about, and what it is for that layer."""
    for suffix, role in _ROLES.items():
        if name.endswith(suffix):
            return name.removesuffix(suffix), role
    return name, None


def merge_lora(
    weights: Weights,
    lora: Weights,
    layers: Callable[[list[str]], Mapping[str, str]],
    *,
    scale: float = 1.0,
    source: Source = "the LoRA",
) -> Weights:
    r"""
    Add low-rank changes to the weights of their base model.

    .. math::

        W \leftarrow W + \text{scale} \, \frac{\alpha}{r} \, B A

    with :math:`\alpha = r` where a file does not say otherwise. Full differences
    (``.diff``, ``.diff_b``, ``.diff_m``) are added as they are. Merged once, they cost
    nothing later.

    :param dict[str, torch.Tensor] weights: weights of the base model; changed in place.
    :param dict[str, torch.Tensor] lora: the changes.
    :param Callable layers: maps the file's names of layers to the base model's.
    :param float scale: strength.
    :param str, pathlib.Path source: where the changes are from, for the message.
    :return: (dict[str, torch.Tensor]) the weights.
    :raises ValueError: if a name is not understood, has no counterpart, or a shape does not
        fit; the message lists them.
    """
    changes: dict[str, Weights] = {}
    wrong: list[str] = []
    for name, tensor in lora.items():
        layer, role = _role(name)
        if role is None:
            wrong.append(name)
        else:
            changes.setdefault(layer, {})[role] = tensor
    names = layers(list(changes))
    for layer, parts in changes.items():
        target = names.get(layer, layer)
        wrong += _merge_layer(weights, target, layer, parts, scale)
    if wrong:
        msg = (
            f"{source} does not fit the base model: {_listed('unexpected', wrong)}. Give "
            "the LoRA and the base model that belong together."
        )
        raise ValueError(msg)
    return weights


def _merge_layer(
    weights: Weights, target: str, layer: str, parts: Weights, scale: float
) -> list[str]:
    """Change one layer; returns what does not fit."""
    wrong = []
    matrix, bias = f"{target}.weight", f"{target}.bias"
    if target in weights:  # a parameter of its own, such as a modulation
        matrix = target
    if ("down" in parts) != ("up" in parts) or set(parts) == {"alpha"}:
        wrong.append(f"{layer} (one factor of two is missing)")
    elif "down" in parts:
        down, up = parts["down"].float(), parts["up"].float()
        rank = len(down)
        strength = scale * float(parts.get("alpha", torch.tensor(rank))) / rank
        # convolutions: the first factor has their kernel, the second is 1x1
        product = strength * (up.flatten(1) @ down.flatten(1))
        wrong += _add(weights, matrix, product, layer)
    if "weight" in parts:
        wrong += _add(weights, matrix, scale * parts["weight"].float(), layer)
    if "bias" in parts:
        wrong += _add(weights, bias, scale * parts["bias"].float(), layer)
    if "modulation" in parts:
        table = f"{target}.scale_shift_table".removeprefix("head.")
        wrong += _add(weights, table, scale * parts["modulation"].float(), layer)
    return wrong


def _add(weights: Weights, name: str, change: Tensor, layer: str) -> list[str]:
    if name not in weights:
        return [layer]
    old = weights[name]
    if old.numel() != change.numel() or len(old) != len(change):
        return [f"{layer} {tuple(change.shape)} for {tuple(old.shape)}"]
    weights[name] = (old.float() + change.reshape(old.shape)).to(old.dtype)
    return []
