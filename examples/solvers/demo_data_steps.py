r"""
Solvers for the first data step
===============================

With total variation as a third prior, the first data step of a sweep is

.. math::

    \underset{u}{\arg\min} \; F(u), \qquad F(u) = \frac{\gamma}{2} \|A u - y\|^2
    + \lambda \, \mathrm{TV}(u) + \frac12 \|u - z\|^2,

with :math:`\gamma = \delta_k \eta / \sigma_n^2` in the tens of thousands: a stiff problem
without a formula. :func:`deepinv_lvtino.optim.prox_l2_tv` has three solvers for it. How
fast is each, and how does one know that it has arrived?
"""

import time
import warnings

import matplotlib.pyplot as plt
import torch
from deepinv.loss.metric import PSNR

from deepinv_lvtino import make_problem
from deepinv_lvtino.datasets import procedural_clip
from deepinv_lvtino.models import tiny_video
from deepinv_lvtino.optim import (
    SpaceTimeVariation,
    TemporalVariation,
    TVOptions,
    TVProblem,
    prox_l2_tv,
    pseudo_inverse,
    solve_l2_tv,
)

# %%
# A step in the middle of a run
# -----------------------------
#
# Problem B, and what the video model makes of the start: this is :math:`z`.

x = procedural_clip(num_frames=12, height=48, width=72)[None]
rng = torch.Generator().manual_seed(0)
sigma, stepsize, weight = 0.001, 0.03, 5.0
physics = make_problem(
    "B", img_size=tuple(x.shape[1:]), sigma=sigma, rng=rng
)
y = physics(x)
z = tiny_video().sae(
    pseudo_inverse(y, physics), t=250.0, generator=rng
)

gamma, lam = stepsize / sigma**2, stepsize * weight
print(f"gamma {gamma:.0f}, lambda {lam:.2f}")


def objective(u, variation):
    """The function that is minimised."""
    data = gamma / 2 * (physics.A(u) - y).square().sum()
    return (
        data
        + (u - z).square().sum() / 2
        + lam * variation(u).sum()
    ).item()


# %%
# The optimum, with a certificate
# -------------------------------
#
# Every dual variable :math:`p` gives a lower bound of :math:`F`, and the distance between
# the two, the *duality gap*, bounds the error without knowing the answer. The solvers
# stop by this gap, relative to :math:`F`. Variation along time alone has a solver of its
# own, ``"admm"``: it solves a system for all pixels at once with one small
# eigen-decomposition.

variations = {
    "time": TemporalVariation(),
    "space and time": SpaceTimeVariation(),
}
tolerances = {"time": 5e-5, "space and time": 5e-4}
best = {}
for name, variation in variations.items():
    best[name] = result = solve_l2_tv(
        TVProblem(z, y, physics, gamma, lam, variation),
        TVOptions(tol=tolerances[name], max_iter=1000),
    )
    print(
        f"variation over {name}: {result.iterations} iterations, "
        f"gap {result.gap:.1e}, "
        f"F = {objective(result.video, variation):.4f}"
    )

# %%
# Convergence
# -----------
#
# The same start, the same number of steps: how far is :math:`F` above its minimum?
# Stopping this early is what is measured here, so that the warning about it is turned
# off.

counts = (1, 3, 10, 30, 100)
solvers = {
    "time": ("admm", "chambolle_pock", "adam"),
    "space and time": ("chambolle_pock", "adam"),
}
psnr = PSNR()
curves = {}
print("variation over  solver           seconds   excess   PSNR")
for name, variation in variations.items():
    optimum = objective(best[name].video, variation)
    for solver in solvers[name]:
        excess = []
        for count in counts:
            with warnings.catch_warnings():
                warnings.filterwarnings(
                    "ignore", message="prox_l2_tv stopped"
                )
                start = time.perf_counter()
                u = prox_l2_tv(
                    z,
                    y,
                    physics,
                    gamma,
                    lam,
                    variation,
                    solver,
                    tol=1e-12,
                    max_iter=count,
                )
                seconds = time.perf_counter() - start
            excess.append(objective(u, variation) / optimum - 1)
        curves[name, solver] = excess
        print(
            f"{name:<15s} {solver:<15s} {seconds:8.2f} "
            f"{excess[-1]:8.1e} "
            f"{psnr(u, x).item():6.2f}"
        )
residual = (
    (physics.A(best["time"].video) - y).square().mean().sqrt()
)
print(
    f"data residual at the optimum (time): {residual:.1e}, noise "
    f"{sigma:.1e}"
)

# %%
# Below the dotted line the minimum itself is not known. ``"adam"`` follows the gradient
# of a smoothed problem; it is there for operators that are not linear, which the other
# two cannot serve.

figure, axes = plt.subplots(
    1, 2, figsize=(10, 3.6), layout="constrained", sharey=True
)
styles = {"admm": "o-", "chambolle_pock": "s-", "adam": "^--"}
for axis, name in zip(axes, variations, strict=True):
    for solver in solvers[name]:
        values = [
            max(value, 1e-7) for value in curves[name, solver]
        ]
        axis.loglog(counts, values, styles[solver], label=solver)
    axis.axhline(
        best[name].gap,
        color="0.5",
        ls=":",
        label="gap of the minimum",
    )
    axis.set_title(f"variation over {name}")
    axis.set_xlabel("steps")
    axis.grid(alpha=0.3)
    axis.legend()
axes[0].set_ylabel("F / minimum - 1")
plt.show()

# %%
# What the step does
# ------------------
#
# One row of pixels over time. Variation along time removes what flickers and keeps edges
# in space; variation over both also flattens the picture.

rows = {
    "truth": x,
    "z: video prior": z,
    "prox, no variation": physics.prox_l2(z, y, gamma),
    "prox, time": best["time"].video,
    "prox, space and time": best["space and time"].video,
}
figure, axes = plt.subplots(
    2,
    len(rows),
    figsize=(12, 3.4),
    layout="constrained",
    height_ratios=(3, 1.2),
)
for column, (name, video) in enumerate(rows.items()):
    video = video[0].clamp(0, 1)
    axes[0, column].imshow(video[:, 6].permute(1, 2, 0))
    axes[0, column].set_title(name, fontsize=10)
    axes[1, column].imshow(
        video[:, :, 32].permute(1, 2, 0), aspect="auto"
    )
    for axis in axes[:, column]:
        axis.set_xticks([])
        axis.set_yticks([])
axes[0, 0].set_ylabel("frame 6", fontsize=9)
axes[1, 0].set_ylabel("time", fontsize=9)
plt.show()
