r"""Variable rates, high dynamic range, colour profiles and more than 8 bit."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from deepinv_lvtino.cli import main
from deepinv_lvtino.datasets import procedural_clip, read_video, write_video
from deepinv_lvtino.datasets._colour import to_standard_range
from helpers import psnr

H, W = 16, 24


def at_times(path: Path, times: list[int]) -> Path:
    """Grey frames, each as bright as its number, at times in milliseconds."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("ffv1", rate=1000)
        stream.width, stream.height, stream.pix_fmt = W, H, "bgr0"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, time in enumerate(times):
            image = np.full((H, W, 3), 10 * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format="bgr0")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def numbers(clip) -> list[int]:
    return (clip.frames[0, :, 0, 0] * 25.5).round().int().tolist()


def test_a_variable_rate_is_resampled_when_asked(tmp_path, capsys):
    # 25 Hz; frame 3 is shown for three periods, and frames 6 and 7 within one
    times = [0, 40, 80, 120, 240, 280, 320, 335, 360, 400]
    path = at_times(tmp_path / "v.mkv", times)
    with pytest.raises(ValueError, match="variable frame rate.*constant_rate=True"):
        read_video(path)
    clip = read_video(path, constant_rate=True)
    assert clip.fps == 25
    assert numbers(clip) == [0, 1, 2, 3, 3, 3, 4, 5, 7, 8, 9]
    assert clip.notes[1:] == (
        "1 frames are repeated: 3",
        "1 frames are left out: 6",
    )
    part = read_video(path, 4, 2, constant_rate=True)
    assert numbers(part) == [2, 3, 3, 3]
    even = at_times(tmp_path / "e.mkv", [0, 40, 80, 120])
    same = read_video(even, constant_rate=True)
    assert numbers(same) == [0, 1, 2, 3]
    assert same.notes == ()
    output = str(tmp_path / "y.mkv")
    command = ["degrade", str(path), "-o", output, "--problem", "sr4"]
    assert main([*command, "--device", "cpu"]) == 2
    assert "--rate constant" in capsys.readouterr().err
    assert main([*command, "--device", "cpu", "--rate", "constant"]) == 0
    assert "frames are left out: 6" in capsys.readouterr().out
    assert read_video(output).frames.shape[1] == 11


def pq(light):
    """Signal of light in cd/m², SMPTE ST 2084, the other way round."""
    m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
    power = (light / 10000) ** m1
    return ((c1 + c2 * power) / (1 + c3 * power)) ** m2


def hlg(scene):
    """Signal of scene light in [0, 1], ARIB STD-B67."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    low = np.sqrt(3 * scene)
    return np.where(
        scene <= 1 / 12, low, a * np.log(np.maximum(12 * scene - b, 1e-9)) + c
    )


def test_high_dynamic_range_keeps_what_a_display_can_show():
    light = np.array([0.0, 1.0, 20.0, 50.75, 101.5, 203.0, 500.0, 1000.0, 4000.0])
    grey = np.repeat(light[:, None], 3, axis=1)
    shown = to_standard_range(pq(grey), "PQ", 9)[:, 1]
    # up to half of white as it is, on a display of gamma 2.4
    expected = (light[:5] / 203) ** (1 / 2.4)
    np.testing.assert_allclose(shown[:5], expected, atol=2e-3)
    assert np.all(np.diff(shown[:8]) > 0)
    np.testing.assert_allclose(shown[7:], 1, atol=1e-5)
    assert 0.8 < shown[5] < 0.95
    # the light of a display of 1000 cd/m² is that of the scene to the power of 1.2
    scene = np.array([0.01, 0.05, 0.2, 1.0])
    grey = np.repeat(scene[:, None], 3, axis=1)
    one = to_standard_range(hlg(grey), "HLG", 9)
    other = to_standard_range(pq(1000 * grey**1.2), "PQ", 9)
    np.testing.assert_allclose(one, other, atol=2e-3)
    # a colour of BT.709 keeps its ratios
    rgb = np.array([[60.0, 30.0, 10.0]])
    matrix = np.array(
        [
            [0.627404, 0.329283, 0.043313],
            [0.069097, 0.919540, 0.011362],
            [0.016391, 0.088013, 0.895595],
        ]
    )
    shown = to_standard_range(pq(rgb @ matrix.T), "PQ", 9)
    np.testing.assert_allclose(shown, (rgb / 203) ** (1 / 2.4), atol=3e-3)


def test_hdr_files_are_refused_or_mapped(tmp_path):
    path = tmp_path / "pq.mkv"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx265", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p10le"
        context = stream.codec_context
        context.color_primaries, context.color_trc = 9, 16
        context.colorspace, context.color_range = 9, 1
        stream.options = {"x265-params": "log-level=error", "crf": "1"}
        level = round(64 + 876 * float(pq(np.array(50.75))))
        for number in range(3):
            frame = av.VideoFrame(64, 64, "yuv420p10le")
            for plane, value in zip(frame.planes, (level, 512, 512), strict=True):
                plane.update(
                    np.full(plane.buffer_size // 2, value, np.uint16).tobytes()
                )
            frame.pts, frame.time_base = number, Fraction(1, 24)
            frame.color_primaries, frame.color_trc = 9, 16
            frame.colorspace, frame.color_range = 9, 1
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    with pytest.raises(ValueError, match=r"HDR \(PQ\).*--tonemap"):
        read_video(path)
    clip = read_video(path, tonemap=True)
    expected = torch.full_like(clip.frames, 0.25 ** (1 / 2.4))
    torch.testing.assert_close(clip.frames, expected, atol=5e-3, rtol=0)


def wide_profile() -> bytes:
    """Linear light in the primaries of BT.2020, as an ICC profile."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # another gamut: the columns of red and green change places
    red, green = profile.index(b"rXYZ"), profile.index(b"gXYZ")
    swapped = bytearray(profile)
    swapped[red : red + 4], swapped[green : green + 4] = b"gXYZ", b"rXYZ"
    return (
        bytes(swapped).replace(b"s\0R\0G\0B", b"w\0i\0d\0e").replace(b"sRGB", b"wide")
    )


