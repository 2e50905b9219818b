r"""
What a schedule does, sweep by sweep
====================================

A run of LVTINO is a few sweeps, each a short sequence of half-steps (Algorithm 1 of
:footcite:t:`spagnoletti2025lvtino`):

.. math::

    x_{k + 1/4} &= \operatorname{SAE}_V(x_k, t_k^V), \qquad
    x_{k + 1/2} = \operatorname{prox}_{\delta_k \eta \, g_y}(x_{k + 1/4}), \\
    x_{k + 3/4} &= \operatorname{SAE}_I(x_{k + 1/2}, t_k^I), \qquad
    x_{k + 1} = \operatorname{prox}_{\delta_k (1 - \eta) \, g_y}(x_{k + 3/4}).

What does each of them do to the video? :class:`deepinv_lvtino.LVTINO` shows them to a
callback; we keep everything in between and look at it.
"""

import matplotlib.pyplot as plt
import torch
from deepinv.loss.metric import PSNR

from deepinv_lvtino import LVTINO, Schedule, make_problem
from deepinv_lvtino.datasets import procedural_clip
from deepinv_lvtino.models import tiny_image, tiny_video

# %%
# A measurement and a schedule
# ----------------------------
#
# Problem A: a quarter of the frames, a sixteenth of the pixels. A calibrated schedule is
# given by its steps :math:`\delta_k`; the times of the models follow, and with them the
# noise under which each model sees its input.

x = procedural_clip(num_frames=16, height=96, width=160)[None]
rng = torch.Generator().manual_seed(0)
physics = make_problem(
    "A", img_size=tuple(x.shape[1:]), sigma=0.001, rng=rng
)
y = physics(x)

models = {"video": tiny_video(), "image": tiny_image()}
schedule = Schedule.calibrated(
    delta=[0.25, 0.075, 0.022, 0.0067, 0.002], eta=0.9
)
solver = LVTINO(
    models["video"], models["image"], schedule=schedule
)
sweeps = schedule.resolve(models["video"], models["image"])

print(
    f"{'sweep':>5s} {'delta':>8s}  noise seen by the video and "
    "the image model"
)
for k, sweep in enumerate(sweeps):
    levels = ""
    for name, half in (
        ("video", sweep.video),
        ("image", sweep.image),
    ):
        if half is not None:
            ratio = models[name].schedule.noise_ratio(half.time)
            levels += (
                f"{models[name].pixel_scale * ratio**0.5:8.3f}"
            )
    print(f"{k:5d} {schedule.delta[k]:8.4f} {levels}")

# %%
# Everything in between
# ---------------------
#
# The solver shows every video to a ``callback``, with a label: the start, then in each
# sweep what comes out of either model and of the data step after it. The last sweep ends
# after its first data step.

iterates = {}
result = solver(y, physics, seed=0, callback=iterates.__setitem__)
print(", ".join(list(iterates)[:6]), "…,", list(iterates)[-1])
print(
    "the last one is the result:",
    torch.equal(iterates["k4/video/data"], result),
)

# %%
# The numbers
# -----------
#
# After a prior the video has left the measurement, :math:`\|A x - y\| / \sqrt m` is far
# above the noise of 0.001; the data step brings it back without giving up what the prior
# has added. As the steps shrink, less is added, and the two agree. The result is a sample,
# which draws what the measurement leaves open, and pays for it in PSNR; the mean of four
# runs, without that, is far above the start.

psnr = PSNR()
print(f"{'video':<15s} {'PSNR':>6s}  {'residual':>9s}")
for label, video in iterates.items():
    residual = (physics.A(video) - y).square().mean().sqrt()
    print(
        f"{label:<15s} {psnr(video, x).item():6.2f}  "
        f"{residual:9.1e}"
    )
mean, _ = solver.sample(y, physics, num_samples=4, seed=0)
residual = (physics.A(mean) - y).square().mean().sqrt()
print(
    f"{'mean of 4':<15s} {psnr(mean, x).item():6.2f}  "
    f"{residual:9.1e}"
)

# %%
# The pictures
# ------------
#
# One frame after each half-step, enlarged: a sweep per column. Below it, PSNR along the
# way; hollow marks follow a prior, full ones a data step.

rows = ("video/prior", "video/data", "image/prior", "image/data")
count = len(sweeps)
figure, axes = plt.subplots(
    len(rows),
    count + 1,
    figsize=(2.1 * (count + 1), 7.2),
    layout="constrained",
)
part = (
    0,
    slice(None),
    x.shape[2] // 2,
    slice(36, 96),
    slice(40, 130),
)
for axis in axes.flat:
    axis.set_axis_off()
shown = {(0, 0): "start"} | {
    (row, k + 1): f"k{k}/{step}"
    for k in range(count)
    for row, step in enumerate(rows)
}
for place, label in shown.items():
    if label in iterates:
        axes[place].imshow(
            iterates[label][part].permute(1, 2, 0).clamp(0, 1)
        )
        axes[place].set_title(label, fontsize=10)
axes[1, 0].imshow(x[part].permute(1, 2, 0).clamp(0, 1))
axes[1, 0].set_title("truth", fontsize=10)
plt.show()

# %%
# As the last sweep ends after its first data step, the result explains the measurement and
# was last touched by the video prior.

values = [psnr(video, x).item() for video in iterates.values()]
figure, axis = plt.subplots(
    figsize=(8, 3.2), layout="constrained"
)
axis.plot(values, color="0.7", zorder=0)
for place, (label, value) in enumerate(
    zip(iterates, values, strict=True)
):
    color = (
        "C0"
        if "video" in label
        else "C1"
        if "image" in label
        else "black"
    )
    face = "white" if "prior" in label else color
    axis.plot(
        place, value, "o", color=color, markerfacecolor=face
    )
starts = [
    place
    for place, label in enumerate(iterates)
    if "video/prior" in label
]
axis.set_xticks(starts, [f"sweep {k}" for k in range(count)])
axis.set_ylabel("PSNR (dB)")
axis.set_title("blue: video prior, orange: image prior")
axis.grid(alpha=0.3)
plt.show()

# %%
# Going on from the middle
# ------------------------
#
# A run can begin with any of these videos. Here the last sweep is drawn once more, with
# other noise: two ends differ by less than half of the error that is left.

again = solver(
    y,
    physics,
    seed=1,
    init=iterates["k3/image/data"],
    first_sweep=4,
)
change = (again - result).square().mean().sqrt()
error = (result - x).square().mean().sqrt()
print(
    f"another last sweep: changed by {change:.4f}, the error is "
    f"{error:.4f}"
)

# %%
# :References:
#
# .. footbibliography::
