"""The embedded networks: shapes, exactness of the conversions, files, denoiser view."""

import math

import pytest
import torch
from deepinv.models import Denoiser

from deepinv_lvtino.datasets import procedural_clip
from deepinv_lvtino.models import (
    RectifiedFlow,
    TinyConfig,
    TinyConsistencyModel,
    TinyNetwork,
    VariancePreserving,
    load_tiny,
    save_tiny,
    tiny_image,
    tiny_network,
    tiny_video,
)
from deepinv_lvtino.models.tiny import precondition
from deepinv_lvtino.models.tiny_network import _TemporalConvolution

SMALL = TinyConfig(channels=(8, 16), blocks=(1, 1), embedding=8)
SMALL_IMAGE = TinyConfig(channels=(8, 16), blocks=(1, 1), embedding=8, temporal=False)


def random_network(config, seed=0):
    """A network whose zero-initialised parts are random too."""
    rng = torch.Generator().manual_seed(seed)
    network = TinyNetwork(config)
    with torch.no_grad():
        for parameter in network.parameters():
            scale = 1 / math.sqrt(parameter.shape[-1])
            parameter.copy_(torch.randn(parameter.shape, generator=rng) * scale)
    return network.eval().requires_grad_(False)


class LinearNetwork(torch.nn.Module):
    """Network of the exact denoiser of a white Gaussian clip of variance 1/4."""

    def __init__(self):
        super().__init__()
        self.config = SMALL

    def forward(self, latent, log_sigma, jump):
        return torch.zeros_like(latent)


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize("config", [SMALL, SMALL_IMAGE], ids=["video", "image"])
@pytest.mark.parametrize("size", [(1, 16, 24), (5, 13, 18), (4, 8, 8)])
def test_any_size_is_restored_to_itself(config, size, rng):
    model = TinyConsistencyModel(random_network(config))
    x = torch.rand(2, 3, *size, generator=rng)
    out = model.sae(x, 300, generator=rng)
    assert out.shape == x.shape
    assert torch.isfinite(out).all()


def test_autoencoder_is_lossless_and_keeps_noise_white(rng):
    model = TinyConsistencyModel(random_network(SMALL))
    x = torch.rand(2, 3, 5, 12, 16, generator=rng, dtype=torch.float32)
    latent = model.encode(x)
    assert latent.shape == (2, 12, 5, 6, 8)
    torch.testing.assert_close(model.decode(latent), x, rtol=0, atol=1e-7)
    # an isometry up to the factor 2 of the range: pixel_scale is exact
    y = torch.rand(2, 3, 5, 12, 16, generator=rng)
    distance = (model.encode(y) - latent).norm() * model.pixel_scale
    torch.testing.assert_close(distance, (y - x).norm())


def test_time_conventions_follow_the_kind():
    assert isinstance(TinyConsistencyModel(TinyNetwork(SMALL)).schedule, RectifiedFlow)
    image = TinyConsistencyModel(TinyNetwork(SMALL_IMAGE))
    assert isinstance(image.schedule, VariancePreserving)
    assert image.per_frame


def test_preconditioning_is_the_wiener_filter_where_the_network_is_zero(rng):
    model = TinyConsistencyModel(LinearNetwork(), RectifiedFlow())
    noisy = torch.randn(2, 12, 3, 4, 6, generator=rng)
    for t in (100.0, 500.0, 757.0):
        ratio = model.schedule.noise_ratio(t)
        expected = noisy / model.schedule.alpha(t) * 0.25 / (0.25 + ratio)
        torch.testing.assert_close(model.denoise(noisy, t), expected)


def test_both_time_conventions_see_the_same_network(rng):
    network = random_network(SMALL)
    flow = TinyConsistencyModel(network, RectifiedFlow())
    preserving = TinyConsistencyModel(network, VariancePreserving())
    x = torch.rand(1, 3, 4, 8, 12, generator=rng)
    noise = torch.randn(1, 12, 4, 4, 6, generator=rng)
    ratio = 0.3
    first = flow.sae(x, flow.schedule.time(ratio), noise=noise)
    second = preserving.sae(x, preserving.schedule.time(ratio), noise=noise)
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)


def test_image_network_treats_frames_alone_and_video_network_does_not(rng):
    x = torch.rand(1, 3, 6, 16, 16, generator=rng)
    noise = torch.randn(1, 12, 6, 8, 8, generator=rng)
    changed = x.clone()
    changed[:, :, 3] = 0.5
    others = [0, 1, 2, 4, 5]
    for config, alone in ((SMALL_IMAGE, True), (SMALL, False)):
        model = TinyConsistencyModel(random_network(config))
        first, second = (model.sae(v, 400, noise=noise) for v in (x, changed))
        same = torch.equal(first[:, :, others], second[:, :, others])
        assert same == alone
        assert not torch.equal(first[:, :, 3], second[:, :, 3])


