"""Damaged, cut and hostile files: refused by name, or accepted with a list of faults."""

from __future__ import annotations

import shutil
import threading
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from deepinv_lvtino.datasets import VideoCollection, read_video, write_video

CASES = Path(__file__).parents[2] / "shared" / "data" / "cases"
H, W, COUNT = 48, 64, 9


def moving(count=COUNT, height=H, width=W):
    """Waves with some noise, ``(T, H, W, 3)``, 8 bit."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    frames = [
        127
        + 60 * np.sin((x + 3 * t) / 7)[..., None] * [1, 0.6, 0.3]
        + 50 * np.cos((y - 2 * t) / 5)[..., None] * [0.2, 0.7, 1]
        + rng.normal(0, 4, (height, width, 3))
        for t in range(count)
    ]
    return np.clip(frames, 0, 255).astype(np.uint8)


def encode(path, codec, pixels, container=None, frames=None, **options):
    """Write with plain PyAV."""
    frames = moving() if frames is None else frames
    with av.open(str(path), "w", options=container or {}) as file:
        stream = file.add_stream(codec, rate=25, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        for index, array in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(array, "rgb24").reformat(format=pixels)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


FORMATS = {
    "ffv1.mkv": ("ffv1", "bgr0", {}),
    "h264.mp4": ("libx264", "yuv420p", {}),
    "h264.mkv": ("libx264", "yuv420p", {}),
    "h264.avi": ("libx264", "yuv420p", {"bf": "0"}),
    "h264.ts": ("libx264", "yuv420p", {}),
    "h264.flv": ("libx264", "yuv420p", {}),
    "vp8.webm": ("libvpx", "yuv420p", {"auto-alt-ref": "1", "lag-in-frames": "8"}),
    "vp9.webm": ("libvpx-vp9", "yuv420p", {"lag-in-frames": "8"}),
    "mjpeg.avi": ("mjpeg", "yuvj420p", {}),
    "mpeg4.avi": ("mpeg4", "yuv420p", {}),
    "mpeg2.mpg": ("mpeg2video", "yuv420p", {}),
    "prores.mov": ("prores_ks", "yuv422p10le", {}),
    "gif.gif": ("gif", "rgb8", {}),
    "wmv.wmv": ("wmv2", "yuv420p", {}),
    "raw.avi": ("rawvideo", "yuv420p", {}),
}


@pytest.mark.parametrize("name", FORMATS)
def test_healthy_files_are_read_and_nothing_is_said(tmp_path, name, capfd):
    codec, pixels, options = FORMATS[name]
    path = encode(tmp_path / name, codec, pixels, **options)
    capfd.readouterr()
    clip = read_video(path)
    assert clip.frames.shape == (3, COUNT, H, W)
    assert clip.damage == ()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".avi"])
@pytest.mark.parametrize("lossless", [False, True], ids=["lossy", "lossless"])
def test_every_byte_missing_at_the_end_is_noticed(tmp_path, suffix, lossless):
    video = torch.from_numpy(moving()).permute(3, 0, 1, 2).float() / 255
    path = write_video(tmp_path / f"a{suffix}", video, 25, lossless=lossless)
    data = path.read_bytes()
    for length in (len(data) - 1, len(data) - 40, len(data) * 9 // 10, len(data) // 2):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match="cut short|complete video"):
            read_video(path)


class TestDecoder:
    def damaged(self, folder, at=0.6):
        """FFV1 with one byte changed in a frame, the container's checksum set right."""
        path = encode(folder / "a.mkv", "ffv1", "bgr0", slicecrc="1", level="3", g="1")
        data = bytearray(path.read_bytes())
        data[int(at * len(data))] ^= 0x55
        data = _with_right_crcs(data)
        path.write_bytes(data)
        return path

    def frame_at(self, path, at):
        """Number of the frame that a share of the file lies in."""
        with av.open(str(path)) as file:
            places = [packet.pos for packet in file.demux() if packet.pos is not None]
        return sum(place <= at * path.stat().st_size for place in places) - 1

    def test_the_frame_is_named(self, tmp_path, capfd):
        path = self.damaged(tmp_path)
        number = self.frame_at(path, 0.6)
        # twice: what FFmpeg repeats from one file to the next must not be left out
        for _ in range(2):
            with pytest.raises(ValueError, match=f"frame {number} of .*CRC mismatch"):
                read_video(path)
        assert capfd.readouterr() == ("", "")

    def test_accepted_damage_is_listed(self, tmp_path):
        path = self.damaged(tmp_path)
        clip = read_video(path, damaged="accept")
        number = self.frame_at(path, 0.6)
        assert clip.frames.shape[1] == COUNT
        assert len(clip.damage) == 1
        assert f"frame {number} of {path} is damaged (slice CRC" in clip.damage[0]
        others = [t for t in range(COUNT) if t != number]
        exact = torch.from_numpy(moving()).permute(3, 0, 1, 2).float() / 255
        torch.testing.assert_close(clip.frames[:, others], exact[:, others])

    def test_gaps_in_time_are_said(self, tmp_path):
        """A frame that is lost with its packet leaves a gap, which is closed up."""
        path = encode(tmp_path / "a.mkv", "ffv1", "bgr0", g="1")
        data = bytearray(path.read_bytes())
        with av.open(str(path)) as file:
            packet = [p for p in file.demux() if p.size][4]
        start = data.index(bytes(packet))
        data[start - 4] = 0x82  # the block belongs to a track that is not there
        path.write_bytes(_with_right_crcs(data))
        clip = read_video(path, damaged="accept")
        assert clip.frames.shape[1] == COUNT - 1
        assert clip.fps == 25
        assert any("gaps in time" in note for note in clip.damage)

    def test_frames_before_the_damage_can_be_read(self, tmp_path):
        path = self.damaged(tmp_path)
        number = self.frame_at(path, 0.6)
        assert read_video(path, num_frames=number).frames.shape[1] == number

    def test_a_checksum_of_the_container_is_enough(self, tmp_path):
        path = encode(tmp_path / "a.mkv", "libx264", "yuv420p")
        data = bytearray(path.read_bytes())
        data[data.index(b"Lavf") + 5] ^= 1  # the name of the program, decoded by nobody
        path.write_bytes(data)
        with pytest.raises(ValueError, match="checksum of its information"):
            read_video(path)

    def test_log_level_is_given_back(self, tmp_path):
        path = self.damaged(tmp_path)
        before = av.logging.get_level(), av.logging.get_skip_repeated()
        with pytest.raises(ValueError, match="CRC"):
            read_video(path)
        assert (av.logging.get_level(), av.logging.get_skip_repeated()) == before

    def test_readers_in_threads_hear_their_own_file(self, tmp_path):
        (tmp_path / "x").mkdir()
        bad = self.damaged(tmp_path / "x")
        good = encode(tmp_path / "good.mkv", "ffv1", "bgr0")
        found: dict[str, list[bool]] = {"bad": [], "good": []}

        def read(name, path):
            for _ in range(8):
                found[name].append(bool(read_video(path, damaged="accept").damage))

        threads = [
            threading.Thread(target=read, args=pair)
            for pair in (("bad", bad), ("good", good))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert found == {"bad": [True] * 8, "good": [False] * 8}


class TestCounts:
    def test_gif_without_its_last_picture(self, tmp_path):
        data = encode(tmp_path / "a.gif", "gif", "rgb8").read_bytes()
        for length in (len(data) - 1, len(data) // 3):
            (tmp_path / "a.gif").write_bytes(data[:length])
            with pytest.raises(ValueError, match="cut short.*trailer"):
                read_video(tmp_path / "a.gif")
        clip = read_video(tmp_path / "a.gif", damaged="accept")
        assert 1 <= clip.frames.shape[1] < COUNT
        assert "cut short" in clip.damage[0]

    @pytest.mark.parametrize("name", ["h264.mkv", "ffv1.mkv"])
    def test_matroska_without_its_last_frame(self, tmp_path, name):
        codec, pixels, options = FORMATS[name]
        path = encode(tmp_path / name, codec, pixels, **options)
        with av.open(str(path)) as file:
            last = max(packet.pts for packet in file.demux() if packet.size)
        short = tmp_path / "short.mkv"
        with av.open(str(path)) as source, av.open(str(short), "w") as target:
            copy = target.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(source.streams.video[0]):
                if packet.size and packet.pts != last:
                    packet.stream = copy
                    target.mux(packet)
        assert read_video(short).frames.shape[1] == COUNT - 1
        # now let it declare the duration of the whole
        data = short.read_bytes()
        old, new = (f"00:00:00.{n * 40:03d}000000".encode() for n in (COUNT - 1, COUNT))
        assert data.count(old) == 1
        short.write_bytes(_with_right_crcs(data.replace(old, new)))
        with pytest.raises(
            ValueError, match=f"about {COUNT} frames, but only {COUNT - 1}"
        ):
            read_video(short)

    def test_avi_that_declares_one_more(self, tmp_path):
        path = encode(tmp_path / "a.avi", "mjpeg", "yuvj420p")
        data = bytearray(path.read_bytes())
        place = data.index(b"strh") + 8 + 32  # dwLength of the stream
        assert data[place] == COUNT
        data[place] += 1
        path.write_bytes(data)
        with pytest.raises(
            ValueError, match=f"declares {COUNT + 1} frames, but {COUNT}"
        ):
            read_video(path)

    def test_mp4_with_another_number_of_sizes_than_times(self, tmp_path):
        path = encode(tmp_path / "a.mp4", "libx264", "yuv420p")
        data = bytearray(path.read_bytes())
        place = data.index(b"stsz") + 12  # after version, flags and the common size
        assert int.from_bytes(data[place : place + 4], "big") == COUNT
        data[place + 3] -= 1
        path.write_bytes(data)
        with pytest.raises(ValueError, match="damaged .*sample count"):
            read_video(path)

    def test_mp4_whose_last_frame_lasts_longer(self, tmp_path):
        """As phones write them: nothing is missing."""
        path = encode(tmp_path / "a.mp4", "libx264", "yuv420p")
        data = bytearray(path.read_bytes())
        place = data.index(b"mdhd") + 20  # duration, after two times and the unit
        unit, duration = (
            int.from_bytes(data[place - shift : place + 4 - shift], "big")
            for shift in (4, 0)
        )
        assert duration * 25 == COUNT * unit
        data[place : place + 4] = (duration + unit // 25).to_bytes(4, "big")
        path.write_bytes(data)
        assert read_video(path).frames.shape[1] == COUNT

    def test_avi_with_an_empty_chunk(self, tmp_path):
        """As FFmpeg writes it beside sound: the declared number counts it."""
        path = tmp_path / "a.avi"
        with av.open(str(path), "w") as file:
            stream = file.add_stream("mpeg4", rate=25)
            stream.height, stream.width, stream.pix_fmt = H, W, "yuv420p"
            stream.codec_context.max_b_frames = 0
            for index, array in enumerate(moving()):
                frame = av.VideoFrame.from_ndarray(array, "rgb24")
                frame.pts, frame.time_base = index + 1, Fraction(1, 25)
                file.mux(stream.encode(frame.reformat(format="yuv420p")))
            file.mux(stream.encode(None))
        with av.open(str(path)) as file:
            assert file.streams.video[0].frames == COUNT + 1
        assert read_video(path).frames.shape[1] == COUNT

    def test_avi_with_a_chunk_missing(self, tmp_path):
        data = encode(tmp_path / "a.avi", "mjpeg", "yuvj420p").read_bytes()
        second = data.index(b"00dc", data.index(b"00dc") + 4)
        third = data.index(b"00dc", second + 4)
        (tmp_path / "a.avi").write_bytes(data[:second] + data[third:])
        with pytest.raises(ValueError, match="cut short|damaged"):
            read_video(tmp_path / "a.avi")

    def test_matroska_with_a_cluster_missing(self, tmp_path):
        path = tmp_path / "a.mkv"
        encode(path, "ffv1", "bgr0", container={"cluster_time_limit": "80"}, g="1")
        data = path.read_bytes()
        mark = b"\x1f\x43\xb6\x75"
        first = data.index(mark)
        second = data.index(mark, first + 4)
        third = data.index(mark, second + 4)
        path.write_bytes(data[:second] + data[third:])
        with pytest.raises(ValueError, match="cut short|damaged"):
            read_video(path)


def _with_right_crcs(data):
    """Matroska with the checksums of its top elements computed again."""
    data = bytearray(data)
    place = data.index(b"\x18\x53\x80\x67") + 4
    place += 9 - data[place].bit_length()
    while place < len(data):
        place += 9 - data[place].bit_length()  # the identifier
        width = 9 - data[place].bit_length()
        size = int.from_bytes(data[place : place + width], "big") - (1 << 7 * width)
        place += width
        if data[place : place + 2] == b"\xbf\x84":
            crc = zlib.crc32(data[place + 6 : place + size])
            data[place + 2 : place + 6] = crc.to_bytes(4, "little")
        place += size
    return bytes(data)


class TestPictures:
    def save(self, folder, numbers=range(4), name="{:05d}.png"):
        folder.mkdir(exist_ok=True)
        for number, frame in zip(numbers, moving(len(list(numbers))), strict=True):
            Image.fromarray(frame).save(folder / name.format(number))
        return folder

    def test_zeroed_tail(self, tmp_path):
        path = self.save(tmp_path / "a") / "00002.png"
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
        with pytest.raises(ValueError, match="00002.png cannot be decoded"):
            read_video(path.parent)
        clip = read_video(path.parent, damaged="accept")
        assert clip.frames.shape[1] == 3
        assert "00002.png" in clip.damage[0]

    def test_lenient_pillow_changes_nothing(self, tmp_path, monkeypatch):
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
        path = self.save(tmp_path / "a", name="{}.jpg") / "1.jpg"
        path.write_bytes(path.read_bytes()[:-300])
        with pytest.raises(ValueError, match="1.jpg cannot be decoded"):
            read_video(path.parent)
        assert ImageFile.LOAD_TRUNCATED_IMAGES is True

    def test_jpeg_that_the_decoder_complains_about(self, tmp_path):
        path = self.save(tmp_path / "a", name="{}.jpg") / "1.jpg"
        data = bytearray(path.read_bytes())
        data[data.index(b"\xff\xdb") + 5] = 0  # a step of the quantiser
        path.write_bytes(data)
        Image.open(path).load()  # Pillow says nothing
        with pytest.raises(ValueError, match="1.jpg is damaged"):
            read_video(path.parent)

    def test_too_large_is_refused_before_it_is_decoded(self, tmp_path):
        def chunk(name, content):
            body = name + content
            return (
                len(content).to_bytes(4, "big")
                + body
                + zlib.crc32(body).to_bytes(4, "big")
            )

        size = (13000).to_bytes(4, "big")
        (tmp_path / "0.png").write_bytes(
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", size + size + b"\x08\x02\0\0\0")
            + chunk(b"IDAT", zlib.compress(bytes(100)))
            + chunk(b"IEND", b"")
        )
        with pytest.raises(ValueError, match="13000x13000 pixels large; at most"):
            read_video(tmp_path)

    def test_too_large_video(self, tmp_path):
        path = encode(tmp_path / "a.gif", "gif", "rgb8")
        data = bytearray(path.read_bytes())
        data[6:10] = (13000).to_bytes(2, "little") * 2
        path.write_bytes(data)
        with pytest.raises(ValueError, match="13000x13000 pixels large; at most"):
            read_video(path)

    def test_several_pictures_in_a_file(self, tmp_path):
        first, *rest = (Image.fromarray(frame) for frame in moving(3))
        first.save(tmp_path / "0.tif", save_all=True, append_images=rest)
        with pytest.raises(ValueError, match="0.tif holds 3 pictures"):
            read_video(tmp_path)

    def test_gap_is_named(self, tmp_path):
        folder = self.save(tmp_path / "a", [7, 8, 9, 11, 12])
        with pytest.raises(ValueError, match="number 10 is missing"):
            read_video(folder)
        clip = read_video(folder, damaged="accept")
        assert clip.frames.shape[1] == 5
        assert "number 10" in clip.damage[0]

    def test_every_fifth_frame_is_no_gap(self, tmp_path):
        assert read_video(self.save(tmp_path / "a", [0, 5, 10])).frames.shape[1] == 3
        with pytest.raises(ValueError, match="number 15 is missing"):
            read_video(self.save(tmp_path / "a", [0, 5, 10, 20]))

    def test_times_are_no_numbers_of_frames(self, tmp_path):
        times = [1403636579763555584, 1403636579813555456, 1403636579863555591]
        folder = self.save(tmp_path / "a", times, "{}.png")
        assert read_video(folder).frames.shape[1] == 3

    def test_numbers_below_zero_are_in_order(self, tmp_path):
        folder = self.save(tmp_path / "a", [-2, -1, 0, 1], "f{}.png")
        exact = torch.from_numpy(moving(4)).permute(3, 0, 1, 2).float() / 255
        torch.testing.assert_close(read_video(folder).frames, exact)

    def test_a_dash_that_separates_is_no_sign(self, tmp_path):
        folder = self.save(tmp_path / "a", [1, 2, 3], "GOPR0372-{:02d}.png")
        exact = torch.from_numpy(moving(3)).permute(3, 0, 1, 2).float() / 255
        torch.testing.assert_close(read_video(folder).frames, exact)

    def test_two_sequences_in_one_folder(self, tmp_path):
        folder = self.save(tmp_path / "a")
        self.save(folder, name="{:05d}_mask.png")
        with pytest.raises(ValueError, match="2 sequences: 00000.png.*00000_mask.png"):
            read_video(folder)
        with pytest.raises(ValueError, match="2 sequences"):
            read_video(folder, damaged="accept")

    @pytest.mark.parametrize("twin", ["{:05d}.jpg", "{:03d}.png"])
    def test_each_frame_twice(self, tmp_path, twin):
        folder = self.save(tmp_path / "a")
        self.save(folder, name=twin)
        with pytest.raises(ValueError, match="twice: 000"):
            read_video(folder)

    def test_two_scenes_in_one_folder(self, tmp_path):
        folder = self.save(tmp_path / "a", name="scene1_{}.png")
        self.save(folder, name="scene2_{}.png")
        with pytest.raises(ValueError, match="2 sequences: scene1_0.png"):
            read_video(folder)

    def test_a_percent_sign_in_the_name_of_a_folder(self, tmp_path):
        values = np.random.default_rng(0).integers(0, 65536, (8, 8, 3), np.uint16)
        frame = av.VideoFrame.from_ndarray(values, "rgb48le").reformat(format="rgb48be")
        codec = av.CodecContext.create("png", "w")
        codec.width = codec.height = 8
        codec.pix_fmt, codec.time_base = "rgb48be", Fraction(1, 25)
        packets = [*codec.encode(frame), *codec.encode(None)]
        folder = tmp_path / "take%03d"
        folder.mkdir()
        (folder / "0.png").write_bytes(b"".join(bytes(p) for p in packets))
        frames = read_video(folder).frames[:, 0].permute(1, 2, 0)
        assert np.abs(frames.numpy() * 65535 - values).max() < 0.1


class TestNames:
    def secret(self, folder):
        """A file beside the one that is opened."""
        return encode(folder / "secret.mp4", "libx264", "yuv420p")

    @pytest.mark.parametrize(
        "name",
        ["concat:x.mp4", "http:x.mp4", "file:x.mp4", "data:x.mp4", "subfile,,:x.mp4"],
    )
    def test_a_name_is_a_file(self, tmp_path, monkeypatch, name):
        monkeypatch.chdir(tmp_path)
        encode(tmp_path / "x.mp4", "libx264", "yuv420p", frames=moving(3))
        with pytest.raises(FileNotFoundError, match="no file or folder"):
            read_video(name)
        video = torch.from_numpy(moving(5)).permute(3, 0, 1, 2).float() / 255
        write_video(name, video, 25)
        assert (tmp_path / name).is_file()
        assert read_video(name).frames.shape[1] == 5
        assert read_video("x.mp4").frames.shape[1] == 3

    @pytest.mark.parametrize(
        "text",
        [
            "ffconcat version 1.0\nfile secret.mp4\n",
            "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.mp4\n#EXT-X-ENDLIST\n",
            "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n",
            "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nt=0 0\n"
            "m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        ],
        ids=["ffconcat", "hls", "hls-network", "sdp"],
    )
    @pytest.mark.parametrize("suffix", [".mp4", ".m3u8", ".ffconcat", ".sdp"])
    def test_lists_of_other_files_are_no_videos(self, tmp_path, text, suffix):
        self.secret(tmp_path)
        path = tmp_path / f"a{suffix}"
        path.write_text(text)
        with pytest.raises(ValueError, match="cannot be read as a video"):
            read_video(path)

    def test_patterns_of_pictures_are_no_videos(self, tmp_path):
        for number, frame in enumerate(moving(3)):
            Image.fromarray(frame).save(tmp_path / f"a{number}.tga")
        shutil.copy(tmp_path / "a0.tga", tmp_path / "a%d.tga")
        with pytest.raises(ValueError, match="cannot be read as a video"):
            read_video(tmp_path / "a%d.tga")

    def test_metadata_in_another_encoding(self, tmp_path):
        path = tmp_path / "a.mkv"
        with av.open(str(path), "w") as file:
            file.metadata["title"] = "Schone"
            stream = file.add_stream("ffv1", rate=25)
            stream.height, stream.width, stream.pix_fmt = H, W, "bgr0"
            for array in moving():
                file.mux(stream.encode(av.VideoFrame.from_ndarray(array, "rgb24")))
            file.mux(stream.encode(None))
        data = path.read_bytes().replace(b"Schone", b"Sch\xf6ne")
        path.write_bytes(_with_right_crcs(data))
        assert read_video(path).frames.shape[1] == COUNT


class TestArguments:
    def test_damaged(self, tmp_path):
        with pytest.raises(ValueError, match="`damaged` must be 'refuse'.*'ignore'"):
            read_video(tmp_path, damaged="ignore")
        TestPictures().save(tmp_path / "a")
        with pytest.raises(ValueError, match="`damaged`"):
            VideoCollection(tmp_path, 3, H, W, damaged="no")

    def test_collections_accept_too(self, tmp_path):
        TestPictures().save(tmp_path / "a", [1, 2, 4])
        with pytest.raises(ValueError, match="number 3"):
            VideoCollection(tmp_path, 3, H, W)[0]
        clip = VideoCollection(tmp_path, 3, H, W, damaged="accept").read(0)
        assert clip.frames.shape == (3, 3, H, W)
        assert "number 3" in clip.damage[0]

    def test_numbers_of_frames(self, tmp_path):
        TestPictures().save(tmp_path / "a")
        assert read_video(tmp_path / "a", np.int64(2)).frames.shape[1] == 2
        assert read_video(tmp_path / "a", start=np.uint8(3)).frames.shape[1] == 1
        for options in ({"num_frames": 2.0}, {"start": 1.5}, {"num_frames": True}):
            with pytest.raises(TypeError, match=f"`{next(iter(options))}`.*integer"):
                read_video(tmp_path / "a", **options)

    def test_frames_to_write(self, tmp_path):
        with pytest.raises(TypeError, match="`frames`.*ndarray.*from_numpy"):
            write_video(tmp_path / "a.mp4", moving(), 25)
        video = torch.from_numpy(moving()).permute(3, 0, 1, 2).float()
        with pytest.raises(ValueError, match="values up to 2[0-9]*.*by 255"):
            write_video(tmp_path / "a.mp4", video, 25)
        with pytest.raises(TypeError, match="`crf` must be an integer"):
            write_video(tmp_path / "a.mp4", video / 255, 25, crf=16.5)
        assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not CASES.is_dir(), reason="needs the collected cases")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ffv1_crc_mismatch.mkv", "frame 1 of .*slice CRC mismatch"),
        ("gif_cut_3_of_9.gif", "cut short"),
        ("live_killed.mkv", "cut short"),
        ("png_zero_tail", "00000.png cannot be decoded"),
        ("png_gap", "number 4 is missing"),
        ("twice", "twice: 0000.jpg and 0000.png"),
        ("with_masks", "2 sequences"),
        ("folder_with_stack", "6 pictures"),
    ],
)
def test_cases_refused(name, words):
    with pytest.raises(ValueError, match=words):
        read_video(CASES / name)


@pytest.mark.skipif(not CASES.is_dir(), reason="needs the collected cases")
def test_cases_read():
    assert read_video(CASES / "mov_unicode_error.mov").frames.shape[1] == 9
    means = read_video(CASES / "negative").frames.mean((0, 2, 3))
    singles = [
        np.asarray(Image.open(CASES / "negative" / f"f{n}.png").convert("RGB")).mean()
        for n in range(-3, 3)
    ]
    assert np.allclose(means.numpy() * 255, singles, atol=0.01)
