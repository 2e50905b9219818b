r"""A batch is what its elements are alone, to the last bit: seeds, noise levels, stops."""

from __future__ import annotations

import pytest
import torch
from deepinv.physics.noise import GaussianNoise

from deepinv_lvtino import LVTINO, Schedule, make_problem
from deepinv_lvtino.datasets import procedural_clip
from deepinv_lvtino.optim import (
    ADMMTV,
    STARTS,
    LandweberStep,
    SeededNoise,
    SpaceTimeVariation,
    TemporalVariation,
    TVOptions,
    TVProblem,
    element_seed,
    solve_l2_tv,
)
from helpers import psnr, rand

# 24 / 8 and 40 / 8: products of few rows, which are rounded by their number
SIZE = (3, 5, 24, 40)
LEVELS = (0.01, 0.3)


def clips():
    return torch.stack([procedural_clip(*SIZE[1:], seed=seed) for seed in (1, 2)])


def measured(problem="A", levels=None):
    """Two measurements, and their operator."""
    physics = make_problem(problem, SIZE, sigma=0.01, rng=torch.Generator())
    if levels is not None:
        physics.set_noise_model(GaussianNoise(torch.tensor(levels)))
    return physics(clips()), physics


class TestSeeds:
    def test_first_element_has_the_seed_itself(self):
        like = torch.empty(1, 5, 7)
        expected = torch.randn(like.shape, generator=torch.Generator().manual_seed(11))
        assert torch.equal(SeededNoise(11)("k0/video", like), expected)
        assert element_seed(11, 0) == 11

    def test_elements_draw_what_they_would_alone(self):
        both = SeededNoise(4)
        alone = [SeededNoise(element_seed(4, i)) for i in range(3)]
        for shape in ((5, 7), (2, 3, 4)):  # draws follow one another
            noise = both("", torch.empty(3, *shape))
            single = torch.cat([one("", torch.empty(1, *shape)) for one in alone])
            assert torch.equal(noise, single)

    def test_one_seed_per_element(self):
        noise = SeededNoise([7, 2])("", torch.empty(2, 9))
        swapped = SeededNoise([2, 7])("", torch.empty(2, 9))
        assert torch.equal(noise, swapped.flip(0))
        with pytest.raises(
            ValueError, match=r"`seed` must be one .* batch \(3\); got 2"
        ):
            SeededNoise([7, 2])("", torch.empty(3, 9))

    def test_seeds_of_elements_are_all_different(self):
        """Also in the 32 bits that PyTorch's generator on a CPU takes of a seed."""
        seeds = [element_seed(seed, i) for seed in range(50) for i in range(50)]
        assert len({seed % 2**32 for seed in seeds}) == len(seeds)
        assert min(seeds) == 0
        assert max(seeds) < 2**64

    def test_elements_are_independent(self):
        noise = SeededNoise(0)("", torch.empty(40, 10_000)).double()
        correlation = noise @ noise.T / 10_000 - torch.eye(40)
        # five standard errors of a mean of 10 000 (of products, or of squares)
        assert correlation.abs().max() < 5 * (2 / 10_000) ** 0.5

    @pytest.mark.parametrize("seed", ([], "3", 1.0, [1, 2.0], -1, [0, 2**64], True))
    def test_refused(self, seed):
        with pytest.raises((TypeError, ValueError), match="`seed` must be"):
            LVTINO(seed=seed)


