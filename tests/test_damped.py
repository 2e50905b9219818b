r"""Data steps of operators without a closed form: right, or an error."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from deepinv.optim import L2
from deepinv.physics import (
    Blur,
    BlurFFT,
    Decolorize,
    Demosaicing,
    Downsampling,
    GaussianNoise,
    Inpainting,
    LinearPhysics,
    SinglePixelCamera,
    Tomography,
)

from deepinv_lvtino import LVTINO, Schedule
from deepinv_lvtino.optim import (
    ADMMTV,
    DataStep,
    DataStepError,
    prox_l2,
    prox_l2_tv,
    proximal_start,
    pseudo_inverse,
)
from deepinv_lvtino.physics import (
    FramewisePhysics,
    TemporalPooling,
    VideoBlur,
    VideoDownsampling,
)
from helpers import dense, generator, psnr, rand, randn

SIZE = (1, 2, 9, 10)  # (C, T, H, W)
COLOUR = (3, 2, 6, 8)
BORDERS = ("circular", "reflect", "replicate", "constant", "valid")
GAMMAS = (1.0, 1e3, 1e6)

pytestmark = pytest.mark.filterwarnings("ignore:At least one input physics is a Decomp")


def kernel(rank, length=7, dtype=torch.float32):
    rows, columns = (rand(rank, length, seed=rank + s) for s in (0, 50))
    filter = torch.einsum("ri,rj->ij", rows, columns)
    return (filter / filter.sum())[None, None].to(dtype)


def blur(rank, padding, length=7):
    return FramewisePhysics(Blur(filter=kernel(rank, length), padding=padding))


def tomography(angles):
    return FramewisePhysics(Tomography(angles, 10, normalize=True))


def mask():
    return (rand(1, 9, 10, seed=3) > 0.5).float()


OPERATORS = {
    **{
        f"rank {rank}, {BORDERS[rank % 5]}": (
            lambda rank=rank: (blur(rank, BORDERS[rank % 5]), SIZE)
        )
        for rank in range(1, 10)
    },
    "diagonal": lambda: (
        FramewisePhysics(Blur(filter=torch.eye(9)[None, None] / 9, padding="circular")),
        SIZE,
    ),
    "Radon, 5 angles": lambda: (tomography(5), (1, 2, 10, 10)),
    "Radon, 20 angles": lambda: (tomography(20), (1, 2, 10, 10)),
    "downsampling": lambda: (
        FramewisePhysics(
            Downsampling((1, 12, 14), filter="bilinear", factor=2, padding="reflect")
        ),
        (1, 2, 12, 14),
    ),
    "Demosaicing": lambda: (FramewisePhysics(Demosaicing((6, 8))), COLOUR),
    "mask": lambda: (FramewisePhysics(Inpainting((1, 9, 10), mask())), SIZE),
    "BlurFFT": lambda: (FramewisePhysics(BlurFFT((3, 6, 8), kernel(4, 5))), COLOUR),
    "single pixel": lambda: (
        FramewisePhysics(SinglePixelCamera(20, (1, 8, 8))),
        (1, 2, 8, 8),
    ),
    "single pixel, thin": lambda: (
        FramewisePhysics(
            SinglePixelCamera(40, (1, 9, 10), fast=False, rng=generator())
        ),
        SIZE,
    ),
    "grey": lambda: (FramewisePhysics(Decolorize()), COLOUR),
    "mask * blur": lambda: (
        FramewisePhysics(Inpainting((1, 9, 10), mask())) * blur(3, "reflect"),
        SIZE,
    ),
    "mask * blur, of images": lambda: (
        FramewisePhysics(
            Inpainting((1, 9, 10), mask()) * Blur(kernel(2), padding="replicate")
        ),
        SIZE,
    ),
    "blur * pooling": lambda: (
        blur(5, "constant", 5) * TemporalPooling((1, 4, 6, 8), 2),
        (1, 4, 6, 8),
    ),
    "smaller * blur": lambda: (
        VideoDownsampling(SIZE, 2, "bilinear") * blur(2, "circular", 5),
        SIZE,
    ),
}


def problem(physics, size, seed=0):
    """A video near the truth and a noisy measurement, float32."""
    x = rand(1, *size, seed=seed, dtype=torch.float32)
    clean = physics.A(x)
    y = clean + 1e-3 * randn(*clean.shape, seed=seed + 1, dtype=torch.float32)
    return x + 0.1 * randn(*x.shape, seed=seed + 2, dtype=torch.float32), y


def matrix_of(physics, size):
    """Matrix of a float32 operator, in float64."""
    return dense(lambda basis: physics.A(basis.float()).double(), size)


def exact_step(matrix, z, y, gamma):
    """The step in float64, from a singular value decomposition."""
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    left = (y.double().flatten(1) - z.double().flatten(1) @ matrix.T) @ u
    return (left * (gamma * s / (1 + gamma * s**2)) @ vh).view_as(z)


def relative_error(physics, matrix, z, y, gamma):
    step = exact_step(matrix, z, y, gamma)
    found = prox_l2(physics, z, y, gamma).double() - z.double()
    return float((found - step).norm() / step.norm())


@pytest.mark.parametrize("name", OPERATORS)
def test_step_is_right(name):
    physics, size = OPERATORS[name]()
    z, y = problem(physics, size)
    matrix = matrix_of(physics, size)
    for gamma in GAMMAS:
        assert relative_error(physics, matrix, z, y, gamma) < 1e-3


def test_a_batch_is_its_videos_one_by_one():
    physics = blur(3, "reflect")
    z, y = (
        torch.cat(pair)
        for pair in zip(*(problem(physics, SIZE, s) for s in (0, 9)), strict=True)
    )
    both = prox_l2(physics, z, y, torch.tensor([10.0, 3e3]))
    for i, gamma in enumerate((10.0, 3e3)):
        one = prox_l2(physics, z[i : i + 1], y[i : i + 1], gamma)
        torch.testing.assert_close(both[i : i + 1], one, atol=1e-5, rtol=0)
    assert torch.equal(prox_l2(physics, None, y, 2.0), prox_l2(physics, 0.0, y, 2.0))
    with pytest.raises(ValueError, match="`z` holds 2 videos for 1 measurements"):
        prox_l2(physics, z, y[:1], 1.0)


def test_measurements_of_several_parts_and_complex_ones():
    first, second = blur(2, "valid"), blur(3, "reflect")
    stacked = first.stack(second)
    z, _ = problem(second, SIZE)
    y = stacked.A(z + 0.1)
    matrix = torch.cat([matrix_of(part, SIZE) for part in (first, second)])
    joined = torch.cat([part.flatten(1) for part in y], 1)
    step = exact_step(matrix, z, joined, 100.0)
    assert (prox_l2(stacked, z, y, 100.0) - z - step).norm() < 1e-3 * step.norm()

    def spectrum(x, **kwargs):
        return torch.fft.fftn(x, dim=(-2, -1), norm="ortho")[..., :4]

    def back(y, **kwargs):
        full = torch.nn.functional.pad(y, (0, SIZE[-1] - 4))
        return torch.fft.ifftn(full, dim=(-2, -1), norm="ortho").real

    fourier = LinearPhysics(A=spectrum, A_adjoint=back)
    y = fourier.A(z) + 0.1
    matrix = dense(lambda x: torch.view_as_real(spectrum(x)), SIZE)
    step = exact_step(matrix, z, torch.view_as_real(y), 50.0)
    assert (prox_l2(fourier, z, y, 50.0) - z - step).norm() < 1e-3 * step.norm()


def test_what_cannot_be_solved_is_an_error():
    physics, hard = blur(3, "valid"), blur(2, "replicate")
    z, y = problem(physics, SIZE)
    with pytest.raises(DataStepError, match="was not solved: after 5 iterations"):
        prox_l2(physics, z, y, 1e6, max_iter=5)
    with pytest.raises(ArithmeticError, match="closed form and was not solved"):
        prox_l2(hard, *problem(hard, SIZE), 1e12, max_iter=200)
    matrix = matrix_of(physics, SIZE)
    found = prox_l2(copy.deepcopy(physics).double(), z.double(), y.double(), 1e7)
    step = exact_step(matrix, z, y, 1e7)
    assert (found - z - step).norm() < 1e-3 * step.norm()


def test_an_adjoint_that_is_none_is_an_error():
    physics = LinearPhysics(A=lambda x: x.roll(1, 3) + x, A_adjoint=lambda y: y)
    z = rand(1, *SIZE)
    with pytest.raises(DataStepError, match="`A_adjoint` of LinearPhysics is not the"):
        prox_l2(physics, z, z + 1, 10.0)


def test_nothing_that_is_not_finite_comes_out():
    physics = blur(2, "valid")
    z, y = problem(physics, SIZE)
    bad = z.clone()
    bad[0, 0, 0, 0, 0] = math.nan
    with pytest.raises(DataStepError, match="`z` holds NaN or infinity in 1 of"):
        prox_l2(physics, bad, y, 1.0)
    with pytest.raises(DataStepError, match="`y` holds NaN"):
        prox_l2(physics, z, y * math.inf, 1.0)
    closed = FramewisePhysics(Demosaicing((6, 8)))
    with pytest.raises(DataStepError, match="`y` holds NaN"):
        prox_l2(closed, rand(1, *COLOUR), rand(1, *COLOUR) / 0, 1.0)
    broken = LinearPhysics(A=lambda x: x / 0, A_adjoint=lambda y: y)
    with pytest.raises(DataStepError, match="measurement of the video before the step"):
        prox_l2(broken, z, z, 1.0)


def test_a_step_that_is_nothing():
    physics = blur(4, "reflect")
    z, _ = problem(physics, SIZE)
    assert torch.equal(prox_l2(physics, z, physics.A(z), 1e6), z)
    nothing = LinearPhysics(A=lambda x: 0 * x, A_adjoint=lambda y: 0 * y)
    assert torch.equal(prox_l2(nothing, z, z + 1, 1e6), z)


def test_gradients_are_those_of_the_closed_form():
    filter = kernel(1, 5, dtype=torch.float64)
    exact = VideoBlur(SIZE, filter, "circular", dtype=torch.float64)
    iterative = FramewisePhysics(Blur(filter=filter, padding="circular"))
    found = []
    for step in (exact.prox_l2, lambda *args: prox_l2(iterative, *args)):
        z, y = (randn(2, *SIZE, seed=s).requires_grad_() for s in (0, 1))
        gamma = torch.tensor([2.0, 30.0], dtype=torch.float64, requires_grad=True)
        (step(z, y, gamma) ** 2).sum().backward()
        found.append((z.grad, y.grad, gamma.grad))
    for expected, gradient in zip(*found, strict=True):
        assert (gradient - expected).norm() < 5e-3 * expected.norm()


def test_framewise_closed_forms():
    """Pseudo-inverse and step of BlurFFT against linear algebra, and one pass over it."""
    filter = kernel(4, 5, dtype=torch.float64)
    physics = FramewisePhysics(BlurFFT((1, 9, 10), filter))
    assert physics.exact_prox
    assert not blur(1, "valid").exact_prox
    matrix = dense(physics.A, SIZE)
    y = randn(2, *SIZE)
    pinv = torch.linalg.pinv(matrix)
    torch.testing.assert_close(physics.A_dagger(y).flatten(1), y.flatten(1) @ pinv.T)
    u, s, vh = torch.linalg.svd(matrix)
    cut = float(s.median()) * (1 + 1e-9)
    kept = (y.flatten(1) @ u) * torch.where(s > cut, 1 / s, 0.0)
    found = physics.A_dagger(y, smallest=cut).flatten(1)
    torch.testing.assert_close(found, kept @ vh)
    with pytest.raises(ValueError, match="`smallest` needs a decomposable"):
        blur(1, "valid").A_dagger(y, smallest=0.1)
    with pytest.raises(ValueError, match="has no singular values yet"):
        FramewisePhysics(BlurFFT((1, 9, 10))).prox_l2(y, y, 1.0)


def test_starts_and_baselines_use_the_same_step():
    physics = blur(3, "valid")
    _, y = problem(physics, SIZE)
    matrix, zero = matrix_of(physics, SIZE), torch.zeros(1, *SIZE)
    for start, sigma, gamma in (
        (proximal_start, 0.01, 200.0),
        (pseudo_inverse, 0.01, 100.0),
        (pseudo_inverse, 1e-4, 1e4),
    ):
        physics.noise_model = GaussianNoise(sigma)
        expected = exact_step(matrix, zero, y, gamma)
        assert (start(y, physics) - expected).norm() < 1e-3 * expected.norm()
    fidelity = ADMMTV(data_fidelity=L2(0.02)).data_fidelity[0]
    expected = zero + exact_step(matrix, zero, y, 0.5 / 0.02**2)
    found = fidelity.prox(zero, y, physics, gamma=0.5)
    assert (found - expected).norm() < 1e-3 * expected.norm()
    found = prox_l2_tv(zero, y, physics, 300.0, 0.0)
    expected = exact_step(matrix, zero, y, 300.0)
    assert (found - expected).norm() < 1e-3 * expected.norm()


def test_sampler_with_a_kernel_of_ones_own():
    """The same video by iteration as in closed form, and better than what was blurred."""
    x = rand(1, 3, 4, 8, 8, dtype=torch.float32).repeat_interleave(3, 3)
    x = x.repeat_interleave(3, 4)
    filter, found = torch.eye(5)[None, None] / 5, []
    exact = BlurFFT((3, 24, 24), filter, noise_model=GaussianNoise(0.01))
    y = FramewisePhysics(exact).A(x)
    y = y + 0.01 * randn(*y.shape, dtype=torch.float32)
    for image in (Blur(filter, padding="circular"), exact):
        physics = FramewisePhysics(image, noise_model=exact.noise_model)
        schedule = Schedule.calibrated([0.01, 0.003], eta=0.8)
        found.append(LVTINO(schedule=schedule, init="prox", seed=0)(y, physics))
        assert psnr(found[-1], x) > psnr(y, x) + 3
    torch.testing.assert_close(*found, atol=5e-3, rtol=0)


def test_no_step_of_a_schedule_returns_what_is_not_finite():
    class Broken(DataStep):
        def __call__(self, z, y, physics, data_fidelity):
            return z / 0

    physics = TemporalPooling((3, 4, 8, 8), 2, noise_model=GaussianNoise(0.01))
    y = physics(rand(1, 3, 4, 8, 8, dtype=torch.float32))
    schedule = Schedule.explicit([300], [Broken()], [], [])
    with pytest.raises(DataStepError, match="video after the data step holds NaN"):
        LVTINO(schedule=schedule, seed=0)(y, physics)
