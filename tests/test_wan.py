r"""Wan as a video prior: layouts of its checkpoints, shapes, and the formulas."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor

import checkpoints
from deepinv_lvtino import LVTINO, Schedule, make_problem
from deepinv_lvtino.models import (
    OutOfMemory,
    RectifiedFlow,
    SDXLConsistencyModel,
    WanConsistencyModel,
)
from deepinv_lvtino.models._memory import Part
from deepinv_lvtino.models._networks import build
from deepinv_lvtino.models._weight_files import read_file
from helpers import generator, rand, randn

FRAMES = (1, 5, 8, 9, 25)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.wan_folder(tmp_path_factory.mktemp("wan"))


@pytest.fixture(scope="module")
def distilled() -> torch.nn.Module:
    return checkpoints.wan_transformer(seed=7)


@pytest.fixture(scope="module")
def causvid(base: Path, distilled: torch.nn.Module) -> Path:
    return checkpoints.save_causvid(base / "model.pt", distilled)


@pytest.fixture(scope="module")
def model(base: Path, causvid: Path) -> WanConsistencyModel:
    return WanConsistencyModel.from_pretrained(base, causvid, device="cpu")


def embeddings(seed: int = 3) -> dict[str, Tensor]:
    return {
        "prompt_embeds": randn(
            1, 6, checkpoints.TEXT_DIM, seed=seed, dtype=torch.float32
        )
    }


def load(base: Path, checkpoint: Path | None, **options: object) -> WanConsistencyModel:
    return WanConsistencyModel.from_pretrained(
        base, checkpoint, embeddings=embeddings(), device="cpu", **options
    )


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


# -- layouts ---------------------------------------------------------------------------


def test_names_of_wan_are_those_of_the_published_code(
    distilled: torch.nn.Module,
) -> None:
    names = checkpoints.original_wan_names(2)
    assert set(names.values()) == set(distilled.state_dict())
    assert len(set(names)) == len(set(names.values()))


def layout(kind: str, folder: Path, transformer: torch.nn.Module) -> Path:
    original = checkpoints.original_wan_weights(transformer)
    if kind == "causvid":
        return checkpoints.save_causvid(folder / "model.pt", transformer)
    if kind == "original":
        return checkpoints.save_weights(folder / "wan.safetensors", original)
    if kind == "comfy":
        named = {f"model.diffusion_model.{k}": v for k, v in original.items()}
        return checkpoints.save_weights(folder / "wan.safetensors", named)
    if kind == "diffusers-file":
        return checkpoints.save_weights(
            folder / "wan.safetensors", transformer.state_dict()
        )
    if kind == "diffusers-folder":
        transformer.save_pretrained(folder)
    elif kind == "diffusers-shards":
        transformer.save_pretrained(folder, max_shard_size="20KB")
        assert len(list(folder.glob("*-of-*.safetensors"))) > 1
    else:
        transformer.save_pretrained(folder / "transformer")
    return folder


@pytest.mark.parametrize(
    "kind",
    [
        "causvid",
        "original",
        "comfy",
        "diffusers-file",
        "diffusers-folder",
        "diffusers-shards",
        "whole-model",
    ],
)
def test_every_layout_gives_the_same_transformer(
    kind: str, base: Path, distilled: torch.nn.Module, tmp_path: Path
) -> None:
    loaded = load(base, layout(kind, tmp_path, distilled))
    assert same_weights(loaded.network, distilled)
    assert same_weights(loaded.autoencoder, checkpoints.wan_autoencoder())
    assert not any(p.requires_grad for p in loaded.parameters())
    x = randn(1, 4, 2, 4, 4, dtype=torch.float32)
    inputs = (x, torch.tensor([757.0]), embeddings()["prompt_embeds"])
    with torch.no_grad():
        expected = distilled(*inputs).sample
        torch.testing.assert_close(loaded.network(*inputs).sample, expected)


def test_the_base_model_alone_when_no_checkpoint_is_given(base: Path) -> None:
    assert same_weights(load(base, None).network, checkpoints.wan_transformer())


def test_missing_and_unexpected_names_are_listed(
    base: Path, distilled: torch.nn.Module, tmp_path: Path
) -> None:
    weights = checkpoints.original_wan_weights(distilled)
    del weights["blocks.1.cross_attn.q.bias"]
    weights["blocks.0.cross_attn.k_img.weight"] = torch.zeros(2)
    weights["head.head.bias"] = torch.zeros(3)
    path = tmp_path / "model.pt"
    torch.save({"generator": {f"model.{k}": v for k, v in weights.items()}}, path)
    with pytest.raises(ValueError, match="does not fit WanTransformer3DModel") as error:
        load(base, path)
    message = str(error.value)
    assert "1 missing: blocks.1.attn2.to_q.bias" in message
    assert "1 unexpected: blocks.0.attn2.add_k_proj.weight" in message
    assert "1 of another shape: proj_out.bias (3,) instead of (16,)" in message


class _Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("should-not-exist",)


def test_nothing_is_unpickled(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"generator": {"model.x": _Harmful()}}, "model.pt")
    with pytest.raises(ValueError, match="more than weights"):
        load(base, Path("model.pt"))
    assert not Path("should-not-exist").exists()


def test_damaged_files_are_refused(base: Path, causvid: Path, tmp_path: Path) -> None:
    whole = causvid.read_bytes()
    path = tmp_path / "model.pt"
    for part in (b"", b"not a checkpoint", whole[:1000], whole[: len(whole) // 2]):
        path.write_bytes(part)
        with pytest.raises(ValueError, match="more than weights, or is damaged"):
            load(base, path)


def test_files_that_are_no_weights_are_refused(base: Path, tmp_path: Path) -> None:
    torch.save({"step": 3}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="does not hold the weights of one network"):
        load(base, tmp_path / "a.pt")
    (tmp_path / "b.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="not a safetensors file"):
        load(base, tmp_path / "b.safetensors")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load(base, tmp_path / "c.pt")
    with pytest.raises(FileNotFoundError, match="config.json does not exist"):
        load(tmp_path, None)


def test_a_folder_of_another_network_is_refused(tmp_path: Path) -> None:
    checkpoints.wan_autoencoder().save_pretrained(tmp_path)
    from diffusers import WanTransformer3DModel

    with pytest.raises(ValueError, match="describes a AutoencoderKLWan"):
        build(WanTransformer3DModel, tmp_path)


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ImportError, match=r"deepinv-lvtino\[diffusers\]"):
        WanConsistencyModel.from_pretrained("nowhere")


# -- the Hub ---------------------------------------------------------------------------


def cached(folder: Path, repository: str, source: Path) -> None:
    r"""A repository in the layout of the Hub's cache."""
    place = folder / f"models--{repository.replace('/', '--')}"
    shutil.copytree(source, place / "snapshots" / checkpoints.COMMIT)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(checkpoints.COMMIT)


