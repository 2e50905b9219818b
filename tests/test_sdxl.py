r"""SDXL as an image prior: layouts of its checkpoints, conditioning, and the formulas."""

from __future__ import annotations

import gc
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

import checkpoints
from deepinv_lvtino.models import SDXLConsistencyModel, VariancePreserving
from deepinv_lvtino.models.sdxl import guidance_features
from helpers import generator, rand, randn

DIM = sum(checkpoints.CLIP_DIMS)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.sdxl_folder(tmp_path_factory.mktemp("sdxl"))


@pytest.fixture(scope="module")
def distilled() -> torch.nn.Module:
    return checkpoints.sdxl_unet(seed=7)


@pytest.fixture(scope="module")
def model(base: Path) -> SDXLConsistencyModel:
    return SDXLConsistencyModel.from_pretrained(
        base, None, autoencoder=None, device="cpu"
    )


def embeddings(seed: int = 3) -> dict[str, Tensor]:
    return {
        "prompt_embeds": randn(1, 6, DIM, seed=seed, dtype=torch.float32),
        "pooled_prompt_embeds": randn(
            1, checkpoints.POOLED_DIM, seed=seed + 1, dtype=torch.float32
        ),
    }


def load(base: Path, checkpoint: Path | None, **options: Any) -> SDXLConsistencyModel:
    options = {"autoencoder": None, "embeddings": embeddings()} | options
    return SDXLConsistencyModel.from_pretrained(
        base, checkpoint, device="cpu", **options
    )


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


# -- layouts ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dmd2", "safetensors", "turbo-folder", "whole-model"])
def test_every_layout_gives_the_same_unet(
    kind: str, base: Path, distilled: torch.nn.Module, tmp_path: Path
) -> None:
    path = tmp_path
    if kind == "dmd2":
        path = tmp_path / "dmd2_sdxl_4step_unet_fp16.bin"
        torch.save(distilled.state_dict(), path)
    elif kind == "safetensors":
        path = tmp_path / "unet.safetensors"
        checkpoints.save_weights(path, distilled.state_dict())
    elif kind == "turbo-folder":
        distilled.save_pretrained(tmp_path)
    else:
        distilled.save_pretrained(tmp_path / "unet")
    loaded = load(base, path)
    assert same_weights(loaded.network, distilled)
    assert same_weights(loaded.autoencoder, checkpoints.sdxl_autoencoder())


def test_an_autoencoder_of_its_own(base: Path, tmp_path: Path) -> None:
    other = checkpoints.sdxl_autoencoder(seed=11)
    other.save_pretrained(tmp_path)
    assert same_weights(load(base, None, autoencoder=tmp_path).autoencoder, other)


