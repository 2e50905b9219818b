r"""Named operators against DeepInverse's image operators and ordinary resizers."""

from __future__ import annotations

import deepinv
import numpy as np
import pytest
import torch
from deepinv.physics.functional import gaussian_blur
from PIL import Image

from deepinv_lvtino.physics import (
    FramewisePhysics,
    TemporalBlur,
    TemporalDecimation,
    TemporalPooling,
    VideoBlur,
    VideoDownsampling,
)
from deepinv_lvtino.physics.functional import separate_kernel
from helpers import rand

FILTERS = ("bicubic", "bilinear", "gaussian", "sinc")
PADDINGS = ("reflect", "circular", "replicate", "constant", "valid")


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("factor", [2, 3, 4, 8])
@pytest.mark.parametrize("name", FILTERS)
def test_downsampling_equals_deepinv(name, factor, padding):
    channels, frames, height, width = 2, 2, 11 * factor + 1, 9 * factor
    x = rand(2, channels, frames, height, width, dtype=torch.float32)
    image_physics = deepinv.physics.Downsampling(
        img_size=(channels, height, width), filter=name, factor=factor, padding=padding
    )
    physics = VideoDownsampling(x.shape[1:], factor, filter=name, padding=padding)
    expected = FramewisePhysics(image_physics).A(x)
    torch.testing.assert_close(physics.A(x), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("padding", ["reflect", "circular", "valid"])
@pytest.mark.parametrize("shape", [(5, 4), (4, 7)])
def test_downsampling_by_own_kernel_equals_deepinv(shape, padding):
    kernel = torch.outer(rand(shape[0]), rand(shape[1], seed=1)).float()
    x = rand(1, 3, 2, 24, 18, dtype=torch.float32)
    image_physics = deepinv.physics.Downsampling(
        img_size=(3, 24, 18), filter=kernel[None, None], factor=3, padding=padding
    )
    physics = VideoDownsampling(x.shape[1:], 3, filter=kernel, padding=padding)
    expected = FramewisePhysics(image_physics).A(x)
    torch.testing.assert_close(physics.A(x), expected, atol=1e-5, rtol=0)


def smooth_video(height, width):
    row = torch.linspace(0, 3, height)[:, None]
    column = torch.linspace(0, 4, width)[None, :]
    frame = 0.5 + 0.25 * torch.sin(row + column) + 0.2 * torch.cos(2 * row - column)
    return frame.expand(1, 3, 2, height, width).contiguous()


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_centre_grid_is_that_of_a_resizer(factor):
    height, width = 12 * factor, 10 * factor
    x = smooth_video(height, width) + 0.05 * rand(
        1, 3, 2, height, width, dtype=torch.float32
    )
    y = VideoDownsampling(x.shape[1:], factor, alignment="center").A(x)
    size = (width // factor, height // factor)
    for c in range(3):
        image = Image.fromarray(x[0, c, 0].numpy())
        resized = torch.from_numpy(np.asarray(image.resize(size, Image.BICUBIC)).copy())
        inside = (slice(2, -2), slice(2, -2))  # the borders' rules differ
        torch.testing.assert_close(
            y[0, c, 0][inside], resized[inside], atol=2e-5, rtol=0
        )
        assert (y[0, c, 0] - resized).abs().max() < 0.02
    other = VideoDownsampling(x.shape[1:], factor).A(x)
    if factor > 2:
        assert (other - y).abs().max() > 0.02  # the published grid is another one


@pytest.mark.parametrize("factor", [2, 3, 8])
def test_grids_sample_where_they_say(factor):
    width = 16 * factor
    ramp = torch.arange(width, dtype=torch.float64).expand(1, 1, 1, width, width)
    for alignment, first in (
        ("deepinv", 0.5),
        ("deepinv-0.3", -0.5),
        ("center", (factor - 1) / 2),
    ):
        physics = VideoDownsampling(
            ramp.shape[1:], factor, alignment=alignment, dtype=torch.float64
        )
        y = physics.A(ramp.contiguous())[0, 0, 0, 4, 4:-4]
        expected = first + factor * torch.arange(16, dtype=torch.float64)[4:-4]
        torch.testing.assert_close(y, expected)


NUMPY_PADDING = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def early_downsampling(image, kernel, factor, padding):
    r"""What DeepInverse did until 0.3.5: ``K // 2`` before, the rest after."""
    (height, width), size = kernel.shape, image.shape
    if padding != "valid":
        margins = [(n // 2, n // 2 - (n - 1) % 2) for n in kernel.shape]
        image = np.pad(image, margins, mode=NUMPY_PADDING.get(padding, padding))
    windows = np.lib.stride_tricks.sliding_window_view(image, (height, width))
    everywhere = np.einsum("ijkl,kl->ij", windows, kernel[::-1, ::-1])
    if padding != "valid":
        assert everywhere.shape == size
    return everywhere[::factor, ::factor]


@pytest.mark.parametrize(
    "padding", ["reflect", "circular", "replicate", "constant", "valid"]
)
@pytest.mark.parametrize("lengths", [(4, 8), (5, 6), (3, 7), "bicubic", "gaussian"])
def test_grid_of_early_versions_of_deepinverse(lengths, padding):
    factor = 2
    if isinstance(lengths, str):  # as Downsampling makes them
        filters = deepinv.physics.functional
        kernel = (
            filters.bicubic_filter(factor)
            if lengths == "bicubic"
            else filters.gaussian_blur(sigma=(factor, factor))
        )
        kernel, filter = kernel[0, 0].double(), lengths
    else:  # not symmetric
        taps = [rand(n, seed=n) for n in lengths]
        kernel = filter = torch.outer(*taps)
    x = rand(1, 1, 1, 24, 30)
    physics = VideoDownsampling(
        x.shape[1:],
        factor,
        filter,
        padding,
        alignment="deepinv-0.3",
        dtype=torch.float64,
    )
    y = physics.A(x)[0, 0, 0].numpy()
    expected = early_downsampling(x[0, 0, 0].numpy(), kernel.numpy(), factor, padding)
    np.testing.assert_allclose(y, expected, atol=1e-6)
    now = VideoDownsampling(x.shape[1:], factor, filter, padding, dtype=torch.float64)
    even = any(n % 2 == 0 for n in kernel.shape)
    same = padding == "valid" or not even
    assert np.allclose(now.A(x)[0, 0, 0].numpy(), y, atol=1e-6) == same


@pytest.mark.parametrize("padding", ["reflect", "circular", "replicate", "constant"])
@pytest.mark.parametrize("length", [2, 4, 5])
def test_temporal_blur_equals_a_convolution(length, padding):
    taps = rand(length, dtype=torch.float32)
    x = rand(2, 3, 6, 2, 4, dtype=torch.float32)
    physics = TemporalBlur(x.shape[1:], kernel=taps, padding=padding)
    expected = deepinv.physics.functional.conv2d(
        x.permute(0, 1, 3, 2, 4).reshape(-1, 1, 6, 4),
        taps.view(1, 1, -1, 1),
        padding=padding,
    )
    expected = expected.reshape(2, 3, 2, 6, 4).permute(0, 1, 3, 2, 4)
    torch.testing.assert_close(physics.A(x), expected, atol=1e-5, rtol=0)


def test_gaussian_kernel_by_hand():
    x = torch.zeros(1, 1, 9, 1, 1, dtype=torch.float64)
    x[0, 0, 4] = 1
    y = TemporalBlur((1, 9, 1, 1), 6, kernel="gaussian", dtype=torch.float64).A(x)
    offset = torch.arange(6, dtype=torch.float64) - 2.5
    weights = torch.exp(-0.5 * offset**2)  # a deviation of one frame
    torch.testing.assert_close(y.flatten()[1:7], weights / weights.sum())


def test_circular_blur_by_hand():
    x = torch.zeros(1, 1, 25, 1, 1)
    x[0, 0, 0] = 7
    y = TemporalBlur((1, 25, 1, 1)).A(x).flatten()
    expected = torch.zeros(25)
    expected[[-3, -2, -1, 0, 1, 2, 3]] = 1
    torch.testing.assert_close(y, expected, atol=1e-6, rtol=0)


def test_pooling_by_hand():
    x = torch.arange(1.0, 8).view(1, 1, 7, 1, 1)
    replicate = TemporalPooling((1, 7, 1, 1), 4).A(x).flatten()
    torch.testing.assert_close(replicate, torch.tensor([2.5, (5 + 6 + 7 + 7) / 4]))
    drop = TemporalPooling((1, 7, 1, 1), 4, tail="drop").A(x).flatten()
    torch.testing.assert_close(drop, torch.tensor([2.5]))
    kept = TemporalDecimation((1, 7, 1, 1), 3, offset=2).A(x).flatten()
    torch.testing.assert_close(kept, torch.tensor([3.0, 6.0]))


@pytest.mark.parametrize("padding", ["reflect", "circular", "replicate", "valid"])
def test_video_blur_equals_deepinv(padding):
    kernel = gaussian_blur(sigma=(1.0, 2.0))
    x = rand(2, 3, 2, 20, 24, dtype=torch.float32)
    physics = VideoBlur(x.shape[1:], kernel, padding)
    expected = FramewisePhysics(deepinv.physics.Blur(filter=kernel, padding=padding)).A(
        x
    )
    torch.testing.assert_close(physics.A(x), expected, atol=1e-5, rtol=0)


def test_separate_kernel():
    vertical, horizontal = rand(5), rand(4, seed=1)
    v, h = separate_kernel(torch.outer(vertical, horizontal))
    torch.testing.assert_close(torch.outer(v, h), torch.outer(vertical, horizontal))
    torch.testing.assert_close(v.sum(), h.sum())


SIZE = (3, 4, 16, 24)
ROTATED = gaussian_blur(sigma=(2.0, 0.5), angle=45.0)
WRONG = {
    "padding": (lambda: TemporalBlur(SIZE, padding="mirror"), "`padding` must be one"),
    "valid in time": (lambda: TemporalBlur(SIZE, padding="valid"), "`padding`"),
    "kernel": (lambda: TemporalBlur(SIZE, kernel="box"), "`kernel` must be one of"),
    "kernel size": (lambda: TemporalBlur(SIZE, 0), "`kernel_size`"),
    "kernel shape": (lambda: TemporalBlur(SIZE, kernel=torch.ones(2, 2)), r"\(K,\)"),
    "tail": (lambda: TemporalPooling(SIZE, 2, tail="cut"), "`tail` must be one of"),
    "nothing left": (lambda: TemporalPooling(SIZE, 5, tail="drop"), "leaves none"),
    "factor": (lambda: VideoDownsampling(SIZE, 0), "`factor` must be a positive"),
    "offset": (lambda: TemporalDecimation(SIZE, 2, offset=4), "`offset` must lie"),
    "filter": (lambda: VideoDownsampling(SIZE, 2, filter="box"), "`filter` must be"),
    "alignment": (lambda: VideoDownsampling(SIZE, 2, alignment="left"), "`alignment`"),
    "not separable": (lambda: VideoBlur(SIZE, ROTATED), "FramewisePhysics"),
    "per channel": (
        lambda: VideoBlur(SIZE, torch.ones(1, 3, 2, 2)),
        "FramewisePhysics",
    ),
    "too long": (
        lambda: VideoDownsampling(SIZE, 8, padding="valid"),
        "at least 32",
    ),
    "centre, not a divisor": (
        lambda: VideoDownsampling(SIZE, 5, alignment="center"),
        "15 or 20",
    ),
    "centre, valid": (
        lambda: VideoDownsampling(SIZE, 2, alignment="center", padding="valid"),
        "deepinv",
    ),
    "centre, parity": (
        lambda: VideoDownsampling(SIZE, 2, filter=torch.ones(3, 3), alignment="center"),
        "even length",
    ),
    "blur pair": (lambda: VideoBlur(SIZE, (torch.ones(2), torch.ones(2, 2))), "pair"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments(case):
    build, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        build()


def test_factor_that_does_not_divide_follows_deepinv():
    assert VideoDownsampling((1, 1, 17, 9), 4).measurement_size == (1, 1, 5, 3)
