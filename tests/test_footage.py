"""Training footage: what is held out, known motions, pools, one call to weights."""

import json
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

from deepinv_lvtino.datasets import read_video, write_video
from deepinv_lvtino.datasets._encode import encode_file
from deepinv_lvtino.datasets.dead_leaves import sheets
from deepinv_lvtino.models import TinyNetwork, load_tiny
from deepinv_lvtino.training import PoolClips, TrainingOptions
from deepinv_lvtino.training import pool as pool_module
from deepinv_lvtino.training.__main__ import main
from deepinv_lvtino.training.camera import moving_photograph, shake, shrunk, view
from deepinv_lvtino.training.evaluate import (
    denoising_psnr,
    held_out_pool,
    jump_error,
    middle,
)
from deepinv_lvtino.training.footage import Footage, draw, find_footage
from deepinv_lvtino.training.pool import crop, footage_crops, footage_pool, read_pool
from deepinv_lvtino.training.run import Run, better, train
from test_tiny import SMALL, random_network
from test_training import GaussianNetwork


@pytest.fixture(autouse=True)
def small_sheets(monkeypatch):
    monkeypatch.setattr(sheets, "NUM_SHEETS", 2)
    monkeypatch.setattr(sheets, "SHEET_SIZE", 200)
    sheets.sheet.cache_clear()
    yield
    sheets.sheet.cache_clear()


def smooth(height, width, seed=0):
    """A smooth random picture, shape (3, H, W), in [0, 1]."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 5, 7, generator=rng)
    size = (height, width)
    return torch.nn.functional.interpolate(
        coarse, size, mode="bicubic", align_corners=True
    )[0].clamp(0, 1)


def ramp(height, width, across, down, start=0.2):
    """A picture whose value rises evenly; what a motion does to it is known exactly."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    one = start + across * (x + 0.5) + down * (y + 0.5)
    return one.expand(3, -1, -1).float()


def write_photo(path, picture):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((picture * 255).byte().permute(1, 2, 0).numpy()).save(path)


def grey_clip(value, frames=4, height=40, width=48):
    return torch.full((3, frames, height, width), value)


@pytest.fixture
def own_folder(tmp_path):
    folder = tmp_path / "holiday"
    write_video(folder / "beach/one.mp4", grey_clip(0.4), 24)
    write_video(folder / "town/two.mp4", grey_clip(0.6), 24)
    write_photo(folder / "town/still.png", smooth(40, 44))
    for index in range(4):
        write_photo(folder / f"walk/frames/{index}.png", smooth(40, 44, seed=1))
    write_photo(folder / ".thumbnails/small.png", smooth(4, 4))
    return folder


def test_all_of_a_folder_is_used(own_folder):
    training, measuring = find_footage(own_folder)
    names = {one.path.relative_to(own_folder).as_posix(): one.photo for one in training}
    assert names == {
        "beach/one.mp4": False,
        "town/two.mp4": False,
        "town/still.png": True,
        "walk/frames": False,
    }
    assert measuring == []


def test_patterns_hold_out(own_folder):
    training, measuring = find_footage(own_folder, ["town/*"])
    assert {one.path.name for one in measuring} == {"two.mp4", "still.png"}
    assert {one.path.name for one in training} == {"one.mp4", "frames"}


