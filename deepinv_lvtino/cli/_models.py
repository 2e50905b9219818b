r"""The published models: their weights, and what they need."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from deepinv_lvtino._signals import Interrupted
from deepinv_lvtino.cli._errors import UserError, user_errors
from deepinv_lvtino.models import (
    SDXLConsistencyModel,
    Tiles,
    WanConsistencyModel,
    estimate_memory,
)
from deepinv_lvtino.models._hub import fetch, need
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
_SMALLEST_TILE = 64


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


def _files(models: list[str]) -> dict[str, list[str]]:
    return {
        repository: files
        for name in models
        for repository, files in WEIGHTS[name].items()
    }


def _revisions(arguments: argparse.Namespace, wanted: dict[str, list[str]]) -> dict:
    revisions = dict(arguments.revision or ())
    unknown = sorted(set(revisions) - set(wanted))
    if unknown:
        msg = (
            f"--revision names {', '.join(unknown)}; the repositories in use are "
            f"{', '.join(wanted)}."
        )
        raise UserError(msg)
    return revisions


def download(arguments: argparse.Namespace) -> None:
    """Fetch the weights of published models."""
    library("huggingface_hub")
    wanted = _files(arguments.models or list(WEIGHTS))
    revisions = _revisions(arguments, wanted)
    try:
        _fetch_all(arguments, wanted, revisions)
    except KeyboardInterrupt as stop:
        state = "what has arrived is kept: the same command goes on from there"
        raise Interrupted.of(stop, state) from stop


def _fetch_all(
    arguments: argparse.Namespace, wanted: dict[str, list[str]], revisions: dict
) -> None:
    for repository, files in wanted.items():
        print(f"{repository}: {', '.join(files)}", flush=True)
        target = None if arguments.to is None else Path(arguments.to) / repository
        try:
            found = fetch(
                repository,
                files,
                revision=revisions.get(repository),
                local_dir=target,
                local_files_only=arguments.offline,
            )
        except OSError as error:
            hint = (
                "Run it without --offline to fetch what is missing."
                if arguments.offline
                else "What has arrived is kept: the same command goes on from there."
            )
            msg = f"{repository} cannot be fetched ({error}). {hint}"
            raise UserError(msg) from error
        _check_complete(repository, found, files)
        # the cache names its folders after the commit
        commit = "" if target else f" (commit {found.name})"
        print(f"  {found}{commit}", flush=True)


def _check_complete(repository: str, folder: Path, files: list[str]) -> None:
    """Refuse a folder without one of the files: names may have changed since."""
    missing = [name for name in files if not any(folder.glob(name))]
    if missing:
        msg = (
            f"{repository} holds no {', '.join(missing)} in this revision; name another "
            f"one with --revision {repository}=COMMIT."
        )
        raise UserError(msg)


def check_model(arguments: argparse.Namespace) -> None:
    """Refuse options that cannot be followed, before anything is read."""
    if arguments.model == "embedded":
        for name in (
            "weights",
            "prompt",
            "frame_batch",
            "tile",
            "decoder",
            "dtype",
            "revision",
        ):
            if getattr(arguments, name) is not None:
                option = "--" + name.replace("_", "-")
                msg = f"{option} is for --model wan; the embedded models have no such."
                raise UserError(msg)
        return
    for name in ("diffusers", "transformers"):
        library(name)
    _tiles(arguments)
    if arguments.decoder is not None and "wan" not in _used(arguments):
        msg = "--decoder is for the video model, which --eta 0 leaves out."
        raise UserError(msg)
    revisions = _revisions(arguments, _files(_used(arguments)))
    if arguments.weights is not None:
        if revisions:
            msg = "--revision is for the Hub; with --weights the folder says it all."
            raise UserError(msg)
        for repository in _files(_used(arguments)):
            _local(arguments, repository)


def _used(arguments: argparse.Namespace) -> list[str]:
    """Models that have a weight other than zero."""
    unused = {0: "wan", 1: "sdxl"}.get(arguments.eta)
    return [name for name in WEIGHTS if name != unused]


def _tiles(arguments: argparse.Namespace) -> Tiles | str:
    if arguments.tile is None:
        return "auto"
    if arguments.tile < _SMALLEST_TILE:
        msg = f"--tile must be {_SMALLEST_TILE} or more; got {arguments.tile}."
        raise UserError(msg)
    return Tiles(arguments.tile, min(128, arguments.tile // 4))


def published_models(
    arguments: argparse.Namespace, device: torch.device
) -> tuple[WanConsistencyModel | None, SDXLConsistencyModel | None]:
    """The video and the image model that ``restore --model wan`` asks for."""
    options: dict[str, Any] = {
        "device": device,
        "offload": _OFFLOAD[arguments.offload],
        "local_files_only": arguments.offline,
        "tiling": _tiles(arguments),
    }
    if arguments.dtype is not None:
        options["dtype"] = getattr(torch, arguments.dtype)
    used = _used(arguments)
    revisions = _revisions(arguments, _files(used))

    def source(name: str) -> tuple[str, str | None]:
        repository = "/".join(name.split("/")[:2])
        return _local(arguments, name), revisions.get(repository)

    video, image = None, None
    with user_errors():
        if "wan" in used:
            base, revision = source(WAN_REPOSITORY)
            checkpoint, checkpoint_revision = source(WAN_CHECKPOINT)
            video = WanConsistencyModel.from_pretrained(
                base,
                checkpoint,
                prompt=arguments.prompt or WAN_PROMPT,
                revision=revision,
                checkpoint_revision=checkpoint_revision,
                decoder=arguments.decoder,
                **options,
            )
        if "sdxl" in used:
            if arguments.frame_batch is not None:
                options["frame_batch"] = arguments.frame_batch
            base, revision = source(SDXL_REPOSITORY)
            checkpoint, checkpoint_revision = source(SDXL_CHECKPOINT)
            autoencoder, autoencoder_revision = source(SDXL_AUTOENCODER)
            image = SDXLConsistencyModel.from_pretrained(
                base,
                checkpoint,
                autoencoder=autoencoder,
                prompt=arguments.prompt or SDXL_PROMPT,
                revision=revision,
                checkpoint_revision=checkpoint_revision,
                autoencoder_revision=autoencoder_revision,
                **options,
            )
    return video, image


def _local(arguments: argparse.Namespace, name: str) -> str:
    """A repository or a file in one; with --weights the same below that folder."""
    if arguments.weights is None:
        return name
    path = Path(arguments.weights) / name
    if not path.exists():
        msg = (
            f"--weights {arguments.weights} lacks {name}; `deepinv-lvtino download --to "
            f"{arguments.weights}` puts it there."
        )
        raise UserError(msg)
    return str(path.resolve())


def weights_entry(
    arguments: argparse.Namespace, video_model: Any = None
) -> dict[str, Any]:
    """What the report says about the weights: where they are from, and their commits."""
    wanted = _files(_used(arguments))
    revisions = dict(arguments.revision or ())
    commits: dict[str, str | None] = dict.fromkeys(wanted)
    if arguments.weights is None:
        for repository, files in wanted.items():
            revision = revisions.get(repository)
            found = fetch(repository, files, revision=revision, local_files_only=True)
            commits[repository] = found.name
    entry = {
        "folder": arguments.weights,
        "commits": commits,
        "prompt": arguments.prompt,
        "decoder": arguments.decoder,
    }
    taken = getattr(video_model, "taken", None)
    return entry | ({"video": taken} if taken else {})


def in_words(message: str) -> str:
    """What to change when memory runs out, as options of the command line."""
    for setting, option in (
        ("`frame_batch=1`", "--frame-batch 1"),
        ("`offload=True`", "--offload always"),
        ("`tiling=Tiles(side=...)`", "--tile"),
        ("`dtype=torch.bfloat16`", "--dtype bfloat16"),
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
        f"{prompt / _GIB:.1f} for the prompt (on the CPU if it does not fit)"
    )
