r"""
Damaged video files by the hundred: what does ``read_video`` make of them?

For each of eight formats a small clip is written, and damaged in five ways: bits flipped,
cut, a range zeroed, a block dropped, a block doubled (of a folder: a picture damaged so, or
missing). Each result is read in a process of its own, with limits of time and memory, and
compared with the healthy read. ::

    python tests/fuzz_files.py --mutations 60 -o benchmarks/results/fuzz_files.md

A read that is different without an error is *silent*. It counts as a failure where
something could know: the number of frames changed, the format has checksums over all of
its pictures, or FFmpeg or Pillow, asked directly, report an error. What is left (bits of
VP9, say, which decode to other pixels) is counted apart, as nothing in the file tells.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import resource
import shutil
import sys
import tempfile
import time
import zlib
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from deepinv_lvtino.datasets._names import only_this_file

HEIGHT, WIDTH, FRAMES = 48, 64, 9
SECONDS = 20.0
KINDS = ("bits", "cut", "zeros", "dropped", "doubled")

#: name: codec, pixel format, options of the codec; of a folder, the suffix and options
FORMATS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "FFV1 .mkv": ("ffv1", "bgr0", {"level": "3", "slicecrc": "1"}),
    "H.264 .mp4": ("libx264", "yuv420p", {}),
    "VP9 .webm": ("libvpx-vp9", "yuv420p", {}),
    "MJPEG .avi": ("mjpeg", "yuvj420p", {}),
    "ProRes .mov": ("prores_ks", "yuv422p10le", {}),
    "GIF .gif": ("gif", "rgb8", {}),
    "PNG folder": ("", ".png", {}),
    "TIFF folder": ("", ".tif", {"compression": "tiff_adobe_deflate"}),
}
#: Formats whose pictures are all under a checksum.
CHECKSUMS = ("FFV1 .mkv", "PNG folder")


def clip() -> np.ndarray:
    """Moving waves with some noise, ``(T, H, W, 3)``, 8 bit."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    frames = [
        127
        + 60 * np.sin((x + 3 * t) / 7)[..., None] * [1, 0.6, 0.3]
        + 50 * np.cos((y - 2 * t) / 5)[..., None] * [0.2, 0.7, 1]
        + rng.normal(0, 4, (HEIGHT, WIDTH, 3))
        for t in range(FRAMES)
    ]
    return np.clip(frames, 0, 255).astype(np.uint8)


