r"""
Variation along the motion
==========================

Total variation along time asks that a *pixel* changes little from frame to frame. Where
something moves that is the wrong wish: the next frame shows the same object a few pixels
on. Along the trajectory the wish is right. With the flow :math:`f_t` from frame :math:`t`
to the next, the warp :math:`W_t` along it and a weight :math:`w_t` that follows from the
trust in it,

.. math::

    K_t x = w_t \, (W_t x_{t+1} - x_t), \qquad
    \mathrm{TV}(x) = \sum \sqrt{(K_t x)^2 + (\partial_h x)^2 + (\partial_w x)^2}.

Where does the flow come from, when the video is what we want to know?
"""

# sphinx_gallery_thumbnail_number = 2

import matplotlib.pyplot as plt
import torch
from deepinv.loss.metric import PSNR
from matplotlib.colors import hsv_to_rgb

from deepinv_lvtino import make_problem
from deepinv_lvtino.datasets import procedural_clip
from deepinv_lvtino.metrics import (
    FrameMetric,
    TemporalDifferenceError,
)
from deepinv_lvtino.optim import (
    ADMMTV,
    MotionTV,
    measured_motion,
    video_motion,
)
from deepinv_lvtino.plotting import plot_time_slices

# %%
# The measurement
# ---------------
#
# Problem A: of four frames one, their mean, and of 16 pixels one.

x = procedural_clip(num_frames=25, height=96, width=144)[None]
rng = torch.Generator().manual_seed(0)
physics = make_problem(
    "A", img_size=tuple(x.shape[1:]), sigma=0.001, rng=rng
)
y = physics(x)

# %%
# The flow
# --------
#
# Static variation fills a group of frames that was measured as one with a picture that
# stands still, and jumps to the next: its flow is zero within the group.
# :func:`~deepinv_lvtino.optim.measured_motion` takes the flow between the *measured*
# frames instead and shares it out over the frames between them. The flow of the true clip
# is shown beside them. Colour says where a pixel goes, strength how far.

static = ADMMTV("A")(y, physics)
true = video_motion(x).flow
motions = {
    "of the static estimate": video_motion(static.clamp(0, 1)),
    "of the measured frames": measured_motion(y, physics),
}


def coloured(flow, farthest):
    turn = (
        torch.atan2(flow[..., 1], flow[..., 0]) / (2 * torch.pi)
        + 0.5
    )
    far = (flow.norm(dim=-1) / farthest).clamp(max=1)
    return hsv_to_rgb(
        torch.stack(
            [turn, far, torch.ones_like(far)], dim=-1
        ).numpy()
    )


t = 13  # within a group
farthest = true[0, t].norm(dim=-1).max()
figure, axes = plt.subplots(
    2, 3, figsize=(9, 4.2), layout="constrained"
)
shown = {"of the true clip": true} | {
    k: m.flow for k, m in motions.items()
}
for axis, (name, flow) in zip(
    axes[0], shown.items(), strict=True
):
    axis.imshow(coloured(flow[0, t], farthest))
    error = (flow - true).norm(dim=-1).mean()
    axis.set_title(
        f"flow {name}\nmean error {error:.2f} pixels", fontsize=9
    )
axes[1, 0].imshow(x[0, :, t].permute(1, 2, 0).clamp(0, 1))
axes[1, 0].set_title(f"frame {t}", fontsize=9)
for axis, motion in zip(
    axes[1, 1:], motions.values(), strict=True
):
    axis.imshow(motion.trust[0, t], cmap="gray", vmin=0, vmax=1)
    axis.set_title("trust in it", fontsize=9)
for axis in axes.flat:
    axis.axis("off")
plt.show()

# %%
# Static against moving
# ---------------------
#
# :class:`~deepinv_lvtino.optim.MotionTV` begins with that flow, and estimates flow and
# trust again from the video as it improves. With the flow of the true clip, which nobody
# has, one sees what a better estimate could still gain.

moving = MotionTV()(y, physics)
ceiling = MotionTV(flow=video_motion(x))(y, physics)

psnr, difference = FrameMetric(PSNR()), TemporalDifferenceError()
results = {
    "static": static,
    "moving": moving,
    "with the true flow": ceiling,
}
print(
    f"{'variation':<20s}{'PSNR (dB)':>10s}{'temporal error':>16s}"
)
for name, u in results.items():
    print(
        f"{name:<20s}{psnr(u, x).item():10.2f}"
        f"{difference(u, x).item():16.4f}"
    )

# %%
# A row of pixels over time: standing still makes stairs of what moves.

plot_time_slices(
    {"static": static, "moving": moving, "truth": x}, row=48
)
plt.show()

# %%
# In the sampler
# --------------
#
# ``LVTINO(init="motion")`` starts from this estimate, as the settings of the embedded
# models do, and ``LVTINO(tv="motion")`` follows the motion in every sweep. A flow of your
# own, by a network for instance, is given as a function of two batches of images:
# ``MotionTV(flow=...)``, ``LVTINO(tv=MotionVariation(flow=...))``.
