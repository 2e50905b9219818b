r"""Total variation along motion: against dense matrices, known motions, other solvers."""

from __future__ import annotations

import math

import pytest
import torch

from deepinv_lvtino import LVTINO, Schedule, make_problem
from deepinv_lvtino.flow import gather, optical_flow, sampling_grid, scatter
from deepinv_lvtino.models import spectral_image, spectral_video
from deepinv_lvtino.optim import (
    ADMMTV,
    STARTS,
    Motion,
    MotionTV,
    MotionVariation,
    SpaceTimeVariation,
    _channels,
    measured_motion,
    prox_l2_tv,
    tv_start,
    video_motion,
)
from deepinv_lvtino.optim.tv import motion as motion_module
from helpers import dense, psnr, rand, randn, translating
from test_prox_tv import objective, oracle, setting

SIZE = (2, 5, 4, 6)


def some_motion(batch=1, size=SIZE, reach=1.5):
    _, frames, height, width = size
    flow = reach * randn(batch, frames - 1, height, width, 2, seed=11)
    return Motion(flow, rand(batch, frames - 1, height, width, seed=12))


def by_hand(motion, time_weight, static_weight):
    r"""Matrix of the differences in time of a video of one channel, pixel by pixel."""
    _, steps, height, width = motion.trust.shape
    pixels = height * width
    matrix = torch.zeros(steps * pixels, (steps + 1) * pixels, dtype=torch.float64)
    for t in range(steps):
        w = torch.zeros(pixels, pixels, dtype=torch.float64)
        weights = torch.zeros(pixels, dtype=torch.float64)
        for r in range(height):
            for c in range(width):
                trust = float(motion.trust[0, t, r, c])
                x, y = motion.flow[0, t, r, c].tolist() if trust >= 0.2 else (0, 0)
                x, y = min(max(c + x, 0), width - 1), min(max(r + y, 0), height - 1)
                for row in (math.floor(y), math.floor(y) + 1):
                    for column in (math.floor(x), math.floor(x) + 1):
                        share = max(0, 1 - abs(row - y)) * max(0, 1 - abs(column - x))
                        if share > 0:
                            w[r * width + c, row * width + column] = share
                weights[r * width + c] = static_weight
                if trust >= 0.2:
                    weights[r * width + c] += trust * (time_weight - static_weight)
        crowd = (w @ w.T).sum(1)
        weights = weights * crowd.clamp(min=1) ** -0.5
        rows = slice(t * pixels, (t + 1) * pixels)
        matrix[rows, (t + 1) * pixels : (t + 2) * pixels] = weights[:, None] * w
        matrix[rows, rows] = -torch.diag(weights)
    return matrix


def test_differences_are_those_written_out_pixel_by_pixel():
    size = (1, *SIZE[1:])
    motion = some_motion(size=size)
    variation = MotionVariation(motion, 2.5, 0.8)
    found = dense(lambda u: variation.differences(u)[:, 0, :, :-1].flatten(1), size)
    torch.testing.assert_close(found, by_hand(motion, 2.5, 0.8))


@pytest.mark.parametrize("reach", [0.0, 1.5, 20.0])
def test_adjoint_and_norm(reach):
    variation = MotionVariation(some_motion(2, reach=reach))
    x = randn(2, *SIZE)
    d = variation.differences(x)
    p = torch.randn_like(d)
    left, right = (d * p).sum(), (x * variation.adjoint(p)).sum()
    assert abs(left - right) < 1e-10 * d.norm() * p.norm()
    alone = MotionVariation(some_motion(reach=reach))
    matrix = dense(lambda u: alone.differences(u).flatten(1), SIZE)
    assert torch.linalg.matrix_norm(matrix, 2) ** 2 <= alone.sqnorm


def test_gather_and_scatter_are_adjoint_on_images():
    x, y = randn(3, 2, 7, 5, seed=1), randn(3, 2, 7, 5, seed=2)
    grid = sampling_grid(4 * randn(3, 7, 5, 2, seed=3))
    left, right = (gather(x, grid) * y).sum(), (x * scatter(y, grid)).sum()
    assert abs(left - right) < 1e-10 * x.norm() * y.norm()


def test_without_motion_it_is_the_static_variation():
    still = some_motion(2, reach=0.0)
    sure = Motion(still.flow, torch.ones_like(still.trust))
    untrusted = Motion(some_motion(2, reach=9.0).flow, torch.zeros_like(still.trust))
    x = randn(2, *SIZE)
    for motion, weights, expected in (
        (sure, (1.0, 1.0), 1.0),
        (sure, (3.0, 1.0), 3.0),
        (untrusted, (3.0, 1.0), 1.0),
    ):
        found = MotionVariation(motion, *weights).differences(x)
        torch.testing.assert_close(found, SpaceTimeVariation(expected).differences(x))


