r"""Any few-step model of diffusers as a consistency model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from deepinv.physics import Physics
from torch import Tensor, nn

from deepinv_lvtino.models._autoencoder import AutoencoderSpec
from deepinv_lvtino.models._memory import Offload, Part, Result
from deepinv_lvtino.models._tiling import Tiles, tiled
from deepinv_lvtino.models.consistency import ConsistencyModel
from deepinv_lvtino.models.noise_schedules import NoiseSchedule
from deepinv_lvtino.models.predictions import (
    PREDICTIONS,
    call_network,
    clean_latent,
)

Conditioning = Mapping[str, Any]
Call = Callable[[nn.Module, Tensor, Tensor, dict[str, Any]], Tensor]

# pixels of a frame beyond which the autoencoder takes frames one by one
_LARGE_FRAME = 512 * 512


class DiffusersConsistencyModel(ConsistencyModel):
    r"""
    A network and an autoencoder of diffusers as a consistency model.

    The autoencoder gives posterior means, normalised as its configuration says; the
    network's prediction becomes the clean latent by :func:`clean_latent`. Both follow the
    device of the video they are given, so that ``.to(device)`` is never needed.

    Image models get their frames in batches of ``frame_batch``, video models one video at
    a time. Latents are kept in the video's precision (at least float32), whatever that of
    the networks.

    :param torch.nn.Module network: transformer or UNet, called as
        ``network(latent, timestep, **conditioning, return_dict=False)[0]``, or as ``call``
        says.
    :param torch.nn.Module autoencoder: autoencoder with ``encode(x).latent_dist`` and
        ``decode(z, return_dict=False)[0]`` on values in [-1, 1], and a ``config``.
    :param NoiseSchedule schedule: noise levels; the network gets the time as it is.
    :param str prediction: ``'noise'``, ``'velocity'``, ``'v'`` or ``'clean'``.
    :param dict conditioning: further arguments of the network (embeddings of the prompt,
        …): tensors with a batch axis of length one, other values, or dictionaries of them.
    :param dict negative: conditioning of the negative prompt, for ``guidance``.
    :param float guidance: classifier-free guidance; 1 is none, and one evaluation.
    :param Callable call: ``(network, latent, timestep, conditioning)`` to prediction, for
        networks with other arguments or another layout of their input.
    :param torch.Tensor latent_mean: subtracted from latents, one value or one per channel;
        by default what the autoencoder's configuration says.
    :param torch.Tensor latent_std: latents are divided by this; likewise.
    :param dict decode_arguments: further arguments of the autoencoder's ``decode``.
    :param bool per_frame: whether this is an image model.
    :param bool shared_noise: whether one noise tensor serves all frames.
    :param tuple[int, int, int] multiple: see :class:`ConsistencyModel`; by default from
        the configurations.
    :param int frame_offset: see :class:`ConsistencyModel`; 1 for video models by default.
    :param float pixel_scale: see :class:`ConsistencyModel`. The default is the standard
        deviation of natural images, which is what one unit of a normalised latent stands
        for if the autoencoder is about linear; :meth:`measure_pixel_scale` measures it.
    :param bool clip: clip videos to [0, 1] before the encoder.
    :param int frame_batch: frames of an image model that are worked on at once (by the
        autoencoder, if they are no larger than 512×512; else it takes them one by one).
    :param Tiles, str tiling: how frames are cut for the autoencoder; ``None`` for whole
        frames; ``'auto'`` cuts large ones.
    :param bool, str offload: ``'auto'``: networks leave the GPU when another one needs the
        room; ``True``: after every use; ``False``: never.
    :param bool channels_last: memory format of 2-D convolutions that suits tensor cores.
    :param bool compile: compile the network (:func:`torch.compile`).
    :raises ValueError: if an argument is none of those listed.
    :raises OutOfMemory: if the device's memory does not suffice for a step; the message
        names the settings that can still be changed.

    |sep|

    :Examples:

        Stable Diffusion 1.5 distilled by LCM, once its parts are loaded::

            model = DiffusersConsistencyModel(
                unet,
                vae,
                VariancePreserving(),
                prediction="noise",
                conditioning={"encoder_hidden_states": prompt_embeds},
                per_frame=True,
                shared_noise=True,
            )
    """

    #: The solver need not compare devices: networks go where the video is.
    follows_device = True

    def __init__(
        self,
        network: nn.Module,
        autoencoder: nn.Module,
        schedule: NoiseSchedule,
        *,
        prediction: str,
        conditioning: Conditioning | None = None,
        negative: Conditioning | None = None,
        guidance: float = 1.0,
        call: Call | None = None,
        latent_mean: Tensor | float | None = None,
        latent_std: Tensor | float | None = None,
        decode_arguments: Conditioning | None = None,
        per_frame: bool = False,
        shared_noise: bool = False,
        multiple: tuple[int, int, int] | None = None,
        frame_offset: int | None = None,
        pixel_scale: float = 0.25,
        clip: bool | None = None,
        frame_batch: int = 8,
        tiling: Tiles | str | None = "auto",
        offload: Offload = "auto",
        channels_last: bool = False,
        compile: bool = False,
    ) -> None:
        if prediction not in PREDICTIONS:
            names = ", ".join(map(repr, PREDICTIONS))
            msg = f"`prediction` must be one of {names}; got {prediction!r}."
            raise ValueError(msg)
        if frame_batch < 1:
            msg = f"`frame_batch` must be 1 or more; got {frame_batch}."
            raise ValueError(msg)
        if guidance != 1 and negative is None:
            msg = f"`guidance`={guidance} needs `negative`, the negative conditioning."
            raise ValueError(msg)
        spec = AutoencoderSpec.from_config(
            autoencoder, per_frame, latent_mean, latent_std
        )
        super().__init__(
            schedule,
            pixel_scale=pixel_scale,
            per_frame=per_frame,
            shared_noise=shared_noise,
            multiple=multiple or _multiple(network, spec),
            frame_offset=int(not per_frame) if frame_offset is None else frame_offset,
        )
        self.network = network
        self.autoencoder = autoencoder
        self.prediction = prediction
        self.conditioning = dict(conditioning or {})
        self.negative = None if negative is None else dict(negative)
        self.guidance = guidance
        self.call = call or call_network
        self.spec = spec
        self.decode_arguments = dict(decode_arguments or {})
        self.clip = per_frame if clip is None else clip
        self.frame_batch = frame_batch
        self.tiles = _tiles_of(tiling, per_frame)
        self._parts = {
            "network": Part("network", network, offload),
            "autoencoder": Part("autoencoder", autoencoder, offload),
        }
        if channels_last:
            for module in (network, autoencoder):
                _channels_last(module)
        if compile:
            # alike blocks are compiled once, where diffusers knows them
            if getattr(network, "_repeated_blocks", None):
                network.compile_repeated_blocks()  # type: ignore[operator]
            else:
                network.compile()
        self.eval().requires_grad_(False)

    @property
    def offload(self) -> Offload:
        r"""When networks leave the GPU."""
        return self._parts["network"].offload

    @offload.setter
    def offload(self, offload: Offload) -> None:
        for part in self._parts.values():
            part.offload = offload

    def place(self, device: torch.device | str) -> None:
        r"""
        Move the networks to a device now rather than at their first use.

        :param torch.device device: the device.
        :raises OutOfMemory: if its memory does not suffice.
        """
        like = torch.empty(0, device=device)
        for name in self._parts:
            self._on_device(name, lambda _: like, like)

    def encode(self, x: Tensor) -> Tensor:
        if self.clip:
            x = x.clamp(0, 1)
        dtype = torch.promote_types(x.dtype, torch.float32)
        count = self._frames_at_once(x.shape, 1)

        # one visit to the device for all pieces
        def means(network: nn.Module) -> list[Tensor]:
            return [self._encode(network, p).to(dtype) for p in self._pieces(x, count)]

        latent = _unfold(
            self._on_device("autoencoder", means, x), len(x), self.per_frame
        )
        return self.spec.normalise(latent)

    def denoise(self, latent: Tensor, t: float) -> Tensor:
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)

        def jumps(network: nn.Module) -> list[Tensor]:
            return [
                clean_latent(
                    self.prediction,
                    piece,
                    self._predict(network, piece, t),
                    alpha,
                    sigma,
                )
                for piece in self._pieces(latent, self.frame_batch)
            ]

        pieces = self._on_device("network", jumps, latent)
        return _unfold(pieces, len(latent), self.per_frame)

    def decode(self, latent: Tensor) -> Tensor:
        latent = self.spec.restore(latent)
        count = self._frames_at_once(latent.shape, self.spec.spatial)

        def videos(network: nn.Module) -> list[Tensor]:
            return [
                self._decode(network, piece).to(latent.dtype).add_(1).div_(2)
                for piece in self._pieces(latent, count)
            ]

        pieces = self._on_device("autoencoder", videos, latent)
        return _unfold(pieces, len(latent), self.per_frame)

    @torch.no_grad()
    def measure_pixel_scale(
        self, x: Tensor, step: float = 0.1, generator: torch.Generator | None = None
    ) -> float:
        r"""
        Measure ``pixel_scale`` on a video, by disturbing its latent, and keep it.

        .. math::

            c = \operatorname{rms}\left( D(z + h \varepsilon) - D(z) \right) / h

        :param torch.Tensor x: video in [0, 1], shape ``(B, C, T, H, W)``.
        :param float step: :math:`h`.
        :param torch.Generator generator: generator of :math:`\varepsilon`.
        :return: (float) :math:`c`.
        """
        latent = self.encode(self.pad(x))
        noise = torch.randn(
            latent.shape, generator=generator, dtype=latent.dtype, device=latent.device
        )
        moved = self.decode(latent + step * noise) - self.decode(latent)
        self.pixel_scale = float(moved.square().mean().sqrt()) / step
        return self.pixel_scale

    def conditions(self, latent: Tensor, conditioning: Conditioning) -> dict[str, Any]:
        r"""
        Arguments of the network for a batch; models with more of them extend this.

        :param torch.Tensor latent: noisy latents that the network is given.
        :param dict conditioning: conditioning of the prompt, or of the negative prompt.
        :return: (dict) the arguments, tensors on the device and for the batch.
        """
        return {key: self._fit(value, latent) for key, value in conditioning.items()}

    def _fit(self, value: Any, latent: Tensor) -> Any:
        if isinstance(value, Mapping):
            return {key: self._fit(inner, latent) for key, inner in value.items()}
        if not isinstance(value, Tensor):
            return value
        if value.ndim == 0 or len(value) != 1:
            msg = (
                "tensors in `conditioning` must have a batch axis of length one; got "
                f"shape {tuple(value.shape)}."
            )
            raise ValueError(msg)
        dtype = dtype_of(self.network) if value.is_floating_point() else value.dtype
        value = value.to(latent.device, dtype)
        return value.expand(len(latent), *value.shape[1:])

    def _frames_at_once(self, shape: torch.Size, scale: int) -> int:
        """Autoencoders need more memory than networks: large frames go one by one."""
        pixels = shape[-2] * shape[-1] * scale**2
        return self.frame_batch if pixels <= _LARGE_FRAME else 1

    def _pieces(self, x: Tensor, num_frames: int) -> Iterator[Tensor]:
        """What the networks see at once: some frames, or one video."""
        for video in x:
            if self.per_frame:
                yield from video.transpose(0, 1).split(num_frames)
            else:
                yield video[None]

    def _on_device(
        self, name: str, function: Callable[[nn.Module], Result], like: Tensor
    ) -> Result:
        remedies = self._remedies(name, like.device)
        return self._parts[name].run(function, like.device, remedies)

    def _remedies(self, name: str, device: torch.device) -> dict[str, str]:
        """What can still be changed when memory runs out."""
        found = {}
        if self.per_frame and self.frame_batch > 1:
            found["`frame_batch=1`"] = "fewer frames at once"
        if self.offload is not True and device.type != "cpu":
            found["`offload=True`"] = "one network on the device at a time"
        if name != "network":
            side = "" if self.tiles is None else f" below {self.tiles.side}"
            found["`tiling=Tiles(side=...)`"] = f"smaller tiles, side{side}"
        if dtype_of(self.network).itemsize > 2:
            found["`dtype=torch.bfloat16`"] = "half of the memory"
        found["a smaller video"] = "fewer frames or pixels"
        return found

    @torch.no_grad()
    def _encode(self, network: nn.Module, x: Tensor) -> Tensor:
        def mean(cut: Tensor) -> Tensor:
            return network.encode(cut).latent_dist.mode()  # type: ignore[operator]

        return self._in_tiles(
            mean, (2 * x - 1).to(dtype_of(network)), 1, self.spec.spatial
        )

    @torch.no_grad()
    def _decode(self, network: nn.Module, latent: Tensor) -> Tensor:
        arguments = {
            key: self._fit(value, latent)
            for key, value in self.decode_arguments.items()
        }

        def video(cut: Tensor) -> Tensor:
            return network.decode(cut, **arguments, return_dict=False)[0]  # type: ignore[operator]

        return self._in_tiles(video, latent.to(dtype_of(network)), self.spec.spatial, 1)

    def _in_tiles(
        self, function: Callable[[Tensor], Tensor], x: Tensor, inputs: int, outputs: int
    ) -> Tensor:
        if self.tiles is None:
            return function(x)
        return tiled(
            function,
            x,
            self.tiles,
            grid=max(self.multiple[1], self.spec.spatial),
            inputs=inputs,
            outputs=outputs,
        )

    @torch.no_grad()
    def _predict(self, network: nn.Module, latent: Tensor, t: float) -> Tensor:
        z = latent.to(dtype_of(network))
        timestep = torch.full((len(z),), float(t), device=z.device)
        output = self.call(network, z, timestep, self.conditions(z, self.conditioning))
        if self.guidance != 1 and self.negative is not None:
            without = self.call(
                network, z, timestep, self.conditions(z, self.negative)
            ).to(torch.float32)
            output = without + self.guidance * (output - without)
        return output


def dtype_of(network: nn.Module) -> torch.dtype:
    r"""
    Precision that a network computes in.

    :param torch.nn.Module network: the network.
    :return: (torch.dtype) that of most of its parameters (some may be kept in single
        precision); float32 if it has none.
    """
    sizes: dict[torch.dtype, int] = {}
    for parameter in network.parameters():
        if parameter.is_floating_point():
            sizes[parameter.dtype] = sizes.get(parameter.dtype, 0) + parameter.numel()
    return max(sizes, key=lambda dtype: sizes[dtype], default=torch.float32)


def _multiple(network: nn.Module, spec: AutoencoderSpec) -> tuple[int, int, int]:
    """Sizes that pass through patches or resolutions without a remainder."""
    config = getattr(network, "config", {})
    patch = getattr(config, "patch_size", None)
    blocks = getattr(config, "block_out_channels", None)
    inner = 1
    if patch is not None:
        inner = patch if isinstance(patch, int) else patch[-1]
    elif blocks is not None:
        inner = 2 ** (len(blocks) - 1)
    return spec.temporal, spec.spatial * inner, spec.spatial * inner


def _unfold(pieces: list[Tensor], num_videos: int, per_frame: bool) -> Tensor:
    """The inverse of cutting a batch of videos into pieces."""
    if not per_frame:
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)
    frames = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
    return frames.unflatten(0, (num_videos, -1)).transpose(1, 2)


def _tiles_of(tiling: Tiles | str | None, per_frame: bool) -> Tiles | None:
    if tiling is None or isinstance(tiling, Tiles):
        return tiling
    if tiling != "auto":
        msg = f'`tiling` must be "auto", a Tiles or None; got {tiling!r}.'
        raise ValueError(msg)
    return Tiles(1536, 256) if per_frame else Tiles(768, 128)


def _channels_last(module: nn.Module) -> None:
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(
                memory_format=torch.channels_last
            )


def measure_pixel_scales(
    models: Iterable[ConsistencyModel | None], y: Tensor, physics: Physics, seed: int
) -> None:
    r"""
    Measure and keep the size of the latents' unit, which a calibrated schedule needs.

    :param models: models; those that are not of diffusers know theirs.
    :param torch.Tensor y: measurement, whose pseudo-inverse is disturbed.
    :param deepinv.physics.Physics physics: measurement operator.
    :param int seed: seed of the disturbance.
    """
    measured = [m for m in models if isinstance(m, DiffusersConsistencyModel)]
    if not measured:
        return
    start = physics.A_dagger(y).clamp(0, 1)
    for model in measured:
        rng = torch.Generator(start.device).manual_seed(seed)
        model.measure_pixel_scale(start, generator=rng)
