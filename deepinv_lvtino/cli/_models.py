r"""The published models: their weights, and what they need."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from deepinv_lvtino.cli._errors import UserError, user_errors
from deepinv_lvtino.models import (
    SDXLConsistencyModel,
    Tiles,
    WanConsistencyModel,
    estimate_memory,
)
from deepinv_lvtino.models._checkpoints import need
from deepinv_lvtino.models.sdxl import (
    SDXL_AUTOENCODER,
    SDXL_AUTOENCODER_FILES,
    SDXL_CHECKPOINT,
    SDXL_PROMPT,
    SDXL_REPOSITORY,
    sdxl_files,
)
from deepinv_lvtino.models.wan import (
    WAN_CHECKPOINT,
    WAN_PROMPT,
    WAN_REPOSITORY,
    wan_files,
)

_GIB = 2**30


def _one_file(path: str) -> tuple[str, list[str]]:
    pieces = path.split("/", 2)
    return "/".join(pieces[:2]), [pieces[2]]


#: What `download` fetches: repositories, and files in them.
WEIGHTS = {
    "wan": dict(
        [
            (WAN_REPOSITORY, wan_files(transformer=False, text=True)),
            _one_file(WAN_CHECKPOINT),
        ]
    ),
    "sdxl": dict(
        [
            (SDXL_REPOSITORY, sdxl_files(unet=False, text=True, autoencoder=False)),
            _one_file(SDXL_CHECKPOINT),
            (SDXL_AUTOENCODER, list(SDXL_AUTOENCODER_FILES)),
        ]
    ),
}

_OFFLOAD = {"auto": "auto", "always": True, "never": False}


def library(name: str) -> Any:
    """A library of the extra ``diffusers``, or a mistake of the user."""
    try:
        return need(name)
    except ImportError as error:
        raise UserError(str(error)) from error


def download(arguments: argparse.Namespace) -> None:
    """Fetch the weights of published models."""
    hub = library("huggingface_hub")
    revisions = dict(arguments.revision or ())
    wanted = {
        repository: files
        for name in arguments.models or list(WEIGHTS)
        for repository, files in WEIGHTS[name].items()
    }
    unknown = sorted(set(revisions) - set(wanted))
    if unknown:
        msg = (
            f"--revision names {', '.join(unknown)}; the repositories to fetch are "
            f"{', '.join(wanted)}."
        )
        raise UserError(msg)
    for repository, files in wanted.items():
        print(f"{repository}: {', '.join(files)}", flush=True)
        target = None if arguments.to is None else Path(arguments.to) / repository
        try:
            found = hub.snapshot_download(
                repository,
                revision=revisions.get(repository),
                allow_patterns=files,
                local_dir=target,
                local_files_only=arguments.offline,
            )
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            msg = (
                f"{repository} cannot be fetched: {reason} What has arrived is kept; the "
                "same command goes on from there."
            )
            raise UserError(msg) from error
        # the cache names its folders after the commit
        commit = "" if target else f" (commit {Path(found).name})"
        print(f"  {found}{commit}", flush=True)


def published_models(
    arguments: argparse.Namespace, device: torch.device
) -> tuple[WanConsistencyModel | None, SDXLConsistencyModel | None]:
    """The video and the image model that ``restore --model wan`` asks for."""
    options: dict[str, Any] = {
        "device": device,
        "offload": _OFFLOAD[arguments.offload],
        "local_files_only": arguments.offline,
    }
    if arguments.tile is not None:
        with user_errors():
            options["tiling"] = Tiles(arguments.tile, min(128, arguments.tile // 4))
    library("diffusers")
    library("transformers")
    root = arguments.weights

    def source(name: str) -> str:
        return name if root is None else str(Path(root) / name)

    video, image = None, None
    with user_errors():
        if arguments.eta != 0:
            video = WanConsistencyModel.from_pretrained(
                source(WAN_REPOSITORY),
                source(WAN_CHECKPOINT),
                prompt=arguments.prompt or WAN_PROMPT,
                **options,
            )
        if arguments.eta != 1:
            if arguments.frame_batch is not None:
                options["frame_batch"] = arguments.frame_batch
            image = SDXLConsistencyModel.from_pretrained(
                source(SDXL_REPOSITORY),
                source(SDXL_CHECKPOINT),
                autoencoder=source(SDXL_AUTOENCODER),
                prompt=arguments.prompt or SDXL_PROMPT,
                **options,
            )
    return video, image


def in_words(message: str) -> str:
    """What to change when memory runs out, as options of the command line."""
    for setting, option in (
        ("`frame_batch=1`", "--frame-batch 1"),
        ("`offload=True`", "--offload always"),
        ("`tiling=Tiles(side=...)`", "--tile"),
    ):
        message = message.replace(setting, option)
    return message


def print_memory(num_frames: int, height: int, width: int) -> None:
    """Table of the memory that the published models need."""
    library("diffusers")
    library("transformers")
    print(
        f"memory for {num_frames} frames of {width}x{height} in half precision, in GiB, "
        "without what the device's libraries take"
    )
    columns = ("weights", "prompt", "encode", "jump", "decode")
    print(f"  {'':<6}" + "".join(f"{name:>9}" for name in columns))
    estimates = {
        name: estimate_memory(name, num_frames, height, width) for name in WEIGHTS
    }
    for name, estimate in estimates.items():
        values = (
            sum(estimate.weights.values()),
            estimate.prompt,
            *(estimate.activations[key] for key in ("encode", "denoise", "decode")),
        )
        print(f"  {name:<6}" + "".join(f"{value / _GIB:>9.1f}" for value in values))
    weights = sum(sum(e.weights.values()) for e in estimates.values())
    activations = max(max(e.activations.values()) for e in estimates.values())
    prompt = max(e.prompt for e in estimates.values())
    least = max(e.offloaded for e in estimates.values())
    print(
        f"  both models: {(weights + activations) / _GIB:.1f} with --offload never, "
        f"{least / _GIB:.1f} with --offload always; before the run, once, "
        f"{prompt / _GIB:.1f} for the prompt"
    )
