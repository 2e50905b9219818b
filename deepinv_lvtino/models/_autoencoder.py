r"""What is to be known of an autoencoder of diffusers: its compression, its latents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class AutoencoderSpec:
    r"""
    Compression and normalisation of an autoencoder.

    :param int spatial: pixels per latent along height and along width.
    :param int temporal: frames per latent; 1 for images.
    :param torch.Tensor mean: subtracted from latents, one value or one per channel, in
        double precision.
    :param torch.Tensor std: latents are divided by this; likewise.
    """

    spatial: int
    temporal: int
    mean: Tensor
    std: Tensor

    @classmethod
    def from_config(
        cls,
        autoencoder: nn.Module,
        per_frame: bool,
        mean: Tensor | float | None = None,
        std: Tensor | float | None = None,
    ) -> AutoencoderSpec:
        r"""
        What the configuration of an autoencoder says.

        :param torch.nn.Module autoencoder: autoencoder with a ``config``, or with the
            attributes that diffusers gives it.
        :param bool per_frame: whether it encodes images.
        :param torch.Tensor mean: in place of what the configuration says.
        :param torch.Tensor std: likewise.
        :return: (AutoencoderSpec) the same in our words.
        :raises ValueError: if nothing says how much it compresses.
        """
        spatial, temporal = _compression(autoencoder, per_frame)
        config = getattr(autoencoder, "config", {})
        if mean is None:
            mean = _first(
                _entry(autoencoder, "latents_mean"),
                getattr(config, "shift_factor", None),
                0.0,
            )
        if std is None:
            deviation = torch.as_tensor(_first(_entry(autoencoder, "latents_std"), 1.0))
            std = deviation / (getattr(config, "scaling_factor", None) or 1.0)
        return cls(spatial, temporal, _values(mean), _values(std))

    def normalise(self, latent: Tensor) -> Tensor:
        r"""
        Latents of the autoencoder in the network's scale.

        :param torch.Tensor latent: latents ``(B, c, t, h, w)``.
        :return: (:class:`torch.Tensor`) the same, normalised.
        :raises ValueError: if they have other channels.
        """
        return (latent - _channel(self.mean, latent)) / _channel(self.std, latent)

    def restore(self, latent: Tensor) -> Tensor:
        r"""
        Inverse of :meth:`normalise`.

        :param torch.Tensor latent: normalised latents ``(B, c, t, h, w)``.
        :return: (:class:`torch.Tensor`) the same in the autoencoder's scale.
        :raises ValueError: if they have other channels.
        """
        return latent * _channel(self.std, latent) + _channel(self.mean, latent)


def _compression(autoencoder: nn.Module, per_frame: bool) -> tuple[int, int]:
    config = getattr(autoencoder, "config", {})
    spatial = _first(
        getattr(config, "scale_factor_spatial", None),
        getattr(autoencoder, "spatial_compression_ratio", None),
    )
    blocks = getattr(config, "block_out_channels", None)
    if spatial is None and blocks is not None:
        spatial = 2 ** (len(blocks) - 1)
    temporal = 1
    if not per_frame:
        temporal = _first(
            getattr(config, "scale_factor_temporal", None),
            getattr(autoencoder, "temporal_compression_ratio", None),
        )
    if spatial is None or temporal is None:
        msg = (
            f"`autoencoder` ({type(autoencoder).__name__}) does not say how much it "
            "compresses; give it `spatial_compression_ratio` and, for video, "
            "`temporal_compression_ratio`."
        )
        raise ValueError(msg)
    return int(spatial), int(temporal)


def _entry(module: nn.Module, name: str) -> Any:
    """An entry of the configuration, or an attribute (LTX has buffers) without one."""
    config = getattr(module, "config", {})
    return getattr(config if name in config else module, name, None)


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _values(value: Tensor | float) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64).detach().cpu().flatten()


def _channel(value: Tensor, latent: Tensor) -> Tensor:
    if value.numel() not in (1, latent.shape[1]):
        msg = (
            f"`latent_mean` and `latent_std` must have one value or one per channel "
            f"({latent.shape[1]}); got {value.numel()}."
        )
        raise ValueError(msg)
    return value.to(latent.dtype).to(latent.device).view(-1, 1, 1, 1)
