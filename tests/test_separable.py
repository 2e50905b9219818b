r"""Separable video operators against dense matrices and closed forms."""

from __future__ import annotations

import copy
import io

import deepinv
import pytest
import torch
from deepinv.physics import GaussianNoise

from deepinv_lvtino.physics import (
    SeparableVideoPhysics,
    TemporalBlur,
    TemporalDecimation,
    TemporalPooling,
    VideoBlur,
    VideoDownsampling,
    make_problem,
)
from helpers import dense, rand, randn

SIZE = (2, 5, 6, 8)
F64 = {"dtype": torch.float64}


def generic(size=SIZE, **options):
    _, frames, height, width = size
    return SeparableVideoPhysics(
        size,
        temporal=randn(3, frames, seed=1),
        vertical=randn(height + 2, height, seed=2),
        horizontal=randn(5, width, seed=3),
        **options,
    )


def rank_deficient(size=SIZE, **options):
    _, frames, _, width = size
    return SeparableVideoPhysics(
        size,
        temporal=torch.ones(frames, frames) / frames,
        horizontal=randn(4, width, seed=1),
        **options,
    )


FACTORIES = {
    "identity": lambda **o: SeparableVideoPhysics(SIZE, **o),
    "generic": generic,
    "rank deficient": rank_deficient,
    "full svd": lambda **o: generic(full_svd=True, **o),
    "uniform blur": lambda **o: TemporalBlur(SIZE, 3, **o),
    "even blur, replicate": lambda **o: TemporalBlur(SIZE, 4, padding="replicate", **o),
    "gaussian blur, reflect": lambda **o: TemporalBlur(
        SIZE, 5, kernel="gaussian", padding="reflect", **o
    ),
    "own taps, zeros": lambda **o: TemporalBlur(
        SIZE, kernel=torch.tensor([0.5, 0.2, 0.3, 0.1]), padding="constant", **o
    ),
    "pooling": lambda **o: TemporalPooling(SIZE, 2, **o),
    "pooling, drop": lambda **o: TemporalPooling(SIZE, 2, tail="drop", **o),
    "decimation": lambda **o: TemporalDecimation(SIZE, 3, offset=1, **o),
    "bicubic": lambda **o: VideoDownsampling(SIZE, 2, **o),
    "bicubic, centre": lambda **o: VideoDownsampling(SIZE, 2, alignment="center", **o),
    "sinc, not a divisor": lambda **o: VideoDownsampling(SIZE, 3, filter="sinc", **o),
    "valid": lambda **o: VideoDownsampling(
        SIZE, 2, filter="bilinear", padding="valid", **o
    ),
    "spatial blur": lambda **o: VideoBlur(
        SIZE, deepinv.physics.functional.gaussian_blur(sigma=(0.6, 0.6)), **o
    ),
    "spatial blur, reflect": lambda **o: VideoBlur(
        SIZE, (torch.tensor([1.0, 2.0]), torch.tensor([0.5, 1, 3])), "reflect", **o
    ),
    "problem A": lambda **o: make_problem("A", SIZE, **o),
    "problem B": lambda **o: make_problem("B", (1, 7, 16, 8), **o),
    "problem C": lambda **o: make_problem("C", (1, 9, 8, 16), **o),
}


@pytest.fixture(params=FACTORIES, ids=lambda name: name.replace(" ", "-"))
def physics(request):
    return FACTORIES[request.param](**F64)


def test_adjoint(physics):
    u = randn(2, *physics.img_size, seed=4)
    v = randn(2, *physics.measurement_size, seed=5)
    forward = (physics.A(u) * v).sum()
    backward = (u * physics.A_adjoint(v)).sum()
    assert abs(forward - backward) < 1e-10 * abs(forward).clamp(min=1)
    assert physics.adjointness_test(dtype=torch.float64) < 1e-10


def test_dense_oracle(physics):
    matrix = dense(physics.A, physics.img_size)
    adjoint = dense(physics.A_adjoint, physics.measurement_size)
    torch.testing.assert_close(adjoint, matrix.T)
    torch.testing.assert_close(
        dense(physics.A_adjoint_A, physics.img_size), matrix.T @ matrix
    )
    torch.testing.assert_close(
        dense(physics.A_A_adjoint, physics.measurement_size), matrix @ matrix.T
    )
    pinv = torch.linalg.pinv(matrix, rtol=1e-12)
    torch.testing.assert_close(
        dense(physics.A_dagger, physics.measurement_size), pinv, atol=1e-9, rtol=1e-7
    )
    values = torch.linalg.svdvals(matrix)
    torch.testing.assert_close(physics.compute_sqnorm(), values[0] ** 2)
    torch.testing.assert_close(physics.compute_norm(squared=False), values[0])
    kept = values[values > 1e-12 * values[0]]
    torch.testing.assert_close(physics.condition_number(), kept[0] / kept[-1])


