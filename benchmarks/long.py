r"""
Videos of any length: peak memory, going on after a kill, and sound in sync.

A clip of computed scenes, one after the other with cuts between, with a tone; its
measurement of problem A as a file; and ``deepinv-lvtino restore --window 17``. The peak
resident memory of the whole command, for several lengths; for the shortest also the same
with the process killed five times on the way. Usage::

    python benchmarks/long.py [--frames 100 1000] [--size 320x192] [--quick]
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from measure import provenance, save

from deepinv_lvtino import make_problem
from deepinv_lvtino.datasets import procedural_clip, read_video

RATE, FACTOR, HERTZ, SCENE = 24, 4, 16000, 100
WINDOW, KILLS = 17, 5


def write_measurement(path: Path, frames: int, height: int, width: int) -> np.ndarray:
    r"""Measurement of so many frames with a tone, as H.264 without loss and PCM."""
    import av

    count = frames // FACTOR
    physics = make_problem(
        "A", (3, SCENE, height, width), rng=torch.Generator().manual_seed(1)
    )
    scenes = [
        physics(procedural_clip(SCENE, height, width, seed=seed)[None])[0]
        for seed in range(2)
    ]
    tone = np.sin(np.arange(frames * HERTZ // RATE) / 7)[None] * 20000
    with av.open(str(path), "w") as file:
        video = file.add_stream("libx264rgb", rate=RATE // FACTOR)
        video.options = {"qp": "0"}
        video.width, video.height = width // FACTOR, height // FACTOR
        video.pix_fmt = "rgb24"
        sound = file.add_stream("pcm_s16le", rate=HERTZ, layout="mono")
        for number in range(count):
            scene, place = divmod(number, SCENE // FACTOR)
            image = scenes[scene % 2][:, place].clamp(0, 1).permute(1, 2, 0) * 255
            frame = av.VideoFrame.from_ndarray(image.round().byte().numpy(), "rgb24")
            file.mux(video.encode(frame))
            step = HERTZ * FACTOR // RATE
            part = tone[:, number * step : (number + 1) * step].astype(np.int16)
            heard = av.AudioFrame.from_ndarray(part, "s16", "mono")
            heard.rate = HERTZ
            file.mux(sound.encode(heard))
        file.mux(video.encode(None))
        file.mux(sound.encode(None))
    return tone.astype(np.int16)[0, : count * step]


def command(source: Path, output: Path) -> list[str]:
    options = ["--problem", "A", "--grid", "deepinv", "--device", "cpu"]
    options += ["--window", str(WINDOW)]
    program = [sys.executable, "-m", "deepinv_lvtino", "restore", str(source)]
    return [*program, "-o", str(output), *options]


def run(arguments: list[str], kill_after: float | None = None) -> tuple[float, float]:
    r"""Seconds, and the peak of its resident memory in bytes."""
    start = time.monotonic()
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(process.pid, signal.SIGKILL)
    _, status, usage = os.wait4(process.pid, 0)
    if kill_after is None and status:
        msg = f"{arguments} ended with {status}"
        raise RuntimeError(msg)
    return time.monotonic() - start, usage.ru_maxrss * 1024


def sound_of(path: Path) -> np.ndarray:
    import av

    with av.open(str(path)) as file:
        frames = list(file.decode(audio=0))
    assert frames[0].time == 0
    return np.concatenate([frame.to_ndarray().ravel() for frame in frames])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().split("\n\n")[0])
    parser.add_argument("--frames", nargs="+", type=int, default=[100, 1000])
    parser.add_argument("--size", default="320x192")
    parser.add_argument("--quick", action="store_true", help="a small size, not saved")
    arguments = parser.parse_args()
    lengths = [48, 96] if arguments.quick else arguments.frames
    size = "64x48" if arguments.quick else arguments.size
    width, height = (int(side) for side in size.split("x"))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for frames in lengths:
            source = Path(folder) / f"y{frames}.mkv"
            output = Path(folder) / f"x{frames}.mp4"
            tone = write_measurement(source, frames, height, width)
            # MP4 holds no PCM of this kind: sound is compared in Matroska
            heard = output.with_suffix(".mkv")
            seconds, peak = run(command(source, heard))
            whole = read_video(heard)
            row = {
                "frames": whole.frames.shape[1],
                "seconds": seconds,
                "peak (GB)": peak / 1e9,
                "sound the same": bool(np.array_equal(sound_of(heard), tone)),
                "seconds of sound less those of frames": len(tone) / HERTZ
                - whole.frames.shape[1] / float(whole.fps),
            }
            if frames == lengths[0]:
                again = heard.with_name("again.mkv")
                for kill in range(KILLS):
                    run(command(source, again), seconds * (0.5 + 0.3 * kill) / KILLS)
                run(command(source, again))
                same = torch.equal(read_video(again).frames, whole.frames)
                row["killed five times, the same"] = bool(same)
            rows.append(row)
            print(row, flush=True)
    if not arguments.quick:
        save(
            "long-cpu",
            {
                "benchmark": f"restore --window {WINDOW}, problem A, {size}",
                **provenance(torch.device("cpu")),
                "rows": rows,
            },
        )


if __name__ == "__main__":
    main()
