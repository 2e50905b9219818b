r"""The network of the embedded models: a residual U-Net, over frames or clips."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepinv_lvtino.utils import check_counts

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
