r"""``python -m deepinv_lvtino.training``: pool, denoise, consistency, export."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from deepinv_lvtino.models.tiny import TinyConfig, TinyNetwork, load_tiny, save_tiny
from deepinv_lvtino.training.data import PoolClips
from deepinv_lvtino.training.loop import Trainer, TrainingOptions


def main(arguments: list[str] | None = None) -> None:
    """Run one command."""
    options = _parser().parse_args(arguments)
    options.run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deepinv_lvtino.training",
        description="Train the embedded video and image models on procedural clips.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    pool = commands.add_parser("pool", help="render a pool of training clips")
    pool.add_argument("output", type=Path, help="file to write (.npy)")
    pool.add_argument("--clips", type=int, default=4000)
    pool.add_argument("--frames", type=int, default=12)
    pool.add_argument("--size", type=int, default=96)
    pool.add_argument("--seed", type=int, default=0)
    pool.add_argument("--workers", type=int, default=2)
    pool.set_defaults(run=_pool)

    for stage, text in (
        ("denoise", "stage 1: train the denoiser"),
        ("consistency", "stage 2: distil the denoiser's probability flow"),
    ):
        train = commands.add_parser(stage, help=text)
        train.add_argument("folder", type=Path, help="checkpoint and loss curve")
        train.add_argument("--pool", type=Path, nargs="+", required=True)
        train.add_argument("--kind", choices=("video", "image"), default="video")
        train.add_argument(
            "--start",
            type=Path,
            help="weights to start from (.safetensors); an image model may start a "
            "video model",
        )
        train.add_argument(
            "--teacher",
            type=Path,
            help="denoiser to distil (.safetensors); by default that of --start",
        )
        train.add_argument("--channels", type=int, nargs="+", default=[48, 112, 160])
        train.add_argument("--blocks", type=int, nargs="+", default=[1, 2, 3])
        train.add_argument("--batch", type=int, default=8)
        train.add_argument("--frames", type=int, default=8, help="of a clip's crop")
        train.add_argument("--size", type=int, default=64, help="of a crop, in pixels")
        train.add_argument("--minutes", type=float, default=60.0)
        train.add_argument("--steps", type=int, default=0, help="0: by the clock")
        train.add_argument("--rate", type=float, default=1e-2)
        train.add_argument("--adam-rate", type=float, default=6e-3)
        train.add_argument("--decay", type=float, default=0.998, help="of the average")
        train.add_argument("--seed", type=int, default=0)
        train.add_argument("--device", default="cpu")
        train.add_argument("--compile", action="store_true")
        train.set_defaults(run=_train, stage=stage)

    export = commands.add_parser("export", help="write a checkpoint's average weights")
    export.add_argument("folder", type=Path)
    export.add_argument("output", type=Path, help="file to write (.safetensors)")
    export.set_defaults(run=_export)
    return parser


def _pool(options: argparse.Namespace) -> None:
    from deepinv_lvtino.datasets.dead_leaves import dead_leaves_pool

    dead_leaves_pool(
        options.output,
        num_clips=options.clips,
        num_frames=options.frames,
        height=options.size,
        width=options.size,
        seed=options.seed,
        workers=options.workers,
    )


def _train(options: argparse.Namespace) -> None:
    torch.manual_seed(options.seed)
    video = options.kind == "video"
    network = TinyNetwork(
        TinyConfig(tuple(options.channels), tuple(options.blocks), temporal=video)
    )
    if options.start is not None:
        start_from(network, load_tiny(options.start).network)
    elif options.stage == "consistency":
        msg = "`--start` must name the weights of stage 1 for the consistency stage."
        raise SystemExit(msg)
    teacher = None
    if options.teacher is not None:
        teacher = load_tiny(options.teacher).network.to(options.device)
    trainer = Trainer(
        network.to(options.device),
        PoolClips(
            options.pool,
            num_frames=options.frames if video else 1,
            size=options.size,
            seed=options.seed,
        ),
        options.folder,
        TrainingOptions(
            stage=options.stage,
            batch_size=options.batch,
            minutes=options.minutes,
            steps=options.steps,
            learning_rate=options.rate,
            adam_rate=options.adam_rate,
            decay=options.decay,
            seed=options.seed,
            compile=options.compile,
        ),
        teacher,
    )
    trainer.run()


def start_from(network: TinyNetwork, source: TinyNetwork) -> None:
    r"""
    Copy weights; a video network may take those of an image network.

    Its temporal convolutions, which are zero at first, then keep their start: the video
    network begins as the image network on every frame.

    :param TinyNetwork network: the network that receives them.
    :param TinyNetwork source: the network that gives them.
    :raises ValueError: if the sizes differ.
    """
    if (network.config.channels, network.config.blocks, network.config.embedding) != (
        source.config.channels,
        source.config.blocks,
        source.config.embedding,
    ):
        msg = (
            "`source` must have the sizes of `network`; got "
            f"{source.config} for {network.config}."
        )
        raise ValueError(msg)
    missing, unexpected = network.load_state_dict(source.state_dict(), strict=False)
    if unexpected or any(".temporal." not in name for name in missing):
        msg = f"`source` does not fit: missing {missing}, unexpected {unexpected}."
        raise ValueError(msg)


def _export(options: argparse.Namespace) -> None:
    state = torch.load(
        options.folder / "checkpoint.pt", map_location="cpu", weights_only=True
    )
    config = state["config"]
    network = TinyNetwork(
        TinyConfig(
            tuple(config["channels"]),
            tuple(config["blocks"]),
            config["embedding"],
            config["temporal"],
        )
    )
    network.load_state_dict(state["average"])
    training = {
        **state["options"],
        "step": state["step"],
        "minutes": round(state["seconds"] / 60, 1),
    }
    save_tiny(network, options.output, {"training": json.dumps(training)})
    print(f"{options.output}: {options.output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