@pytest.mark.parametrize("gamma", [0.3, 200.0, 16868.0])
def test_prox_dense_oracle(physics, gamma):
    matrix = dense(physics.A, physics.img_size)
    z = randn(2, *physics.img_size, seed=6)
    y = randn(2, *physics.measurement_size, seed=7)
    normal = gamma * matrix.T @ matrix + torch.eye(len(matrix.T), dtype=torch.float64)
    right = gamma * (matrix.T @ y.flatten(1).T) + z.flatten(1).T
    expected = torch.linalg.solve(normal, right).T.reshape(z.shape)
    torch.testing.assert_close(physics.prox_l2(z, y, gamma), expected)
    for number, constant in ((None, 0.0), (0, 0.0), (0.5, 0.5)):
        torch.testing.assert_close(
            physics.prox_l2(number, y, gamma),
            physics.prox_l2(torch.full_like(z, constant), y, gamma),
        )


def test_prox_takes_one_gamma_per_video(physics):
    z = randn(2, *physics.img_size, seed=6)
    y = randn(2, *physics.measurement_size, seed=7)
    gamma = torch.tensor([0.5, 3.0], dtype=torch.float64)
    both = physics.prox_l2(z, y, gamma)
    for i in range(2):
        one = physics.prox_l2(z[i : i + 1], y[i : i + 1], float(gamma[i]))
        torch.testing.assert_close(both[i : i + 1], one)


def test_normal_equations_in_float32(physics):
    physics = physics.float()
    gamma = 16868.0
    z = rand(2, *physics.img_size, seed=6, dtype=torch.float32)
    y = physics.A(rand(2, *physics.img_size, seed=7, dtype=torch.float32))
    u = physics.prox_l2(z, y, gamma)
    right = gamma * physics.A_adjoint(y) + z
    residual = gamma * physics.A_adjoint_A(u) + u - right
    assert residual.norm() < 1e-5 * right.norm()


def test_batch_equals_stacked_singles(physics):
    x = randn(3, *physics.img_size, seed=8)
    singles = torch.cat([physics.A(x[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(physics.A(x), singles)


def test_inputs_and_operator_are_left_alone(physics):
    x = randn(2, *physics.img_size, seed=8)
    y = physics.A(x)
    before = (x.clone(), y.clone(), copy.deepcopy(physics.state_dict()))
    options = (physics.solver, physics.max_iter, physics.tol)
    physics.prox_l2(x, y, 2.0)
    physics.A_dagger(y)
    physics.A_adjoint(y)
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])
    for key, value in physics.state_dict().items():
        assert torch.equal(value, before[2][key])
    assert options == (physics.solver, physics.max_iter, physics.tol)


def test_clone_and_state_dict(physics):
    x = randn(2, *physics.img_size, seed=8)
    clone = physics.clone()
    assert torch.equal(clone.A(x), physics.A(x))
    buffer = io.BytesIO()
    torch.save(physics.state_dict(), buffer)
    buffer.seek(0)
    for name in ("temporal", "vertical", "horizontal"):
        if getattr(clone, name) is not None:
            getattr(clone, name).zero_()
    clone.load_state_dict(torch.load(buffer, weights_only=True))
    torch.testing.assert_close(clone.A(x), physics.A(x))
    y = physics.A(x)
    torch.testing.assert_close(clone.A_dagger(y), physics.A_dagger(y))


def test_conversion_keeps_the_prox_exact():
    physics = generic().double()  # built in float32
    matrix = dense(physics.A, SIZE)
    z, y = randn(1, *SIZE, seed=1), randn(1, *physics.measurement_size, seed=2)
    u = physics.prox_l2(z, y, 1e4)
    residual = 1e4 * matrix.T @ (matrix @ u.flatten() - y.flatten()) + (u - z).flatten()
    assert residual.norm() < 1e-10 * (1e4 * matrix.T @ y.flatten()).norm()
    assert physics.float().A(z.float()).dtype == torch.float32


@pytest.mark.parametrize("full_svd", [False, True])
def test_svd_contract(full_svd):
    physics = generic(full_svd=full_svd, **F64)
    x = randn(2, *SIZE, seed=1)
    y = physics.A(x)
    torch.testing.assert_close(physics.U(physics.mask * physics.V_adjoint(x)), y)
    torch.testing.assert_close(
        physics.V(physics.mask * physics.U_adjoint(y)), physics.A_adjoint(y)
    )
    coefficients = physics.V_adjoint(x)
    torch.testing.assert_close(physics.V_adjoint(physics.V(coefficients)), coefficients)
    if full_svd:
        assert physics.mask.shape == (1, *SIZE)
        torch.testing.assert_close(physics.V(coefficients), x)


def test_product_is_separable_and_equals_composition():
    inner = TemporalPooling(SIZE, 2, noise_model=GaussianNoise(0.3), **F64)
    outer = VideoDownsampling(
        inner.measurement_size, 2, noise_model=GaussianNoise(0.7), **F64
    )
    product = outer * inner
    assert isinstance(product, SeparableVideoPhysics)
    assert product.noise_model is outer.noise_model
    x = randn(2, *SIZE, seed=1)
    torch.testing.assert_close(product.A(x), outer.A(inner.A(x)))
    y = randn(2, *product.measurement_size, seed=2)
    torch.testing.assert_close(
        product.A_adjoint(y), inner.A_adjoint(outer.A_adjoint(y))
    )
    with pytest.raises(ValueError, match="video size"):
        inner * outer


def test_constant_video_stays_constant():
    for name in ("uniform blur", "pooling", "bicubic", "problem A"):
        physics = FACTORIES[name](**F64)
        y = physics.A(torch.ones(1, *physics.img_size, dtype=torch.float64))
        torch.testing.assert_close(y, torch.ones_like(y))


def test_noise_is_the_physics_own():
    first, second = generic(), generic()
    assert first.noise_model is not second.noise_model
    noisy = generic(noise_model=GaussianNoise(0.5), **F64)
    x = torch.zeros(1, *SIZE, dtype=torch.float64)
    torch.manual_seed(0)
    y = torch.cat([noisy(x) for _ in range(50)])
    assert abs(y.std() - 0.5) < 0.02


BAD_SIZES = {
    "four axes": (torch.zeros(2, 5, 6, 8), ValueError, "5 axes"),
    "other size": (torch.zeros(1, 2, 5, 6, 9), ValueError, r"`x` must have shape"),
    "integers": (torch.zeros(1, *SIZE, dtype=torch.uint8), TypeError, "float"),
    "other dtype": (torch.zeros(1, *SIZE, dtype=torch.float64), TypeError, "float32"),
    "empty": (torch.zeros(0, *SIZE), ValueError, "empty"),
    "other device": (torch.zeros(1, *SIZE, device="meta"), ValueError, "meta"),
    "no tensor": ([1.0], TypeError, "torch.Tensor"),
}


@pytest.mark.parametrize("case", BAD_SIZES)
def test_wrong_video(case):
    x, error, message = BAD_SIZES[case]
    with pytest.raises(error, match=message):
        generic().A(x)


def test_wrong_measurement():
    physics = generic()
    with pytest.raises(ValueError, match="`y` must have shape"):
        physics.A_adjoint(torch.zeros(1, *SIZE))
    with pytest.raises(ValueError, match="`y` must have shape"):
        physics.prox_l2(torch.zeros(1, *SIZE), torch.zeros(1, *SIZE), 1.0)
    with pytest.raises(ValueError, match="`gamma` must be positive"):
        physics.prox_l2(None, torch.zeros(1, *physics.measurement_size), -1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"img_size": (3, 5, 6)}, "four positive integers"),
        ({"img_size": (3, 0, 6, 8)}, "four positive integers"),
        ({"temporal": torch.eye(4)}, r"\(m, 5\)"),
        ({"vertical": torch.full((6, 6), torch.nan)}, "finite"),
        ({"horizontal": torch.ones(8)}, r"\(m, 8\)"),
    ],
)
def test_wrong_construction(options, message):
    with pytest.raises(ValueError, match=message):
        SeparableVideoPhysics(**{"img_size": SIZE, **options})


