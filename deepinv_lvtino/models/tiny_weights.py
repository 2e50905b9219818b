r"""The embedded models by name, and files of their weights."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepinv_lvtino._schema import (
    SchemaError,
    boolean,
    integer,
    listing,
    parse,
    record,
)
from deepinv_lvtino._staging import Stage
from deepinv_lvtino.models._networks import check_names
from deepinv_lvtino.models.tiny import TinyConsistencyModel
from deepinv_lvtino.models.tiny_network import TinyConfig, TinyNetwork

# what a file may say: more would be no tiny network
_SIZES = listing(integer(1, 4096), 8, shortest=1)

_CONFIG = record(
    {
        "channels": _SIZES,
        "blocks": listing(integer(1, 64), 8, shortest=1),
        "embedding": integer(1, 65536),
        "temporal": boolean,
    }
)


def load_tiny(path: str | Path, **kwargs: Any) -> TinyConsistencyModel:
    r"""
    Load a model from a safetensors file written by :func:`save_tiny`.

    :param str, pathlib.Path path: the file; its metadata holds the sizes.
    :param kwargs: further arguments of :class:`TinyConsistencyModel`.
    :return: (TinyConsistencyModel) the model, in evaluation mode, weights in float32.
    :raises ValueError: if the file was not written by :func:`save_tiny`, or is damaged.
    """
    from safetensors import SafetensorError, safe_open

    name = Path(path).name
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if "tiny_config" not in metadata:
                msg = (
                    f"`path` must be a file written by `save_tiny`; {name} has no "
                    "`tiny_config` in its metadata."
                )
                raise ValueError(msg)
            config = read_config(f"`path`: {name}", parse_config(metadata, name))
            state = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        msg = (
            f"`path` must be a file written by `save_tiny`; {name} is not a safetensors "
            f"file ({error}). It may be incomplete: save or copy it again."
        )
        raise ValueError(msg) from error
    network = filled_network(config, state, source=path)
    model = TinyConsistencyModel(network, **kwargs)
    return model.eval().requires_grad_(False)


def parse_config(metadata: dict[str, str], name: str) -> Any:
    r"""
    The sizes that a file's metadata hold, not yet checked.

    :param dict metadata: the metadata.
    :param str name: name of the file, for the message.
    :return: what ``tiny_config`` says.
    :raises ValueError: if it is not JSON.
    """
    try:
        return parse(metadata["tiny_config"])
    except SchemaError as error:
        msg = f"`path`: `tiny_config` of {name} cannot be read: {error}"
        raise ValueError(msg) from error


def read_config(source: str, config: Any) -> TinyConfig:
    r"""
    Sizes that a file holds, checked before anything of that size is built.

    :param str source: where they are from, for the message.
    :param dict config: the sizes.
    :return: (:class:`TinyConfig`) the same.
    :raises ValueError: if one is missing, of another type or too large.
    """
    try:
        _CONFIG("tiny_config", config)
    except SchemaError as error:
        msg = f"{source}: {error} Save the model again with `save_tiny`."
        raise ValueError(msg) from error
    return TinyConfig(
        channels=tuple(config["channels"]),
        blocks=tuple(config["blocks"]),
        embedding=config["embedding"],
        temporal=config["temporal"],
    )


def filled_network(
    config: TinyConfig, state: dict[str, Tensor], *, source: str | Path
) -> TinyNetwork:
    r"""
    A network with given weights; none is built before it is known that they fit.

    :param TinyConfig config: sizes.
    :param dict[str, torch.Tensor] state: weights by name.
    :param str, pathlib.Path source: where they are from, for the message.
    :return: (:class:`TinyNetwork`) the network.
    :raises ValueError: if names or shapes differ; the message lists them.
    """
    with torch.device("meta"):
        check_names(TinyNetwork(config), state, source)
    network = TinyNetwork(config)
    network.load_state_dict(state)
    return network


def save_tiny(
    network: TinyNetwork, path: str | Path, metadata: dict[str, str] | None = None
) -> None:
    r"""
    Save a network for :func:`load_tiny`, in float16.

    :param TinyNetwork network: the network.
    :param str, pathlib.Path path: safetensors file to write; replaced at once when the
        writing has succeeded.
    :param dict metadata: further text to store (how it was trained).
    """
    from safetensors.torch import save_file

    path = Path(path)
    state = {
        key: value.detach().cpu().half().contiguous()
        for key, value in network.state_dict().items()
    }
    text = {"tiny_config": json.dumps(asdict(network.config)), **(metadata or {})}
    with Stage([path]) as stage:
        save_file(state, stage.path(path), metadata=text)
        stage.commit()


def tiny_video(**kwargs: Any) -> TinyConsistencyModel:
    r"""
    The embedded video model: the default video prior of :class:`deepinv_lvtino.LVTINO`.

    Rectified-flow time, 25 frames of 192×320 in about a second on two cores. Trained on
    procedural clips only; see the model card in the user guide.

    :param kwargs: arguments of :class:`TinyConsistencyModel` (``schedule``,
        ``precision``).
    :return: (TinyConsistencyModel) the model.
    """
    return _embedded("tiny_video.safetensors", kwargs)


def tiny_image(**kwargs: Any) -> TinyConsistencyModel:
    r"""
    The embedded image model: the default image prior of :class:`deepinv_lvtino.LVTINO`.

    Variance-preserving time, frame by frame. Trained on procedural clips only; see the
    model card in the user guide.

    :param kwargs: arguments of :class:`TinyConsistencyModel` (``schedule``,
        ``precision``).
    :return: (TinyConsistencyModel) the model.
    """
    return _embedded("tiny_image.safetensors", kwargs)


def _embedded(name: str, kwargs: dict[str, Any]) -> TinyConsistencyModel:
    with as_file(files("deepinv_lvtino") / "models" / "weights" / name) as path:
        return load_tiny(path, **kwargs)