class TestRuns:
    @pytest.mark.parametrize("problem", ("A", "B", "C", "inpaint-temporal", "jpeg"))
    def test_batch_equals_singles(self, problem):
        y, physics = measured(problem)
        if problem == "jpeg":
            schedule = Schedule.explicit([500], [LandweberStep(2, gamma=0.5)])
        else:
            schedule = Schedule.embedded("A", num_steps=2)
        solver = LVTINO(schedule=schedule, seed=3)
        seeds = 3, element_seed(3, 1)
        alone = [solver(y[i : i + 1], physics, seed=seeds[i]) for i in range(2)]
        assert torch.equal(solver(y, physics), torch.cat(alone))
        assert torch.equal(solver(y, physics, seed=seeds), torch.cat(alone))

    @pytest.mark.parametrize("kind", ("temporal", SpaceTimeVariation(2.0)))
    def test_with_total_variation(self, kind):
        y, physics = measured()
        solver = LVTINO(
            schedule=Schedule.calibrated(0.02, num_steps=1),
            tv=kind,
            tv_options={"tol": 1e-2},
        )
        both = solver(y, physics, seed=[5, 6])
        alone = [solver(y[i : i + 1], physics, seed=5 + i) for i in range(2)]
        assert torch.equal(both, torch.cat(alone))

    def test_series_of_samples(self):
        y, physics = measured()
        solver = LVTINO(schedule=Schedule.embedded("A", num_steps=1))
        both = solver.sample(y, physics, num_samples=2, seed=[5, 6])
        for i in range(2):
            alone = solver.sample(y[i : i + 1], physics, num_samples=2, seed=5 + i)
            for found, expected in zip(both, alone, strict=True):
                assert torch.equal(found[i : i + 1], expected)

    @pytest.mark.parametrize("problem", ("A", "inpaint-temporal"))
    def test_one_noise_level_per_element(self, problem):
        y, physics = measured(problem, LEVELS)
        solver = LVTINO(schedule=Schedule.embedded("A", num_steps=2))
        both = solver(y, physics, seed=[5, 6])
        for i, level in enumerate(LEVELS):
            single = make_problem(problem, SIZE, sigma=level)
            alone = solver(y[i : i + 1], single, seed=5 + i)
            assert torch.equal(both[i : i + 1], alone)


class TestStarts:
    @pytest.mark.parametrize("name", STARTS)
    @pytest.mark.parametrize("problem", ("A", "B"))
    def test_each_has_its_own_noise_level(self, name, problem):
        y, physics = measured(problem, LEVELS)
        both = STARTS[name](y, physics)
        for i, level in enumerate(LEVELS):
            alone = STARTS[name](y[i : i + 1], make_problem(problem, SIZE, sigma=level))
            assert torch.equal(both[i : i + 1], alone)

    def test_a_noisy_neighbour_costs_nothing(self):
        """It used to: the truncation of the pseudo-inverse was that of the noisiest."""
        y, physics = measured("B", (0.001, 0.3))
        x = clips()[:1]
        alone = STARTS["pinv"](y[:1], make_problem("B", SIZE, sigma=0.001))
        noisy = STARTS["pinv"](y[:1], make_problem("B", SIZE, sigma=0.3))
        found = STARTS["pinv"](y, physics)[:1]
        assert psnr(found, x) == psnr(alone, x) > psnr(noisy, x) + 3

    def test_number_of_levels(self):
        y, physics = measured("A")
        physics.set_noise_model(GaussianNoise(torch.tensor([0.1, 0.2, 0.3])))
        with pytest.raises(
            ValueError, match=r"`physics.noise_model.sigma` .*\(2\); got 3"
        ):
            STARTS["pinv"](y, physics)


class TestStops:
    def test_admm_tv_stops_each_by_itself(self):
        y, physics = measured("A")
        y = torch.cat([y[:1], torch.full_like(y[:1], 0.5)])  # the second stops at once
        solver = ADMMTV(10.0, max_iter=40, thres_conv=3e-3)
        both = solver(y, physics)
        alone = [solver(y[i : i + 1], physics) for i in range(2)]
        assert torch.equal(both, torch.cat(alone))
        longer = ADMMTV(10.0, max_iter=40, thres_conv=1e-12)(y, physics)
        assert not torch.equal(both, longer)  # the criterion did stop it

    @pytest.mark.parametrize("solver", ("admm", "chambolle_pock", "adam"))
    def test_prox_l2_tv_stops_each_by_itself(self, solver):
        y, physics = measured("A")
        z = rand(2, *SIZE, dtype=torch.float32)
        z[1] = 0.5 + 0.1 * (z[1] - 0.5)
        y[1] = physics.A(z[1:])[0]
        options, kind = TVOptions(solver, tol=1e-2), TemporalVariation()
        both, *alone = (
            solve_l2_tv(TVProblem(z[i], y[i], physics, 10.0, 0.1, kind), options)
            for i in (slice(0, 2), slice(0, 1), slice(1, 2))
        )
        assert torch.equal(both.video, torch.cat([part.video for part in alone]))
        assert both.iterations == max(part.iterations for part in alone)
        assert alone[1].iterations != alone[0].iterations
        assert both.gap == max(part.gap for part in alone) <= 1e-2
