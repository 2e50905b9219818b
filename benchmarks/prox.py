r"""
The exact data step against iterative ones, in one run.

Problem B at 25 frames of 192x320: the closed form, the published procedure (100
conjugate-gradient steps, every operator a 2-D convolution) and DeepInverse's generic
``LinearPhysics.prox_l2`` on the same convolutions. Then the closed form alone at 768x1280,
with its peak memory. Usage::

    python benchmarks/prox.py [--device cuda] [--quick]
"""

from __future__ import annotations

from typing import Any

import torch
from convolutional import ConvolutionalProblem
from deepinv.optim.linear import conjugate_gradient
from measure import arguments, peak_bytes, provenance, save, seconds

from deepinv_lvtino.physics import make_problem

GAMMA = 16868.0  # the largest weight of the published settings


def cg_prox(
    physics: ConvolutionalProblem, z: torch.Tensor, y: torch.Tensor, num_steps: int
) -> torch.Tensor:
    r"""The published procedure: conjugate gradients on the normal equations."""
    return conjugate_gradient(
        lambda u: GAMMA * physics.A_adjoint(physics.A(u)) + u,
        GAMMA * physics.A_adjoint(y) + z,
        max_iter=num_steps,
        tol=0.0,
        init=z,
    )


def compare(device: torch.device, size: tuple[int, int, int, int]) -> dict[str, Any]:
    exact = make_problem("B", size, device=device)
    convolutional = ConvolutionalProblem("B", size, device)
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
            lambda: cg_prox(convolutional, z, y, 100),
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
    device, quick = arguments(__doc__)
    if quick:
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
