r"""Missing pixels, alone and after an operator along time, against dense matrices."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from deepinv.physics import GaussianNoise

from deepinv_lvtino.physics import (
    SeparableVideoPhysics,
    TemporalBlur,
    TemporalPooling,
    VideoDownsampling,
    VideoInpainting,
    random_mask,
)
from deepinv_lvtino.physics import masked as module
from helpers import dense, generator, rand, randn

SIZE = (2, 5, 3, 4)
F64 = {"dtype": torch.float64}


def mask(*shape, seed=0):
    return (rand(*shape, seed=seed) > 0.4).double()


def after_blur(weights, **options):
    return VideoInpainting(
        SIZE, weights, TemporalBlur(SIZE, 3, **F64).temporal, **options
    )


FACTORIES = {
    # the Gram matrix along time is diagonal
    "alone": lambda **o: VideoInpainting(SIZE, mask(3, 4), **o),
    "alone, varying": lambda **o: VideoInpainting(SIZE, mask(5, 3, 4), **o),
    "alone, weights": lambda **o: VideoInpainting(SIZE, randn(1, 1, 5, 3, 4), **o),
    "pooling": lambda **o: VideoInpainting(
        SIZE, mask(3, 3, 4), TemporalPooling(SIZE, 2, **F64).temporal, **o
    ),
    "whole frames": lambda **o: VideoInpainting(SIZE, mask(5, 1, 1, seed=2), **o),
    # constant in time
    "blur": lambda **o: after_blur(mask(3, 4), **o),
    "blur, weights": lambda **o: after_blur(randn(3, 4), **o),
    "rank one": lambda **o: VideoInpainting(
        SIZE, mask(3, 4), torch.ones(5, 5) / 5, **o
    ),
    "tall": lambda **o: VideoInpainting(SIZE, mask(1, 3, 4), randn(7, 5), **o),
    # one system per pixel
    "blur, varying": lambda **o: after_blur(mask(5, 3, 4), **o),
    "blur, varying weights": lambda **o: after_blur(randn(5, 3, 4), **o),
    "wide, varying": lambda **o: VideoInpainting(SIZE, mask(3, 3, 4), randn(3, 5), **o),
    "tall, varying": lambda **o: VideoInpainting(SIZE, mask(7, 3, 4), randn(7, 5), **o),
    "rank one, varying": lambda **o: VideoInpainting(
        SIZE, mask(5, 3, 4), torch.ones(5, 5) / 5, **o
    ),
    "nothing seen": lambda **o: after_blur(torch.zeros(3, 4), **o),
    "nothing seen, varying": lambda **o: after_blur(torch.zeros(5, 3, 4), **o),
}


@pytest.fixture(params=FACTORIES, ids=lambda name: name.replace(" ", "-"))
def physics(request):
    return FACTORIES[request.param](**F64)


@pytest.fixture
def few_pixels(monkeypatch):
    """Several chunks, the last of them not full."""
    monkeypatch.setattr(module, "pixels_at_a_time", lambda matrix: 5)


def test_adjoint(physics):
    u = randn(2, *physics.img_size, seed=4)
    v = randn(2, *physics.measurement_size, seed=5)
    forward, backward = (physics.A(u) * v).sum(), (u * physics.A_adjoint(v)).sum()
    assert abs(forward - backward) < 1e-10 * abs(forward).clamp(min=1)


def test_operator_is_average_then_mask(physics):
    x = randn(2, *SIZE, seed=1)
    y = x
    if physics.temporal is not None:
        y = torch.einsum("st,bcthw->bcshw", physics.temporal, x)
    torch.testing.assert_close(physics.A(x), physics.mask * y)
    assert physics.A(x).shape == (2, *physics.measurement_size)


@pytest.mark.usefixtures("few_pixels")
def test_dense_oracle(physics):
    matrix = dense(physics.A, SIZE)
    adjoint = dense(physics.A_adjoint, physics.measurement_size)
    torch.testing.assert_close(adjoint, matrix.T)
    pinv = torch.linalg.pinv(matrix, rtol=1e-12)
    torch.testing.assert_close(
        dense(physics.A_dagger, physics.measurement_size), pinv, atol=1e-9, rtol=1e-7
    )
    norm = torch.linalg.matrix_norm(matrix, 2)
    torch.testing.assert_close(physics.compute_sqnorm(), norm**2)
    torch.testing.assert_close(physics.compute_norm(squared=False), norm)


@pytest.mark.usefixtures("few_pixels")
@pytest.mark.parametrize("gamma", [0.3, 16868.0])
def test_prox_dense_oracle(physics, gamma):
    matrix = dense(physics.A, SIZE)
    z = randn(2, *SIZE, seed=6)
    y = randn(2, *physics.measurement_size, seed=7)
    normal = gamma * matrix.T @ matrix + torch.eye(len(matrix.T), dtype=torch.float64)
    right = gamma * (matrix.T @ y.flatten(1).T) + z.flatten(1).T
    expected = torch.linalg.solve(normal, right).T.reshape(z.shape)
    torch.testing.assert_close(physics.prox_l2(z, y, gamma), expected)
    for number, constant in ((None, 0.0), (0.5, 0.5)):
        torch.testing.assert_close(
            physics.prox_l2(number, y, gamma),
            physics.prox_l2(torch.full_like(z, constant), y, gamma),
        )


def test_prox_takes_one_gamma_per_video(physics):
    z = randn(2, *SIZE, seed=6)
    y = randn(2, *physics.measurement_size, seed=7)
    gamma = torch.tensor([0.5, 3.0], dtype=torch.float64)
    both = physics.prox_l2(z, y, gamma)
    for i in range(2):
        one = physics.prox_l2(z[i : i + 1], y[i : i + 1], float(gamma[i]))
        torch.testing.assert_close(both[i : i + 1], one)
    one = physics.prox_l2(z, y, torch.tensor(0.5))
    torch.testing.assert_close(one, physics.prox_l2(z, y, 0.5))


def test_normal_equations_in_float32(physics):
    physics = physics.float()
    gamma = 16868.0
    z = rand(2, *SIZE, seed=6, dtype=torch.float32)
    y = physics.A(rand(2, *SIZE, seed=7, dtype=torch.float32))
    u = physics.prox_l2(z, y, gamma)
    assert u.dtype == torch.float32
    right = gamma * physics.A_adjoint(y) + z
    residual = gamma * physics.A_adjoint_A(u) + u - right
    assert residual.norm() < 1e-5 * right.norm()


def test_pseudo_inverse_of_an_average_stored_in_float32():
    # its small singular values are rounding errors, also when computed in float64
    for weights in (mask(5, 3, 4), mask(3, 4)):
        physics = VideoInpainting(SIZE, weights, torch.ones(5, 5) / 5)
        y = physics.A(rand(1, *SIZE, dtype=torch.float32))
        x = physics.A_dagger(y)
        assert x.abs().max() < 2
        torch.testing.assert_close(physics.A(x), y)


def test_named_average_is_not_singular():
    # 7 uniform frames, circular, in the published number of frames
    size = (1, 25, 2, 2)
    blur = TemporalBlur(size, 7)
    physics = VideoInpainting(size, torch.ones(2, 2)) * blur
    x = rand(1, *size, dtype=torch.float32)
    torch.testing.assert_close(physics.A_dagger(physics.A(x)), x, atol=1e-4, rtol=1e-4)


def test_batch_equals_stacked_singles(physics):
    x = randn(3, *SIZE, seed=8)
    y = physics.A(x)
    for i in range(3):
        one = slice(i, i + 1)
        torch.testing.assert_close(y[one], physics.A(x[one]))
        u = physics.prox_l2(x + 1, y, 5.0)[one]
        torch.testing.assert_close(u, physics.prox_l2(x[one] + 1, y[one], 5.0))


def test_inputs_and_operator_are_left_alone(physics):
    x = randn(2, *SIZE, seed=8)
    y = physics.A(x)
    before = (x.clone(), y.clone(), copy.deepcopy(physics.state_dict()))
    physics.prox_l2(x, y, 2.0)
    physics.A_dagger(y)
    physics.A_adjoint(y)
    physics(x)
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])
    for key, value in physics.state_dict().items():
        assert torch.equal(value, before[2][key])


def test_clone_and_state_dict(physics):
    x = randn(2, *SIZE, seed=8)
    y = physics.A(x)
    clone = physics.clone()
    assert torch.equal(clone.A(x), y)
    buffer = io.BytesIO()
    torch.save(physics.state_dict(), buffer)
    buffer.seek(0)
    clone.mask.fill_(0.5)
    if clone.temporal is not None:
        clone.temporal.zero_()
    clone.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(clone.A(x), y)
    torch.testing.assert_close(clone.A_dagger(y), physics.A_dagger(y))
    torch.testing.assert_close(clone.prox_l2(x, y, 2.0), physics.prox_l2(x, y, 2.0))


def test_conversion_keeps_the_prox_exact():
    for weights in (mask(3, 4), mask(5, 3, 4)):
        physics = VideoInpainting(SIZE, weights, randn(5, 5)).double()
        matrix = dense(physics.A, SIZE)
        z, y = randn(1, *SIZE, seed=1), randn(1, *physics.measurement_size, seed=2)
        u = physics.prox_l2(z, y, 1e4).flatten()
        residual = 1e4 * matrix.T @ (matrix @ u - y.flatten()) + u - z.flatten()
        assert residual.norm() < 1e-10 * (1e4 * matrix.T @ y.flatten()).norm()


def test_product():
    pooling = TemporalPooling(SIZE, 2, noise_model=GaussianNoise(0.3), **F64)
    alone = VideoInpainting(
        pooling.measurement_size, mask(3, 4), noise_model=GaussianNoise(0.7), **F64
    )
    product = alone * pooling
    assert isinstance(product, VideoInpainting)
    assert product.noise_model is alone.noise_model
    assert product.img_size == SIZE
    x = randn(2, *SIZE)
    torch.testing.assert_close(product.A(x), alone.A(pooling.A(x)))
    twice = after_blur(mask(3, 4), **F64) * TemporalBlur(SIZE, 3, **F64)
    torch.testing.assert_close(
        twice.A(x),
        after_blur(mask(3, 4), **F64).A(TemporalBlur(SIZE, 3, **F64).A(x)),
    )
    with pytest.raises(ValueError, match="video size"):
        VideoInpainting(SIZE, mask(3, 4), **F64) * pooling
    with pytest.warns(UserWarning, match="will not be decomposable"):
        general = VideoInpainting((2, 5, 2, 2), torch.ones(2, 2), **F64)
        general = general * VideoDownsampling((2, 5, 4, 4), 2, **F64)
    assert not isinstance(general, VideoInpainting)
    assert general.A(randn(1, 2, 5, 4, 4)).shape == (1, 2, 5, 2, 2)


def test_missing_pixels_have_no_noise():
    physics = VideoInpainting(SIZE, mask(3, 4), noise_model=GaussianNoise(0.5))
    y = physics(torch.zeros(50, *SIZE))
    visible = physics.visible.expand_as(y)
    assert torch.equal(y[~visible], torch.zeros_like(y[~visible]))
    assert abs(y[visible].std() - 0.5) < 0.02
    weighted = VideoInpainting(SIZE, torch.full((3, 4), 0.1), None, GaussianNoise(0.5))
    assert abs(weighted(torch.zeros(50, *SIZE)).std() - 0.5) < 0.02


def test_declares_its_prox_exact():
    assert VideoInpainting.exact_prox
    assert SeparableVideoPhysics.exact_prox


def test_random_mask():
    first = random_mask(60, 80)
    assert first.shape == (1, 1, 1, 60, 80)
    assert set(first.unique().tolist()) == {0, 1}
    assert abs(first.mean() - 0.5) < 0.02
    torch.rand(3)
    assert torch.equal(first, random_mask(60, 80))
    assert not torch.equal(first, random_mask(60, 80, seed=1))
    assert abs(random_mask(60, 80, keep=0.2).mean() - 0.2) < 0.02
    assert random_mask(6, 8, keep=1).min() == 1
    assert generator().initial_seed() == 0
    for keep in (0, 1.5):
        with pytest.raises(ValueError, match="`keep` must lie in"):
            random_mask(6, 8, keep)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"img_size": (3, 5, 6)}, "four positive integers"),
        ({"mask": torch.ones(2, 5, 3, 4)}, "for all channels"),
        ({"mask": torch.ones(4, 3, 4)}, "broadcasts"),
        ({"mask": torch.ones(3, 5)}, "broadcasts"),
        ({"mask": torch.ones(1, 1, 1, 1, 3, 4)}, "broadcasts"),
        ({"mask": torch.full((3, 4), torch.nan)}, "finite"),
        ({"temporal": torch.eye(4)}, r"\(m, 5\)"),
    ],
)
def test_wrong_construction(options, message):
    with pytest.raises(ValueError, match=message):
        VideoInpainting(**{"img_size": SIZE, "mask": mask(3, 4), **options})


def test_wrong_arguments():
    physics = VideoInpainting(SIZE, mask(3, 4), TemporalPooling(SIZE, 2).temporal)
    x, y = torch.zeros(1, *SIZE), torch.zeros(1, *physics.measurement_size)
    with pytest.raises(ValueError, match="`x` must have shape"):
        physics.A(y)
    with pytest.raises(TypeError, match="float32"):
        physics.A(x.double())
    for method in (physics.A_adjoint, physics.A_dagger):
        with pytest.raises(ValueError, match="`y` must have shape"):
            method(x)
    with pytest.raises(ValueError, match="`z` must have shape"):
        physics.prox_l2(y, y, 1.0)
    with pytest.raises(ValueError, match="`gamma` must be positive"):
        physics.prox_l2(x, y, -1.0)
    with pytest.raises(ValueError, match="`mask` cannot be replaced"):
        physics.A(x, mask=torch.ones(3, 4))
