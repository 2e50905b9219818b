r"""Image operators lifted to video."""

from __future__ import annotations

import copy

import deepinv
import pytest
import torch
from deepinv.physics import GaussianNoise, LinearPhysics

from deepinv_lvtino.physics import FramewiseLinearPhysics, FramewisePhysics
from helpers import rand, randn

SIZE = (3, 4, 8, 10)  # (C, T, H, W)


def image_operators():
    mask = (rand(1, 1, 8, 10, seed=3) > 0.4).float()
    kernel = rand(1, 1, 3, 3, dtype=torch.float32)
    return {
        "inpainting": deepinv.physics.Inpainting(img_size=(3, 8, 10), mask=mask[0]),
        "blur": deepinv.physics.Blur(filter=kernel, padding="circular"),
        "downsampling": deepinv.physics.Downsampling(
            img_size=(3, 8, 10), filter="bilinear", factor=2
        ),
        "decolorize": deepinv.physics.Decolorize(),
        "compressed sensing": deepinv.physics.CompressedSensing(
            m=20, img_size=(3, 8, 10), rng=torch.Generator().manual_seed(0)
        ),
    }


@pytest.mark.parametrize("name", image_operators())
def test_linear_operators(name):
    image = image_operators()[name]
    physics = FramewisePhysics(image)
    assert isinstance(physics, LinearPhysics)
    x = randn(2, *SIZE, dtype=torch.float32)
    y = physics.A(x)
    for b in range(2):
        for t in range(SIZE[1]):
            frame = image.A(x[b, :, t][None])[0]
            torch.testing.assert_close(y.movedim(2, 1)[b, t], frame)
    v = torch.randn_like(y)
    torch.testing.assert_close(
        (y * v).sum(), (x * physics.A_adjoint(v)).sum(), rtol=1e-4, atol=1e-4
    )
    settings = {"max_iter": 300, "tol": 1e-7}
    u = physics.prox_l2(x, y + 0.1, 3.0, **settings)
    xd = physics.A_dagger(y, **settings)
    for t in range(SIZE[1]):
        seen = y.select(2, t)
        frame = image.prox_l2(x[:, :, t], seen + 0.1, 3.0, **settings)
        if name == "decolorize":  # DeepInverse's loses the colours that are not seen
            srf = image.srf.flatten()
            gain = 3.0 / (1 + 3.0 * (srf @ srf))
            left = seen[:, 0] + 0.1 - torch.einsum("c,bchw->bhw", srf, x[:, :, t])
            frame = x[:, :, t] + gain * srf.view(1, 3, 1, 1) * left[:, None]
        torch.testing.assert_close(u[:, :, t], frame, atol=1e-4, rtol=1e-4)
        frame = image.A_dagger(seen, **settings)
        torch.testing.assert_close(xd[:, :, t], frame, atol=1e-3, rtol=1e-3)


def test_prox_solves_its_normal_equations():
    physics = FramewisePhysics(image_operators()["blur"])
    x = randn(2, *SIZE, dtype=torch.float32)
    y = randn(2, *SIZE, seed=1, dtype=torch.float32)
    u = physics.prox_l2(x, y, 3.0, max_iter=200, tol=1e-8)
    residual = 3.0 * physics.A_adjoint(physics.A(u) - y) + u - x
    assert residual.norm() < 1e-5 * (3.0 * physics.A_adjoint(y) + x).norm()


def test_prox_takes_one_gamma_per_video_and_keeps_settings():
    physics = FramewisePhysics(image_operators()["inpainting"])
    x = randn(2, *SIZE, dtype=torch.float32)
    y = randn(2, *SIZE, seed=1, dtype=torch.float32)
    both = physics.prox_l2(x, y, torch.tensor([0.5, 4.0]))
    for i, gamma in enumerate((0.5, 4.0)):
        one = physics.prox_l2(x[i : i + 1], y[i : i + 1], gamma)
        torch.testing.assert_close(both[i : i + 1], one)
    image = image_operators()["downsampling"]
    physics = FramewisePhysics(image)
    before = (image.solver, image.max_iter, image.tol)
    physics.prox_l2(x, physics.A(x), 1.0, solver="CG", max_iter=30, tol=0.1)
    physics.A_dagger(physics.A(x), solver="CG", max_iter=30, tol=0.1)
    assert (image.solver, image.max_iter, image.tol) == before


def test_nonlinear_operator():
    class Square(deepinv.physics.Physics):
        def A(self, x, **kwargs):
            return x**2

    physics = FramewisePhysics(Square(noise_model=GaussianNoise(0.1)))
    assert not isinstance(physics, LinearPhysics)
    x = rand(2, *SIZE, dtype=torch.float32)
    torch.testing.assert_close(physics.A(x), x**2)
    assert isinstance(physics.noise_model, GaussianNoise)
    assert 0.05 < (physics(x) - x**2).std() < 0.15


def test_sensor_and_parameters_pass_through():
    image = deepinv.physics.Denoising(
        noise_model=deepinv.physics.ZeroNoise(), sensor_model=lambda y: y.clamp(max=0.5)
    )
    x = rand(2, *SIZE, dtype=torch.float32)
    torch.testing.assert_close(FramewisePhysics(image)(x), x.clamp(max=0.5))
    physics = FramewisePhysics(image_operators()["inpainting"])
    physics.update_parameters(mask=torch.zeros(1, 1, 8, 10))
    assert not physics.A(x).any()


def test_wrong_measurements():
    physics = FramewisePhysics(image_operators()["blur"])
    y = torch.zeros(1, *SIZE)
    for method in (
        physics.A_adjoint,
        physics.A_dagger,
        lambda y: physics.prox_l2(0.0, y, 1.0),
    ):
        with pytest.raises(TypeError, match="`y` must be a torch.Tensor"):
            method([1.0])
        with pytest.raises(ValueError, match="non-empty"):
            method(y[:, :, :0])
        with pytest.raises(ValueError, match="`y` is on meta"):
            method(y.to("meta"))
    with pytest.raises(ValueError, match="`gamma` must be positive"):
        physics.prox_l2(y, y, -1.0)


def test_clone_norm_and_noise():
    physics = FramewisePhysics(
        image_operators()["blur"], noise_model=GaussianNoise(0.2)
    )
    x = randn(1, *SIZE, dtype=torch.float32)
    for twin in (physics.clone(), copy.deepcopy(physics)):
        assert isinstance(twin, FramewiseLinearPhysics)
        assert torch.equal(twin.A(x), physics.A(x))
    assert float(physics.noise_model.sigma) == pytest.approx(0.2)
    image_norm = physics.image_physics.compute_sqnorm(x[:, :, 0], verbose=False)
    norm = physics.compute_sqnorm(x[0], verbose=False)
    torch.testing.assert_close(norm, image_norm, rtol=0.05, atol=0)


def test_wrong_arguments():
    with pytest.raises(TypeError, match="`image_physics` must be"):
        FramewisePhysics(torch.nn.Identity())
    physics = FramewisePhysics(image_operators()["blur"])
    with pytest.raises(ValueError, match="5 axes"):
        physics.A(torch.zeros(3, 4, 8, 10))
    stacked = image_operators()["blur"].stack(image_operators()["inpainting"])
    with pytest.raises(TypeError, match="one tensor"):
        FramewisePhysics(stacked).A(torch.zeros(1, *SIZE))
