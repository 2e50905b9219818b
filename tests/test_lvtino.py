r"""The reconstructor's interface: DeepInverse's features, noise, and bad input."""

from __future__ import annotations

import copy

import deepinv
import pytest
import torch
from deepinv.models import Reconstructor
from deepinv.optim import L2, BaseOptim, OptimIterator, Prior
from deepinv.physics import GaussianNoise, Inpainting
from deepinv.utils import TensorList

from deepinv_lvtino import LVTINO, Schedule, make_problem
from deepinv_lvtino.models import (
    ConsistencyModel,
    GaussianConsistencyModel,
    RectifiedFlow,
    spectral_image,
    spectral_video,
)
from deepinv_lvtino.optim import (
    STARTS,
    DataStepError,
    GaussianLikelihood,
    LVTINOIteration,
    ProductOfExperts,
    SAEPrior,
    SpaceTimeVariation,
    lvtino,
    prox_l2_tv,
)
from deepinv_lvtino.optim.data_fidelity import prox_l2
from deepinv_lvtino.optim.tv.prox import as_variation
from deepinv_lvtino.physics import FramewisePhysics, VideoBlur
from helpers import generator, psnr, rand

SIZE = (3, 5, 16, 24)


@pytest.fixture(autouse=True)
def exact_default(monkeypatch):
    """The interface is tested on models that take any channels and dtype."""
    monkeypatch.setattr(lvtino, "tiny_video", spectral_video)
    monkeypatch.setattr(lvtino, "tiny_image", spectral_image)


@pytest.fixture
def problem():
    physics = make_problem("A", SIZE, sigma=0.01, rng=generator(1))
    x = 0.5 + 0.2 * torch.sin(
        torch.linspace(0, 3, 5).view(1, 1, 5, 1, 1)
        + torch.linspace(0, 4, 24)
        + torch.linspace(0, 2, 3).view(1, 3, 1, 1, 1)
        + torch.zeros(2, 3, 5, 16, 24)
    )
    return x, physics(x), physics


def test_is_a_deepinverse_algorithm():
    solver = LVTINO()
    assert isinstance(solver, (BaseOptim, Reconstructor))
    assert isinstance(solver.fixed_point.iterator, LVTINOIteration)
    assert isinstance(solver.fixed_point.iterator, OptimIterator)
    assert isinstance(solver.prior[0], (ProductOfExperts, Prior))
    assert not solver.training


def test_shapes_batch_and_measurement(problem):
    x, y, physics = problem
    u = LVTINO(seed=0)(y, physics)
    assert u.shape == x.shape
    assert u.dtype == y.dtype
    # Noise of 0.01: the sample's measurement agrees with y up to about that.
    assert (physics.A(u) - y).square().mean().sqrt() < 0.02


def test_seeds_and_replay(problem):
    _, y, physics = problem
    solver = LVTINO(seed=0)
    u = solver(y, physics)
    assert torch.equal(solver(y, physics), u)  # also on a second call of one object
    assert torch.equal(LVTINO(seed=0)(y, physics), u)
    assert not torch.equal(LVTINO(seed=1)(y, physics), u)
    assert torch.equal(LVTINO()(y, physics, seed=0), u)
    assert torch.equal(LVTINO(seed=5)(y, physics, seed=0), u)
    torch.manual_seed(3)
    first = LVTINO()(y, physics)
    torch.manual_seed(3)
    assert torch.equal(LVTINO()(y, physics), first)
    assert not torch.equal(LVTINO()(y, physics), first)

    record = {}

    def recording(label, like):
        record[label] = torch.randn(like.shape)
        return record[label]

    recorded = LVTINO(noise_source=recording)(y, physics)
    expected = [f"k{k}/{name}" for k in range(5) for name in ("video", "image")][:-1]
    assert list(record) == expected

    def replay(label, like):
        assert like.shape == record[label].shape
        return record[label]

    assert torch.equal(LVTINO(noise_source=replay)(y, physics), recorded)
    assert torch.equal(solver(y, physics, noise_source=replay), recorded)
    with pytest.raises(ValueError, match="`seed` and `noise_source`"):
        LVTINO(seed=0, noise_source=replay)
    with pytest.raises(ValueError, match="`seed` and `noise_source`"):
        LVTINO()(y, physics, seed=0, noise_source=replay)


