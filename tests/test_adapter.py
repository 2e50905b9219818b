r"""Any diffusers model as a prior; tiles, memory, and a sweep with a known answer."""

from __future__ import annotations

import weakref
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import checkpoints
from deepinv_lvtino import LVTINO, Schedule, make_problem
from deepinv_lvtino.models import (
    DiffusersConsistencyModel,
    OutOfMemory,
    RectifiedFlow,
    SDXLConsistencyModel,
    Tiles,
    VariancePreserving,
    WanConsistencyModel,
    _memory,
    _published,
    clean_latent,
    estimate_memory,
)
from deepinv_lvtino.models._memory import (
    Part,
    num_bytes,
    parameters_on_meta,
    peak_activations,
    with_room,
)
from deepinv_lvtino.models._tiling import tiled
from deepinv_lvtino.optim import GammaStep
from helpers import dense, rand, randn

# -- predictions -----------------------------------------------------------------------


@pytest.mark.parametrize("prediction", ["noise", "velocity", "v", "clean"])
def test_predictions_become_clean_latents(prediction: str) -> None:
    clean, noise = randn(2, 3, 4), randn(2, 3, 4, seed=1)
    if prediction == "velocity":
        schedule: Any = RectifiedFlow(shift=8.0, snap=True)
    else:
        schedule = VariancePreserving()
    a, s = schedule.alpha(375), schedule.sigma(375)
    output = {
        "noise": noise,
        "velocity": noise - clean,
        "v": a * noise - s * clean,
        "clean": clean,
    }[prediction]
    found = clean_latent(prediction, a * clean + s * noise, output, a, s)
    torch.testing.assert_close(found, clean, atol=1e-12, rtol=0)


def test_the_conversion_is_done_in_double_precision() -> None:
    noisy = torch.full((1,), 1e4, dtype=torch.float32)
    output = torch.full((1,), 1e4 - 0.0009765625, dtype=torch.float32)
    found = clean_latent("velocity", noisy, output, 0.0, 1.0)
    assert found.dtype == torch.float32
    assert float(found) == float(noisy.double() - output.double())


def test_wrong_predictions_are_refused() -> None:
    z = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="`prediction` must be one of"):
        clean_latent("epsilon", z, z, 1.0, 0.0)
    with pytest.raises(ValueError, match=r"shape \(2, 4\); expected"):
        clean_latent("noise", z, torch.zeros(2, 4), 1.0, 0.0)


# -- a sweep with a known answer -------------------------------------------------------


class Config(dict):
    __getattr__ = dict.get


class LinearAutoencoder(nn.Module):
    r"""Blocks of 2x2 pixels, mixed by an orthogonal matrix; time is left alone."""

    def __init__(self, video: bool, seed: int) -> None:
        super().__init__()
        self.video = video
        mixing = torch.linalg.qr(randn(12, 12, seed=seed))[0]
        self.mixing = nn.Parameter(mixing)
        self.config = Config(
            scale_factor_spatial=2, scale_factor_temporal=1, scaling_factor=0.5
        )

    def encode(self, x: Tensor) -> SimpleNamespace:
        frames = x.transpose(1, 2).flatten(0, 1) if self.video else x
        latent = torch.einsum(
            "ij,njhw->nihw", self.mixing, F.pixel_unshuffle(frames, 2)
        )
        if self.video:
            latent = latent.unflatten(0, (len(x), -1)).transpose(1, 2)
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: latent))

    def decode(self, z: Tensor, return_dict: bool = True) -> tuple[Tensor]:
        assert not return_dict
        frames = z.transpose(1, 2).flatten(0, 1) if self.video else z
        x = F.pixel_shuffle(torch.einsum("ij,nihw->njhw", self.mixing, frames), 2)
        if self.video:
            x = x.unflatten(0, (len(z), -1)).transpose(1, 2)
        return (x,)


