r"""
The exact data step against iterative ones, in one run.

Problem B at 25 frames of 192x320: the closed form, the published procedure (100
conjugate-gradient steps, every operator a 2-D convolution) and DeepInverse's generic
``LinearPhysics.prox_l2`` on the same convolutions. Then the closed form alone at 768x1280,
with its peak memory. Usage::

    python benchmarks/prox.py [--device cuda] [--quick]
"""

from __future__ import annotations

import argparse
from typing import Any

import deepinv
import torch
import torch.nn.functional as F
from deepinv.optim.linear import conjugate_gradient
from deepinv.physics import LinearPhysics
from measure import peak_bytes, provenance, save, seconds

from deepinv_lvtino.physics import FramewisePhysics, make_problem

GAMMA = 16868.0  # the largest weight of the published settings


class ConvolutionalProblemB(LinearPhysics):
    r"""Problem B by convolutions: (7, 1) circular along time, then 2-D in space."""

    def __init__(self, img_size: tuple[int, int, int, int], device: torch.device):
        super().__init__(img_size=img_size)
        channels, _, height, width = img_size
        self.space = FramewisePhysics(
            deepinv.physics.Downsampling(
                img_size=(channels, height, width),
                filter="bicubic",
                factor=8,
                padding="reflect",
                device=device,
            )
        )
        self.register_buffer("kernel", torch.full((1, 1, 7, 1), 1 / 7, device=device))

    def blur(self, x: torch.Tensor) -> torch.Tensor:
        batch, channels, frames, height, width = x.shape
        columns = x.reshape(batch * channels, 1, frames, height * width)
        columns = F.pad(columns, (0, 0, 3, 3), mode="circular")
        return F.conv2d(columns, self.kernel).reshape(x.shape)

    def A(self, x: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return self.space.A(self.blur(x))

    def A_adjoint(self, y: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return self.blur(self.space.A_adjoint(y))  # symmetric kernel, circular

    def cg_prox(
        self, z: torch.Tensor, y: torch.Tensor, gamma: float, num_steps: int
    ) -> torch.Tensor:
        return conjugate_gradient(
            lambda u: gamma * self.A_adjoint(self.A(u)) + u,
            gamma * self.A_adjoint(y) + z,
            max_iter=num_steps,
            tol=0.0,
            init=z,
        )


def compare(device: torch.device, size: tuple[int, int, int, int]) -> dict[str, Any]:
    exact = make_problem("B", size, device=device)
    convolutional = ConvolutionalProblemB(size, device)
    torch.manual_seed(0)
    z = torch.rand(1, *size, device=device)
    y = exact(torch.rand(1, *size, device=device))
    solution = exact.prox_l2(z, y, GAMMA)
    rows: dict[str, Any] = {
        "operators differ by at most": float(
            (exact.A(z) - convolutional.A(z)).abs().max()
        )
    }
    methods = {
        "closed form": (lambda: exact.prox_l2(z, y, GAMMA), 20),
        "100 conjugate-gradient steps": (
            lambda: convolutional.cg_prox(z, y, GAMMA, 100),
            1,
        ),
        "deepinv LinearPhysics.prox_l2": (
            lambda: convolutional.prox_l2(z, y, GAMMA),
            1,
        ),
    }
    right = GAMMA * exact.A_adjoint(y) + z
    for name, (function, repeats) in methods.items():
        result = {}

        def run(function=function, result=result):
            result["u"] = function()

        time = seconds(run, device, repeats)
        u = result["u"]
        residual = GAMMA * exact.A_adjoint_A(u) + u - right
        rows[name] = {
            "seconds": time,
            "rms distance to the closed form": float(
                (u - solution).square().mean().sqrt()
            ),
            "normal-equation residual": float(residual.norm() / right.norm()),
        }
    reference = rows["closed form"]["seconds"]
    for name in methods:
        rows[name]["times the closed form"] = rows[name]["seconds"] / reference
    return rows


def high_definition(device: torch.device) -> dict[str, Any]:
    rows = {}
    for name in "ABC":
        size = (3, 25, 768, 1280)
        physics = make_problem(name, size, device=device)
        torch.manual_seed(0)
        z = torch.rand(1, *size, device=device)
        y = physics.A(z)
        video = z.numel() * z.element_size()

        def prox(physics=physics, z=z, y=y):
            return physics.prox_l2(z, y, GAMMA)

        rows[name] = {
            "seconds": seconds(prox, device, 5),
            "peak extra memory, videos": peak_bytes(prox, device) / video,
        }
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="a small size, not saved")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if arguments.quick:
        print(compare(device, (3, 9, 48, 64)))
        return
    save(
        f"prox-{device.type}",
        {
            "benchmark": "data step of problem B, gamma = 16868, float32",
            **provenance(device),
            "25x3x192x320": compare(device, (3, 25, 192, 320)),
            "25x3x768x1280, closed form": high_definition(device),
        },
    )


if __name__ == "__main__":
    main()
