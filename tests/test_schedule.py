r"""Schedules: explicit, calibrated and published; and the data steps they hold."""

from __future__ import annotations

import pytest
import torch
from deepinv.optim import L2

from deepinv_lvtino import LVTINO, Schedule
from deepinv_lvtino.models import (
    ConsistencyModel,
    GaussianConsistencyModel,
    RectifiedFlow,
    VariancePreserving,
)
from deepinv_lvtino.optim import (
    AdamTVStep,
    ConjugateGradientStep,
    GammaStep,
    HalfStep,
    PrimalDualTVStep,
    ProximalStep,
    Sweep,
)
from deepinv_lvtino.physics import make_problem
from helpers import dense, rand


def models(pixel_scale=1.0):
    video = ConsistencyModel(RectifiedFlow(), pixel_scale=pixel_scale)
    image = ConsistencyModel(VariancePreserving(), per_frame=True)
    return video, image


@pytest.mark.parametrize("eta", [0.25, 0.5])
def test_calibrated_times_solve_their_equations(eta):
    video, image = models(pixel_scale=0.5)
    deltas = (0.1, 0.02, 0.004)
    sweeps = Schedule.calibrated(deltas, eta).resolve(video, image)
    for k, (delta, sweep) in enumerate(zip(deltas, sweeps, strict=True)):
        ratio = video.schedule.noise_ratio(sweep.video.time)
        assert 0.25 * ratio / 2 == pytest.approx(delta * eta)
        assert sweep.video.data_step == ProximalStep(delta * eta)
        if k == 2:
            assert sweep.image is None
            continue
        ratio = image.schedule.noise_ratio(sweep.image.time)
        assert ratio / 2 == pytest.approx(delta * (1 - eta))
        assert sweep.image.data_step == ProximalStep(delta * (1 - eta))


def test_calibrated_with_one_model():
    video, image = models()
    schedule = Schedule.calibrated(0.02, 0.3, 4)
    alone = schedule.resolve(video, None)
    assert [sweep.video.data_step for sweep in alone] == [ProximalStep(0.02)] * 4
    assert all(sweep.image is None for sweep in alone)
    framewise = schedule.resolve(None, image)
    assert [sweep.image.data_step for sweep in framewise] == [ProximalStep(0.02)] * 4
    assert all(sweep.video is None for sweep in framewise)


def test_default_schedule_has_nine_evaluations():
    schedule = Schedule.calibrated()
    assert schedule.num_steps == 5
    assert sorted(schedule.delta, reverse=True) == list(schedule.delta)
    assert LVTINO().num_evaluations == 9
    assert LVTINO(eta=1).num_evaluations == 5
    assert LVTINO(eta=0).num_evaluations == 5
    assert Schedule.calibrated(num_steps=3).num_steps == 3
    assert Schedule.calibrated(num_steps=1).num_steps == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eta": 1.5}, "`eta` must lie in"),
        ({"num_steps": 0}, "`num_steps` must be a positive"),
        ({"delta": -1.0}, "`delta` must be positive"),
        ({"delta": []}, "`delta` must hold"),
        ({"delta": [0.1, 0.2], "num_steps": 3}, "`delta` has 2 values"),
    ],
)
def test_wrong_calibration(arguments, message):
    with pytest.raises(ValueError, match=message):
        Schedule.calibrated(**arguments)


def test_step_out_of_the_models_reach():
    video, image = models()
    with pytest.raises(ValueError, match="`noise_ratio` must lie in"):
        Schedule.calibrated(1e-5).resolve(video, image)


def test_snapped_timetable_realises_the_step_it_says():
    video = ConsistencyModel(RectifiedFlow(snap=True))
    for delta in (0.1, 0.02, 0.001):
        sweep = Schedule.calibrated(delta, num_steps=1).resolve(video, None)[0]
        ratio = video.schedule.noise_ratio(sweep.video.time)
        assert sweep.video.data_step.stepsize == pytest.approx(ratio / 2, rel=1e-5)
        assert sweep.video.data_step.stepsize == pytest.approx(delta, rel=0.2)
    with pytest.raises(ValueError, match="has no time for a step"):
        Schedule.calibrated(1e-6).resolve(video, None)


