r"""
How much to trust the video prior
=================================

LVTINO combines a video prior and an image prior with a weight,

.. math::

    p(x | y) \propto p(y | x) \, p_V(x)^{\eta} \, p_I(x)^{1 - \eta}.

The image prior treats every frame alone: it may draw other details in each, and the video
flickers. The video prior sees all frames and keeps them consistent, at the price of
detail. How much of either is best, and how does one see it?
"""

# sphinx_gallery_thumbnail_number = 1

import matplotlib.pyplot as plt
import torch
from deepinv.loss.metric import PSNR

from deepinv_lvtino import LVTINO, Schedule, make_problem
from deepinv_lvtino.datasets import procedural_clip
from deepinv_lvtino.metrics import (
    FrameMetric,
    TemporalDifferenceError,
    WarpingError,
)
from deepinv_lvtino.models import tiny_image, tiny_video
from deepinv_lvtino.plotting import (
    plot_time_slices,
    write_side_by_side,
)

# True: Wan 2.1 and SDXL (downloads, needs a large GPU)
REAL_MODELS = False

# %%
# One measurement, five weights
# -----------------------------
#
# Problem A: a quarter of the frames, a sixteenth of the pixels. The steps
# :math:`\delta_k` and the seed stay the same.

if REAL_MODELS:
    from deepinv_lvtino.models import (
        SDXLConsistencyModel,
        WanConsistencyModel,
    )

    size, device = (25, 768, 1280), "cuda"
    video_model = WanConsistencyModel.from_pretrained()
    image_model = SDXLConsistencyModel.from_pretrained()
else:
    size, device = (16, 64, 96), "cpu"
    video_model, image_model = tiny_video(), tiny_image()

x = procedural_clip(*size)[None].to(device)
rng = torch.Generator(device).manual_seed(0)
physics = make_problem(
    "A",
    img_size=tuple(x.shape[1:]),
    sigma=0.001,
    rng=rng,
    device=device,
)
y = physics(x)
delta = [0.25, 0.075, 0.022, 0.0067, 0.002]

samples = {}
for eta in (0.0, 0.25, 0.5, 0.75, 1.0):
    solver = LVTINO(
        video_model,
        image_model,
        schedule=Schedule.calibrated(delta, eta),
        seed=0,
    )
    samples[eta] = solver(y, physics).cpu()
x, y, physics = x.cpu(), y.cpu(), physics.cpu()

# %%
# The numbers
# -----------
#
# Two metrics of motion: the error of the differences between successive frames, and the
# warping error, the squared difference between a frame and the next one brought back
# along the optical flow of the truth. And one of detail: the energy of the spatial
# differences, relative to the truth; below 1 the video is too smooth.


def detail(video):
    """Mean square of differences between neighbours."""
    return sum(
        torch.diff(video, dim=axis).square().mean()
        for axis in (3, 4)
    )


psnr = FrameMetric(PSNR())
flicker, warping = TemporalDifferenceError(), WarpingError()
print(
    "   eta   PSNR  flicker  warping/1e-3      detail  residual"
)
for name, video in [*samples.items(), ("truth", x)]:
    residual = (physics.A(video) - y).square().mean().sqrt()
    score = (
        "" if name == "truth" else f"{psnr(video, x).item():.2f}"
    )
    print(
        f"{name!s:>6s} {score:>6s} "
        f"{flicker(video, x).item():8.4f} "
        f"{1e3 * warping(video, x).item():12.2f} "
        f"{detail(video) / detail(x):11.2f} "
        f"{residual:9.1e}"
    )

# %%
# The pictures
# ------------
#
# One row of pixels over time, downwards: smooth lines are smooth motion, and where the
# video flickers they are torn.

named = {
    f"eta = {eta}": video for eta, video in samples.items()
} | {"truth": x}
chosen = {
    name: named[name]
    for name in ("eta = 0.0", "eta = 0.5", "eta = 1.0", "truth")
}
plot_time_slices(chosen, row=48)
plt.show()

# %%
# The same as a moving picture.

write_side_by_side("eta.mp4", chosen, fps=8, overwrite=True)

# %%
# What to choose
# --------------
#
# The best weight depends on the models, on the motion, and on what is to be judged: for
# the embedded models :meth:`deepinv_lvtino.Schedule.embedded` has the weights that were
# best on procedural clips. The extremes cost half as much, as one model is never
# evaluated.
