r"""Layouts of Wan's other distillations, each name of a checkpoint accounted for."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import AutoencoderKLWan
from safetensors.torch import load_file
from torch import Tensor, nn

import checkpoints
from deepinv_lvtino.models import (
    RectifiedFlow,
    WanConsistencyModel,
    _hub,
    _layouts,
    _weight_files,
    wan,
)
from deepinv_lvtino.models._weight_files import read_entry
from helpers import generator, rand, randn

# -- averaged weights ------------------------------------------------------------------


def forcing(path: Path, *entries: str) -> Path:
    r"""A file of Self-Forcing's or Causal-Forcing's training: several networks."""
    networks = {
        "generator": checkpoints.wan_transformer(seed=7),
        "generator_ema": checkpoints.wan_transformer(seed=8),
        "critic": checkpoints.wan_transformer(seed=9),
    }
    torch.save(
        {
            entry: {
                f"model.{name}": tensor
                for name, tensor in checkpoints.original_wan_weights(
                    networks[entry]
                ).items()
            }
            for entry in entries
        },
        path,
    )
    return path


@pytest.mark.parametrize(
    "entries, asked, taken",
    [
        (("generator", "critic", "generator_ema"), None, "generator_ema"),
        (("generator", "critic", "generator_ema"), "generator", "generator"),
        (("generator", "critic"), None, "generator"),
        (("generator_ema",), None, "generator_ema"),
    ],
)
def test_the_averaged_weights_are_taken_where_they_are_there(
    entries: tuple[str, ...], asked: str | None, taken: str, tmp_path: Path
) -> None:
    path = forcing(tmp_path / "model.pt", *entries)
    name, weights = read_entry(path, asked)
    assert name == taken
    seed = {"generator": 7, "generator_ema": 8}[taken]
    expected = checkpoints.wan_transformer(seed=seed).state_dict()["proj_out.weight"]
    assert torch.equal(weights["model.head.head.weight"], expected)


def test_an_entry_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = forcing(tmp_path / "model.pt", "generator", "critic")
    with pytest.raises(
        ValueError, match="no entry 'generator_ema'; it has 'generator'"
    ):
        read_entry(path, "generator_ema")
    torch.save({"x": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="no entry 'generator'; it has none"):
        read_entry(path, "generator")
    path = checkpoints.save_weights(tmp_path / "a.safetensors", {"x": torch.zeros(2)})
    with pytest.raises(ValueError, match="holds one network; it has no entry"):
        read_entry(path, "generator")


# -- loading ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wan")
    checkpoints.wan_transformer().save_pretrained(folder / "transformer")
    checkpoints.wan_autoencoder().save_pretrained(folder / "vae")
    return folder


def embeddings() -> dict[str, Tensor]:
    shape = (1, 6, checkpoints.TEXT_DIM)
    return {"prompt_embeds": randn(*shape, seed=3, dtype=torch.float32)}


def load(base: Path | None, checkpoint: Any, **options: Any) -> WanConsistencyModel:
    options = {"embeddings": embeddings(), "device": "cpu"} | options
    return WanConsistencyModel.from_pretrained(base, checkpoint, **options)


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


def test_the_model_says_which_network_it_took(base: Path, tmp_path: Path) -> None:
    path = forcing(tmp_path / "model.pt", "generator", "generator_ema")
    model = load(base, path)
    assert same_weights(model.network, checkpoints.wan_transformer(seed=8))
    assert model.taken == {
        "checkpoint": str(path),
        "entry": "generator_ema",
        "layout": "Wan",
    }
    assert "entry='generator_ema'" in repr(model)
    model = load(base, path, entry="generator")
    assert same_weights(model.network, checkpoints.wan_transformer(seed=7))
    assert model.taken["entry"] == "generator"
    with pytest.raises(ValueError, match="`entry`='generator' is for a `checkpoint`"):
        load(base, None, entry="generator")


def test_names_that_training_wrapped_are_understood(base: Path, tmp_path: Path) -> None:
    weights = checkpoints.original_wan_weights(checkpoints.wan_transformer(seed=8))
    wrapped = {
        f"model._fsdp_wrapped_module.{name}".replace(
            "blocks.1.", "blocks.1._checkpoint_wrapped_module."
        ): tensor
        for name, tensor in weights.items()
    }
    torch.save({"generator_ema": wrapped}, tmp_path / "model.pt")
    model = load(base, tmp_path / "model.pt")
    assert same_weights(model.network, checkpoints.wan_transformer(seed=8))
    wrapped["model.head.head.bias"] = weights["head.head.bias"]
    torch.save({"generator_ema": wrapped}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="has model.head.head.bias twice"):
        load(base, tmp_path / "model.pt")


# -- no base model ---------------------------------------------------------------------


def test_checkpoint_autoencoder_and_embeddings_suffice(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    r"""Neither a folder nor the Hub is asked for the published base model."""
    distilled = checkpoints.wan_transformer(seed=7)
    causvid = checkpoints.save_causvid(tmp_path / "model.pt", distilled)
    vae = checkpoints.save_weights(
        tmp_path / "vae.safetensors", checkpoints.wan_autoencoder().state_dict()
    )
    monkeypatch.setattr(_layouts, "WAN_AUTOENCODER", checkpoints.WAN_AUTOENCODER)
    monkeypatch.setattr(wan, "WAN_TRANSFORMER", checkpoints.WAN_TRANSFORMER)
    monkeypatch.setattr(_hub, "fetch", None)  # nothing may be fetched
    for pretrained in (wan.WAN_REPOSITORY, None):
        for autoencoder in (vae, base / "vae", base):
            model = load(pretrained, causvid, autoencoder=autoencoder)
            assert same_weights(model.network, distilled)
            assert same_weights(model.autoencoder, checkpoints.wan_autoencoder())
    x = rand(1, 3, 5, 16, 16, dtype=torch.float32)
    assert model.sae(x, 522).shape == x.shape


def test_the_configuration_built_in_is_the_published_one() -> None:
    r"""Sizes of ``Wan-AI/Wan2.1-T2V-1.3B-Diffusers``: 1,418,996,800 parameters."""
    network = _layouts.build_transformer(_layouts.WAN_TRANSFORMER)
    shapes = {name: tuple(t.shape) for name, t in network.state_dict().items()}
    assert sum(p.numel() for p in network.parameters()) == 1_418_996_800
    names = checkpoints.original_wan_names(30)
    assert set(shapes) == set(names.values())
    assert shapes["patch_embedding.weight"] == (1536, 16, 1, 2, 2)
    assert shapes["blocks.29.ffn.net.0.proj.weight"] == (8960, 1536)
    assert shapes["condition_embedder.time_proj.weight"] == (9216, 1536)
    assert shapes["condition_embedder.text_embedder.linear_1.weight"] == (1536, 4096)
    assert shapes["proj_out.weight"] == (64, 1536)


def test_another_configuration_may_be_given(base: Path, tmp_path: Path) -> None:
    larger = checkpoints.wan_transformer(seed=7, ffn_dim=28)
    causvid = checkpoints.save_causvid(tmp_path / "model.pt", larger)
    larger.save_config(tmp_path / "larger")
    settings = checkpoints.WAN_TRANSFORMER | {"ffn_dim": 28}
    for config in (settings, tmp_path / "larger"):
        model = load(None, causvid, autoencoder=base, config=config)
        assert same_weights(model.network, larger)
    with pytest.raises(ValueError, match="6 of another shape"):
        load(base, causvid)


def test_what_is_missing_without_a_base_model_is_named(base: Path) -> None:
    with pytest.raises(ValueError, match="give a `checkpoint`.*, `autoencoder` too"):
        load(None, None)
    with pytest.raises(ValueError, match="give `embeddings`.* too"):
        load(None, base / "transformer", autoencoder=base, embeddings=None)


def wan_vae_names() -> dict[str, str]:
    r"""Names of ``Wan2.1_VAE.pth`` to diffusers', by what the layers are."""
    block = {
        "residual.0.gamma": "norm1.gamma",
        "residual.2.weight": "conv1.weight",
        "residual.2.bias": "conv1.bias",
        "residual.3.gamma": "norm2.gamma",
        "residual.6.weight": "conv2.weight",
        "residual.6.bias": "conv2.bias",
    }
    both = ("weight", "bias")
    short = {f"shortcut.{kind}": f"conv_shortcut.{kind}" for kind in both}
    names = {}
    for ours, theirs in (("conv1", "quant_conv"), ("conv2", "post_quant_conv")):
        names |= {f"{ours}.{kind}": f"{theirs}.{kind}" for kind in both}
    for half in ("encoder", "decoder"):
        names |= {f"{half}.conv1.{kind}": f"{half}.conv_in.{kind}" for kind in both}
        names[f"{half}.head.0.gamma"] = f"{half}.norm_out.gamma"
        names |= {f"{half}.head.2.{kind}": f"{half}.conv_out.{kind}" for kind in both}
        for ours, theirs in (("0", "resnets.0"), ("2", "resnets.1")):
            for a, b in block.items():
                names[f"{half}.middle.{ours}.{a}"] = f"{half}.mid_block.{theirs}.{b}"
        attention = f"{half}.mid_block.attentions.0"
        names[f"{half}.middle.1.norm.gamma"] = f"{attention}.norm.gamma"
        for layer in ("to_qkv", "proj"):
            for kind in both:
                name = f"{half}.middle.1.{layer}.{kind}"
                names[name] = f"{attention}.{layer}.{kind}"
    for index in (0, 1, 3, 4, 6, 7, 9, 10):  # two blocks of four widths
        layers = block | (short if index in (3, 6) else {})
        for a, b in layers.items():
            names[f"encoder.downsamples.{index}.{a}"] = (
                f"encoder.down_blocks.{index}.{b}"
            )
    for index in (2, 5, 8):
        down = ("resample.1",) if index == 2 else ("resample.1", "time_conv")
        for layer in down:
            for kind in both:
                name = f"{index}.{layer}.{kind}"
                names[f"encoder.downsamples.{name}"] = f"encoder.down_blocks.{name}"
    for stage in range(4):  # three blocks of four widths
        for k in range(3):
            layers = block | (short if (stage, k) == (1, 0) else {})
            for a, b in layers.items():
                names[f"decoder.upsamples.{4 * stage + k}.{a}"] = (
                    f"decoder.up_blocks.{stage}.resnets.{k}.{b}"
                )
    for stage, index in enumerate((3, 7, 11)):
        up = ("resample.1", "time_conv") if stage < 2 else ("resample.1",)
        for layer in up:
            for kind in both:
                names[f"decoder.upsamples.{index}.{layer}.{kind}"] = (
                    f"decoder.up_blocks.{stage}.upsamplers.0.{layer}.{kind}"
                )
    return names


