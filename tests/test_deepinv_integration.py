r"""Operators and solver where DeepInverse's users put theirs."""

from __future__ import annotations

import deepinv
import numpy as np
import pytest
import torch
from deepinv.optim import ADMM, L2, PGD, TVPrior
from deepinv.physics import Blur, GaussianNoise, LinearPhysics
from deepinv.sampling import DDRM

from deepinv_lvtino import LVTINO, make_problem
from deepinv_lvtino.models import (
    SpectralGaussianModel,
    gaussian_gain,
    spectral_image,
    spectral_video,
)
from deepinv_lvtino.optim import SAEPrior, lvtino
from deepinv_lvtino.physics import (
    FramewisePhysics,
    SeparableVideoPhysics,
    TemporalBlur,
    TemporalPooling,
)
from helpers import generator, psnr, rand, randn

SIZE = (3, 5, 16, 24)


@pytest.fixture(autouse=True)
def exact_default(monkeypatch):
    """The interface is tested on models that take any channels and dtype."""
    monkeypatch.setattr(lvtino, "tiny_video", spectral_video)
    monkeypatch.setattr(lvtino, "tiny_image", spectral_image)


def clip(batch=1):
    t = torch.linspace(0, 1, 5).view(1, 1, 5, 1, 1)
    u = (
        torch.linspace(0, 6, 24)
        + 3 * t
        + torch.linspace(0, 1, batch).view(-1, 1, 1, 1, 1)
    )
    v = torch.linspace(0, 5, 16).view(1, 1, 1, 16, 1)
    return (0.5 + 0.4 * torch.sin(u) * torch.cos(v)).expand(batch, *SIZE).contiguous()


@pytest.mark.parametrize("name", ["A", "B"])
def test_deepinv_checks(name):
    size = (3, 7, 16, 24)
    physics = make_problem(name, size)
    x = rand(1, *size, dtype=torch.float32)
    assert physics.adjointness_test(num_samples=4) < 1e-4
    generic = LinearPhysics.compute_sqnorm(
        physics, x, max_iter=300, tol=1e-6, verbose=False
    )
    torch.testing.assert_close(physics.compute_sqnorm(x), generic, rtol=1e-3, atol=0)
    y = physics.A(x)
    back = physics.A(physics.A_dagger(y))
    torch.testing.assert_close(back, y, atol=1e-4, rtol=0)
    z = rand(1, *size, seed=1, dtype=torch.float32)
    slow = LinearPhysics.prox_l2(physics.clone(), z, y, 50.0, max_iter=500, tol=1e-7)
    torch.testing.assert_close(physics.prox_l2(z, y, 50.0), slow, atol=1e-3, rtol=0)


def test_stack():
    first, second = make_problem("A", SIZE, sigma=0.01), TemporalBlur(SIZE, 3)
    stacked = first.stack(second)
    x = rand(1, *SIZE, dtype=torch.float32)
    y = stacked(x)
    assert [part.shape[1:] for part in y] == [first.measurement_size, SIZE]
    assert stacked.adjointness_test(u=x) < 1e-4
    torch.testing.assert_close(
        stacked.A_adjoint(y), first.A_adjoint(y[0]) + second.A_adjoint(y[1])
    )


@pytest.mark.filterwarnings("ignore:You are composing")
@pytest.mark.filterwarnings("ignore:At least one input physics")
def test_composition_with_a_non_separable_operator():
    kernel = deepinv.physics.functional.gaussian_blur(sigma=(1.5, 0.5), angle=30.0)
    rotated = FramewisePhysics(Blur(filter=kernel, padding="circular"))
    pooling = TemporalPooling(SIZE, 2, noise_model=GaussianNoise(0.1))
    x = rand(2, *SIZE, dtype=torch.float32)
    for composed, expected in (
        (pooling * rotated, pooling.A(rotated.A(x))),
        (rotated * pooling, rotated.A(pooling.A(x))),
    ):
        assert isinstance(composed, LinearPhysics)
        assert not isinstance(composed, SeparableVideoPhysics)
        torch.testing.assert_close(composed.A(x), expected)
        assert composed.adjointness_test(u=x) < 1e-4
    composed = pooling * rotated
    assert isinstance(composed.noise_model, GaussianNoise)
    u = LVTINO(seed=0)(composed(x), composed)
    assert u.shape == x.shape


