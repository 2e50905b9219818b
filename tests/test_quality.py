r"""What the default promises on moving pictures, end to end."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from deepinv.physics import GaussianNoise
from deepinv.physics.functional import gaussian_blur
from PIL import Image

from deepinv_lvtino import LVTINO, Schedule, make_problem
from deepinv_lvtino.datasets import procedural_clip
from deepinv_lvtino.physics import TemporalBlur, TemporalPooling, VideoBlur
from helpers import STREET_CLIP, generator, needs_street_clip, psnr


def street_clip(num_frames=25, height=192, width=320):
    files = sorted(STREET_CLIP.glob("*.jpg"))[:num_frames]
    frames = [Image.open(f).resize((width, height), Image.BICUBIC) for f in files]
    video = torch.from_numpy(np.stack([np.asarray(frame) for frame in frames]))
    return video.permute(3, 0, 1, 2).float() / 255


CLIPS = {
    "procedural": lambda: procedural_clip(13, 96, 160, seed=3),
    "street": lambda: street_clip(13, 96, 160),
}


@pytest.mark.parametrize("name", "ABC")
@pytest.mark.parametrize(
    "clip", ["procedural", pytest.param("street", marks=needs_street_clip)]
)
def test_the_default_gains_on_the_pseudo_inverse(clip, name):
    x = CLIPS[clip]()[None]
    physics = make_problem(name, x.shape[1:], rng=generator())
    y = physics(x)
    singles = []
    solver = LVTINO(schedule=Schedule.embedded(name), seed=0)
    mean, variance = solver.sample(
        y, physics, num_samples=4, callback=lambda i, u: singles.append(psnr(u, x))
    )
    pseudo_inverse = psnr(physics.A_dagger(y), x)
    assert psnr(mean, x) >= pseudo_inverse + 0.3
    # The variance predicts what a single sample loses: three quarters of it.
    error, spread = (mean - x).square().mean(), variance.mean()
    expected = -10 * torch.log10(error + 3 / 4 * spread)
    assert singles[0] == pytest.approx(float(expected), abs=0.5)


def test_an_ill_conditioned_operator():
    r"""The pseudo-inverse of a strong blur is all noise; the start leaves that out."""
    x = procedural_clip(9, 48, 64)[None]
    physics = VideoBlur(
        x.shape[1:],
        gaussian_blur(sigma=(3.0, 3.0)),
        noise_model=GaussianNoise(0.01, rng=generator()),
    )
    y = physics(x)
    assert psnr(physics.A_dagger(y), x) < -20
    mean, _ = LVTINO(seed=0).sample(y, physics, num_samples=4)
    assert psnr(mean, x) > psnr(y, x) + 1


@needs_street_clip
def test_pseudo_inverse_of_the_street_clip():
    r"""The figures of the three problems at 25 frames of 320x192."""
    x = street_clip()[None]
    for name, expected in (("A", 21.39), ("B", 19.04), ("C", 18.77)):
        physics = make_problem(name, x.shape[1:], rng=generator())
        start = physics.A_dagger(physics(x))
        per_frame = [psnr(start[:, :, t], x[:, :, t]) for t in range(x.shape[2])]
        assert np.mean(per_frame) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(("name", "factor"), [("A", 4), ("B", 8)])
def test_a_file_shrunk_by_others_lines_up_on_the_centred_grid(name, factor):
    x = procedural_clip(8, 96, 160, seed=3)[None]
    if name == "A":
        slow = TemporalPooling(x.shape[1:], 4).A(x)[0]
    else:
        slow = TemporalBlur(x.shape[1:], 7).A(x)[0]
    size = (160 // factor, 96 // factor)
    frames = [
        [np.asarray(Image.fromarray(image.numpy()).resize(size, Image.BICUBIC))]
        for image in slow.flatten(0, 1)
    ]
    y = torch.from_numpy(np.array(frames)).reshape(1, *slow.shape[:2], *size[::-1])
    inside = (..., slice(8, -8), slice(8, -8))

    def best_shift(alignment):
        physics = make_problem(name, x.shape[1:], 0.01, alignment=alignment)
        u = LVTINO(seed=0)(y, physics)
        shifts = [(dy, dx) for dy in range(-4, 5) for dx in range(-4, 5)]
        return max(shifts, key=lambda s: psnr(u.roll(s, (-2, -1))[inside], x[inside]))

    assert best_shift("center") == (0, 0)
    # The other grid is off by factor / 2 - 1 pixels, along both axes.
    assert best_shift("deepinv") == (factor // 2 - 1, factor // 2 - 1)