def test_the_cache_of_the_hub_serves_without_a_network(
    base: Path, causvid: Path, distilled: torch.nn.Module, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    cached(cache, "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", base)
    (tmp_path / "CausVid" / "bidirectional_checkpoint2").mkdir(parents=True)
    shutil.copy(causvid, tmp_path / "CausVid" / "bidirectional_checkpoint2")
    offline = {"cache_dir": cache, "local_files_only": True, "device": "cpu"}
    with pytest.raises(FileNotFoundError, match="`deepinv-lvtino download`"):
        WanConsistencyModel.from_pretrained(**offline)
    cached(cache, "tianweiy/CausVid", tmp_path / "CausVid")
    model = WanConsistencyModel.from_pretrained(**offline)
    assert same_weights(model.network, distilled)
    pinned = {"revision": checkpoints.COMMIT, "checkpoint_revision": "main"}
    model = WanConsistencyModel.from_pretrained(**offline, **pinned)
    assert same_weights(model.network, distilled)
    with pytest.raises(FileNotFoundError, match="cached snapshot"):
        WanConsistencyModel.from_pretrained(**offline, checkpoint_revision="v9")
    with pytest.raises(FileNotFoundError, match=r"holds no bidirectional.*other\.pt"):
        WanConsistencyModel.from_pretrained(
            checkpoint="tianweiy/CausVid/bidirectional_checkpoint2/other.pt", **offline
        )


# -- LoRA ------------------------------------------------------------------------------

LAYERS = {
    "blocks.0.self_attn.q": "blocks.0.attn1.to_q",
    "blocks.1.cross_attn.o": "blocks.1.attn2.to_out.0",
    "blocks.1.ffn.0": "blocks.1.ffn.net.0.proj",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
}


def lora_file(kind: str, path: Path) -> tuple[Path, dict[str, Tensor]]:
    r"""A LoRA in one of the published layouts, and the weights that it leads to."""
    state = {
        k: v.clone() for k, v in checkpoints.wan_transformer().state_dict().items()
    }
    shapes = {old: state[f"{new}.weight"].shape for old, new in LAYERS.items()}
    factors = checkpoints.low_rank(shapes)
    weights: dict[str, Tensor] = {}
    for old, new in LAYERS.items():
        down, up = factors[old]
        scale = 1.0
        if kind == "diffusers":
            weights[f"transformer.{new}.lora_A.weight"] = down
            weights[f"transformer.{new}.lora_B.weight"] = up
        elif kind == "peft":
            weights[f"diffusion_model.{old}.lora_A.weight"] = down
            weights[f"diffusion_model.{old}.lora_B.weight"] = up
        elif kind == "causvid":
            weights[f"diffusion_model.{old}.lora_down.weight"] = down
            weights[f"diffusion_model.{old}.lora_up.weight"] = up
            weights[f"diffusion_model.{old}.alpha"] = torch.tensor(6.0)
            weights[f"diffusion_model.{old}.diff_b"] = torch.full((len(up),), 0.25)
            state[f"{new}.bias"] += 0.25
            scale = 3.0
        else:
            name = "lora_unet_" + old.replace(".", "_")
            weights[f"{name}.lora_down.weight"] = down
            weights[f"{name}.lora_up.weight"] = up
            weights[f"{name}.alpha"] = torch.tensor(1.0)
            scale = 0.5
        state[f"{new}.weight"] += scale * up @ down
    if kind == "causvid":
        weights["diffusion_model.blocks.0.norm3.diff"] = torch.full((24,), 0.125)
        state["blocks.0.norm2.weight"] += 0.125
        weights["diffusion_model.head.head.diff"] = torch.full((16, 24), 0.5)
        state["proj_out.weight"] += 0.5
        for old, count in (("blocks.1", 6), ("head", 2)):
            change = torch.full((1, count, 24), 0.75)
            weights[f"diffusion_model.{old}.diff_m"] = change
            name = f"{old}.scale_shift_table".removeprefix("head.")
            state[name] += 0.75
        name = "diffusion_model.blocks.0.modulation.diff"
        weights[name] = torch.full((1, 6, 24), 0.375)
        state["blocks.0.scale_shift_table"] += 0.375
    return checkpoints.save_weights(path, weights), state


@pytest.mark.parametrize("kind", ["diffusers", "peft", "causvid", "musubi"])
def test_lora_weights_are_merged_into_the_base_model(
    kind: str, base: Path, tmp_path: Path
) -> None:
    path, expected = lora_file(kind, tmp_path / "lora.safetensors")
    found = load(base, path).network.state_dict()
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])


