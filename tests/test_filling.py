"""Missing pixels are filled before a variation begins."""

from __future__ import annotations

import pytest
import torch
from deepinv.physics import GaussianNoise

from deepinv_lvtino import make_problem
from deepinv_lvtino.datasets import dead_leaves_clip
from deepinv_lvtino.optim import ADMMTV, filled_inverse, motion_start, pseudo_inverse
from deepinv_lvtino.physics import TemporalPooling, VideoInpainting
from helpers import psnr, rand


def hole(height: int, width: int) -> torch.Tensor:
    mask = torch.ones(height, width)
    mask[height // 3 : height // 3 + 8, width // 3 : width // 3 + 12] = 0
    return mask


def test_what_is_seen_stays_and_what_is_even_is_found():
    x = torch.full((2, 3, 4, 30, 41), 0.3)
    physics = VideoInpainting(tuple(x.shape[1:]), hole(30, 41))
    torch.testing.assert_close(filled_inverse(physics(x), physics), x)
    x = rand(2, 3, 4, 30, 41, dtype=torch.float32)
    y = physics(x)
    seen = physics.visible.expand(x.shape)
    torch.testing.assert_close(filled_inverse(y, physics)[seen], x[seen])


def test_inside_of_a_hole_lies_between_what_is_around_it():
    """A harmonic function takes no value that its border has not."""
    x = torch.linspace(0, 1, 40).expand(1, 1, 2, 30, 40).contiguous()
    physics = VideoInpainting(tuple(x.shape[1:]), hole(30, 40))
    filled = filled_inverse(physics(x), physics)
    hidden = ~physics.visible.expand(x.shape)
    around = x[..., 12:26]
    assert filled[hidden].min() >= around.min()
    assert filled[hidden].max() <= around.max()
    assert float((filled - x).abs().max()) < 0.05


def test_weights_of_the_mask_are_undone():
    x = rand(1, 3, 4, 12, 16, dtype=torch.float32)
    weights = torch.linspace(0.5, 2, 16).expand(12, 16)
    physics = VideoInpainting(tuple(x.shape[1:]), weights)
    torch.testing.assert_close(filled_inverse(physics(x), physics), x)


def test_frame_of_which_nothing_is_seen_is_the_nearest_one():
    x = rand(1, 3, 5, 8, 8, dtype=torch.float32)
    mask = torch.ones(5, 8, 8)
    mask[1] = mask[4] = 0
    physics = VideoInpainting(tuple(x.shape[1:]), mask[None, None])
    filled = filled_inverse(physics(x), physics)
    torch.testing.assert_close(filled, x[:, :, [0, 0, 2, 3, 3]])
    nothing = VideoInpainting(tuple(x.shape[1:]), torch.zeros(8, 8))
    assert not filled_inverse(nothing(x), nothing).any()


def test_mean_of_frames_behind_a_mask_is_spread_over_them():
    x = rand(1, 3, 3, 16, 16, dtype=torch.float32).repeat_interleave(2, dim=2)
    pooling = TemporalPooling(tuple(x.shape[1:]), factor=2)
    mask = torch.ones(16, 16)
    physics = VideoInpainting(pooling.measurement_size, mask) * pooling
    torch.testing.assert_close(filled_inverse(physics(x), physics), x)


def test_other_operators_have_their_pseudo_inverse():
    physics = make_problem("sr4", (3, 4, 32, 32))
    y = rand(1, 3, 4, 8, 8, dtype=torch.float32)
    torch.testing.assert_close(filled_inverse(y, physics), pseudo_inverse(y, physics))


@pytest.mark.parametrize("factor", [1, 2])
def test_start_behind_a_solid_mask_beats_variation_that_stands_still(factor):
    x = dead_leaves_clip(0, 6, 64, 80, seed=3)[None]
    pooling = TemporalPooling(tuple(x.shape[1:]), factor)
    physics = VideoInpainting(pooling.measurement_size, hole(64, 80)) * pooling
    physics.noise_model = GaussianNoise(0.01, rng=torch.Generator().manual_seed(0))
    y = physics(x)
    still = ADMMTV(10.0, 2.0, max_iter=100)(y, physics)
    assert psnr(motion_start(y, physics), x) > psnr(still, x) + 0.5
