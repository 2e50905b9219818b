r"""Every problem by name: size, determinism, and a restoration."""

from __future__ import annotations

import json

import deepinv
import numpy as np
import pytest
import torch
from deepinv.physics import GaussianNoise, ZeroNoise
from deepinv.physics.functional import gaussian_blur

from deepinv_lvtino import LVTINO, make_problem
from deepinv_lvtino.cli import main
from deepinv_lvtino.datasets import procedural_clip, read_video, write_video
from deepinv_lvtino.physics import (
    PROBLEMS,
    FramewisePhysics,
    JPEGCompression,
    SeparableVideoPhysics,
    TemporalBlur,
    VideoInpainting,
    random_mask,
)
from deepinv_lvtino.physics.functional import TIME_BORDERS
from helpers import psnr, rand

SIZE = (3, 9, 32, 48)

MEASUREMENTS = {
    "A": (3, 3, 8, 12),
    "B": (3, 9, 4, 6),
    "C": (3, 2, 4, 6),
    "jpeg": SIZE,
    "deblur": SIZE,
    "deblur-temporal": SIZE,
    "sr4": (3, 9, 8, 12),
    "sr4-temporal": (3, 9, 8, 12),
    "inpaint": SIZE,
    "inpaint-temporal": SIZE,
}
LINEAR = [name for name in MEASUREMENTS if name != "jpeg"]


def test_every_problem_is_listed_here():
    assert sorted(PROBLEMS) == sorted(MEASUREMENTS)
    for name, problem in PROBLEMS.items():
        assert problem.name == name
        assert problem.linear == (name != "jpeg")
        assert problem.masked == name.startswith("inpaint")
        assert problem.blurs_time == (name == "B" or name.endswith("-temporal"))


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_size_and_noise(name):
    physics = make_problem(name, SIZE)
    assert physics.img_size == SIZE
    assert physics.measurement_size == MEASUREMENTS[name]
    x = rand(2, *SIZE, dtype=torch.float32)
    assert physics(x).shape == (2, *MEASUREMENTS[name])
    expected = 0.005 if name == "jpeg" else 0.001
    assert isinstance(physics.noise_model, GaussianNoise)
    assert float(physics.noise_model.sigma) == pytest.approx(expected)
    assert isinstance(make_problem(name, SIZE, 0).noise_model, ZeroNoise)
    video = PROBLEMS[name].video_size(MEASUREMENTS[name])
    assert video[0] == 3
    assert video[2:] == SIZE[2:]
    assert PROBLEMS[name].video_size(MEASUREMENTS[name], 9) == SIZE
    assert make_problem(name, SIZE, alignment="center").img_size == SIZE


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_noise_generator_is_used(name):
    x = rand(1, *SIZE, dtype=torch.float32)
    first, second = (
        make_problem(name, SIZE, 0.1, rng=torch.Generator().manual_seed(3))(x)
        for _ in range(2)
    )
    assert torch.equal(first, second)


@pytest.mark.parametrize("border", TIME_BORDERS)
@pytest.mark.parametrize("name", LINEAR)
def test_exact_in_double_precision(name, border):
    size = (1, 9, 16, 24)
    physics = make_problem(name, size, time_border=border, dtype=torch.float64)
    assert physics.exact_prox
    x, y = rand(1, *physics.img_size), rand(1, *physics.measurement_size, seed=1)
    u = physics.prox_l2(x, y, 3539.0)
    residual = 3539.0 * physics.A_adjoint(physics.A(u) - y) + u - x
    assert residual.norm() < 1e-9 * (3539.0 * physics.A_adjoint(y)).norm()


def average(x, border="circular"):
    frames = torch.arange(-3, x.shape[2] + 3)
    last = x.shape[2] - 1
    seen = {
        "circular": frames % x.shape[2],
        "replicate": frames.clamp(0, last),
        "reflect": last - (frames.abs() - last).abs(),
    }[border]
    return x[:, :, seen].unfold(2, 7, 1).mean(-1)


def image_operator(name):
    if name == "deblur":
        return deepinv.physics.Blur(gaussian_blur(sigma=(3.0, 3.0)), padding="reflect")
    if name == "sr4":
        return deepinv.physics.Downsampling(
            img_size=(3, 32, 48), filter="bicubic", factor=4, padding="reflect"
        )
    return deepinv.physics.Inpainting((3, 32, 48), mask=random_mask(32, 48)[0, 0])


