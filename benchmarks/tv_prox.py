r"""
Data fidelity with temporal total variation: ours against the published procedure.

Problem A at 25 frames of 192x320, one run: time to a relative objective gap of 1e-3 by the
exact-pencil ADMM, and the published procedure (200 primal-dual steps, every operator a 2-D
convolution, steps of 0.25) with the gap that it ends at, and that it has after 20 times
our time; at the published weight of the variation and at a mild one. Then the ADMM alone
at 768x1280, with its peak memory. Usage::

    python benchmarks/tv_prox.py [--device cuda] [--quick]
"""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from convolutional import ConvolutionalProblem
from measure import arguments, peak_bytes, provenance, save, seconds
from torch import Tensor

from deepinv_lvtino.datasets import procedural_clip
from deepinv_lvtino.models import spectral_video
from deepinv_lvtino.optim import (
    TemporalVariation,
    TVOptions,
    TVProblem,
    prox_l2_tv,
    solve_l2_tv,
)
from deepinv_lvtino.physics import SeparableVideoPhysics, make_problem

GAMMA = 3539.0  # a published weight, and with it the published weight of the variation
LAM = GAMMA * 2.873789e-4 / 2
MILD = 0.02
TV = TemporalVariation()


def setting(
    size: tuple[int, int, int, int], device: torch.device
) -> tuple[Tensor, Tensor, SeparableVideoPhysics]:
    r"""What the first data step sees: an autoencoded start, and a measurement."""
    rng = torch.Generator(device).manual_seed(0)
    x = procedural_clip(*size[1:])[None].to(device)
    physics = make_problem("A", size, rng=rng, device=device)
    y = physics(x)
    z = spectral_video().sae(physics.A_dagger(y), 150.0, generator=rng)
    return z, y, physics


def objective(
    u: Tensor, z: Tensor, y: Tensor, physics: SeparableVideoPhysics, lam: float
) -> float:
    r"""The stated objective, in float64."""
    u, z, y = u.double(), z.double(), y.double()
    value = GAMMA / 2 * (physics.A(u) - y).square().sum() + 0.5 * (u - z).square().sum()
    return float(value + lam * TV(u).sum())


def published(
    z: Tensor,
    y: Tensor,
    physics: ConvolutionalProblem,
    lam: float,
    steps: int = 200,
    limit: float = math.inf,
) -> tuple[Tensor, int]:
    r"""
    Primal-dual steps with tau = sigma = 0.25, and their number.

    On the same objective, divided by gamma as the published one is written. Ends after
    ``steps`` (published: 200), or ``limit`` seconds.
    """
    tau = sigma = 0.25
    bound = lam / GAMMA
    target = physics.A_adjoint(y)
    u, dual = z, torch.zeros_like(z[:, :, 1:])
    start = time.perf_counter()
    done = 0
    for done in range(1, steps + 1):  # noqa: B007
        slope = physics.A_adjoint(physics.A(u)) - target + (u - z) / GAMMA
        new = u - tau * (slope + TV.adjoint(dual))
        dual = (dual + sigma * TV.differences(2 * new - u)).clamp(-bound, bound)
        u = new
        if time.perf_counter() - start > limit:
            break
    return u, done


def compare(
    device: torch.device, size: tuple[int, int, int, int], lam: float
) -> dict[str, Any]:
    z, y, physics = setting(size, device)
    exact = physics.clone().double()
    reference = prox_l2_tv(
        z.double(), y.double(), exact, GAMMA, lam, tol=1e-5, max_iter=400
    )
    best = objective(reference, z, y, exact, lam)
    convolutional = ConvolutionalProblem("A", size, device)
    found: dict[str, Any] = {}

    def excess(u: Tensor) -> float:
        return objective(u, z, y, exact, lam) / best - 1

    def ours() -> None:
        problem = TVProblem(z, y, physics, GAMMA, lam, TemporalVariation())
        found["ours"] = solve_l2_tv(problem, TVOptions(tol=1e-3))

    def theirs(**limits: Any) -> None:
        found["theirs"] = published(z, y, convolutional, lam, **limits)

    own_seconds = seconds(ours, device, 2)
    rows: dict[str, Any] = {
        "lambda": lam,
        "relative objective gap of the start": excess(z),
        "exact-pencil ADMM": {
            "seconds": own_seconds,
            "iterations": found["ours"].iterations,
            "duality gap reported": found["ours"].gap,
            "relative objective gap": excess(found["ours"].video),
        },
    }
    for name, limits in (
        ("published, 200 primal-dual steps", {}),
        (
            "published, going on for 20 times the time of the ADMM",
            {"steps": 10**6, "limit": 20 * own_seconds},
        ),
    ):
        taken = seconds(lambda limits=limits: theirs(**limits), device, 1)
        u, steps = found["theirs"]
        rows[name] = {
            "seconds": taken,
            "iterations": steps,
            "relative objective gap": excess(u),
            "time over that of the ADMM": taken / own_seconds,
        }
    return rows


def high_definition(device: torch.device) -> dict[str, Any]:
    z, y, physics = setting((3, 25, 768, 1280), device)
    found = {}

    def solve() -> None:
        problem = TVProblem(z, y, physics, GAMMA, LAM, TemporalVariation())
        found["result"] = solve_l2_tv(problem, TVOptions(tol=1e-3))

    taken = seconds(solve, device, 1)
    result = found.pop("result")
    gap, iterations = result.gap, result.iterations
    del result
    few = {"tol": 0.5, "max_iter": 20}  # the peak is that of one iteration and one gap
    peak = peak_bytes(lambda: prox_l2_tv(z, y, physics, GAMMA, LAM, **few), device)
    return {
        "seconds": taken,
        "iterations": iterations,
        "duality gap reported": gap,
        "peak extra memory, videos": peak / (z.numel() * z.element_size()),
    }


def main() -> None:
    device, quick = arguments(__doc__)
    if quick:
        print(compare(device, (3, 9, 48, 64), LAM))
        return
    save(
        f"tv_prox-{device.type}",
        {
            "benchmark": f"problem A, temporal variation, gamma = {GAMMA:g}, float32",
            **provenance(device),
            "25x3x192x320": [
                compare(device, (3, 25, 192, 320), lam) for lam in (LAM, MILD)
            ],
            "25x3x768x1280, exact-pencil ADMM": high_definition(device),
        },
    )


if __name__ == "__main__":
    main()
