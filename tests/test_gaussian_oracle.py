r"""The sampler on Gaussian priors, where every law is known in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from deepinv.physics import GaussianNoise

from deepinv_lvtino import LVTINO, Schedule
from deepinv_lvtino.models import (
    GaussianConsistencyModel,
    RectifiedFlow,
    SpectralGaussianModel,
    VariancePreserving,
)
from deepinv_lvtino.optim import GaussianLikelihood, LVTINOIteration, ProductOfExperts
from deepinv_lvtino.physics import SeparableVideoPhysics
from helpers import covariance, dense, randn

SIZE = (1, 2, 1, 2)  # four pixels: two frames of two
SIGMA = 0.5


def problem():
    r"""Physics, measurement and the two experts."""
    physics = SeparableVideoPhysics(
        SIZE,
        temporal=torch.tensor([[0.6, 0.4]]),
        noise_model=GaussianNoise(SIGMA),
        dtype=torch.float64,
    )
    y = randn(1, *physics.measurement_size, seed=3)
    video = GaussianConsistencyModel(
        randn(4, seed=1), covariance(4, seed=1), schedule=RectifiedFlow()
    )
    image = GaussianConsistencyModel(
        randn(2, seed=2), covariance(2, seed=2), True, VariancePreserving()
    )
    return physics, y, video, image


def dense_law(model):
    r"""Mean and covariance of a model over the flattened clip."""
    cov = model.axes @ torch.diag(model.variances) @ model.axes.T
    mean = model.mean.flatten()
    if not model.per_frame:
        return mean, cov
    return mean.repeat(2), torch.block_diag(cov, cov)


def posterior(physics, y, video, image, eta):
    r"""Exact product-of-experts posterior."""
    matrix = dense(physics.A, SIZE)
    precision = matrix.T @ matrix / SIGMA**2
    information = matrix.T @ y.flatten() / SIGMA**2
    for model, weight in ((video, eta), (image, 1 - eta)):
        mean, cov = dense_law(model)
        precision = precision + weight * torch.linalg.inv(cov)
        information = information + weight * torch.linalg.solve(cov, mean)
    cov = torch.linalg.inv(precision)
    return cov @ information, cov


def affine(function, noise_labels):
    r"""
    Read a map ``(x, noises) -> x``, affine in all, off its values on basis vectors.

    Returns the matrix for ``x``, the offset, and the covariance of the noise's part.
    """
    identity = torch.eye(4, dtype=torch.float64)
    zero = torch.zeros(1, 4, dtype=torch.float64)

    def run(x, noises):
        x = x.reshape(-1, *SIZE)

        def source(label, like):
            noise = noises.get(label, torch.zeros(len(x), 4, dtype=torch.float64))
            return noise.reshape(like.shape)

        return function(x, source).reshape(-1, 4)

    offset = run(zero, {})
    by_x = (run(identity, {}) - offset).T
    cov = torch.zeros(4, 4, dtype=torch.float64)
    for label in noise_labels:
        by_noise = (run(0 * identity, {label: identity}) - offset).T
        cov += by_noise @ by_noise.T
    return by_x, offset.flatten(), cov


def chain(delta, eta):
    r"""Affine maps of one whole sweep and of the last (video) half, by the package."""
    physics, y, video, image = problem()
    prior = ProductOfExperts(video, image)
    sweeps = Schedule.calibrated(delta, eta, 2).resolve(video, image)
    iteration = LVTINOIteration()

    def one(sweep):
        def function(x, source):
            state = iteration(
                {"est": (x,)},
                GaussianLikelihood(),
                prior,
                {"sweep": sweep, "index": 0, "clamp": None},
                y.expand(len(x), -1, -1, -1, -1),
                physics,
                noise_source=source,
            )
            return state["est"][0]

        return affine(function, ["k0/video", "k0/image"])

    return one(sweeps[0]), one(sweeps[1])


def stationary(delta, eta):
    r"""Law of the chain's output after infinitely many sweeps."""
    (matrix, offset, noise), (last, last_offset, last_noise) = chain(delta, eta)
    identity = torch.eye(4, dtype=torch.float64)
    mean = torch.linalg.solve(identity - matrix, offset)
    kron = torch.eye(16, dtype=torch.float64) - torch.kron(matrix, matrix)
    cov = torch.linalg.solve(kron, noise.flatten()).reshape(4, 4)
    return last @ mean + last_offset, last @ cov @ last.T + last_noise


