"""Tiles of large frames against what whole frames give."""

import pytest
import torch
from deepinv.models import Reconstructor
from deepinv.physics import Blur

from deepinv_lvtino import LVTINO, Schedule, make_problem
from deepinv_lvtino.datasets import procedural_clip
from deepinv_lvtino.optim import Tiled, Windowed, pseudo_inverse
from deepinv_lvtino.optim.noise import FrameNoise, FramesNoise
from deepinv_lvtino.optim.tiles import UNIT, Span, Tile, plan_spans
from deepinv_lvtino.physics import (
    FramewisePhysics,
    SeparableVideoPhysics,
    VideoDownsampling,
)


class PseudoInverse(Reconstructor):
    def forward(self, y, physics):
        return pseudo_inverse(y, physics)


def psnr(x, truth):
    return float(-10 * (x - truth).square().mean().log10())


@pytest.mark.parametrize(
    ("length", "size", "overlap"),
    [
        (64, 64, 16),
        (100, 64, 32),
        (160, 96, 48),
        (720, 256, 64),
        (1083, 320, 64),
        (97, 96, 0),
    ],
)
def test_tiles_cover_an_axis_and_count_for_one_at_each_pixel(length, size, overlap):
    spans = plan_spans(length, size, overlap)
    total = torch.zeros(length)
    for span in spans:
        assert span.start % UNIT == 0 and span.stop - span.start <= size
        total[span.pixels] += span.weights()
    torch.testing.assert_close(total, torch.ones(length))
    assert spans[0].start == 0 and spans[-1].stop == length
    for one, other in zip(spans[:-1], spans[1:], strict=True):
        assert one.after == other.before == one.stop - other.start == overlap
    for one, other in zip(spans[:-2], spans[2:], strict=True):
        assert other.start >= one.stop  # only neighbours meet


def test_border_of_a_tile_counts_for_nothing():
    weights = Span(0, 64, 0, 32).weights()
    assert (weights[:40] == 1).all() and (weights[-8:] == 0).all()
    assert (weights.diff() <= 0).all()


@pytest.mark.parametrize("problem", ["downscale=4", "temporal-mean=2", "mask=0.4"])
def test_what_acts_on_pixels_or_blocks_is_exact(problem):
    """Blocks of 4 pixels lie in tiles; dense float64 is the truth."""
    size = (1, 4, 72, 56)
    if problem == "downscale=4":
        rows = torch.kron(torch.eye(18), torch.full((1, 4), 0.25))
        columns = torch.kron(torch.eye(14), torch.full((1, 4), 0.25))
        physics = SeparableVideoPhysics(size, vertical=rows, horizontal=columns)
        dense = torch.kron(rows, columns).double()
    else:
        physics = make_problem(problem, size)
        dense = None
    y = physics.A(torch.rand(1, *size, generator=torch.Generator().manual_seed(0)))
    tiled = Tiled(PseudoInverse(), (32, 32), overlap=16)(y, physics)
    if dense is None:
        whole = pseudo_inverse(y, physics)
    else:
        flat = y.double().flatten(3) @ torch.linalg.pinv(dense).T
        whole = flat.unflatten(-1, size[-2:]).float()
    torch.testing.assert_close(tiled, whole, atol=2e-6, rtol=0)


def test_a_tile_measures_what_the_whole_measures_of_it():
    size = (3, 8, 96, 80)
    physics = make_problem("A", size, alignment="center")
    x = torch.rand(1, *size, generator=torch.Generator().manual_seed(1))
    tile = Tile(Span(16, 80, 16, 16), Span(0, 48, 0, 16))
    part, (rows, columns) = tile.physics(physics)
    y = physics.A(x)[..., rows, :][..., columns]
    torch.testing.assert_close(part.A(tile.of(x).contiguous()), y, atol=1e-6, rtol=0)
    assert 64 // 4 - len(rows) == 4  # two at each border also see what is outside


def test_shared_latent_pixels_have_the_same_noise():
    noise = FrameNoise(5).of(0, 4)
    drawn = {}
    for left in (0, 48):
        tile = Tile(Span(32, 96), Span(left, left + 96))
        source = FramesNoise(noise.seed, 0, 4, tile.corner)
        drawn[left] = source("k0/video", torch.empty(1, 12, 4, 32, 48))
    torch.testing.assert_close(drawn[0][..., 24:], drawn[48][..., :24], atol=0, rtol=0)
    assert abs(float(drawn[0].mean())) < 0.03 and 0.97 < float(drawn[0].std()) < 1.03


