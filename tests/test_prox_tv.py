r"""Total variation and its joint proximal step, against generic convex solvers."""

from __future__ import annotations

import warnings
from dataclasses import replace

import deepinv
import pytest
import torch
from deepinv.optim import TVPrior

from deepinv_lvtino.optim import (
    SpaceTimeVariation,
    TemporalVariation,
    TVOptions,
    TVProblem,
    prox_l2_tv,
    solve_l2_tv,
)
from deepinv_lvtino.optim.tv import admm
from deepinv_lvtino.physics import (
    FramewisePhysics,
    SeparableVideoPhysics,
    TemporalBlur,
    make_problem,
)
from helpers import dense, rand, randn

SIZE = (2, 5, 4, 6)
KINDS = {
    "temporal": TemporalVariation(),
    "spacetime": SpaceTimeVariation(),
    "weighted": SpaceTimeVariation(time_weight=2.5),
}


def setting(batch=2):
    physics = SeparableVideoPhysics(
        SIZE,
        temporal=torch.kron(torch.eye(2), torch.tensor([[0.5, 0.5]]))
        @ torch.eye(5)[:4],
        vertical=rand(3, 4, seed=4),
        dtype=torch.float64,
    )
    y = rand(batch, *physics.measurement_size, seed=1)
    z = rand(batch, *SIZE, seed=2)
    return z, y, physics


def objective(u, z, y, physics, gamma, lam, variation):
    value = 0.5 * (u - z).square().sum() + lam * variation(u).sum()
    if gamma:
        value = value + gamma / 2 * (physics.A(u) - y).square().sum()
    return float(value)


def oracle(z, y, physics, gamma, lam, variation):
    r"""
    A very long run of the plainest method: projected gradient ascent on the dual.

    Dense matrices throughout; nothing is shared with the package but K itself.
    """
    size = z.shape[1:]
    k = dense(lambda x: variation.differences(x).flatten(1), size)
    h = torch.eye(z[0].numel(), dtype=torch.float64)
    right = z.flatten(1)
    if gamma:
        a = dense(physics.A, size)
        h = h + gamma * a.T @ a
        right = right + gamma * y.flatten(1) @ a
    inverse = torch.linalg.inv(h)
    step = 1 / torch.linalg.matrix_norm(k @ inverse @ k.T, 2)
    shape = variation.differences(z).shape
    p = previous = torch.zeros(len(z), len(k), dtype=torch.float64)
    momentum = 1.0
    for _ in range(6000):
        u = (right - p @ k) @ inverse
        new = variation.project((p + step * u @ k.T).reshape(shape), lam).flatten(1)
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        p = new + (momentum - 1) / following * (new - previous)
        previous, momentum = new, following
    return ((right - previous @ k) @ inverse).reshape(z.shape)


@pytest.mark.parametrize("name", KINDS)
def test_differences_and_adjoint(name):
    variation = KINDS[name]
    x = randn(2, *SIZE)
    d = variation.differences(x)
    p = torch.randn_like(d)
    torch.testing.assert_close((d * p).sum(), (x * variation.adjoint(p)).sum())
    matrix = dense(lambda u: variation.differences(u), SIZE)
    norm = torch.linalg.matrix_norm(matrix, 2) ** 2
    assert norm <= variation.sqnorm
    long = dense(lambda u: variation.differences(u), (1, 9, 9, 9))
    assert torch.linalg.matrix_norm(long, 2) ** 2 > 0.9 * variation.sqnorm
    q = variation.project(3 * p, 0.7)
    assert variation.magnitude(q).max() <= 0.7 + 1e-12
    torch.testing.assert_close(variation.project(q, 0.7), q)


def test_values():
    x = rand(2, *SIZE)
    by_hand = (x[:, :, 1:] - x[:, :, :-1]).abs().flatten(1).sum(1)
    torch.testing.assert_close(TemporalVariation()(x), by_hand)
    torch.testing.assert_close(SpaceTimeVariation()(x), TVPrior()(x))
    constant = torch.ones(1, *SIZE)
    assert float(SpaceTimeVariation(smoothing=0.01)(constant)) == pytest.approx(
        0.01 * constant.numel()
    )


