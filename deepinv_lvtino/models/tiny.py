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

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from deepinv.models import Denoiser
from torch import Tensor, nn

from deepinv_lvtino._schema import (
    SchemaError,
    boolean,
    integer,
    listing,
    parse,
    record,
)
from deepinv_lvtino._staging import Stage
from deepinv_lvtino.models._checkpoints import check_names
from deepinv_lvtino.models.consistency import ConsistencyModel
from deepinv_lvtino.models.noise_schedules import (
    NoiseSchedule,
    RectifiedFlow,
    VariancePreserving,
)
from deepinv_lvtino.utils import check_counts

# what a file may say: more would be no tiny network
_SIZES = listing(integer(1, 4096), 8, shortest=1)
_CONFIG = record(
    {
        "channels": _SIZES,
        "blocks": listing(integer(1, 64), 8, shortest=1),
        "embedding": integer(1, 65536),
        "temporal": boolean,
    }
)

SIGMA_DATA = 0.5  # standard deviation of clean latents, in [-1, 1]
_FREQUENCIES = 16

#: Values of a layer that are computed at a time where no gradients are asked for.
PIECE = 2**22


@dataclass(frozen=True)
class TinyConfig:
    r"""
    Size of a :class:`TinyNetwork`.

    :param tuple[int, ...] channels: channels at each resolution, the finest first; the
        finest works on space-to-depth ×2, each next one at half the resolution.
    :param tuple[int, ...] blocks: residual blocks at each resolution, in the descent and
        again in the ascent; the coarsest has its number once.
    :param int embedding: width of the embedding of the noise level.
    :param bool temporal: whether blocks mix neighbouring frames.
    """

    channels: tuple[int, ...] = (48, 112, 160)
    blocks: tuple[int, ...] = (1, 2, 3)
    embedding: int = 64
    temporal: bool = True

    def __post_init__(self) -> None:
        for name in ("channels", "blocks"):
            sizes = getattr(self, name)
            if not isinstance(sizes, (tuple, list)):
                msg = (
                    f"`{name}` must be a tuple of integers, one for each resolution; got "
                    f"{sizes!r}."
                )
                raise TypeError(msg)
            for size in sizes:
                check_counts(**{name: size})
        check_counts(embedding=self.embedding)
        if len(self.channels) != len(self.blocks) or not self.channels:
            msg = (
                "`channels` and `blocks` must name the same number of resolutions; got "
                f"{self.channels} and {self.blocks}."
            )
            raise ValueError(msg)

    @property
    def multiple(self) -> int:
        """Heights and widths in pixels are multiples of this."""
        return int(2 ** len(self.channels))