def test_files_in_single_precision_where_there_are_no_others(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = tmp_path / "remote"
    shutil.copytree(base, remote / "owner" / "single")
    for path in list(remote.rglob("*.fp16.safetensors")):
        path.rename(path.with_name(path.name.replace(".fp16", "")))
    shutil.copytree(base, remote / "owner" / "half")
    for path in list((remote / "owner" / "half").rglob("*.fp16.safetensors")):
        (path.with_name(path.name.replace(".fp16", ""))).write_bytes(b"too large")
    hub = checkpoints.Hub(remote, tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub.snapshot_download)
    for name, fetches in (("half", 1), ("single", 2)):
        hub.calls.clear()
        found = SDXLConsistencyModel.from_pretrained(
            f"owner/{name}", None, autoencoder=None, device="cpu"
        )
        assert same_weights(found.network, checkpoints.sdxl_unet())
        assert len(hub.calls) == fetches


def test_revisions_of_all_repositories(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = tmp_path / "remote"
    shutil.copytree(base, remote / "a" / "base")
    checkpoints.sdxl_unet(seed=7).save_pretrained(remote / "b" / "unet")
    checkpoints.sdxl_autoencoder(seed=8).save_pretrained(remote / "c" / "vae")
    hub = checkpoints.Hub(remote, tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub.snapshot_download)
    SDXLConsistencyModel.from_pretrained(
        "a/base",
        "b/unet",
        autoencoder="c/vae",
        device="cpu",
        revision="main",
        checkpoint_revision=checkpoints.COMMIT,
    )
    assert {call["repo"]: call["revision"] for call in hub.calls} == {
        "a/base": "main",
        "b/unet": checkpoints.COMMIT,
        "c/vae": None,
    }
    with pytest.raises(FileNotFoundError, match="Revision Not Found: v9 of c/vae"):
        SDXLConsistencyModel.from_pretrained(
            "a/base", None, autoencoder="c/vae", autoencoder_revision="v9", device="cpu"
        )


def test_missing_and_unexpected_names_are_listed(
    base: Path, distilled: torch.nn.Module, tmp_path: Path
) -> None:
    weights = dict(distilled.state_dict())
    del weights["conv_in.bias"]
    weights["cls_pred_branch.0.weight"] = torch.zeros(2)
    torch.save(weights, tmp_path / "unet.bin")
    with pytest.raises(ValueError, match="does not fit UNet2DConditionModel") as error:
        load(base, tmp_path / "unet.bin")
    assert "1 missing: conv_in.bias" in str(error.value)
    assert "1 unexpected: cls_pred_branch.0.weight" in str(error.value)


LAYERS = (
    "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
    "mid_block.attentions.0.proj_in",
    "up_blocks.1.resnets.0.conv1",
    "up_blocks.0.upsamplers.0.conv",
    "down_blocks.0.resnets.0.time_emb_proj",
    "down_blocks.0.downsamplers.0.conv",
    "time_embedding.linear_1",
    "add_embedding.linear_2",
    "conv_in",
    "conv_out",
)
# names of Stability's own code; a block has one residual layer here, and two above
ORIGINAL = dict(
    zip(
        LAYERS,
        (
            "input_blocks_3_1_transformer_blocks_0_attn1_to_q",
            "middle_block_1_proj_in",
            "output_blocks_2_0_in_layers_2",
            "output_blocks_1_2_conv",
            "input_blocks_1_0_emb_layers_1",
            "input_blocks_2_0_op",
            "time_embed_0",
            "label_emb_0_2",
            "input_blocks_0_0",
            "out_2",
        ),
        strict=True,
    )
)


@pytest.mark.parametrize("kind", ["kohya", "peft", "diffusers", "blocks"])
def test_lora_weights_are_merged_into_the_base_model(
    kind: str, base: Path, tmp_path: Path
) -> None:
    expected = {k: v.clone() for k, v in checkpoints.sdxl_unet().state_dict().items()}
    shapes = {name: tuple(expected[f"{name}.weight"].shape) for name in LAYERS}
    weights: dict[str, Tensor] = {}
    for name, (down, up) in checkpoints.low_rank(shapes).items():
        scale = 1.0
        if kind in ("kohya", "blocks"):
            plain = name.replace(".", "_")
            plain = ORIGINAL[name] if kind == "blocks" else plain
            weights[f"lora_unet_{plain}.lora_down.weight"] = down
            weights[f"lora_unet_{plain}.lora_up.weight"] = up
            weights[f"lora_unet_{plain}.alpha"] = torch.tensor(1.0)
            scale = 0.5
        else:
            first, second = {
                "peft": ("lora_A", "lora_B"),
                "diffusers": ("lora.down", "lora.up"),
            }[kind]
            weights[f"unet.{name}.{first}.weight"] = down
            weights[f"unet.{name}.{second}.weight"] = up
        # convolution of the kernels one after the other, by its definition
        change = torch.einsum("or,ri...->oi...", up.flatten(1), down)
        expected[f"{name}.weight"] += scale * change
    path = checkpoints.save_weights(tmp_path / "lora.safetensors", weights)
    found = load(base, path).network.state_dict()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])


