r"""What a file carries: its streams, its colours, its pictures."""

from __future__ import annotations

import json
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image

from deepinv_lvtino.cli import main
from deepinv_lvtino.datasets import (
    find_companions,
    procedural_clip,
    read_video,
    write_video,
)
from deepinv_lvtino.datasets._colour import _to_xyz, to_bt709

SIZE = (12, 32, 48)


def with_sound(path, *, shape=None, late=Fraction(0), rate=24):
    """A clip with a tone of half a second, a title, and a video that may begin later."""
    frames = (procedural_clip(*SIZE) * 255).round().byte().permute(1, 2, 3, 0).numpy()
    with av.open(str(path), "w") as file:
        file.metadata["title"] = "Holiday"
        sound = file.add_stream("aac", rate=44100)
        video = file.add_stream("libx264", rate=rate)
        video.height, video.width, video.pix_fmt = *SIZE[1:], "yuv420p"
        if shape is not None:
            video.codec_context.sample_aspect_ratio = shape
        for index, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, "rgb24")
            frame.pts, frame.time_base = index + round(late * rate), Fraction(1, rate)
            file.mux(video.encode(frame))
        file.mux(video.encode(None))
        time = np.arange(44100 // 2, dtype=np.float32) / 44100
        tone = np.sin(2 * np.pi * 440 * time)[None]
        tone = av.AudioFrame.from_ndarray(tone, "fltp", "mono")
        tone.sample_rate, tone.pts = 44100, 0
        file.mux(sound.encode(tone))
        file.mux(sound.encode(None))
    return path


def sound_of(path):
    with av.open(str(path)) as file:
        stream = file.streams.audio[0]
        packets = [(p.pts, bytes(p)) for p in file.demux(stream) if p.size]
        start = file.streams.video[0].start_time * file.streams.video[0].time_base
        return packets, stream.time_base, start


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
@pytest.mark.parametrize("late", [Fraction(0), Fraction(1, 8)])
def test_sound_and_title_are_copied_in_time(suffix, late, tmp_path):
    source = with_sound(tmp_path / "in.mp4", late=late)
    output = tmp_path / f"out{suffix}"
    companions = find_companions(source, output)
    assert companions.kept == ("sound (aac)", "metadata (title)")
    assert companions.left == ()
    write_video(output, read_video(source), companions=companions)
    (before, base, start), (after, new_base, new_start) = map(
        sound_of, (source, output)
    )
    assert [packet for _, packet in after] == [packet for _, packet in before]
    # some containers have no times before zero: all streams begin later then
    seconds = [float(time * base - start) for time, _ in before]
    found = [float(time * new_base - new_start) for time, _ in after]
    assert np.allclose(found, seconds, atol=2e-3)
    with av.open(str(output)) as file:
        assert file.metadata.get("title", file.metadata.get("TITLE")) == "Holiday"
        assert file.streams[0].type == "video"
    assert read_video(output).frames.shape == (3, *SIZE)


def test_the_command_carries_and_says_what(tmp_path, capsys):
    source = with_sound(tmp_path / "in.mp4", shape=Fraction(4, 3))
    options = ["--problem", "sr4", "--steps", "1", "--device", "cpu"]
    assert (
        main(["restore", str(source), "-o", str(tmp_path / "out.mp4"), *options]) == 0
    )
    kept = ["sound (aac)", "metadata (title)", "pixels of shape 4:3"]
    assert f"copied from INPUT: {', '.join(kept)}" in capsys.readouterr().out
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["companions"] == {"copied": kept, "left": []}
    with av.open(str(tmp_path / "out.mp4")) as file:
        assert file.streams.video[0].sample_aspect_ratio == Fraction(4, 3)
        assert len(file.streams.audio) == 1
    assert main(["restore", str(source), "-o", str(tmp_path / "frames"), *options]) == 0
    assert f"not copied from INPUT: {', '.join(kept)}" in capsys.readouterr().out


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_few_frames_with_sound_can_be_read_back(frames, tmp_path):
    """The coded sound begins before the video, which Matroska cannot say."""
    source = with_sound(tmp_path / "in.mp4", rate=60)
    output = tmp_path / "out.mkv"
    clip = read_video(source, num_frames=frames)
    write_video(output, clip, companions=find_companions(source, output))
    assert read_video(output).frames.shape == clip.frames.shape


def test_sound_of_what_is_cut_off_is_left(tmp_path):
    source = with_sound(tmp_path / "in.mp4")
    clip = read_video(source, num_frames=4)
    output = tmp_path / "out.mkv"
    write_video(output, clip, companions=find_companions(source, output))
    packets, base, start = sound_of(output)
    assert 4 / 24 - 0.05 < float(packets[-1][0] * base - start) <= 4 / 24


def test_the_default_video_is_read_and_no_cover(tmp_path):
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as file:
        streams = []
        for size in ((16, 16), (32, 48)):
            stream = file.add_stream("libx264", rate=24)
            stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
            streams.append(stream)
        streams[0].disposition = 0
        streams[1].disposition = 1
        for index in range(3):
            for stream in streams:
                image = np.full((stream.height, stream.width, 3), 90, np.uint8)
                frame = av.VideoFrame.from_ndarray(image, "rgb24")
                frame.pts, frame.time_base = index, Fraction(1, 24)
                file.mux(stream.encode(frame))
        for stream in streams:
            file.mux(stream.encode(None))
    assert read_video(path).frames.shape == (3, 3, 32, 48)


@pytest.mark.parametrize("alpha", [255, 128])
def test_what_is_transparent_is_refused(alpha, tmp_path):
    path = tmp_path / "alpha.mov"
    image = np.full((32, 48, 4), 200, np.uint8)
    image[..., 3] = 255
    image[:8, :8, 3] = alpha
    with av.open(str(path), "w") as file:
        stream = file.add_stream("png", rate=24)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "rgba"
        for index in range(2):
            frame = av.VideoFrame.from_ndarray(image, "rgba")
            frame.pts, frame.time_base = index, Fraction(1, 24)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    if alpha == 255:
        assert float(read_video(path).frames.sub(200 / 255).abs().max()) < 1e-6
    else:
        with pytest.raises(ValueError, match="has transparent pixels"):
            read_video(path)


# ITU-R BT.2087 (BT.2020 to BT.709), and SMPTE EG 432-1 for P3 with the white of D65
MATRICES = {
    9: [
        [1.6605, -0.5876, -0.0728],
        [-0.1246, 1.1329, -0.0083],
        [-0.0182, -0.1006, 1.1187],
    ],
    12: [[1.2249, -0.2247, 0.0], [-0.0420, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]],
}


@pytest.mark.parametrize("primaries", MATRICES)
def test_wide_colours_become_those_of_bt709(primaries):
    matrix = np.linalg.inv(_to_xyz(1)) @ _to_xyz(primaries)
    assert np.allclose(matrix, MATRICES[primaries], atol=2e-3)
    linear = np.array([0.2, 0.4, 0.3])  # inside of BT.709
    expected = (np.array(MATRICES[primaries]) @ linear) ** (1 / 2.4)
    assert np.allclose(
        to_bt709(linear ** (1 / 2.4), primaries, 2.4), expected, atol=1e-3
    )
    grey = np.array([0.3, 0.3, 0.3])
    assert np.allclose(to_bt709(grey, primaries, 2.4), grey, atol=1e-5)


def test_primaries_of_a_file_are_heeded(tmp_path):
    path = tmp_path / "wide.mkv"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("ffv1", rate=24)
        stream.height, stream.width, stream.pix_fmt = 16, 16, "bgr0"
        stream.codec_context.color_primaries = 9
        image = np.broadcast_to(np.array([120, 180, 90], np.uint8), (16, 16, 3)).copy()
        frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format="bgr0")
        frame.color_primaries, frame.pts, frame.time_base = 9, 0, Fraction(1, 24)
        file.mux([*stream.encode(frame), *stream.encode(None)])
    found = read_video(path).frames[:, 0, 8, 8].numpy()
    linear = (np.array([120, 180, 90]) / 255) ** 2.4
    expected = np.clip(np.array(MATRICES[9]) @ linear, 0, 1) ** (1 / 2.4)
    assert np.allclose(found, expected, atol=2e-3)