def test_the_autoencoder_as_wan_publishes_it(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"base_dim": 4, "z_dim": 16}  # all else as published
    torch.manual_seed(0)
    vae = checkpoints.randomise(AutoencoderKLWan(**settings), 3)
    monkeypatch.setattr(_layouts, "WAN_AUTOENCODER", settings)
    state, names = vae.state_dict(), wan_vae_names()
    assert sorted(names.values()) == sorted(state)
    weights = {original: state[name].clone() for original, name in names.items()}
    torch.save(weights, tmp_path / "Wan2.1_VAE.pth")
    found = _layouts.load_autoencoder(tmp_path / "Wan2.1_VAE.pth", dtype=None)
    assert same_weights(found, vae)
    del weights["decoder.upsamples.7.time_conv.bias"]
    weights["decoder.upsamples.15.residual.0.gamma"] = torch.zeros(2)
    torch.save(weights, tmp_path / "Wan2.1_VAE.pth")
    with pytest.raises(ValueError, match="does not fit AutoencoderKLWan") as error:
        _layouts.load_autoencoder(tmp_path / "Wan2.1_VAE.pth", dtype=None)
    missing = "1 missing: decoder.up_blocks.1.upsamplers.0.time_conv.bias"
    assert missing in str(error.value)
    assert "1 unexpected: decoder.upsamples.15.residual.0.gamma" in str(error.value)


