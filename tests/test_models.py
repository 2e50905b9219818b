r"""Noise schedules, the stochastic autoencoder, and the exact Gaussian priors."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from deepinv_lvtino.models import (
    ConsistencyModel,
    GaussianConsistencyModel,
    PowerSpectrum,
    RectifiedFlow,
    SpectralGaussianModel,
    VariancePreserving,
    spectral_image,
    spectral_video,
)
from helpers import covariance, dense, generator, rand, randn

SCHEDULES = {
    "variance preserving": VariancePreserving(),
    "short table": VariancePreserving(num_steps=50, beta_start=1e-3, beta_end=0.2),
    "rectified flow": RectifiedFlow(),
}


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_time_inverts_noise_ratio(schedule):
    for time in (0.7, 3.0, 12.25, 40.0, 48.9):
        ratio = schedule.noise_ratio(time)
        assert schedule.time(ratio) == pytest.approx(time, rel=1e-9)
        assert ratio == pytest.approx(
            (schedule.sigma(time) / schedule.alpha(time)) ** 2, rel=1e-9
        )
    ratios = [schedule.noise_ratio(t) for t in range(1, 49)]
    assert ratios == sorted(ratios)


def test_variance_preserving_table():
    schedule = VariancePreserving()
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alphas = torch.cumprod(1 - betas, dim=0)
    for t in (0, 124, 249, 374, 999):
        assert schedule.alpha(t) ** 2 == pytest.approx(float(alphas[t]), rel=1e-9)
        assert schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2 == pytest.approx(1)
    # The values of the released LVTINO settings.
    for t, alpha in ((374, 0.46671), (249, 0.67543), (124, 0.86341)):
        assert schedule.alpha(t) ** 2 == pytest.approx(alpha, abs=5e-6)


def test_rectified_flow_snaps_as_released():
    snapped = RectifiedFlow(snap=True)
    released = {757: 0.756757, 522: 0.521739, 375: 0.375839, 255: 0.254856}
    released[125] = 0.127886
    for t, sigma in released.items():
        assert snapped.sigma(t) == pytest.approx(sigma, abs=5e-7)
        assert snapped.alpha(t) == pytest.approx(1 - sigma, abs=5e-7)
        assert RectifiedFlow().sigma(t) == t / 1000
    assert snapped.noise_ratio(1000) == math.inf
    assert snapped.time(math.inf) == 1000


def test_times_out_of_range():
    with pytest.raises(ValueError, match="`t` must lie in"):
        VariancePreserving().alpha(1000)
    with pytest.raises(ValueError, match="`t` must lie in"):
        RectifiedFlow().sigma(0)
    with pytest.raises(ValueError, match="`noise_ratio` must lie in"):
        VariancePreserving().time(1e-9)
    with pytest.raises(ValueError, match="`noise_ratio` must be positive"):
        RectifiedFlow().time(0.0)


class Shrink(ConsistencyModel):
    r"""Keeps what it is given, and remembers it."""

    def __init__(self, **options):
        super().__init__(RectifiedFlow(), **options)
        self.seen = None

    def encode(self, x):
        self.seen = x
        return 2 * x[:, :1, ::4, ::8, ::8]

    def decode(self, latent):
        out = latent / 2
        for axis, repeat in ((2, 4), (3, 8), (4, 8)):
            out = out.repeat_interleave(repeat, dim=axis)
        frames = self.seen.shape[2]
        return out[:, :, :frames].expand(-1, 3, -1, -1, -1)

    def denoise(self, latent, t):
        return latent / self.schedule.alpha(t)


@pytest.mark.parametrize("frames", [1, 4, 5, 8, 9])
@pytest.mark.parametrize("size", [(16, 24), (17, 23), (3, 5)])
def test_any_size_by_padding(frames, size):
    model = Shrink(multiple=(4, 8, 8), frame_offset=1)
    x = rand(2, 3, frames, *size)
    u = model.sae(x, 200.0, noise=torch.zeros_like)
    assert u.shape == x.shape
    inner = model.seen.shape
    assert (inner[2] - 1) % 4 == 0
    assert inner[3] % 8 == 0
    assert inner[4] % 8 == 0
    assert inner[2] - frames < 4
    assert max(inner[3] - size[0], inner[4] - size[1]) < 8
    torch.testing.assert_close(model.seen[:, :, :frames, : size[0], : size[1]], x)
    last = x[:, :, -1:, -1:, -1:].expand_as(model.seen[:, :, frames:, :1, :1])
    corner = model.seen[:, :, frames:, size[0] - 1 : size[0], size[1] - 1 : size[1]]
    torch.testing.assert_close(corner, last)
    torch.testing.assert_close(u[:, 0, ::4, ::8, ::8], x[:, 0, ::4, ::8, ::8])


def test_sae_noise():
    model = GaussianConsistencyModel(torch.zeros(6).double(), covariance(6))
    x = randn(3, 1, 2, 1, 3)
    noise = randn(3, 1, 2, 1, 3, seed=1)
    alpha, sigma = model.schedule.alpha(300), model.schedule.sigma(300)
    expected = model.denoise(alpha * x + sigma * noise, 300)
    torch.testing.assert_close(model.sae(x, 300, noise=noise), expected)
    torch.testing.assert_close(model.sae(x, 300, noise=lambda like: noise), expected)
    first, second = (model.sae(x, 300, generator=generator(5)) for _ in range(2))
    assert torch.equal(first, second)
    with pytest.raises(ValueError, match="`noise` must have the latent's shape"):
        model.sae(x, 300, noise=noise[:1])
    with pytest.raises(ValueError, match="5 axes"):
        model.sae(x[0], 300)


def test_shared_noise_is_one_frame_long():
    model = Shrink(shared_noise=True)
    sizes = []

    def noise(like):
        sizes.append(like.shape)
        return torch.ones_like(like)

    x = rand(2, 3, 8, 16, 16)
    u = model.sae(x, 500.0, noise=noise)
    assert sizes == [(2, 1, 1, 2, 2)]
    # sigma / alpha = 1, half of it in pixels, the same in every frame
    torch.testing.assert_close(u[:, 0, ::4, ::8, ::8], x[:, 0, ::4, ::8, ::8] + 0.5)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
@pytest.mark.parametrize("per_frame", [False, True])
def test_gaussian_closed_form(schedule, per_frame):
    size = (1, 2, 1, 3)
    dimension = 3 if per_frame else 6
    mean, cov = randn(dimension, seed=1), covariance(dimension)
    model = GaussianConsistencyModel(mean, cov, per_frame, schedule)
    t = 20.0
    a, s = schedule.alpha(t), schedule.sigma(t)
    values, vectors = torch.linalg.eigh(cov)
    root = vectors @ torch.diag(values.sqrt()) @ vectors.T
    total = a**2 * cov + s**2 * torch.eye(dimension)
    tv, tw = torch.linalg.eigh(total)
    matrix = root @ tw @ torch.diag(tv.rsqrt()) @ tw.T
    z = randn(4, *size, seed=2)
    flat = z[:, 0, :, 0] if per_frame else z.reshape(4, 6)
    expected = (mean + (flat - a * mean) @ matrix.T).reshape(z.shape)
    torch.testing.assert_close(model.denoise(z, t), expected)


@pytest.mark.parametrize("t", [5.0, 300.0, 900.0])
@pytest.mark.parametrize("schedule", [VariancePreserving(), RectifiedFlow()])
def test_gaussian_is_invariant_exactly(schedule, t):
    # SAE is affine in (x, noise): its mean and covariance are read off and compared.
    mean, cov = randn(4, seed=1), covariance(4)
    model = GaussianConsistencyModel(mean, cov, schedule=schedule)

    def apply(x, noise):
        return model.sae(x.reshape(-1, 1, 2, 1, 2), t, noise.reshape(-1, 1, 2, 1, 2))

    zero = torch.zeros(1, 4, dtype=torch.float64)
    offset = apply(zero, zero).flatten()
    identity = torch.eye(4, dtype=torch.float64)
    by_x = apply(identity, 0 * identity).reshape(4, 4).T - offset[:, None]
    by_noise = apply(0 * identity, identity).reshape(4, 4).T - offset[:, None]
    torch.testing.assert_close(by_x @ mean + offset, mean)
    torch.testing.assert_close(by_x @ cov @ by_x.T + by_noise @ by_noise.T, cov)


def test_gaussian_construction():
    with pytest.raises(ValueError, match="`covariance` must have shape"):
        GaussianConsistencyModel(torch.zeros(4), torch.eye(3))
    with pytest.raises(ValueError, match="semi-definite"):
        GaussianConsistencyModel(torch.zeros(2), torch.diag(torch.tensor([1.0, -1])))
    with pytest.raises(ValueError, match="symmetric"):
        GaussianConsistencyModel(torch.zeros(2), torch.tensor([[1.0, 0.5], [0, 1]]))
    model = GaussianConsistencyModel(torch.zeros(4), torch.eye(4))
    with pytest.raises(ValueError, match="elements per clip"):
        model.sae(torch.zeros(1, 1, 2, 1, 3), 300.0)
    twin = GaussianConsistencyModel(torch.ones(4), 2 * torch.eye(4))
    twin.load_state_dict(model.state_dict())
    z = randn(1, 1, 2, 1, 2, dtype=torch.float32)
    torch.testing.assert_close(twin.denoise(z, 300), model.denoise(z, 300))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("per_frame", [False, True])
def test_spectral_model_is_a_gaussian_model(per_frame, channels):
    size = (channels, 3, 2, 4)
    spectrum = PowerSpectrum(power=0.02, speed=0.7, floor=0.001, chroma=0.2)
    schedule = RectifiedFlow()
    model = SpectralGaussianModel(per_frame, spectrum, schedule=schedule).double()
    # Covariance from the model's own transform and variances; orthonormality checked.
    model.denoise(torch.zeros(1, *size, dtype=torch.float64), 100.0)
    matrix = dense(model._transform, size)
    torch.testing.assert_close(
        matrix @ matrix.T, torch.eye(len(matrix), dtype=torch.float64)
    )
    variances = (
        model.coefficient_variances(torch.zeros(1, *size, dtype=torch.float64))
        .expand(size)
        .flatten()
    )
    cov = matrix.T @ torch.diag(variances) @ matrix
    oracle = GaussianConsistencyModel(
        torch.full((len(cov),), 0.5).double(), cov, schedule=schedule
    )
    z = randn(2, *size)
    for t in (50.0, 400.0, 990.0):
        torch.testing.assert_close(model.denoise(z, t), oracle.denoise(z, t))
    frames = cov.reshape(channels, 3, 8, channels, 3, 8)
    if per_frame:
        assert frames[:, 0, :, :, 1].abs().max() < 1e-12
    normal = torch.distributions.MultivariateNormal(
        torch.full((len(cov),), 0.5).double(), cov
    )
    difference = normal.log_prob(z.flatten(1)).diff()
    torch.testing.assert_close(model.log_density(z).diff(), difference)


def test_spectrum_of_an_image_is_that_of_a_frame():
    # The temporal factor integrates to one: a frame of the video prior is (nearly) the
    # image prior. Slow band, so that little lies beyond the highest frequency.
    spectrum = PowerSpectrum(speed=0.1)
    video = spectrum.variances(400, 12, 12, torch.device("cpu"))
    image = spectrum.variances(None, 12, 12, torch.device("cpu"))[0]
    frequency_step = 1 / 800
    two_sided = 2 * video[1:].sum(0) + video[0]
    torch.testing.assert_close(
        (two_sided * frequency_step)[3:], image[3:], rtol=0.15, atol=0
    )


def test_default_spectrum():
    r"""Dong and Atick's exponent, a pixel deviation of 0.2, one value of each part."""
    spectrum = PowerSpectrum()
    size = (192, 320)
    image = spectrum.variances(None, *size, torch.device("cpu"))[0]
    deviation = float((image.flatten()[1:].mean() / 3).sqrt())  # of a colour channel
    assert deviation == pytest.approx(0.2, abs=0.02)
    k = 64 / (2 * 320)
    expected = 1.1e-3 * (k**2 + 4e-6) ** (-2.3 / 2)
    assert float(image[0, 64]) == pytest.approx(expected, rel=1e-4)
    video = spectrum.variances(10, *size, torch.device("cpu"))
    band = 0.4 * (k**2 + 4e-6) ** 0.5
    spread = band / ((3 / 20) ** 2 + band**2) / math.pi
    assert float(video[3, 0, 64]) == pytest.approx(expected * spread, rel=1e-4)
    for name in ("power", "slope", "corner", "speed", "chroma"):
        with pytest.raises(ValueError, match=f"`{name}` must be positive"):
            PowerSpectrum(**{name: -1.0})