def sixteen_bit(channels):
    rng = np.random.default_rng(0)
    return rng.integers(0, 65536, (16, 24, channels), dtype=np.uint16)


@pytest.mark.parametrize("kind", ["tif", "ppm", "pgm"])
def test_sixteen_bits_are_read(kind, tmp_path):
    values = sixteen_bit(1 if kind == "pgm" else 3)
    path = tmp_path / f"0.{kind}"
    white = 65535
    if kind == "tif":
        cv2 = pytest.importorskip("cv2")
        cv2.imwrite(str(path), values[..., ::-1])
    else:
        white = 1023
        values = values % 1024
        name = b"P5" if kind == "pgm" else b"P6"
        head = name + b"\n# a comment\n24 16\n1023\n"
        path.write_bytes(head + values.astype(">u2").tobytes())
    frames = read_video(tmp_path).frames
    expected = (
        torch.from_numpy(values / white).float().permute(2, 0, 1).expand(3, 16, 24)
    )
    torch.testing.assert_close(frames[:, 0], expected, atol=1e-7, rtol=0)


@pytest.mark.parametrize("suffix", [".tif", ".webp", ".png"])
def test_stacks_are_clips(suffix, tmp_path):
    images = [Image.new("RGB", (24, 16), (10 * k, 100, 200)) for k in range(5)]
    path = tmp_path / f"stack{suffix}"
    options = {} if suffix == ".tif" else {"duration": 40, "lossless": True}
    images[0].save(path, save_all=True, append_images=images[1:], **options)
    clip = read_video(path)
    assert clip.frames.shape == (3, 5, 16, 24)
    assert clip.fps == (24 if suffix == ".tif" else 25)
    found = (clip.frames[0, :, 0, 0] * 255).round()
    assert found.tolist() == [0, 10, 20, 30, 40]
    output = tmp_path / "out.mp4"
    write_video(output, clip, companions=find_companions(path, output))
    assert read_video(output).frames.shape == clip.frames.shape
    if suffix == ".tif":
        assert read_video(path, fps=10).fps == 10
    else:
        with pytest.raises(ValueError, match="of its own"):
            read_video(path, fps=10)


