r"""
The embedded default: a small video and a small image consistency model.

Both are residual U-Nets, of seven and three million parameters, trained on computed clips
(:func:`deepinv_lvtino.datasets.dead_leaves_clip`) and then on openly licensed footage by
:mod:`deepinv_lvtino.training`; their weights are part of the package. The network
answers two questions about a noisy clip: what is its mean (the *denoiser*, stage 1 of
the training), and where does the probability flow of that denoiser end (the *jump*,
stage 2, the consistency function that the solver uses).
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from deepinv.models import Denoiser
from torch import Tensor, nn

from deepinv_lvtino.models.consistency import ConsistencyModel
from deepinv_lvtino.models.noise_schedules import (
    NoiseSchedule,
    RectifiedFlow,
    VariancePreserving,
)
from deepinv_lvtino.models.tiny_network import TinyNetwork, fast_dtype

SIGMA_DATA = 0.5  # standard deviation of clean latents, in [-1, 1]


def precondition(
    network: nn.Module, noisy: Tensor, sigma: Tensor, jump: Tensor
) -> Tensor:
    r"""
    Clean latent from :math:`z + \sigma \varepsilon` (EDM :footcite:p:`karras2022edm`).

    .. math::

        D(z_\sigma; \sigma) = c_\text{skip} z_\sigma
            + c_\text{out} F(c_\text{in} z_\sigma; \log \sigma)

    :param torch.nn.Module network: the network :math:`F`, called with the scaled latent,
        the logarithm of the noise level and the flag ``jump``.
    :param torch.Tensor noisy: latent :math:`z_\sigma`, shape ``(B, 12, T, h, w)``.
    :param torch.Tensor sigma: relative noise level, shape ``(B,)``.
    :param torch.Tensor jump: 0 for the denoiser, 1 for the jump, shape ``(B,)``.
    :return: (:class:`torch.Tensor`) clean latent, float32.

    |sep|

    .. footbibliography::
    """
    sigma_ = sigma.view(-1, 1, 1, 1, 1)
    total = sigma_**2 + SIGMA_DATA**2
    output = network(noisy * total.rsqrt(), sigma.log(), jump)
    return (
        noisy * (SIGMA_DATA**2 / total)
        + output.float() * sigma_ * SIGMA_DATA * total.rsqrt()
    )


class TinyConsistencyModel(ConsistencyModel):
    r"""
    Consistency model over a :class:`TinyNetwork`; the class of the embedded default.

    The latent is the clip on [-1, 1], each 2×2 block of pixels moved to the channels
    (lossless, so encoding and decoding cost nothing): shape ``(B, 12, T, H/2, W/2)``.

    :param TinyNetwork network: the network.
    :param NoiseSchedule schedule: noise convention; rectified flow for clips and
        variance preserving for frames by default. The network itself only sees the
        relative noise level :math:`s(t)/a(t)`.
    :param str, torch.dtype precision: dtype of the network's convolutions (autocast).
        ``'auto'`` is bfloat16 where the hardware computes in it (GPUs, recent processors),
        else float32; the two differ by about 1e-3 in the result.

    |sep|

    :Examples:

        >>> import torch
        >>> from deepinv_lvtino.models import TinyConsistencyModel, TinyNetwork
        >>> model = TinyConsistencyModel(TinyNetwork())
        >>> model.sae(torch.rand(1, 3, 5, 20, 30), t=250).shape
        torch.Size([1, 3, 5, 20, 30])
    """

    one_by_one = True

    def __init__(
        self,
        network: TinyNetwork,
        schedule: NoiseSchedule | None = None,
        *,
        precision: str | torch.dtype = "auto",
    ) -> None:
        if precision != "auto" and not isinstance(precision, torch.dtype):
            msg = f"`precision` must be 'auto' or a torch.dtype; got {precision!r}."
            raise ValueError(msg)
        temporal = network.config.temporal
        if schedule is None:
            schedule = RectifiedFlow() if temporal else VariancePreserving()
        multiple = network.config.multiple
        super().__init__(
            schedule,
            pixel_scale=0.5,
            per_frame=not temporal,
            multiple=(1, multiple, multiple),
        )
        self.network = network
        self.precision = precision

    def encode(self, x: Tensor) -> Tensor:
        if x.shape[1] != 3:
            msg = (
                f"`x` must have 3 channels (RGB); got {x.shape[1]}. Repeat a grey video "
                "three times along axis 1, or use another model."
            )
            raise ValueError(msg)
        frames = F.pixel_unshuffle((2 * x.float() - 1).transpose(1, 2), 2)
        return frames.transpose(1, 2)

    def decode(self, latent: Tensor) -> Tensor:
        frames = F.pixel_shuffle(latent.transpose(1, 2), 2)
        return (frames.transpose(1, 2) + 1) / 2

    def denoise(self, latent: Tensor, t: float) -> Tensor:
        ratio = math.sqrt(self.schedule.noise_ratio(t))
        return self.predict(latent / self.schedule.alpha(t), ratio, jump=True)

    def predict(self, noisy: Tensor, sigma: float | Tensor, jump: bool) -> Tensor:
        r"""
        Clean latent from :math:`z + \sigma \varepsilon`.

        :param torch.Tensor noisy: noisy latent, shape ``(B, 12, T, h, w)``.
        :param float, torch.Tensor sigma: relative noise level, a number or shape
            ``(B,)``.
        :param bool jump: the end of the probability flow (the consistency function) if
            true, else the mean (the denoiser).
        :return: (:class:`torch.Tensor`) clean latent of the same shape, float32.
        """
        batch = len(noisy)
        sigma = torch.as_tensor(sigma, dtype=torch.float32, device=noisy.device)
        flag = torch.full((batch,), float(jump), device=noisy.device)
        dtype = self.precision
        if not isinstance(dtype, torch.dtype):
            dtype = fast_dtype(noisy.device)
        half = dtype != torch.float32
        with torch.autocast(noisy.device.type, dtype if half else None, enabled=half):
            return precondition(self.network, noisy, sigma.expand(batch), flag)

    def as_denoiser(self) -> Denoiser:
        r"""
        The same prior as a DeepInverse denoiser, for PnP, DiffPIR, DPS and the like.

        :return: (:class:`deepinv.models.Denoiser`) a denoiser called with a clip
            ``(B, 3, T, H, W)`` (or images ``(B, 3, H, W)`` for an image model) in
            [0, 1] and the standard deviation of its noise, in the same unit.
        """
        return TinyDenoiser(self)


class TinyDenoiser(Denoiser):
    r"""
    View of a :class:`TinyConsistencyModel` as a DeepInverse denoiser.

    It shares the model's weights and returns the mean (stage 1 of the training), the
    minimum-mean-square-error denoiser, not the jump.

    :param TinyConsistencyModel model: the model.
    """

    def __init__(self, model: TinyConsistencyModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, x: Tensor, sigma: float | Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        r"""
        Denoise.

        :param torch.Tensor x: noisy clip ``(B, 3, T, H, W)`` or, for an image model,
            images ``(B, 3, H, W)``; clean values in [0, 1].
        :param float, torch.Tensor sigma: noise standard deviation, a number or one per
            batch element.
        :return: (:class:`torch.Tensor`) denoised tensor of the same shape.
        :raises ValueError: if ``x`` has another number of axes.
        """
        images = x.ndim == 4 and self.model.per_frame
        if x.ndim != 5 and not images:
            msg = (
                "`x` must be a clip of shape (B, 3, T, H, W)"
                f"{' or images (B, 3, H, W)' if self.model.per_frame else ''}; got "
                f"shape {tuple(x.shape)}."
            )
            raise ValueError(msg)
        clip = x.unsqueeze(2) if images else x
        level: Tensor = self._handle_sigma(
            sigma, batch_size=len(x), ndim=1, device=x.device, dtype=torch.float32
        )
        # the latent spans [-1, 1]: twice the pixel range, twice the noise
        latent = self.model.encode(self.model.pad(clip))
        clean = self.model.predict(latent, 2 * level.clamp(min=1e-4), jump=False)
        out = self.model.decode(clean)[..., : x.shape[-2], : x.shape[-1]].to(x.dtype)
        return out.squeeze(2) if images else out
