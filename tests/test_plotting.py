r"""Pictures: what they show, and that they are written as asked."""

from __future__ import annotations

import pytest
import torch
from matplotlib import pyplot

from deepinv_lvtino import LVTINO, Schedule, make_problem
from deepinv_lvtino.datasets import procedural_clip, read_video
from deepinv_lvtino.plotting import (
    plot_sweeps,
    plot_time_slices,
    sweep_iterates,
    time_slice,
    write_side_by_side,
)
from helpers import rand

SIZE = (3, 4, 16, 20)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    pyplot.close("all")


@pytest.fixture
def video():
    return rand(*SIZE, dtype=torch.float32)


def test_slice_is_the_column_or_row_over_time(video):
    assert torch.equal(time_slice(video, column=7)[:, :, 2], video[:, 2, :, 7])
    assert torch.equal(time_slice(video, row=5)[:, 2], video[:, 2, 5])
    assert torch.equal(time_slice(video), time_slice(video, column=10))
    assert torch.equal(time_slice(video[None], row=-1), time_slice(video, row=15))


def test_slice_refusals(video):
    with pytest.raises(ValueError, match="not both"):
        time_slice(video, column=1, row=1)
    with pytest.raises(ValueError, match="`column` must lie in 0 to 19"):
        time_slice(video, column=20)
    with pytest.raises(ValueError, match="`row` must lie in 0 to 15"):
        time_slice(video, row=-17)
    with pytest.raises(ValueError, match="`video` must be one video"):
        time_slice(torch.stack([video, video]))


@pytest.mark.parametrize("where", ({}, {"column": 3}, {"row": 2}))
def test_slices_figure(video, tmp_path, where):
    path = tmp_path / "new" / "slices.png"
    grey = video[:1]
    figure = plot_time_slices({"ours": grey, "truth": video}, save=path, **where)
    first, *others = figure.axes
    assert [axis.get_title() for axis in others] == ["ours", "truth"]
    assert first.get_title() == "frame 2"
    expected = time_slice(video, **where).permute(1, 2, 0).numpy()
    assert (others[1].images[0].get_array() == expected).all()
    assert (first.images[0].get_array() == video[:, 2].permute(1, 2, 0).numpy()).all()
    line = first.lines[0]
    marked = line.get_ydata() if "row" in where else line.get_xdata()
    assert marked[0] == where.get("row", where.get("column", 10))
    assert path.stat().st_size > 0


def test_figures_need_videos_of_one_size(video):
    with pytest.raises(ValueError, match=r"of one size .*small \(4, 8, 20\)"):
        plot_time_slices({"large": video, "small": video[:, :, :8]})
    with pytest.raises(ValueError, match="one video or more"):
        plot_time_slices({})
    with pytest.raises(ValueError, match="one video or more"):
        plot_sweeps([])
    with pytest.raises(ValueError, match="`frame` must lie in"):
        plot_sweeps([video], frame=4)


def test_iterates_are_the_start_and_every_sweep():
    x = procedural_clip(4, 32, 48)[None]
    physics = make_problem("A", x.shape[1:])
    y = physics(x)
    solver = LVTINO(schedule=Schedule.calibrated(num_steps=2))
    start = torch.full_like(x, 0.5)
    iterates = sweep_iterates(solver, y, physics, seed=3, init=start)
    assert len(iterates) == 3
    assert torch.equal(iterates[0], start)
    assert torch.equal(iterates[2], solver(y, physics, seed=3, init=start))
    # and nothing is left behind
    assert not solver.fixed_point.iterator._forward_hooks


def test_sweeps_figure(video, tmp_path):
    iterates = [torch.full(SIZE, 0.4)[None], video[None] * 0.9]
    figure = plot_sweeps(iterates, reference=video, frame=1, save=tmp_path / "a.png")
    titles = [axis.get_title() for axis in figure.axes]
    error = (0.1 * video[:, 1]).square().mean()
    assert titles[1] == f"sweep 1, {float(-10 * error.log10()):.1f} dB"
    assert titles[0].startswith("start, ")
    assert titles[2] == "reference"
    assert (tmp_path / "a.png").stat().st_size > 0
    both = plot_sweeps({"one": iterates, "two": iterates[:1]})
    assert [axis.get_title() for axis in both.axes] == [
        "one\nstart",
        "sweep 1",
        "two\nstart",
        "",
    ]


@pytest.mark.parametrize("columns", (None, 2))
def test_side_by_side(video, tmp_path, columns):
    others = [torch.zeros(SIZE), torch.ones(1, *SIZE[1:])]
    path = write_side_by_side(
        tmp_path / "out", [video, *others], columns=columns, gap=2
    )
    frames = read_video(path).frames
    height, width = SIZE[2:]
    if columns is None:
        assert frames.shape == (3, 4, height, 3 * width + 4)
    else:
        assert frames.shape == (3, 4, 2 * height + 2, 2 * width + 2)
        assert frames[:, :, height + 2 :, width:].min() == 1  # no fourth video
    torch.testing.assert_close(
        frames[..., :height, :width], video, atol=0.5 / 255 + 1e-6, rtol=0
    )
    assert frames[..., :height, width : width + 2].min() == 1
    assert frames[..., :height, width + 2 : 2 * width + 2].max() == 0


def test_labels_lie_above_the_videos(tmp_path):
    black = torch.zeros(3, 2, 16, 64)
    path = write_side_by_side(tmp_path / "out.mp4", {"Left": black, "": black}, fps=24)
    frames = read_video(path).frames
    assert frames.shape[2] > 16
    assert frames[..., -16:, :64].max() < 0.1
    strip = frames[..., :-16, :]
    assert strip[..., :64].min() < 0.3  # ink
    assert strip[..., 70:].min() > 0.9  # paper


def test_side_by_side_refusals(video, tmp_path):
    with pytest.raises(ValueError, match="`columns` must be 1 or more"):
        write_side_by_side(tmp_path / "out", [video], columns=0)
    with pytest.raises(ValueError, match="of one size"):
        write_side_by_side(tmp_path / "out", [video, video[:, :2]])
    write_side_by_side(tmp_path / "out", [video])
    with pytest.raises(FileExistsError):
        write_side_by_side(tmp_path / "out", [video])