@pytest.mark.parametrize("problem", ["B", "downscale=2, noise=0.02", "mask=0.5"])
def test_tiles_restore_as_whole_frames_do(problem):
    truth = procedural_clip(9, 96, 160, seed=3)[None]
    physics = make_problem(
        problem, tuple(truth.shape[1:]), alignment="center", time_border="replicate"
    )
    torch.manual_seed(0)
    y = physics(truth)
    solver = LVTINO(schedule=Schedule.embedded(problem))
    whole = solver(y, physics, seed=0)
    tiled = Tiled(solver, (96, 96), overlap=48)(y, physics)
    assert tiled.shape == truth.shape
    assert abs(psnr(tiled, truth) - psnr(whole, truth)) < 0.25
    # no seam: the error in the overlap is that of elsewhere
    error = (tiled - truth).square().mean(dim=(0, 1, 2, 3)).sqrt()
    reference = (whole - truth).square().mean(dim=(0, 1, 2, 3)).sqrt()
    assert float(error[64:96].mean()) < 1.1 * float(reference[64:96].mean())


def test_runs_are_repeated_by_their_seed():
    physics = make_problem("A", (3, 4, 64, 96), alignment="center")
    y = physics(torch.rand(1, 3, 4, 64, 96, generator=torch.Generator().manual_seed(0)))
    solver = LVTINO(schedule=Schedule.calibrated(0.01, 0.9, 1, init="pinv"))
    one, again, other = (
        Tiled(solver, (64, 64), 32, seed=seed)(y, physics) for seed in (3, 3, 4)
    )
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_windows_of_tiles_are_windows_and_tiles():
    truth = procedural_clip(12, 64, 96, seed=1)[None]
    physics = make_problem("A", tuple(truth.shape[1:]), alignment="center")
    y = physics(truth)
    solver = LVTINO(schedule=Schedule.embedded("A"))
    plain = Windowed(solver, frames=8, overlap=4)(y, physics)
    both = Windowed(Tiled(solver, (64, 64), 32), frames=8, overlap=4)(y, physics)
    assert abs(psnr(both, truth) - psnr(plain, truth)) < 0.25


def test_one_tile_is_the_whole():
    physics = make_problem("A", (3, 4, 48, 48), alignment="center")
    y = physics(torch.rand(1, 3, 4, 48, 48, generator=torch.Generator().manual_seed(0)))
    tiled = Tiled(PseudoInverse(), (64, 64), 16)(y, physics)
    torch.testing.assert_close(tiled, pseudo_inverse(y, physics), atol=1e-6, rtol=0)


def test_what_a_solver_returns_is_not_changed():
    """A solver may return its measurement, which is the caller's."""

    class Nothing(Reconstructor):
        def forward(self, y, physics):
            return y

    physics = make_problem("noise=0.1", (3, 2, 64, 96))
    y = torch.rand(1, 3, 2, 64, 96, generator=torch.Generator().manual_seed(0))
    before = y.clone()
    tiled = Tiled(Nothing(), (64, 64), 32)(y, physics)
    assert torch.equal(y, before)
    torch.testing.assert_close(tiled, y, atol=1e-6, rtol=0)


class TestRefusals:
    def test_circular_borders(self):
        physics = VideoDownsampling((3, 2, 64, 96), 2, padding="circular")
        with pytest.raises(NotImplementedError, match="circular in space.*replicate"):
            Tiled(PseudoInverse(), (64, 64), 16)(torch.rand(1, 3, 2, 64, 96), physics)

    def test_operators_without_tiles(self):
        blur = Blur(torch.ones(1, 1, 3, 3) / 9, padding="replicate")
        physics = FramewisePhysics(blur)
        with pytest.raises(NotImplementedError, match="cannot be cut into tiles"):
            Tiled(PseudoInverse(), (64, 64), 16)(torch.rand(1, 3, 2, 64, 96), physics)

    def test_overlaps_smaller_than_what_a_pixel_sees(self):
        physics = make_problem("C", (3, 8, 64, 128), alignment="center")
        y = torch.rand(1, 3, 1, 8, 16)
        with pytest.raises(ValueError, match="`overlap` must be larger.*sees up to"):
            Tiled(PseudoInverse(), (64, 64), 16)(y, physics)

    @pytest.mark.parametrize(
        ("size", "overlap", "match"),
        [
            ((16, 64), 0, "`size` must be 32 pixels or more"),
            ((64, 64), 48, "at most half of a tile"),
            ((64, 64), 24, "`overlap` must be a multiple of 16"),
            ((64, 64), -1, "`overlap` must be"),
        ],
    )
    def test_numbers(self, size, overlap, match):
        with pytest.raises(ValueError, match=match):
            Tiled(PseudoInverse(), size, overlap)
