"""The competitors: their limits against oracles, and their call."""

import pytest
import torch
from deepinv.optim import L2
from deepinv.physics import GaussianNoise

from deepinv_lvtino import make_problem
from deepinv_lvtino.datasets import procedural_clip
from deepinv_lvtino.optim import ADMMTV, PnPADMM, SpaceTimeVariation, prox_l2_tv
from deepinv_lvtino.optim.baselines import TV_SETTINGS, cosine_solve
from deepinv_lvtino.physics import TemporalBlur

SIZE = (2, 5, 6, 8)


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def psnr(x, truth):
    return float(-10 * (x.clamp(0, 1) - truth).square().mean().log10())


def test_cosine_solve_inverts_the_operator(rng):
    variation = SpaceTimeVariation(time_weight=0.7)
    x = torch.randn(2, *SIZE, generator=rng, dtype=torch.float64)
    right = x + variation.adjoint(variation.differences(x))
    torch.testing.assert_close(cosine_solve(right, variation.weights), x)


class Identity(torch.nn.Module):
    """A denoiser that changes nothing."""

    def forward(self, x, sigma):
        return x


def test_admm_tv_reaches_the_minimiser(rng):
    """With A the identity the problem is the proximal step of the variation."""
    physics = TemporalBlur(
        (2, 5, 6, 8),
        kernel_size=1,
        noise_model=GaussianNoise(0.1),
        dtype=torch.float64,
    )
    y = torch.rand(2, *SIZE, generator=rng, dtype=torch.float64)
    lam, weight = 20.0, 0.7
    x = ADMMTV(lam, weight, threshold=0.02, max_iter=1000, thres_conv=1e-12)(y, physics)
    expected = prox_l2_tv(
        y,
        None,
        None,
        0.0,
        lam * 0.1**2,
        SpaceTimeVariation(weight),
        tol=1e-8,
        max_iter=5000,
    )
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-4)


def test_admm_tv_reaches_the_minimiser_with_an_operator(rng):
    physics = make_problem("A", (2, 8, 8, 12), sigma=0.05, rng=rng, dtype=torch.float64)
    y = physics(torch.rand(1, 2, 8, 8, 12, generator=rng, dtype=torch.float64))
    lam, variation = 3.0, SpaceTimeVariation()

    def objective(u):
        data = (physics.A(u) - y).square().sum() / (2 * 0.05**2)
        return float(data + lam * variation(u).sum())

    x = ADMMTV(lam, max_iter=1000, thres_conv=1e-12)(y, physics)
    best = objective(x)
    # a convex function: no descent along the slope at x, nor towards random points
    for _ in range(20):
        direction = torch.randn(x.shape, generator=rng, dtype=torch.float64)
        for step in (1e-2, 1e-3):
            assert objective(x + step * direction) > best
    other = ADMMTV(lam, threshold=0.005, max_iter=1000, thres_conv=1e-12)(y, physics)
    assert abs(objective(other) - best) < 1e-5 * best


def test_penalty_does_not_change_the_limit_and_batch_is_independent(rng):
    physics = make_problem("B", (3, 7, 16, 16), sigma=0.05, rng=rng)
    y = physics(torch.rand(2, 3, 7, 16, 16, generator=rng))
    solver = ADMMTV(5.0, max_iter=30, thres_conv=1e-12)
    together = solver(y, physics)
    torch.testing.assert_close(together[1:], solver(y[1:], physics), rtol=0, atol=1e-5)


def test_pnp_admm_with_a_linear_denoiser_solves_its_fixed_point(rng):
    """With D = prox of |x|^2 / (2 s) the limit is Tikhonov's solution."""
    physics = make_problem("A", (2, 8, 8, 12), sigma=0.1, rng=rng, dtype=torch.float64)
    y = physics(torch.rand(1, 2, 8, 8, 12, generator=rng, dtype=torch.float64))
    level, weight = 0.2, 0.5
    step = level**2 / weight

    def denoiser(x, sigma):
        return x / (1 + step / 0.3)

    solver = PnPADMM(denoiser, (level, level), lambda_reg=weight, max_iter=400)
    expected = physics.prox_l2(torch.zeros(1, 2, 8, 8, 12).double(), y, 0.3 / 0.1**2)
    torch.testing.assert_close(solver(y, physics), expected, rtol=0, atol=1e-6)


def test_pnp_admm_lowers_the_level():
    seen = []

    def denoiser(x, sigma):
        seen.append(float(sigma))
        return x

    physics = make_problem("A", (3, 4, 8, 8))
    y = physics(torch.rand(1, 3, 4, 8, 8))
    PnPADMM(denoiser, (0.4, 0.1), max_iter=3)(y, physics)
    assert seen == pytest.approx([0.4, 0.2, 0.1])


def test_pnp_admm_with_the_identity_explains_the_measurement(rng):
    physics = make_problem("C", (3, 8, 16, 16), sigma=0.01, rng=rng)
    y = physics(torch.rand(1, 3, 8, 16, 16, generator=rng))
    x = PnPADMM(Identity())(y, physics)
    assert (physics.A(x) - y).abs().max() < 1e-3


@pytest.mark.parametrize("problem", list(TV_SETTINGS))
def test_admm_tv_gains_on_a_clip(problem):
    x = procedural_clip(8, 48, 64, seed=3)[None]
    physics = make_problem(problem, tuple(x.shape[1:]), rng=torch.Generator())
    y = physics(x)
    out = ADMMTV(problem, max_iter=60)(y, physics)
    assert psnr(out, x) > psnr(physics.A_dagger(y), x) + 0.3


def test_data_fidelity_of_ones_own(rng):
    physics = make_problem("A", (3, 4, 8, 8), sigma=0.05, rng=rng)
    y = physics(torch.rand(1, 3, 4, 8, 8, generator=rng))
    own = ADMMTV(5.0, data_fidelity=L2(sigma=0.05), max_iter=20)(y, physics)
    torch.testing.assert_close(own, ADMMTV(5.0, max_iter=20)(y, physics))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ADMMTV("Z"), ValueError, "name of a problem with settings"),
        (lambda: ADMMTV(0.0), ValueError, "`lambda_reg` must be"),
        (lambda: ADMMTV(1.0, threshold=-1.0), ValueError, "`threshold` must be"),
        (lambda: PnPADMM(3), TypeError, "`denoiser` must be a denoiser"),
        (lambda: PnPADMM(Identity(), (0.1, 0.2)), ValueError, "`sigma_denoiser`"),
        (lambda: PnPADMM(Identity(), max_iter=0), ValueError, "`max_iter`"),
    ],
)
def test_wrong_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()