def test_a_batch_element_does_not_depend_on_the_others(problem):
    _, y, physics = problem
    noises = {}

    def source(label, like):
        key = (label, *like.shape[1:])
        if key not in noises:
            noises[key] = torch.randn(2, *like.shape[1:], generator=generator(7))
        return noises[key][which]

    which = slice(0, 2)
    both = LVTINO(noise_source=source)(y, physics)
    for i in range(2):
        which = slice(i, i + 1)
        one = LVTINO(noise_source=source)(y[which], physics)
        torch.testing.assert_close(one, both[which], atol=1e-5, rtol=1e-4)


def test_init(problem):
    x, y, physics = problem
    zero = {"noise_source": lambda label, like: torch.zeros_like(like)}
    solver = LVTINO(**zero)
    pinv = solver(y, physics)
    start = physics.A_dagger(y)
    for init in (
        "pinv",
        start,
        lambda y, physics: physics.A_dagger(y),
        (start,),
        {"est": (start,)},
    ):
        assert torch.equal(solver(y, physics, init=init), pinv)
    from_truth = solver(y, physics, init=x)
    assert not torch.equal(from_truth, pinv)
    assert torch.equal(LVTINO(init=x, **zero)(y, physics), from_truth)
    black = solver(y, physics, init="prox")
    expected = physics.prox_l2(torch.zeros_like(x), y, 200.0)
    assert torch.equal(solver(y, physics, init=expected), black)
    assert torch.equal(start, physics.A_dagger(y))  # the given start is left alone


def test_metrics_and_per_sweep_parameters(problem):
    x, y, physics = problem
    calls = []

    def custom(values, x_prev, x):
        calls.append(x.shape)
        return float((x - x_prev).norm())

    solver = LVTINO(seed=0, custom_metrics={"move": custom})
    u, metrics = solver(y, physics, x_gt=x, compute_metrics=True)
    assert set(metrics) == {"psnr", "residual", "move"}
    assert len(metrics["psnr"]) == 2  # one list per batch element
    assert len(metrics["psnr"][0]) == 6  # the start and five sweeps
    assert len(metrics["move"][1]) == 5
    assert calls[0] == SIZE
    assert metrics["psnr"][0][-1] == pytest.approx(psnr(u[0], x[0]), abs=1e-3)
    # Sweep parameters are DeepInverse's per-iteration lists.
    assert len(solver.params_algo["sweep"]) == solver.max_iter == 5
    assert solver.update_params_fn(3)["index"] == 3


def test_data_fidelity(problem):
    _, y, physics = problem
    u = LVTINO(seed=0)(y, physics)
    given = LVTINO(seed=0, data_fidelity=L2(sigma=0.01))(y, physics)
    torch.testing.assert_close(given, u, atol=1e-5, rtol=1e-4)
    per_sweep = [L2(sigma=0.01)] * 5
    torch.testing.assert_close(
        LVTINO(seed=0, data_fidelity=per_sweep)(y, physics), given
    )
    other = LVTINO(seed=0, data_fidelity=L2(sigma=0.3))(y, physics)
    assert (physics.A(other) - y).norm() > 3 * (physics.A(u) - y).norm()
    silent = make_problem("A", SIZE, sigma=0)
    with pytest.raises(ValueError, match="`physics.noise_model` must be"):
        LVTINO()(y, silent)
    LVTINO(data_fidelity=L2(sigma=0.01))(y, silent)


def test_noise_level_per_batch_element(problem):
    _, y, physics = problem
    physics = physics.clone()
    physics.set_noise_model(GaussianNoise(torch.tensor([0.01, 0.3])))
    u = LVTINO(seed=0)(y, physics)
    residual = (physics.A(u) - y).flatten(1).norm(dim=1)
    assert residual[1] > 3 * residual[0]


def test_clamp(problem):
    _, y, physics = problem
    assert LVTINO(seed=0, clamp=(0.4, 0.6))(y, physics).min() >= 0.4
    assert LVTINO(seed=0)(y, physics).min() < 0.4