@pytest.mark.parametrize("name", ["mask", "temporal", "vertical", "horizontal"])
def test_matrices_and_singular_values_belong_together(name):
    physics = generic()
    with pytest.raises(ValueError, match=f"`{name}` is fixed"):
        physics.A(torch.zeros(1, *SIZE), **{name: torch.ones(1)})
    with pytest.raises(ValueError, match=f"`{name}` is fixed"):
        physics.update(**{name: torch.eye(5)})


def test_gradient_with_respect_to_gamma():
    physics = generic(**F64)
    z, y = randn(2, *SIZE), randn(2, *physics.measurement_size, seed=1)
    for shape in ((), (1,), (2,)):
        gamma = torch.full(shape, 0.7, dtype=torch.float64, requires_grad=True)
        torch.autograd.gradcheck(lambda g: physics.prox_l2(z, y, g), (gamma,))


def test_autocast_leaves_the_operator_alone():
    physics = generic()
    x = rand(1, *SIZE, dtype=torch.float32)
    expected = physics.A(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(physics.A(x), expected)


def test_batches_must_agree():
    physics = generic(**F64)
    z, y = randn(2, *SIZE), randn(2, *physics.measurement_size, seed=1)
    with pytest.raises(ValueError, match="`z` holds 1 videos for 2"):
        physics.prox_l2(z[:1], y, 1.0)
    with pytest.raises(ValueError, match="one per element of the batch"):
        physics.prox_l2(z, y, torch.ones(3))


def test_truncated_pseudo_inverse():
    physics = generic(**F64)
    y = randn(1, *physics.measurement_size)
    values = physics.mask.flatten().sort(descending=True).values
    cut = float(values[10] + values[9]) / 2
    matrix = dense(physics.A, SIZE)
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    keep = s > cut
    expected = vh[keep].T @ ((u[:, keep].T @ y.flatten()) / s[keep])
    found = physics.A_dagger(y, smallest=cut).flatten()
    torch.testing.assert_close(found, expected)
