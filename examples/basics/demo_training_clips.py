r"""
What the embedded models have seen
==================================

The models that come with the package began with computed clips, before footage: moving
scenes of *dead leaves*, opaque shapes that hide one another. Which statistics of real
video do they have?
"""

# %%
# Clips
# -----
#
# Every clip is a function of its number and a seed. Here are the first frames of twelve.

import matplotlib.pyplot as plt
import torch

from deepinv_lvtino.datasets import dead_leaves_clip

clips = [
    dead_leaves_clip(index, 12, 96, 96, seed=5)
    for index in range(12)
]
figure, axes = plt.subplots(
    2, 6, figsize=(9, 3.1), layout="constrained"
)
for panel, clip in zip(axes.flat, clips, strict=True):
    panel.imshow(clip[:, 0].permute(1, 2, 0))
    panel.set_axis_off()

# %%
# Motion
# ------
#
# One row of pixels over time, from top to bottom: slanted lines are motion, lines that
# end are objects that hide others, and upright lines are at rest.

figure, axes = plt.subplots(
    2, 6, figsize=(9, 2.2), layout="constrained"
)
for panel, clip in zip(axes.flat, clips, strict=False):
    panel.imshow(clip[:, :, 48].permute(1, 2, 0), aspect="auto")
    panel.set_axis_off()

# %%
# Statistics
# ----------
#
# Natural images have a power spectrum that falls as a power of frequency, and differences
# between neighbours that are mostly small and sometimes very large: far from Gaussian.

frames = torch.stack(
    [clip[:, 0].mean(0) for clip in clips]
).double()
frames = frames - frames.mean(dim=(-2, -1), keepdim=True)
window = torch.hann_window(
    96, periodic=False, dtype=torch.float64
)
power = (
    torch.fft.fft2(frames * window * window[:, None])
    .abs()
    .square()
    .mean(0)
)
axis = torch.fft.fftfreq(96, dtype=torch.float64)
radius = torch.hypot(axis[:, None], axis[None])
edges = torch.logspace(-1.4, -0.35, 10, dtype=torch.float64)
rings = [
    (radius >= a) & (radius < b)
    for a, b in zip(edges[:-1], edges[1:], strict=True)
]
frequency = torch.stack([radius[ring].mean() for ring in rings])
level = torch.stack([power[ring].mean() for ring in rings])
slope = (level[-1] / level[0]).log() / (
    frequency[-1] / frequency[0]
).log()
difference = frames.diff(dim=-1)
difference = (difference / difference.std()).flatten()
kurtosis = difference.pow(4).mean()
print(
    f"power falls as f^{slope:.1f}; kurtosis of the differences "
    f"{kurtosis:.0f}"
)

figure, (left, right) = plt.subplots(
    1, 2, figsize=(9, 3), layout="constrained"
)
left.loglog(frequency, level, "o-")
left.set_xlabel("frequency (cycles per pixel)")
left.set_ylabel("power")
bins = torch.linspace(-8, 8, 81)
right.hist(
    difference, bins, density=True, log=True, label="clips"
)
right.plot(
    bins, torch.exp(-(bins**2) / 2) / 2.5, "k--", label="Gaussian"
)
right.set_ylim(1e-5, 10)
right.set_xlabel("horizontal difference / standard deviation")
right.legend()
plt.show()
