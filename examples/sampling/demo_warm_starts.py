r"""
Where to start from
===================

Problem C leaves one frame of eight and one pixel of 64. Its pseudo-inverse is a slide
show of blurred pictures, and a sampler that starts there has a long way to go:

.. math::

    x_0 = A^{\dagger} y \qquad \text{or} \qquad x_0 = \text{something better?}

A run can start from any video (``init=``). Five starts have names: ``"pinv"``, the
pseudo-inverse; ``"prox"``, a proximal step from black; ``"tv"``, data and total
variation; ``"motion"``, the same along the motion of the video; ``"interpolate"``, which
follows the motion between the measured frames with an optical flow. What is each worth,
and what is left of it after a run?
"""

# sphinx_gallery_thumbnail_number = 2

import time

import matplotlib.pyplot as plt
import torch
from deepinv.loss.metric import PSNR

from deepinv_lvtino import LVTINO, Schedule, make_problem
from deepinv_lvtino.datasets import procedural_clip
from deepinv_lvtino.metrics import (
    FrameMetric,
    TemporalDifferenceError,
)
from deepinv_lvtino.optim import STARTS, interpolate, tv_start
from deepinv_lvtino.plotting import (
    plot_time_slices,
    write_side_by_side,
)

# %%
# The measurement
# ---------------

x = procedural_clip(num_frames=24, height=64, width=96)[None]
rng = torch.Generator().manual_seed(0)
physics = make_problem(
    "C", img_size=tuple(x.shape[1:]), sigma=0.001, rng=rng
)
y = physics(x)
print(
    "video",
    tuple(x.shape[2:]),
    "to measurement",
    tuple(y.shape[2:]),
)

# %%
# The starts, and what becomes of them
# ------------------------------------
#
# From each start a short run of small steps, which stays close to it, and a long one that
# begins with large steps and forgets it. The last start, ``both``, interpolates between
# frames that total variation has enlarged: a start may be any function of the measurement.
#
# One run gives a *sample*, which draws what the measurement leaves open. That costs PSNR:
# after small steps a sample lies just below the start that it stayed close to. The mean of
# four, in the third column, does not pay for it, and lies above its start.

short, long = "2 small steps", "5 steps"
means = "mean of 4"
schedules = {
    short: Schedule.calibrated(delta=[0.01, 0.002], eta=0.8),
    long: Schedule.calibrated(
        delta=[2.0, 0.5, 0.1, 0.02, 0.004], eta=0.7
    ),
}
psnr = FrameMetric(PSNR())
scores, results, seconds = {}, {}, {}
functions = STARTS | {
    "both": lambda y, physics: interpolate(
        y, physics, spatial=tv_start
    )
}
for start, function in functions.items():
    begin = time.perf_counter()
    u = function(y, physics)
    seconds[start] = time.perf_counter() - begin
    results[start] = {"start": u}
    for name, schedule in schedules.items():
        solver = LVTINO(schedule=schedule, init=u, seed=0)
        results[start][name] = solver(y, physics)
    solver = LVTINO(schedule=schedules[short], init=u, seed=0)
    mean, _ = solver.sample(y, physics, num_samples=4)
    results[start][means] = mean

columns = ["start", short, means, long]
print(
    f"{'init':<12s}"
    + "".join(f"{name:>15s}" for name in columns)
    + "   PSNR in dB"
)
for start, videos in results.items():
    scores[start] = [
        psnr(videos[name], x).item() for name in columns
    ]
    print(
        f"{start:<12s}"
        + "".join(f"{value:15.2f}" for value in scores[start])
    )
print(
    "\nof the start: residual, temporal difference error, seconds"
)
motion = TemporalDifferenceError()
for start, videos in results.items():
    u = videos["start"]
    residual = (physics.A(u) - y).square().mean().sqrt()
    print(
        f"{start:<12s} {residual:8.1e} "
        f"{motion(u, x).item():7.4f} {seconds[start]:6.2f}"
    )

figure, axis = plt.subplots(
    figsize=(7, 3.2), layout="constrained"
)
for start, values in scores.items():
    axis.plot(range(len(columns)), values, "o-", label=start)
# the start from black says little, and would flatten the others
axis.set_ylim(
    min(min(values[1:]) for values in scores.values()) - 1, None
)
axis.set_xticks(range(len(columns)), columns)
axis.set_ylabel("PSNR (dB)")
axis.legend(title="init")
axis.grid(alpha=0.3)
plt.show()

# %%
# The motion
# ----------
#
# A row of pixels over time. The pseudo-inverse stands still for eight frames and jumps;
# the interpolation moves.

shown = {
    f"start: {name}": results[name]["start"]
    for name in ("pinv", "both")
}
shown |= {
    f"{short}: {name}": results[name][short]
    for name in ("pinv", "both")
}
plot_time_slices(shown | {"truth": x}, row=48)
plt.show()

# %%

write_side_by_side(
    "warm_starts.mp4",
    {
        "pseudo-inverse": results["pinv"]["start"],
        "both": results["both"]["start"],
        short: results["both"][short],
        "truth": x,
    },
    fps=8,
    overwrite=True,
)

# %%
# ``"interpolate"`` and ``"motion"`` compute optical flow with OpenCV
# :footcite:p:`kroeger2016fast`. With the published
# models, problem C was started from an interpolation network; the result of any such
# network can be given as ``init``.
#
# :References:
#
# .. footbibliography::