def test_dual_step_in_place_is_the_projected_one():
    variation = MotionVariation(some_motion(2))
    u, p = randn(2, *SIZE), randn(2, 3, *SIZE, seed=4)
    expected = variation.project(p + 0.3 * variation.differences(u), 0.7)
    found = variation.ascend_(p, u, 0.3, 0.7)
    assert found is p
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("gamma", [0.0, 30.0])
@pytest.mark.parametrize("lam", [0.02, 0.4])
def test_proximal_step_agrees_with_a_generic_solver(gamma, lam):
    z, y, physics = setting(batch=1)
    variation = MotionVariation(some_motion())
    problem = (z, y, physics, gamma, lam)
    best = objective(oracle(*problem, variation), *problem, variation)
    u = prox_l2_tv(*problem, variation, tol=1e-5, max_iter=20_000)
    assert abs(objective(u, *problem, variation) - best) < 1e-4 * best


def test_batch_is_the_singles_stacked():
    motion = some_motion(2)
    z, y, physics = setting()
    options = {"tol": 1e-7, "max_iter": 10_000}
    together = prox_l2_tv(z, y, physics, 3.0, 0.02, MotionVariation(motion), **options)
    for i in range(2):
        part = slice(i, i + 1)
        alone = MotionVariation(Motion(motion.flow[part], motion.trust[part]))
        u = prox_l2_tv(z[part], y[part], physics, 3.0, 0.02, alone, **options)
        assert (together[part] - u).norm() < 1e-3 * u.norm()


def test_motion_of_a_video_that_moves():
    x = translating(5, 48, 64, 2)
    motion = video_motion(x)
    inner = motion.flow[:, :, 8:-8, 8:-8]
    assert (inner - torch.tensor([-2.0, 0.0])).norm(dim=-1).mean() < 0.15
    assert motion.trust[:, :, 8:-8, 8:-8].mean() > 0.9
    assert motion.trust[..., 0].max() == 0  # flows out of the frame
    cut = torch.cat([x, translating(5, 48, 64, 2, seed=5)], dim=2)
    found = video_motion(cut).trust.mean(dim=(0, 2, 3))
    assert found[4] < 0.35 * min(*found[:4], *found[5:])


def test_a_given_flow_is_trusted_where_it_connects_what_is_alike():
    x = translating(5, 48, 64, 2)
    true = torch.tensor([-2.0, 0.0]).expand(4, 48, 64, 2)
    assert video_motion(x, true).trust[..., 4:].mean() > 0.95
    known = Motion(true[None], torch.full((1, 4, 48, 64), 0.5))
    assert video_motion(x, known) is known
    wild = 5 * torch.randn(4, 48, 64, 2, generator=torch.Generator().manual_seed(0))
    assert video_motion(x, wild).trust.mean() < 0.05


@pytest.mark.parametrize("problem", ["A", "C"])
def test_motion_of_the_measured_frames_is_shared_out(problem):
    r"""A static estimate stands still within a group; the measured frames do not."""
    x = translating(17, 64, 96, 1)
    physics = make_problem(problem, tuple(x.shape[1:]))
    y = physics(x)
    true = torch.tensor([-1.0, 0.0])
    inner = (slice(None), slice(1, -1), slice(12, -12), slice(20, -20))

    def error(motion):
        return float((motion.flow[inner] - true).norm(dim=-1).mean())

    found = measured_motion(y, physics)
    assert found.flow.shape == (1, 16, 64, 96, 2)
    assert error(found) < 0.4
    assert error(found) < 0.6 * error(video_motion(tv_start(y, physics).clamp(0, 1)))


