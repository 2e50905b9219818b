r"""The starts: what they say, that they agree with their parts, and that they refuse."""

from __future__ import annotations

import sys
import warnings

import pytest
import torch
from deepinv.optim.data_fidelity import L2
from deepinv.physics import GaussianNoise
from torch.nn.functional import interpolate as enlarge

from deepinv_lvtino import LVTINO, Schedule, make_problem
from deepinv_lvtino.datasets import procedural_clip
from deepinv_lvtino.optim import (
    ADMMTV,
    STARTS,
    interpolate,
    motion_start,
    proximal_start,
    pseudo_inverse,
    tv_start,
)
from deepinv_lvtino.optim.measured_frames import frame_centres
from deepinv_lvtino.optim.variation_start import (
    NOISE_SHARE,
    TIME_WEIGHT,
    TV_LAMBDA,
    variation_weight,
)
from deepinv_lvtino.physics import (
    SeparableVideoPhysics,
    TemporalBlur,
    TemporalDecimation,
    TemporalPooling,
    VideoDownsampling,
)
from helpers import generator, psnr, rand, translating


@pytest.fixture
def problem():
    x = torch.cat([translating(9, 32, 48, 2, seed) for seed in (0, 1)])
    physics = make_problem("A", x.shape[1:], sigma=0.001, rng=generator(1))
    return x, physics(x), physics


# -- names -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", STARTS)
def test_name_and_function_are_the_same(problem, name):
    x, y, physics = problem
    solver = LVTINO(
        schedule=Schedule.calibrated(num_steps=1),
        noise_source=lambda label, like: torch.zeros_like(like),
    )
    named = solver(y, physics, init=name)
    assert named.shape == x.shape
    assert torch.equal(named, solver(y, physics, init=STARTS[name]))
    assert torch.equal(named, solver(y, physics, init=STARTS[name](y, physics)))


@pytest.mark.parametrize("name", ("tv", "interpolate"))
def test_solver_runs_from_it(problem, name):
    x, y, physics = problem
    u = LVTINO(init=name, seed=0)(y, physics)
    assert u.shape == x.shape
    # Noise of 0.001; the data steps leave a little more.
    assert (physics.A(u) - y).square().mean().sqrt() < 0.005


def test_unknown_name_lists_the_names():
    with pytest.raises(
        ValueError, match="'pinv', 'prox', 'tv', 'motion', 'interpolate', a video"
    ):
        LVTINO(init="raft")


# -- each of them ----------------------------------------------------------------------


def test_first_two_are_steps_of_the_operator(problem):
    _, y, physics = problem
    expected = physics.A_dagger(y, smallest=0.001)
    assert torch.equal(pseudo_inverse(y, physics), expected)
    assert torch.equal(proximal_start(y, physics), physics.prox_l2(0.0, y, 200.0))


@pytest.mark.parametrize("name", STARTS)
def test_batch_is_its_parts(problem, name):
    _, y, physics = problem
    start = STARTS[name]
    both = start(y, physics)
    assert torch.equal(both, start(y, physics))  # deterministic
    if name == "tv":  # which stops by the gap of the whole batch
        return
    apart = torch.cat([start(part[None], physics) for part in y])
    torch.testing.assert_close(both, apart, atol=2e-6, rtol=0)


