r"""The published problems as code with convolutions has them, to measure against."""

from __future__ import annotations

from typing import Any

import deepinv
import torch
import torch.nn.functional as F
from deepinv.physics import LinearPhysics
from torch import Tensor

from deepinv_lvtino.physics import PROBLEMS, FramewisePhysics


class ConvolutionalProblem(LinearPhysics):
    r"""
    Problem A or B by 2-D convolutions: one along time, DeepInverse's in space.

    :param str name: ``'A'`` (strided mean) or ``'B'`` (circular blur).
    :param tuple[int, int, int, int] img_size: video size ``(C, T, H, W)``.
    :param torch.device device: device.
    """

    def __init__(
        self, name: str, img_size: tuple[int, int, int, int], device: torch.device
    ):
        super().__init__(img_size=img_size)
        channels, self.frames, height, width = img_size
        self.name = name
        self.space = FramewisePhysics(
            deepinv.physics.Downsampling(
                img_size=(channels, height, width),
                filter="bicubic",
                factor=PROBLEMS[name].scale_factor,
                padding="reflect",
                device=device,
            )
        )
        length = {"A": 4, "B": 7}[name]
        kernel = torch.full((1, 1, length, 1), 1 / length, device=device)
        self.register_buffer("kernel", kernel)

    def A(self, x: Tensor, **kwargs: Any) -> Tensor:
        batch, channels, frames, height, width = x.shape
        columns = x.reshape(batch * channels, 1, frames, height * width)
        if self.name == "B":
            columns = F.pad(columns, (0, 0, 3, 3), mode="circular")
            slow = F.conv2d(columns, self.kernel)
        else:
            columns = F.pad(columns, (0, 0, 0, -frames % 4), mode="replicate")
            slow = F.conv2d(columns, self.kernel, stride=(4, 1))
        return self.space.A(slow.reshape(batch, channels, -1, height, width))

    def A_adjoint(self, y: Tensor, **kwargs: Any) -> Tensor:
        slow = self.space.A_adjoint(y)
        batch, channels, frames, height, width = slow.shape
        columns = slow.reshape(batch * channels, 1, frames, height * width)
        if self.name == "B":
            columns = F.pad(columns, (0, 0, 3, 3), mode="circular")
            fast = F.conv2d(columns, self.kernel)  # a symmetric kernel
        else:
            fast = F.conv_transpose2d(columns, self.kernel, stride=(4, 1))
            fast[:, :, self.frames - 1] = fast[:, :, self.frames - 1 :].sum(2)
            fast = fast[:, :, : self.frames]
        return fast.reshape(batch, channels, -1, height, width)
