r"""
A whole restoration with the published networks: time and memory of every stage.

Problem B with the published schedule (9 evaluations), in two arrangements and one run:

* ``ours``: this package. Text encoders leave once the prompt is embedded, networks move to
  the device when they are used, large frames pass the autoencoders in tiles, frames pass
  the image model in batches, and data steps are in closed form;
* ``published``: text encoders and all networks stay on the device, the autoencoder takes
  whole frames, the image model frames one by one, every data step is 100 conjugate-gradient
  steps with convolutions (``convolutional.py``), and the last latent is decoded twice.

Both have the same networks, weights, prompt embeddings and noise, so that their results
can be compared. Weights are random (``networks.py``): nothing is downloaded, and what
takes time and memory is the same. Usage::

    python benchmarks/pipeline.py --model wan --random-weights --frames 25 --height 768
        --width 1280 --device cuda

``--tiny`` tries the script out with small networks, on any machine.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any

import networks
import torch
from convolutional import ConvolutionalProblem
from deepinv.optim import DataFidelity
from deepinv.optim.linear import conjugate_gradient
from deepinv.physics import Physics
from measure import Peak, provenance, save, synchronize
from torch import Tensor

from deepinv_lvtino import LVTINO, Schedule, make_problem
from deepinv_lvtino.models import SDXLConsistencyModel, Tiles, WanConsistencyModel
from deepinv_lvtino.models._memory import Part, num_bytes
from deepinv_lvtino.optim import proximal_start
from deepinv_lvtino.optim.data_steps import DataStep, GammaStep

GIB = 2**30
TARGET = {"times faster": 2.0, "peak, GB": 16.0}
PAPER = {"seconds": 132.0, "peak, GB": 35.15}
START_GAMMA = 200.0


class Stages:
    r"""Seconds and largest memory of the parts of a run."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.rows: dict[str, dict[str, float]] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        synchronize(self.device)
        with Peak(self.device) as peak:
            start = time.perf_counter()
            yield
            synchronize(self.device)
            seconds = time.perf_counter() - start
        row = self.rows.setdefault(
            name, {"calls": 0, "seconds": 0.0, "peak, GB": 0.0, "reserved, GB": 0.0}
        )
        row["calls"] += 1
        row["seconds"] += seconds
        row["peak, GB"] = max(row["peak, GB"], peak.allocated / 1e9)
        row["reserved, GB"] = max(row["reserved, GB"], peak.reserved / 1e9)
        print(f"  {name}: {seconds:.2f} s, {peak.allocated / 1e9:.1f} GB", flush=True)

    def of(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        r"""The function, measured."""

        @wraps(function)
        def measured(*arguments: Any, **options: Any) -> Any:
            with self.stage(name):
                return function(*arguments, **options)

        return measured

    def summary(self) -> dict[str, Any]:
        return {
            "seconds": sum(row["seconds"] for row in self.rows.values()),
            "peak, GB": max(row["peak, GB"] for row in self.rows.values()),
            "reserved, GB": max(row["reserved, GB"] for row in self.rows.values()),
            "stages": self.rows,
        }


@dataclass(frozen=True)
class ConvolutionalStep(DataStep):
    r"""The published data step: conjugate gradients, every operator a convolution."""

    gamma: float
    num_steps: int

    def __call__(
        self, z: Tensor, y: Tensor, physics: Physics, data_fidelity: DataFidelity
    ) -> Tensor:
        return conjugate_gradient(
            lambda u: self.gamma * physics.A_adjoint(physics.A(u)) + u,
            self.gamma * physics.A_adjoint(y) + z,
            max_iter=self.num_steps,
            tol=0.0,
            init=z,
        )


def convolutional(schedule: Schedule, num_steps: int) -> Schedule:
    r"""The published schedule of problem B with the published solver."""

    def changed(half: Any) -> Any:
        if half is None or not isinstance(half.data_step, GammaStep):
            return half
        step = ConvolutionalStep(half.data_step.gamma, num_steps)
        return replace(half, data_step=step)

    sweeps = [
        replace(sweep, video=changed(sweep.video), image=changed(sweep.image))
        for sweep in schedule.sweeps
    ]
    return replace(schedule, sweeps=sweeps)


class Pipeline:
    r"""Models, prompts and measurement of a run."""

    def __init__(self, settings: argparse.Namespace) -> None:
        self.settings = settings
        self.device = torch.device(settings.device)
        single = self.device.type == "cpu"
        video_dtype = torch.float32 if single else torch.bfloat16
        image_dtype = torch.float32 if single else torch.float16
        options = {"channels_last": settings.channels_last, "compile": settings.compile}
        self.video: WanConsistencyModel = networks.wan(
            video_dtype, settings.tiny, **options
        )
        self.image: SDXLConsistencyModel = networks.sdxl(
            image_dtype, settings.tiny, **options
        )
        self.tiles = self.video.tiles, self.image.tiles
        self.encoders = networks.text_encoders(video_dtype, image_dtype, settings.tiny)
        size = (3, settings.frames, settings.height, settings.width)
        self.exact = make_problem("B", size, device=self.device)
        self.convolutions = ConvolutionalProblem("B", size, self.device).to(self.device)
        rng = torch.Generator().manual_seed(0)
        self.x = torch.rand(1, *size, generator=rng).to(self.device)
        self.y = self.exact(self.x)
        self.networks = {
            "text encoders": [part.module for part in self.encoders.values()],
            "Wan": [self.video.network, self.video.autoencoder],
            "SDXL": [self.image.network, self.image.autoencoder],
        }

    def weights(self) -> dict[str, float]:
        r"""Of every group of networks, in GB."""
        return {
            name: sum(map(num_bytes, group)) / 1e9
            for name, group in self.networks.items()
        }

    def leave(self) -> None:
        r"""All networks to the CPU."""
        for group in self.networks.values():
            for network in group:
                network.to("cpu")
        self.free()

    def free(self) -> None:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def embed(self, name: str) -> Any:
        r"""Embedding by one text encoder, of as many tokens as the published prompt has."""
        part: Part = self.encoders[name]
        length = 512 if name == "umt5" else 77
        tokens = torch.zeros(1, length, dtype=torch.long)
        tokens[0, :6] = torch.tensor([3, 4, 5, 6, 7, 2])  # the end is the last
        mask = torch.zeros(1, length, device=self.device)
        mask[:, :6] = 1

        @torch.no_grad()
        def run(network: Any) -> Any:
            found = tokens.to(self.device)
            if name == "umt5":
                embedded = network(found, attention_mask=mask).last_hidden_state
                return (embedded * mask[..., None]).cpu()
            output = network(found, output_hidden_states=True)
            pooled = output.text_embeds.cpu() if name == "clip_2" else None
            return output.hidden_states[-2].cpu(), pooled

        return part.run(run, self.device, {})

    def prompts(self, stages: Stages, stay: bool) -> None:
        r"""Embed the prompts of both models."""
        found: dict[str, Any] = {}
        for name, part in self.encoders.items():
            with stages.stage("prompt"):
                found[name] = self.embed(name)
            if not stay:  # they would be freed; here they are needed once more
                part.module.to("cpu")
                self.free()
        self.video.conditioning = {"encoder_hidden_states": found["umt5"]}
        self.image.conditioning = {
            "prompt_embeds": torch.cat([found["clip"][0], found["clip_2"][0]], dim=-1),
            "pooled_prompt_embeds": found["clip_2"][1],
        }

    def ours(self, stages: Stages) -> Tensor:
        r"""The arrangement of this package."""
        self.video.offload = self.image.offload = self.settings.offload
        self.video.tiles, self.image.tiles = self.tiles
        side = self.settings.tile
        if side is not None:
            tiles = Tiles(side, min(128, side // 4)) if side else None
            self.video.tiles = self.image.tiles = tiles
        self.image.frame_batch = self.settings.frame_batch
        self.prompts(stages, stay=False)
        return self.solve(stages, self.exact, Schedule.published("B"), proximal_start)

    def published(self, stages: Stages) -> Tensor:
        r"""The arrangement of the released code."""
        self.video.offload = self.image.offload = False
        self.video.tiles = self.image.tiles = None
        self.image.frame_batch = 1
        with stages.stage("networks to the device"):
            for part in self.encoders.values():
                part.module.to(self.device)
            self.video.place(self.device)
            self.image.place(self.device)
        self.prompts(stages, stay=True)
        steps = self.settings.cg_steps
        start = ConvolutionalStep(START_GAMMA, steps)
        latents = []
        denoise = self.video.denoise

        def keep(latent: Tensor, t: float) -> Tensor:
            latents[:] = [denoise(latent, t)]
            return latents[0]

        self.video.denoise = keep  # type: ignore[method-assign]
        try:
            x = self.solve(
                stages,
                self.convolutions,
                convolutional(Schedule.published("B"), steps),
                lambda y, physics: start(torch.zeros_like(self.x), y, physics, None),
            )
        finally:
            del self.video.denoise
        with stages.stage("second decode"):
            self.video.decode(latents[0])
        return x

    def solve(
        self,
        stages: Stages,
        physics: Physics,
        schedule: Schedule,
        start: Callable[[Tensor, Physics], Tensor],
    ) -> Tensor:
        r"""The sampler, its parts measured."""
        video, image = self.video, self.image
        solver = LVTINO(
            video,
            image,
            schedule=schedule,
            init=stages.of("start", start),
            seed=0,
        )
        step = solver.fixed_point.iterator.f_step
        measured = (
            (video, "encode", "encode"),
            (video, "denoise", "transformer"),
            (video, "decode", "decode"),
            (image, "sae", "image model"),
            (step, "forward", "data steps"),
        )
        kept = [vars(owner).get(name) for owner, name, _ in measured]
        for owner, name, stage in measured:
            setattr(owner, name, stages.of(stage, getattr(owner, name)))
        try:
            return solver(self.y, physics)
        finally:
            for (owner, name, _), before in zip(measured, kept, strict=True):
                delattr(owner, name)
                if before is not None:
                    setattr(owner, name, before)

    def warm_up(self) -> None:
        r"""Load the device's libraries, so that neither arrangement pays for it."""
        x = self.x[:, :, :5, :64, :64]
        for model, t in ((self.video, 522.0), (self.image, 374.0)):
            model.sae(x, t)
        self.leave()


def run(pipeline: Pipeline, name: str, repeats: int) -> tuple[Tensor, dict[str, Any]]:
    r"""One arrangement; the fastest of several runs."""
    best: dict[str, Any] | None = None
    for _ in range(repeats):
        pipeline.leave()
        stages = Stages(pipeline.device)
        x = getattr(pipeline, name)(stages)
        synchronize(pipeline.device)
        found = stages.summary()
        if best is None or found["seconds"] < best["seconds"]:
            best = found
    pipeline.leave()
    return x.cpu(), best or {}


def print_table(results: dict[str, Any]) -> None:
    r"""Stages of both arrangements side by side."""
    runs = results["arrangements"]
    names = list(dict.fromkeys(s for found in runs.values() for s in found["stages"]))
    print(f"{'':<24}" + "".join(f"{f'{name} (s, GB)':>22}" for name in runs))
    for stage in (*names, "all"):
        line = f"{stage:<24}"
        for found in runs.values():
            row = found if stage == "all" else found["stages"].get(stage)
            text = (
                "-" if row is None else f"{row['seconds']:.2f}  {row['peak, GB']:.2f}"
            )
            line += f"{text:>22}"
        print(line)
    print(f"{results['times faster, end to end']:.2f} times faster end to end")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="A whole restoration: time and memory of every stage."
    )
    parser.add_argument("--model", choices=("wan",), default="wan")
    parser.add_argument(
        "--random-weights", action="store_true", help="required: no others are read"
    )
    parser.add_argument("--frames", type=int, default=25)
    parser.add_argument("--height", type=int, default=768)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cg-steps", type=int, default=100, help="published: 100")
    parser.add_argument("--repeats", type=int, default=1, help="the fastest counts")
    parser.add_argument("--tiny", action="store_true", help="small networks")
    group = parser.add_argument_group("our arrangement")
    group.add_argument("--tile", type=int, help="side in pixels; 0 for whole frames")
    group.add_argument("--frame-batch", type=int, default=8)
    group.add_argument("--offload", choices=("auto", "always", "never"), default="auto")
    group = parser.add_argument_group("both arrangements")
    group.add_argument("--channels-last", action="store_true")
    group.add_argument("--compile", action="store_true")
    found = parser.parse_args()
    if not found.random_weights:
        parser.error("only --random-weights can be measured: give it")
    found.offload = {"auto": "auto", "always": True, "never": False}[found.offload]
    return found


def main() -> None:
    settings = arguments()
    import diffusers
    import transformers

    pipeline = Pipeline(settings)
    pipeline.warm_up()
    results: dict[str, Any] = {
        "benchmark": "problem B, published schedule, two arrangements",
        "command": " ".join(["python", *sys.argv]),
        **provenance(pipeline.device),
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
        "settings": vars(settings),
        "weights, GB": pipeline.weights(),
        "arrangements": {},
    }
    if settings.tiny:
        results["note"] = (
            "Proof that the script runs, with small random networks: neither its times nor "
            "its memory say anything about the published models."
        )
    videos = {}
    for name in ("ours", "published"):
        videos[name], results["arrangements"][name] = run(
            pipeline, name, settings.repeats
        )
        found = results["arrangements"][name]
        print(
            f"{name}: {found['seconds']:.1f} s, {found['peak, GB']:.1f} GB", flush=True
        )
    ours, published = (results["arrangements"][name] for name in ("ours", "published"))
    ratio = published["seconds"] / ours["seconds"]
    difference = (videos["ours"] - videos["published"]).square().mean().sqrt()
    results |= {
        "times faster, end to end": ratio,
        "rms difference of the results": float(difference),
        "finite": bool(difference.isfinite()),
        "paper": PAPER,
        "target": TARGET,
    }
    if not settings.tiny:
        results["target met"] = {
            "times faster": ratio >= TARGET["times faster"],
            "peak, GB": ours["peak, GB"] <= TARGET["peak, GB"],
        }
    kind = pipeline.device.type + ("-tiny" if settings.tiny else "")
    save(f"pipeline-{settings.model}-{kind}", results)
    print_table(results)


if __name__ == "__main__":
    main()
