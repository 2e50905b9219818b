r"""
A camera of your own
====================

The problems that have names are only examples. Any linear measurement

.. math::

    y = A x + n, \qquad n \sim \mathcal{N}(0, \sigma_n^2 I)

can be restored. Three ways to write an operator are shown: one matrix per axis, an image
operator of DeepInverse on every frame, and a blur kernel of one's own. What do they cost,
and which data step do they get?
"""

# sphinx_gallery_thumbnail_number = 1

import matplotlib.pyplot as plt
import torch
from deepinv.loss.metric import PSNR
from deepinv.physics import (
    Blur,
    BlurFFT,
    Demosaicing,
    GaussianNoise,
)

from deepinv_lvtino import LVTINO
from deepinv_lvtino.datasets import procedural_clip
from deepinv_lvtino.metrics import FrameMetric
from deepinv_lvtino.optim import motion_start
from deepinv_lvtino.physics import (
    FramewisePhysics,
    SeparableVideoPhysics,
    VideoDownsampling,
)
from deepinv_lvtino.plotting import (
    plot_time_slices,
    write_side_by_side,
)

x = procedural_clip(num_frames=12, height=96, width=160)[None]
size = tuple(x.shape[1:])
psnr = FrameMetric(PSNR())


def report(name, video, y, physics, truth=x):
    """PSNR over the frames, and the residual."""
    frames = psnr.per_frame(video, truth)
    residual = (physics.A(video) - y).square().mean().sqrt()
    print(
        f"{name:<15s} PSNR {frames.mean():6.2f} dB "
        f"({frames.min():.2f} to "
        f"{frames.max():.2f})  residual {residual:.1e}"
    )


def sample_and_mean(solver, y, physics, num_samples=8):
    """The first of several samples, and their mean."""
    samples = []
    mean, _ = solver.sample(
        y,
        physics,
        num_samples,
        callback=lambda _, u: samples.append(u),
    )
    return samples[0], mean


# %%
# One matrix per axis
# -------------------
#
# A camera that writes every third frame. Its shutter is open for two of the three, so
# that one is never seen; rows are read in pairs. Along time that is the matrix
#
# .. math::
#
#     A_T = \begin{pmatrix} \tfrac12 & \tfrac12 & 0 & & & \\ & & & \tfrac12 & \tfrac12 & 0
#     \\ & & & & & \ddots \end{pmatrix}
#
# and along height the mean of two neighbours.
# :class:`~deepinv_lvtino.physics.SeparableVideoPhysics` needs no more than these two, and
# every data step is in closed form.