def test_a_folder_with_a_lora_is_understood(base: Path, tmp_path: Path) -> None:
    path, expected = lora_file(
        "diffusers", tmp_path / "pytorch_lora_weights.safetensors"
    )
    found = load(base, tmp_path).network.state_dict()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])


def test_lora_strength_scales_the_change(base: Path, tmp_path: Path) -> None:
    path, expected = lora_file("peft", tmp_path / "lora.safetensors")
    name = "blocks.0.attn1.to_q.weight"
    start = checkpoints.wan_transformer().state_dict()[name]
    found = load(base, path, lora_scale=0.5).network.state_dict()[name]
    torch.testing.assert_close(found - start, (expected[name] - start) / 2)


def test_lora_names_agree_with_diffusers(tmp_path: Path) -> None:
    from diffusers.loaders import lora_conversion_utils as utils

    from deepinv_lvtino.models._lora_names import wan_names

    path, _ = lora_file("peft", tmp_path / "lora.safetensors")
    weights = read_file(path)
    layers = {name.rsplit(".lora_", 1)[0] for name in weights}
    theirs = utils._convert_non_diffusers_wan_lora_to_diffusers(dict(weights))
    assert set(wan_names(list(layers)).values()) == {
        name.rsplit(".lora_", 1)[0].removeprefix("transformer.") for name in theirs
    }


