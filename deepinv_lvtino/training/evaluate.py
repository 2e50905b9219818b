r"""What a network is worth on footage that it has never seen, at fixed noise levels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from deepinv_lvtino.datasets.video import read_video
from deepinv_lvtino.models.tiny import TinyConsistencyModel
from deepinv_lvtino.models.tiny_network import TinyNetwork
from deepinv_lvtino.training.footage import find_footage
from deepinv_lvtino.training.losses import SIGMA_MIN, flow_step

LEVELS = (0.1, 0.2, 0.35, 0.5, 0.7)  # of rectified flow, s where a + s = 1
JUMP_LEVELS = (0.2, 0.5)
_FLOW_STEPS = 16


def held_out_pool(
    path: str | Path,
    folder: str | Path,
    num_frames: int = 9,
    size: tuple[int, int] = (160, 224),
    *,
    hold_out: Sequence[str] | None = None,
) -> Path:
    r"""
    Write one clip of every held-out scene of a folder, to measure on.

    The first frames, shrunk by up to 2, the middle of the picture.

    :param str, pathlib.Path path: file to write (``.npy``); uint8, shape
        ``(N, 3, T, H, W)``.
    :param str, pathlib.Path folder: footage.
    :param int num_frames: frames of each clip.
    :param tuple[int, int] size: height and width.
    :param Sequence[str] hold_out: patterns, see
        :func:`deepinv_lvtino.training.find_footage`.
    :return: (pathlib.Path) the file.
    :raises FileNotFoundError: if no clip is held out.
    :raises ValueError: if a clip is smaller or shorter.
    """
    _, measuring = find_footage(folder, hold_out)
    scenes = {one.scene: one for one in reversed(measuring) if not one.photo}
    if not scenes:
        msg = (
            f"`hold_out`: no clip of {folder} is held out for measuring. Name some by "
            "patterns, such as 'holiday/*'."
        )
        raise FileNotFoundError(msg)
    clips = [
        middle(read_video(scenes[name].path, num_frames).frames, size)
        for name in sorted(scenes)
    ]
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as file:
        np.save(file, (torch.stack(clips) * 255).round().byte().numpy())
    temporary.replace(path)
    return path


def middle(frames: Tensor, size: tuple[int, int], largest: float = 2.0) -> Tensor:
    r"""
    The middle of a clip, shrunk by up to ``largest``.

    :param torch.Tensor frames: clip, shape ``(3, T, H, W)``.
    :param tuple[int, int] size: height and width of the result.
    :param float largest: largest factor; smaller where the clip is too small for it.
    :return: (:class:`torch.Tensor`) clip, shape ``(3, T, h, w)``, in [0, 1].
    :raises ValueError: if the clip is smaller than ``size``.
    """
    height, width = frames.shape[-2:]
    scale = min(largest, height / size[0], width / size[1])
    if scale < 1:
        msg = f"`frames` must be at least {size[0]}x{size[1]}; got {height}x{width}."
        raise ValueError(msg)
    rows, columns = (
        min(round(scale * n), m) for n, m in zip(size, (height, width), strict=True)
    )
    i, j = (height - rows) // 2, (width - columns) // 2
    piece = frames[:, :, i : i + rows, j : j + columns].transpose(0, 1)
    small = F.interpolate(piece, size, mode="bicubic", antialias=True)
    return small.transpose(0, 1).clamp(0, 1)


def denoising_psnr(
    network: TinyNetwork,
    clips: np.ndarray,
    levels: Sequence[float] = LEVELS,
    seed: int = 0,
) -> dict[float, list[float]]:
    r"""
    PSNR of the denoiser's mean.

    :param TinyNetwork network: the network, on any device.
    :param numpy.ndarray clips: uint8, shape ``(N, 3, T, H, W)``.
    :param Sequence[float] levels: noise levels of rectified flow.
    :param int seed: seed of the noise, which is the same for every network.
    :return: (dict[float, list[float]]) for each level the PSNR of each clip, in dB.
    """
    device = next(network.parameters()).device
    denoiser = TinyConsistencyModel(network).as_denoiser()
    found: dict[float, list[float]] = {level: [] for level in levels}
    for clip in clips:
        x = torch.tensor(clip, device=device)[None].float() / 255
        rng = torch.Generator().manual_seed(seed)
        noise = torch.randn(x.shape, generator=rng).to(device)
        for level in levels:
            # half the relative level: clips span [0, 1] and latents [-1, 1]
            sigma = level / (1 - level) / 2
            with torch.no_grad():
                error = denoiser(x + sigma * noise, sigma).clamp(0, 1) - x
            found[level].append(-10 * math.log10(float(error.square().mean())))
    return found


def jump_error(
    network: TinyNetwork,
    clips: np.ndarray,
    levels: Sequence[float] = JUMP_LEVELS,
    seed: int = 0,
) -> dict[float, float]:
    r"""
    Distance of one jump from the end of the denoiser's own probability flow.

    :param TinyNetwork network: the network.
    :param numpy.ndarray clips: uint8, shape ``(N, 3, T, H, W)``.
    :param Sequence[float] levels: noise levels of rectified flow.
    :param int seed: seed of the noise.
    :return: (dict[float, float]) for each level the error relative to the end point, the
        flow being followed by 16 Heun steps on the middle 64×64 of each clip.
    """
    device = next(network.parameters()).device
    model = TinyConsistencyModel(network)
    i, j = (max((n - 64) // 2, 0) for n in clips.shape[-2:])
    piece = torch.tensor(clips[..., i : i + 64, j : j + 64], device=device)
    latent = model.encode(piece.float() / 255)
    rng = torch.Generator().manual_seed(seed)
    noise = torch.randn(latent.shape, generator=rng).to(device)
    found = {}
    for level in levels:
        sigma = torch.full((len(latent),), level / (1 - level), device=device)
        state = noisy = latent + sigma[0] * noise
        ratio = (SIGMA_MIN / float(sigma[0])) ** (1 / _FLOW_STEPS)
        now = sigma
        with torch.no_grad():
            for _ in range(_FLOW_STEPS):
                state = flow_step(network, state, now, now * ratio)
                now = now * ratio
            end = model.predict(state, float(now[0]), jump=False)
            jump = model.predict(noisy, float(sigma[0]), jump=True)
        found[level] = float((jump - end).norm() / end.norm())
    return found