@pytest.mark.parametrize("name", KINDS)
def test_slopes(name):
    assert torch.autograd.gradcheck(KINDS[name], rand(1, *SIZE).requires_grad_())
    flat = torch.ones(1, *SIZE, requires_grad=True)
    (slope,) = torch.autograd.grad(KINDS[name](flat).sum(), flat)
    assert torch.equal(slope, torch.zeros_like(flat))  # not NaN


@pytest.mark.parametrize("gamma", [0.0, 0.7, 300.0])
@pytest.mark.parametrize("lam", [0.02, 0.4])
@pytest.mark.parametrize(
    ("name", "solver"),
    [("temporal", "admm"), *((name, "chambolle_pock") for name in KINDS)],
)
def test_solvers_agree_with_a_generic_one(name, lam, gamma, solver):
    z, y, physics = setting()
    variation = KINDS[name]
    problem = (z, y, physics, gamma, lam)
    expected = oracle(*problem, variation)
    result = solve_l2_tv(
        TVProblem(*problem, variation), TVOptions(solver, tol=2e-6, max_iter=20_000)
    )
    best = objective(expected, *problem, variation)
    assert result.converged
    assert result.gap <= 2e-6
    found = objective(result.video, *problem, variation)
    assert abs(found - best) < 3e-6 * best
    # strong convexity turns the gap into a distance
    assert (result.video - expected).norm() < 2 * (2e-6 * best) ** 0.5
    # the gap that is reported is a bound of the true one
    assert found - best <= result.gap * best * (1 + 1e-6) + 1e-9 * best


@pytest.mark.parametrize("name", ["temporal", "weighted"])
def test_any_linear_operator_through_its_adjoint(name):
    z, y, _ = setting()
    kernel = rand(1, 1, 3, 3, seed=7)
    physics = FramewisePhysics(
        deepinv.physics.Blur(filter=kernel / kernel.sum(), padding="circular")
    )
    y = physics.A(z) + 0.1 * randn(*z.shape, seed=8)
    problem = (z, y, physics, 3.0, 0.1)
    result = solve_l2_tv(
        TVProblem(*problem, KINDS[name]),
        TVOptions("chambolle_pock", tol=1e-6, max_iter=5000),
    )
    best = objective(oracle(*problem, KINDS[name]), *problem, KINDS[name])
    found = objective(result.video, *problem, KINDS[name])
    assert abs(found - best) < 1e-4 * best


def test_admm_keeps_its_precision_and_wants_no_gradient():
    z, y, physics = setting()
    z, y, physics = z.float(), y.float(), physics.float()
    alone = prox_l2_tv(z, y, physics, 3.0, 0.05, solver="admm")
    with torch.autocast("cpu", torch.bfloat16):
        u = prox_l2_tv(z.clone().requires_grad_(), y, physics, 3.0, 0.05, solver="admm")
    assert torch.equal(u, alone)
    assert not u.requires_grad


@pytest.mark.parametrize("name", ["temporal", "spacetime"])
def test_adam_agrees_up_to_its_smoothing(name):
    z, y, physics = setting()
    problem = (z, y, physics, 3.0, 0.05)
    u = prox_l2_tv(
        *problem, KINDS[name], "adam", tol=1e-7, max_iter=4000, smoothing=1e-4
    )
    best = objective(oracle(*problem, KINDS[name]), *problem, KINDS[name])
    assert objective(u, *problem, KINDS[name]) < best * (1 + 1e-3)
    assert not u.requires_grad


def test_adam_takes_a_nonlinear_operator():
    class Square(deepinv.physics.Physics):
        def A(self, x, **kwargs):
            return x**2

    z = rand(1, *SIZE)
    y = Square().A(rand(1, *SIZE, seed=5))
    problem = (z, y, Square(), 5.0, 0.02)
    u = prox_l2_tv(*problem, "temporal", tol=1e-6, max_iter=3000)
    v = TemporalVariation()
    assert objective(u, *problem, v) < 0.8 * objective(z, *problem, v)


