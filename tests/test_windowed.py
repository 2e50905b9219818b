r"""Windows of time: exact where frames are apart, continuous where they are not."""

from __future__ import annotations

import pytest
import torch
from deepinv.models import Reconstructor
from deepinv.physics import Inpainting

from deepinv_lvtino import LVTINO, Schedule, make_problem
from deepinv_lvtino.cli import main
from deepinv_lvtino.datasets import (
    StoredVideo,
    procedural_clip,
    read_video,
    write_video,
)
from deepinv_lvtino.datasets._stored import Frames
from deepinv_lvtino.models import spectral_image, spectral_video
from deepinv_lvtino.optim import FrameNoise, LongPhysics, Windowed
from deepinv_lvtino.optim.long import TemporalRows, temporal_matrix
from deepinv_lvtino.optim.windows import plan, plan_both, scene_cuts
from deepinv_lvtino.physics import (
    FramewisePhysics,
    SeparableVideoPhysics,
    TemporalBlur,
)
from helpers import psnr, rand, translating


class PseudoInverse(Reconstructor):
    def forward(self, y, physics):
        return physics.A_dagger(y)


class Closest(Reconstructor):
    """The video nearest to grey that explains the measurement."""

    def forward(self, y, physics):
        return physics.prox_l2(torch.full_like(physics.A_adjoint(y), 0.5), y, 1e5)


def sr4(frames):
    return make_problem("sr4", (3, frames, 16, 24), dtype=torch.float64)


@pytest.mark.parametrize("overlap", [0, 1, 4])
@pytest.mark.parametrize("frames", [5, 8, 40])
def test_frames_by_themselves_are_exact(frames, overlap):
    physics = sr4(23)
    y = rand(2, *physics.measurement_size)
    found = Windowed(PseudoInverse(), frames, overlap)(y, physics)
    torch.testing.assert_close(found, physics.A_dagger(y), rtol=0, atol=1e-9)
    image = Inpainting((3, 16, 24), mask=0.5)
    framewise = FramewisePhysics(image)
    y = framewise.A(rand(1, 3, 23, 16, 24, dtype=torch.float32))
    found = Windowed(PseudoInverse(), frames, overlap)(y, framewise)
    assert torch.equal(found, framewise.A_dagger(y))


@pytest.mark.parametrize("name", ["A", "C"])
def test_groups_of_frames_are_exact(name):
    """Every measured frame is a mean of frames of its own."""
    physics = make_problem(name, (1, 41, 16, 24), dtype=torch.float64)
    y = physics.A(rand(1, *physics.img_size))
    found = Windowed(PseudoInverse(), frames=17, overlap=0)(y, physics)
    torch.testing.assert_close(found, physics.A_dagger(y), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["A", "B", "sr4-temporal", "deblur-temporal"])
@pytest.mark.parametrize("overlap", [0, 5])
def test_windows_explain_the_whole_measurement(name, overlap):
    """Shares of frames before a window are subtracted with the right weights."""
    physics = make_problem(
        name, (1, 41, 16, 24), 0.001, time_border="replicate", dtype=torch.float64
    )
    x = translating(41, 16, 24, speed=1)[:, :1].double()
    y = physics.A(x)
    windowed = Windowed(Closest(), frames=16, overlap=overlap, cuts=False)
    found = windowed(y, physics)
    assert found.shape == x.shape
    whole = Closest()(y, physics)
    assert psnr(found, x) > psnr(whole, x) - 2.0
    # every frame is decided once, in order
    pieces = list(windowed.stream(y, physics))
    assert torch.equal(torch.cat(pieces, dim=2), found)
    assert len(pieces) > 2


@pytest.mark.parametrize("border", ["replicate", "reflect", "constant"])
def test_plan_covers_frames_and_measurements(border):
    matrix = TemporalBlur((1, 50, 1, 1), 7, padding=border).temporal
    windows = plan(matrix, 17, 4)
    assert windows[0].start == 0
    assert windows[-1].stop == 50
    assert windows[-1].measured[1] == 50
    for before, after in zip(windows[:-1], windows[1:], strict=True):
        assert after.start <= before.stop
        assert before.stop - after.start == after.known == 4
        assert after.measured[0] <= before.measured[1]
        # all that a window has measured lies before its end
        seen = matrix[: before.measured[1]].abs().sum(0).nonzero().max()
        assert seen < before.stop