class LinearNetwork(nn.Module):
    r"""A prediction that is linear in the latent and affine in the prompt."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor, dtype=torch.float64))
        self.config = Config()

    def forward(
        self,
        latent: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        return_dict: bool = True,
        **rest: Any,
    ) -> tuple[Tensor]:
        shift = encoder_hidden_states.mean() * timestep[0] / 1000
        return (self.factor * latent + shift,)


def test_a_whole_sweep_of_linear_models_has_the_answer_of_linear_algebra() -> None:
    size = (3, 4, 16, 16)
    prompt = torch.full((1, 1, 1), 0.3, dtype=torch.float64)
    video = WanConsistencyModel(
        LinearNetwork(0.4), LinearAutoencoder(True, 1), prompt, tiling=None
    )
    image = SDXLConsistencyModel(
        LinearNetwork(0.2), LinearAutoencoder(False, 2), prompt, prompt[0], tiling=None
    )
    physics = make_problem("B", img_size=size, dtype=torch.float64)
    y = physics(rand(1, *size))
    noises = {
        "k0/video": randn(1, 12, 4, 8, 8),
        "k1/video": randn(1, 12, 4, 8, 8, seed=1),
    }
    noises["k0/image"] = randn(1, 12, 1, 8, 8, seed=2)
    solver = LVTINO(
        video,
        image,
        schedule=Schedule.explicit([757, 375], [0.02, 0.01], [374], [0.03]),
        init=torch.full((1, *size), 0.5, dtype=torch.float64),
        noise_source=lambda label, like: noises[label],
    )
    found = solver(y, physics)

    matrix = dense(physics.A, size)
    weight = 1 / float(physics.noise_model.sigma) ** 2

    def data_step(z: Tensor, step: float) -> Tensor:
        gamma = step * weight
        left = (
            torch.eye(matrix.shape[1], dtype=torch.float64) + gamma * matrix.T @ matrix
        )
        right = z.flatten() + gamma * matrix.T @ y.flatten()
        return torch.linalg.solve(left, right).reshape(1, *size)

    def to_latent(x: Tensor, seed: int) -> Tensor:
        mixing = torch.linalg.qr(randn(12, 12, seed=seed))[0]
        blocks = F.pixel_unshuffle((2 * x - 1)[0].transpose(0, 1), 2)
        return 0.5 * torch.einsum("ij,tjhw->ithw", mixing, blocks)[None]

    def to_video(z: Tensor, seed: int) -> Tensor:
        mixing = torch.linalg.qr(randn(12, 12, seed=seed))[0]
        blocks = torch.einsum("ij,ithw->tjhw", mixing, 2 * z[0])
        return (F.pixel_shuffle(blocks, 2).transpose(0, 1)[None] + 1) / 2

    x = torch.full((1, *size), 0.5, dtype=torch.float64)
    table = [8 * (1 - i / 1000) / (1 + 7 * (1 - i / 1000)) for i in range(1000)]
    for k, t, step in ((0, 757, 0.02), (1, 375, 0.01)):
        s = min(table, key=lambda entry, t=t: abs(entry - t / 1000))
        z = (1 - s) * to_latent(x, 1) + s * noises[f"k{k}/video"]
        x = to_video(z - s * (0.4 * z + 0.3 * t / 1000), 1)
        x = data_step(x, step)
        if k == 0:
            betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64)
            abar = float((1 - betas.square()).cumprod(0)[374])
            a, s = abar**0.5, (1 - abar) ** 0.5
            z = a * to_latent(x.clamp(0, 1), 2) + s * noises["k0/image"]
            x = data_step(to_video((z - s * (0.2 * z + 0.3 * 0.374)) / a, 2), 0.03)
    torch.testing.assert_close(found, x, atol=1e-8, rtol=0)


def test_pixel_scale_of_an_orthogonal_autoencoder_is_one_half_of_its_scale() -> None:
    model = WanConsistencyModel(
        LinearNetwork(0.4), LinearAutoencoder(True, 1), torch.zeros(1, 1, 1)
    )
    # [0, 1] pixels are half of [-1, 1] ones, and latents are scaled by 0.5
    scale = model.measure_pixel_scale(rand(1, 3, 2, 64, 64))
    assert scale == pytest.approx(1.0, rel=0.02)
    assert model.pixel_scale == scale


# -- other models of diffusers ---------------------------------------------------------


def ltx(**decode_arguments: Any) -> DiffusersConsistencyModel:
    r"""The worked example of the user guide, with small networks."""
    from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel

    transformer = LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        num_layers=1,
        caption_channels=16,
    )
    vae = AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, True, False),
        decoder_spatio_temporal_scaling=(True, True, True, False),
        decoder_inject_noise=(False,) * 5,
        upsample_residual=(False,) * 4,
        upsample_factor=(1,) * 4,
        patch_size=4,
        patch_size_t=1,
        encoder_causal=True,
        decoder_causal=False,
        timestep_conditioning="temb" in decode_arguments,
    )

    def call(
        network: nn.Module,
        latent: Tensor,
        timestep: Tensor,
        conditioning: dict[str, Any],
    ) -> Tensor:
        frames, height, width = latent.shape[2:]
        tokens = latent.flatten(2).transpose(1, 2)
        output = network(
            tokens,
            timestep=timestep,
            num_frames=frames,
            height=height,
            width=width,
            rope_interpolation_scale=(8 / 25, 32, 32),
            return_dict=False,
            **conditioning,
        )[0]
        return output.transpose(1, 2).reshape(latent.shape)

    return DiffusersConsistencyModel(
        transformer.eval(),
        vae.eval(),
        RectifiedFlow(shift=1.0),
        prediction="velocity",
        call=call,
        conditioning={
            "encoder_hidden_states": torch.randn(1, 4, 16),
            "encoder_attention_mask": torch.ones(1, 4, dtype=torch.long),
        },
        decode_arguments=decode_arguments,
    )


@pytest.mark.parametrize("frames, padded", [(1, 1), (9, 9), (10, 17)])
def test_ltx_with_a_call_of_its_own(frames: int, padded: int) -> None:
    model = ltx()
    assert model.multiple == (8, 32, 32)
    x = rand(1, 3, frames, 32, 40, dtype=torch.float32)
    assert model.encode(model.pad(x)).shape == (1, 8, 1 + (padded - 1) // 8, 1, 2)
    assert model.sae(x, 500).shape == x.shape


def test_a_decoder_may_be_told_more() -> None:
    x = rand(1, 3, 9, 32, 32, dtype=torch.float32)
    results = []
    for time in (0.05, 0.5):
        torch.manual_seed(0)
        model = ltx(temb=torch.tensor([time]))
        for parameter in model.parameters():  # some start at zero
            parameter.add_(0.05 * torch.randn_like(parameter))
        results.append(model.sae(x, 500, torch.zeros(1, 8, 2, 1, 1)))
    assert results[0].shape == x.shape
    assert float((results[0] - results[1]).abs().max()) > 1e-4


def test_normalisation_may_come_from_buffers_of_the_autoencoder() -> None:
    model = ltx()
    model.autoencoder.latents_mean.fill_(0.5)
    model.autoencoder.latents_std.fill_(2.0)
    again = DiffusersConsistencyModel(
        model.network, model.autoencoder, model.schedule, prediction="velocity"
    )
    x = rand(1, 3, 1, 32, 32, dtype=torch.float32)
    torch.testing.assert_close(again.encode(x), (model.encode(x) - 0.5) / 2)


def test_stable_diffusion_by_its_parts() -> None:
    unet = checkpoints.sdxl_unet(
        addition_embed_type=None,
        projection_class_embeddings_input_dim=None,
        time_cond_proj_dim=6,
    )
    model = DiffusersConsistencyModel(
        unet,
        checkpoints.sdxl_autoencoder(),
        VariancePreserving(),
        prediction="noise",
        conditioning={
            "encoder_hidden_states": torch.randn(1, 5, 14),
            "timestep_cond": torch.randn(1, 6),
        },
        per_frame=True,
        shared_noise=True,
    )
    assert model.multiple == (1, 16, 16)
    x = rand(2, 3, 3, 20, 16, dtype=torch.float32)
    assert model.sae(x, 499).shape == x.shape


@pytest.mark.parametrize(
    "options, message",
    [
        ({"prediction": "eps"}, "`prediction` must be one of"),
        ({"frame_batch": 0}, "`frame_batch` must be 1 or more"),
        ({"tiling": "yes"}, '`tiling` must be "auto", a Tiles or None'),
        ({"offload": "sometimes"}, '`offload` must be "auto", True or False'),
        ({"guidance": 2.0}, "needs `negative`"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiffusersConsistencyModel(
            LinearNetwork(0.1),
            LinearAutoencoder(True, 1),
            RectifiedFlow(),
            **({"prediction": "velocity"} | options),
        )


def test_parts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="does not say how much it compresses"):
        DiffusersConsistencyModel(
            nn.Identity(), nn.Identity(), RectifiedFlow(), prediction="velocity"
        )
    model = WanConsistencyModel(
        LinearNetwork(0.1), LinearAutoencoder(True, 1), torch.zeros(2, 1, 1)
    )
    with pytest.raises(ValueError, match="batch axis of length one"):
        model.denoise(torch.zeros(1, 12, 1, 2, 2), 500)
    model = WanConsistencyModel(
        LinearNetwork(0.1),
        LinearAutoencoder(True, 1),
        torch.zeros(1, 1, 1),
        latent_mean=torch.zeros(5),
    )
    with pytest.raises(ValueError, match="one per channel"):
        model.encode(torch.zeros(1, 3, 1, 4, 4))


# -- tiles -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [64, 96, 104, 200, 1000])
def test_tiles_cover_an_axis_and_fit(size: int) -> None:
    tiles = Tiles(64, 16)
    spans = tiles.spans(size, 8)
    assert spans[0][0] == 0 and spans[-1][1] == size
    for start, stop in spans:
        assert start % 8 == stop % 8 == 0
        assert stop - start <= 64
    for (_, end), (start, _) in zip(spans, spans[1:], strict=False):
        assert end - start >= 16
    for (_, end), (start, _) in zip(spans, spans[2:], strict=False):
        assert end <= start


@pytest.mark.parametrize("size", [(48, 200), (200, 136)])
def test_tiles_change_nothing_if_context_is_short(size: tuple[int, int]) -> None:
    r"""Context of 3 pixels, and an overlap of which a quarter is 4."""
    kernel = randn(2, 3, 7, 7)

    def blur(x: Tensor) -> Tensor:
        return F.conv2d(x, kernel, padding=3)

    x = randn(2, 3, *size)
    found = tiled(blur, x, Tiles(64, 16), grid=8)
    torch.testing.assert_close(found, blur(x), atol=1e-12, rtol=0)


def test_tiles_of_an_encoder_and_a_decoder() -> None:
    x = randn(1, 3, 40, 168)
    seen: list[tuple[int, ...]] = []

    def encode(cut: Tensor) -> Tensor:
        seen.append(tuple(cut.shape[-2:]))
        return F.avg_pool2d(cut, 8)

    latent = tiled(encode, x, Tiles(64, 16), grid=8, outputs=8)
    torch.testing.assert_close(latent, F.avg_pool2d(x, 8))
    assert max(max(shape) for shape in seen) <= 64 and len(seen) > 2
    decoded = tiled(
        lambda cut: F.interpolate(cut, scale_factor=8), latent, Tiles(64, 16), grid=8,
        inputs=8,
    )  # fmt: skip
    torch.testing.assert_close(decoded, F.interpolate(latent, scale_factor=8))


def test_a_model_cuts_large_frames_only() -> None:
    model = WanConsistencyModel(
        LinearNetwork(0.4), LinearAutoencoder(True, 1), torch.zeros(1, 1, 1)
    )
    assert model.tiles == Tiles(768, 128)
    x = rand(1, 3, 2, 40, 136)
    whole = model.sae(x, 375, randn(1, 12, 2, 20, 68))
    model.tiles = Tiles(32, 8)
    cut = model.sae(x, 375, randn(1, 12, 2, 20, 68))
    torch.testing.assert_close(cut, whole, atol=1e-12, rtol=0)
    with pytest.raises(ValueError, match="a quarter of `side` at most"):
        Tiles(64, 32)


# -- memory ----------------------------------------------------------------------------


class Mover(nn.Linear):
    r"""A layer that says it is where it was sent."""

    def __init__(self) -> None:
        super().__init__(8, 8)
        self.place = torch.device("cpu")

    def to(self, device: Any) -> Mover:  # type: ignore[override]
        self.place = torch.device(device)
        return self


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[Part]:
    r"""Parts on a pretended GPU with room for two."""
    cuda = torch.device("cuda", 0)
    monkeypatch.setattr(_memory, "_parts", weakref.WeakSet())
    made = [Part(name, Mover(), "auto") for name in ("a", "b", "c")]
    size = num_bytes(made[0].module)
    monkeypatch.setattr(_memory, "RESERVE", 0)
    monkeypatch.setattr(Part, "device", property(lambda self: self.module.place))
    monkeypatch.setattr(Part, "away_from", lambda self, to: self.module.place != to)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(
        _memory,
        "free_bytes",
        lambda device: 2 * size - size * sum(p.module.place == cuda for p in made),
    )
    return made


def places(parts: list[Part]) -> list[str]:
    return [part.module.place.type for part in parts]


CUDA = torch.device("cuda", 0)


def use(part: Part) -> None:
    part.run(lambda module: None, CUDA, {})


def test_networks_leave_only_when_room_is_needed(parts: list[Part]) -> None:
    use(parts[0])
    use(parts[1])
    assert places(parts) == ["cuda", "cuda", "cpu"]
    use(parts[0])
    use(parts[2])  # the longest unused goes
    assert places(parts) == ["cuda", "cpu", "cuda"]


def test_a_device_without_number_is_the_current_one(
    parts: list[Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    use(parts[0])
    use(parts[1])
    parts[2].run(lambda module: None, torch.device("cuda"), {})
    assert places(parts) == ["cpu", "cuda", "cuda"]
    assert all(part.module.place in (CUDA, torch.device("cpu")) for part in parts)


def test_networks_leave_after_each_use_or_never(parts: list[Part]) -> None:
    parts[0].offload = True
    parts[1].offload = False
    use(parts[0])
    assert places(parts) == ["cpu", "cpu", "cpu"]
    use(parts[1])
    use(parts[2])
    use(parts[0])
    assert places(parts) == ["cpu", "cuda", "cpu"]


def test_a_move_that_failed_half_way_is_finished() -> None:
    network = nn.Sequential(nn.Linear(2, 2, device="meta"), nn.Linear(2, 2))
    part = Part("network", network, False)
    assert part.device == torch.device("meta")  # by its first tensor alone
    assert part.away_from(torch.device("meta"))
    part.run(lambda net: None, torch.device("meta"), {})
    assert {p.device.type for p in network.parameters()} == {"meta"}
    assert not part.away_from(torch.device("meta"))


def test_data_steps_make_the_networks_leave_too(
    parts: list[Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(parts[0])
    use(parts[1])
    tries = []

    def hungry() -> str:
        tries.append(places(parts))
        if len(tries) == 1:
            msg = "CUDA out of memory"
            raise torch.cuda.OutOfMemoryError(msg)
        return "done"

    assert with_room(hungry, CUDA, what="data step", settings={}) == "done"
    assert tries == [["cuda", "cuda", "cpu"], ["cpu", "cpu", "cpu"]]
    monkeypatch.setattr(
        GammaStep, "advance", lambda *_: torch.empty(2**62, dtype=torch.uint8)
    )
    physics = make_problem("B", img_size=(3, 2, 16, 16))
    solver = LVTINO(schedule=Schedule.published("B"))
    with pytest.raises(OutOfMemory, match="on cpu in the data step.*a smaller video"):
        solver(physics(torch.rand(1, 3, 2, 16, 16)), physics)


def test_a_network_visits_the_device_once_for_all_frames(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    visits = []
    original = Part.run

    def run(self: Part, *arguments: Any) -> Any:
        visits.append(self.name)
        return original(self, *arguments)

    monkeypatch.setattr(Part, "run", run)
    model = SDXLConsistencyModel(
        LinearNetwork(0.4),
        LinearAutoencoder(False, 1),
        torch.zeros(1, 1, 1),
        torch.zeros(1, 1),
        frame_batch=1,
        offload=True,
    )
    model.sae(rand(2, 3, 5, 16, 16), 374)
    assert visits == ["autoencoder", "network", "autoencoder"]


def test_running_out_of_memory_makes_the_others_leave_first(parts: list[Part]) -> None:
    use(parts[0])
    tries = []

    def hungry(module: nn.Module) -> str:
        tries.append(places(parts))
        if parts[0].module.place == CUDA:
            msg = "CUDA out of memory"
            raise torch.cuda.OutOfMemoryError(msg)
        return "done"

    assert parts[1].run(hungry, CUDA, {}) == "done"
    assert tries == [["cuda", "cuda", "cpu"], ["cpu", "cuda", "cpu"]]


def test_running_out_of_memory_names_the_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = SDXLConsistencyModel(
        LinearNetwork(0.4),
        LinearAutoencoder(False, 1),
        torch.zeros(1, 1, 1),
        torch.zeros(1, 1),
    )

    def fail(*_: Any, **__: Any) -> None:
        msg = "DefaultCPUAllocator: can't allocate memory: you tried to allocate"
        raise RuntimeError(msg)

    monkeypatch.setattr(model, "call", fail)
    x = rand(1, 3, 2, 16, 16)
    with pytest.raises(OutOfMemory, match="out of memory on cpu in the network") as e:
        model.sae(x, 374)
    for setting in ("`frame_batch=1`", "`dtype=torch.bfloat16`"):
        assert setting in str(e.value)
    assert "offload" not in str(e.value)  # there is nowhere to go from the CPU
    assert "`offload=True`" in model._remedies("network", CUDA)
    model.frame_batch, model.offload = 1, True
    assert "`offload=True`" not in model._remedies("network", CUDA)
    monkeypatch.setattr(model.autoencoder, "encode", fail)
    with pytest.raises(OutOfMemory, match="autoencoder") as e:
        model.sae(x, 374)
    assert "`tiling=Tiles(side=...)`" in str(e.value)
    assert "frame_batch" not in str(e.value)


def test_other_errors_pass_through() -> None:
    part = Part("network", nn.Identity(), "auto")

    def fail(_: nn.Module) -> None:
        msg = "shapes differ"
        raise RuntimeError(msg)

    with pytest.raises(RuntimeError, match="shapes differ"):
        part.run(fail, torch.device("cpu"), {})


def test_the_solver_lets_networks_follow_the_video() -> None:
    with parameters_on_meta():
        network = nn.Linear(2, 2)
    assert network.weight.device.type == "meta"
    model = WanConsistencyModel(
        LinearNetwork(0.1), LinearAutoencoder(True, 1), torch.zeros(1, 1, 1)
    )
    model.extra = network  # elsewhere than the video, which the solver would refuse
    size = (3, 2, 16, 16)
    physics = make_problem("B", img_size=size, dtype=torch.float64)
    schedule = Schedule.published("B")
    assert LVTINO(model, schedule=schedule)(physics(rand(1, *size)), physics).shape


def test_activations_are_counted_while_they_live() -> None:
    def function() -> Tensor:
        x = torch.empty(1000, device="meta")  # 4 kB
        y = x + 1
        del x
        y = y.double()  # 8 kB beside 4 kB
        return y.sum()

    assert peak_activations(function) == 12000

    def attention() -> Tensor:
        q = torch.empty(1, 1, 5000, 4, device="meta")
        return F.scaled_dot_product_attention(q, q, q)

    assert peak_activations(attention) == 2 * 5000 * 4 * 4  # and no 5000 x 5000 matrix
    layer = nn.Linear(1000, 1000, bias=False, device="meta")
    x = torch.empty(1, 1000, device="meta")
    assert peak_activations(lambda: layer(x)) == 4000  # and no weights


def test_networks_in_the_memory_format_of_tensor_cores() -> None:
    model = DiffusersConsistencyModel(
        checkpoints.sdxl_unet(),
        checkpoints.sdxl_autoencoder(),
        VariancePreserving(),
        prediction="noise",
        per_frame=True,
        channels_last=True,
    )
    weight = model.network.conv_in.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("blocks", [True, False])
def test_the_network_alone_is_compiled_block_by_block_if_it_says_so(
    blocks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = checkpoints.sdxl_unet()
    compiled = []
    for name in ("compile", "compile_repeated_blocks"):
        monkeypatch.setattr(network, name, lambda name=name: compiled.append(name))
    monkeypatch.setattr(network, "_repeated_blocks", ["Block"] if blocks else [])
    DiffusersConsistencyModel(
        network,
        checkpoints.sdxl_autoencoder(),
        VariancePreserving(),
        prediction="noise",
        per_frame=True,
        compile=True,
    )
    assert compiled == ["compile_repeated_blocks" if blocks else "compile"]


def test_published_networks_have_their_published_sizes() -> None:
    sizes = {
        name: sum(parameter.numel() for parameter in network.parameters())
        for name, network in _published.sdxl_networks().items()
    }
    assert sizes == {"network": 2_567_463_684, "autoencoder": 83_653_863}
    sizes = {
        name: sum(parameter.numel() for parameter in network.parameters())
        for name, network in _published.wan_networks().items()
    }
    assert sizes == {"network": 1_418_996_800, "autoencoder": 126_892_531}


def test_memory_is_estimated_from_sizes_alone() -> None:
    small = estimate_memory("wan", 5, 256, 256)
    assert small.weights["network"] == pytest.approx(2 * 1.42e9, rel=0.01)
    assert small.prompt == pytest.approx(2 * 5.68e9, rel=0.01)
    assert small.resident > small.offloaded > max(small.weights.values())
    large = estimate_memory("wan", 5, 256, 512)
    tiles = estimate_memory("wan", 5, 256, 512, tiling=Tiles(256, 64))
    for stage in ("encode", "decode"):
        assert large.activations[stage] > 1.7 * small.activations[stage]
        assert tiles.activations[stage] < 0.8 * large.activations[stage]
    assert large.weights == small.weights


def test_memory_of_what_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="`model` must be one of 'wan', 'sdxl'"):
        estimate_memory("ltx", 5, 256, 256)
    with pytest.raises(ValueError, match="must be positive; got 0, 256 and 256"):
        estimate_memory("wan", 0, 256, 256)