def test_a_diffusers_without_the_table_of_blocks_is_named(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers.loaders import lora_conversion_utils

    monkeypatch.delattr(lora_conversion_utils, "_maybe_map_sgm_blocks_to_diffusers")
    name = "lora_unet_input_blocks_2_0_op"
    weights = {
        f"{name}.lora_down.weight": torch.zeros(2, 8, 3, 3),
        f"{name}.lora_up.weight": torch.zeros(8, 2, 1, 1),
    }
    path = checkpoints.save_weights(tmp_path / "lora.safetensors", weights)
    with pytest.raises(ImportError, match="no longer has the table of block names"):
        load(base, path)


def test_a_lora_for_a_text_encoder_is_refused(base: Path, tmp_path: Path) -> None:
    weights = {
        "lora_te1_text_model_layers_0_q_proj.lora_down.weight": torch.zeros(2, 6),
        "lora_te1_text_model_layers_0_q_proj.lora_up.weight": torch.zeros(6, 2),
    }
    path = checkpoints.save_weights(tmp_path / "lora.safetensors", weights)
    with pytest.raises(ValueError, match="1 unexpected: lora_te1_text_model"):
        load(base, path)


# -- prompts ---------------------------------------------------------------------------


def test_the_prompt_is_embedded_once_and_its_encoders_freed(
    base: Path, model: SDXLConsistencyModel
) -> None:
    gc.collect()
    kinds = (transformers.CLIPTextModel, transformers.CLIPTextModelWithProjection)
    assert not [o for o in gc.get_objects() if type(o) in kinds]
    tokens = torch.tensor([[3, 4, 5, 7, 1] + [0] * 72])  # a high resolution photo
    first = kinds[0].from_pretrained(base / "text_encoder", variant="fp16")
    second = kinds[1].from_pretrained(base / "text_encoder_2", variant="fp16")
    with torch.no_grad():
        a = first(tokens, output_hidden_states=True).hidden_states[-2]
        output = second(tokens, output_hidden_states=True)
    expected = torch.cat([a, output.hidden_states[-2]], dim=-1)
    torch.testing.assert_close(model.conditioning["prompt_embeds"], expected)
    torch.testing.assert_close(
        model.conditioning["pooled_prompt_embeds"], output.text_embeds
    )


def test_embeddings_serve_instead_of_the_prompt(
    base: Path, model: SDXLConsistencyModel, tmp_path: Path
) -> None:
    model.save_embeddings(tmp_path / "prompt.safetensors")
    for name in ("unet", "vae"):
        shutil.copytree(base / name, tmp_path / name)
    again = load(tmp_path, None, embeddings=tmp_path / "prompt.safetensors")
    x = rand(1, 3, 2, 16, 16, dtype=torch.float32)
    noise = randn(1, 4, 1, 2, 2, dtype=torch.float32)
    assert torch.equal(again.sae(x, 374, noise), model.sae(x, 374, noise))


def test_embeddings_of_another_model_are_refused(base: Path) -> None:
    wrong = {"prompt_embeds": torch.zeros(1, 6, DIM)}
    with pytest.raises(ValueError, match="`embeddings` must hold"):
        load(base, None, embeddings=wrong)


# -- the model -------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [1, 5, 8, 9, 25])
@pytest.mark.parametrize("size", [(16, 32), (33, 21)])
def test_any_number_of_frames_and_any_size(
    model: SDXLConsistencyModel, frames: int, size: tuple[int, int]
) -> None:
    height, width = size
    x = rand(1, 3, frames, height, width, dtype=torch.float32)
    latent = model.encode(model.pad(x))
    whole = -(-height // 16), -(-width // 16)
    assert latent.shape == (1, 4, frames, 2 * whole[0], 2 * whole[1])
    assert model.sae(x, 249, generator=generator()).shape == x.shape


def test_latents_are_scaled_posterior_means_of_clipped_frames(
    model: SDXLConsistencyModel,
) -> None:
    x = 1.5 * rand(2, 3, 3, 16, 32, dtype=torch.float32) - 0.25
    frames = 2 * x.clamp(0, 1).transpose(1, 2).flatten(0, 1) - 1
    with torch.no_grad():
        raw = model.autoencoder.encode(frames).latent_dist.mean
        latent = model.encode(x)
        expected = (0.13025 * raw).unflatten(0, (2, 3)).transpose(1, 2)
        torch.testing.assert_close(latent, expected)
        decoded = model.autoencoder.decode(raw).sample
        expected = (decoded.unflatten(0, (2, 3)).transpose(1, 2) + 1) / 2
        torch.testing.assert_close(model.decode(latent), expected)


@pytest.mark.parametrize("t, abar", [(374, 0.46671), (249, 0.67543), (124, 0.86341)])
@pytest.mark.parametrize("prediction", ["noise", "v", "clean"])
def test_what_the_unet_predicts_becomes_the_clean_latent(
    base: Path, monkeypatch: pytest.MonkeyPatch, t: int, abar: float, prediction: str
) -> None:
    model = load(base, None, prediction=prediction, frame_batch=4)
    assert model.schedule == VariancePreserving()
    clean = randn(1, 4, 5, 2, 6, dtype=torch.float32)
    noise = randn(1, 4, 5, 2, 6, seed=1, dtype=torch.float32)
    a, s = math.sqrt(abar), math.sqrt(1 - abar)
    told = {"noise": noise, "v": a * noise - s * clean, "clean": clean}[prediction]
    seen: list[dict] = []

    def call(network: object, z: Tensor, timestep: Tensor, rest: dict) -> Tensor:
        seen.append({"timestep": timestep, **rest})
        start = sum(len(entry["timestep"]) for entry in seen[:-1])
        return told[0].transpose(0, 1)[start : start + len(z)]

    monkeypatch.setattr(model, "call", call)
    found = model.denoise(a * clean + s * noise, t)
    torch.testing.assert_close(found, clean, atol=3e-5, rtol=1e-4)
    assert [entry["timestep"].tolist() for entry in seen] == [[t] * 4, [t]]
    added = seen[0]["added_cond_kwargs"]
    # height and width of the frames, no crop, the same as target
    assert added["time_ids"].tolist() == [[16, 48, 0, 0, 16, 48]] * 4
    assert added["text_embeds"].shape == (4, checkpoints.POOLED_DIM)
    assert seen[0]["encoder_hidden_states"].shape == (4, 6, DIM)


def test_the_unet_is_called_as_its_pipeline_does(model: SDXLConsistencyModel) -> None:
    z = randn(1, 4, 1, 2, 4, dtype=torch.float32)
    added = {
        "text_embeds": model.conditioning["pooled_prompt_embeds"],
        "time_ids": torch.tensor([[16.0, 32, 0, 0, 16, 32]]),
    }
    with torch.no_grad():
        noise = model.network(
            z[:, :, 0],
            374,
            model.conditioning["prompt_embeds"],
            added_cond_kwargs=added,
        ).sample
    a, s = model.schedule.alpha(374), model.schedule.sigma(374)
    expected = (z[:, :, 0] - s * noise) / a
    torch.testing.assert_close(model.denoise(z, 374)[:, :, 0], expected)


def test_the_batch_of_frames_does_not_change_the_result(base: Path) -> None:
    one, three = load(base, None, frame_batch=1), load(base, None, frame_batch=3)
    x = rand(2, 3, 4, 16, 16, dtype=torch.float32)
    noise = randn(2, 4, 1, 2, 2, dtype=torch.float32)
    torch.testing.assert_close(one.sae(x, 249, noise), three.sae(x, 249, noise))


def test_noise_is_shared_by_the_frames_unless_asked_otherwise(base: Path) -> None:
    x = rand(1, 3, 1, 16, 16, dtype=torch.float32).expand(-1, -1, 3, -1, -1)
    shared = load(base, None).sae(x, 374, generator=generator())
    torch.testing.assert_close(shared[:, :, 1], shared[:, :, 0])
    free = load(base, None, shared_noise=False).sae(x, 374, generator=generator())
    assert float((free[:, :, 1] - free[:, :, 0]).abs().max()) > 1e-3


def test_an_lcm_is_told_its_guidance(base: Path, tmp_path: Path) -> None:
    unet = checkpoints.sdxl_unet(time_cond_proj_dim=6)
    unet.save_pretrained(tmp_path)
    z = randn(1, 4, 1, 2, 2, dtype=torch.float32)
    results = [
        load(base, tmp_path, guidance_embedding=w).denoise(z, 374) for w in (1.0, 8.0)
    ]
    assert float((results[0] - results[1]).abs().max()) > 1e-5
    features = guidance_features(7.0, 7)
    rates = [1, 10000**-0.5, 10000**-1]
    expected = [math.sin(7000 * r) for r in rates] + [math.cos(7000 * r) for r in rates]
    torch.testing.assert_close(
        features, torch.tensor([[*expected, 0.0]], dtype=torch.float64)
    )
    pipeline = pytest.importorskip("diffusers").StableDiffusionXLPipeline
    theirs = pipeline.get_guidance_scale_embedding(
        None, torch.tensor([7.0]), 6, torch.float64
    )
    torch.testing.assert_close(guidance_features(7.0, 6), theirs, atol=1e-3, rtol=0)


def test_a_negative_prompt_is_embedded_beside_the_prompt(
    base: Path, model: SDXLConsistencyModel
) -> None:
    assert model.negative is None and model.guidance == 1
    both = SDXLConsistencyModel.from_pretrained(
        base,
        None,
        autoencoder=None,
        negative_prompt="a video",
        guidance=2.0,
        device="cpu",
    )
    other = SDXLConsistencyModel.from_pretrained(
        base, None, autoencoder=None, prompt="a video", device="cpu"
    )
    for name in ("prompt_embeds", "pooled_prompt_embeds"):
        assert torch.equal(both.conditioning[name], model.conditioning[name])
        assert torch.equal(both.negative[name], other.conditioning[name])
        assert not torch.equal(both.negative[name], both.conditioning[name])


def test_negative_embeddings_and_guidance(base: Path) -> None:
    z = randn(1, 4, 2, 2, 2, dtype=torch.float32)
    plain = load(base, None).denoise(z, 374)
    negative = load(base, None, embeddings=embeddings(5)).denoise(z, 374)
    guided = load(base, None, guidance=2.0, negative=embeddings(5)).denoise(z, 374)
    torch.testing.assert_close(guided, 2 * plain - negative, atol=1e-5, rtol=1e-5)