@pytest.mark.parametrize("eta", [0.3, 0.7])
def test_many_chains_follow_the_stationary_law(eta):
    physics, y, video, image = problem()
    delta, num_steps, chains = 0.2, 40, 40_000
    mean, cov = stationary(delta, eta)
    (matrix, _, _), _ = chain(delta, eta)
    forgotten = torch.linalg.matrix_norm(
        torch.linalg.matrix_power(matrix, num_steps - 1), 2
    )
    assert forgotten < 1e-3  # the start is forgotten: the law is the stationary one
    solver = LVTINO(
        video,
        image,
        schedule=Schedule.calibrated(delta, eta, num_steps),
    )
    x = solver(y.expand(chains, -1, -1, -1, -1), physics).reshape(chains, 4)
    # Five standard errors of the mean, of the variances and covariances.
    error = (x.mean(0) - mean).abs() / (cov.diag() / chains).sqrt()
    assert error.max() < 5
    spread = torch.outer(cov.diag(), cov.diag()) + cov**2
    error = (x.T.cov() - cov).abs() / (spread / chains).sqrt()
    assert error.max() < 5


@pytest.mark.parametrize("eta", [0.3, 0.7])
def test_stationary_law_tends_to_the_posterior_at_first_order(eta):
    mean, cov = posterior(*problem(), eta)
    deltas = (0.02, 0.008, 0.004)
    errors = []
    for delta in deltas:
        chain_mean, chain_cov = stationary(delta, eta)
        errors.append(
            (
                float((chain_mean - mean).norm() / mean.norm()),
                float((chain_cov - cov).norm() / cov.norm()),
            )
        )
    for one in range(2):
        for i, j in ((0, 1), (1, 2)):
            slope = math.log(errors[i][one] / errors[j][one]) / math.log(
                deltas[i] / deltas[j]
            )
            assert 0.9 < slope < 1.1
    assert errors[-1][0] < 0.01
    assert errors[-1][1] < 0.01


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_one_prior_alone(eta):
    physics, y, video, image = problem()
    mean, cov = posterior(physics, y, video, image, eta)
    solver = LVTINO(video, image, schedule=Schedule.calibrated(0.01, eta, 1500))
    assert solver.num_evaluations == 1500
    chains = 2000
    x = solver(y.expand(chains, -1, -1, -1, -1), physics).reshape(chains, 4)
    # Bias of first order (delta = 0.01) and Monte-Carlo error.
    tolerance = 5 * (cov.diag() / chains).sqrt() + 0.02 * mean.norm()
    assert ((x.mean(0) - mean).abs() < tolerance).all()
    assert (x.T.cov() - cov).norm() < 0.12 * cov.norm()


def test_sample_gives_the_mean_and_variance_of_the_chain():
    physics, y, video, image = problem()
    delta, eta = 0.2, 0.5
    mean, cov = stationary(delta, eta)
    solver = LVTINO(video, image, schedule=Schedule.calibrated(delta, eta, 40))
    repeats, num_samples = 2000, 10
    sample_mean, sample_variance = solver.sample(
        y.expand(repeats, -1, -1, -1, -1), physics, num_samples=num_samples
    )
    total = repeats * num_samples
    error = (sample_mean.reshape(repeats, 4).mean(0) - mean).abs()
    assert (error < 5 * (cov.diag() / total).sqrt()).all()
    error = (sample_variance.reshape(repeats, 4).mean(0) - cov.diag()).abs()
    assert (error < 5 * cov.diag() * (2 / total) ** 0.5).all()


def test_video_posterior_of_the_spectral_prior():
    r"""The default kind of model, on a real operator, against a dense posterior."""
    size = (1, 4, 4, 6)
    physics = SeparableVideoPhysics(
        size,
        temporal=torch.kron(torch.eye(2), torch.tensor([[0.5, 0.5]])),
        horizontal=torch.kron(torch.eye(3), torch.tensor([[0.5, 0.5]])),
        noise_model=GaussianNoise(0.1),
        dtype=torch.float64,
    )
    model = SpectralGaussianModel()
    y = 0.5 + 0.2 * randn(1, *physics.measurement_size, seed=3)
    model.denoise(torch.zeros(1, *size, dtype=torch.float64), 100.0)
    transform = dense(model._transform, size)
    cov = (
        transform.T
        @ torch.diag(
            model.coefficient_variances(torch.zeros(1, *size, dtype=torch.float64))
            .expand(size)
            .flatten()
        )
        @ transform
    )
    matrix = dense(physics.A, size)
    precision = matrix.T @ matrix / 0.01 + torch.linalg.inv(cov)
    residual = y.flatten() - matrix @ torch.full((96,), 0.5, dtype=torch.float64)
    mean = 0.5 + torch.linalg.solve(precision, matrix.T @ residual / 0.01)
    chains = 400
    solver = LVTINO(model, schedule=Schedule.calibrated(0.003, num_steps=300))
    x = solver(y.expand(chains, -1, -1, -1, -1), physics).reshape(chains, 96)
    error = x.mean(0) - mean
    monte_carlo = torch.linalg.inv(precision).diag().sum().sqrt() / chains**0.5
    assert error.norm() < 2 * monte_carlo + 0.02 * (mean - 0.5).norm()