def test_progress_bar(problem, capsys):
    _, y, physics = problem
    LVTINO(seed=0)(y, physics)
    assert capsys.readouterr().err == ""
    LVTINO(seed=0, show_progress_bar=True)(y, physics)
    assert "5/5" in capsys.readouterr().err


def test_sample(problem):
    _, y, physics = problem
    samples = []
    solver = LVTINO(seed=0)
    mean, variance = solver.sample(
        y, physics, num_samples=3, callback=lambda i, x: samples.append(x)
    )
    stack = torch.stack(samples)
    torch.testing.assert_close(mean, stack.mean(0))
    torch.testing.assert_close(variance, stack.var(0), atol=1e-6, rtol=1e-4)
    assert not torch.equal(samples[0], samples[1])
    again, _ = solver.sample(y, physics, num_samples=3)
    assert torch.equal(again, mean)
    other, _ = solver.sample(y, physics, num_samples=3, seed=1)
    assert not torch.equal(other, mean)
    one, zero = solver.sample(y, physics, num_samples=1)
    assert torch.equal(one, solver(y, physics))
    assert not zero.any()
    labels = []

    def source(label, like):
        labels.append(label)
        return torch.zeros_like(like)

    _, still = solver.sample(y, physics, num_samples=2, noise_source=source)
    assert labels[0] == "s0/k0/video"
    assert labels[-1] == "s1/k4/video"
    assert not still.any()
    with pytest.raises(ValueError, match="`num_samples` must be 1"):
        solver.sample(y, physics, num_samples=0)


def test_state_dict_and_to():
    mean, cov = torch.full((4,), 0.5), 0.1 * torch.eye(4)
    solver = LVTINO(GaussianConsistencyModel(mean, cov))
    state = solver.state_dict()
    assert "video_model.mean" in state
    other = LVTINO(GaussianConsistencyModel(0 * mean, 2 * cov))
    other.load_state_dict(state)
    assert torch.equal(other.video_model.mean, solver.video_model.mean)
    solver.to(torch.float64)
    assert solver.prior[0].video.model.mean.dtype == torch.float64
    twin = copy.deepcopy(solver)
    assert twin.prior[0].video.model is twin.video_model
    assert twin.video_model is not solver.video_model


def test_which_models():
    video, image = spectral_video(), spectral_image()
    assert LVTINO(video).image_model is None
    assert LVTINO(image_model=image).video_model is None
    solver = LVTINO(video, image)
    assert (solver.video_model, solver.image_model) == (video, image)
    assert LVTINO(video, image, eta=1).image_model is None
    assert LVTINO(video, image, eta=0).video_model is None
    assert LVTINO(eta=0.25).init_params_algo["sweep"][0].video.data_step.stepsize == (
        pytest.approx(0.25 * LVTINO().schedule.delta[0])
    )
    with pytest.raises(ValueError, match="`image_model` is None"):
        LVTINO(video, eta=0)
    with pytest.raises(ValueError, match="`eta` must lie in"):
        LVTINO(eta=2)
    with pytest.raises(ValueError, match="`eta` cannot change"):
        LVTINO(eta=0.3, schedule=Schedule.published("B"))
    with pytest.raises(TypeError, match="ConsistencyModel"):
        LVTINO(torch.nn.Identity())
    with pytest.raises(ValueError, match="`init` must be 'pinv'"):
        LVTINO(init="zeros")


def test_priors():
    prior = SAEPrior(GaussianConsistencyModel(torch.zeros(6), torch.eye(6)))
    x, noise = rand(1, 1, 2, 1, 3).float(), rand(1, 1, 2, 1, 3, seed=1).float()
    expected = prior.model.sae(x, 300.0, noise=noise)
    assert torch.equal(prior.prox(x, 300.0, gamma=2.0, noise=noise), expected)
    assert not prior.explicit_prior
    with pytest.raises(NotImplementedError, match="video"):
        ProductOfExperts(prior.model, None).prox(x)
    with pytest.raises(TypeError, match="at least one"):
        ProductOfExperts(None, None)


