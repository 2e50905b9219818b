r"""Operators in text: what they say, build and refuse, from the command line on."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from deepinv.physics import Blur
from PIL import Image

from deepinv_lvtino import LVTINO, make_problem
from deepinv_lvtino.cli import _options, main
from deepinv_lvtino.datasets import procedural_clip, read_video, write_video
from deepinv_lvtino.physics import (
    ALIASES,
    PROBLEMS,
    SeparableVideoPhysics,
    VideoInpainting,
    _steps,
    find_problem,
    parse_operator,
)
from helpers import rand

SIZE = (3, 8, 24, 32)


def test_the_command_line_says_the_same_words():
    assert _steps.VOCABULARY == _options.VOCABULARY


@pytest.mark.parametrize(
    ("text", "size", "measured"),
    [
        ("temporal-mean=4, downscale=4", (3, 8, 24, 32), (3, 2, 6, 8)),
        ("every=3", (3, 8, 24, 32), (3, 3, 24, 32)),
        ("crop=4:2, downscale=2", (3, 8, 24, 32), (3, 8, 10, 12)),
        ("downscale=2, crop=3", (3, 8, 24, 32), (3, 8, 6, 10)),
        ("blur=1.5", (3, 8, 24, 32), (3, 8, 24, 32)),
        ("temporal-blur=5, downscale=2:bilinear", (3, 8, 24, 32), (3, 8, 12, 16)),
        ("noise=0.1", (3, 8, 24, 32), (3, 8, 24, 32)),
    ],
)
def test_sizes_follow_there_and_back(text, size, measured):
    problem = find_problem(text)
    assert str(problem.operator) == problem.name
    assert find_problem(problem.name).name == problem.name
    physics = make_problem(text, size, alignment="center")
    assert isinstance(physics, SeparableVideoPhysics)
    assert physics.measurement_size == measured
    found = problem.video_size(measured)
    assert found[2:] == size[2:]
    assert problem.video_size(measured, size[1]) == size
    back = make_problem(text, found, alignment="center").measurement_size
    assert back == measured


def dense(physics, size):
    """Every column of the operator, in double precision."""
    eye = torch.eye(int(np.prod(size)), dtype=torch.float64)
    return physics.A(eye.view(-1, *size)).flatten(1).T


def test_steps_are_applied_in_the_order_they_are_written():
    """Against products of matrices written out by hand."""
    x = rand(1, 1, 6, 8, 8)
    physics = make_problem(
        "temporal-mean=2, crop=1, downscale=2:bilinear",
        (1, 6, 8, 8),
        alignment="center",
        dtype=torch.float64,
    )
    pairs = x.view(1, 1, 3, 2, 8, 8).mean(3)[..., 1:-1, 1:-1]
    shrunk = make_problem(
        "downscale=2:bilinear", (1, 3, 6, 6), alignment="center", dtype=torch.float64
    )
    torch.testing.assert_close(physics.A(x), shrunk.A(pairs))
    other = make_problem(
        "crop=1, temporal-mean=2, downscale=2:bilinear",
        (1, 6, 8, 8),
        alignment="center",
        dtype=torch.float64,
    )
    torch.testing.assert_close(physics.A(x), other.A(x))
    blurred = make_problem("crop=2, blur=1", (1, 6, 8, 8), dtype=torch.float64)
    cropped = make_problem("blur=1, crop=2", (1, 6, 8, 8), dtype=torch.float64)
    assert not torch.allclose(blurred.A(x), cropped.A(x))


def test_named_problems_are_descriptions():
    for name, problem in PROBLEMS.items():
        text = str(problem.operator)
        if name == "jpeg":
            assert text == "noise=0.005, jpeg=10"
            continue
        named, told = make_problem(name, SIZE), make_problem(text, SIZE)
        x = rand(1, *SIZE, dtype=torch.float32)
        assert torch.equal(named.A(x), told.A(x))
    for alias, name in ALIASES.items():
        assert find_problem(alias) is PROBLEMS[name]


def test_kernels_and_masks_of_files(tmp_path):
    shake = np.zeros((5, 5))
    shake[0, 0] = shake[1, 2] = shake[2, 2] = shake[4, 3] = 2.0
    np.save(tmp_path / "k.npy", shake)
    Image.fromarray((shake * 100).astype(np.uint8)).save(tmp_path / "k.png")
    x = rand(1, *SIZE, dtype=torch.float32)
    kernel = torch.from_numpy(shake / shake.sum()).float()[None, None]
    truth = Blur(kernel, padding="reflect")
    expected = torch.stack([truth.A(frame) for frame in x.unbind(2)], dim=2)
    for name in ("k.npy", "k.png"):
        physics = make_problem(f"blur={tmp_path}/{name}", SIZE)
        assert not isinstance(physics, SeparableVideoPhysics)
        torch.testing.assert_close(physics.A(x), expected, atol=1e-5, rtol=0)
    # a product stays separable
    np.save(tmp_path / "s.npy", np.outer([1, 2, 1], [1, 1, 1]))
    mixed = make_problem(f"temporal-mean=2, blur={tmp_path}/s.npy", SIZE)
    assert isinstance(mixed, SeparableVideoPhysics)

    mask = np.zeros((24, 32), np.uint8)
    mask[5:9, 3:20] = 255
    Image.fromarray(255 - mask).save(tmp_path / "m.png")
    hidden = make_problem(f"mask={tmp_path}/m.png", SIZE)
    assert isinstance(hidden, VideoInpainting)
    y = hidden.A(torch.ones(1, *SIZE))
    assert torch.equal(y[0, 0, 0] == 0, torch.from_numpy(mask > 0))
    moving = torch.ones(3, 8, 24, 32)
    for t in range(8):
        moving[:, t, t] = 0
    write_video(tmp_path / "m.mkv", moving, 24, lossless=True)
    y = make_problem(f"mask={tmp_path}/m.mkv", SIZE).A(torch.ones(1, *SIZE))
    assert torch.equal(y[0] == 0, moving == 0)
    with pytest.raises(ValueError, match="must have the size of what it hides"):
        make_problem(f"mask={tmp_path}/m.png", (3, 8, 32, 32))
    hashes = find_problem(f"blur={tmp_path}/k.npy").operator.hashes()
    assert list(hashes) == [f"{tmp_path}/k.npy"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("downscale", "says 'downscale'"),
        ("shrink=2", "says 'shrink=2', which is not known"),
        ("downscale=0", "a number from 1"),
        ("downscale=2:lanczos", "the filter 'lanczos'"),
        ("blur=-1", "a blur of -1 pixels"),
        ("blur=nothing.npy", "no such file"),
        ("mask=1.5", "a share of 1.5"),
        ("noise=nan", "the noise 'nan'"),
        ("noise=0.1, noise=0.2", "says noise twice"),
        ("downscale=2, jpeg=10", "jpeg after other steps"),
        ("jpeg=101", "from 1 to 100"),
    ],
)
def test_what_is_not_understood_is_refused(text, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        parse_operator(text)


def test_kernels_that_are_none(tmp_path):
    np.save(tmp_path / "k.npy", np.zeros((3, 3)))
    with pytest.raises(ValueError, match="positive sum"):
        parse_operator(f"blur={tmp_path}/k.npy")
    np.save(tmp_path / "k.npy", np.ones((3, 3, 3)))
    with pytest.raises(ValueError, match="must be a matrix"):
        parse_operator(f"blur={tmp_path}/k.npy")
    (tmp_path / "k.npy").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="no matrix of NumPy"):
        parse_operator(f"blur={tmp_path}/k.npy")


def test_from_a_simulation_to_a_restoration(tmp_path, capsys):
    clean = write_video(
        tmp_path / "clean.mkv", procedural_clip(9, 24, 32), 24, lossless=True
    )
    y, x = tmp_path / "y.mkv", tmp_path / "x.mkv"
    text = "every=2, downscale=2, noise=0.02"
    command = ["degrade", str(clean), "-o", str(y), "--operator", text]
    assert main([*command, "--device", "cpu"]) == 0
    report = json.loads((tmp_path / "y.json").read_text())
    assert report["operator"] == report["problem"] == text
    assert report["measurement"]["frames"] == 5
    assert main(["restore", str(y), "-o", str(x), "--device", "cpu"]) == 0
    assert "report of degrade found" in capsys.readouterr().out
    assert read_video(x).frames.shape == (3, 9, 24, 32)
    assert read_video(x).fps == 24
    windows = ["--operator", text, "--window", "5", "--overwrite"]
    assert main(["restore", str(y), "-o", str(x), "--device", "cpu", *windows]) == 0
    both = ["--problem", "A", "--operator", text]
    with pytest.raises(SystemExit):
        main(["restore", str(y), "-o", str(x), *both])
    capsys.readouterr()
    assert main(["restore", str(y), "-o", str(x), "--operator", "halve=2"]) == 2
    assert "--problem must be one of" not in capsys.readouterr().err


def test_noise_of_a_file_is_estimated_when_asked(tmp_path, capsys):
    clip = procedural_clip(16, 48, 64)
    noisy = clip + 0.05 * torch.randn(
        clip.shape, generator=torch.Generator().manual_seed(0)
    )
    y = write_video(tmp_path / "y.mkv", noisy.clamp(0, 1), 24, lossless=True)
    x = tmp_path / "x.mkv"
    command = ["restore", str(y), "-o", str(x), "--operator", "downscale=2"]
    assert main([*command, "--sigma", "auto", "--device", "cpu"]) == 0
    assert "noise estimated from INPUT" in capsys.readouterr().out
    report = json.loads((tmp_path / "x.json").read_text())
    assert report["sigma"] == pytest.approx(0.05, rel=0.1)
    assert report["sigma_estimated"]
    simulate = ["restore", str(y), "-o", str(x), "--simulate", "--sigma", "auto"]
    assert main([*simulate, "--overwrite"]) == 2
    assert "--sigma auto is for a measurement" in capsys.readouterr().err


def test_information_about_an_operator(capsys):
    text = "temporal-mean=4, downscale=2, noise=0.02"
    command = ["info", "--size", "64x48", "--frames", "10", "--operator"]
    assert main([*command, text]) == 0
    said = capsys.readouterr().out
    assert "32x24, 3 frames" in said
    assert "closed form" in said
    physics = make_problem(text, (3, 10, 48, 64), alignment="center")
    assert f"{float(physics.condition_number()):.3g}" in said
    assert main([*command, "downscale=5"]) == 2
    assert "must be multiples of 5" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["downscale=2, noise=0.01", "noise=0.05", "mask=0.5, noise=0.02"]
)
def test_the_default_follows_the_operator(text):
    """One sample is no worse than the measurement brought to size."""
    x = procedural_clip(9, 48, 64, seed=7)[None]
    rng = torch.Generator().manual_seed(1)
    physics = make_problem(text, tuple(x.shape[1:]), alignment="center", rng=rng)
    y = physics(x)
    u = LVTINO(seed=0)(y, physics).clamp(0, 1)
    if "mask" in text:
        simple = torch.where(physics.visible, y, y.sum() / physics.visible.sum() / 27)
    else:
        simple = torch.nn.functional.interpolate(y, size=x.shape[2:], mode="trilinear")
    error = lambda v: float((v.clamp(0, 1) - x).square().mean())  # noqa: E731
    assert error(u) < error(simple)