shutter = torch.kron(
    torch.eye(size[1] // 3), torch.tensor([[0.5, 0.5, 0.0]])
)
pairs = torch.kron(
    torch.eye(size[2] // 2), torch.tensor([[0.5, 0.5]])
)
noise = GaussianNoise(0.01, rng=torch.Generator().manual_seed(0))
camera = SeparableVideoPhysics(
    size, temporal=shutter, vertical=pairs, noise_model=noise
)
y = camera(x)
print("video", size, "to measurement", tuple(y.shape[1:]))

u, v = torch.rand(2, *size), torch.rand(2, *y.shape[1:])
left, right = (
    (camera.A(u) * v).sum(),
    (u * camera.A_adjoint(v)).sum(),
)
print(f"adjoint: {abs(left - right) / left:.0e} (relative)")

# %%
# Operators without a name need no settings: the default start follows the motion between
# the frames that were seen, with a weight that the operator and its noise decide, and the
# steps after it are small. A *sample* draws what was not measured, and so lies below the
# mean of several in PSNR, here also below its start. The mean comes within a tenth of a
# decibel of that: of frames that were never seen, the motion says nearly all that can be
# said.

solver = LVTINO(seed=0)
restored, mean = sample_and_mean(solver, y, camera)
report("A† y", camera.A_dagger(y), y, camera)
report("the start", motion_start(y, camera), y, camera)
report("one sample", restored, y, camera)
report("mean of 8", mean, y, camera)

# %%
# For the picture, what the camera wrote: rows and frames repeated.

raw = y.repeat_interleave(3, dim=2).repeat_interleave(2, dim=3)
shown = {
    "camera": raw,
    "A† y": camera.A_dagger(y),
    "one sample": restored,
    "truth": x,
}
write_side_by_side("camera.mp4", shown, fps=8, overwrite=True)
plot_time_slices(shown)
plt.show()

# %%
# Products
# --------
#
# Separable operators multiply, and the product is exact again: the same camera behind a
# lens that halves the resolution.

lens = VideoDownsampling(size, factor=2, noise_model=None)
small = SeparableVideoPhysics(
    lens.measurement_size,
    temporal=shutter,
    vertical=pairs[: size[2] // 4, : size[2] // 2],
    noise_model=noise,
)
both = small * lens
print("behind the lens:", both.measurement_size)

# %%
# An image operator on every frame
# --------------------------------
#
# A colour sensor sees one colour per pixel, behind a mosaic of filters. DeepInverse has
# that operator for images; :class:`~deepinv_lvtino.physics.FramewisePhysics` makes it one
# for videos. Like all of DeepInverse's decomposable operators it has a closed form, here
# for all frames at once.

mosaic = FramewisePhysics(
    Demosaicing(img_size=size[0:1] + size[2:]), noise_model=noise
)
y = mosaic(x)
print(
    "measurement",
    tuple(y.shape[1:]),
    "of which a third is not zero",
)
restored, mean = sample_and_mean(solver, y, mosaic)
report("A† y", mosaic.A_dagger(y), y, mosaic)
report("one sample", restored, y, mosaic)
report("mean of 8", mean, y, mosaic)

frame, part = 6, (slice(40, 96), slice(30, 114))
figure, axes = plt.subplots(
    1, 3, figsize=(11, 2.8), layout="constrained"
)
for axis, (name, video) in zip(
    axes,
    {"mosaic": y, "one sample": restored, "truth": x}.items(),
    strict=True,
):
    axis.imshow(
        video[0, :, frame].permute(1, 2, 0).clamp(0, 1)[part]
    )
    axis.set_title(name, fontsize=10)
    axis.set_axis_off()
plt.show()

# %%
# A blur kernel of your own
# -------------------------
#
# A camera that was shaken along a diagonal. A kernel of rank one is for
# :class:`~deepinv_lvtino.physics.VideoBlur`; this one is not separable. With a circular
# border, as :class:`deepinv.physics.BlurFFT` has it, Fourier transforms give closed forms.
# A recording has another border, and then everything is iterated: here a data step 7 to 19
# times, and the start, which needs no network, some 2000 times. The operator is
# :class:`deepinv.physics.Blur`; nothing else changes.

part = x[:, :, :5, 16:80, 32:128]
shaken = torch.eye(7)[None, None] / 7
kinds = {
    "circular": BlurFFT(img_size=(3, 64, 96), filter=shaken),
    "reflecting": Blur(filter=shaken, padding="reflect"),
}
shown = {}
for name, image_physics in kinds.items():
    noise = GaussianNoise(
        0.01, rng=torch.Generator().manual_seed(0)
    )
    blur = FramewisePhysics(image_physics, noise_model=noise)
    y = blur(part)
    restored, mean = sample_and_mean(solver, y, blur)
    print(f"{name} border: closed form {blur.exact_prox}")
    report("the blurred", y, y, blur, part)
    report("one sample", restored, y, blur, part)
    report("mean of 8", mean, y, blur, part)
    shown |= {
        f"blurred, {name}": y,
        f"one sample, {name}": restored,
    }

figure, axes = plt.subplots(
    1, 5, figsize=(13, 2.2), layout="constrained"
)
for axis, (name, video) in zip(
    axes, (shown | {"truth": part}).items(), strict=True
):
    axis.imshow(video[0, :, 2].permute(1, 2, 0).clamp(0, 1))
    axis.set_title(name, fontsize=9)
    axis.set_axis_off()
plt.show()

# %%
# An iteration that does not reach the solution to a thousandth of the step is an error, a
# :class:`~deepinv_lvtino.optim.DataStepError`, never a wrong video. Any linear operator of
# DeepInverse works so, products with ``*`` among them. For operators that are not linear
# see the example on JPEG.