def test_spectral_model_adapts_to_size_and_is_invariant():
    model = spectral_video()
    for size in ((1, 3, 5, 17, 22), (2, 3, 1, 8, 8), (1, 1, 5, 17, 22)):
        assert model.sae(torch.rand(size), 300.0).shape == size
    # Clips drawn from the prior keep their spectrum through 20 autoencodings.
    for model in (spectral_video(), spectral_image()):
        x = torch.full((1, 3, 9, 48, 48), 0.5)
        model.sae(x, 300.0)
        noise = torch.randn(x.shape, generator=generator(0))
        scale = model.coefficient_variances(x).sqrt()
        x = model._transform(noise * scale, inverse=True) + 0.5
        reference = (model._transform(x - 0.5) / scale).square().mean()
        u = x
        for k in range(20):
            u = model.sae(u, 250.0, generator=generator(k))
        whitened = model._transform(u - 0.5) / scale
        assert float(reference) == pytest.approx(1, abs=0.02)
        assert float(whitened.square().mean()) == pytest.approx(1, abs=0.02)
        assert abs(float(whitened.mean())) < 0.02


def test_models_copy():
    model = spectral_video()
    x = torch.rand(1, 3, 3, 8, 8)
    expected = model.sae(x, 300.0, generator=generator(1))
    twin = copy.deepcopy(model)
    assert torch.equal(twin.sae(x, 300.0, generator=generator(1)), expected)
