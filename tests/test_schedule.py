r"""Schedules: explicit, calibrated and published; and the data steps they hold."""

from __future__ import annotations

import pytest
import torch
from deepinv.optim import L2
from deepinv.optim.data_fidelity import L1
from deepinv.physics import Physics, StackedLinearPhysics
from torch import Tensor

from deepinv_lvtino import LVTINO, Schedule
from deepinv_lvtino.models import (
    ConsistencyModel,
    GaussianConsistencyModel,
    RectifiedFlow,
    VariancePreserving,
)
from deepinv_lvtino.optim import (
    AdamTVStep,
    CalibratedSchedule,
    ConjugateGradientStep,
    GammaStep,
    GaussianLikelihood,
    Half,
    HalfStep,
    LandweberStep,
    LVTINOIteration,
    PrimalDualTVStep,
    ProductOfExperts,
    ProximalStep,
    Sweep,
    SweepPlan,
    TemporalVariation,
    VariationStep,
)
from deepinv_lvtino.physics import TemporalBlur, make_problem
from deepinv_lvtino.physics.problems import find_problem
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
    assert LVTINO(schedule=schedule).num_evaluations == 9
    # the embedded default takes fewer, from a start that knows the operator
    assert LVTINO().num_evaluations == 3
    assert LVTINO(schedule=schedule, eta=1).num_evaluations == 5
    assert LVTINO(schedule=schedule, eta=0).num_evaluations == 5
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


def test_halves_know_their_expert():
    video, image = HalfStep(300.0, ProximalStep(0.02)), HalfStep(200.0, GammaStep(3.0))
    sweep = Sweep(video, image)
    assert sweep.halves == (
        Half("video", 300.0, ProximalStep(0.02)),
        Half("image", 200.0, GammaStep(3.0)),
    )
    assert [half.expert for half in Sweep(image=image).halves] == ["image"]
    assert Sweep().halves == ()
    assert sweep.with_data_step(0, GammaStep(1.0)) == Sweep(
        HalfStep(300.0, GammaStep(1.0)), image
    )
    assert sweep.with_data_step(-1, None) == Sweep(video, HalfStep(200.0, None))
    assert Sweep(video).with_data_step(-1, None) == Sweep(HalfStep(300.0, None))
    product = ProductOfExperts(models()[0], None)
    assert product.expert("video") is product.video
    with pytest.raises(ValueError, match="`name` must be that of an expert"):
        product.expert("image")


class OneVideoStep:
    r"""A plan of sweeps that is neither of the package's."""

    init, clamp, init_clamp, eta, num_steps = "prox", (0.0, 1.0), None, None, 1

    def resolve(self, video_model, image_model, eta=None):
        return (Sweep(video=HalfStep(300.0, ProximalStep(0.02))),)