def test_cuts_end_windows():
    scenes = [translating(12, 32, 48, speed=1, seed=seed) for seed in (1, 2)]
    scenes[1] = 1 - 0.7 * scenes[1]
    x = torch.cat(scenes, dim=2)
    assert scene_cuts(x) == [12]
    assert scene_cuts(scenes[0]) == []
    assert scene_cuts(rand(1, 3, 9, 32, 48, dtype=torch.float32)) == []
    windows = plan(torch.eye(24), 8, 2, [12])
    edges = {window.start for window in windows} | {window.stop for window in windows}
    assert 12 in edges
    assert all(w.stop <= 12 or w.start >= 12 for w in windows)
    assert next(w for w in windows if w.start == 12).known == 0
    physics = make_problem("sr4", tuple(x.shape[1:]))
    found = Windowed(PseudoInverse(), 8, 2)(physics.A(x), physics)
    torch.testing.assert_close(found, physics.A_dagger(physics.A(x)))


def test_noise_belongs_to_frames():
    noise = FrameNoise(3)
    whole = noise.of(0, 20)("k0/video", torch.empty(1, 2, 20, 4, 4))
    part = noise.of(8, 9)("k0/video", torch.empty(1, 2, 9, 4, 4))
    assert torch.equal(part, whole[:, :, 8:17])
    other = noise.of(8, 9)("k1/video", torch.empty(1, 2, 9, 4, 4))
    assert not torch.equal(part, other)
    shared = [
        noise.of(start, 9)("k0/image", torch.empty(1, 2, 1, 4, 4)) for start in (0, 8)
    ]
    assert torch.equal(*shared)
    flat = noise.of(0, 400)("k0/video", torch.empty(1, 4, 400, 8, 8)).flatten()
    assert abs(float(flat.mean())) < 0.01
    assert abs(float(flat.var()) - 1) < 0.02


def test_the_sampler_in_windows_is_near_the_whole_and_has_no_seam():
    x = translating(33, 32, 48, speed=1)
    physics = make_problem(
        "A", tuple(x.shape[1:]), rng=torch.Generator().manual_seed(1)
    )
    y = physics(x)
    schedule = Schedule.calibrated(0.01, 0.9, 2, init="tv")
    solver = LVTINO(spectral_video(), spectral_image(), schedule=schedule, seed=0)
    whole = solver(y, physics)
    found = Windowed(solver, frames=16, overlap=4)(y, physics)
    assert psnr(found, x) > psnr(whole, x) - 0.6
    error = (found - x).diff(dim=2).square().mean(dim=(0, 1, 3, 4)).sqrt()
    seams = [11, 12, 15, 23, 24, 27]
    assert error[seams].mean() < 1.25 * error.mean()
    again = Windowed(solver, frames=16, overlap=4)(y, physics)
    assert torch.equal(again, found)


BOTH = {"order": "both"}


@pytest.mark.parametrize("overlap", [0, 1, 4])
@pytest.mark.parametrize("frames", [8, 9, 40])
def test_frames_by_themselves_are_exact_in_both_directions(frames, overlap):
    physics = sr4(23)
    y = rand(2, *physics.measurement_size)
    found = Windowed(PseudoInverse(), frames, overlap, **BOTH)(y, physics)
    torch.testing.assert_close(found, physics.A_dagger(y), rtol=0, atol=1e-9)
    framewise = FramewisePhysics(Inpainting((3, 16, 24), mask=0.5))
    y = framewise.A(rand(1, 3, 23, 16, 24, dtype=torch.float32))
    found = Windowed(PseudoInverse(), frames, overlap, **BOTH)(y, framewise)
    torch.testing.assert_close(found, framewise.A_dagger(y))


@pytest.mark.parametrize("name", ["A", "C"])
def test_groups_of_frames_are_exact_in_both_directions(name):
    physics = make_problem(name, (1, 41, 16, 24), dtype=torch.float64)
    y = physics.A(rand(1, *physics.img_size))
    found = Windowed(PseudoInverse(), frames=17, overlap=0, **BOTH)(y, physics)
    torch.testing.assert_close(found, physics.A_dagger(y), rtol=0, atol=1e-9)


class Truth(Reconstructor):
    """Knows the video, and checks that what it is given is a measurement of it."""

    def __init__(self, x, windows):
        super().__init__()
        self.x, self.left = x, list(windows)

    def forward(self, y, physics):
        window = self.left.pop(0)
        part = self.x[:, :, window.start : window.stop]
        torch.testing.assert_close(physics.A(part), y, rtol=0, atol=1e-9)
        # the known frames are data, in the sequence of time
        known = window.known + window.after
        assert y.shape[2] == window.measured[1] - window.measured[0] + known
        return part