class _Convolution(nn.Module):
    """Convolution, its kernel kept as a matrix (what the optimiser Muon works on)."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: tuple[int, int] = (3, 3),
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.kernel = kernel
        fan_in = inputs * math.prod(self.kernel)
        self.weight = nn.Parameter(torch.randn(outputs, fan_in) * gain / fan_in**0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        outputs = len(self.bias)
        # rows hold (kernel, inputs), inputs last: the channels-last memory format
        weight = self.weight.unflatten(1, (*self.kernel, -1)).movedim(-1, 1)
        padding = [size // 2 for size in self.kernel]
        kernel = weight.reshape(outputs, -1, *self.kernel)
        return F.conv2d(x, kernel, self.bias, 1, padding)


class _TemporalConvolution(_Convolution):
    """Convolution along time of frames that are folded into the batch."""

    def __init__(self, inputs: int, outputs: int, gain: float = 1.0) -> None:
        super().__init__(inputs, outputs, (3, 1), gain)

    def forward(self, x: Tensor, num_frames: int) -> Tensor:  # type: ignore[override]
        # a picture whose rows are the frames and whose columns are their pixels: the same
        # numbers as a 3-D convolution, several times faster, and channels stay last
        height, width = x.shape[-2:]
        rows = x.permute(0, 2, 3, 1).reshape(-1, num_frames, height * width, x.shape[1])
        mixed = super().forward(rows.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return mixed.reshape(-1, height, width, mixed.shape[-1]).permute(0, 3, 1, 2)


class _Block(nn.Module):
    """Residual block: two spatial convolutions, one along time between them."""

    def __init__(self, channels: int, embedding: int, temporal: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, elementwise_affine=False)
        self.modulation = nn.Linear(embedding, 2 * channels)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        self.first = _Convolution(channels, channels)
        self.temporal = (
            _TemporalConvolution(channels, channels, gain=0.0) if temporal else None
        )
        self.second = _Convolution(channels, channels, gain=0.0)

    def forward(self, x: Tensor, embedding: Tensor, num_frames: int) -> Tensor:
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, dim=1)
        hidden = _by_frames(self._enter, x, scale, shift)
        if self.temporal is not None:
            hidden = self._mix(self.temporal, hidden, num_frames)
        return _by_frames(lambda a, b: a + self.second(b), x, hidden)

    def _enter(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        hidden = _normalise(self.norm, x) * (1 + scale) + shift
        return F.silu(self.first(F.silu(hidden)))

    def _mix(
        self, temporal: _TemporalConvolution, hidden: Tensor, num_frames: int
    ) -> Tensor:
        step = _share(hidden, hidden.shape[2])
        if step == hidden.shape[2]:
            return hidden + F.silu(temporal(hidden, num_frames))
        for rows in hidden.split(step, dim=2):
            rows += F.silu(temporal(rows, num_frames))
        return hidden


def _share(x: Tensor, parts: int) -> int:
    """How many of so many equal parts to compute at a time; all where gradients count."""
    if torch.is_grad_enabled():
        return parts
    return max(1, min(parts, PIECE * parts // max(x.numel(), 1)))


def _by_frames(function: Callable[..., Tensor], *frames: Tensor) -> Tensor:
    r"""
    A function of frames, applied to a few at a time.

    What is computed on the way then stays in the processor's cache, and the memory of the
    last frames is used again for the next ones.
    """
    step = _share(frames[0], len(frames[0]))
    if step == len(frames[0]):
        return function(*frames)
    pieces = zip(*(each.split(step) for each in frames), strict=True)
    first = function(*next(pieces))
    output = torch.empty(
        (len(frames[0]), *first.shape[1:]),
        dtype=first.dtype,
        device=first.device,
        memory_format=torch.channels_last,
    )
    output[:step] = first
    for index, piece in enumerate(pieces, 1):
        output[index * step : (index + 1) * step] = function(*piece)
    return output


def fast_dtype(device: torch.device) -> torch.dtype:
    r"""
    The dtype in which convolutions are fastest without loss that matters.

    :param torch.device device: where they run.
    :return: (torch.dtype) bfloat16 where the hardware computes in it, else float32.
    """
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)
    elif device.type == "cpu" and torch.backends.mkldnn.is_available():
        native = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    else:
        native = False
    return torch.bfloat16 if native else torch.float32


def _normalise(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """Layer normalisation over the channels of ``(N, C, H, W)``."""
    return norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _Stage(nn.ModuleList):
    """Blocks at one resolution."""

    def forward(self, x: Tensor, embedding: Tensor, num_frames: int) -> Tensor:
        for block in self:
            x = block(x, embedding, num_frames)
        return x


class TinyNetwork(nn.Module):
    r"""
    Residual U-Net over clips, convolutional in space and time, aware of the noise level.

    Works on the space-to-depth latent ``(B, 12, T, h, w)``; ``h`` and ``w`` are multiples
    of ``config.multiple / 2``, ``T`` is free. Inside, frames are folded into the batch;
    only the temporal convolutions see their neighbours.

    :param TinyConfig config: sizes.
    """

    def __init__(self, config: TinyConfig | None = None) -> None:
        super().__init__()
        config = config or TinyConfig()
        self.config = config
        channels, blocks, width = config.channels, config.blocks, config.embedding
        self.frequencies: Tensor
        self.register_buffer(
            "frequencies", 2 ** torch.linspace(-2, 3, _FREQUENCIES), persistent=False
        )
        self.embed = nn.Sequential(
            nn.Linear(2 * _FREQUENCIES + 1, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
        )

        def stage(level: int) -> _Stage:
            size = channels[level]
            return _Stage(
                _Block(size, width, config.temporal) for _ in range(blocks[level])
            )

        levels = range(len(channels) - 1)
        self.enter = _Convolution(12, channels[0])
        self.descent = nn.ModuleList(stage(level) for level in levels)
        self.down = nn.ModuleList(
            _Convolution(4 * channels[level], channels[level + 1], (1, 1))
            for level in levels
        )
        self.middle = stage(len(channels) - 1)
        self.up = nn.ModuleList(
            _Convolution(channels[level + 1], 4 * channels[level], (1, 1))
            for level in levels
        )
        self.ascent = nn.ModuleList(stage(level) for level in levels)
        self.norm = nn.LayerNorm(channels[0], elementwise_affine=False)
        self.leave = _Convolution(channels[0], 12, gain=0.0)

    def forward(self, latent: Tensor, log_sigma: Tensor, jump: Tensor) -> Tensor:
        r"""
        Raw output of the network, before the preconditioning.

        :param torch.Tensor latent: scaled noisy latent, shape ``(B, 12, T, h, w)``.
        :param torch.Tensor log_sigma: logarithm of the relative noise level, shape
            ``(B,)``.
        :param torch.Tensor jump: 0 for the denoiser, 1 for the jump, shape ``(B,)``.
        :return: (:class:`torch.Tensor`) tensor of the shape of ``latent``.
        """
        batch, _, num_frames = latent.shape[:3]
        angles = log_sigma[:, None] * self.frequencies
        features = torch.cat([angles.sin(), angles.cos(), jump[:, None]], dim=1)
        embedding = self.embed(features).repeat_interleave(num_frames, dim=0)

        x = latent.transpose(1, 2).flatten(0, 1)
        x = _by_frames(self.enter, x.contiguous(memory_format=torch.channels_last))
        skips = []
        for stage, down in zip(self.descent, self.down, strict=True):
            x = stage(x, embedding, num_frames)
            skips.append(x)
            x = _by_frames(lambda a, down=down: down(F.pixel_unshuffle(a, 2)), x)
        x = self.middle(x, embedding, num_frames)
        ways = zip(reversed(self.up), reversed(self.ascent), strict=True)
        for up, stage in ways:
            x = _by_frames(
                lambda a, skip, up=up: F.pixel_shuffle(up(a), 2) + skip, x, skips.pop()
            )
            x = stage(x, embedding, num_frames)
        x = _by_frames(lambda a: self.leave(F.silu(_normalise(self.norm, a))), x)
        return x.unflatten(0, (batch, num_frames)).transpose(1, 2)


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


def load_tiny(path: str | Path, **kwargs: Any) -> TinyConsistencyModel:
    r"""
    Load a model from a safetensors file written by :func:`save_tiny`.

    :param str, pathlib.Path path: the file; its metadata holds the sizes.
    :param kwargs: further arguments of :class:`TinyConsistencyModel`.
    :return: (TinyConsistencyModel) the model, in evaluation mode, weights in float32.
    :raises ValueError: if the file was not written by :func:`save_tiny`, or is damaged.
    """
    from safetensors import SafetensorError, safe_open

    name = Path(path).name
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if "tiny_config" not in metadata:
                msg = (
                    f"`path` must be a file written by `save_tiny`; {name} has no "
                    "`tiny_config` in its metadata."
                )
                raise ValueError(msg)
            config = read_config(f"`path`: {name}", parse_config(metadata, name))
            state = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        msg = (
            f"`path` must be a file written by `save_tiny`; {name} is not a safetensors "
            f"file ({error}). It may be incomplete: save or copy it again."
        )
        raise ValueError(msg) from error
    network = filled_network(config, state, source=path)
    model = TinyConsistencyModel(network, **kwargs)
    return model.eval().requires_grad_(False)


def parse_config(metadata: dict[str, str], name: str) -> Any:
    r"""
    The sizes that a file's metadata hold, not yet checked.

    :param dict metadata: the metadata.
    :param str name: name of the file, for the message.
    :return: what ``tiny_config`` says.
    :raises ValueError: if it is not JSON.
    """
    try:
        return parse(metadata["tiny_config"])
    except SchemaError as error:
        msg = f"`path`: `tiny_config` of {name} cannot be read: {error}"
        raise ValueError(msg) from error


def read_config(source: str, config: Any) -> TinyConfig:
    r"""
    Sizes that a file holds, checked before anything of that size is built.

    :param str source: where they are from, for the message.
    :param dict config: the sizes.
    :return: (:class:`TinyConfig`) the same.
    :raises ValueError: if one is missing, of another type or too large.
    """
    try:
        _CONFIG("tiny_config", config)
    except SchemaError as error:
        msg = f"{source}: {error} Save the model again with `save_tiny`."
        raise ValueError(msg) from error
    return TinyConfig(
        channels=tuple(config["channels"]),
        blocks=tuple(config["blocks"]),
        embedding=config["embedding"],
        temporal=config["temporal"],
    )


def filled_network(
    config: TinyConfig, state: dict[str, Tensor], *, source: str | Path
) -> TinyNetwork:
    r"""
    A network with given weights; none is built before it is known that they fit.

    :param TinyConfig config: sizes.
    :param dict[str, torch.Tensor] state: weights by name.
    :param str, pathlib.Path source: where they are from, for the message.
    :return: (:class:`TinyNetwork`) the network.
    :raises ValueError: if names or shapes differ; the message lists them.
    """
    with torch.device("meta"):
        check_names(TinyNetwork(config), state, source)
    network = TinyNetwork(config)
    network.load_state_dict(state)
    return network


def save_tiny(
    network: TinyNetwork, path: str | Path, metadata: dict[str, str] | None = None
) -> None:
    r"""
    Save a network for :func:`load_tiny`, in float16.

    :param TinyNetwork network: the network.
    :param str, pathlib.Path path: safetensors file to write; replaced at once when the
        writing has succeeded.
    :param dict metadata: further text to store (how it was trained).
    """
    from safetensors.torch import save_file

    path = Path(path)
    state = {
        key: value.detach().cpu().half().contiguous()
        for key, value in network.state_dict().items()
    }
    text = {"tiny_config": json.dumps(asdict(network.config)), **(metadata or {})}
    with Stage([path]) as stage:
        save_file(state, stage.path(path), metadata=text)
        stage.commit()


def tiny_video(**kwargs: Any) -> TinyConsistencyModel:
    r"""
    The embedded video model: the default video prior of :class:`deepinv_lvtino.LVTINO`.

    Rectified-flow time, 25 frames of 192×320 in about a second on two cores. Trained on
    procedural clips only; see the model card in the user guide.

    :param kwargs: arguments of :class:`TinyConsistencyModel` (``schedule``,
        ``precision``).
    :return: (TinyConsistencyModel) the model.
    """
    return _embedded("tiny_video.safetensors", kwargs)


def tiny_image(**kwargs: Any) -> TinyConsistencyModel:
    r"""
    The embedded image model: the default image prior of :class:`deepinv_lvtino.LVTINO`.

    Variance-preserving time, frame by frame. Trained on procedural clips only; see the
    model card in the user guide.

    :param kwargs: arguments of :class:`TinyConsistencyModel` (``schedule``,
        ``precision``).
    :return: (TinyConsistencyModel) the model.
    """
    return _embedded("tiny_image.safetensors", kwargs)


def _embedded(name: str, kwargs: dict[str, Any]) -> TinyConsistencyModel:
    with as_file(files("deepinv_lvtino") / "models" / "weights" / name) as path:
        return load_tiny(path, **kwargs)