@pytest.mark.parametrize("name", ("tv", "interpolate"))
@pytest.mark.parametrize("setting", "ABC")
def test_better_than_the_pseudo_inverse(name, setting):
    x = procedural_clip(9, 96, 160)[None, :, :, :64, :96]
    physics = make_problem(setting, x.shape[1:], rng=generator(0))
    y = physics(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        u = STARTS[name](y, physics)
    # Measured on the whole 9 x 96 x 160, A^+ y, tv and interpolate: A 24.5, 28.2 and
    # 25.1 dB; B 20.6, 23.0 and 20.6; C 20.4, 22.7 and 20.6.
    least = 1.5 if name == "tv" else 0.02
    assert psnr(u, x) > psnr(pseudo_inverse(y, physics), x) + least
    # Measured: 0.004 at most.
    assert (physics.A(u) - y).square().mean().sqrt() < 0.006


def test_starts_of_a_blur_do_not_amplify_the_noise():
    x = procedural_clip(3, 48, 64)[None]
    physics = make_problem("deblur", x.shape[1:], rng=generator(0))
    y = physics(x)
    assert psnr(physics.A_dagger(y), x) < 0
    assert psnr(interpolate(y, physics), x) > 20
    assert psnr(tv_start(y, physics), x) > psnr(y, x)


# -- interpolation ---------------------------------------------------------------------


@pytest.mark.parametrize("speed", (2, 1))
def test_uniform_motion_is_found(speed):
    x = translating(9, 64, 96, speed)
    physics = TemporalDecimation(x.shape[1:], 4)
    y = physics(x)
    inner = (..., slice(12, -12), slice(12, -12))
    found = psnr(interpolate(y, physics)[inner], x[inner])
    blended = enlarge(y, x.shape[2:], mode="trilinear", align_corners=True)
    # Measured, at 2 (1) pixels per frame: 73.5 (83.6) dB; A^+ y, whose missing frames are
    # black, 6.9 (7.1); blended without motion 14.6 (22.6).
    assert found > psnr(pseudo_inverse(y, physics)[inner], x[inner]) + 5
    assert found > psnr(blended[inner], x[inner]) + 5
    torch.testing.assert_close(physics.A(interpolate(y, physics)), y)


def test_motion_is_found_through_a_pooling():
    x = translating(24, 64, 96, 1)
    physics = TemporalPooling(x.shape[1:], 4)
    y = physics(x)
    inner = (..., slice(2, -2), slice(12, -12), slice(12, -12))
    found = psnr(interpolate(y, physics)[inner], x[inner])
    # Measured: 28.8 dB; A^+ y, which repeats every mean four times, 19.6.
    assert found > psnr(pseudo_inverse(y, physics)[inner], x[inner]) + 5


def test_frames_stand_at_the_centre_of_their_weights():
    def centres(physics):
        return frame_centres(physics.temporal).tolist()

    assert centres(TemporalPooling((1, 9, 1, 1), 4)) == pytest.approx([1.5, 5.5, 8])
    # The last window holds frame 8 and three times frame 9.
    assert centres(TemporalPooling((1, 10, 1, 1), 4)) == pytest.approx([1.5, 5.5, 8.75])
    dropped = TemporalPooling((1, 11, 1, 1), 4, tail="drop")
    assert centres(dropped) == pytest.approx([1.5, 5.5])
    decimated = TemporalDecimation((1, 9, 1, 1), 4, offset=1)
    assert centres(decimated) == pytest.approx([1, 5])
    blurred = TemporalBlur((1, 9, 1, 1), 3, padding="reflect")
    both = TemporalDecimation((1, 9, 1, 1), 4, offset=1) * blurred
    assert centres(both) == pytest.approx([1, 5])


def test_nearest_frame_outside_of_the_first_and_the_last():
    y = torch.tensor([0.2, 0.4]).view(1, 1, 2, 1, 1).expand(1, 1, 2, 16, 16)
    physics = TemporalDecimation((1, 8, 16, 16), 4, offset=1)
    values = interpolate(y, physics).mean((0, 1, 3, 4))
    expected = [0.2, 0.2, 0.25, 0.3, 0.35, 0.4, 0.4, 0.4]
    torch.testing.assert_close(values, torch.tensor(expected), atol=1e-5, rtol=0)


def test_one_measured_frame():
    x = torch.full((1, 2, 4, 8, 8), 0.5)
    physics = TemporalPooling(x.shape[1:], 4)
    torch.testing.assert_close(interpolate(physics(x), physics), x)


def test_order_of_the_measured_frames_does_not_matter():
    x = translating(9, 32, 48, 1)
    rows = TemporalDecimation(x.shape[1:], 4).temporal
    forwards = SeparableVideoPhysics(x.shape[1:], temporal=rows)
    backwards = SeparableVideoPhysics(x.shape[1:], temporal=rows.flip(0))
    torch.testing.assert_close(
        interpolate(backwards(x), backwards), interpolate(forwards(x), forwards)
    )


def test_number_of_frames_that_stays_needs_no_flow(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    x = translating(5, 32, 48, 1)
    spatial = VideoDownsampling(x.shape[1:], 4)
    u = interpolate(spatial(x), spatial)
    torch.testing.assert_close(u, spatial.A_dagger(spatial(x)), atol=1e-4, rtol=0)
    blurred = spatial * TemporalBlur(x.shape[1:], 3)
    y = blurred(x)
    expected = blurred.prox_l2(spatial.A_dagger(y), y, 1e4)
    torch.testing.assert_close(interpolate(y, blurred), expected)


@pytest.mark.parametrize("size", ((1, 5, 3, 7), (4, 6, 1, 1), (2, 5, 40, 9)))
def test_any_size_and_number_of_channels(size):
    physics = TemporalPooling(size, 2, dtype=torch.float64)
    y = physics(rand(2, *size))
    u = interpolate(y, physics)
    assert u.shape == (2, *size)
    assert u.dtype == torch.float64
    torch.testing.assert_close(physics.A(u), y, atol=1e-3, rtol=0)


def test_other_ways_to_undo_the_spatial_part():
    x = procedural_clip(9, 64, 96)[None]
    physics = make_problem("A", x.shape[1:], rng=generator(0))
    y = physics(x)
    better = interpolate(y, physics, spatial=tv_start)
    # Measured on 25 x 96 x 160: 25.3 dB by the pseudo-inverse, 28.8 dB by tv_start.
    assert psnr(better, x) > psnr(interpolate(y, physics), x) + 1
    assert torch.equal(
        interpolate(y, physics, spatial=pseudo_inverse),
        interpolate(y, physics),  # no singular value below 0.01 here
    )


# -- refusals --------------------------------------------------------------------------


def test_missing_opencv_names_the_extra(problem, monkeypatch):
    _, y, physics = problem
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImportError, match=r"pip install \"deepinv-lvtino\[flow\]\""):
        interpolate(y, physics)


def test_operator_that_is_not_separable_is_refused():
    physics = make_problem("inpaint", (3, 4, 16, 16), rng=generator(0))
    y = physics(rand(1, 3, 4, 16, 16, dtype=torch.float32))
    with pytest.raises(TypeError, match="VideoInpainting. Use 'pinv' or 'tv'"):
        LVTINO(init="interpolate")(y, physics)


def test_frame_without_a_place_in_time_is_refused():
    rows = torch.tensor([[0.5, 0.5, 0.0], [1.0, -1.0, 0.0]])
    physics = SeparableVideoPhysics((1, 3, 4, 4), temporal=rows)
    with pytest.raises(ValueError, match="measured frame 1 no place in time"):
        interpolate(torch.zeros(1, 1, 2, 4, 4), physics)
    with pytest.raises(ValueError, match="`y` must have shape"):
        interpolate(torch.zeros(1, 1, 2, 4, 5), physics)


@pytest.mark.parametrize("name", ["sr4", "A", "inpaint"])
def test_weight_of_the_variation_balances_the_noise(name):
    """Root mean square of the noise in the gradient, by many draws."""
    sigma = 0.1
    physics = make_problem(name, (3, 8, 32, 48), sigma)
    y = physics(torch.rand(1, 3, 8, 32, 48))
    draws = []
    for seed in range(4):
        noise = rand(*y.shape, seed=seed, dtype=torch.float32) - 0.5
        noise = noise * sigma * 12**0.5
        draws.append(physics.A_adjoint(noise).square().mean())
    expected = NOISE_SHARE * float(torch.stack(draws).mean().sqrt()) / sigma**2
    found = variation_weight(y, physics, sigma, 1e9)
    assert found == pytest.approx(expected, rel=0.05)
    assert variation_weight(y, physics, sigma, 1e-3) == 1e-3


@pytest.mark.parametrize("start", [tv_start, motion_start])
def test_strong_noise_does_not_flatten_the_start(start):
    """Where the weight for little noise leaves a video without detail."""
    x = translating(9, 32, 48, speed=1)
    physics = make_problem("sr4", tuple(x.shape[1:]), 0.05, rng=generator(1))
    y = physics(x)
    flat = ADMMTV(TV_LAMBDA, TIME_WEIGHT, data_fidelity=L2(0.05))(y, physics)
    assert psnr(start(y, physics), x) > psnr(flat, x) + 1


def test_every_level_of_noise_has_its_own_weight():
    physics = make_problem("A", (3, 8, 32, 48))
    x = torch.cat([translating(8, 32, 48, speed=1, seed=seed) for seed in (1, 2)])
    y = physics.A(x)
    levels = torch.tensor([0.001, 0.2])
    physics.set_noise_model(GaussianNoise(levels))
    found = motion_start(y, physics)
    for part, level, video in zip(y.split(1), levels, found.split(1), strict=True):
        alone = make_problem("A", (3, 8, 32, 48), float(level))
        assert torch.equal(motion_start(part, alone), video)
