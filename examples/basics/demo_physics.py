r"""
Exact data steps for separable video operators
==============================================

Every sweep of the sampler solves, twice,

.. math::

    \operatorname{prox}(z) = \underset{u}{\arg\min} \; \frac{\gamma}{2} \|A u - y\|^2
    + \frac12 \|u - z\|^2

with large weights :math:`\gamma`, where iterative solvers are slow: the condition number
of :math:`I + \gamma A^{\top} A` is about :math:`\gamma \|A\|^2`. Does that have to be
iterated? For operators that act on time, height and width separately it does not. We
compose one, compare its closed form with DeepInverse's generic solver, and look at
the two pixel grids.
"""

import time

import matplotlib.pyplot as plt
import torch
from deepinv.loss.metric import PSNR
from deepinv.optim.linear import least_squares

from deepinv_lvtino.datasets import procedural_clip
from deepinv_lvtino.physics import TemporalBlur, VideoDownsampling

# %%
# An operator, composed
# ---------------------
#
# Exposure over 7 frames, then resolution 8 times lower: problem B of
# :footcite:t:`spagnoletti2025lvtino`. The product of two separable operators is separable.

x = procedural_clip(num_frames=25, height=96, width=160)[None]
blur = TemporalBlur(tuple(x.shape[1:]), kernel_size=7)
shrink = VideoDownsampling(blur.measurement_size, factor=8)
physics = shrink * blur
y = physics.A(x)
print("video", tuple(x.shape), "to measurement", tuple(y.shape))

# the adjoint is the adjoint: <A u, v> = <u, A' v>
rng = torch.Generator().manual_seed(0)
u = torch.randn(x.shape, generator=rng)
v = torch.randn(y.shape, generator=rng)
left = (physics.A(u).double() * v).sum()
right = (u.double() * physics.A_adjoint(v)).sum()
print(
    f"<A u, v> - <u, A' v>: {abs(left - right) / abs(left):.1e} "
    "(relative)"
)

# %%
# Closed form against iterations
# ------------------------------
#
# The singular values :math:`s` of :math:`A` are the products of those of three small
# matrices, and with its thin singular value decomposition
#
# .. math::
#
#     \operatorname{prox}(z) = z + V \left[ \frac{\gamma s \, (U^{\top} y
#     - s V^{\top} z)}{1 + \gamma s^2} \right].
#
# The generic solver only knows how to apply :math:`A` and its adjoint.

gamma = 1000.0
z = physics.A_dagger(y)
z = z + 0.1 * torch.randn(z.shape, generator=rng)

start = time.perf_counter()
exact = physics.prox_l2(z, y, gamma)
seconds = time.perf_counter() - start
print(f"closed form:     {seconds:7.3f} s")

counts, errors = (1, 3, 10, 30), []
for count in counts:
    start = time.perf_counter()
    iterated = least_squares(
        physics.A,
        physics.A_adjoint,
        y,
        z=z,
        gamma=gamma,
        solver="CG",
        max_iter=count,
        tol=0.0,
    )
    seconds = time.perf_counter() - start
    errors.append(
        (iterated - exact).square().mean().sqrt().item()
    )
    print(
        f"{count:4d} iterations: {seconds:7.3f} s, "
        f"{errors[-1]:.1e} rms from it"
    )

# what no solver can improve on: the gradient vanishes, relative to its largest term
gradient = (
    exact - z - gamma * physics.A_adjoint(y - physics.A(exact))
)
size = gamma * physics.A_adjoint(y).norm()
print(
    f"gradient at the closed form: {gradient.norm() / size:.1e} "
    "(relative)"
)

# %%
# What one exact step does
# ------------------------
#
# The step moves a noisy guess onto the measurement, and leaves alone what was not
# measured.

psnr = PSNR()
for name, video in {
    "A† y": physics.A_dagger(y),
    "guess": z,
    "prox": exact,
}.items():
    residual = (physics.A(video) - y).square().mean().sqrt()
    print(
        f"{name:6s} PSNR {psnr(video, x).item():6.2f} dB   "
        f"residual {residual:.1e}"
    )

# %%
# The two pixel grids
# -------------------
#
# DeepInverse puts pixel :math:`j` of the small video at :math:`8 j + 0.5` of the large
# one, ordinary software at :math:`8 j + 3.5`, the middle of its block. Restored on the
# wrong grid, a video is shifted by three pixels.

img_size = tuple(x.shape[1:])
centered = VideoDownsampling(
    img_size, factor=8, alignment="center"
)
published = VideoDownsampling(
    img_size, factor=8, alignment="deepinv"
)
small = centered.A(x)
for name, grid in {
    "same grid": centered,
    "other grid": published,
}.items():
    print(
        f"{name:10s} PSNR "
        f"{psnr(grid.A_dagger(small), x).item():6.2f} dB"
    )

figure, axes = plt.subplots(
    1, 2, figsize=(9, 3), layout="constrained"
)
axes[0].loglog(counts, errors, "o-")
axes[0].set(
    xlabel="iterations",
    ylabel="rms distance",
    title="from the closed form",
)
axes[0].grid(alpha=0.3)
row = img_size[2] // 2
for name, video in {
    "ground truth": x,
    "same grid": centered.A_dagger(small),
    "other grid": published.A_dagger(small),
}.items():
    axes[1].plot(video[0, :, 0, row, 40:120].mean(0), label=name)
axes[1].set(
    xlabel="pixel",
    ylabel="intensity",
    title="a row, restored on both grids",
)
axes[1].legend(fontsize=8)
plt.show()

# %%
# :References:
#
# .. footbibliography::