def test_nothing_to_train_on(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds nothing to train on"):
        find_footage(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        find_footage(tmp_path / "missing")


@pytest.fixture
def collection(tmp_path):
    clips = [
        "sam2__bedroom-0",
        "flutter_butterfly-1",
        "moviepy__chaplin-0",
        "sample-videos__milk-0",
        "sample-videos__yes-1",
        "sample-videos__car-detection-0",
        "sample-videos__car-detection-1",
    ]
    photos = ["0a", "1b", "2c"]
    index = {
        "clips": [{"file": f"clips/{name}.mp4"} for name in clips],
        "photos": [
            {"file": f"photos/{name}.jpg", "flower": name == "2c"} for name in photos
        ],
    }
    for entry in index["clips"] + index["photos"]:
        path = tmp_path / entry["file"]
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "index.json").write_text(json.dumps(index))
    return tmp_path


def test_rules_of_a_collection(collection):
    training, measuring = find_footage(collection)
    assert {one.path.stem for one in measuring} == {
        "sam2__bedroom-0",
        "flutter_butterfly-1",
        "0a",
    }
    scenes = {one.path.stem: one.scene for one in training if not one.photo}
    assert scenes == {
        "sample-videos__milk-0": "sample-videos",
        "sample-videos__yes-1": "sample-videos",
        "sample-videos__car-detection-0": "sample-videos__car-detection",
        "sample-videos__car-detection-1": "sample-videos__car-detection",
    }
    assert {one.path.stem: one.flower for one in training if one.photo} == {
        "1b": False,
        "2c": True,
    }


def test_a_missing_file_is_named(collection):
    (collection / "photos/1b.jpg").unlink()
    with pytest.raises(ValueError, match=r"1b\.jpg, which index\.json names"):
        find_footage(collection)


def test_scenes_are_drawn_equally_and_few_flowers(tmp_path):
    clips = [Footage(tmp_path / f"{k}", False, "room") for k in range(20)]
    clips.append(Footage(tmp_path / "street", False, "street"))
    drawn = draw(clips, 2000, np.random.default_rng(0))
    streets = sum(one.scene == "street" for one in drawn)
    assert streets == pytest.approx(1000, abs=100)
    photos = [Footage(tmp_path / f"{k}", True, f"{k}", k >= 30) for k in range(300)]
    drawn = draw(photos, 3000, np.random.default_rng(0))
    assert sum(one.flower for one in drawn) == pytest.approx(1000, abs=120)


# --- motions ------------------------------------------------------------------------


def path_of(shift, angle=0.0, zoom=1.0):
    shift = np.asarray(shift, dtype=float)
    return shift, np.full(len(shift), float(angle)), np.full(len(shift), float(zoom))


def test_a_pan_moves_the_picture_by_its_displacement():
    photo = smooth(60, 70)
    shifts = [(0, 0), (3, -2), (6, -4)]
    frames = view(photo, path_of(shifts), 1.0, np.array([35, 30]), (20, 30), 1)
    for frame, (right, down) in zip(frames, shifts, strict=True):
        top, left = 30 - 10 - down, 35 - 15 - right
        expected = photo[:, top : top + 20, left : left + 30]
        torch.testing.assert_close(frame, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("oversample", [1, 2, 3])
@pytest.mark.parametrize(
    ("angle", "zoom", "scale"),
    [(0, 1, 2.5), (0.3, 1, 1), (0, 1.5, 1), (-0.2, 0.8, 1.5)],
)
def test_turn_and_zoom_against_the_closed_form(angle, zoom, scale, oversample):
    """
    A turned and magnified ramp is a ramp again.

    Bicubic interpolation bends it by a twelfth of its slope; a tenth of a pixel is less.
    """
    across, down = 0.002, 0.003
    photo = ramp(90, 110, across, down)
    centre = np.array([52.0, 44.0])
    path = path_of([(1.5, -0.5)], angle, zoom)
    (frame,) = view(photo, path, scale, centre, (12, 16), oversample)
    y, x = np.mgrid[:12, :16] + 0.5
    x, y = x - 8 - 1.5, y - 6 + 0.5
    # the layer turns by the angle: the picture is seen turned back
    u = (np.cos(angle) * x + np.sin(angle) * y) / zoom
    v = (-np.sin(angle) * x + np.cos(angle) * y) / zoom
    expected = 0.2 + across * (52 + scale * u) + down * (44 + scale * v)
    torch.testing.assert_close(
        frame, torch.from_numpy(expected).float().expand(3, -1, -1), rtol=0, atol=4e-4
    )


def test_shrinking_removes_what_would_alias():
    """Stripes finer than a frame's pixels become grey, not coarse stripes."""
    stripes = (torch.arange(120) % 2).float().expand(3, 90, -1)
    path, size = path_of([(0, 0)]), (20, 30)
    contrasts = []
    for photo, scale in ((stripes, 2.9), shrunk(stripes, 2.9)):
        centre = np.array([photo.shape[-1] / 2, photo.shape[-2] / 2])
        frame = view(photo, path, scale, centre, size)
        contrasts.append(float((frame - 0.5).abs().mean()))
    assert contrasts[0] > 0.1
    assert contrasts[1] < 0.01
    photo, scale = shrunk(ramp(90, 120, 0.002, 0.003), 3.0)
    assert photo.shape == (3, 45, 60)
    assert scale == 1.5
    torch.testing.assert_close(
        photo[:, 5:-5, 5:-5],
        ramp(45, 60, 0.004, 0.006)[:, 5:-5, 5:-5],
        rtol=0,
        atol=2e-3,
    )


def test_a_hand_shakes_by_a_few_pixels():
    times = np.arange(40.0)
    for seed in range(5):
        shift, angle, zoom = shake(np.random.default_rng(seed), times)
        assert 0.01 < shift.std() < 3
        assert abs(angle).max() < 0.02
        assert (zoom == 1).all()


def test_no_grain_is_added():
    """A plain photograph stays plain, whatever the camera and the layers do."""
    photo = torch.full((3, 50, 60), 0.4)
    for seed in range(8):
        clip = moving_photograph(photo, 3, (24, 32), np.random.default_rng(seed))
        assert clip.shape == (3, 3, 24, 32)
        torch.testing.assert_close(clip, torch.full_like(clip, 0.4))


def test_photographs_move_and_repeat():
    photo = smooth(64, 80)
    clips = [
        moving_photograph(photo, 4, (24, 24), np.random.default_rng(seed))
        for seed in (0, 0, 1)
    ]
    assert torch.equal(clips[0], clips[1])
    assert not torch.equal(clips[0], clips[2])
    moved = [
        float(
            moving_photograph(photo, 4, (24, 24), np.random.default_rng(k))
            .diff(dim=1)
            .abs()
            .mean()
        )
        for k in range(12)
    ]
    assert sum(m > 1e-3 for m in moved) >= 6


def test_a_photograph_smaller_than_a_frame():
    with pytest.raises(ValueError, match=r"`photo` must be at least"):
        moving_photograph(smooth(20, 40), 3, (24, 24), np.random.default_rng(0))


def test_crops_of_a_clip_are_shrunk_by_one_to_three():
    """On a ramp in space and time the slopes tell the factor and the stride."""
    clip = (
        ramp(80, 96, 0.004, 0.003, 0.05)[:, None]
        + torch.arange(9.0).view(-1, 1, 1) / 64
    )
    factors, strides = [], []
    for seed in range(30):
        piece = crop(clip, 4, 24, np.random.default_rng(seed))
        assert piece.shape == (3, 4, 24, 24)
        inside = piece[..., 4:-4, 4:-4]
        factors.append(float(inside.diff(dim=-1).mean()) / 0.004)
        assert float(inside.diff(dim=-2).mean()) / 0.003 == pytest.approx(
            factors[-1], rel=0.02
        )
        strides.append(round(float(inside.diff(dim=1).mean()) * 64, 2))
    assert 0.98 < min(factors) < 1.3
    assert 2.6 < max(factors) < 3.02
    assert set(strides) == {1, 2}


def test_a_clip_smaller_than_a_crop():
    with pytest.raises(ValueError, match=r"`frames` must be at least 5x24x24"):
        crop(grey_clip(0.5), 5, 24, np.random.default_rng(0))


# --- pools --------------------------------------------------------------------------


def test_a_pool_holds_the_crops(own_folder, tmp_path):
    path = footage_pool(tmp_path / "pool.mkv", own_folder, 12, 4, 32, seed=3)
    assert not (tmp_path / "pool.part.mkv").exists()
    pool = read_pool(path)
    assert pool.shape == (12, 3, 4, 32, 32)
    assert pool.dtype == np.uint8
    training, _ = find_footage(own_folder)
    crops = torch.stack(list(footage_crops(training, 12, 4, 32, seed=3)))
    error = torch.from_numpy(pool).double() / 255 - crops
    per_crop = error.square().mean(dim=(1, 2, 3, 4))
    assert -10 * torch.log10(per_crop.max()) > 33
    # crops of every kind, and batches come out of the file
    assert PoolClips([path], num_frames=3, size=16).batch(2).shape == (2, 3, 3, 16, 16)


def test_colours_are_not_subsampled(tmp_path):
    """Columns of red and blue, one pixel wide, survive the packing."""
    stripes = torch.zeros(3, 1, 32, 32)
    stripes[0, ..., ::2] = 1
    stripes[2, ..., 1::2] = 1
    image = (stripes[:, 0] * 255).byte().permute(1, 2, 0).numpy()
    options = {"subsample": False, "x264": "keyint=2:min-keyint=2:scenecut=0"}
    args = ((32, 32), Fraction(24), 10, False)
    encode_file(tmp_path / "a.mkv", [image] * 4, *args, **options)
    pool = read_pool(tmp_path / "a.mkv")
    assert pool.shape == (2, 3, 2, 32, 32)
    assert pool[:, 0, :, :, ::2].mean() > 200
    assert pool[:, 0, :, :, 1::2].mean() < 55


def test_a_video_that_is_no_pool(tmp_path):
    image = np.zeros((32, 32, 3), np.uint8)
    args = ((32, 32), Fraction(24), 10, False)
    x264 = "keyint=3:min-keyint=3:scenecut=0"
    encode_file(tmp_path / "a.mkv", [image] * 7, *args, subsample=False, x264=x264)
    with pytest.raises(ValueError, match="do not divide it into clips"):
        read_pool(tmp_path / "a.mkv")


def test_what_is_held_out_does_not_enter_a_pool(tmp_path):
    """The only red clip and the only red photograph are held out."""
    folder = tmp_path / "footage"
    red = torch.tensor([1.0, 0, 0]).view(3, 1, 1, 1)
    write_video(folder / "a/red.mp4", red.expand(-1, 4, 40, 48), 24)
    write_video(folder / "b/grey.mp4", grey_clip(0.5), 24)
    write_photo(folder / "a/red.png", red[:, 0].expand(-1, 40, 40))
    write_photo(folder / "b/grey.png", torch.full((3, 40, 40), 0.5))
    path = footage_pool(
        tmp_path / "pool.mkv", folder, 8, 4, 32, hold_out=["a/*"], shares=(1, 1, 0)
    )
    pool = read_pool(path).astype(float)
    assert abs(pool[:, 0] - pool[:, 1]).max() < 12
    measuring = read_pool(
        held_out_pool(tmp_path / "held.npy", folder, 3, (16, 24), hold_out=["a/*"])
    )
    assert measuring.shape == (1, 3, 3, 16, 24)
    assert measuring[:, 0].min() > 240
    with pytest.raises(FileNotFoundError, match="no clip of"):
        held_out_pool(tmp_path / "held.npy", folder)


@pytest.mark.parametrize(
    "wrong",
    [{"path": "pool.npy"}, {"size": 33}, {"shares": (1, 1)}, {"shares": (0, 0, 0)}],
)
def test_wrong_pools(own_folder, tmp_path, wrong):
    path = tmp_path / wrong.pop("path", "pool.mkv")
    with pytest.raises(ValueError, match=r"`path` must end in|`shares` must be"):
        footage_pool(path, own_folder, **{"num_clips": 2, "num_frames": 3, **wrong})


def test_long_clips_are_read_in_pieces(tmp_path, monkeypatch):
    """Grey levels tell the moments that crops come from: they are spread over the clip."""
    monkeypatch.setattr(pool_module, "_WINDOW_BYTES", 1)
    monkeypatch.setattr(pool_module, "_CROPS_OF_WINDOW", 1)
    levels = torch.linspace(0.1, 0.9, 40).view(1, -1, 1, 1)
    sizes = []

    def reading(path, num_frames=None, start=0):
        clip = read_video(path, num_frames, start)
        sizes.append(clip.frames.shape[1])
        return clip

    monkeypatch.setattr(pool_module, "read_video", reading)
    for suffix in (".mp4", ".mkv"):
        path = write_video(tmp_path / f"long{suffix}", levels.expand(3, -1, 24, 24), 24)
        one = Footage(path, False, "long")
        crops = list(footage_crops([one], 12, 2, 16, shares=(1, 0, 0)))
        moments = [float(piece[:, 0].mean()) for piece in crops]
        assert max(moments) - min(moments) > 0.3
    assert set(sizes) == {4}


def test_footage_that_is_too_small_is_named(own_folder, tmp_path):
    with pytest.raises(ValueError, match=r"one\.mp4: `frames` must be at least"):
        footage_pool(tmp_path / "pool.mkv", own_folder, 20, 5, 32)


# --- measuring and training ---------------------------------------------------------


def test_the_middle_of_a_clip():
    clip = ramp(60, 100, 0.004, 0.002)[:, None].expand(-1, 2, -1, -1)
    small = middle(clip, (20, 30))
    assert small.shape == (3, 2, 20, 30)
    torch.testing.assert_close(small.mean(), clip.mean(), rtol=0, atol=1e-4)
    slope = small[..., 5:-5].diff(dim=-1).mean()
    assert float(slope) == pytest.approx(0.008, rel=0.01)  # shrunk by two
    with pytest.raises(ValueError, match=r"`frames` must be at least"):
        middle(clip, (80, 90))


def test_measured_psnr_of_the_wiener_filter():
    """A network that answers zero is the filter of a Gaussian of variance 1/4."""
    clips = np.random.default_rng(0).integers(0, 255, (2, 3, 3, 16, 24), dtype=np.uint8)
    network = TinyNetwork(SMALL)
    found = denoising_psnr(network, clips, levels=(0.2, 0.5))
    for index, clip in enumerate(clips):
        x = clip.astype(np.float64) / 127.5 - 1
        rng = torch.Generator().manual_seed(0)
        noise = torch.randn(1, *clip.shape, generator=rng)[0].double().numpy()
        for level in (0.2, 0.5):
            sigma = level / (1 - level)
            estimate = (x + sigma * noise) * 0.25 / (0.25 + sigma**2)
            error = np.clip((estimate + 1) / 2, 0, 1) - (x + 1) / 2
            expected = -10 * np.log10((error**2).mean())
            assert found[level][index] == pytest.approx(expected, abs=0.02)


def test_the_exact_jump_has_no_error():
    rng = np.random.default_rng(0)
    clips = rng.integers(100, 150, (1, 3, 2, 16, 16), dtype=np.uint8)
    network = GaussianNetwork(0.2)
    network.config = SMALL
    network.anchor = torch.nn.Parameter(torch.zeros(()))
    errors = jump_error(network, clips, levels=(0.2, 0.5))
    assert max(errors.values()) < 0.02


def test_better_means_a_gain_and_no_loss():
    levels = ("0.1", "0.2", "0.35", "0.5", "0.7")
    before = {f"PSNR at {level}": 25.0 for level in levels}
    jumps = {"jump error at 0.2": 0.03, "jump error at 0.5": 0.1}

    def after(psnr=25.1, **changed):
        return {f"PSNR at {level}": psnr for level in levels} | jumps | changed

    before |= jumps
    assert not better(before, before)
    assert better(before, after())
    assert better(before, after(**{"PSNR at 0.7": 24.96}))
    assert not better(before, after(26.0, **{"PSNR at 0.1": 24.9}))
    # what the sampler uses is the jump
    assert better(before, after(**{"jump error at 0.5": 0.105}))
    assert not better(before, after(26.0, **{"jump error at 0.5": 0.12}))
    assert better(before, after(26.0, **{"jump error at 0.5": 0.12}), jumps=False)


@pytest.fixture
def plain(tmp_path):
    """Pool and held-out clips of plain colours, which are easily told from noise."""
    values = np.random.default_rng(0).integers(30, 220, (12, 3, 1, 1, 1))
    clips = np.broadcast_to(values, (12, 3, 4, 24, 24)).astype(np.uint8)
    np.save(tmp_path / "pool.npy", clips[:9])
    np.save(tmp_path / "held.npy", clips[9:])
    return tmp_path


def plain_run(folder, rate, steps, stage="denoise"):
    options = TrainingOptions(
        batch_size=4,
        steps=steps,
        warmup=5,
        learning_rate=rate,
        adam_rate=rate,
        decay=0.8,
    )
    return Run(
        folder=folder / f"run{rate}",
        pools=[folder / "pool.npy"],
        held_out=folder / "held.npy",
        stage=stage,
        denoise=options,
        crop=(3, 16),
    )


def test_weights_are_exported_only_if_better(plain):
    poor = random_network(SMALL).requires_grad_(True)
    path = train(poor, plain_run(plain, 1e-2, 40))
    entries = [
        json.loads(line)
        for line in (path.parent / "held-out.jsonl").read_text().splitlines()
    ]
    assert [entry["stage"] for entry in entries] == ["start", "end"]
    assert entries[1]["PSNR at 0.5"] > entries[0]["PSNR at 0.5"] + 0.3
    # what was exported is what was measured
    found = denoising_psnr(load_tiny(path).network, np.load(plain / "held.npy"))
    assert np.mean(found[0.5]) == pytest.approx(entries[1]["PSNR at 0.5"], abs=0.05)
    # from there a learning rate that destroys it
    worse = load_tiny(path).network.requires_grad_(True)
    assert train(worse, plain_run(plain, 3.0, 4)) is None


def test_run_is_checked(tmp_path):
    for wrong in ({"stage": "third"}, {"minutes": 0}, {"share": 1}):
        with pytest.raises(ValueError, match=r"`stage` must|`minutes` must"):
            Run(tmp_path, [], **wrong)
    stages = Run(tmp_path, [], minutes=40, share=0.75).stages
    assert [(s.stage, s.minutes) for s in stages] == [
        ("denoise", 30),
        ("consistency", 10),
    ]


def test_command_from_footage_to_weights(own_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pool = ["pool", "--footage", str(own_folder), "-o", "pool.mkv"]
    main([*pool, "--clips", "4", "--frames", "3", "--size", "24"])
    assert not (tmp_path / "pool-held-out.npy").exists()
    np.save("pool-held-out.npy", read_pool("pool.mkv")[:1])
    small = ["--channels", "8", "16", "--blocks", "1", "1", "--init", "random"]
    sizes = ["--frames", "3", "--size", "16", "--batch", "1", "--steps", "2"]
    for kind in ("video", "image"):
        main(["train", "--pool", "pool.mkv", "--kind", kind, *small, *sizes])
        entries = (tmp_path / ".training" / kind / "held-out.jsonl").read_text()
        entries = [json.loads(line) for line in entries.splitlines()]
        assert [entry["stage"] for entry in entries] == ["start", "end"]
        for stage in ("denoise", "consistency"):
            assert (tmp_path / ".training" / kind / stage / "checkpoint.pt").exists()
    assert "held-out" not in capsys.readouterr().err