@pytest.mark.parametrize("border", ["replicate", "reflect"])
@pytest.mark.parametrize("name", ["A", "B", "sr4-temporal", "deblur-temporal"])
@pytest.mark.parametrize(("frames", "overlap"), [(17, 0), (17, 5), (16, 4)])
@pytest.mark.parametrize("order", ["causal", "both"])
def test_data_of_a_window_are_those_of_the_truth(name, border, frames, overlap, order):
    """The shares of frames outside are right to the last digit, on both sides."""
    physics = make_problem(
        name, (1, 61, 16, 24), 0.001, time_border=border, dtype=torch.float64
    )
    x = translating(61, 16, 24, speed=1)[:, :1].double()
    y = physics.A(x)
    plans = {"causal": plan, "both": plan_both}
    windows = plans[order](temporal_matrix(physics, 0), frames, overlap)
    solver = Truth(x, windows)
    found = Windowed(solver, frames, overlap, cuts=False, order=order)(y, physics)
    torch.testing.assert_close(found, x, rtol=0, atol=1e-9)
    assert not solver.left


@pytest.mark.parametrize("border", ["replicate", "reflect", "constant"])
@pytest.mark.parametrize("total", [17, 41, 50, 56, 61])
def test_both_directions_cover_frames_and_measurements(border, total):
    matrix = TemporalBlur((1, total, 1, 1), 7, padding=border).temporal
    windows = plan_both(matrix, 17, 4)
    decided = torch.zeros(total, dtype=torch.bool)
    measured = torch.zeros(total, dtype=torch.bool)
    for window in windows:
        before = decided[: window.start].any() and decided[window.start - 1]
        assert window.known == int(
            decided[window.start : window.stop - window.after].sum()
        )
        assert window.after == int(
            decided[window.stop - window.after : window.stop].sum()
        )
        assert window.fresh == (window.known == window.after == 0)
        assert bool(before) == (window.known > 0)
        decided[window.start : window.stop] = True
        rows = matrix[slice(*window.measured)].abs().sum(0).nonzero().flatten()
        assert bool(
            decided[rows].all()
        )  # nothing is asked of frames that are not known
        measured[slice(*window.measured)] = True
    assert bool(decided.all() & measured.all())
    if total > 40:
        assert any(window.known and window.after for window in windows)


def test_scenes_are_apart_in_both_directions():
    scenes = [translating(24, 32, 48, speed=1, seed=seed) for seed in (1, 2)]
    scenes[1] = 1 - 0.7 * scenes[1]
    x = torch.cat(scenes, dim=2)
    physics = make_problem("A", tuple(x.shape[1:]), time_border="replicate")
    solver = Windowed(Closest(), 8, 4, order="both")
    found = solver(physics.A(x), physics)
    for place, scene in enumerate(scenes):
        alone = make_problem("A", tuple(scene.shape[1:]), time_border="replicate")
        part = found[:, :, 24 * place : 24 * place + 24]
        torch.testing.assert_close(part, solver(alone.A(scene), alone))


def test_both_directions_are_near_the_whole_and_have_no_seam():
    x = translating(33, 32, 48, speed=1)
    physics = make_problem(
        "A", tuple(x.shape[1:]), rng=torch.Generator().manual_seed(1)
    )
    y = physics(x)
    schedule = Schedule.calibrated(0.01, 0.9, 2, init="tv")
    solver = LVTINO(spectral_video(), spectral_image(), schedule=schedule, seed=0)
    whole = solver(y, physics)
    found = Windowed(solver, frames=16, overlap=4, order="both")(y, physics)
    assert psnr(found, x) > psnr(whole, x) - 0.6
    error = (found - x).diff(dim=2).square().mean(dim=(0, 1, 3, 4)).sqrt()
    seams = [11, 12, 15, 23, 24, 27]
    assert error[seams].mean() < 1.25 * error.mean()


def test_both_directions_and_what_contradicts_them():
    physics = sr4(23)
    y = rand(1, *physics.measurement_size)
    windowed = Windowed(PseudoInverse(), 8, 2, order="both")
    with pytest.raises(ValueError, match="out of their sequence"):
        next(windowed.stream(y, physics))
    with pytest.raises(ValueError, match="out of their sequence"):
        next(windowed.resume(y, physics))
    with pytest.raises(ValueError, match="`order` must be 'causal' or 'both'"):
        Windowed(PseudoInverse(), 8, 2, order="backwards")
    with pytest.raises(ValueError, match="meets the next but one"):
        Windowed(PseudoInverse(), 8, 6, order="both")(y, physics)
    long = make_problem("B", (3, 30, 16, 16), time_border="replicate")
    with pytest.raises(ValueError, match="`frames` must be larger"):
        Windowed(PseudoInverse(), 5, 2, order="both")(
            long.A(rand(1, *long.img_size, dtype=torch.float32)), long
        )