# -- rCM -------------------------------------------------------------------------------


def rcm_weights(transformer: nn.Module) -> dict[str, Tensor]:
    r"""A checkpoint of rCM: ``net.`` and a linear layer for patches."""
    weights = checkpoints.original_wan_weights(transformer)
    weights["patch_embedding.weight"] = weights["patch_embedding.weight"].flatten(1)
    return {f"net.{name}": tensor for name, tensor in weights.items()}


@pytest.fixture(scope="module")
def rcm(base: Path, tmp_path_factory: pytest.TempPathFactory) -> WanConsistencyModel:
    path = tmp_path_factory.mktemp("rcm") / "rCM_Wan2.1_T2V_1.3B_480p.pt"
    torch.save(rcm_weights(checkpoints.wan_transformer(seed=7)), path)
    return load(base, path)


def test_rcm_embeds_patches_by_a_linear_layer(rcm: WanConsistencyModel) -> None:
    assert same_weights(rcm.network, checkpoints.wan_transformer(seed=7))
    assert rcm.taken["layout"] == "rCM"
    assert rcm.schedule == RectifiedFlow(shift=1.0)
    weights = rcm_weights(checkpoints.wan_transformer(seed=7))
    matrix = weights["net.patch_embedding.weight"]
    assert matrix.shape == (24, 4 * 2 * 2)
    z = randn(1, 4, 2, 4, 6, dtype=torch.float32)
    tokens = torch.empty(1, 24, 2, 2, 3)
    for t, i, j in itertools.product(range(2), range(2), range(3)):
        patch = z[0, :, t, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        bias = weights["net.patch_embedding.bias"]
        tokens[0, :, t, i, j] = matrix @ patch.reshape(-1) + bias
    torch.testing.assert_close(rcm.network.patch_embedding(z), tokens)


@pytest.mark.parametrize("angle", [math.atan(80), 1.5, 1.4, 1.0])
def test_rcm_jumps_as_its_trigonometric_flow_says(
    rcm: WanConsistencyModel, angle: float
) -> None:
    r"""
    rCM's state is :math:`\cos(\tau) z_0 + \sin(\tau) \varepsilon`; its network sees the
    state divided by :math:`\cos + \sin`, and :math:`1000 \sin / (\cos + \sin)` as time.
    """
    clean = randn(1, 4, 2, 4, 4, dtype=torch.float64)
    noise = randn(1, 4, 2, 4, 4, seed=1, dtype=torch.float64)
    cos, sin = math.cos(angle), math.sin(angle)
    state, scale = cos * clean + sin * noise, 1 / (cos + sin)
    time = 1000 * sin * scale
    with torch.no_grad():
        output = rcm.network(
            (state * scale).float(),
            torch.tensor([time], dtype=torch.float32),
            embeddings()["prompt_embeds"],
        ).sample
    expected = scale * state - sin * scale * output.double()
    sigma = rcm.schedule.sigma(time)
    noisy = rcm.schedule.alpha(time) * clean + sigma * noise
    found = rcm.denoise(noisy.float(), time)
    torch.testing.assert_close(found, expected.float(), atol=1e-5, rtol=1e-5)


def test_each_name_of_rcm_is_accounted_for(base: Path, tmp_path: Path) -> None:
    weights = rcm_weights(checkpoints.wan_transformer(seed=7))
    del weights["net.blocks.0.ffn.0.bias"]
    weights["net.blocks.0.self_attn.attn_op._extra_state"] = torch.zeros(1)
    weights["net.patch_embedding.weight"] = torch.zeros(24, 20)
    torch.save(weights, tmp_path / "rcm.pt")
    with pytest.raises(ValueError, match="does not fit WanTransformer3DModel") as error:
        load(base, tmp_path / "rcm.pt")
    message = str(error.value)
    assert "1 missing: blocks.0.ffn.net.0.proj.bias" in message
    assert "1 unexpected: blocks.0.attn1.attn_op._extra_state" in message
    assert "patch_embedding.weight (24, 20) instead of (24, 4, 1, 2, 2)" in message


# -- AnyFlow ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def any_flow() -> nn.Module:
    if not hasattr(diffusers, "AnyFlowTransformer3DModel"):
        pytest.skip(f"diffusers {diffusers.__version__} is too old for AnyFlow")
    return checkpoints.any_flow_transformer(seed=7)


@pytest.mark.parametrize("kind", ["network", "whole-model", "base", "before"])
def test_any_flow_loads_from_its_folder(
    kind: str, base: Path, any_flow: nn.Module, tmp_path: Path
) -> None:
    if kind in ("network", "before"):
        any_flow.save_pretrained(tmp_path)
        if kind == "before":  # as published before diffusers had the class
            path = tmp_path / "config.json"
            settings = json.loads(path.read_text())
            settings |= {
                "_class_name": "FAR_Wan_Transformer3DModel",
                "chunk_partition": None,
                "init_far_model": False,
                "init_flowmap_model": True,
                "qk_norm": "rms_norm_across_heads",
            }
            path.write_text(json.dumps(settings))
        model = load(base, tmp_path)
    else:
        any_flow.save_pretrained(tmp_path / "transformer")
        if kind == "base":
            shutil.copytree(base / "vae", tmp_path / "vae")
            model = load(tmp_path, None)
        else:
            model = load(base, tmp_path)
    assert same_weights(model.network, any_flow)
    assert model.taken["layout"] == "AnyFlow"
    assert model.schedule == RectifiedFlow(shift=1.0)
    x = rand(1, 3, 5, 16, 16, dtype=torch.float32)
    assert model.sae(x, 522, generator=generator()).shape == x.shape


@pytest.mark.parametrize("time", [937.5, 625.0])
def test_any_flow_steps_to_time_zero_as_its_scheduler_does(
    base: Path, any_flow: nn.Module, time: float
) -> None:
    from diffusers import FlowMapEulerDiscreteScheduler

    model = WanConsistencyModel(
        any_flow, checkpoints.wan_autoencoder(), embeddings()["prompt_embeds"]
    )
    noisy = randn(2, 4, 3, 4, 4, dtype=torch.float32)
    scheduler = FlowMapEulerDiscreteScheduler(shift=5.0)
    frames_first = noisy.transpose(1, 2)
    with torch.no_grad():
        velocity = any_flow(
            frames_first,
            torch.full((2, 3), time),
            torch.zeros(2, 3),
            embeddings()["prompt_embeds"].expand(2, -1, -1),
        ).sample
    step = scheduler.step(velocity, time, frames_first, r_timestep=0.0)
    expected = step.prev_sample.transpose(1, 2)
    # its table has a thousand entries: its noise level is the nearest one's
    torch.testing.assert_close(model.denoise(noisy, time), expected, atol=1e-3, rtol=0)
    exact = frames_first - time / 1000 * velocity
    torch.testing.assert_close(model.denoise(noisy, time), exact.transpose(1, 2))


def test_each_name_of_any_flow_is_accounted_for(
    base: Path, any_flow: nn.Module, tmp_path: Path
) -> None:
    any_flow.save_config(tmp_path)
    weights = dict(any_flow.state_dict())
    del weights["condition_embedder.delta_embedder.linear_1.bias"]
    weights["far_patch_embedding.weight"] = torch.zeros(2)
    name = "diffusion_pytorch_model.safetensors"
    checkpoints.save_weights(tmp_path / name, weights)
    with pytest.raises(
        ValueError, match="does not fit AnyFlowTransformer3DModel"
    ) as error:
        load(base, tmp_path)
    message = str(error.value)
    assert "1 missing: condition_embedder.delta_embedder.linear_1.bias" in message
    assert "1 unexpected: far_patch_embedding.weight" in message


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"_class_name": "AnyFlowFARTransformer3DModel"}, "one chunk of frames after"),
        (
            {"_class_name": "FAR_Wan_Transformer3DModel", "init_far_model": True},
            "one chunk of frames after",
        ),
        ({"_class_name": "WanVACETransformer3DModel"}, "describes a WanVACE"),
    ],
)
def test_other_transformers_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _layouts.build_transformer(settings)


