r"""
The same restoration on the CPU and on a GPU: do they agree, and how long do they take?

For the named problems and a few described operators: one sample of ``LVTINO`` with its
defaults on each device, of the same measurement and with the same noise, in the precision
that is the default there. Reported are the rms difference of the two videos, the PSNR of
each, seconds (the second of two runs on the GPU), and the largest memory on the GPU. With
``--large`` also one sample of problem B with 25 frames of 1280×768 on the GPU. Usage::

    python benchmarks/devices.py --device cuda [--size 13x128x192] [--large] [--quick]
"""

from __future__ import annotations

import argparse
import traceback
from typing import Any

import torch
from deepinv.physics import Physics
from embedded_models import Row, write_csv
from measure import RESULTS, Peak, provenance, save, timed
from torch import Tensor

from deepinv_lvtino import LVTINO, Schedule, make_problem
from deepinv_lvtino.datasets import procedural_clip
from deepinv_lvtino.optim.noise import FrameNoise, NoiseSource

PROBLEMS = (
    "A",
    "B",
    "C",
    "sr4",
    "deblur",
    "inpaint",
    "sr4-temporal",
    "deblur-temporal",
    "inpaint-temporal",
    "downscale=2, noise=0.01",
    "every=2, noise=0.01",
    "mask=0.7, noise=0.05",
    "noise=0.1",
)
CPU = torch.device("cpu")


def restored(
    problem: str,
    y: Tensor,
    physics: Physics,
    device: torch.device,
    noise: NoiseSource | None = None,
) -> tuple[Tensor, float]:
    r"""One sample on a device, and its seconds; noise of that device if none is given."""
    solver = LVTINO(
        schedule=Schedule.embedded(problem),
        seed=0 if noise is None else None,
        noise_source=noise,
    ).to(device)
    x, seconds = timed(lambda: solver(y.to(device), physics.to(device)), device)
    return x.cpu(), seconds


def psnr(x: Tensor, truth: Tensor) -> float:
    return float(-10 * (x.clamp(0, 1) - truth).square().mean().log10())


def compare(problem: str, truth: Tensor, device: torch.device) -> Row:
    r"""One problem on both devices."""
    size = tuple(truth.shape[1:])
    physics = make_problem(problem, size)
    y = physics(truth)
    noise = FrameNoise(0).of(0, truth.shape[2])  # the same on all devices
    on_cpu, cpu_seconds = restored(problem, y, physics, CPU, noise)
    on_device, _ = restored(problem, y, physics, device, noise)
    with Peak(device) as peak:
        _, seconds = restored(problem, y, physics, device)
    return {
        "problem": problem,
        "rms difference": float((on_cpu - on_device).square().mean().sqrt()),
        "PSNR, CPU": psnr(on_cpu, truth),
        f"PSNR, {device.type}": psnr(on_device, truth),
        "seconds, CPU": cpu_seconds,
        f"seconds, {device.type}": seconds,
        "peak, GB": peak.allocated / 1e9,
    }


def large(device: torch.device, size: tuple[int, int, int]) -> dict[str, Any]:
    r"""Problem B at full size on the device."""
    truth = procedural_clip(*size, seed=0)[None]
    physics = make_problem("B", tuple(truth.shape[1:]))
    y = physics(truth)
    times = []
    for _ in range(2):
        with Peak(device) as peak:
            x, seconds = restored("B", y, physics, device)
        times.append(seconds)
    return {
        "size": "x".join(map(str, size)),
        "seconds, first": times[0],
        "seconds": times[1],
        "peak, GB": peak.allocated / 1e9,
        "PSNR": psnr(x, truth),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="The same restoration on two devices.")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", default="13x128x192", help="FRAMESxHEIGHTxWIDTH")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--quick", action="store_true", help="two problems, not saved")
    options = parser.parse_args()
    device = torch.device(options.device)
    truth = procedural_clip(*map(int, options.size.split("x")), seed=0)[None]
    rows: list[Row] = []
    failed: dict[str, str] = {}
    for problem in PROBLEMS[:2] if options.quick else PROBLEMS:
        try:
            rows.append(compare(problem, truth, device))
        except Exception:  # the others are still measured, and this one is reported
            failed[problem] = traceback.format_exc()
            print(problem, failed[problem], flush=True)
        else:
            print(rows[-1], flush=True)
    results: dict[str, Any] = {
        "benchmark": "one sample with the defaults, on two devices",
        **provenance(device),
        "size": options.size,
        "rows": rows,
        "failed": failed,
    }
    if options.large:
        size = (9, 128, 192) if options.quick else (25, 768, 1280)
        results["large"] = large(device, size)
    if options.quick:
        print(results)
        return
    write_csv(rows, RESULTS / f"devices-{device.type}.csv")
    save(f"devices-{device.type}", results)


if __name__ == "__main__":
    main()
