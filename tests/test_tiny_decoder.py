r"""A tiny decoder in TAEHV's layout: its names, its frames, and its place in Wan."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import checkpoints
from deepinv_lvtino.models import (
    Tiles,
    TinyVideoDecoder,
    WanConsistencyModel,
    estimate_memory,
)
from deepinv_lvtino.models._tiny_decoder import load_tiny_decoder
from helpers import generator, rand, randn

WIDTHS = (8, 6, 4, 4)


def taehv_weights(
    latent_channels: int = 4, widths: tuple = WIDTHS, patch_size: int = 1
) -> dict[str, Tensor]:
    r"""Random weights under the names and in the shapes of ``taew2_1``."""
    a, b, c, d = widths
    shapes: dict[str, tuple[int, ...]] = {"1.weight": (a, latent_channels, 3, 3)}
    shapes |= {"7.conv.weight": (a, a, 1, 1), "8.weight": (b, a, 3, 3)}
    shapes |= {"13.conv.weight": (2 * b, b, 1, 1), "14.weight": (c, b, 3, 3)}
    shapes |= {"19.conv.weight": (2 * c, c, 1, 1), "20.weight": (d, c, 3, 3)}
    shapes |= {"22.weight": (3 * patch_size**2, d, 3, 3)}
    shapes |= {"1.bias": (a,), "22.bias": (3 * patch_size**2,)}
    for width, first in ((a, 3), (b, 9), (c, 15)):
        for block in range(first, first + 3):
            for layer, inputs in ((0, 2 * width), (2, width), (4, width)):
                shapes[f"{block}.conv.{layer}.weight"] = (width, inputs, 3, 3)
                shapes[f"{block}.conv.{layer}.bias"] = (width,)
    rng = torch.Generator().manual_seed(0)
    weights = {
        f"decoder.{name}": torch.randn(shape, generator=rng)
        / math.prod(shape[1:] or (16,)) ** 0.5
        for name, shape in shapes.items()
    }
    weights["decoder.22.weight"] *= 0.5
    weights["decoder.22.bias"] += 0.5  # most values lie inside [0, 1], some do not
    weights["encoder.0.weight"] = torch.zeros(64, 3, 3, 3)  # which is not needed
    weights["encoder.17.bias"] = torch.zeros(latent_channels)
    return weights


def decoded(weights: dict[str, Tensor], latent: Tensor, patch_size: int = 1) -> Tensor:
    r"""All frames at once: each layer sees the whole video, its memory is a shift."""

    def convolve(x: Tensor, name: str) -> Tensor:
        weight, bias = weights[f"{name}.weight"], weights.get(f"{name}.bias")
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)

    x = convolve(3 * torch.tanh(latent / 3), "decoder.1").clamp(min=0)
    for first, factor in ((3, 1), (9, 2), (15, 2)):
        for block in range(first, first + 3):
            y = torch.cat([x, F.pad(x, (0, 0, 0, 0, 0, 0, 1, 0))[:-1]], dim=1)
            for layer in (0, 2, 4):
                y = convolve(y, f"decoder.{block}.conv.{layer}")
                y = y.clamp(min=0) if layer < 4 else y
            x = (x + y).clamp(min=0)
        x = x.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
        x = convolve(x, f"decoder.{first + 4}.conv")
        frames, channels = len(x) * factor, x.shape[1] // factor
        x = x.reshape(frames, channels, *x.shape[2:])
        x = convolve(x, f"decoder.{first + 5}")
    x = convolve(x.clamp(min=0), "decoder.22")
    p = patch_size
    rows = x.unflatten(1, (3, p, p)).permute(0, 1, 4, 2, 5, 3)
    return rows.reshape(len(x), 3, p * x.shape[2], p * x.shape[3])[3:].clamp(0, 1)


# -- the file --------------------------------------------------------------------------


def test_names_and_shapes_are_those_of_the_published_file() -> None:
    r"""64 tensors, as the header of ``taew2_1.safetensors`` lists them."""
    with torch.device("meta"):
        state = TinyVideoDecoder().state_dict()
    published = taehv_weights(16, (256, 128, 64, 64))
    shapes = {k: v.shape for k, v in published.items() if k.startswith("decoder.")}
    assert {name: tensor.shape for name, tensor in state.items()} == shapes
    assert len(shapes) == 64


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
@pytest.mark.parametrize("patch_size, channels", [(1, 4), (2, 6)])
def test_a_checkpoint_decodes_as_its_layout_says(
    kind: str, patch_size: int, channels: int, tmp_path: Path
) -> None:
    weights = taehv_weights(channels, patch_size=patch_size)
    path = tmp_path / f"taew.{kind}"
    if kind == "pth":
        torch.save(weights, path)
    else:
        checkpoints.save_weights(path, weights)
    decoder = load_tiny_decoder(path)
    assert not any(p.requires_grad for p in decoder.parameters())
    latent = randn(2, 4, channels, 3, 5, dtype=torch.float32)
    video = decoder(latent)
    size = (8 * 3 * patch_size, 8 * 5 * patch_size)
    assert video.shape == (2, 4 * 3 + 1, 3, *size)
    for one, given in zip(video, latent, strict=True):
        expected = decoded(weights, given, patch_size)
        torch.testing.assert_close(one, expected, atol=1e-5, rtol=1e-4)
    inner = (video > 0) & (video < 1)
    assert 0.2 < float(inner.float().mean()) < 1


def test_each_name_of_the_decoder_is_accounted_for(tmp_path: Path) -> None:
    weights = taehv_weights()
    del weights["decoder.9.conv.2.bias"]
    weights["decoder.8.bias"] = torch.zeros(6)
    weights["projector.weight"] = torch.zeros(2)
    weights["decoder.13.conv.weight"] = torch.zeros(6, 6, 1, 1)  # no frames are made
    torch.save(weights, tmp_path / "tae.pth")
    with pytest.raises(ValueError, match="does not fit TinyVideoDecoder") as error:
        load_tiny_decoder(tmp_path / "tae.pth")
    message = str(error.value)
    assert "1 missing: decoder.9.conv.2.bias" in message
    assert "2 unexpected: decoder.8.bias, projector.weight" in message
    assert "decoder.13.conv.weight (6, 6, 1, 1) instead of (12, 6, 1, 1)" in message
    torch.save({"decoder.x": torch.zeros(2)}, tmp_path / "tae.pth")
    with pytest.raises(ValueError, match="64 missing"):
        load_tiny_decoder(tmp_path / "tae.pth")


# -- the model -------------------------------------------------------------------------


def model(decoder: nn.Module, **options: Any) -> WanConsistencyModel:
    return WanConsistencyModel(
        checkpoints.wan_transformer(),
        checkpoints.wan_autoencoder(),
        randn(1, 6, checkpoints.TEXT_DIM, dtype=torch.float32),
        decoder=decoder,
        **options,
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tae") / "taew2_1.pth"
    torch.save(taehv_weights(), path)
    return path


@pytest.fixture(scope="module")
def tiny(path: Path) -> WanConsistencyModel:
    return model(load_tiny_decoder(path))


@pytest.mark.parametrize("frames", [1, 4, 5, 9, 25])
def test_as_many_frames_as_the_autoencoder_gives(
    tiny: WanConsistencyModel, frames: int
) -> None:
    x = rand(1, 3, frames, 17, 32, dtype=torch.float32)
    latent = tiny.encode(tiny.pad(x))
    assert latent.shape[2] == 1 + -(-(frames - 1) // 4)
    video = tiny.decode(latent)
    assert video.shape == (1, 3, 1 + 4 * (latent.shape[2] - 1), 32, 32)
    if frames <= 5:
        plain = model(None)  # type: ignore[arg-type]
        assert plain.decode(latent).shape == video.shape
    assert tiny.sae(x, 522, generator=generator()).shape == x.shape


def test_it_is_given_latents_as_the_transformer_has_them(
    path: Path, tiny: WanConsistencyModel
) -> None:
    r"""Neither ``latents_mean`` nor ``latents_std`` is applied, and no range is changed."""
    latent = randn(2, 4, 3, 2, 4, dtype=torch.float32)
    weights = torch.load(path, weights_only=True)
    expected = torch.stack([decoded(weights, z.transpose(0, 1)) for z in latent])
    found = tiny.decode(latent)
    torch.testing.assert_close(found, expected.transpose(1, 2), atol=1e-5, rtol=1e-4)


def test_a_file_is_loaded_beside_the_model(path: Path, tmp_path: Path) -> None:
    checkpoints.wan_transformer().save_pretrained(tmp_path / "transformer")
    checkpoints.wan_autoencoder().save_pretrained(tmp_path / "vae")
    embeddings = {"prompt_embeds": torch.zeros(1, 4, checkpoints.TEXT_DIM)}
    options: dict[str, Any] = {"embeddings": embeddings, "device": "cpu"}
    loaded = WanConsistencyModel.from_pretrained(
        tmp_path, None, decoder=path, dtype=torch.bfloat16, offload=False, **options
    )
    assert isinstance(loaded.decoder, TinyVideoDecoder)
    assert {p.dtype for p in loaded.decoder.parameters()} == {torch.bfloat16}
    latent = randn(1, 4, 2, 2, 2, dtype=torch.float32)
    video = loaded.decode(latent)
    assert video.dtype == torch.float32
    exact = load_tiny_decoder(path)(latent.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(video, exact, atol=0.05, rtol=0)
    again = WanConsistencyModel.from_pretrained(
        tmp_path, None, decoder=load_tiny_decoder(path), **options
    )
    assert torch.equal(again.decode(latent), exact)


def test_large_frames_are_decoded_in_tiles(
    path: Path, tiny: WanConsistencyModel
) -> None:
    tiles = model(load_tiny_decoder(path), tiling=Tiles(256, 64))
    latent = randn(1, 4, 1, 4, 80, dtype=torch.float32)
    whole, cut = tiny.decode(latent), tiles.decode(latent)
    assert cut.shape == whole.shape
    # the first tile ends at 256; the network reaches no farther than 142 pixels
    torch.testing.assert_close(cut[..., :112], whole[..., :112])
    assert not torch.allclose(cut[..., 112:], whole[..., 112:])


def test_decoders_of_another_convention_are_refused(tiny: WanConsistencyModel) -> None:
    class Untrimmed(nn.Module):
        def forward(self, latent: Tensor) -> Tensor:
            batch, frames, _, height, width = latent.shape
            return torch.zeros(batch, 4 * frames, 3, 8 * height, 8 * width)

    latent = randn(1, 4, 3, 2, 2, dtype=torch.float32)
    with pytest.raises(ValueError, match=r"`decoder` gave shape \(1, 12, 3, 16, 16\)"):
        model(Untrimmed()).decode(latent)
    with pytest.raises(ValueError, match="latents of 6 channels and 16 pixels"):
        model(TinyVideoDecoder(6, WIDTHS, patch_size=2))


def test_its_memory_is_foreseen() -> None:
    estimate = estimate_memory("wan", 5, 128, 128, tiny_decoder=True)
    assert estimate.weights["decoder"] == 2 * 9_844_611  # bytes in half precision
    assert estimate.resident > sum(estimate.weights.values())
    # one latent frame at a time, which the encoder does with four frames
    assert estimate.activations["decode"] < estimate.activations["encode"] / 2
    largest = estimate.weights["network"] + estimate.activations["denoise"]
    assert estimate.offloaded == largest
    with pytest.raises(ValueError, match="`tiny_decoder` is for `model='wan'`"):
        estimate_memory("sdxl", 9, 256, 384, tiny_decoder=True)
