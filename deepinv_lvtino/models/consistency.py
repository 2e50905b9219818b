r"""The interface of a consistency model, and the stochastic autoencoder built on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepinv_lvtino.models.noise_schedules import NoiseSchedule
from deepinv_lvtino.utils import check_tensor, check_video, each


class ConsistencyModel(nn.Module):
    r"""
    Base class of video and image priors known through a one-step generator.

    A consistency model jumps from a noisy latent to a clean one in one evaluation,
    :math:`f(z_t, t) = z_0`, along the probability flow of a diffusion model
    :footcite:p:`song2023consistency`. A subclass gives :meth:`encode`, :meth:`decode`,
    :meth:`denoise` and its noise ``schedule``; this class gives :meth:`sae`, the
    stochastic autoencoder, which is all that the solver uses.

    Latents have five axes ``(B, c, t, h, w)``, also those of an image model, whose
    ``denoise`` treats every frame alone.

    :param NoiseSchedule schedule: noise levels :math:`a(t)` and :math:`s(t)`.
    :param float pixel_scale: size, in [0, 1] pixel units, of one unit of the latent; it
        calibrates the solver's steps (:meth:`deepinv_lvtino.Schedule.calibrated`).
    :param bool per_frame: whether the model is an image model.
    :param bool shared_noise: whether one noise tensor serves all frames (as the
        published system does for its image model).
    :param tuple[int, int, int] multiple: sizes of ``(T, H, W)`` inside the model are
        multiples of these; frames are counted beyond the first ``frame_offset``.
    :param int frame_offset: 1 for causal video autoencoders (``4n + 1`` frames), else 0.

    |sep|

    .. footbibliography::
    """

    #: Whether :meth:`sae` passes a batch video by video, so that each comes out as it
    #: would alone, to the last bit. A network that visits the device to be used takes the
    #: batch as a whole, and rounds a little differently.
    one_by_one = False

    def __init__(
        self,
        schedule: NoiseSchedule,
        *,
        pixel_scale: float = 1.0,
        per_frame: bool = False,
        shared_noise: bool = False,
        multiple: tuple[int, int, int] = (1, 1, 1),
        frame_offset: int = 0,
    ) -> None:
        super().__init__()
        self.schedule = schedule
        self.pixel_scale = pixel_scale
        self.per_frame = per_frame
        self.shared_noise = shared_noise
        self.multiple = multiple
        self.frame_offset = frame_offset

    def encode(self, x: Tensor) -> Tensor:
        r"""
        Video to latent.

        :param torch.Tensor x: video in [0, 1], shape ``(B, C, T, H, W)``.
        :return: (:class:`torch.Tensor`) latent, shape ``(B, c, t, h, w)``.
        """
        return x

    def decode(self, latent: Tensor) -> Tensor:
        r"""
        Latent to video.

        :param torch.Tensor latent: latent, shape ``(B, c, t, h, w)``.
        :return: (:class:`torch.Tensor`) video in [0, 1], shape ``(B, C, T, H, W)``.
        """
        return latent

    def denoise(self, latent: Tensor, t: float) -> Tensor:
        r"""
        Consistency function :math:`f(z_t, t)`.

        :param torch.Tensor latent: noisy latent :math:`z_t`, shape ``(B, c, t, h, w)``.
        :param float t: time, in the unit of ``schedule``.
        :return: (:class:`torch.Tensor`) clean latent of the same shape.
        """
        raise NotImplementedError

    @torch.no_grad()
    def sae(
        self,
        x: Tensor,
        t: float,
        noise: Tensor | Callable[[Tensor], Tensor] | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        r"""
        Stochastic autoencoding: encode, add noise, jump back, decode.

        .. math::

            z = E(x), \quad z_t = a(t) z + s(t) \varepsilon, \quad u = D(f(z_t, t))

        To first order in the relative noise variance this is one Langevin step for the
        model's density (LATINO :footcite:p:`spagnoletti2025latino`). Any number of frames
        and any size are accepted: the video is padded inside by repeating its border, and
        cropped back. The networks are given the videos of a batch one by one (up to 64), so
        that a result does not depend on what else the batch holds.

        :param torch.Tensor x: video in [0, 1], shape ``(B, C, T, H, W)``.
        :param float t: time, in the unit of ``schedule``.
        :param torch.Tensor, Callable noise: standard normal :math:`\varepsilon` of the
            latent's shape (one frame long if the model shares its noise), or a function
            that gives it, called with a tensor like it; drawn afresh by default.
        :param torch.Generator generator: generator for the default noise.
        :return: (:class:`torch.Tensor`) video of the shape and dtype of ``x``.
        :raises ValueError: if ``x`` does not have five axes or ``noise`` has another shape
            than the latent.

        |sep|

        .. footbibliography::
        """
        check_video("x", x)
        latent = self._each(self.encode, self.pad(x))
        like = latent[:, :, :1] if self.shared_noise else latent
        if noise is None:
            noise = torch.randn(
                like.shape, generator=generator, dtype=like.dtype, device=like.device
            )
        elif callable(noise):
            noise = noise(like)
        check_tensor("noise", noise)
        if noise.shape not in (like.shape, latent.shape):
            msg = (
                f"`noise` must have the latent's shape {tuple(like.shape)}; got "
                f"{tuple(noise.shape)}."
            )
            raise ValueError(msg)
        noisy = self.schedule.alpha(t) * latent + self.schedule.sigma(t) * noise.to(
            latent
        )
        clean = self._each(lambda part: self.decode(self.denoise(part, t)), noisy)
        frames, height, width = x.shape[2:]
        return clean[:, :, :frames, :height, :width].to(x.dtype)

    def _each(self, function: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
        return each(function, batch) if self.one_by_one else function(batch)

    def pad(self, x: Tensor) -> Tensor:
        r"""
        Repeat the last frame, row and column up to the sizes the model works on.

        :param torch.Tensor x: video, shape ``(B, C, T, H, W)``.
        :return: (:class:`torch.Tensor`) video, as large or larger.
        """
        frames, height, width = x.shape[2:]
        every_t, every_h, every_w = self.multiple
        extra = (
            (self.frame_offset - frames) % every_t,
            -height % every_h,
            -width % every_w,
        )
        if not any(extra):
            return x
        pad_t, pad_h, pad_w = extra
        return F.pad(x, (0, pad_w, 0, pad_h, 0, pad_t), mode="replicate")

    def extra_repr(self) -> str:
        options: dict[str, Any] = {"schedule": self.schedule}
        if self.per_frame:
            options["per_frame"] = True
        return ", ".join(f"{key}={value}" for key, value in options.items())
