"""The training code: losses against closed forms, resuming, the command."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from deepinv_lvtino.models import TinyNetwork, load_tiny, save_tiny
from deepinv_lvtino.models.tiny import SIGMA_DATA
from deepinv_lvtino.training import (
    PoolClips,
    Trainer,
    TrainingOptions,
    consistency_loss,
    denoising_loss,
    multiscale,
)
from deepinv_lvtino.training.__main__ import main
from deepinv_lvtino.training.losses import NUM_STEPS, draw_sigma, flow_step
from deepinv_lvtino.training.start import start_from
from test_tiny import SMALL, SMALL_IMAGE, random_network


class GaussianNetwork(torch.nn.Module):
    """Exact network of white Gaussian latents ``N(0, v)``, for mean and jump."""

    def __init__(self, variance):
        super().__init__()
        self.variance = variance

    def forward(self, latent, log_sigma, jump):
        sigma2 = (2 * log_sigma).exp()
        gain_mean = self.variance / (self.variance + sigma2)
        gain_jump = (self.variance / (self.variance + sigma2)).sqrt()
        gain = torch.where(jump > 0.5, gain_jump, gain_mean)
        # invert the preconditioning: gain = skip + out * F / in
        total = sigma2 + SIGMA_DATA**2
        factor = (gain - SIGMA_DATA**2 / total) * total / (sigma2.sqrt() * SIGMA_DATA)
        return latent * factor.view(-1, 1, 1, 1, 1)


@pytest.fixture
def pool():
    rng = np.random.default_rng(0)
    return rng.integers(0, 255, (3, 3, 4, 20, 24), dtype=np.uint8)


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(1)


def test_levels_are_log_uniform_and_stratified(rng):
    sigma = draw_sigma(64, rng)
    position = (sigma / 0.02).log() / math.log(5 / 0.02)
    strata = (position * 64).floor().sort().values
    torch.testing.assert_close(strata, torch.arange(64.0))


def test_flow_step_follows_the_closed_form(rng):
    """For N(0, v) the flow scales z by sqrt((v + s'^2) / (v + s^2))."""
    v = 0.3
    network = GaussianNetwork(v)
    z = torch.randn(2, 12, 2, 4, 4, generator=rng)
    sigma = torch.tensor([1.0, 0.3])
    state = z
    levels = torch.linspace(1, 0.5, 65)
    for a, b in zip(levels[:-1], levels[1:], strict=True):
        state = flow_step(network, state, sigma * a, sigma * b)
    gain = ((v + (sigma / 2) ** 2) / (v + sigma**2)).sqrt().view(-1, 1, 1, 1, 1)
    torch.testing.assert_close(state, z * gain, rtol=1e-4, atol=1e-5)


def test_losses_vanish_or_are_least_at_the_exact_network(rng):
    v = 0.2
    clean = math.sqrt(v) * torch.randn(64, 12, 4, 8, 8, generator=rng)
    exact = GaussianNetwork(v)

    def loss(network, kind):
        fixed = torch.Generator().manual_seed(5)
        if kind == "denoise":
            return denoising_loss(network, clean, fixed).mean()
        return consistency_loss(network, exact, clean[:8], fixed, 16).mean()

    for kind in ("denoise", "consistency"):
        best = loss(exact, kind)
        others = [loss(GaussianNetwork(s * v), kind) for s in (0.8, 1.25)]
        assert best < min(others)
    # of the distillation only the error of few Heun steps is left
    assert best < 0.2 * min(others)


def test_consistency_target_takes_no_gradient(rng):
    network = random_network(SMALL).requires_grad_(True)
    other = random_network(SMALL, seed=1).requires_grad_(True)
    clean = torch.randn(2, 12, 2, 4, 4, generator=rng)
    loss = consistency_loss(network, other, clean, rng)
    assert loss.shape == (2 * NUM_STEPS,)
    loss.mean().backward()
    assert all(p.grad is None for p in other.parameters())
    assert any(p.grad.abs().max() > 0 for p in network.parameters())


def test_crops(pool):
    clips = PoolClips([pool, pool[:1]], num_frames=3, size=16, seed=0)
    assert len(clips) == 4
    batch = clips.batch(5)
    assert batch.shape == (5, 3, 3, 16, 16)
    assert batch.min() >= -1 and batch.max() <= 1
    again = PoolClips([pool, pool[:1]], num_frames=3, size=16, seed=0)
    assert torch.equal(again.batch(5), batch)


@pytest.mark.parametrize(
    "wrong",
    [lambda p: p.astype(np.float32), lambda p: p[:, :1], lambda p: p[..., :8]],
)
def test_wrong_pools(pool, wrong):
    with pytest.raises(ValueError, match="`pools` must hold uint8 arrays"):
        PoolClips([wrong(pool)], num_frames=3, size=16)


def train(folder, pool, steps, **options):
    torch.manual_seed(0)
    network = TinyNetwork(SMALL)
    clips = PoolClips([pool], num_frames=3, size=16)
    settings = TrainingOptions(batch_size=4, steps=steps, warmup=5, **options)
    trainer = Trainer(network, clips, folder, settings)
    average = trainer.run(log_every=10)
    return trainer, average


def test_training_lowers_the_loss(tmp_path):
    # constant clips: noise is easy to tell from them
    levels = np.random.default_rng(0).integers(0, 255, (8, 3, 1, 1, 1))
    pool = np.broadcast_to(levels, (8, 3, 4, 20, 24)).astype(np.uint8)
    train(tmp_path, pool, 60)
    entries = (tmp_path / "loss.jsonl").read_text().splitlines()
    curve = [json.loads(line)["loss"] for line in entries]
    assert len(curve) == 6
    assert curve[-1] < 0.85 * curve[0]


def test_resumes_where_it_stopped(tmp_path, pool, monkeypatch):
    """A run that is interrupted goes on with its step, weights and averages."""
    trainer, _ = train(tmp_path, pool, 6)
    resumed = Trainer(
        TinyNetwork(SMALL),
        PoolClips([pool], num_frames=3, size=16),
        tmp_path,
        TrainingOptions(batch_size=4, steps=9, warmup=5),
    )
    assert resumed.step == 6
    for first, second in (
        (trainer.network, resumed.network),
        (trainer.average, resumed.average),
    ):
        torch.testing.assert_close(first.state_dict(), second.state_dict())
    resumed.run()
    assert resumed.step == 9


def test_stages_do_not_share_a_folder(tmp_path, pool):
    train(tmp_path, pool, 2)
    with pytest.raises(ValueError, match="name another folder"):
        train(tmp_path, pool, 2, stage="consistency")


def test_consistency_stage_runs(tmp_path, pool):
    trainer, average = train(tmp_path, pool, 3, stage="consistency")
    assert trainer.step == 3
    assert all(torch.isfinite(p).all() for p in average.parameters())


def test_options_are_checked():
    with pytest.raises(ValueError, match="`stage` must be"):
        TrainingOptions(stage="third")
    with pytest.raises(ValueError, match="`batch_size` and `minutes`"):
        TrainingOptions(minutes=0)


def test_video_network_starts_as_the_image_network(rng):
    image, video = random_network(SMALL_IMAGE), TinyNetwork(SMALL)
    start_from(video, image)
    latent = torch.randn(2, 12, 5, 4, 4, generator=rng)
    level, flag = torch.tensor([0.1, -1.0]), torch.zeros(2)
    torch.testing.assert_close(
        video(latent, level, flag), image(latent, level, flag), rtol=1e-4, atol=1e-5
    )


def test_larger_network_begins_as_the_smaller(rng):
    small = random_network(SMALL)
    sizes = replace(SMALL, channels=(*SMALL.channels, 24), blocks=(*SMALL.blocks, 2))
    large = TinyNetwork(sizes)
    start_from(large, small)
    latent = torch.randn(2, 12, 5, 8, 16, generator=rng)
    level, flag = torch.tensor([0.1, -1.0]), torch.zeros(2)
    found = large(latent, level, flag)
    torch.testing.assert_close(found, small(latent, level, flag))
    # and what is new can be trained
    found.square().mean().backward()
    assert large.up[len(SMALL.channels) - 1].weight.grad.abs().max() > 0


def test_start_of_other_sizes_is_refused():
    with pytest.raises(ValueError, match="must have the sizes"):
        start_from(TinyNetwork(), random_network(SMALL))


def test_command_trains_and_exports(tmp_path, pool):
    np.save(tmp_path / "pool.npy", pool)
    sizes = ["--channels", "8", "16", "--blocks", "1", "1"]
    common = ["--pool", str(tmp_path / "pool.npy"), "--size", "16", "--frames", "3"]
    common += ["--batch", "2", "--steps", "2"]
    main(["denoise", str(tmp_path / "one"), *common, *sizes])
    main(["export", str(tmp_path / "one"), str(tmp_path / "one.safetensors")])
    start = ["--start", str(tmp_path / "one.safetensors")]
    main(["consistency", str(tmp_path / "two"), *common, *sizes, *start])
    main(["export", str(tmp_path / "two"), str(tmp_path / "two.safetensors")])
    model = load_tiny(tmp_path / "two.safetensors")
    assert model.network.config.channels == (8, 16)
    with pytest.raises(SystemExit, match="--start"):
        main(["consistency", str(tmp_path / "three"), *common, *sizes])


def test_saved_image_weights_start_a_video(tmp_path):
    save_tiny(random_network(SMALL_IMAGE), tmp_path / "image.safetensors")
    network = load_tiny(tmp_path / "image.safetensors").network
    start_from(TinyNetwork(SMALL), network)


def test_multiscale_loss_against_its_definition():
    error = torch.randn(2, 12, 3, 4, 6, dtype=torch.float64)
    expected = error.square().mean(dim=(1, 2, 3, 4))
    for block in (2, 4):  # blocks of eight do not fit
        height, width = 4 // block, 6 // block
        inside = error[..., : height * block, : width * block]
        means = inside.reshape(2, 12, 3, height, block, width, block).mean(dim=(4, 6))
        expected = expected + block * means.square().mean(dim=(1, 2, 3, 4))
    torch.testing.assert_close(multiscale(error).double(), expected)
    # a contrast error weighs fifteen times as much as white noise of its size
    assert float(multiscale(torch.ones(1, 12, 1, 8, 8))) == pytest.approx(15)