def test_a_diffusers_without_any_flow_says_so(
    any_flow: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diffusers, "AnyFlowTransformer3DModel", None)
    with pytest.raises(ImportError, match="has no AnyFlowTransformer3DModel"):
        _layouts.build_transformer({"_class_name": "AnyFlowTransformer3DModel"})


# -- the released system's own tensors -------------------------------------------------

PARITY = Path(__file__).parents[2] / "shared" / "data" / "parity"


@pytest.mark.skipif(not PARITY.is_dir(), reason="needs the recorded tensors")
@pytest.mark.parametrize("kind", ["causvid", "rcm"])
def test_the_recorded_network_answers_without_a_base_model(
    kind: str, tmp_path: Path
) -> None:
    path = PARITY / "causvid_tiny" / "model.pt"
    if kind == "rcm":  # the same weights in the other layout
        weights = {
            name.replace("model.", "net.", 1): tensor
            for name, tensor in _weight_files.read_file(path).items()
        }
        matrix = weights["net.patch_embedding.weight"].flatten(1)
        path = tmp_path / "rcm.pt"
        torch.save(weights | {"net.patch_embedding.weight": matrix}, path)
    recorded = load_file(PARITY / "causvid_tiny" / "io.safetensors")
    told = load_file(PARITY / "embeddings.safetensors")["video_prompt_embeds"]
    model = load(
        None,
        path,
        config=PARITY / "causvid_tiny",
        autoencoder=PARITY / "wan_vae_tiny",
        embeddings={"prompt_embeds": told},
    )
    with torch.no_grad():
        flow = model.network(
            recorded["x"], recorded["t"].float(), recorded["context"]
        ).sample
    torch.testing.assert_close(flow, recorded["flow_ref"], atol=2e-5, rtol=0)
    recorded = load_file(PARITY / "wan_vae_tiny" / "io.safetensors")
    latent = recorded["latent_ref"].transpose(1, 2)
    pixels = recorded["pixels"].transpose(1, 2)
    found = model.encode((pixels + 1) / 2)
    torch.testing.assert_close(found, latent, atol=2e-5, rtol=0)