@pytest.mark.parametrize("solver", ["admm", "chambolle_pock"])
def test_limits(solver):
    z, y, physics = setting()
    expected = physics.prox_l2(z, y, 2.0)
    torch.testing.assert_close(
        prox_l2_tv(z, y, physics, 2.0, 0.0, solver=solver), expected
    )
    without = prox_l2_tv(
        z, None, None, 0.0, 0.1, solver=solver, tol=1e-9, max_iter=9999
    )
    torch.testing.assert_close(
        prox_l2_tv(z, y, physics, 0.0, 0.1, solver=solver, tol=1e-9, max_iter=9999),
        without,
    )
    tiny = prox_l2_tv(z, y, physics, 1e-9, 0.1, solver=solver, tol=1e-9, max_iter=9999)
    torch.testing.assert_close(tiny, without, atol=1e-5, rtol=0)
    flat = prox_l2_tv(z, None, None, 0.0, 1e3, solver=solver, tol=1e-6, max_iter=9999)
    torch.testing.assert_close(
        flat, z.mean(2, keepdim=True).expand_as(z), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("name", KINDS)
def test_moreau_and_firm_nonexpansiveness(name):
    z, y, physics = setting()
    lam = 0.05

    def prox(x, y=None, physics=None, gamma=0.0):
        return prox_l2_tv(
            x, y, physics, gamma, lam, KINDS[name], tol=1e-7, max_iter=20_000
        )

    # Moreau: x - prox(x) = K'p with |p| <= lam and <p, K prox(x)> = lam TV(prox(x)).
    result = solve_l2_tv(
        TVProblem(z, None, None, 0.0, lam, KINDS[name]),
        TVOptions(tol=1e-7, max_iter=20_000),
    )
    variation, u = KINDS[name], result.video
    torch.testing.assert_close(u + variation.adjoint(result.dual), z, atol=1e-9, rtol=0)
    assert variation.magnitude(result.dual).max() <= lam * (1 + 1e-9)
    pairing = (result.dual * variation.differences(u)).sum()
    torch.testing.assert_close(pairing, lam * variation(u).sum(), rtol=1e-6, atol=1e-6)
    # Firm non-expansiveness, with and without data.
    other = rand(2, *SIZE, seed=9)
    for arguments in ((), (y, physics, 5.0)):
        a, b = prox(z, *arguments), prox(other, *arguments)
        lhs = (a - b).square().sum()
        assert lhs <= ((a - b) * (z - other)).sum() * (1 + 1e-3)


def test_warm_start_and_warning():
    z, y, physics = setting()
    problem = (z, y, physics, 3.0, 0.2)
    whole = TVProblem(*problem, TemporalVariation())
    options = TVOptions(tol=1e-7, max_iter=5000)
    cold = solve_l2_tv(whole, options)
    warm = solve_l2_tv(whole, options, cold.dual)
    assert warm.iterations == 0
    torch.testing.assert_close(warm.video, cold.video)
    moved = replace(whole, z=z + 1e-3 * randn(*z.shape, seed=11))
    loose = TVOptions("chambolle_pock", tol=1e-4, max_iter=5000)
    cold_moved = solve_l2_tv(moved, loose)
    warm_moved = solve_l2_tv(moved, loose, cold.dual)
    assert warm_moved.iterations < cold_moved.iterations
    assert warm_moved.converged
    again = solve_l2_tv(whole, options)  # nothing is kept between calls
    assert again.iterations == cold.iterations
    assert torch.equal(again.video, cold.video)
    with pytest.warns(
        UserWarning, match="stopped after 10 iterations at a relative gap"
    ):
        prox_l2_tv(*problem, tol=1e-12, max_iter=10)
    with pytest.warns(UserWarning, match="above `tol`=1.0e-12"):
        solve_l2_tv(whole, TVOptions(tol=1e-12, max_iter=10))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prox_l2_tv(*problem, tol=1e-2)


@pytest.mark.parametrize("name", "ABC")
def test_float32_on_the_published_problems(name):
    size = (3, 9, 32, 48)
    physics = make_problem(name, size)
    x = rand(1, *size, dtype=torch.float32)
    y = physics(x)
    z = physics.A_dagger(y) + 0.05 * randn(1, *size, dtype=torch.float32)
    for variation in (TemporalVariation(), SpaceTimeVariation()):
        problem = TVProblem(z, y, physics, 1e4, 0.01, variation)
        result = solve_l2_tv(problem, TVOptions(tol=1e-3, max_iter=800))
        assert result.converged
        assert result.video.dtype == torch.float32


def test_priors_prox():
    x = rand(1, *SIZE)
    for kind, variation in KINDS.items():
        expected = prox_l2_tv(x, None, None, 0.0, 0.03, variation, tol=1e-4)
        torch.testing.assert_close(
            variation.prox(x, gamma=0.03, tol=1e-4), expected, msg=kind
        )


def test_wrong_arguments():
    z, y, physics = setting()
    with pytest.raises(ValueError, match="`lam` must be 0 or positive"):
        prox_l2_tv(z, y, physics, 1.0, -1.0)
    with pytest.raises(ValueError, match="`gamma` must be 0 or positive"):
        prox_l2_tv(z, y, physics, float("nan"), 1.0)
    with pytest.raises(ValueError, match="`y` and `physics` are needed"):
        prox_l2_tv(z, None, physics, 1.0, 1.0)
    with pytest.raises(ValueError, match="`kind` must be one of"):
        prox_l2_tv(z, y, physics, 1.0, 1.0, "spatial")
    with pytest.raises(ValueError, match="`solver` must be one of"):
        prox_l2_tv(z, y, physics, 1.0, 1.0, solver="fista")
    with pytest.raises(TypeError, match="'chambolle_pock'"):
        prox_l2_tv(z, y, physics, 1.0, 1.0, "spacetime", "admm")
    with pytest.raises(TypeError, match="'adam'"):
        prox_l2_tv(z, y, deepinv.physics.Physics(), 1.0, 1.0, solver="chambolle_pock")
    with pytest.raises(TypeError, match="`variation` must be a Variation"):
        TVProblem(z, y, physics, 1.0, 1.0, "temporal")
    with pytest.raises(TypeError, match="`rho` is an option of solver 'admm'"):
        prox_l2_tv(z, y, physics, 1.0, 1.0, solver="adam", rho=1.0)
    with pytest.raises(ValueError, match="`smoothing` must be positive"):
        prox_l2_tv(z, y, physics, 1.0, 1.0, solver="adam", smoothing=0.0)
    with pytest.raises(ValueError, match="`dual` must have shape"):
        prox_l2_tv(z, y, physics, 1.0, 1.0, dual=z)
    with pytest.raises(ValueError, match="5 axes"):
        prox_l2_tv(z[0], y, physics, 1.0, 1.0)
    with pytest.raises(ValueError, match="`time_weight` must be positive"):
        SpaceTimeVariation(0.0)
    with pytest.raises(ValueError, match="`smoothing` must be 0"):
        SpaceTimeVariation(smoothing=-1.0)


def test_identity_axes():
    physics = TemporalBlur(SIZE, 3, dtype=torch.float64)
    z, y = rand(1, *SIZE), rand(1, *SIZE, seed=1)
    first, second = (
        prox_l2_tv(z, y, physics, 4.0, 0.1, solver=solver, tol=1e-7, max_iter=20_000)
        for solver in ("admm", "chambolle_pock")
    )
    torch.testing.assert_close(first, second, atol=2e-3, rtol=0)


def test_channels_solved_apart_give_the_same(monkeypatch):
    """Large videos are solved channel by channel; the answer does not change."""
    rng = torch.Generator().manual_seed(3)
    physics = make_problem("A", (3, 8, 16, 24), dtype=torch.float64)
    z = torch.rand(2, 3, 8, 16, 24, generator=rng, dtype=torch.float64)
    y = physics.A(torch.rand(z.shape, generator=rng, dtype=torch.float64))
    together = prox_l2_tv(z, y, physics, 50.0, 0.1, tol=1e-9, max_iter=2000)
    monkeypatch.setattr(admm, "LARGE", 1)
    apart = solve_l2_tv(
        TVProblem(z, y, physics, 50.0, 0.1, TemporalVariation()),
        TVOptions(tol=1e-9, max_iter=2000),
    )
    torch.testing.assert_close(apart.video, together, atol=1e-4, rtol=0)
    assert apart.converged and apart.dual.shape == (2, 3, 7, 16, 24)
