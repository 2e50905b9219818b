r"""
Quickstart: restore a video
===========================

A clip is recorded with a quarter of the frames and a sixteenth of the pixels. Which clips
explain such a recording? We measure, restore with :class:`deepinv_lvtino.LVTINO`, and
compare with the truth and the plain inverse.

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
from torch.nn.functional import interpolate

from deepinv_lvtino import LVTINO, Schedule, make_problem
from deepinv_lvtino.datasets import procedural_clip
from deepinv_lvtino.metrics import FrameMetric
from deepinv_lvtino.plotting import (
    plot_time_slices,
    write_side_by_side,
)

# True: Wan 2.1 and SDXL in their published setting (downloads, needs a large GPU)
REAL_MODELS = False

# %%
# A video
# -------
#
# Videos are tensors ``(B, C, T, H, W)`` with values in [0, 1]. This one is computed, so
# that it can be had in any size; :func:`deepinv_lvtino.datasets.read_video` reads a file.

size, device = (
    ((25, 768, 1280), "cuda")
    if REAL_MODELS
    else ((16, 96, 160), "cpu")
)
x = procedural_clip(*size)[None].to(device)
print("video:", tuple(x.shape))

# %%
# The measurement
# ---------------
#
# ``physics`` is a DeepInverse operator. It acts on time, height and width separately,
# which makes every step of the sampler exact and fast.

sigma = 0.001
rng = torch.Generator(device).manual_seed(0)
physics = make_problem(
    "A",
    img_size=tuple(x.shape[1:]),
    sigma=sigma,
    rng=rng,
    device=device,
)
y = physics(x)
print("measurement:", tuple(y.shape))

# %%
# The sampler
# -----------
#
# Without models, the priors are the embedded pair of small networks, with settings for
# every problem.

if REAL_MODELS:
    from deepinv_lvtino.models import (
        SDXLConsistencyModel,
        WanConsistencyModel,
    )

    solver = LVTINO(
        WanConsistencyModel.from_pretrained(),
        SDXLConsistencyModel.from_pretrained(),
        schedule=Schedule.published("A"),
        seed=0,
    )
else:
    solver = LVTINO(schedule=Schedule.embedded("A"), seed=0)

# %%
# One call, ``solver(y, physics)``, draws one sample of the posterior. Several give its
# mean and variance; the callback keeps the first of them.

samples = []
mean, variance = solver.sample(
    y,
    physics,
    num_samples=3,
    callback=lambda _, u: samples.append(u),
)
plain = physics.A_dagger(y)

# %%
# The numbers
# -----------
#
# PSNR in dB, mean over the frames and range, and the residual
# :math:`\|A \hat x - y\| / \sqrt{m}`, which should not be larger than the noise. A sample
# has a lower PSNR than the mean by its nature: it does not average over what the
# measurement leaves open.

psnr = FrameMetric(PSNR())
for name, video in {
    "A† y": plain,
    "sample": samples[0],
    "mean of 3": mean,
}.items():
    residual = (physics.A(video) - y).square().mean().sqrt()
    frames = psnr.per_frame(video, x)
    print(
        f"{name:10s} PSNR {frames.mean():6.2f} dB "
        f"({frames.min():.2f} to "
        f"{frames.max():.2f})   residual {residual:.2e}"
    )

# %%
# The pictures
# ------------
#
# What was recorded, one sample, and the truth. For the picture the recording is enlarged
# by repeating its frames and pixels.

recorded = interpolate(y, x.shape[2:], mode="nearest")
shown = {"recorded": recorded, "restored": samples[0], "truth": x}
write_side_by_side("quickstart.mp4", shown, fps=8, overwrite=True)

# %%
# One row of pixels over time, downwards: what stands still draws upright lines, what moves
# slanted ones, and what jumps torn ones.

plot_time_slices(
    {"recorded": recorded, "A† y": plain} | shown, row=70
)
plt.show()

# %%
# The standard deviation of the samples says where the result is a guess: at edges and in
# fine texture.

frame = x.shape[2] // 2
deviation = variance.sqrt().mean(1)[0, frame].cpu()
figure, axes = plt.subplots(
    1, 3, figsize=(10, 2.3), layout="constrained"
)
pair = {"sample": samples[0], "mean": mean}
for axis, (name, video) in zip(axes, pair.items(), strict=False):
    axis.imshow(
        video[0, :, frame].clamp(0, 1).permute(1, 2, 0).cpu()
    )
    axis.set_title(f"{name}, frame {frame}", fontsize=10)
picture = axes[2].imshow(deviation, cmap="magma")
axes[2].set_title("standard deviation", fontsize=10)
figure.colorbar(picture, ax=axes[2], shrink=0.8)
for axis in axes:
    axis.set_xticks([])
    axis.set_yticks([])
plt.show()

# %%
# Where to go from here: the :ref:`quickstart page <quickstart>` restores a file of your
# own.
#
# :References:
#
# .. footbibliography::