def test_profiles_of_pictures_are_heeded(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    image = Image.new("RGB", (W, H), (200, 50, 20))
    for number in range(2):
        image.save(folder / f"{number}.png", icc_profile=wide_profile())
    colour = read_video(folder).frames[:, 0, 0, 0] * 255
    # what is called red in the file is shown as green
    torch.testing.assert_close(colour, torch.tensor([50.0, 200, 20]), atol=1.5, rtol=0)
    plain = tmp_path / "plain"
    plain.mkdir()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image.save(plain / "0.png", icc_profile=srgb)
    colour = read_video(plain).frames[:, 0, 0, 0] * 255
    torch.testing.assert_close(colour, torch.tensor([200.0, 50, 20]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov", "frames"])
def test_ten_bits_are_more_than_eight(name, tmp_path):
    ramp = torch.linspace(0.2, 0.24, 256).expand(3, 4, 64, 256)
    path = write_video(tmp_path / name, ramp, 24, bits=10, crf=0)
    found = read_video(path).frames
    assert found.shape == ramp.shape
    # steps of 8 bit are 0.0039 wide, the ramp has eleven of them
    assert float((found - ramp).abs().max()) < 0.0012
    assert len(torch.unique(found[1, 0, 32])) > 30
    x = procedural_clip(5, 64, 96)
    lossy = read_video(write_video(tmp_path / f"b{name}", x, 24, bits=10)).frames
    assert psnr(lossy[None], x[None]) > 34


def test_ten_bits_where_there_are_none(tmp_path):
    x = procedural_clip(3, H, W)
    for name, options in (
        ("a.avi", {}),
        ("a.mkv", {"lossless": True}),
    ):
        with pytest.raises(ValueError, match="`bits`: 10 bits are stored as H.265"):
            write_video(tmp_path / name, x, 24, bits=10, **options)
    with pytest.raises(ValueError, match="`bits` must be 8 or 10"):
        write_video(tmp_path / "a.mp4", x, 24, bits=12)
    source = write_video(tmp_path / "y.mkv", x, 24, lossless=True)
    command = [
        "restore",
        str(source),
        "--problem",
        "sr4",
        "--steps",
        "1",
        "--bits",
        "10",
    ]
    output = tmp_path / "x"
    assert main([*command, "-o", str(output), "--device", "cpu"]) == 0
    stored = cv2.imread(str(output / "00000.png"), cv2.IMREAD_UNCHANGED)
    assert stored.dtype == np.uint16
    assert main([*command, "-o", str(tmp_path / "x.avi"), "--device", "cpu"]) == 2
