r"""
LVTINO beside DeepInverse's solvers
===================================

The same measurement of problem A,

.. math::

    y = A x + n, \qquad n \sim \mathcal{N}(0, \sigma_n^2 I),

the same operator and the same network: how does LVTINO compare with total variation,
plug-and-play, and the diffusion samplers DiffPIR, DPS and DDRM of DeepInverse? The
harness :class:`deepinv_lvtino.benchmark.Benchmark` runs them and makes the table.
"""

# sphinx_gallery_thumbnail_number = 1

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from deepinv.optim import L2
from deepinv.sampling import DDRM, DPS, DiffPIR

from deepinv_lvtino import LVTINO, Schedule, make_problem
from deepinv_lvtino.benchmark import Benchmark
from deepinv_lvtino.datasets import procedural_clip, read_video
from deepinv_lvtino.models import tiny_image, tiny_video
from deepinv_lvtino.optim import ADMMTV, PnPADMM
from deepinv_lvtino.physics import SeparableVideoPhysics
from deepinv_lvtino.plotting import (
    plot_time_slices,
    write_side_by_side,
)

# %%
# One network, two views
# ----------------------
#
# The embedded video network is a consistency model, which LVTINO uses, and a denoiser,
# which the others use: the same weights with another flag.

video_model, image_model = tiny_video(), tiny_image()
denoiser = video_model.as_denoiser()
sigma = 0.001

# %%
# The solvers
# -----------
#
# Each is called with a measurement and its operator. DiffPIR and DPS are DeepInverse's as
# they are; they work on videos because the denoiser does. DPS differentiates the network,
# and gets fewer steps than usual. DDRM needs a square basis of the singular value
# decomposition, which the operator has with ``full_svd=True``.


def ddrm(y, physics):
    """DDRM with 20 noise levels."""
    square = SeparableVideoPhysics(
        physics.img_size,
        temporal=physics.temporal,
        vertical=physics.vertical,
        horizontal=physics.horizontal,
        noise_model=physics.noise_model,
        full_svd=True,
    )
    return DDRM(denoiser, sigmas=np.geomspace(1, 0.01, 20))(
        y, square
    )


lvtino = LVTINO(
    video_model,
    image_model,
    schedule=Schedule.embedded("A"),
    seed=0,
)
solvers = {
    "pseudo-inverse": "pinv",
    "TV": ADMMTV("A"),
    "PnP": PnPADMM(denoiser),
    "DiffPIR": DiffPIR(
        denoiser, L2(), sigma=sigma, max_iter=20, zeta=1.0
    ),
    "DPS": DPS(
        denoiser, num_steps=30, weight=200.0, dtype=torch.float32
    ),
    "DDRM": ddrm,
    "LVTINO": lvtino,
    "LVTINO, mean": lambda y, physics: lvtino.sample(
        y, physics, num_samples=4
    )[0],
}

# %%
# The table
# ---------
#
# The harness degrades the clip, runs the solvers, scores what they return, and writes a
# table, a figure and everything else that it knows into a folder.

x = procedural_clip(num_frames=8, height=64, width=96)
with tempfile.TemporaryDirectory() as folder:
    results = Benchmark(
        folder,
        solvers,
        problems=["A"],
        clips={"clip": x},
        scores=[
            "psnr",
            "ssim",
            "warping_error",
            "temporal_difference_error",
        ],
        sigma=sigma,
        save_videos=True,
    ).run()
    kept = sorted(Path(folder, "videos", "clip", "A").iterdir())
    videos = {path.name: read_video(path).frames for path in kept}

# %%

results

# %%
# How to read it
# --------------
#
# *Samples* (DiffPIR, DPS, DDRM, LVTINO) draw what the measurement leaves open, and lose
# PSNR by it; *means* (TV, PnP, the mean of several samples) leave it out. Among
# the samples, DDRM and LVTINO are within hundredths of a decibel of each other; the mean of
# four samples of LVTINO is ahead of both. A warping error
# below that of the clean clip says that a video is too smooth. The table says nothing of
# whether the measurement is explained; the residual :math:`\|A \hat x - y\| / (\sqrt m \,
# \sigma_n)`, from the frames as stored with 8 bits, does: 1 is the noise.

physics = make_problem("A", img_size=tuple(x.shape), sigma=sigma)
y = physics.A(x[None])
for name, video in videos.items():
    residual = (
        physics.A(video[None]) - y
    ).square().mean().sqrt() / sigma
    print(f"{name:<15s} residual {residual:6.1f} times the noise")

# %%
# The videos
# ----------

shown = {
    name: videos[name]
    for name in ("TV", "PnP", "DiffPIR", "DPS", "DDRM", "LVTINO")
}
shown["truth"] = x
write_side_by_side(
    "comparison.mp4", shown, fps=6, columns=4, overwrite=True
)

# %%

plot_time_slices(shown)
plt.show()

# %%
# The same from the command line, on clips and problems of your choice:
#
# .. code-block:: bash
#
#    deepinv-lvtino benchmark -o results --clips FOLDER --problems A B C
#
# What these solvers do is described in the articles: TV and its like
# :footcite:p:`rudin1992nonlinear`, plug-and-play with decreasing noise levels
# :footcite:p:`zhang2021plug`, DDRM :footcite:p:`kawar2022denoising`, LVTINO
# :footcite:p:`spagnoletti2025lvtino`; DiffPIR and DPS on the pages of
# :class:`deepinv.sampling.DiffPIR` and :class:`deepinv.sampling.DPS`.
#
# :References:
#
# .. footbibliography::