def test_a_user_s_flow_is_called_and_checked():
    x = translating(5, 32, 48, 2)
    called = []

    def true_flow(first, second):
        called.append(tuple(first.shape))
        sign = 1 if bool((first == x[0].transpose(0, 1)[1:]).all()) else -1
        return torch.tensor([2.0 * sign, 0.0]).expand(4, 32, 48, 2)

    motion = video_motion(x, true_flow)
    assert called == [(4, 3, 32, 48)] * 2
    assert motion.trust[..., 8:].min() > 0.98
    for wrong, message in (
        (lambda first, second: torch.zeros(4, 2, 32, 48), "`flow` must return"),
        (lambda first, second: None, "`flow` must return.*NoneType"),
        (
            lambda first, second: torch.full((4, 32, 48, 2), math.nan),
            "`flow` must be fin",
        ),
        (torch.zeros(4, 32, 47, 2), "`flow` must have shape"),
        (torch.full((4, 32, 48, 2), math.inf), "`flow` must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            video_motion(x, wrong)


def test_wrong_arguments_are_named():
    with pytest.raises(TypeError, match="`motion` must be a Motion"):
        MotionVariation(torch.zeros(1, 4, 4, 6, 2))
    for name, numbers in (("time_weight", (0.0, 1.0)), ("static_weight", (1.0, -1.0))):
        with pytest.raises(ValueError, match=f"`{name}`"):
            MotionVariation(None, *numbers)
    with pytest.raises(ValueError, match="no `motion` yet"):
        MotionVariation().differences(randn(1, *SIZE))
    with pytest.raises(ValueError, match="`motion` is that of 1 videos"):
        MotionVariation(some_motion()).differences(randn(1, 2, 5, 4, 7))
    for options, name in (
        ({"lambda_reg": 0.0}, "lambda_reg"),
        ({"rounds": 0}, "rounds"),
        ({"max_iter": 0}, "max_iter"),
        ({"stepsize": -1.0}, "stepsize"),
    ):
        with pytest.raises(ValueError, match=f"`{name}`"):
            MotionTV(**options)


def gain(x, problem="A", **options):
    r"""Decibels over the static variation of the same weight, by another solver."""
    rng = torch.Generator().manual_seed(0)
    physics = make_problem(problem, tuple(x.shape[1:]), 0.001, rng=rng)
    y = physics(x)
    static = ADMMTV(5.0, 1.0, max_iter=200)(y, physics).clamp(0, 1)
    return psnr(MotionTV(**options)(y, physics).clamp(0, 1), x) - psnr(static, x)


def test_it_gains_on_what_moves():
    assert gain(translating(13, 64, 96, 2)) > 1.0


def test_it_loses_nothing_where_there_is_nothing_to_follow():
    still = translating(1, 48, 64, 1).expand(-1, -1, 13, -1, -1).contiguous()
    moving = translating(6, 48, 64, 1)
    cut = torch.cat([moving, translating(7, 48, 64, 1, seed=5)], dim=2)
    noise = rand(1, 3, 13, 48, 64, seed=3, dtype=torch.float32)
    for x in (still, cut, noise):
        assert gain(x) > -0.05
    wild = 5 * torch.randn(12, 48, 64, 2, generator=torch.Generator().manual_seed(0))
    assert gain(translating(13, 48, 64, 1), flow=wild) > -0.2


@pytest.mark.parametrize("problem", ["A", "B"])
def test_large_videos_are_worked_on_in_parts(problem, monkeypatch):
    x = translating(9, 24, 32, speed=2)
    x = torch.cat([x, x.flip(-1)])
    physics = make_problem(problem, tuple(x.shape[1:]))
    y = physics(x)
    motion, found = video_motion(x), MotionTV(rounds=2, max_iter=3)(y, physics)
    for module in (motion_module, _channels):
        monkeypatch.setattr(module, "LARGE", 1)
    parts = video_motion(x)
    assert torch.equal(parts.flow, motion.flow)
    torch.testing.assert_close(parts.trust, motion.trust)
    by_channel = MotionTV(rounds=2, max_iter=3)(y, physics)
    torch.testing.assert_close(by_channel, found, rtol=1e-4, atol=1e-5)


def test_one_frame_has_no_motion():
    x = rand(1, 3, 1, 32, 32, dtype=torch.float32)
    physics = make_problem("sr4", (3, 1, 32, 32))
    assert MotionTV(rounds=1, max_iter=3)(physics(x), physics).shape == x.shape
    assert torch.isfinite(MotionVariation()(x)).all()


def test_the_sampler_follows_the_motion():
    x = translating(9, 32, 48, 1)
    physics = make_problem("A", tuple(x.shape[1:]))
    y = physics(x)
    shapes = []

    def flow(first, second):
        shapes.append(len(first))
        return optical_flow(first, second)

    models = spectral_video(), spectral_image()
    solver = LVTINO(
        *models,
        schedule=Schedule.calibrated([0.01, 0.001]),
        tv=MotionVariation(flow=flow),
        init="motion",
        seed=0,
    )
    u = solver(y, physics)
    assert shapes == [8] * 4  # forward and backward, once a sweep
    assert torch.equal(u, solver(y, physics))
    named = LVTINO(
        *models, schedule=solver.schedule, tv="motion", init="motion", seed=0
    )
    assert torch.equal(named(y, physics), u)
    assert STARTS["motion"](y, physics).shape == x.shape
    pair = torch.cat([y, y.flip(-1)])
    both = named(pair, physics, seed=[0, 1])
    assert torch.equal(both[:1], u)
    assert torch.equal(both[1:], named(pair[1:], physics, seed=1))