def test_pgd_with_total_variation():
    x = clip()
    physics = make_problem("A", SIZE, sigma=0.01, rng=generator())
    y = physics(x)
    solver = PGD(
        data_fidelity=L2(),
        prior=TVPrior(n_it_max=20),
        lambda_reg=1e-4,
        stepsize=float(1 / physics.compute_sqnorm()),
        max_iter=100,
        early_stop=False,
    )
    u = solver(y, physics)
    assert psnr(u, x) > psnr(physics.A_dagger(y), x)


def test_admm():
    x = clip()
    physics = make_problem("A", SIZE, sigma=0.01, rng=generator())
    y = physics(x)

    def solve(physics):  # a new prior each time: DeepInverse's keeps a warm start
        return ADMM(
            data_fidelity=L2(),
            prior=TVPrior(n_it_max=20),
            lambda_reg=1e-4,
            stepsize=100.0,
            max_iter=30,
            early_stop=False,
        )(y, physics)

    u = solve(physics)
    assert psnr(u, x) > psnr(physics.A_dagger(y), x)
    # The same with DeepInverse's conjugate gradients in place of the closed form.
    slow = LinearPhysics(
        A=physics.A, A_adjoint=physics.A_adjoint, max_iter=200, tol=1e-7
    )
    torch.testing.assert_close(solve(slow), u, atol=1e-3, rtol=0)


def test_ddrm_with_a_square_basis():
    r"""DDRM keeps the null space only if V is square: ``full_svd=True``."""
    size = (1, 4, 6, 8)
    physics = SeparableVideoPhysics(
        size,
        temporal=torch.kron(torch.eye(2), torch.tensor([[0.5, 0.5]])),
        horizontal=torch.eye(8)[::2],
        noise_model=GaussianNoise(0.01),
        full_svd=True,
    )
    model = SpectralGaussianModel()
    x = torch.full((1, *size), 0.5)
    model.sae(x, 300.0)
    scale = model.coefficient_variances(x).sqrt()
    x = model._transform(randn(*x.shape, dtype=torch.float32) * scale, inverse=True) + x
    y = physics(x)

    def denoiser(noisy, sigma):
        r"""Posterior mean of the Gaussian prior."""
        gain = gaussian_gain(scale**2, 1.0, float(sigma)) ** 2
        return (
            model._transform(gain * model._transform(noisy - 0.5), inverse=True) + 0.5
        )

    torch.manual_seed(0)
    sigmas = np.geomspace(1, 0.01, 40)
    runs = [DDRM(denoiser, sigmas=sigmas)(y, physics) for _ in range(20)]
    mean = torch.stack(runs).mean(0)
    cov_y = physics.A(mean) - y
    assert cov_y.square().mean().sqrt() < 0.03  # agrees with the measurement
    assert psnr(mean, x) > psnr(physics.A_dagger(y), x)  # and fills the null space


def test_sae_prior_in_half_quadratic_splitting():
    r"""The prior runs in DeepInverse's own loop, with the time as its parameter."""
    x = clip()
    physics = make_problem("A", SIZE, sigma=0.01, rng=generator())
    y = physics(x)
    solver = deepinv.optim.HQS(
        data_fidelity=L2(0.01),
        prior=SAEPrior(SpectralGaussianModel()),
        sigma_denoiser=[400.0, 200.0, 100.0],
        stepsize=0.01,
        max_iter=3,
        early_stop=False,
        g_first=True,
    )
    torch.manual_seed(0)
    u = solver(y, physics)
    assert (physics.A(u) - y).square().mean().sqrt() < 0.03


class Clips(torch.utils.data.Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, i):
        return {"x": clip(3)[i]}


@pytest.mark.filterwarnings("ignore:non_blocking_transfers")
def test_deepinv_test_and_trainer(tmp_path):
    loader = torch.utils.data.DataLoader(Clips(), batch_size=2)
    metric = deepinv.loss.metric.PSNR()

    def problem():
        return make_problem("A", SIZE, sigma=0.01, rng=generator())

    physics = problem()
    expected = torch.cat(
        [
            metric(LVTINO(seed=0)(physics(batch["x"]), physics), batch["x"])
            for batch in loader
        ]
    ).mean()
    options = {
        "online_measurements": True,
        "verbose": False,
        "show_progress_bar": False,
        "metrics": [metric],
        "device": "cpu",
    }
    results = deepinv.test(LVTINO(seed=0), loader, problem(), **options)
    assert results["PSNR"] == pytest.approx(float(expected), abs=1e-3)
    trainer = deepinv.Trainer(
        LVTINO(seed=0),
        physics=problem(),
        train_dataloader=None,
        optimizer=None,
        save_path=str(tmp_path),
        **options,
    )
    results = trainer.test(loader)
    assert results["PSNR"] == pytest.approx(float(expected), abs=1e-3)