class HalfPrecision(ConsistencyModel):
    r"""A network in bfloat16, as real ones are."""

    def __init__(self):
        super().__init__(RectifiedFlow())
        self.weight = torch.nn.Parameter(torch.ones((), dtype=torch.bfloat16))

    def encode(self, x):
        return x.to(self.weight.dtype)

    def denoise(self, latent, t):
        return latent * self.weight


def test_half_precision_network_keeps_float32_data_steps(problem):
    _, y, physics = problem
    u = LVTINO(HalfPrecision(), seed=0, data_fidelity=L2(sigma=1e-4))(y, physics)
    assert u.dtype == torch.float32
    assert not u.requires_grad
    # Far below the rounding of bfloat16 (4e-3).
    assert (physics.A(u) - y).square().mean().sqrt() < 1e-4


def test_framewise_physics(problem):
    x, _, _ = problem
    mask = (rand(1, 16, 24) > 0.5).float()
    image = Inpainting(img_size=(3, 16, 24), mask=mask, noise_model=GaussianNoise(0.01))
    physics = FramewisePhysics(image)
    y = physics(x)
    u = LVTINO(seed=0)(y, physics)
    assert u.shape == x.shape
    assert psnr(u, x) > psnr(physics.A_dagger(y), x) + 3
    with pytest.raises(ValueError, match="Give the physics of this measurement"):
        LVTINO()(y[..., :1], physics)  # would broadcast with the mask


def wrong_inputs():
    physics = make_problem("A", SIZE, sigma=0.01)
    y = torch.rand(1, *physics.measurement_size)
    nan = y.clone()
    nan[0, 0, 0, 0, 0] = float("nan")
    image = deepinv.physics.Denoising(noise_model=GaussianNoise(0.1))
    return {
        "four axes": (y[0], physics, ValueError, "`y` must have 5 axes"),
        "integers": ((255 * y).to(torch.uint8), physics, TypeError, "255"),
        "nan": (nan, physics, ValueError, "`y` must be finite"),
        "other size": (y[..., :-1], physics, ValueError, "`y` must have shape"),
        "no frames": (y[:, :, :0], physics, ValueError, "`y` is empty"),
        "other dtype": (y.double(), physics, TypeError, "float64"),
        "other device": (y.to("meta"), physics, ValueError, "meta"),
        "no tensor": (y.numpy(), physics, TypeError, "torch.Tensor"),
        "image physics": (y[:, :, 0], image, ValueError, "5 axes"),
        "image physics, integers": (
            (255 * y[:, :, 0]).to(torch.uint8),
            image,
            TypeError,
            "255",
        ),
    }


@pytest.mark.parametrize("case", wrong_inputs())
def test_wrong_input(case):
    y, physics, error, message = wrong_inputs()[case]
    with pytest.raises(error, match=message):
        LVTINO()(y, physics)


def test_wrong_start_and_devices(problem):
    x, y, physics = problem
    with pytest.raises(ValueError, match="`init` must have shape"):
        LVTINO()(y, physics, init=x[..., :-1])
    with pytest.raises(ValueError, match="`init` holds 1 videos"):
        LVTINO()(y, physics, init=x[:1])
    model = GaussianConsistencyModel(torch.zeros(4), torch.eye(4)).to("meta")
    with pytest.raises(ValueError, match="`video_model` is on meta"):
        LVTINO(model)(y, physics)


@pytest.mark.parametrize("kind", ["temporal", SpaceTimeVariation(time_weight=2.0)])
def test_total_variation_in_the_first_data_step(problem, kind):
    _, y, physics = problem
    record = {}

    def source(label, like):
        return record.setdefault(label, torch.randn(like.shape, generator=rng))

    rng = generator(3)
    options = {"tol": 1e-4 if kind != "temporal" else 1e-6, "max_iter": 3000}
    solver = LVTINO(
        noise_source=source,
        tv=kind,
        lambda_reg=[0.5, 0.4, 0.3, 0.2, 0.1],
        tv_options=options,
    )
    u, metrics = solver(
        y, physics, x_gt=torch.zeros_like(problem[0]), compute_metrics=True
    )
    assert len(metrics["psnr"][0]) == 6
    # Algorithm 1, sweep by sweep, from its parts.
    x = physics.A_dagger(y)
    for k, sweep in enumerate(solver.init_params_algo["sweep"]):
        z = solver.video_model.sae(x, sweep.video.time, noise=record[f"k{k}/video"])
        tau = sweep.video.data_step.stepsize
        x = prox_l2_tv(
            z, y, physics, tau / 0.01**2, tau * (5 - k) / 10, kind, **options
        )
        if sweep.image is not None:
            noise = record[f"k{k}/image"]
            z = solver.image_model.sae(x, sweep.image.time, noise=noise)
            x = physics.prox_l2(z, y, sweep.image.data_step.stepsize / 0.01**2)
    # Warm and cold starts meet at the same solution, up to the tolerance.
    assert (u - x).square().mean().sqrt() < (2e-3 if kind == "temporal" else 1e-2)
    plain = LVTINO(noise_source=source)(y, physics)
    assert (as_variation("tv", kind)(u) < as_variation("tv", kind)(plain)).all()


