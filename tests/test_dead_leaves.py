"""Procedural training clips: repeatable, in range, moving, and natural in statistics."""

import math

import numpy as np
import pytest
import torch

from deepinv_lvtino.datasets import (
    DeadLeavesVideos,
    dead_leaves_clip,
    dead_leaves_pool,
)
from deepinv_lvtino.datasets.dead_leaves import sheets, videos

SIZE = 96


def use(patch, count, size):
    patch.setattr(sheets, "NUM_SHEETS", count)
    patch.setattr(sheets, "SHEET_SIZE", size)
    sheets.sheet.cache_clear()


@pytest.fixture(autouse=True)
def small_sheets(monkeypatch):
    """Fewer and smaller sheets than a training uses, to keep the tests quick."""
    use(monkeypatch, 3, 200)
    yield
    sheets.sheet.cache_clear()


@pytest.fixture(scope="module")
def clips():
    with pytest.MonkeyPatch.context() as patch:
        use(patch, 12, sheets.SHEET_SIZE)
        stack = [dead_leaves_clip(i, 4, SIZE, SIZE, seed=1) for i in range(32)]
    return torch.stack(stack)


def test_repeatable_and_distinct():
    clip = dead_leaves_clip(5, 3, 20, 24, seed=2)
    assert clip.shape == (3, 3, 20, 24)
    assert clip.dtype == torch.float32
    state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    sheets.sheet.cache_clear()
    dead_leaves_clip(6, 3, 20, 24, seed=2)  # what was drawn before does not matter
    assert torch.equal(dead_leaves_clip(5, 3, 20, 24, seed=2), clip)
    assert not torch.equal(dead_leaves_clip(6, 3, 20, 24, seed=2), clip)
    assert not torch.equal(dead_leaves_clip(5, 3, 20, 24, seed=3), clip)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert np.array_equal(np.random.get_state()[1], state[1])  # noqa: NPY002


@pytest.mark.parametrize("size", [(1, 1, 1), (2, 1, 40), (1, 37, 2), (2, 130, 240)])
def test_any_size(size):
    """Also frames larger than the sheets, which then are reflected."""
    for index in range(6):
        clip = dead_leaves_clip(index, *size)
        assert clip.shape == (3, *size)
        assert clip.isfinite().all()


def test_range_and_variety(clips):
    assert clips.min() >= 0 and clips.max() <= 1
    assert clips.flatten(1).std(dim=1).median() > 0.08
    means = clips.flatten(1).mean(dim=1)
    assert means.std() > 0.05  # dark and bright scenes
    assert (clips == 0).float().mean() < 0.05
    assert (clips == 1).float().mean() < 0.05


def test_some_clips_move_and_some_stand_still(clips):
    """Sensor grain alone, 0.01 at most, does not count as motion."""
    change = clips.diff(dim=2).square().flatten(1).mean(dim=1).sqrt()
    assert (change > 0.03).float().mean() > 0.4
    assert change.min() < 0.015  # 0.01 sqrt 2


def test_objects_move_against_the_background():
    """No shift of the whole frame explains what happens: layers have their own motion."""
    left = []
    for index in range(20):
        first, second = dead_leaves_clip(index, 2, 64, 64, seed=7).mean(0)
        if (second - first).square().mean() < 1e-3:
            continue  # hardly moves
        shifts = [(i, j) for i in range(-8, 9) for j in range(-8, 9)]
        errors = torch.stack(
            [(second.roll(s, (0, 1)) - first)[8:-8, 8:-8].square() for s in shifts]
        )
        best = errors.mean((1, 2)).argmin()
        apart = errors[best] > 0.01
        left.append(bool(0.02 < apart.float().mean() < 0.6))
    assert len(left) >= 5
    assert sum(left) >= 3


def rings(frames):
    """Points (log frequency, log power) of the mean spectrum, in eight rings."""
    window = torch.hann_window(SIZE, periodic=False, dtype=torch.float64)
    frames = frames - frames.mean(dim=(-2, -1), keepdim=True)
    power = torch.fft.fft2(frames * window * window[:, None]).abs().square()
    power = (power / power.sum(dim=(-2, -1), keepdim=True)).mean(0)
    axis = torch.fft.fftfreq(SIZE, dtype=torch.float64)
    radius = torch.hypot(axis[:, None], axis[None])
    edges = np.geomspace(1 / 24, 0.45, 9)
    points = []
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        ring = (radius >= low) & (radius < high)
        points.append((math.log(radius[ring].mean()), math.log(power[ring].mean())))
    return np.array(points).T


def test_spectrum_of_natural_images(clips):
    """Power near f^-2.4, the value of sharp real video, at large and small scales."""
    frequency, power = rings(clips[:, :, 0].mean(1).double())
    assert -2.8 < np.polyfit(frequency, power, 1)[0] < -2.2
    assert -3.0 < np.polyfit(frequency[:4], power[:4], 1)[0] < -1.9
    assert -3.4 < np.polyfit(frequency[4:], power[4:], 1)[0] < -1.9