def write_healthy(name: str, folder: Path) -> Path:
    """The clip in a format of :data:`FORMATS`."""
    codec, pixels, options = FORMATS[name]
    if not codec:
        path = folder / name.split()[0].lower()
        path.mkdir()
        for index, frame in enumerate(clip()):
            Image.fromarray(frame).save(path / f"{index:05d}{pixels}", **options)
        return path
    path = folder / f"clip{name.split()[-1]}"
    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream(codec, rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, pixels
        for index, array in enumerate(clip()):
            frame = av.VideoFrame.from_ndarray(array, "rgb24").reformat(format=pixels)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def damage(data: bytes, kind: str, rng: np.random.Generator) -> bytes:
    """Damaged bytes, different from what they were."""
    size = len(data)
    at = int(rng.integers(size))
    length = int(rng.integers(1, max(2, size // 8)))
    if kind == "bits":
        changed = bytearray(data)
        for place in rng.integers(0, size, int(rng.integers(1, 4))):
            changed[place] ^= 1 << int(rng.integers(8))
        result = bytes(changed)
    elif kind == "cut":
        result = data[:at]
    elif kind == "zeros":
        result = data[:at] + bytes(len(data[at : at + length])) + data[at + length :]
    elif kind == "dropped":
        result = data[:at] + data[at + length :]
    else:
        result = data[: at + length] + data[at:]
    return result if result != data else damage(data, kind, rng)


def mutate(healthy: Path, target: Path, index: int, seed: int) -> str:
    """A damaged copy of a file or folder; the kind of damage."""
    key = zlib.crc32(f"{healthy.name} {index} {seed}".encode())
    rng = np.random.default_rng(key)
    kind = KINDS[index % len(KINDS)]
    if healthy.is_file():
        target.write_bytes(damage(healthy.read_bytes(), kind, rng))
        return kind
    shutil.copytree(healthy, target)
    frames = sorted(target.iterdir())
    chosen = int(rng.integers(1, len(frames) - 1))
    if kind == "dropped" and rng.integers(2):
        frames[chosen].unlink()
    elif kind == "doubled" and rng.integers(2):
        number = f"{chosen:04d}{frames[chosen].suffix}"
        shutil.copy(frames[chosen], target / number)
    else:
        frames[chosen].write_bytes(damage(frames[chosen].read_bytes(), kind, rng))
    return kind


def read(path: Path) -> dict[str, Any]:
    """What ``read_video`` gives: a digest of the frames, or the error."""
    from deepinv_lvtino.datasets import read_video

    try:
        video = read_video(path)
    except Exception as error:
        named = isinstance(error, (ValueError, OSError)) and "`" in str(error)
        return {"error": f"{type(error).__name__}: {error}", "named": named}
    frames = video.frames.numpy()
    digest = hashlib.sha256(np.ascontiguousarray(frames).tobytes()).hexdigest()
    return {"frames": frames.shape[1], "digest": f"{frames.shape} {digest} {video.fps}"}


def complaint(path: Path) -> str:
    """An error that FFmpeg or Pillow reports of itself, asked without the package."""
    if path.is_file():
        return _ffmpeg_says(path)
    for picture in sorted(path.iterdir()):
        try:
            with Image.open(picture) as image:
                image.verify()
            with Image.open(picture) as image:
                image.load()
        except Exception as error:
            return str(error) or type(error).__name__
        said = _ffmpeg_says(
            picture, "png_pipe" if picture.suffix == ".png" else "tiff_pipe"
        )
        if said:
            return said
    return ""


def _ffmpeg_says(path: Path, container: str | None = None) -> str:
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)
    try:
        with av.logging.Capture() as lines:
            try:
                lenient = {
                    name: value
                    for name, value in only_this_file().items()
                    if name == "metadata_errors"
                }
                with av.open(str(path), format=container, **lenient) as file:
                    stream = file.streams.video[0]
                    stream.codec_context.thread_count = 1
                    for _ in file.decode(stream):
                        pass
            except Exception as error:
                return str(error)
    finally:
        av.logging.set_level(None)
    return next((text for level, _, text in lines if level <= av.logging.ERROR), "")


def judge(name: str, path: Path, healthy: dict[str, Any], found: dict[str, Any]) -> str:
    """One word for the result of a damaged file."""
    if "error" in found:
        return "refused" if found["named"] else "traceback"
    if found["digest"] == healthy["digest"]:
        return "same"
    known = found["frames"] != healthy["frames"] or name in CHECKSUMS or complaint(path)
    return "silent" if known else "unknowable"


def _serve(connection: Any) -> None:
    """Read what is asked for, and say the peak of the memory too."""
    import torch

    torch.set_num_threads(1)
    while (path := connection.recv()) is not None:
        found = read(path)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found["memory"] = peak * (1 if sys.platform == "darwin" else 1024)
        connection.send(found)


class Reader:
    """A process that reads; started again when it hangs or dies."""

    def __init__(self) -> None:
        self._process: Any = None
        self._warm = False

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there,), daemon=True)
        self._process.start()
        there.close()

    def read(self, path: Path) -> dict[str, Any]:
        """What :func:`read` says, or how it failed to."""
        if self._process is None:
            self._start()
        try:
            self._here.send(path)
            # the first one also imports
            if self._here.poll(SECONDS + 580 * (not self._warm)):
                self._warm = True
                found = self._here.recv()
                return found
            outcome = "hang"
        except (EOFError, OSError):
            outcome = "crash"
        self.stop()
        return {"outcome": outcome, "memory": 0}

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None
            self._warm = False


def run(mutations: int, seed: int, names: list[str], say: Any = print) -> list[str]:
    """Rows of the table, and below it what failed."""
    rows = [
        "| format | same | refused | silent | nothing can know | traceback | hang or crash "
        "| memory (MB) | seconds |",
        "|:--|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    failures, total = [], Counter()
    reader = Reader()
    with tempfile.TemporaryDirectory() as root:
        for name in names:
            start = time.perf_counter()
            folder = Path(root) / name.split()[0]
            folder.mkdir()
            healthy_path = write_healthy(name, folder)
            healthy = reader.read(healthy_path)
            counts: Counter[str] = Counter()
            memory = healthy["memory"]
            for index in range(mutations):
                path = folder / f"{index}{healthy_path.suffix}"
                kind = mutate(healthy_path, path, index, seed)
                found = reader.read(path)
                outcome = found.get("outcome") or judge(name, path, healthy, found)
                counts[outcome] += 1
                memory = max(memory, found["memory"])
                if outcome not in ("same", "refused", "unknowable"):
                    failures.append(f"- {name}, {index} ({kind}): {outcome} {found}")
            total += counts
            rows.append(_row(name, counts, memory, time.perf_counter() - start))
            say(rows[-1], flush=True)
    reader.stop()
    rows.append(_row("all", total, 0, 0))
    return [*rows, "", *failures]


def _row(name: str, counts: Counter[str], memory: float, seconds: float) -> str:
    keys = ("same", "refused", "silent", "unknowable", "traceback")
    cells = [name, *(str(counts[key]) for key in keys)]
    cells += [str(counts["hang"] + counts["crash"])]
    cells += [
        f"{memory / 1e6:.0f}" if memory else "",
        f"{seconds:.0f}" if seconds else "",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[1])
    parser.add_argument("--mutations", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--formats", nargs="+", default=list(FORMATS))
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    lines = run(arguments.mutations, arguments.seed, arguments.formats)
    print("\n".join(lines))
    if arguments.output:
        head = (
            "# Damaged files\n\n"
            f"`python tests/fuzz_files.py --mutations {arguments.mutations} --seed "
            f"{arguments.seed}`: files of {FRAMES} frames of {WIDTH}x{HEIGHT}, each "
            "damaged in one way. *silent*: read as something else without an error, "
            "though the container, a checksum or the decoder could know. *nothing can "
            "know*: other pixels, of a format without checksums. Memory is the peak of "
            f"the reading process, PyTorch included; PyAV {av.__version__}.\n\n"
        )
        arguments.output.write_text(head + "\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
