r"""What the default promises on moving pictures, end to end."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from deepinv_lvtino import LVTINO, make_problem
from deepinv_lvtino.datasets import procedural_clip
from helpers import STREET_CLIP, generator, needs_street_clip, psnr


def street_clip(num_frames=25, height=192, width=320):
    files = sorted(STREET_CLIP.glob("*.jpg"))[:num_frames]
    frames = [Image.open(f).resize((width, height), Image.BICUBIC) for f in files]
    video = torch.from_numpy(np.stack([np.asarray(frame) for frame in frames]))
    return video.permute(3, 0, 1, 2).float() / 255


CLIPS = {
    "procedural": lambda: procedural_clip(13, 96, 160, seed=3),
    "street": street_clip,
}


@pytest.mark.parametrize("name", "ABC")
@pytest.mark.parametrize(
    "clip", ["procedural", pytest.param("street", marks=needs_street_clip)]
)
def test_mean_of_eight_is_no_worse_than_the_pseudo_inverse(clip, name):
    x = CLIPS[clip]()[None]
    physics = make_problem(name, x.shape[1:], rng=generator())
    y = physics(x)
    singles = []
    mean, variance = LVTINO(seed=0).sample(
        y, physics, num_samples=8, callback=lambda i, u: singles.append(psnr(u, x))
    )
    pseudo_inverse = psnr(physics.A_dagger(y), x)
    assert psnr(mean, x) >= pseudo_inverse
    # One sample lies below the mean by its own variance, and not more.
    error, spread = (mean - x).square().mean(), variance.mean()
    expected = -10 * torch.log10(error + 7 / 8 * spread)
    assert singles[0] == pytest.approx(float(expected), abs=0.5)
    assert singles[0] > psnr(mean, x) - 7


@needs_street_clip
def test_pseudo_inverse_of_the_street_clip():
    r"""The figures of the three problems at 25 frames of 320x192."""
    x = street_clip()[None]
    for name, expected in (("A", 21.39), ("B", 19.04), ("C", 18.77)):
        physics = make_problem(name, x.shape[1:], rng=generator())
        start = physics.A_dagger(physics(x))
        per_frame = [psnr(start[:, :, t], x[:, :, t]) for t in range(x.shape[2])]
        assert np.mean(per_frame) == pytest.approx(expected, abs=0.02)
