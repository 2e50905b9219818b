r"""Noise and blur as a measurement tells them."""

from __future__ import annotations

import pytest
import torch
from deepinv.physics.functional import gaussian_blur
from PIL import Image

from deepinv_lvtino.cli import main
from deepinv_lvtino.datasets import procedural_clip, write_video
from deepinv_lvtino.estimate import estimate_blur, estimate_noise
from deepinv_lvtino.physics import VideoBlur, VideoDownsampling


def noise(like, sigma):
    return sigma * torch.randn(like.shape, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def clip():
    return procedural_clip(9, 144, 192, seed=5)[None]


@pytest.mark.parametrize("sigma", [0.01, 0.03, 0.1])
@pytest.mark.parametrize("operator", ["none", "blur", "smaller"])
def test_noise_is_found(sigma, operator, clip):
    size = tuple(clip.shape[1:])
    y = clip
    if operator == "blur":
        kernel = gaussian_blur(sigma=(1.5, 1.5))
        y = VideoBlur(size, kernel, "reflect").A(y)
    if operator == "smaller":
        y = VideoDownsampling(size, 2).A(y)
    assert estimate_noise(y + noise(y, sigma)) == pytest.approx(sigma, rel=0.15)


@pytest.mark.parametrize("shape", [(1, 3, 1, 8, 8), (1, 1, 2, 5, 40), (2, 3, 5, 9, 9)])
def test_small_videos_have_noise_too(shape):
    y = 0.5 + noise(torch.empty(shape), 0.1)
    assert estimate_noise(y) == pytest.approx(0.1, rel=0.5)


@pytest.mark.parametrize("width", [1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("sigma", [0.002, 0.01])
def test_width_of_a_blur_is_found(width, sigma, clip):
    kernel = gaussian_blur(sigma=(width, width))
    y = VideoBlur(tuple(clip.shape[1:]), kernel, "reflect").A(clip)
    found = estimate_blur(y + noise(y, sigma))
    assert found.width == pytest.approx(width, rel=0.1)
    assert abs(found.width - width) < 3 * found.uncertainty
    assert found.gain > 0.2


def test_a_sharp_video_has_no_blur(clip):
    found = estimate_blur(clip + noise(clip, 0.01))
    assert found.width < 0.5
    assert found.gain < 0.2


def test_what_is_too_small_is_refused():
    with pytest.raises(ValueError, match="32x32 pixels"):
        estimate_blur(torch.rand(1, 3, 4, 24, 64))
    with pytest.raises(ValueError, match="4x4 pixels"):
        estimate_noise(torch.rand(1, 3, 4, 3, 64))


def test_the_command_says_both(tmp_path, capsys, clip):
    kernel = gaussian_blur(sigma=(2.0, 2.0))
    y = VideoBlur(tuple(clip.shape[1:]), kernel, "reflect").A(clip)
    path = write_video(tmp_path / "y.mkv", y[0] + noise(y[0], 0.01), 24, lossless=True)
    assert main(["estimate", str(path)]) == 0
    said = capsys.readouterr().out
    assert "noise  sigma 0.01" in said
    assert '--operator "blur=2' in said or '--operator "blur=1.9' in said
    sharp = write_video(tmp_path / "s.mkv", clip[0], 24, lossless=True)
    assert main(["estimate", str(sharp)]) == 0
    assert "there may be none" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".mp4", ""])
@pytest.mark.parametrize("sigma", [0.02, 0.05])
def test_noise_of_files_with_coarse_colour_is_that_of_the_brightness(
    tmp_path, capsys, clip, sigma, suffix
):
    """What was added to the brightness alone, as a compressed file has it."""
    noisy = (0.1 + 0.8 * clip[0]) + noise(clip[0, :1], sigma)
    path = tmp_path / f"y{suffix}"
    if suffix:
        write_video(path, noisy, 24, crf=1)
    else:
        path.mkdir()
        for number, frame in enumerate(noisy.unbind(1)):
            image = (frame.clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
            Image.fromarray(image.numpy()).save(
                path / f"{number}.jpg", quality=100, subsampling=2
            )
    assert main(["estimate", str(path)]) == 0
    said = capsys.readouterr().out
    assert "of the brightness" in said
    assert float(said.split("sigma ")[1].split(",")[0]) == pytest.approx(sigma, rel=0.2)
