r"""
A prior of your own
===================

LVTINO takes any model that jumps from a noisy video to a clean one,

.. math::

    f(z_t, t) = z_0, \qquad z_t = a(t) \, z + s(t) \, \varepsilon.

What if all there is is a denoiser? Denoisers are everywhere, and at first sight they do
just that. We wrap one as a :class:`~deepinv_lvtino.models.ConsistencyModel`, use it in
place of the embedded image model, and see what is lost.
"""

# sphinx_gallery_thumbnail_number = 2

import matplotlib.pyplot as plt
import torch
from deepinv.loss.metric import PSNR
from deepinv.models import TVDenoiser

from deepinv_lvtino import LVTINO, Schedule, make_problem
from deepinv_lvtino.datasets import procedural_clip
from deepinv_lvtino.metrics import FrameMetric
from deepinv_lvtino.models import (
    ConsistencyModel,
    VariancePreserving,
    tiny_image,
    tiny_video,
)
from deepinv_lvtino.plotting import plot_time_slices

# %%
# The model
# ---------
#
# Three things are to be said. The noise convention: ``VariancePreserving``, as of most
# image models. The latent: pixels as they are, so that one unit of it is one unit of the
# video, ``pixel_scale=1``. And the jump: the noisy frame divided by :math:`a(t)` is the
# clean frame plus noise of standard deviation :math:`s(t)/a(t)`, which is what a denoiser
# expects.


class DenoiserModel(ConsistencyModel):
    """An image denoiser of DeepInverse as an image prior."""

    def __init__(self, denoiser, strength=1.0):
        super().__init__(
            VariancePreserving(), pixel_scale=1.0, per_frame=True
        )
        self.denoiser, self.strength = denoiser, strength

    def denoise(self, latent, t):
        frames = latent.transpose(1, 2).flatten(
            0, 1
        ) / self.schedule.alpha(t)
        level = (
            self.strength * self.schedule.noise_ratio(t) ** 0.5
        )
        clean = self.denoiser(frames, level)
        return clean.unflatten(0, (len(latent), -1)).transpose(
            1, 2
        )


# %%
# Does it do what a prior should? At low noise it must hardly change a video; the more
# noise, the more it may draw anew. The encoder, the decoder and any size come with the
# base class.

x = procedural_clip(num_frames=12, height=64, width=96)[None]
tv = DenoiserModel(TVDenoiser(n_it_max=100), strength=0.5)
psnr = FrameMetric(PSNR())
rng = torch.Generator().manual_seed(0)
print(
    "time  noise   PSNR after one stochastic autoencoding: TV, "
    "embedded"
)
for noise in (0.05, 0.1, 0.2, 0.4):
    values = []
    for model in (tv, tiny_image()):
        t = model.schedule.time((noise / model.pixel_scale) ** 2)
        values.append(
            psnr(model.sae(x, t, generator=rng), x).item()
        )
    print(
        f"{t:4.0f}  {noise:5.2f}  {values[0]:6.2f}  "
        f"{values[1]:6.2f} dB"
    )

# %%
# In the sampler
# --------------
#
# Problem A, the video model as before, and one image prior after the other.

rng = torch.Generator().manual_seed(0)
physics = make_problem(
    "A", img_size=tuple(x.shape[1:]), sigma=0.001, rng=rng
)
y = physics(x)
schedule = Schedule.calibrated(
    delta=[0.1, 0.03, 0.01, 0.003], eta=0.6
)
priors = {
    "total variation": tv,
    "embedded": tiny_image(),
    "none": None,
}
videos = {}
for name, image_model in priors.items():
    solver = LVTINO(
        tiny_video(), image_model, schedule=schedule, seed=0
    )
    videos[name] = solver(y, physics)
    frames = psnr.per_frame(videos[name], x)
    residual = (
        (physics.A(videos[name]) - y).square().mean().sqrt()
    )
    print(
        f"image prior {name:<16s} PSNR {frames.mean():6.2f} dB "
        f"({frames.min():.2f} to "
        f"{frames.max():.2f})  residual {residual:.1e}"
    )

figure, axes = plt.subplots(
    1, 4, figsize=(12, 2.4), layout="constrained"
)
shown = {
    f"image prior: {name}": video
    for name, video in videos.items()
} | {"truth": x}
for axis, (name, video) in zip(axes, shown.items(), strict=True):
    axis.imshow(video[0, :, 6].permute(1, 2, 0).clamp(0, 1))
    axis.set_title(name, fontsize=10)
    axis.set_axis_off()
plot_time_slices(shown)
plt.show()

# %%
# What a denoiser is not
# ----------------------
#
# A consistency model ends in a *sample*: repeated stochastic autoencoding goes on drawing
# plausible frames. A denoiser ends in a *mean*, with less energy each time: repeated, it
# wipes the picture clean. In the sampler the data step stops it, and what remains is a
# smoother result: ahead in PSNR above, as means are, and behind in detail. Below, detail is
# the energy of the spatial differences relative to the truth.


def detail(video):
    """Mean square of differences between neighbours."""
    return sum(
        torch.diff(video, dim=axis).square().mean()
        for axis in (3, 4)
    )


repeats, noise = 10, 0.1
figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
for name, model in (
    ("total variation", tv),
    ("embedded", tiny_image()),
):
    t = model.schedule.time((noise / model.pixel_scale) ** 2)
    u, curve = x[:, :, :1], [1.0]
    for _ in range(repeats):
        u = model.sae(u, t, generator=rng)
        curve.append((detail(u) / detail(x[:, :, :1])).item())
    axis.plot(curve, "o-", label=name)
    print(
        f"{name:<16s} detail after {repeats} steps: "
        f"{curve[-1]:.2f}"
    )
axis.set_xlabel("repeated stochastic autoencodings of one frame")
axis.set_ylabel("detail")
axis.set_ylim(0, None)
axis.legend(title="image prior")
axis.grid(alpha=0.3)
plt.show()

# %%
# So a denoiser will do for a first look, and a network that was distilled to jump is
# better. How to bring one: :ref:`own-model`.