def test_schedules_are_siblings_and_others_can_join():
    explicit, calibrated = Schedule.published("A"), Schedule.calibrated(0.02)
    assert isinstance(explicit, SweepPlan) and isinstance(calibrated, SweepPlan)
    assert not isinstance(calibrated, Schedule)
    assert not hasattr(calibrated, "sweeps")
    with pytest.raises(ValueError, match="`eta` must lie in"):
        CalibratedSchedule((0.02,), eta=2.0)
    solver = LVTINO(*models(), schedule=OneVideoStep())
    assert solver.num_evaluations == 1
    assert solver.init_params_algo["clamp"] == [(0.0, 1.0)]


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
        assert schedule.init_clamp == (-1, 1)
    gammas = [s.video.data_step.gamma for s in b.sweeps]
    assert gammas == [3539, 3539, 1363, 1363, 1363]
    gammas = [s.image.data_step.gamma for s in b.sweeps if s.image]
    assert gammas == [16868, 16868, 2721, 2721]
    # The released solvers, literally.
    assert {s.video.data_step for s in a.sweeps} == {
        PrimalDualTVStep(200, lam=0.0002873789, tau=0.25, sigma=0.25)
    }
    assert {s.image.data_step for s in a.sweeps if s.image} == {
        ConjugateGradientStep(19, epsilon=1e-6)
    }
    assert [s.video.data_step for s in c.sweeps] == [
        AdamTVStep(55, lam, learning_rate=0.019848, smoothing=1e-2)
        for lam in (
            6.178523568938361e-07,
            1.5583416542691956e-06,
            1.5583416542691956e-06,
        )
    ]
    assert {s.image.data_step for s in c.sweeps if s.image} == {
        ConjugateGradientStep(23, epsilon=0)
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


def setting(batch=1):
    physics = make_problem("A", SIZE, dtype=torch.float64)
    y = rand(batch, *physics.measurement_size, seed=1)
    z = rand(batch, *SIZE, seed=2)
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


def test_a_proximal_step_knows_the_operators_that_have_one():
    class Squared(Physics):
        def A(self, x, **kwargs):
            return x**2

    physics, *_ = setting()
    step, jpeg = ProximalStep(0.1), make_problem("jpeg", (1, 4, 8, 8))
    step.check(physics, L2())
    step.check(StackedLinearPhysics([physics, physics]), L2())
    for other in (Squared(), jpeg):
        for fidelity in (L2(), GaussianLikelihood()):
            with pytest.raises(NotImplementedError, match="LandweberStep"):
                step.check(other, fidelity)
        step.check(other, L1())  # which has a proximal step of its own
        LandweberStep(3).check(other, L2())


def test_variation_needs_a_step_that_can_take_it():
    half, variation = HalfStep(300.0, None), TemporalVariation()
    with pytest.raises(ValueError, match="`tv` needs a data step in the first half"):
        LVTINO(*models(), schedule=Schedule([Sweep(half)]), tv=variation)
    with pytest.raises(ValueError, match="got a GammaStep, which says itself"):
        GammaStep(1.0).with_variation(variation, 1.0, {})
    step = ProximalStep(0.1).with_variation(variation, 2.0, {"tol": 1e-2})
    assert step == VariationStep(0.1, variation, 2.0, {"tol": 1e-2})


def test_conjugate_gradient_step_ends_where_its_equation_holds():
    # as many steps as the operator has rank: the end, not the way there
    physics, y, z = setting(batch=2)
    matrix = dense(physics.A, SIZE)
    rank = int(torch.linalg.matrix_rank(matrix))
    z[0] *= 100  # the two videos of the batch end after different numbers of steps
    for epsilon in (0.5, 0.05):
        left = matrix.T @ matrix + epsilon * torch.eye(matrix.shape[1])
        right = y.flatten(1) @ matrix + epsilon * z.flatten(1)
        expected = torch.linalg.solve(left, right.T).T
        u = ConjugateGradientStep(rank + 2, epsilon)(z, y, physics, L2())
        torch.testing.assert_close(u.flatten(1), expected, atol=1e-5, rtol=0)
    # Without the second term: the nearest point, and it is not left again.
    misfit = y.flatten(1) - z.flatten(1) @ matrix.T
    nearest = z.flatten(1) + misfit @ torch.linalg.pinv(matrix).T
    for steps in (rank + 2, 200):
        u = ConjugateGradientStep(steps, 0.0)(z, y, physics, L2())
        torch.testing.assert_close(u.flatten(1), nearest, atol=1e-4, rtol=0)
    u = ConjugateGradientStep(200, 0.0)(z.float(), y.float(), physics.float(), L2())
    torch.testing.assert_close(u.flatten(1).double(), nearest, atol=1e-3, rtol=0)


def test_primal_dual_step_ends_at_the_minimum():
    # Of a problem with one minimum: every frame measured, two frames. The temporal
    # difference of the minimiser shrinks by 2 lambda, or to zero.
    physics = TemporalBlur((1, 2, 1, 1), kernel_size=1, dtype=torch.float64)
    y = torch.tensor([0.2, 0.9], dtype=torch.float64).view(1, 1, 2, 1, 1)
    for lam, expected in ((0.1, [0.25, 0.85]), (1.0, [0.55, 0.55])):
        step = PrimalDualTVStep(200, lam, tau=0.4, sigma=0.4)  # half acts on [0, 1]
        u = step(rand(1, 1, 2, 1, 1), y, physics, L2())
        torch.testing.assert_close(
            u.flatten(), torch.tensor(expected, dtype=torch.float64)
        )


@pytest.mark.parametrize(
    "step",
    [ConjugateGradientStep(3), PrimalDualTVStep(30, 1e-2), AdamTVStep(4, 1e-3, 0.02)],
)
def test_the_published_steps_do_not_know_black(step):
    # A constant more in the video and its measurement is a constant more in the result;
    # for pulls towards black it is not. These operators map constants to themselves.
    physics, y, z = setting()
    u = step(z, y, physics, L2())
    lifted = step(z + 0.3, y + 0.3, physics, L2())
    torch.testing.assert_close(lifted, u + 0.3, atol=1e-9, rtol=0)


class Watched(TemporalBlur):
    r"""Identity that keeps the videos it is applied to."""

    def __init__(self):
        super().__init__((1, 2, 1, 1), kernel_size=1, dtype=torch.float64)
        self.seen = []

    def A(self, x, **kwargs):
        self.seen.append(x.detach().clone())
        return super().A(x, **kwargs)


def test_what_a_schedule_that_clamps_projects():
    f_step, interval = LVTINOIteration().f_step, (0.4, 0.6)
    z = torch.tensor([0.1, 0.95], dtype=torch.float64).view(1, 1, 2, 1, 1)

    def outside(u: Tensor) -> bool:
        return bool((u < 0.4).any() | (u > 0.6).any())

    for step, result, on_the_way in (
        (PrimalDualTVStep(5, 1e-3), False, True),
        (ConjugateGradientStep(1), True, None),
        (AdamTVStep(5, 1e-3, 0.01), False, False),
        (GammaStep(0.1), False, None),
    ):
        physics = Watched()
        u, _ = f_step(z, L2(), step, z, physics, interval)
        assert outside(u) == result, step
        if on_the_way is not None:  # the video that comes first is the one given
            assert any(map(outside, physics.seen[1:])) == on_the_way, step
        free, _ = f_step(z, L2(), step, z, physics, None)
        assert outside(free), step
    own = AdamTVStep(5, 1e-3, 0.01, clamp=(0.0, 0.5))
    assert own.within(interval) is own
    assert float(own(z, z, Watched(), L2()).max()) == 0.5


def test_one_adam_step_moves_by_its_rate():
    # Adam's first step is the rate times the sign of the slope, whatever its size,
    # unless the slope is as small as the 1e-8 that Adam adds: then less, by the slope of
    # the loss on [-1, 1], which here is lambda = 1e-8 at every difference.
    z = torch.tensor([0.2, 0.9], dtype=torch.float64).view(1, 1, 2, 1, 1)
    y = torch.tensor([0.5, 0.5], dtype=torch.float64).view(1, 1, 2, 1, 1)
    with torch.no_grad():  # as inside of the solver
        u = AdamTVStep(1, 1e-9, 0.02)(z, y, Watched(), L2())
        half = AdamTVStep(1, 1e-8, 0.02)(z, z, Watched(), L2())
    moved = torch.tensor([0.01, -0.01], dtype=torch.float64)
    torch.testing.assert_close((u - z).flatten(), moved, atol=1e-8, rtol=0)
    torch.testing.assert_close((half - z).flatten(), moved / 2, atol=1e-6, rtol=0)
    assert not u.requires_grad


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda: ConjugateGradientStep(0), "`num_steps` must be positive"),
        (lambda: ConjugateGradientStep(3, -1.0), "`epsilon` must be 0 or positive"),
        (lambda: PrimalDualTVStep(3, lam=0.0), "`lam` must be positive"),
        (lambda: PrimalDualTVStep(3, 0.1, tau=-1.0), "`tau` must be positive"),
        (lambda: AdamTVStep(3, 0.1, 0.0), "`learning_rate` must be positive"),
        (lambda: AdamTVStep(3, 0.1, 0.1, clamp=(1, 0)), "`clamp` must be an interval"),
        (lambda: Schedule([Sweep()], init_clamp=(1, 0)), "`init_clamp` must be an"),
    ],
)
def test_wrong_steps(step, message):
    with pytest.raises(ValueError, match=message):
        step()


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


@pytest.mark.parametrize("problem", [None, "A", "B", "deblur", "every=2, noise=0.01"])
@pytest.mark.parametrize("eta", [0, 0.5, None, 1])
def test_embedded_schedules_of_any_length_can_be_run(problem, eta):
    for count in (1, 2, 3, 5, 8):
        schedule = Schedule.embedded(problem, eta, count)
        assert schedule.num_steps == count
        assert sorted(schedule.delta, reverse=True) == list(schedule.delta)
        LVTINO(schedule=schedule)


@pytest.mark.parametrize(
    ("operator", "missing"),
    [
        ("every=2", True),
        ("downscale=2, every=3, noise=0.01", True),
        ("temporal-mean=2, every=2", True),
        ("temporal-blur=5, every=2", False),
        ("temporal-mean=4", False),
        ("mask=0.5", False),
    ],
)
def test_operator_and_its_description_have_the_same_schedule(operator, missing):
    size = find_problem(operator).video_size((3, 4, 16, 16))
    said = Schedule.embedded(operator)
    assert said == Schedule.embedded(make_problem(operator, size))
    assert (said == Schedule.embedded()) == (not missing)
    if missing:
        assert LVTINO(schedule=said).num_evaluations == 1