def test_the_dual_variable_is_in_the_iterate(problem):
    _, y, physics = problem
    states = []
    solver = LVTINO(
        seed=0,
        tv="temporal",
        get_output=lambda X: states.append(X["est"]) or X["est"][0],
    )
    u = solver(y, physics)
    assert states[-1][1].shape == (2, 3, 4, 16, 24)
    assert torch.equal(solver(y, physics), u)  # and nowhere else


def test_total_variation_refusals(problem):
    _, y, physics = problem
    with pytest.raises(ValueError, match="`tv` must be one of"):
        LVTINO(tv="spatial")
    with pytest.raises(ValueError, match="`lambda_reg` must be one number"):
        LVTINO(tv="temporal", lambda_reg=[1.0, 2.0])
    with pytest.raises(ValueError, match="`weight` must be positive"):
        LVTINO(tv="temporal", lambda_reg=-1.0)
    with pytest.raises(ValueError, match="proximal steps"):
        LVTINO(tv="temporal", schedule=Schedule.published("B"))
    with pytest.raises(TypeError, match="quadratic `data_fidelity`"):
        LVTINO(tv="temporal", data_fidelity=deepinv.optim.L1())(y, physics)
    physics = physics.clone()
    physics.set_noise_model(GaussianNoise(torch.tensor([0.01, 0.3])))
    with pytest.raises(ValueError, match="one noise level"):
        LVTINO(tv="temporal")(y, physics)


