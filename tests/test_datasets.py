"""Video files, folders of frames, and the procedural clip."""

from __future__ import annotations

import wave
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image

from deepinv_lvtino.datasets import (
    VideoClip,
    butterfly_clip,
    check_output,
    procedural_clip,
    read_video,
    resize_video,
    write_video,
)

H, W = 48, 64
COLOURS = np.array(
    [
        [[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0]],
        [[0, 0, 255], [128, 128, 128], [255, 255, 0], [10, 20, 30]],
        [[200, 100, 50], [60, 160, 220], [90, 90, 10], [245, 235, 240]],
    ],
    dtype=np.uint8,
)


def patches(num_frames=5):
    """Flat colour patches of 16x16 pixels, ``(3, T, 48, 64)``."""
    image = np.kron(COLOURS, np.ones((16, 16, 1), np.uint8))
    frame = torch.from_numpy(image).permute(2, 0, 1).float() / 255
    return frame[:, None].repeat(1, num_frames, 1, 1)


def centres(frames):
    """Mean colour of every patch away from its edges, ``(3, T, 3, 4)``, in 0-255."""
    tiles = frames.unfold(2, 16, 16).unfold(3, 16, 16)
    return 255 * tiles[..., 5:11, 5:11].mean((-2, -1))


def encode(path, arrays, fmt="rgb24", codec="libx264", pixels="yuv420p", **options):
    """Write frames with plain PyAV; ``times`` in 1/90000 s, ``tags`` for the codec."""
    times, rate = options.pop("times", None), options.pop("rate", 25)
    tags, prepare = options.pop("tags", {}), options.pop("prepare", None)
    with av.open(str(path), "w", options=options.pop("container", {})) as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        first = arrays[0]
        ready = isinstance(first, av.VideoFrame)
        size = (first.height, first.width) if ready else first.shape[:2]
        stream.height, stream.width = size
        stream.pix_fmt = pixels
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 90000)
        if prepare is not None:
            prepare(stream)
        for index, array in enumerate(arrays):
            ready = isinstance(array, av.VideoFrame)
            frame = array if ready else av.VideoFrame.from_ndarray(array, fmt)
            if fmt != pixels:
                frame = frame.reformat(format=pixels)
            for name, value in tags.items():
                setattr(frame, name, value)
            frame.pts = index if times is None else times[index]
            frame.time_base = Fraction(1, rate) if times is None else Fraction(1, 90000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def noise_arrays(count=12, height=H, width=W):
    rng = np.random.default_rng(0)
    return list(rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8))


class TestRoundTrip:
    @pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".avi"])
    @pytest.mark.parametrize("cut", [0, 1], ids=["even", "odd"])
    def test_colours_frames_and_rate(self, tmp_path, suffix, cut):
        x = patches()[:, :, : H - cut, : W - cut]
        path = write_video(tmp_path / f"clip{suffix}", x, Fraction(30000, 1001))
        clip = read_video(path)
        assert clip.frames.shape == x.shape
        assert clip.frames.dtype == torch.float32
        assert clip.fps == Fraction(30000, 1001)
        if cut == 0:
            error = centres(clip.frames) - centres(x)
            # 8-bit limited-range YUV has steps of up to 2 levels of RGB
            assert error.abs().max() < 3
            assert error.mean().abs() < 0.3
        else:  # 4:4:4, sharp everywhere
            assert (clip.frames - x).abs().max() * 255 < 3

    @pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.avi", "folder"])
    def test_lossless_is_exact_and_rounds_to_nearest(self, tmp_path, name):
        x = torch.rand(3, 4, 19, 31) * 1.4 - 0.2
        path = write_video(tmp_path / name, x, fps=10, lossless=True)
        expected = (x.clamp(0, 1) * 255).round() / 255
        torch.testing.assert_close(read_video(path).frames, expected, rtol=0, atol=1e-6)

    def test_motion_order_and_excerpt(self, tmp_path):
        x = torch.zeros(3, 12, 16, 16)
        x += torch.linspace(0.1, 0.9, 12)[:, None, None]
        path = write_video(tmp_path / "ramp.mp4", x, 25)
        excerpt = read_video(path, num_frames=3, start=5).frames
        assert (excerpt.mean((0, 2, 3)) - x[0, 5:8, 0, 0]).abs().max() < 0.01

    def test_clip_carries_its_rate(self, tmp_path):
        clip = VideoClip(patches(2), Fraction(12))
        assert read_video(write_video(tmp_path / "a.mp4", clip)).fps == 12

    def test_decimal_ntsc_rate_is_exact(self, tmp_path):
        path = write_video(tmp_path / "a.mp4", patches(3), 29.97)
        assert read_video(path).fps == Fraction(30000, 1001)

    def test_folder_has_the_rate_it_is_given(self, tmp_path):
        path = write_video(tmp_path / "frames", patches(2))
        assert sorted(p.name for p in path.iterdir()) == ["00000.png", "00001.png"]
        assert read_video(path).fps == 24
        assert read_video(path, fps=50).fps == 50