def test_a_lora_of_another_model_is_refused(base: Path, tmp_path: Path) -> None:
    weights = {
        "diffusion_model.blocks.7.self_attn.q.lora_A.weight": torch.zeros(2, 24),
        "diffusion_model.blocks.7.self_attn.q.lora_B.weight": torch.zeros(24, 2),
        "diffusion_model.blocks.0.self_attn.k.lora_A.weight": torch.zeros(2, 24),
        "diffusion_model.blocks.0.self_attn.v.lora_A.weight": torch.zeros(2, 30),
        "diffusion_model.blocks.0.self_attn.v.lora_B.weight": torch.zeros(24, 2),
        "diffusion_model.blocks.0.self_attn.o.dora_scale": torch.zeros(24),
    }
    path = checkpoints.save_weights(tmp_path / "lora.safetensors", weights)
    with pytest.raises(ValueError, match="does not fit the base model") as error:
        load(base, path)
    message = str(error.value)
    assert "4 unexpected" in message
    for part in ("blocks.7.self_attn.q", "one factor of two", "(24, 30)", "dora_scale"):
        assert part in message


# -- prompts ---------------------------------------------------------------------------


def test_the_prompt_is_embedded_once_and_its_encoder_freed(
    base: Path, model: WanConsistencyModel
) -> None:
    gc.collect()
    alive = [o for o in gc.get_objects() if type(o) is transformers.UMT5EncoderModel]
    assert not alive
    embedded = model.conditioning["encoder_hidden_states"]
    assert embedded.shape == (1, 512, checkpoints.TEXT_DIM)
    # "a high resolution video" and the end of the text; the rest is padding
    assert bool((embedded[0, :5].abs().amax(1) > 0).all())
    assert not embedded[0, 5:].any()
    encoder = transformers.UMT5EncoderModel.from_pretrained(base / "text_encoder")
    with torch.no_grad():
        expected = encoder(torch.tensor([[3, 4, 5, 6, 1]])).last_hidden_state
    torch.testing.assert_close(embedded[:, :5], expected)


def test_embeddings_serve_instead_of_the_prompt(
    base: Path, model: WanConsistencyModel, causvid: Path, tmp_path: Path
) -> None:
    model.save_embeddings(tmp_path / "prompt.safetensors")
    shutil.copytree(base / "transformer", tmp_path / "transformer")
    shutil.copytree(base / "vae", tmp_path / "vae")  # and no text encoder
    again = WanConsistencyModel.from_pretrained(
        tmp_path, causvid, embeddings=tmp_path / "prompt.safetensors", device="cpu"
    )
    x = rand(1, 3, 5, 16, 16, dtype=torch.float32)
    noise = randn(1, 4, 2, 2, 2, dtype=torch.float32)
    assert torch.equal(again.sae(x, 522, noise), model.sae(x, 522, noise))


def test_a_negative_prompt_is_embedded_beside_the_prompt(
    base: Path, model: WanConsistencyModel
) -> None:
    assert model.negative is None and model.guidance == 1
    options = {"negative_prompt": "a photo", "guidance": 2.0, "device": "cpu"}
    both = WanConsistencyModel.from_pretrained(base, None, **options)
    other = WanConsistencyModel.from_pretrained(
        base, None, prompt="a photo", device="cpu"
    )
    name = "encoder_hidden_states"
    assert torch.equal(both.conditioning[name], model.conditioning[name])
    assert torch.equal(both.negative[name], other.conditioning[name])
    assert not torch.equal(both.negative[name], both.conditioning[name])
    again = WanConsistencyModel.from_pretrained(
        base, None, embeddings={"prompt_embeds": other.conditioning[name]}, **options
    )
    assert torch.equal(again.conditioning[name], again.negative[name])