def test_explicit():
    video, image = models()
    sweeps = [
        Sweep(HalfStep(300.0, ProximalStep(0.02)), HalfStep(200, GammaStep(3.0))),
        Sweep(video=HalfStep(200.0, ProximalStep(0.01))),
    ]
    schedule = Schedule(sweeps)
    assert schedule == Schedule.explicit(
        [300.0, 200.0], [0.02, 0.01], [200], [GammaStep(3.0)]
    )
    with pytest.raises(ValueError, match="`image_times` and `image_steps`"):
        Schedule.explicit([300.0], [0.02], [200], [])
    with pytest.raises(ValueError, match="`video_times` and `video_steps`"):
        Schedule.explicit([300.0], [0.02, 0.01])
    assert schedule.resolve(video, image) == tuple(sweeps)
    only_video = schedule.resolve(video, None)
    assert [sweep.image for sweep in only_video] == [None, None]
    assert len(schedule.resolve(None, image)) == 1
    with pytest.raises(ValueError, match="`eta` cannot change"):
        schedule.resolve(video, image, eta=0.5)
    with pytest.raises(ValueError, match="no half-step"):
        Schedule(sweeps[1:]).resolve(None, image)
    with pytest.raises(ValueError, match="`sweeps` must hold"):
        Schedule([Sweep()])


def test_published_numbers():
    a, b, c = (Schedule.published(name) for name in "ABC")
    times = [757, 522, 375, 255, 125]
    assert [s.video.time for s in a.sweeps] == times
    assert [s.video.time for s in b.sweeps] == times
    assert [s.video.time for s in c.sweeps] == times[:3]
    for schedule in (a, b):
        images = [s.image.time for s in schedule.sweeps if s.image]
        assert images == [374, 249, 124, 124]
        assert schedule.init == "prox"
    assert [s.image.time for s in c.sweeps if s.image] == [249, 63]
    for schedule, evaluations in ((a, 9), (b, 9), (c, 5)):
        solver = LVTINO(*models(), schedule=schedule)
        assert solver.num_evaluations == evaluations
        assert schedule.clamp == (0, 1)
    gammas = [s.video.data_step.gamma for s in b.sweeps]
    assert gammas == [3539, 3539, 1363, 1363, 1363]
    gammas = [s.image.data_step.gamma for s in b.sweeps if s.image]
    assert gammas == [16868, 16868, 2721, 2721]
    # The released solvers, literally.
    assert {s.video.data_step for s in a.sweeps} == {
        PrimalDualTVStep(200, lam=2.873789e-4, tau=0.25, sigma=0.25)
    }
    assert {s.image.data_step for s in a.sweeps if s.image} == {
        ConjugateGradientStep(19, epsilon=1e-6)
    }
    assert [s.video.data_step for s in c.sweeps] == [
        AdamTVStep(55, lam, learning_rate=0.019848, smoothing=1e-2)
        for lam in (6.1785e-7, 1.5583e-6, 1.5583e-6)
    ]
    assert {s.image.data_step for s in c.sweeps if s.image} == {
        ConjugateGradientStep(23, epsilon=1e-6)
    }
    with pytest.raises(ValueError, match="`problem` must be one of 'A', 'B', 'C'"):
        Schedule.published("D")


@pytest.mark.parametrize("name", "ABC")
def test_published_schedules_run(name):
    # Gaussian experts in the published noise conventions; plumbing only.
    size = (1, 8, 8, 8)
    physics = make_problem(name, size, sigma=0.001)
    x = rand(1, *size, dtype=torch.float32)
    y = physics(x)
    video = GaussianConsistencyModel(
        torch.full((512,), 0.5),
        0.05 * torch.eye(512),
        schedule=RectifiedFlow(snap=True),
    )
    image = GaussianConsistencyModel(torch.full((64,), 0.5), 0.05 * torch.eye(64), True)
    solver = LVTINO(video, image, schedule=Schedule.published(name), seed=0)
    u = solver(y, physics)
    assert u.shape == x.shape
    if name == "B":
        assert u.min() >= 0
        assert u.max() <= 1
    assert (physics.A(u) - y).norm() < 0.5 * (physics.A(0 * u) - y).norm()