@pytest.mark.parametrize("border", TIME_BORDERS)
@pytest.mark.parametrize("name", ["deblur", "sr4", "inpaint"])
def test_equal_to_deepinverse_frame_by_frame(name, border):
    x = rand(1, *SIZE, dtype=torch.float32)
    images = FramewisePhysics(image_operator(name))
    torch.testing.assert_close(
        make_problem(name, SIZE).A(x), images.A(x), atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(
        make_problem(f"{name}-temporal", SIZE, time_border=border).A(x),
        images.A(average(x, border)),
        atol=1e-5,
        rtol=1e-5,
    )


def test_kinds():
    for name in MEASUREMENTS:
        kind = SeparableVideoPhysics
        if name.startswith("inpaint"):
            kind = VideoInpainting
        elif name == "jpeg":
            kind = JPEGCompression
        assert isinstance(make_problem(name, SIZE), kind)
    blur = TemporalBlur(SIZE, 7)
    assert torch.equal(make_problem("inpaint-temporal", SIZE).temporal, blur.temporal)


def test_mask_follows_from_its_seed():
    first = make_problem("inpaint", SIZE)
    torch.rand(3)
    for again in ("inpaint", "inpaint-temporal"):
        assert torch.equal(first.mask, make_problem(again, SIZE).mask)
    assert "mask" in first.state_dict()
    other = make_problem("inpaint", SIZE, mask_seed=1)
    assert not torch.equal(first.mask, other.mask)
    assert first.mask.shape == (1, 1, 1, 32, 48)
    assert abs(first.mask.mean() - 0.5) < 0.05


@pytest.mark.parametrize("name", LINEAR)
def test_default_solver_runs(name):
    size = (3, 5, 24, 32)
    x = procedural_clip(*size[1:])[None]
    rng = torch.Generator().manual_seed(1)
    physics = make_problem(name, size, 0.01, rng=rng)
    y = physics(x)
    u = LVTINO(seed=0)(y, physics)
    assert u.shape == x.shape
    assert (physics.A(u) - y).square().mean().sqrt() < 0.02
    if physics.exact_prox and name.startswith("inpaint"):
        assert psnr(u, x) > psnr(physics.A_dagger(y), x) + 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "D"}, "`name` must be one of 'A', 'B', 'C', 'jpeg', 'deblur'"),
        ({"sigma": -1.0}, "`sigma` must be 0 or positive"),
        ({"sigma": float("nan")}, "`sigma` must be 0 or positive"),
        ({"alignment": "corner"}, "`alignment` must be one of"),
        ({"time_border": "open"}, "`time_border` must be one of"),
        ({"img_size": (3, 9, 32)}, "four positive integers"),
    ],
)
@pytest.mark.parametrize("name", ["A", "jpeg", "inpaint"])
def test_wrong_arguments(name, options, message):
    with pytest.raises(ValueError, match=message):
        make_problem(**{"name": name, "img_size": SIZE, **options})


# -- command line ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    path = tmp_path_factory.mktemp("clean") / "clean.mkv"
    return write_video(path, procedural_clip(5, 24, 32), 24, lossless=True)


def run(*arguments):
    return main([*map(str, arguments), "--device", "cpu"])


def report_of(path):
    return json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", [name for name in MEASUREMENTS if name not in "ABC"])
def test_degrade_and_restore(name, clean, tmp_path, capsys):
    small, output = tmp_path / "small.mp4", tmp_path / "out.mp4"
    options = ("--mask-seed", 5) if name.startswith("inpaint") else ()
    assert run("degrade", clean, "-o", small, "--problem", name, *options) == 0
    degraded = report_of(small)
    assert degraded["sigma"] == PROBLEMS[name].sigma
    if name != "jpeg":  # of the pixels seen: noise of 0.001 and rounding to 8 bit
        assert degraded["measurement_error"] == pytest.approx(0.0014, abs=4e-4)
    assert run("restore", small, "-o", output) == 0
    assert read_video(output).frames.shape == (3, 5, 24, 32)
    report = report_of(output)
    assert report["problem"] == name
    assert report["metrics"]["restoration"]["residual_over_sigma"] < 2
    assert report.get("mask_seed") == (5 if options else None)
    assert report["schedule"]["evaluations"] == {"sr4": 5, "deblur": 9, "jpeg": 9}.get(
        name.removesuffix("-temporal"), 3
    )


