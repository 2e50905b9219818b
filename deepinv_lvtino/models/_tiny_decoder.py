r"""A tiny decoder of video latents, in the layout of TAEHV."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepinv_lvtino.models._memory import parameters_on_meta
from deepinv_lvtino.models._networks import fill
from deepinv_lvtino.models._weight_files import Source, Weights, read_file

_IMAGE_CHANNELS = 3
# where the layers are: the first, one at the end of each of three stages, and the last
_FIRST, _ENDS, _LAST = 1, (8, 14, 20), 22


class _Memory(nn.Module):
    """Residual block that also sees what the frame before looked like here."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(2 * width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, frames: Tensor, last: Tensor | None) -> Tensor:
        first = torch.zeros_like(frames[:1]) if last is None else last
        before = torch.cat([first, frames[:-1]])
        return F.relu(frames + self.conv(torch.cat([frames, before], dim=1)))


class _Frames(nn.Module):
    """From one frame to several, by as many groups of channels."""

    def __init__(self, width: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.conv = nn.Conv2d(width, width * factor, 1, bias=False)

    def forward(self, frames: Tensor) -> Tensor:
        return self.conv(frames).unflatten(1, (self.factor, -1)).flatten(0, 1)


class _Squash(nn.Module):
    """Keep latents within three standard deviations, smoothly."""

    def forward(self, latent: Tensor) -> Tensor:
        return 3 * torch.tanh(latent / 3)


class TinyVideoDecoder(nn.Module):
    r"""
    Decoder of normalised video latents to frames in [0, 1], a small convolutional network.

    Its weights and their names are those of TAEHV's files for Wan (``taew2_1``,
    ``taew2_2``): frames come before channels, latents are taken as the transformer gives
    them, and the first frames, for which there is no past, are dropped, so that
    :math:`n + 1` latent frames become :math:`4n + 1` frames. One latent frame passes at a
    time, whatever the length of the video.

    :param int latent_channels: channels of a latent.
    :param tuple widths: channels of the three stages, and of the last layers.
    :param tuple frames: frames made of one, in each stage.
    :param int patch_size: pixels per height and width of what the last layer gives.

    |sep|

    :Examples:

        >>> import torch
        >>> from deepinv_lvtino.models import TinyVideoDecoder
        >>> decoder = TinyVideoDecoder(latent_channels=4, widths=(8, 8, 4, 4))
        >>> decoder(torch.zeros(1, 3, 4, 2, 5)).shape  # frames before channels
        torch.Size([1, 9, 3, 16, 40])
    """

    def __init__(
        self,
        latent_channels: int = 16,
        widths: tuple[int, int, int, int] = (256, 128, 64, 64),
        *,
        frames: tuple[int, int, int] = (1, 2, 2),
        patch_size: int = 1,
    ) -> None:
        super().__init__()
        self.latent_channels = latent_channels
        self.patch_size = patch_size
        self.temporal = math.prod(frames)
        self.spatial = 2 ** len(frames) * patch_size
        layers: list[nn.Module] = [
            _Squash(),
            nn.Conv2d(latent_channels, widths[0], 3, padding=1),
            nn.ReLU(),
        ]
        for width, out, factor in zip(widths, widths[1:], frames, strict=False):
            layers += [_Memory(width) for _ in range(3)]
            layers += [nn.Upsample(scale_factor=2), _Frames(width, factor)]
            layers.append(nn.Conv2d(width, out, 3, padding=1, bias=False))
        pixels = _IMAGE_CHANNELS * patch_size**2
        layers += [nn.ReLU(), nn.Conv2d(widths[-1], pixels, 3, padding=1)]
        self.decoder = nn.ModuleList(layers)

    def forward(self, latent: Tensor) -> Tensor:
        r"""
        Decode.

        :param torch.Tensor latent: normalised latents, ``(B, t, c, h, w)``.
        :return: (:class:`torch.Tensor`) videos in [0, 1], ``(B, T, 3, H, W)``.
        """
        return torch.stack([self._video(frames) for frames in latent])

    def _video(self, latent: Tensor) -> Tensor:
        memory: dict[int, Tensor] = {}
        video = torch.cat([self._frames(frame, memory) for frame in latent.split(1)])
        return video[self.temporal - 1 :].clamp(0, 1)

    def _frames(self, x: Tensor, memory: dict[int, Tensor]) -> Tensor:
        """Frames of one latent frame; ``memory`` is what each block saw last."""
        for index, layer in enumerate(self.decoder):
            if isinstance(layer, _Memory):
                last, memory[index] = memory.get(index), x[-1:]
                x = layer(x, last)
            else:
                x = layer(x)
        return F.pixel_shuffle(x, self.patch_size) if self.patch_size > 1 else x


def load_tiny_decoder(
    path: Source, *, dtype: torch.dtype | None = None
) -> TinyVideoDecoder:
    r"""
    Read a tiny decoder; its sizes follow from the shapes of its weights.

    :param str, pathlib.Path path: file in the layout of TAEHV, safetensors or PyTorch. An
        encoder (``encoder.…``), which such files hold too, is left where it is.
    :param torch.dtype dtype: precision; as it is in the file by default.
    :return: (:class:`TinyVideoDecoder`) the decoder, frozen.
    :raises ValueError: if the file holds other weights: missing and unexpected names are
        listed.
    """
    weights = {
        name: tensor
        for name, tensor in read_file(path).items()
        if not name.startswith("encoder.")
    }
    with parameters_on_meta():
        decoder = TinyVideoDecoder(**_sizes(weights))
    fill(decoder, weights, source=path, dtype=dtype)
    return decoder


def check_tiny_decoder(decoder: nn.Module, network: nn.Module, spatial: int) -> None:
    r"""
    Check that a tiny decoder is for the latents of a network; others are left alone.

    :param torch.nn.Module decoder: the decoder.
    :param torch.nn.Module network: transformer of diffusers.
    :param int spatial: pixels per latent of its autoencoder.
    :raises ValueError: if it is for others.
    """
    if not isinstance(decoder, TinyVideoDecoder):
        return
    channels: int = network.config.in_channels  # type: ignore[union-attr,assignment]
    if (decoder.latent_channels, decoder.spatial) != (channels, spatial):
        msg = (
            f"`decoder` is for latents of {decoder.latent_channels} channels and "
            f"{decoder.spatial} pixels; the model's have {channels} and {spatial}. TAEHV "
            "has taew2_1 for Wan 2.1 and taew2_2 for Wan 2.2 with 5 billion parameters."
        )
        raise ValueError(msg)


def _sizes(weights: Weights) -> dict[str, Any]:
    """Arguments of the class; the default ones where a weight that says them is missing."""

    def channels(index: int, axis: int, default: int) -> int:
        tensor = weights.get(f"decoder.{index}.weight")
        return default if tensor is None or tensor.ndim != 4 else tensor.shape[axis]

    pixels = channels(_LAST, 0, _IMAGE_CHANNELS)
    return {
        "latent_channels": channels(_FIRST, 1, 16),
        "widths": (
            channels(_FIRST, 0, 256),
            channels(_ENDS[0], 0, 128),
            channels(_ENDS[1], 0, 64),
            channels(_ENDS[2], 0, 64),
        ),
        "patch_size": max(math.isqrt(pixels // _IMAGE_CHANNELS), 1),
    }