@pytest.mark.parametrize("axis", [-1, -2])
def test_heavy_tailed_gradients(clips, axis):
    """A Gaussian has a kurtosis of 3; scenes have flat regions and hard edges."""
    gradient = clips.mean(1).double().diff(dim=axis)
    kurtosis = (gradient**4).mean() / (gradient**2).mean() ** 2
    assert 8 < kurtosis < 40
    flat = (gradient.abs() < 0.01).double().mean()
    assert 0.2 < flat < 0.6


def test_low_chroma(clips):
    grey = clips.mean(dim=1, keepdim=True)
    assert (clips - grey).var() < 0.15 * grey.var()


class TestVideos:
    def test_items_are_the_clips(self):
        videos = DeadLeavesVideos(3, 2, 12, 16, seed=4, first=7)
        assert len(videos) == 3
        last = dead_leaves_clip(9, 2, 12, 16, seed=4)
        assert torch.equal(videos[2], last)
        assert torch.equal(videos[-1], last)
        assert len(list(videos)) == 3  # iteration ends
        with pytest.raises(IndexError, match="`index` must be below 3; got 3"):
            videos[3]

    def test_loader(self):
        videos = DeadLeavesVideos(4, 2, 12, 16)
        batches = list(torch.utils.data.DataLoader(videos, batch_size=2))
        assert [batch.shape for batch in batches] == [(2, 3, 2, 12, 16)] * 2
        assert torch.equal(batches[1][0], videos[2])

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"num_clips": 0}, "`num_clips` must be at least 1; got 0"),
            ({"num_frames": 0}, "`num_frames` must be at least 1"),
            ({"first": -1}, "`first` must be 0 or positive; got -1"),
            ({"seed": -2}, "`seed` must be 0 or positive"),
        ],
    )
    def test_wrong_arguments(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            DeadLeavesVideos(**{"num_clips": 2, **arguments})


class TestPool:
    def test_holds_the_clips(self, tmp_path):
        threads = torch.get_num_threads()
        path = dead_leaves_pool(
            tmp_path / "pool.npy", 3, 2, 12, 16, seed=4, first=7, workers=1
        )
        assert torch.get_num_threads() == threads
        assert [file.name for file in tmp_path.iterdir()] == ["pool.npy"]
        pool = np.load(path, mmap_mode="r")
        assert pool.shape == (3, 3, 2, 12, 16)
        assert pool.dtype == np.uint8
        clip = dead_leaves_clip(9, 2, 12, 16, seed=4)
        assert np.abs(pool[2] / 255 - clip.numpy()).max() <= 0.5001 / 255

    def test_same_with_any_number_of_workers(self, tmp_path, monkeypatch):
        monkeypatch.undo()  # processes of their own know nothing of the smaller sheets
        sheets.sheet.cache_clear()
        monkeypatch.setattr(videos, "_PART", 1)
        pools = [
            np.load(
                dead_leaves_pool(tmp_path / f"{n}.npy", 3, 1, 6, 8, workers=n)
            ).tobytes()
            for n in (1, 2)
        ]
        assert pools[0] == pools[1]

    def test_failure_leaves_the_old_file(self, tmp_path, monkeypatch):
        path = dead_leaves_pool(tmp_path / "pool.npy", 2, 1, 6, 8, workers=1)
        before = path.read_bytes()

        def fail(*_args, **_options):
            msg = "out of power"
            raise RuntimeError(msg)

        monkeypatch.setattr(videos, "dead_leaves_clip", fail)
        with pytest.raises(RuntimeError, match="out of power"):
            dead_leaves_pool(path, 2, 1, 6, 8, workers=1)
        assert path.read_bytes() == before

    @pytest.mark.parametrize("name", ["num_clips", "height", "workers"])
    def test_wrong_sizes(self, tmp_path, name):
        with pytest.raises(ValueError, match=f"`{name}` must be at least 1; got 0"):
            dead_leaves_pool(tmp_path / "pool.npy", **{"num_clips": 2, name: 0})
        assert not any(tmp_path.iterdir())

    def test_wrong_numbers(self, tmp_path):
        with pytest.raises(ValueError, match="`first` must be 0 or positive"):
            dead_leaves_pool(tmp_path / "pool.npy", 2, first=-1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_frames": 0}, "`num_frames` must be at least 1"),
        ({"height": 0}, "`height` must be at least 1"),
        ({"width": -3}, "`width` must be at least 1; got -3"),
        ({"index": -1}, "`index` must be 0 or positive"),
        ({"seed": -1}, "`seed` must be 0 or positive"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        dead_leaves_clip(**arguments)


def test_grain_can_be_left_out():
    """Some clips have grain, of at most a hundredth; the others are the same without."""
    grainy = 0
    for index in range(12):
        with_grain = dead_leaves_clip(index, 2, 32, 32)
        without = dead_leaves_clip(index, 2, 32, 32, grain=False)
        inside = (without > 0.05) & (without < 0.95)
        difference = (with_grain - without)[inside]
        if float(difference.abs().max()) > 0:
            grainy += 1
            assert 5e-4 < float(difference.std()) < 0.012
            assert float(difference.mean()) == pytest.approx(0, abs=2e-3)
    assert 1 <= grainy <= 8
