r"""Pool to exported weights in one call: both stages, within a budget of time."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from deepinv_lvtino.models.tiny_network import TinyNetwork
from deepinv_lvtino.models.tiny_weights import save_tiny
from deepinv_lvtino.training.data import PoolClips
from deepinv_lvtino.training.evaluate import (
    JUMP_LEVELS,
    LEVELS,
    denoising_psnr,
    jump_error,
)
from deepinv_lvtino.training.loop import Trainer, TrainingOptions
from deepinv_lvtino.training.pool import read_pool

_TOLERANCE = 0.05  # dB that the new weights may lose at one level
_SLACK = 1.1  # by which the jump's error may grow


@dataclass(frozen=True)
class Run:
    r"""
    What :func:`train` does.

    :param pathlib.Path folder: where checkpoints, curves and weights are kept.
    :param list pools: files of training crops.
    :param pathlib.Path held_out: clips to measure on, or ``None`` to go without.
    :param str stage: ``"denoise"``, ``"consistency"`` or ``"both"``, one after the other.
    :param float minutes: time for all of it, counted over resumed parts.
    :param float share: part of it for stage 1, if there are both.
    :param TrainingOptions denoise: settings of stage 1; time is set from ``minutes``.
    :param TrainingOptions consistency: settings of stage 2.
    :param tuple[int, int] crop: frames and size of the crops of stage 1.
    :param tuple[int, int] small_crop: the same of stage 2, whose batches are larger.
    :raises ValueError: if the stage or the times are of another kind.
    """

    folder: Path
    pools: list[Path]
    held_out: Path | None = None
    stage: str = "both"
    minutes: float = 60.0
    share: float = 0.7
    denoise: TrainingOptions = TrainingOptions()
    consistency: TrainingOptions = TrainingOptions(stage="consistency")
    crop: tuple[int, int] = (8, 96)
    small_crop: tuple[int, int] = (8, 64)

    def __post_init__(self) -> None:
        if self.stage not in ("both", "denoise", "consistency"):
            msg = (
                "`stage` must be 'both', 'denoise' or 'consistency'; got "
                f"{self.stage!r}."
            )
            raise ValueError(msg)
        if self.minutes <= 0 or not 0 < self.share < 1:
            msg = (
                "`minutes` must be positive and `share` between 0 and 1; got "
                f"{self.minutes} and {self.share}."
            )
            raise ValueError(msg)

    @property
    def stages(self) -> list[TrainingOptions]:
        """Settings of the stages of this run, each with its time."""
        if self.stage == "denoise":
            return [replace(self.denoise, minutes=self.minutes)]
        if self.stage == "consistency":
            return [replace(self.consistency, minutes=self.minutes)]
        first = self.minutes * self.share
        return [
            replace(self.denoise, minutes=first),
            replace(self.consistency, minutes=self.minutes - first),
        ]


def train(network: TinyNetwork, run: Run) -> Path | None:
    r"""
    Train a network, measure it, and export it if it has become better.

    Every stage has a folder of its own below ``run.folder`` and goes on from its
    checkpoint if the run was interrupted. Held-out clips are measured before, every ten
    minutes, and at the end; ``held-out.jsonl`` keeps the numbers.

    :param TinyNetwork network: network to start from, on the device to train on.
    :param Run run: settings.
    :return: (pathlib.Path) the exported weights, ``weights.safetensors`` in the folder, or
        ``None`` if they are no better than those at the start on held-out clips: the mean
        PSNR of denoising must have risen, and be lower at no level by more than 0.05 dB;
        after stage 2 one jump must be no further from the end of the flow than it was,
        give or take a tenth. Without held-out clips they are exported in any case.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    clips = None if run.held_out is None else read_pool(run.held_out)
    before = _measure(network, clips, jump=True)
    _report(run.folder, {"stage": "start", **before})
    for options in run.stages:
        num_frames, size = run.crop if options.stage == "denoise" else run.small_crop
        trainer = Trainer(
            network,
            PoolClips(
                run.pools,
                num_frames=num_frames if network.config.temporal else 1,
                size=size,
                seed=options.seed,
                device=next(network.parameters()).device,
            ),
            run.folder / options.stage,
            options,
        )
        print(
            f"{options.stage}: {options.minutes:.0f} minutes, from step {trainer.step}",
            flush=True,
        )

        def check(trainer: Trainer = trainer, stage: str = options.stage) -> None:
            numbers = _measure(trainer.average, clips)
            _report(
                run.folder,
                {
                    "stage": stage,
                    "step": trainer.step,
                    "minutes": round(trainer.seconds / 60, 1),
                    **numbers,
                },
            )

        average = trainer.run(check=check)
        network.load_state_dict(average.state_dict())
    after = _measure(network, clips, jump=True)
    _report(run.folder, {"stage": "end", **after})
    jumps = run.stage != "denoise"
    if clips is not None and not better(before, after, jumps):
        print("not exported: no better on the held-out clips", flush=True)
        return None
    path = run.folder / "weights.safetensors"
    training = {"stages": [str(options) for options in run.stages], "held out": after}
    save_tiny(network, path, {"training": json.dumps(training)})
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB", flush=True)
    return path


def better(
    before: dict[str, float], after: dict[str, float], jumps: bool = True
) -> bool:
    r"""
    Whether a network has gained on held-out clips, as :func:`train` asks for.

    :param dict[str, float] before: PSNR and error of the jump by level, as printed.
    :param dict[str, float] after: the same, later.
    :param bool jumps: whether the jump counts, or the denoiser alone.
    :return: (bool) whether it has.
    """
    gains = [after[_name(level)] - before[_name(level)] for level in LEVELS]
    kept = not jumps or all(
        after[_jump_name(level)] <= _SLACK * before[_jump_name(level)]
        for level in JUMP_LEVELS
    )
    return sum(gains) > 0 and min(gains) >= -_TOLERANCE and kept


def _name(level: float) -> str:
    return f"PSNR at {level:g}"


def _jump_name(level: float) -> str:
    return f"jump error at {level:g}"


def _measure(
    network: TinyNetwork, clips: np.ndarray | None, jump: bool = False
) -> dict[str, float]:
    if clips is None:
        return {}
    found = denoising_psnr(network, clips)
    numbers = {_name(k): round(float(np.mean(v)), 3) for k, v in found.items()}
    if jump:
        numbers |= {
            _jump_name(k): round(v, 4) for k, v in jump_error(network, clips).items()
        }
    return numbers


def _report(folder: Path, entry: dict[str, Any]) -> None:
    with (folder / "held-out.jsonl").open("a") as file:
        file.write(json.dumps(entry) + "\n")
    print(" ".join(f"{name} {value}" for name, value in entry.items()), flush=True)