class TestColourOfForeignFiles:
    @pytest.mark.parametrize("matrix", [1, 5, 9], ids=["bt709", "bt601", "bt2020"])
    @pytest.mark.parametrize("levels", [1, 2], ids=["limited", "full"])
    @pytest.mark.parametrize("deep", [False, True], ids=["8bit", "10bit"])
    def test_matrix_and_range(self, tmp_path, matrix, levels, deep):
        k_r, k_b = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 9: (0.2627, 0.0593)}[matrix]
        rgb = patches(1)[:, 0].numpy()
        y = k_r * rgb[0] + (1 - k_r - k_b) * rgb[1] + k_b * rgb[2]
        u, v = (rgb[2] - y) / (2 - 2 * k_b), (rgb[0] - y) / (2 - 2 * k_r)
        if levels == 1:
            planes = np.stack([16 + 219 * y, 128 + 224 * u, 128 + 224 * v])
        else:
            planes = np.stack([255 * y, 128 + 255 * u, 128 + 255 * v])
        tags = {"colorspace": matrix, "color_range": levels}
        unit, pixels = (1, "yuv444p")
        if (
            deep
        ):  # 16-bit codes are 256 times the 8-bit ones, but full range ends at 65535
            unit, pixels = (256 if levels == 1 else 257), "yuv444p16le"
            planes += (
                (np.arange(3) > 0)[:, None, None] * (levels == 2) * (0.5 / 257 - 0.5)
            )
        array = np.round(planes * unit).clip(0, 65535 if deep else 255)
        frame = av.VideoFrame(W, H, pixels)
        for plane, values in zip(frame.planes, array, strict=True):
            padded = np.zeros((H, plane.line_size), np.uint8)
            values = values.astype("<u2" if deep else "u1").view(np.uint8)
            padded[:, : values.shape[1]] = values
            plane.update(padded.tobytes())
        path = tmp_path / "a.mkv"
        encode(path, [frame] * 2, pixels, codec="ffv1", pixels=pixels, tags=tags)
        error = centres(read_video(path).frames) - centres(patches(2))
        assert error.abs().max() < (0.2 if deep else 2)

    def test_grey_video(self, tmp_path):
        grey = np.tile(np.arange(W, dtype=np.uint8) * 4, (H, 1))
        path = tmp_path / "a.mkv"
        encode(path, [grey] * 2, "gray", codec="ffv1", pixels="gray")
        frames = read_video(path).frames * 255
        assert (frames - torch.from_numpy(grey)).abs().max() < 0.01

    def test_hdr_is_refused(self, tmp_path):
        tags = {"color_trc": 16, "colorspace": 9, "color_primaries": 9}
        path = encode(tmp_path / "a.mkv", noise_arrays(2), tags=tags)
        with pytest.raises(ValueError, match=r"HDR \(PQ\).*zscale"):
            read_video(path)

    @pytest.mark.parametrize("turn", [90, -90, 180])
    def test_rotation_is_applied(self, tmp_path, turn):
        array = np.zeros((H, W, 3), np.uint8)
        array[:16, :16] = 255  # marks the upper left corner

        def prepare(stream):
            if not hasattr(stream, "set_display_rotation"):
                pytest.skip("this PyAV cannot write a rotation")
            stream.set_display_rotation(turn)

        path = encode(tmp_path / "a.mp4", [array] * 2, prepare=prepare)
        frames = read_video(path).frames
        with av.open(str(path)) as container:
            counter_clockwise = next(container.decode(video=0)).rotation
        expected = np.rot90(array, counter_clockwise // 90)
        assert frames.shape[2:] == expected.shape[:2]
        image = frames[:, 0].permute(1, 2, 0).numpy()
        assert np.abs(image - expected / 255.0).mean() < 0.02


class TestRefusals:
    def test_missing_path(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no file or folder"):
            read_video(tmp_path / "nothing.mp4")

    def test_empty_file(self, tmp_path):
        (tmp_path / "a.mp4").touch()
        with pytest.raises(ValueError, match="empty"):
            read_video(tmp_path / "a.mp4")

    def test_not_a_video(self, tmp_path):
        (tmp_path / "a.mp4").write_text("no video at all, " * 50)
        with pytest.raises(ValueError, match="cannot be read as a video"):
            read_video(tmp_path / "a.mp4")

    @pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".mov"])
    @pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
    def test_truncated_file(self, tmp_path, suffix, share):
        front = {"movflags": "faststart"} if suffix in (".mp4", ".mov") else {}
        path = encode(tmp_path / f"a{suffix}", noise_arrays(25), container=front)
        assert read_video(path).frames.shape[1] == 25
        data = path.read_bytes()
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(ValueError, match="(cut short|complete video)"):
            read_video(path)

    def test_variable_frame_rate(self, tmp_path):
        steps = [0, 3000, 6000, 9000, 15000, 18000, 24000, 27000, 30000]
        path = encode(tmp_path / "a.mp4", noise_arrays(9), times=steps)
        with pytest.raises(ValueError, match="variable frame rate.*--rate constant"):
            read_video(path)

    def test_jitter_of_time_stamps_is_not_variable_rate(self, tmp_path):
        # Matroska rounds to 1 ms: 240 Hz frames are 4 or 5 ms apart
        path = encode(tmp_path / "a.mkv", noise_arrays(40), rate=240)
        assert read_video(path).fps == 240

    def test_audio_only(self, tmp_path):
        with wave.open(str(tmp_path / "a.wav"), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(bytes(8000))
        with pytest.raises(ValueError, match="is an audio file"):
            read_video(tmp_path / "a.wav")

    def test_too_few_frames(self, tmp_path):
        path = write_video(tmp_path / "a.mp4", patches(4), 25)
        with pytest.raises(ValueError, match="5 frames asked.*only 4"):
            read_video(path, num_frames=5)
        with pytest.raises(ValueError, match="only 0"):
            read_video(path, start=4)

    def test_arguments(self, tmp_path):
        path = write_video(tmp_path / "a.mp4", patches(2), 25)
        with pytest.raises(ValueError, match="`num_frames`"):
            read_video(path, num_frames=0)
        with pytest.raises(ValueError, match="`start`"):
            read_video(path, start=-1)
        with pytest.raises(ValueError, match="`fps` is for folders"):
            read_video(path, fps=30)


class TestFolders:
    def save(self, folder, name, array, **options):
        folder.mkdir(exist_ok=True)
        Image.fromarray(array).save(folder / name, **options)

    def test_natural_order(self, tmp_path):
        for n in (10, 9, 100, 1):
            self.save(tmp_path, f"f{n}.png", np.full((4, 5), n, np.uint8))
        values = read_video(tmp_path, damaged="accept").frames[0, :, 0, 0] * 255
        assert values.round().tolist() == [1, 9, 10, 100]

    def test_empty_folder(self, tmp_path):
        (tmp_path / "notes.txt").write_text("no frame")
        with pytest.raises(ValueError, match="holds no image"):
            read_video(tmp_path)

    def test_sizes_must_agree(self, tmp_path):
        self.save(tmp_path, "0.png", np.zeros((4, 5, 3), np.uint8))
        self.save(tmp_path, "1.png", np.zeros((4, 6, 3), np.uint8))
        with pytest.raises(ValueError, match="1.png is 6x4, those before it are 5x4"):
            read_video(tmp_path)

    def test_truncated_frame(self, tmp_path):
        self.save(tmp_path, "0.png", noise_arrays(1)[0])
        data = (tmp_path / "0.png").read_bytes()
        (tmp_path / "0.png").write_bytes(data[: len(data) // 2])
        with pytest.raises(ValueError, match="cannot be decoded"):
            read_video(tmp_path)

    def test_sixteen_bit_grey(self, tmp_path):
        values = np.array([[0, 1000, 65535]], np.uint16)
        self.save(tmp_path, "0.png", values)
        frames = read_video(tmp_path).frames
        expected = torch.from_numpy(values / 65535.0).float()
        torch.testing.assert_close(frames[:, 0], expected.expand(3, 1, 3))

    def test_sixteen_bit_colour(self, tmp_path):
        values = np.random.default_rng(0).integers(0, 65536, (8, 8, 3), np.uint16)
        frame = av.VideoFrame.from_ndarray(values, "rgb48le").reformat(format="rgb48be")
        codec = av.CodecContext.create("png", "w")
        codec.width = codec.height = 8
        codec.pix_fmt, codec.time_base = "rgb48be", Fraction(1, 25)
        packets = [*codec.encode(frame), *codec.encode(None)]
        (tmp_path / "0.png").write_bytes(b"".join(bytes(p) for p in packets))
        frames = read_video(tmp_path).frames[:, 0].permute(1, 2, 0)
        assert np.abs(frames.numpy() * 65535 - values).max() < 0.1

    def test_palette_and_opaque_alpha_become_rgb(self, tmp_path):
        rgb = np.kron(COLOURS, np.ones((2, 2, 1), np.uint8))
        Image.fromarray(rgb).quantize(64).save(tmp_path / "0.png")
        opaque = np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])
        self.save(tmp_path, "1.png", opaque)
        frames = read_video(tmp_path).frames * 255
        reference = torch.from_numpy(rgb).permute(2, 0, 1)
        assert (frames[:, 1] - reference).abs().max() < 0.01
        assert (frames[:, 0] - reference).abs().max() < 5

    def test_transparency_is_refused(self, tmp_path):
        self.save(tmp_path, "0.png", np.full((4, 4, 4), 128, np.uint8))
        with pytest.raises(ValueError, match="transparent"):
            read_video(tmp_path)

    def test_single_image_is_not_a_video(self, tmp_path):
        self.save(tmp_path, "0.png", np.zeros((4, 4), np.uint8))
        with pytest.raises(ValueError, match="one image"):
            read_video(tmp_path / "0.png")


class TestWriting:
    @pytest.mark.parametrize("name", ["a.mp4", "frames"])
    def test_existing_output(self, tmp_path, name):
        path = tmp_path / name
        write_video(path, patches(3), 25)
        with pytest.raises(FileExistsError, match="exists"):
            write_video(path, patches(2), 25)
        assert read_video(path).frames.shape[1] == 3
        write_video(path, patches(2), 25, overwrite=True)
        assert read_video(path).frames.shape[1] == 2
        assert [p.name for p in tmp_path.iterdir()] == [name]

    @pytest.mark.parametrize("bits", [8, 10])
    def test_the_same_frames_give_the_same_bytes(self, tmp_path, bits):
        frames = procedural_clip(40, 96, 160)
        paths = [
            write_video(tmp_path / f"{n}.mp4", frames, 24, bits=bits) for n in range(3)
        ]
        assert len({path.read_bytes() for path in paths}) == 1

    @pytest.mark.parametrize("name", ["a.mp4", "frames"])
    def test_failure_leaves_the_old_one_and_nothing_else(
        self, tmp_path, monkeypatch, name
    ):
        path = write_video(tmp_path / name, patches(3), 25)

        calls = []

        def fail(frame, bits):
            calls.append(bits)
            if len(calls) == 3:
                msg = "out of power"
                raise RuntimeError(msg)
            return np.zeros((H, W, 3), np.uint8)

        monkeypatch.setattr("deepinv_lvtino.datasets._writing.to_levels", fail)
        with pytest.raises(RuntimeError, match="out of power"):
            write_video(path, patches(4), 25, overwrite=True)
        monkeypatch.undo()
        assert [p.name for p in tmp_path.iterdir()] == [name]
        assert read_video(path).frames.shape[1] == 3

    def test_folder_with_other_things_is_never_replaced(self, tmp_path):
        path = write_video(tmp_path / "frames", patches(2))
        (path / "thesis.txt").write_text("years of work")
        with pytest.raises(FileExistsError, match="other things"):
            write_video(path, patches(2), overwrite=True)
        assert (path / "thesis.txt").exists()

    def test_kinds_do_not_mix(self, tmp_path):
        (tmp_path / "a.mp4").mkdir()
        (tmp_path / "frames").touch()
        with pytest.raises(FileExistsError, match="is a folder"):
            check_output(tmp_path / "a.mp4", overwrite=True)
        with pytest.raises(FileExistsError, match="is a file"):
            check_output(tmp_path / "frames", overwrite=True)

    def test_arguments(self, tmp_path):
        with pytest.raises(ValueError, match=".mp4, .mkv"):
            write_video(tmp_path / "a.xyz", patches(2), 25)
        with pytest.raises(ValueError, match="`fps` is missing"):
            write_video(tmp_path / "a.mp4", patches(2))
        with pytest.raises(ValueError, match="`fps` must be positive"):
            write_video(tmp_path / "a.mp4", patches(2), 0)
        with pytest.raises(ValueError, match="`crf`"):
            write_video(tmp_path / "a.mp4", patches(2), 25, crf=99)
        with pytest.raises(ValueError, match=r"\(3, T, H, W\)"):
            write_video(tmp_path / "a.mp4", patches(2)[None], 25)
        with pytest.raises(ValueError, match="floating point"):
            write_video(tmp_path / "a.mp4", patches(2).byte(), 25)
        with pytest.raises(ValueError, match="not finite"):
            write_video(tmp_path / "a.mp4", patches(2) / 0, 25)
        assert not any(tmp_path.iterdir())


class TestResize:
    def test_matches_pillow(self):
        x = torch.from_numpy(noise_arrays(2)[0]).permute(2, 0, 1)[:, None]
        small = resize_video(x.float() / 255, 12, 20)
        image = Image.fromarray(noise_arrays(2)[0])
        expected = np.asarray(image.resize((20, 12), Image.Resampling.BICUBIC))
        difference = small[:, 0].permute(1, 2, 0).numpy() * 255 - expected
        assert np.abs(difference).max() < 1  # Pillow rounds twice, we never do

    def test_same_size_is_unchanged(self):
        x = torch.rand(3, 2, 8, 9)
        assert torch.equal(resize_video(x, 8, 9), x)

    def test_size_must_be_positive(self):
        with pytest.raises(ValueError, match="must be positive"):
            resize_video(torch.rand(3, 2, 8, 9), 0, 9)


class TestProceduralClip:
    def test_same_seed_same_clip(self):
        first = procedural_clip(3, 40, 56, seed=5)
        assert torch.equal(first, procedural_clip(3, 40, 56, seed=5))
        assert torch.equal(first, procedural_clip(5, 40, 56, seed=5)[:, :3])
        assert (first - procedural_clip(3, 40, 56, seed=6)).abs().mean() > 0.02

    @pytest.mark.parametrize("size", [(1, 1, 1), (2, 17, 9), (2, 31, 80)])
    def test_any_size(self, size):
        x = procedural_clip(*size)
        assert x.shape == (3, *size)
        assert x.dtype == torch.float32
        assert x.min() >= 0
        assert x.max() <= 1

    def test_spectrum_of_a_natural_image(self):
        frames = procedural_clip(4).mean(0)
        height, width = frames.shape[1:]
        window = torch.hann_window(height)[:, None] * torch.hann_window(width)
        centred = frames - frames.mean((1, 2), keepdim=True)
        power = torch.fft.fft2(centred * window).abs().square().mean(0)
        rows, columns = torch.fft.fftfreq(height), torch.fft.fftfreq(width)
        radius = torch.hypot(rows[:, None], columns[None])
        edges = torch.logspace(np.log10(0.02), np.log10(0.3), 12)
        x, y = [], []
        for low, high in zip(edges[:-1], edges[1:], strict=True):
            ring = (radius >= low) & (radius < high)
            x.append(float((low * high).sqrt().log()))
            y.append(float(power[ring].mean().sqrt().log()))
        slope = np.polyfit(x, y, 1)[0]
        assert -1.4 < slope < -1.05  # amplitude; -1.2 in sharp real video

    def test_motion_is_fast_near_and_slow_far(self):
        x = procedural_clip(2)
        change = (x[:, 1] - x[:, 0]).abs().mean(0)
        assert change[130:].mean() > 2 * change[:60].mean() > 0
        shifts = [
            (x[:, 1, 130:, : 320 - s] - x[:, 0, 130:, s:]).abs().mean()
            for s in range(6)
        ]
        assert 1 <= int(torch.stack(shifts).argmin()) <= 3

    def test_arguments(self):
        with pytest.raises(ValueError, match="`height`"):
            procedural_clip(2, 0, 5)
        with pytest.raises(ValueError, match="`seed`"):
            procedural_clip(2, 8, 8, seed=-1)


def test_butterfly_is_a_real_clip_of_any_size_and_not_of_any_length():
    clip = butterfly_clip()
    assert clip.shape == (3, 25, 192, 320)
    assert clip.dtype == torch.float32
    assert 0 <= clip.min() < 0.1 < 0.8 < clip.max() <= 1
    moved = clip.diff(dim=1).abs().mean(dim=(0, 2, 3))
    assert moved.min() > 1e-3  # no frame stands still
    assert moved.max() < 0.1  # and there is no cut
    assert torch.equal(butterfly_clip(3), clip[:, :3])
    small = butterfly_clip(2, 96, 160)
    halved = torch.nn.functional.avg_pool2d(clip[:, :2], 2)
    assert (small - halved).abs().mean() < 0.01
    with pytest.raises(ValueError, match="`num_frames` must be 25 or less"):
        butterfly_clip(26)
