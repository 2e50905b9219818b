r"""
The three published problems
============================

LVTINO was introduced with three degradations :footcite:p:`spagnoletti2025lvtino`,

.. math::

    y = A x + n, \qquad n \sim \mathcal{N}(0, \sigma_n^2 I), \qquad \sigma_n = 0.001,

in which :math:`A` loses time and space: **A** keeps the means of groups of 4 frames and a
sixteenth of the pixels, **B** blurs over 7 frames and keeps a sixty-fourth of the pixels,
**C** keeps the means of groups of 8 frames and a sixty-fourth of the pixels. How much is
left, and what can be had back?
"""

# sphinx_gallery_thumbnail_number = 1

import matplotlib.pyplot as plt
import torch
from deepinv.loss.metric import PSNR, SSIM
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
# Models and schedules
# --------------------
#
# Every problem has its own settings: with the embedded models those of
# :meth:`deepinv_lvtino.Schedule.embedded`, with Wan and SDXL the published ones.

if REAL_MODELS:
    from deepinv_lvtino.models import (
        SDXLConsistencyModel,
        WanConsistencyModel,
    )

    size, device, settings = (
        (25, 768, 1280),
        "cuda",
        Schedule.published,
    )
    models = (
        WanConsistencyModel.from_pretrained(),
        SDXLConsistencyModel.from_pretrained(),
    )
else:
    size, device, settings = (
        (16, 96, 160),
        "cpu",
        Schedule.embedded,
    )
    models = ()  # the embedded pair

x = procedural_clip(*size)[None].to(device)

# %%
# Restoring
# ---------
#
# One sample for each problem. For the pictures the measurement is enlarged by repeating
# its frames and pixels.

psnr, ssim = FrameMetric(PSNR()), FrameMetric(SSIM())
rows = {}
for problem in ("A", "B", "C"):
    rng = torch.Generator(device).manual_seed(0)
    physics = make_problem(
        problem,
        img_size=tuple(x.shape[1:]),
        sigma=0.001,
        rng=rng,
        device=device,
    )
    y = physics(x)
    solver = LVTINO(*models, schedule=settings(problem), seed=0)
    # the published start of C is an interpolation network's
    # result; here a classical one
    init = (
        "interpolate" if REAL_MODELS and problem == "C" else None
    )
    sample, plain = (
        solver(y, physics, init=init),
        physics.A_dagger(y),
    )
    print(
        f"problem {problem}: 1 of {x.numel() // y.numel()} "
        "numbers measured, "
        f"{solver.num_evaluations} network evaluations"
    )
    for name, video in {"A† y": plain, "sample": sample}.items():
        residual = (physics.A(video) - y).square().mean().sqrt()
        frames = psnr.per_frame(video, x)
        print(
            f"  {name:<7s} PSNR {frames.mean():6.2f} dB "
            f"({frames.min():.2f} to "
            f"{frames.max():.2f} over the frames)  SSIM "
            f"{ssim(video, x).item():.3f}  "
            f"residual {residual:.1e}"
        )
    rows[problem] = {
        "measurement": interpolate(
            y, x.shape[2:], mode="nearest"
        ).cpu(),
        "A† y": plain.cpu(),
        "one sample": sample.cpu(),
        "truth": x.cpu(),
    }

# %%
# Problem A
# ---------
#
# The measurement moves in steps of four frames. The sample has its motion back, and
# edges; what the measurement leaves open is drawn by the priors.

write_side_by_side(
    "problem_A.mp4", rows["A"], fps=8, overwrite=True
)

# %%
# Problem B
# ---------
#
# All frames are there, each a mean of seven.

write_side_by_side(
    "problem_B.mp4", rows["B"], fps=8, overwrite=True
)

# %%
# Problem C
# ---------
#
# Two frames of 20 by 12 pixels for sixteen of 160 by 96.

write_side_by_side(
    "problem_C.mp4", rows["C"], fps=8, overwrite=True
)

# %%
# Over time
# ---------
#
# The middle column of pixels, time to the right. From top to bottom: problems A, B and C.

for videos in rows.values():
    plot_time_slices(videos)
plt.show()

# %%
# :References:
#
# .. footbibliography::