def test_a_text_encoder_that_does_not_fit_works_on_the_cpu(
    base: Path, model: WanConsistencyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Part.run
    places = []

    def run(
        self: Part, function: object, device: torch.device, *rest: object
    ) -> object:
        places.append(device.type)
        if device.type == "meta":
            msg = "too small"
            raise OutOfMemory(msg) from RuntimeError("GPU out of memory")
        return original(self, function, device, *rest)

    monkeypatch.setattr(Part, "run", run)
    options = {"negative_prompt": "a photo", "guidance": 2.0, "device": "meta"}
    with pytest.warns(UserWarning, match="does not fit on meta, and works on the CPU"):
        found = WanConsistencyModel.from_pretrained(
            base, None, dtype=torch.float32, **options
        )
    assert places == ["meta", "cpu", "cpu"]  # the second prompt does not try again
    name = "encoder_hidden_states"
    assert torch.equal(found.conditioning[name], model.conditioning[name])


def test_embeddings_of_another_model_are_refused(base: Path) -> None:
    with pytest.raises(ValueError, match="`embeddings` must hold"):
        WanConsistencyModel.from_pretrained(
            base, None, embeddings={"prompt_embeds": torch.zeros(1, 4, 5)}
        )
    with pytest.raises(FileNotFoundError, match="does not exist"):
        WanConsistencyModel.from_pretrained(base / "nothing", None, device="cpu")


# -- the model -------------------------------------------------------------------------


@pytest.mark.parametrize("frames", FRAMES)
@pytest.mark.parametrize("size", [(16, 32), (33, 21)])
def test_any_number_of_frames_and_any_size(
    model: WanConsistencyModel, frames: int, size: tuple[int, int]
) -> None:
    height, width = size
    x = rand(1, 3, frames, height, width, dtype=torch.float32)
    padded = model.pad(x)
    latent = model.encode(padded)
    whole = -(-height // 16), -(-width // 16)
    groups = -(-(frames - 1) // 4)
    assert latent.shape == (1, 4, 1 + groups, 2 * whole[0], 2 * whole[1])
    decoded = model.decode(latent)
    assert decoded.shape == (1, 3, 1 + 4 * groups, 16 * whole[0], 16 * whole[1])
    assert model.sae(x, 375, generator=generator()).shape == x.shape


def test_latents_are_posterior_means_normalised_by_channel(
    model: WanConsistencyModel,
) -> None:
    x = rand(2, 3, 5, 16, 16, dtype=torch.float32)
    mean = torch.tensor(checkpoints.WAN_AUTOENCODER["latents_mean"])
    std = torch.tensor(checkpoints.WAN_AUTOENCODER["latents_std"])
    mean, std = (value.view(1, -1, 1, 1, 1) for value in (mean, std))
    with torch.no_grad():
        raw = model.autoencoder.encode(2 * x - 1).latent_dist.mean
        latent = model.encode(x)
        torch.testing.assert_close(latent, (raw - mean) / std)
        video = model.autoencoder.decode(latent * std + mean).sample
        torch.testing.assert_close(model.decode(latent), (video + 1) / 2)


@pytest.mark.parametrize(
    "t, sigma",
    [
        (757, 0.756757),
        (522, 0.521739),
        (375, 0.375839),
        (255, 0.254856),
        (125, 0.127886),
    ],
)
def test_the_time_is_as_asked_and_the_noise_level_snapped(
    model: WanConsistencyModel, monkeypatch: pytest.MonkeyPatch, t: int, sigma: float
) -> None:
    seen = {}

    def call(network: object, latent: Tensor, timestep: Tensor, rest: dict) -> Tensor:
        seen.update(latent=latent, timestep=timestep, **rest)
        return velocity

    monkeypatch.setattr(model, "call", call)
    noisy = randn(1, 4, 2, 4, 4, dtype=torch.float32)
    velocity = randn(1, 4, 2, 4, 4, seed=1, dtype=torch.float32)
    clean = model.denoise(noisy, t)
    assert seen["timestep"].tolist() == [float(t)]
    assert torch.equal(seen["latent"], noisy)
    assert seen["encoder_hidden_states"].shape == (1, 512, checkpoints.TEXT_DIM)
    exact = noisy.double() - model.schedule.sigma(t) * velocity.double()
    assert torch.equal(clean, exact.float())
    assert model.schedule.sigma(t) == pytest.approx(sigma, abs=1e-6)
    assert model.schedule == RectifiedFlow(shift=8.0, snap=True)


def test_half_precision_networks_leave_latents_in_single_precision(
    base: Path, causvid: Path
) -> None:
    half = load(base, causvid, dtype=torch.bfloat16)
    single = {
        name
        for name, parameter in half.network.named_parameters()
        if parameter.dtype == torch.float32
    }
    assert "scale_shift_table" in single
    assert "condition_embedder.time_embedder.linear_1.weight" in single
    assert "blocks.0.attn1.to_q.weight" not in single
    x = rand(1, 3, 5, 16, 16, dtype=torch.float32)
    latent = half.encode(x)
    assert latent.dtype == half.denoise(latent, 522).dtype == torch.float32
    exact = load(base, causvid)
    noise = randn(*latent.shape, dtype=torch.float32)
    torch.testing.assert_close(
        half.sae(x, 522, noise), exact.sae(x, 522, noise), atol=0.05, rtol=0
    )


def test_guidance_mixes_two_evaluations(
    base: Path, causvid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = embeddings(seed=8)["prompt_embeds"]
    plain = load(base, causvid)
    negative = load(base, causvid)
    negative.conditioning = {"encoder_hidden_states": without}
    guided = load(base, causvid, guidance=3.0, negative_prompt_embeds=without)
    z = randn(1, 4, 2, 4, 4, dtype=torch.float32)
    expected = 3 * plain.denoise(z, 522) - 2 * negative.denoise(z, 522)
    torch.testing.assert_close(guided.denoise(z, 522), expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="`guidance`=3.0 needs `negative`"):
        load(base, causvid, guidance=3.0)


def test_wan_2_2_with_patches_in_its_autoencoder() -> None:
    r"""Wan 2.2 (5 billion parameters): 16 pixels for a latent, and 32 with patches."""
    from diffusers import AutoencoderKLWan

    settings = checkpoints.WAN_AUTOENCODER | {
        "z_dim": 6,
        "latents_mean": [0.1] * 6,
        "latents_std": [2.0] * 6,
        "in_channels": 12,
        "out_channels": 12,
        "patch_size": 2,
        "is_residual": True,
        "scale_factor_spatial": 16,
    }
    model = WanConsistencyModel(
        checkpoints.wan_transformer(in_channels=6, out_channels=6),
        checkpoints.randomise(AutoencoderKLWan(**settings), 3),
        embeddings()["prompt_embeds"],
        schedule=RectifiedFlow(shift=5.0, snap=True),
    )
    assert model.multiple == (4, 32, 32)
    x = rand(1, 3, 6, 40, 32, dtype=torch.float32)
    assert model.encode(model.pad(x)).shape == (1, 6, 3, 4, 2)
    assert model.sae(x, 522).shape == x.shape


# -- the solver ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def image_model(tmp_path_factory: pytest.TempPathFactory) -> SDXLConsistencyModel:
    folder = checkpoints.sdxl_folder(tmp_path_factory.mktemp("sdxl"))
    return SDXLConsistencyModel.from_pretrained(
        folder, None, autoencoder=None, device="cpu"
    )


@pytest.mark.parametrize("problem, evaluations", [("A", 9), ("B", 9), ("C", 5)])
def test_published_schedules_run_end_to_end_and_replay_bit_for_bit(
    problem: str,
    evaluations: int,
    model: WanConsistencyModel,
    image_model: SDXLConsistencyModel,
) -> None:
    size = (3, 9, 32, 48)
    physics = make_problem(problem, img_size=size)
    y = physics(rand(1, *size, dtype=torch.float32))
    drawn: dict[str, Tensor] = {}

    def record(label: str, like: Tensor) -> Tensor:
        drawn[label] = torch.randn_like(like)
        return drawn[label]

    solver = LVTINO(model, image_model, schedule=Schedule.published(problem))
    first = solver(y, physics, noise_source=record)
    assert first.shape == (1, *size)
    assert bool(torch.isfinite(first).all())
    assert len(drawn) == evaluations == solver.num_evaluations
    assert drawn["k0/image"].shape == (1, 4, 1, 4, 6)  # shared by the frames
    again = solver(y, physics, noise_source=lambda label, like: drawn[label])
    assert torch.equal(first, again)


def test_calibrated_schedules_run_too(
    model: WanConsistencyModel, image_model: SDXLConsistencyModel
) -> None:
    size = (3, 5, 32, 32)
    physics = make_problem("A", img_size=size)
    y = physics(rand(1, *size, dtype=torch.float32))
    schedule = Schedule.calibrated([0.1, 0.02], eta=0.4)
    solver = LVTINO(model, image_model, schedule=schedule, seed=0)
    half = solver.init_params_algo["sweep"][0].video
    # the step follows from the noise level that the timetable realises
    ratio = model.schedule.noise_ratio(half.time)
    assert half.data_step.stepsize == model.pixel_scale**2 * ratio / 2
    assert half.data_step.stepsize == pytest.approx(0.04, rel=0.02)
    assert bool(torch.isfinite(solver(y, physics)).all())