def test_recordings_are_not_circular_in_time(tmp_path, capsys):
    """A clip that grows brighter, blurred over time as a camera would."""
    ramp = torch.linspace(0.1, 0.9, 13).view(1, 1, 13, 1, 1)
    x = (procedural_clip(13, 24, 32)[None] - 0.5) * 0.2 + ramp
    seen = make_problem(
        "deblur-temporal", tuple(x.shape[1:]), 0, time_border="replicate"
    )
    y = write_video(tmp_path / "y.mkv", seen(x)[0], 24, lossless=True)
    found = {}
    for option in ((), ("--time-border", "circular")):
        output = tmp_path / f"out{len(option)}.mkv"
        run("restore", y, "-o", output, "--problem", "deblur-temporal", *option)
        found[report_of(output)["time_border"]] = read_video(output).frames
    assert "time border replicate" in capsys.readouterr().out
    ends = x[0, :, [0, -1]]
    blurred = psnr(read_video(y).frames[:, [0, -1]], ends)
    assert psnr(found["replicate"][:, [0, -1]], ends) > blurred + 1
    assert psnr(found["circular"][:, [0, -1]], ends) < blurred - 8


@pytest.mark.parametrize("option", [(), ("--time-border", "reflect")])
def test_border_of_time_follows_the_report(option, clean, tmp_path):
    small, output = tmp_path / "small.mkv", tmp_path / "out.mkv"
    run("degrade", clean, "-o", small, "--problem", "deblur-temporal", *option)
    run("restore", small, "-o", output)
    assert report_of(output)["time_border"] == (option[1] if option else "circular")


def test_exact_file_has_the_error_of_rounding(clean, tmp_path):
    small = tmp_path / "small.mp4"
    options = ("--problem", "jpeg", "--sigma", 0)
    assert run("degrade", clean, "-o", small, *options) == 0
    assert report_of(small)["measurement_error"] == pytest.approx(0.00113, rel=0.01)
    assert run("restore", small, "-o", tmp_path / "out.mp4") == 0


def test_wrong_mask_seed_is_refused(clean, tmp_path, capsys):
    small, output = tmp_path / "small.mp4", tmp_path / "out.mp4"
    assert run("degrade", clean, "-o", small, "--problem", "inpaint") == 0
    assert run("restore", small, "-o", output, "--mask-seed", 1) == 2
    assert "--mask-seed 1" in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize(
    "steps", ["blur=FILE", "temporal-mean=2, blur=FILE", "blur=FILE, downscale=2"]
)
def test_own_kernel_that_is_not_separable(steps, clean, tmp_path):
    """A file is restored whatever the kernel, without warnings of the libraries."""
    np.save(tmp_path / "shake.npy", np.eye(3))
    operator = f"{steps.replace('FILE', str(tmp_path / 'shake.npy'))}, noise=0.01"
    small, output = tmp_path / "small.mkv", tmp_path / "out.mkv"
    assert run("degrade", clean, "-o", small, "--problem", operator) == 0
    assert run("restore", small, "-o", output) == 0  # by the report
    truth, found = read_video(clean).frames, read_video(output).frames
    assert found.shape == truth.shape
    error = (found - truth).square().mean().sqrt()
    assert float(error) < 0.08
    if "=2" not in steps:  # better than the file itself
        assert error < (read_video(small).frames - truth).square().mean().sqrt()


@pytest.mark.parametrize("option", ["--steps", "--eta"])
def test_jpeg_has_a_fixed_schedule(option, clean, tmp_path, capsys):
    arguments = ("restore", clean, "-o", tmp_path / "out.mp4", "--simulate")
    assert run(*arguments, "--problem", "jpeg", option, 1) == 2
    assert f"{option} cannot be followed" in capsys.readouterr().err


def test_simulation_of_inpainting(clean, tmp_path):
    output = tmp_path / "out.mp4"
    options = ("--simulate", "--problem", "inpaint-temporal", "--mask-seed", 3)
    assert run("restore", clean, "-o", output, *options) == 0
    metrics = report_of(output)["metrics"]
    assert report_of(output)["mask_seed"] == 3
    assert metrics["restoration"]["psnr"] > metrics["pseudo_inverse"]["psnr"] + 10