def test_stack_with_uneven_times_is_refused(tmp_path):
    images = [Image.new("RGB", (24, 16), (10 * k, 100, 200)) for k in range(3)]
    path = tmp_path / "stack.webp"
    images[0].save(path, save_all=True, append_images=images[1:], duration=[40, 80, 40])
    with pytest.raises(ValueError, match="equally spaced"):
        read_video(path)


@pytest.mark.parametrize("blurred", [True, False])
def test_a_file_of_another_problem_is_told(blurred, tmp_path, capsys):
    """A sharp file is not one that `deblur` gives."""
    x = procedural_clip(3, 32, 48)
    if blurred:
        from deepinv_lvtino import make_problem

        x = make_problem("deblur", tuple(x.shape), 0).A(x[None])[0]
    source = write_video(tmp_path / "in.mkv", x, 24, lossless=True)
    options = ["--problem", "deblur", "--steps", "1", "--device", "cpu"]
    assert (
        main(["restore", str(source), "-o", str(tmp_path / "out.mp4"), *options]) == 0
    )
    assert ("does not explain INPUT" in capsys.readouterr().err) != blurred


def test_interlaced_frames_are_refused_or_deinterlaced(tmp_path):
    """A bar that moves by four pixels between the two fields of a frame."""
    path = tmp_path / "interlaced.mp4"
    moments = np.full((16, 32, 64, 3), 40, np.uint8)
    for k in range(16):
        moments[k, :, 4 + 3 * k : 10 + 3 * k] = 220
    woven = moments[0::2].copy()
    woven[:, 1::2] = moments[1::2, 1::2]
    with av.open(str(path), "w") as file:
        options = {"x264-params": "tff=1", "crf": "1"}
        stream = file.add_stream("libx264", rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = 32, 64, "yuv420p"
        for index, image in enumerate(woven):
            frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(
                format="yuv420p"
            )
            frame.pts, frame.time_base = index, Fraction(1, 25)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    with pytest.raises(ValueError, match="is interlaced.*--deinterlace"):
        read_video(path)
    clip = read_video(path, deinterlace=True)
    assert clip.frames.shape == (3, 8, 32, 64)
    assert clip.fps == 25

    def combing(frames):
        rows = torch.as_tensor(frames)[0]
        return float((2 * rows[:, 1:-1] - rows[:, :-2] - rows[:, 2:]).abs().mean())

    comb = combing(woven.transpose(3, 0, 1, 2) / 255)
    assert combing(clip.frames) < 0.3 * comb
    assert main(["restore", str(path), "-o", str(tmp_path / "x.mp4"), "--problem", "sr4",
                 "--steps", "1", "--device", "cpu", "--deinterlace"]) == 0  # fmt: skip
