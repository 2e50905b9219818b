r"""Networks of diffusers, built from configurations and filled with weights by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepinv_lvtino._schema import (
    SchemaError,
    integer,
    listing,
    number,
    read_json,
    table,
    text,
)
from deepinv_lvtino.models._memory import parameters_on_meta
from deepinv_lvtino.models._weight_files import Source, Weights, listed, reason_of

#: Beyond what a configuration may ask for: weights, weights in one layer, and bytes of
#: tables that are no weights.
MOST_WEIGHTS, MOST_IN_A_LAYER, MOST_TABLES = 10**11, 2**32, 2**30

_MOST = 2**31  # of any number in a configuration
_COUNTED = ("layers", "num_blocks", "num_res_blocks", "depth")  # each builds modules

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
        listed(title, names)
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