def test_what_cannot_be_cut_is_refused():
    circular = make_problem("B", (3, 25, 16, 16))
    with pytest.raises(NotImplementedError, match="circular in time"):
        temporal_matrix(circular, 25)
    jpeg = make_problem("jpeg", (3, 25, 16, 16))
    with pytest.raises(NotImplementedError, match="JPEGCompression"):
        Windowed(LVTINO())(torch.rand(1, 3, 25, 16, 16), jpeg)

    def growing(n):
        """A longer and longer exposure."""
        return SeparableVideoPhysics((3, n, 8, 8), temporal=torch.ones(n, n).tril())

    with pytest.raises(NotImplementedError, match="cannot be made longer"):
        LongPhysics(growing, 200)


@pytest.mark.parametrize("name", ["A", "B", "C", "sr4-temporal", "sr4"])
@pytest.mark.parametrize("border", ["replicate", "reflect"])
@pytest.mark.parametrize("frames", [61, 200, 203])
def test_long_operators_are_those_of_the_whole_video(name, border, frames):
    def make(n):
        return make_problem(name, (3, n, 8, 8), time_border=border)

    whole = make(frames)
    found = LongPhysics(make, frames)
    assert found.img_size == whole.img_size
    assert found.rows.measured == whole.measurement_size[1]
    matrix = temporal_matrix(whole, 0)
    rows = found.rows
    assert torch.equal(rows.block((0, len(matrix)), (0, frames)), matrix)
    part = rows.block((5, 8), (3, 40))
    assert torch.equal(part, matrix[5:8, 3:40])
    assert rows.spans() == TemporalRows(matrix).spans()


@pytest.mark.parametrize("name", ["A", "B"])
def test_long_videos_are_restored_as_whole_ones_and_go_on_where_they_stopped(name):
    def make(n):
        return make_problem(name, (3, n, 16, 16), time_border="replicate")

    x = translating(90, 16, 16, speed=1)
    physics, long = make(90), LongPhysics(make, 90)
    y = physics(x)
    windowed = Windowed(Closest(), frames=17, overlap=4)
    expected = windowed(y, physics)
    stored = StoredVideo(Frames(), 25)
    for frame in y[0].unbind(1):
        stored.frames.append(frame)
    pieces = list(windowed.resume(stored, long))
    assert torch.equal(torch.cat([piece for piece, _ in pieces], dim=2), expected)
    state = pieces[2][1]
    assert state.windows == 3
    again = [piece for piece, _ in windowed.resume(stored, long, state)]
    before = [piece for piece, _ in pieces[:3]]
    assert torch.equal(torch.cat([*before, *again], dim=2), expected)


@pytest.mark.parametrize("name", ["jpeg", "inpaint"])
def test_frames_by_themselves_of_any_operator(name):
    def make(n):
        return make_problem(name, (3, n, 16, 16))

    x = translating(20, 16, 16, speed=1)
    y = make(20)(x)
    found = Windowed(PseudoInverse(), 7, 0)(y, LongPhysics(make, 20))
    assert torch.equal(found, make(20).A_dagger(y))
    with pytest.raises(ValueError, match="`overlap` must be below"):
        Windowed(PseudoInverse(), frames=4, overlap=4)


def test_the_command_restores_by_windows(tmp_path, capsys):
    source = write_video(
        tmp_path / "y.mkv", procedural_clip(6, 16, 24), 6, lossless=True
    )
    common = [
        "restore",
        str(source),
        "--problem",
        "A",
        "--steps",
        "1",
        "--device",
        "cpu",
    ]
    options = ["-o", str(tmp_path / "x.mkv"), "--window", "16", "--overlap", "4"]
    assert main([*common, *options]) == 0
    assert "frames 1 to 12 of 24" in capsys.readouterr().out
    assert read_video(tmp_path / "x.mkv").frames.shape == (3, 24, 64, 96)
    for wrong, message in (
        (["--overlap", "4"], "give their frames with --window"),
        (["--window", "16", "--samples", "2"], "--window gives one sample"),
        (["--window", "4", "--overlap", "4"], "must be below"),
    ):
        assert main([*common, "-o", str(tmp_path / "z.mkv"), *wrong]) == 2
        assert message in capsys.readouterr().err
    short = ["--problem", "sr4-temporal", "--window", "3"]
    assert main([*common, "-o", str(tmp_path / "z.mkv"), *short]) == 2
    assert "must be larger" in capsys.readouterr().err
    circular = ["--problem", "B", "--time-border", "circular", "--window", "5"]
    assert main([*common, "-o", str(tmp_path / "z.mkv"), *circular]) == 2
    assert "--time-border" in capsys.readouterr().err
