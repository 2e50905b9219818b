r"""
Restoring a video with LVTINO
=============================

How much of a video can be recovered from a quarter of its frames at a sixteenth of its
pixels? We degrade a short clip, restore it without training anything, and compare one
posterior sample, the posterior mean and the plain inverse.

The measurement is

.. math::

    y = A x + n, \qquad n \sim \mathcal{N}(0, \sigma^2 I),

where :math:`A` averages groups of 4 frames and shrinks the result by 4 (problem A of
:footcite:t:`spagnoletti2025lvtino`), and LVTINO samples from the posterior

.. math::

    p(x | y) \propto p(y | x) \, p_V(x)^{\eta} \, p_I(x)^{1 - \eta}.
"""

import matplotlib.pyplot as plt
import torch
from deepinv.loss.metric import PSNR

from deepinv_lvtino import LVTINO, Schedule, make_problem
from deepinv_lvtino.datasets import procedural_clip

# %%
# A video
# -------
#
# Videos are tensors ``(B, C, T, H, W)`` with values in [0, 1]. This one is computed, so
# that it can be had in any size.

x = procedural_clip(num_frames=25, height=96, width=160)[None]
print("video:", tuple(x.shape))

# %%
# The measurement
# ---------------
#
# ``physics`` is a DeepInverse operator. It acts on time, height and width separately,
# which makes every step of the sampler exact and fast.

sigma = 0.001
rng = torch.Generator().manual_seed(0)
physics = make_problem("A", img_size=tuple(x.shape[1:]), sigma=sigma, rng=rng)
y = physics(x)
print("measurement:", tuple(y.shape))

# %%
# The sampler
# -----------
#
# Without models, the priors are the embedded pair of small networks, with settings for
# every problem. One call draws one sample; several give the posterior's mean and variance.

solver = LVTINO(schedule=Schedule.embedded("A"), seed=0)
sample, metrics = solver(y, physics, x_gt=x, compute_metrics=True)
mean, variance = solver.sample(y, physics, num_samples=4)
plain = physics.A_dagger(y)

# %%
# The numbers
# -----------
#
# PSNR in dB, and the residual :math:`\|A \hat x - y\| / \sqrt{m}`, which should not be
# larger than the noise. A sample has a lower PSNR than the mean by its nature: it does not
# average over what the measurement leaves open.

psnr = PSNR()
for name, estimate in {"A† y": plain, "sample": sample, "mean of 4": mean}.items():
    residual = (physics.A(estimate) - y).square().mean().sqrt()
    print(
        f"{name:10s} PSNR {psnr(estimate, x).item():6.2f} dB   residual {residual:.2e}"
    )

sweeps = ", ".join(f"{value:.2f}" for value in metrics["psnr"][0])
print("PSNR over the sweeps:", sweeps)

frames = [psnr(mean[:, :, t], x[:, :, t]).item() for t in range(x.shape[2])]
print(f"PSNR of the mean per frame: {min(frames):.2f} to {max(frames):.2f} dB")

# %%
# The pictures
# ------------
#
# One frame, and one row of pixels over time below it: vertical lines are things that
# stand still, slanted ones things that move. The standard deviation of the samples says
# where the result is a guess.

panels = {
    "ground truth": x,
    "A† y": plain,
    "sample": sample,
    "mean of 4": mean,
    "standard deviation": variance.sqrt() / variance.sqrt().max(),
}
frame, row = x.shape[2] // 2, x.shape[3] // 2
figure, axes = plt.subplots(
    2, len(panels), figsize=(12, 3.2), layout="constrained", height_ratios=(3, 1.2)
)
for column, (name, video) in enumerate(panels.items()):
    video = video[0].clamp(0, 1)
    axes[0, column].imshow(video[:, frame].permute(1, 2, 0))
    axes[0, column].set_title(name, fontsize=10)
    axes[1, column].imshow(video[:, :, row].permute(1, 2, 0), aspect="auto")
    for axis in axes[:, column]:
        axis.set_xticks([])
        axis.set_yticks([])
axes[0, 0].set_ylabel(f"frame {frame}", fontsize=9)
axes[1, 0].set_ylabel("time", fontsize=9)
plt.show()

# %%
# :References:
#
# .. footbibliography::
