r"""JPEG compression against Pillow, and its data step."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from deepinv.optim import L2
from deepinv.physics import GaussianNoise, ZeroNoise
from PIL import Image

from deepinv_lvtino import LVTINO, Schedule, make_problem
from deepinv_lvtino.datasets import procedural_clip
from deepinv_lvtino.models import (
    RectifiedFlow,
    SpectralGaussianModel,
    VariancePreserving,
)
from deepinv_lvtino.optim import LandweberStep
from deepinv_lvtino.physics import JPEGCompression, TemporalPooling
from helpers import psnr, rand, randn


def pillow(x, quality):
    """Frame by frame, as anybody would write it."""
    result = torch.empty_like(x)
    for b in range(x.shape[0]):
        for t in range(x.shape[2]):
            frame = (x[b, :, t].clamp(0, 1) * 255).round().to(torch.uint8)
            grey = len(frame) == 1
            array = frame[0].numpy() if grey else frame.permute(1, 2, 0).numpy()
            file = io.BytesIO()
            Image.fromarray(array).save(file, format="JPEG", quality=quality)
            decoded = torch.from_numpy(np.array(Image.open(file))).to(x.dtype) / 255
            result[b, :, t] = decoded[None] if grey else decoded.permute(2, 0, 1)
    return result


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quality", [1, 10, 95])
@pytest.mark.parametrize("size", [(13, 9), (1, 1), (16, 24)])
def test_equals_pillow(channels, quality, size):
    x = 1.4 * rand(2, channels, 3, *size, dtype=torch.float32) - 0.2
    y = JPEGCompression(quality).A(x)
    assert torch.equal(y, pillow(x, quality))
    assert y.is_contiguous()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_dtype_is_kept(dtype):
    x = rand(1, 3, 2, 8, 8).to(dtype)
    physics = JPEGCompression()
    y = physics.A(x)
    assert y.dtype == dtype
    assert ((y * 255).round() / 255).sub(y).abs().max() < torch.finfo(dtype).eps


def test_values_are_clipped_and_input_left_alone():
    x = 3 * randn(1, 3, 2, 8, 8, dtype=torch.float32)
    before = x.clone()
    physics = JPEGCompression(50)
    assert torch.equal(physics.A(x), physics.A(x.clamp(0, 1)))
    assert torch.equal(x, before)


def test_noise_comes_before_compression():
    physics = JPEGCompression(10, sigma=0.2, rng=torch.Generator().manual_seed(0))
    assert isinstance(physics.noise_model, GaussianNoise)
    x = torch.full((1, 3, 4, 16, 16), 0.5)
    noise = physics.clone().noise_model(x)
    y = physics(x)
    assert torch.equal(y, JPEGCompression(10).A(noise))
    assert not torch.equal(y, physics.A(x))
    assert isinstance(JPEGCompression().noise_model, ZeroNoise)
    assert torch.equal(JPEGCompression()(x), physics.A(x))


def test_clone_and_representation():
    physics = JPEGCompression(30, 0.1, img_size=(3, 2, 8, 8))
    x = rand(1, 3, 2, 8, 8, dtype=torch.float32)
    assert torch.equal(physics.clone().A(x), physics.A(x))
    assert physics.clone().measurement_size == (3, 2, 8, 8)
    assert "quality=30" in repr(physics)


def test_pseudo_inverse_is_the_measurement():
    # what a decoder gives is nearly a fixed point of the codec
    physics = JPEGCompression(10)
    y = physics.A(procedural_clip(2, 32, 48)[None])
    assert physics.A_dagger(y) is y
    assert psnr(physics.A(y), y) > 35


def test_straight_through_derivatives():
    physics = JPEGCompression(10)
    x = rand(2, 3, 2, 9, 7, dtype=torch.float32)
    v = randn(2, 3, 2, 9, 7, dtype=torch.float32)
    assert torch.equal(physics.A_vjp(x, v), v)
    leaf = x.clone().requires_grad_()
    (physics.A(leaf) * v).sum().backward()
    assert torch.equal(leaf.grad, v)
    value, pull_back = torch.func.vjp(physics.A, x)
    assert torch.equal(value, physics.A(x))
    assert torch.equal(pull_back(v)[0], v)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quality": 0}, "`quality` must be an integer from 1 to 100"),
        ({"quality": 101}, "`quality` must be"),
        ({"sigma": -0.1}, "`sigma` must be 0 or positive"),
        ({"sigma": float("nan")}, "`sigma` must be 0 or positive"),
        ({"sigma": float("inf")}, "`sigma` must be 0 or positive"),
        ({"img_size": (3, 8, 8)}, "four positive integers"),
        ({"img_size": (2, 4, 8, 8)}, "one channel .* or three"),
    ],
)
def test_wrong_construction(options, message):
    with pytest.raises(ValueError, match=message):
        JPEGCompression(**options)
    with pytest.raises(TypeError, match="`quality` must be"):
        JPEGCompression(quality=10.5)


def test_wrong_videos():
    physics = JPEGCompression(img_size=(3, 2, 8, 8))
    for method in (physics, physics.A, physics.A_dagger):
        with pytest.raises(ValueError, match="must have shape"):
            method(torch.zeros(1, 3, 2, 8, 9))
    with pytest.raises(ValueError, match="5 axes"):
        JPEGCompression().A(torch.zeros(3, 2, 8, 8))
    with pytest.raises(ValueError, match="one channel .* or three"):
        JPEGCompression().A(torch.zeros(1, 2, 2, 8, 8))
    with pytest.raises(TypeError, match="floating point"):
        JPEGCompression().A(torch.zeros(1, 3, 2, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match="`x` must be finite"):
        JPEGCompression().A(torch.full((1, 3, 2, 8, 8), torch.nan))


# -- data step -------------------------------------------------------------------------


def test_landweber_step_by_transcription():
    physics = JPEGCompression(10)
    y = physics.A(rand(1, 3, 2, 8, 8, seed=1))
    z = rand(1, 3, 2, 8, 8, seed=2)
    before = z.clone()
    u = z
    for _ in range(4):
        u = u - 0.6 * (pillow(u, 10) - y)
    result = LandweberStep(4, 0.6)(z, y, physics, L2())
    torch.testing.assert_close(result, u)
    assert torch.equal(z, before)


def test_landweber_step_takes_the_adjoint_of_linear_operators():
    physics = TemporalPooling((1, 6, 2, 3), 2, dtype=torch.float64)
    y, z = randn(1, *physics.measurement_size), randn(1, *physics.img_size, seed=1)
    u = z - 0.5 * physics.A_adjoint(physics.A(z) - y)
    torch.testing.assert_close(LandweberStep(1, 0.5)(z, y, physics, L2()), u)
    # and converges to a solution
    u = LandweberStep(100, 1.0)(z, y, physics, L2())
    torch.testing.assert_close(physics.A(u), y)


def test_landweber_step_does_not_depend_on_the_pixel_scale():
    physics = JPEGCompression(10)

    class Rescaled(JPEGCompression):  # the same operator on [-1, 1]
        def A(self, x, **kwargs):
            return 2 * super().A((x + 1) / 2) - 1

    y, z = physics.A(rand(1, 3, 2, 8, 8)), rand(1, 3, 2, 8, 8, seed=1)
    step = LandweberStep(10, 0.6026)
    u = step(z, y, physics, L2())
    scaled = step(2 * z - 1, 2 * y - 1, Rescaled(10), L2())
    torch.testing.assert_close((scaled + 1) / 2, u)


@pytest.mark.parametrize("name", ["num_steps", "gamma"])
def test_wrong_landweber_step(name):
    for wrong in (0, -1, float("nan")):
        with pytest.raises(ValueError, match=f"`{name}` must be positive"):
            LandweberStep(**{name: wrong})


# -- solver ----------------------------------------------------------------------------


def published_solver(**options):
    """Embedded models in the noise conventions of the published ones."""
    return LVTINO(
        SpectralGaussianModel(schedule=RectifiedFlow(snap=True)),
        SpectralGaussianModel(per_frame=True, schedule=VariancePreserving()),
        schedule=Schedule.published("jpeg"),
        seed=0,
        **options,
    )


def test_published_numbers():
    schedule = Schedule.published("jpeg")
    other = Schedule.published("A")
    for name in ("video", "image"):
        times = [getattr(s, name) and getattr(s, name).time for s in other.sweeps]
        assert times == [
            getattr(s, name) and getattr(s, name).time for s in schedule.sweeps
        ]
    for sweep in schedule.sweeps:
        assert sweep.video.data_step == LandweberStep(10, 0.6026)
        assert sweep.image is None or sweep.image.data_step == LandweberStep(10, 0.5188)
    assert schedule.init == "pinv"
    assert schedule.clamp == (0, 1)
    assert published_solver().num_evaluations == 9


def test_published_schedule_restores():
    x = procedural_clip(5, 40, 56)[None]
    rng = torch.Generator().manual_seed(1)
    physics = make_problem("jpeg", x.shape[1:], rng=rng)
    y = physics(x)
    solver = published_solver()
    sample = solver(y, physics)
    assert 0 <= sample.min()
    assert sample.max() <= 1
    # the sample explains the measurement better than the truth, whose noise is unknown
    assert (physics.A(sample) - y).norm() < 0.2 * (physics.A(x) - y).norm()
    # one sample is below the measurement in PSNR, their mean above
    mean, _ = solver.sample(y, physics, 16)
    assert psnr(mean, x) > psnr(y, x) + 0.2


@pytest.mark.parametrize("sigma", [0.005, 0.0])
@pytest.mark.parametrize("data_fidelity", [None, L2(0.01)])
def test_default_schedule_says_what_to_do_before_any_evaluation(sigma, data_fidelity):
    physics = make_problem("jpeg", (3, 5, 16, 16), sigma)
    y = physics(rand(1, 3, 5, 16, 16, dtype=torch.float32))

    def noise_source(label, like):
        pytest.fail("a model was evaluated")

    solver = LVTINO(noise_source=noise_source, data_fidelity=data_fidelity)
    with pytest.raises(NotImplementedError, match="LandweberStep") as error:
        solver(y, physics)
    assert 'Schedule.published("jpeg")' in str(error.value)