# -- data steps ------------------------------------------------------------------------

SIZE = (1, 4, 3, 4)


def setting():
    physics = make_problem("A", SIZE, dtype=torch.float64)
    y = rand(1, *physics.measurement_size, seed=1)
    z = rand(1, *SIZE, seed=2)
    return physics, y, z


def test_proximal_steps():
    physics, y, z = setting()
    expected = physics.prox_l2(z, y, 0.3 / 0.25)
    u = ProximalStep(0.3)(z, y, physics, L2(sigma=0.5))
    torch.testing.assert_close(u, expected)
    torch.testing.assert_close(GammaStep(1.2)(z, y, physics, L2(0.1)), expected)
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="`stepsize` must be positive"):
            ProximalStep(wrong)
        with pytest.raises(ValueError, match="`gamma` must be positive"):
            GammaStep(wrong)


def test_conjugate_gradient_step_by_transcription():
    physics, y, z = setting()
    matrix = dense(physics.A, SIZE)
    system = matrix.T @ matrix + 1e-6 * torch.eye(matrix.shape[1])
    u, b = z.flatten(), matrix.T @ y.flatten()
    residual = b - system @ u
    direction = residual
    for _ in range(3):
        step = residual @ residual / (direction @ system @ direction)
        u = u + step * direction
        new = residual - step * system @ direction
        direction = new + new @ new / (residual @ residual) * direction
        residual = new
    result = ConjugateGradientStep(3)(z, y, physics, L2())
    torch.testing.assert_close(result.flatten(), u)


def difference_matrix():
    frames = SIZE[1]
    return dense(lambda x: torch.diff(x, dim=2), SIZE), frames


def test_primal_dual_step_by_transcription():
    # On [-1, 1], as published; the package works on [0, 1].
    physics, y, z = setting()
    matrix = dense(physics.A, SIZE)
    d, _ = difference_matrix()
    lam, tau, sigma = 0.05, 0.25, 0.25
    u, target = 2 * z.flatten() - 1, 2 * y.flatten() - matrix.sum(1)
    p = torch.zeros(len(d), dtype=torch.float64)
    for _ in range(30):
        new = u - tau * (matrix.T @ (matrix @ u - target) + d.T @ p)
        p = (p + sigma * d @ (2 * new - u)).clamp(-lam, lam)
        u = new
    result = PrimalDualTVStep(30, lam)(z, y, physics, L2())
    torch.testing.assert_close(2 * result.flatten() - 1, u)


def test_adam_step_by_transcription():
    physics, y, z = setting()
    matrix = dense(physics.A, SIZE)
    u = (2 * z - 1).requires_grad_()
    target = 2 * y.flatten() - matrix.sum(1)
    optimizer = torch.optim.Adam([u], lr=0.02)
    for _ in range(10):
        optimizer.zero_grad()
        variation = 0
        pad = torch.nn.functional.pad
        t = pad(torch.diff(u, dim=2), (0, 0, 0, 0, 0, 1))
        h = pad(torch.diff(u, dim=3), (0, 0, 0, 1))
        w = pad(torch.diff(u, dim=4), (0, 1))
        variation = (t**2 + h**2 + w**2 + 1e-4).sqrt().sum()
        loss = 0.5 * (matrix @ u.flatten() - target).square().sum() + 1e-3 * variation
        loss.backward()
        optimizer.step()
    with torch.no_grad():  # as inside of the solver
        result = AdamTVStep(10, lam=1e-3, learning_rate=0.02)(z, y, physics, L2())
    torch.testing.assert_close(2 * result - 1, u.detach(), atol=1e-6, rtol=1e-6)
    assert not result.requires_grad


def test_steps_leave_their_input_alone():
    physics, y, z = setting()
    before = z.clone()
    for step in (
        ProximalStep(0.1),
        GammaStep(1.0),
        ConjugateGradientStep(3),
        PrimalDualTVStep(3, 0.1),
        AdamTVStep(3, 0.1, 0.01),
    ):
        step(z, y, physics, L2())
        assert torch.equal(z, before)
        assert not z.requires_grad
