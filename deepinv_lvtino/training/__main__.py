r"""``python -m deepinv_lvtino.training``: pool, train, denoise, consistency, export."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from deepinv_lvtino.models.tiny_network import TinyConfig, TinyNetwork
from deepinv_lvtino.models.tiny_weights import (
    filled_network,
    load_tiny,
    read_config,
    save_tiny,
    tiny_image,
    tiny_video,
)
from deepinv_lvtino.training.data import PoolClips
from deepinv_lvtino.training.evaluate import held_out_pool
from deepinv_lvtino.training.footage import find_footage
from deepinv_lvtino.training.loop import Trainer, TrainingOptions, read_checkpoint
from deepinv_lvtino.training.pool import footage_pool
from deepinv_lvtino.training.run import Run, train
from deepinv_lvtino.training.start import start_from


def main(arguments: list[str] | None = None) -> None:
    """Run one command."""
    options = _parser().parse_args(arguments)
    options.run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deepinv_lvtino.training",
        description="Train the embedded video and image models.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    pool = commands.add_parser("pool", help="make a pool of training clips")
    pool.add_argument(
        "file",
        type=Path,
        nargs="?",
        help="file to write: .mkv with --footage, else .npy",
    )
    pool.add_argument("-o", "--output", type=Path, help="the same")
    pool.add_argument(
        "--footage",
        type=Path,
        help="folder of videos and photographs to cut crops out of; dead leaves alone "
        "without",
    )
    pool.add_argument(
        "--hold-out",
        nargs="+",
        metavar="PATTERN",
        help="paths in the folder to measure on and never train on, such as 'beach/*'; "
        "those of a collection with an index.json are known",
    )
    pool.add_argument("--clips", type=int, default=4000)
    pool.add_argument("--frames", type=int, default=12)
    pool.add_argument("--size", type=int, help="112 with --footage, else 96")
    pool.add_argument("--seed", type=int, default=0)
    pool.add_argument("--workers", type=int, default=2, help="for dead leaves alone")
    pool.set_defaults(run=_pool)
    _add_train(commands)

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


def _add_train(commands: Any) -> None:
    train = commands.add_parser(
        "train", help="pool to exported weights, both stages, in a budget of time"
    )
    train.add_argument("--pool", type=Path, nargs="+", required=True)
    train.add_argument(
        "--held-out",
        type=Path,
        help="clips to measure on (.npy); by default that which `pool` wrote beside the "
        "first pool",
    )
    train.add_argument("--kind", choices=("video", "image"), default="video")
    train.add_argument(
        "--stage", choices=("both", "denoise", "consistency"), default="both"
    )
    train.add_argument("--minutes", type=float, default=60.0)
    train.add_argument(
        "--share", type=float, default=0.7, help="of the time, for the first of both"
    )
    train.add_argument(
        "--init",
        help="weights to start from (.safetensors), 'random', or by default the "
        "package's own",
    )
    train.add_argument(
        "--channels",
        type=int,
        nargs="+",
        help="at each resolution; by default those of the weights to start from, which "
        "may be followed by coarser ones",
    )
    train.add_argument("--blocks", type=int, nargs="+", help="the same of the blocks")
    train.add_argument(
        "--folder", type=Path, help="checkpoints; .training/KIND by default"
    )
    train.add_argument("--batch", type=int, help="crops of 8x96x96: 4, on a GPU 32")
    train.add_argument("--frames", type=int, default=8)
    train.add_argument("--size", type=int, default=96, help="of a crop; stage 2: 2/3")
    train.add_argument(
        "--steps", type=int, default=0, help="of each stage, not minutes"
    )
    train.add_argument("--rate", type=float, default=5e-3)
    train.add_argument("--adam-rate", type=float, default=2.5e-3)
    train.add_argument("--decay", type=float, default=0.995, help="of the average")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--device", default="auto")
    train.add_argument("--compile", action="store_true")
    train.set_defaults(run=_train_all)


def _train_all(options: argparse.Namespace) -> None:
    torch.manual_seed(options.seed)
    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    held_out = options.held_out
    if held_out is None and _beside(options.pool[0]).exists():
        held_out = _beside(options.pool[0])
    if held_out is None:
        print(
            "no held-out clips: nothing is measured, weights are exported as they are"
        )
    batch = options.batch or (4 if device == "cpu" else 32)
    video = options.kind == "video"
    # an image batch sees as many frames as a video batch
    frames = 1 if video else options.frames
    settings = TrainingOptions(
        batch_size=batch * frames,
        steps=options.steps,
        learning_rate=options.rate,
        adam_rate=options.adam_rate,
        decay=options.decay,
        seed=options.seed,
        compile=options.compile,
    )
    small = max(16, options.size * 2 // 3 // 8 * 8)
    train(
        _initial(options).to(device),
        Run(
            folder=options.folder or Path(".training") / options.kind,
            pools=options.pool,
            held_out=held_out,
            stage=options.stage,
            minutes=options.minutes,
            share=options.share,
            denoise=settings,
            # points of a trajectory; crops are smaller
            consistency=replace(
                settings, stage="consistency", batch_size=3 * settings.batch_size
            ),
            crop=(options.frames, options.size),
            small_crop=(options.frames, small),
        ),
    )


def _initial(options: argparse.Namespace) -> TinyNetwork:
    video = options.kind == "video"
    if options.init == "random":
        sizes = TinyConfig()
        return TinyNetwork(
            TinyConfig(
                tuple(options.channels or sizes.channels),
                tuple(options.blocks or sizes.blocks),
                temporal=video,
            )
        )
    if options.init is None:
        model = tiny_video() if video else tiny_image()
    else:
        model = load_tiny(options.init)
    sizes = model.network.config
    network = TinyNetwork(
        replace(
            sizes,
            channels=tuple(options.channels or sizes.channels),
            blocks=tuple(options.blocks or sizes.blocks),
            temporal=video,
        )
    )
    start_from(network, model.network)
    return network.train().requires_grad_(True)


def _beside(pool: Path) -> Path:
    return pool.with_name(pool.stem + "-held-out.npy")


def _pool(options: argparse.Namespace) -> None:
    suffix, size = (".npy", 96) if options.footage is None else (".mkv", 112)
    size = size if options.size is None else options.size
    output = options.output or options.file or Path("pool" + suffix)
    if options.footage is not None:
        footage_pool(
            output,
            options.footage,
            num_clips=options.clips,
            num_frames=options.frames,
            size=size,
            hold_out=options.hold_out,
            seed=options.seed,
        )
        print(f"{output}: {output.stat().st_size / 1e6:.1f} MB")
        _, measuring = find_footage(options.footage, options.hold_out)
        if any(not one.photo for one in measuring):
            path = held_out_pool(
                _beside(output), options.footage, hold_out=options.hold_out
            )
            print(f"{path}: clips to measure on")
        return
    from deepinv_lvtino.datasets.dead_leaves import dead_leaves_pool

    dead_leaves_pool(
        output,
        num_clips=options.clips,
        num_frames=options.frames,
        height=size,
        width=size,
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
            device=options.device,
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


def _export(options: argparse.Namespace) -> None:
    path = options.folder / "checkpoint.pt"
    state = read_checkpoint(path)
    sizes = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in state["config"].items()
    }
    config = read_config(str(path), sizes)
    network = filled_network(config, state["average"], source=path)
    training = {
        **state["options"],
        "step": state["step"],
        "minutes": round(state["seconds"] / 60, 1),
    }
    save_tiny(network, options.output, {"training": json.dumps(training)})
    print(f"{options.output}: {options.output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
