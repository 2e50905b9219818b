r"""
JPEG, an operator that is not linear
====================================

Frames that were stored as JPEG of low quality,

.. math::

    y = \operatorname{JPEG}_{10}(x + n), \qquad n \sim \mathcal{N}(0, \sigma_n^2 I),

show blocks and rings. The operator is a staircase: it has no adjoint, no pseudo-inverse
and a derivative that vanishes almost everywhere. Can LVTINO still use it?

It can, with data steps that only need :math:`A` itself. The Jacobian is replaced by the
identity, and a few Landweber steps, :math:`u \leftarrow u - \gamma \,
(\operatorname{JPEG}(u) - y)`, pull the video to where it compresses to the measurement.
"""

# sphinx_gallery_thumbnail_number = 1

import matplotlib.pyplot as plt
import torch
from deepinv.loss.metric import PSNR, SSIM

from deepinv_lvtino import LVTINO, Schedule, make_problem
from deepinv_lvtino.datasets import procedural_clip
from deepinv_lvtino.metrics import (
    FrameMetric,
    TemporalDifferenceError,
)
from deepinv_lvtino.plotting import (
    plot_time_slices,
    write_side_by_side,
)

# True: Wan 2.1 and SDXL in their published setting (downloads, needs a large GPU)
REAL_MODELS = False

# %%
# The measurement
# ---------------

if REAL_MODELS:
    from deepinv_lvtino.models import (
        SDXLConsistencyModel,
        WanConsistencyModel,
    )

    size, device = (25, 768, 1280), "cuda"
    models = (
        WanConsistencyModel.from_pretrained(),
        SDXLConsistencyModel.from_pretrained(),
    )
else:
    size, device, models = (8, 96, 160), "cpu", ()

x = procedural_clip(*size)[None].to(device)
rng = torch.Generator(device).manual_seed(0)
physics = make_problem(
    "jpeg", img_size=tuple(x.shape[1:]), rng=rng
)
y = physics(x)

# %%
# The sampler
# -----------
#
# The published schedule for JPEG has Landweber steps; so would a schedule of your own,
# with :class:`deepinv_lvtino.optim.LandweberStep`. One sample draws texture that may have
# been there, the mean of several keeps what they agree on.

solver = LVTINO(
    *models, schedule=Schedule.published("jpeg"), seed=0
)
samples = []
mean, _ = solver.sample(
    y,
    physics,
    num_samples=8,
    callback=lambda _, u: samples.append(u),
)
videos = {
    "JPEG": y,
    "one sample": samples[0],
    "mean of 8": mean,
    "truth": x,
}

# %%
# The numbers
# -----------
#
# A sample compresses to the measurement, up to a few coefficients that lie on the edge of
# a stair, and still lies below it in PSNR: JPEG has removed the detail that would be
# wrong, a sample has to guess it. The mean of several does better than either.

psnr, ssim = FrameMetric(PSNR()), FrameMetric(SSIM())
flicker = TemporalDifferenceError()
for name, video in videos.items():
    if name == "truth":
        continue
    residual = (physics.A(video) - y).square().mean().sqrt()
    print(
        f"{name:<11s} PSNR {psnr(video, x).item():6.2f} dB  "
        f"SSIM {ssim(video, x).item():.3f}  flicker "
        f"{flicker(video, x).item():.4f}  "
        f"residual {residual:.1e}"
    )

# %%
# The pictures
# ------------

videos = {name: video.cpu() for name, video in videos.items()}
frame, part = x.shape[2] // 2, (slice(40, 96), slice(40, 124))
figure, axes = plt.subplots(
    2, len(videos), figsize=(12, 4.6), layout="constrained"
)
for column, (name, video) in enumerate(videos.items()):
    picture = video[0, :, frame].clamp(0, 1).permute(1, 2, 0)
    axes[0, column].imshow(picture)
    axes[0, column].set_title(name, fontsize=10)
    axes[1, column].imshow(picture[part])
    for axis in axes[:, column]:
        axis.set_axis_off()
plt.show()

# %%
# Blocks do not move with the scene: over time, JPEG is a grid that objects pass behind.

plot_time_slices(videos)
plt.show()

# %%

write_side_by_side("jpeg.mp4", videos, fps=6, overwrite=True)