@pytest.mark.parametrize("eta", [0, 0.5, 1])
def test_without_the_final_data_step(problem, eta):
    _, y, physics = problem
    outputs = []
    solver = LVTINO(seed=0, eta=eta, final_data_step=False)
    model = solver.image_model if eta == 0 else solver.video_model
    sae = model.sae
    model.sae = lambda *a, **k: outputs.append(sae(*a, **k)) or outputs[-1]
    assert torch.equal(solver(y, physics), outputs[-1])
    full = LVTINO(seed=0, eta=eta)(y, physics)
    expected = physics.prox_l2(
        outputs[-1], y, (0.01 if eta in (0, 1) else 0.005) / 0.01**2
    )
    torch.testing.assert_close(full, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("eta", [0, 0.5, 1])
def test_callback_sees_every_iterate(problem, eta):
    _, y, physics = problem
    seen, gave = {}, []
    solver = LVTINO(seed=0, eta=eta)
    for model in (solver.video_model, solver.image_model):
        if model is not None:

            def watched(*args, sae=model.sae, **kwargs):
                gave.append(sae(*args, **kwargs))
                return gave[-1]

            model.sae = watched

    def callback(label, x):
        assert label not in seen
        seen[label] = x

    u = solver(y, physics, callback=callback)
    both = {0: ("image",), 0.5: ("video", "image"), 1: ("video",)}[eta]
    labels = [
        f"k{k}/{model}/{step}"
        for k in range(5)
        for model in both
        for step in ("prior", "data")
    ]
    if eta == 0.5:
        labels = labels[:-2]  # the last sweep ends after its first data step
    assert list(seen) == ["start", *labels]
    torch.testing.assert_close(seen["start"], STARTS["pinv"](y, physics))
    priors = [x for label, x in seen.items() if label.endswith("prior")]
    assert len(priors) == len(gave) == solver.num_evaluations
    assert all(map(torch.equal, priors, gave))
    sweep = solver.init_params_algo["sweep"][0]
    half = sweep.image if eta == 0 else sweep.video
    before, after = seen[labels[0]], seen[labels[1]]
    gamma = half.data_step.stepsize / 0.01**2
    torch.testing.assert_close(after, physics.prox_l2(before, y, gamma))
    assert torch.equal(u, seen[labels[-1]])
    assert torch.equal(u, solver(y, physics))  # watched or not


def test_a_run_goes_on_from_an_iterate(problem):
    _, y, physics = problem
    noise = {}

    def recorded(label, like):
        if label not in noise:
            noise[label] = torch.randn_like(like)
        return noise[label]

    seen = {}
    # an interval that the iterates leave, for the start alone
    schedule = Schedule.calibrated([0.1, 0.05, 0.02], init_clamp=(0.49, 0.51))
    solver = LVTINO(schedule=schedule, noise_source=recorded)
    whole = solver(y, physics, callback=seen.__setitem__)
    assert float((seen["start"] - 0.5).abs().max()) <= 0.01 + 1e-6
    for k in (1, 2):
        x = seen[f"k{k - 1}/image/data"]
        again = {}
        u = solver(y, physics, init=x, first_sweep=k, callback=again.__setitem__)
        assert torch.equal(u, whole)
        assert torch.equal(again["start"], x)
        assert list(again)[1:] == list(seen)[1 + 4 * k :]
        for start in ((x,), {"est": (x,)}):
            assert torch.equal(solver(y, physics, init=start, first_sweep=k), whole)
    assert torch.equal(solver(y, physics, first_sweep=0), whole)
    _, metrics = solver(y, physics, init=x, first_sweep=2, x_gt=x, compute_metrics=True)
    assert len(metrics["psnr"][0]) == 4
    assert len(set(metrics["psnr"][0][:3])) == 1
    for wrong in (-1, 3, 1.5):
        with pytest.raises(
            ValueError, match="`first_sweep` must be a whole number from"
        ):
            solver(y, physics, init=x, first_sweep=wrong)
    for missing in (None, "pinv"):
        with pytest.raises(ValueError, match="give that video as `init`"):
            solver(y, physics, init=missing, first_sweep=1)


# -- findings that must not come back --------------------------------------------------


def test_projections_are_where_they_were_published():
    r"""Before the image encoder, after the video decode, after proxes of a gamma."""

    class Watched(ConsistencyModel):
        def __init__(self, per_frame):
            super().__init__(RectifiedFlow(), per_frame=per_frame)
            self.given, self.gave = [], []

        def sae(self, x, t, noise=None, generator=None):
            self.given.append(x)
            self.gave.append(x + 0.7 * torch.sign(x - 0.5))
            return self.gave[-1]

    physics = make_problem("A", (3, 8, 8, 8), sigma=0.01)
    y = rand(1, *physics.measurement_size, dtype=torch.float32)
    for name in ("A", "B"):
        video, image = Watched(False), Watched(True)
        outside = []
        schedule = Schedule.published(name)
        solver = LVTINO(video, image, schedule=schedule, final_data_step=False)
        u = solver(y, physics, init=2 * rand(1, 3, 8, 8, 8, dtype=torch.float32))
        assert torch.equal(u, video.gave[-1].clamp(0, 1))
        assert all(x.min() >= 0 and x.max() <= 1 for x in image.given)
        outside = [bool((x.min() < 0) | (x.max() > 1)) for x in video.given[1:]]
        # B's data steps are proxes and are projected, A's second one (CG) is not.
        assert any(outside) == (name == "A")
        assert video.given[0].max() <= 1  # the start is


def test_likelihood_value_and_gradient(problem):
    x, y, physics = problem
    likelihood, reference = GaussianLikelihood(), L2(sigma=0.01)
    u = x + 0.1
    torch.testing.assert_close(likelihood(u, y, physics), reference(u, y, physics))
    torch.testing.assert_close(
        likelihood.grad(u, y, physics), reference.grad(u, y, physics)
    )


def test_data_step_without_a_closed_form_is_solved():
    kernel = deepinv.physics.functional.gaussian_blur(sigma=(1.5, 1.5))
    noise = GaussianNoise(0.001)
    generic = FramewisePhysics(
        deepinv.physics.Blur(filter=kernel, padding="circular"), noise_model=noise
    )
    exact = VideoBlur(SIZE, kernel, "circular", noise_model=noise)
    x = rand(1, *SIZE, dtype=torch.float32)
    y = exact(x)
    z = x + 0.1 * torch.randn(x.shape, generator=generator(2))
    expected = exact.prox_l2(z, y, 2.5e3)
    before = generic.image_physics.max_iter
    found = prox_l2(generic, z, y, 2.5e3)
    assert (found - expected).norm() < 1e-3 * (expected - z).norm()
    assert generic.image_physics.max_iter == before
    with pytest.raises(DataStepError, match="has no closed form and was not solved"):
        prox_l2(generic, z, y, 1e12, max_iter=100)


def test_the_marker_of_a_device_alone_is_no_device(problem):
    """DeepInverse leaves it on the CPU in an operator whose parts are on a GPU."""
    _, y, physics = problem
    marked = copy.deepcopy(physics)
    marked._device_holder = marked._device_holder.to("meta")
    solver = LVTINO(schedule=Schedule.calibrated(0.01, 0.5, 1), seed=0)
    assert torch.equal(solver(y, marked), solver(y, physics))


@pytest.mark.filterwarnings("ignore:Warning. least_squares_implicit_backward")
def test_more_wrong_input(problem):
    x, y, physics = problem
    mask = (rand(1, 16, 24) > 0.5).float()
    image = Inpainting(img_size=(3, 16, 24), mask=mask, noise_model=GaussianNoise(0.01))
    framewise = FramewisePhysics(image)
    seen = framewise.A(x)
    stacked = physics.stack(framewise)
    nan = seen.clone()
    nan[0, 0, 0, 0, 0] = float("nan")
    cases = [
        (seen.numpy(), framewise, TypeError, "`y` must be a torch.Tensor"),
        (seen[:, :, :0], framewise, ValueError, "`y` is empty"),
        (seen.to("meta"), framewise, ValueError, "`y` is on meta but `physics`"),
        (y, None, TypeError, "`physics` must be"),
        (TensorList([y, nan]), stacked, ValueError, "NaN"),
    ]
    for bad, operator, error, message in cases:
        with pytest.raises(error, match=message):
            LVTINO(data_fidelity=L2(0.01))(bad, operator)
    with pytest.raises(ValueError, match="`physics` is a stack"):
        LVTINO()(TensorList([y, seen]), stacked)
    with pytest.raises(ValueError, match="`init` must be finite"):
        LVTINO()(y, physics, init=x * float("nan"))
    with pytest.raises(TypeError, match="sede"):
        LVTINO()(y, physics, sede=3)
    with pytest.raises(TypeError, match="`schedule` must be a Schedule"):
        LVTINO(schedule="A")
    with pytest.raises(ValueError, match="`data_fidelity` must be one"):
        LVTINO(data_fidelity=[L2(), L2()])
    with pytest.raises(ValueError, match="`clamp` must be an interval"):
        LVTINO(clamp=(1, 0))
    start = {"est": (x,)}
    LVTINO()(y, physics, init=start)
    assert set(start) == {"est"}


def test_half_precision_spectral_model_is_finite():
    x = torch.rand(1, 3, 4, 16, 16)
    expected = spectral_video().sae(x, 300.0, noise=torch.zeros_like)
    half = spectral_video().sae(x.half(), 300.0, noise=torch.zeros_like)
    torch.testing.assert_close(half.float(), expected, atol=2e-2, rtol=0)


def test_named_start_is_computed_once_for_a_series(problem, monkeypatch):
    _, y, physics = problem
    calls = []

    def start(y, physics):
        calls.append(y)
        return physics.A_dagger(y)

    monkeypatch.setitem(lvtino.STARTS, "pinv", start)
    solver = LVTINO(seed=0)
    mean, _ = solver.sample(y, physics, num_samples=3)
    assert len(calls) == 1
    again, _ = solver.sample(y, physics, num_samples=3, init=physics.A_dagger(y))
    assert torch.equal(again, mean)