def test_batch_equals_stacked_singles(rng):
    network = random_network(SMALL)
    noisy = torch.randn(3, 12, 4, 8, 8, generator=rng)
    sigma = torch.tensor([0.1, 0.5, 2.0])
    flag = torch.tensor([0.0, 1.0, 0.0])
    together = precondition(network, noisy, sigma, flag)
    alone = torch.cat(
        [
            precondition(network, noisy[i : i + 1], sigma[i : i + 1], flag[i : i + 1])
            for i in range(3)
        ]
    )
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_denoiser_and_jump_differ_by_the_flag(rng):
    model = TinyConsistencyModel(random_network(SMALL))
    noisy = torch.randn(1, 12, 4, 8, 8, generator=rng)
    mean, jump = (model.predict(noisy, 0.5, jump=flag) for flag in (False, True))
    assert not torch.allclose(mean, jump, atol=1e-3)
    alpha = model.schedule.alpha(model.schedule.time(0.25))
    at = model.denoise(alpha * noisy, model.schedule.time(0.25))
    torch.testing.assert_close(at, jump, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", [SMALL, SMALL_IMAGE], ids=["video", "image"])
def test_denoiser_view(config, rng):
    model = TinyConsistencyModel(random_network(config))
    denoiser = model.as_denoiser()
    assert isinstance(denoiser, Denoiser)
    x = torch.rand(2, 3, 5, 14, 18, generator=rng)
    sigma = torch.tensor([0.05, 0.2])
    out = denoiser(x, sigma)
    assert out.shape == x.shape
    torch.testing.assert_close(out[1:], denoiser(x[1:], 0.2), rtol=1e-4, atol=1e-5)
    # the noise in the latent, on [-1, 1], is twice that of the pixels
    clip = x[:1, ..., :12, :16]
    mean = model.predict(model.encode(clip), 0.1, jump=False)
    torch.testing.assert_close(denoiser(clip, 0.05), model.decode(mean))


def test_image_denoiser_takes_images(rng):
    denoiser = TinyConsistencyModel(random_network(SMALL_IMAGE)).as_denoiser()
    x = torch.rand(2, 3, 16, 20, generator=rng)
    frames = denoiser(x.unsqueeze(2), 0.1).squeeze(2)
    torch.testing.assert_close(denoiser(x, 0.1), frames)


def test_video_denoiser_refuses_images():
    denoiser = TinyConsistencyModel(TinyNetwork(SMALL)).as_denoiser()
    with pytest.raises(ValueError, match=r"`x` must be a clip of shape"):
        denoiser(torch.rand(1, 3, 16, 16), 0.1)


def test_only_rgb():
    model = TinyConsistencyModel(TinyNetwork(SMALL))
    with pytest.raises(ValueError, match="3 channels"):
        model.sae(torch.rand(1, 1, 3, 8, 8), 300)


def test_save_and_load(tmp_path, rng):
    network = random_network(SMALL)
    path = tmp_path / "tiny.safetensors"
    save_tiny(network, path, {"training": "none"})
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    loaded = load_tiny(path)
    assert loaded.network.config == SMALL
    for name, value in network.state_dict().items():
        torch.testing.assert_close(
            loaded.network.state_dict()[name], value.half().float(), rtol=0, atol=0
        )


def test_load_refuses_other_files(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="save_tiny"):
        load_tiny(tmp_path / "other.safetensors")


def test_config_is_checked():
    with pytest.raises(ValueError, match="`channels` and `blocks`"):
        TinyConfig(channels=(8, 16), blocks=(1,))


@pytest.mark.parametrize("make", [tiny_video, tiny_image])
def test_repeated_autoencoding_keeps_brightness_and_contrast(make):
    r"""A gain of one percent per application would make 1.6 out of fifty."""
    model = make()
    x = procedural_clip(9, 64, 64, seed=3)[None]
    time = model.schedule.time((0.15 / 0.85) ** 2)
    rng = torch.Generator().manual_seed(0)
    u = x
    for _ in range(50):
        u = model.sae(u, time, generator=rng)
    assert float(u.mean()) == pytest.approx(float(x.mean()), abs=0.02)
    assert 0.8 < float(u.std() / x.std()) < 1.3


def test_temporal_convolution_is_the_three_dimensional_one():
    torch.manual_seed(0)
    layer = _TemporalConvolution(6, 10)
    x = torch.randn(2 * 5, 6, 4, 3)
    kernel = layer.weight.view(10, 3, 6).movedim(-1, 1)[..., None, None]
    clip = x.unflatten(0, (2, 5)).transpose(1, 2)
    expected = torch.nn.functional.conv3d(clip, kernel, layer.bias, padding=(1, 0, 0))
    found = layer(x, num_frames=5).unflatten(0, (2, 5)).transpose(1, 2)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("temporal", [True, False])
def test_pieces_give_what_the_whole_gives(temporal, monkeypatch):
    network = random_network(SMALL if temporal else SMALL_IMAGE)
    latent = torch.randn(2, 12, 5, 8, 12, generator=torch.Generator().manual_seed(0))
    level, flag = torch.tensor([0.1, -1.0]), torch.ones(2)
    with torch.no_grad():
        whole = network(latent, level, flag)
        monkeypatch.setattr(tiny_network, "PIECE", 700)
        pieces = network(latent, level, flag)
    torch.testing.assert_close(pieces, whole, rtol=1e-5, atol=1e-5)
