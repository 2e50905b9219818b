r"""The published settings against tensors recorded from the released code."""

from __future__ import annotations

import pytest
import torch
from deepinv.optim import L2
from torch import Tensor

from deepinv_lvtino import LVTINO, Schedule, make_problem
from deepinv_lvtino.optim import DataStep, LVTINOIteration, SAEPrior
from helpers import rand
from pages import SOURCE
from released import (
    DATA_STEPS,
    as_batch,
    as_video,
    gap,
    load_parity,
    load_steps,
    needs_parity,
    parity_models,
    recorded_noise,
    replay,
)

#: Largest differences in float32, on [-1, 1]: of a step that is fed what was recorded, and
#: of a whole run.
NETWORK_STEP, DATA_STEP, ITERATE, OUTPUT = 2e-5, 3e-4, 2e-3, 1e-3

A, C = Schedule.published("A"), Schedule.published("C")

# step, measurement, input, output, recorded frames
STEPS: dict[str, tuple[str, DataStep, str, str, str]] = {
    "A, first": ("A", A.sweeps[0].video.data_step, "a.y_n", "a.x_quarter", "a.x_half"),
    "A, second": (
        "A",
        A.sweeps[0].image.data_step,
        "a.y_n",
        "a.x_three_quarter",
        "a.x_next",
    ),
    "A, first, noise": (
        "A",
        A.sweeps[0].video.data_step,
        "operators.a.y",
        "operators.x",
        "operators.a.x",
    ),
    "C, first, noise": (
        "C",
        C.sweeps[-1].video.data_step,
        "operators.c.y",
        "operators.x",
        "operators.c.x",
    ),
}


def data_step(step: DataStep, z: Tensor, y: Tensor, physics) -> Tensor:
    r"""The step as a run takes it, under the published projection."""
    assert A.clamp == C.clamp
    u, _ = LVTINOIteration().f_step(z, L2(), step, y, physics, A.clamp)
    return u


@pytest.mark.parametrize("name", STEPS)
def test_recorded_data_steps(name):
    problem, step, y, z, expected = STEPS[name]
    steps = load_steps()
    z = as_video(steps[z])
    physics = make_problem(problem, tuple(z.shape[1:]))
    u = data_step(step, z, as_video(steps[y]), physics)
    if len(steps[expected]) == 5:
        u = u[:, :, [0, 7, 8, 16, 24]]
    assert gap(u, steps[expected]) < DATA_STEP


def test_recorded_data_steps_are_small():
    assert sum(f.stat().st_size for f in DATA_STEPS.parent.iterdir()) < 2_000_000


def start_of(y: Tensor, physics) -> Tensor:
    return LVTINO(schedule=A).init_iterate_fn(y, physics)["est"][0]


def test_recorded_start():
    steps = load_steps()
    physics = make_problem("A", (3, 9, 32, 48))
    start = start_of(as_batch(steps["a.start.y"]), physics)
    difference = start - as_batch(steps["a.start.x"])
    assert float(difference.abs().max()) < DATA_STEP


def test_start_may_leave_the_range_of_pixels():
    # a white box on black, measured without noise: the cubic filter undershoots
    x = torch.zeros(1, 3, 9, 32, 48)
    x[..., 8:24, 12:36] = 1
    physics = make_problem("A", (3, 9, 32, 48))
    start = start_of(physics.A(x), physics)
    assert float(start.min()) == pytest.approx(-0.14, abs=0.01)
    expected = physics.prox_l2(0.0, physics.A(x), 200.0)
    torch.testing.assert_close(start, expected.clamp(-1, 1))
    narrow = LVTINO(schedule=A, clamp=(0, 1)).init_iterate_fn(physics.A(x), physics)
    torch.testing.assert_close(narrow["est"][0], expected.clamp(0, 1))


@pytest.mark.skipif(not SOURCE.is_dir(), reason="needs the source tree")
def test_noise_of_the_scripts_in_the_layout_of_this_package():
    video = {k: rand(2 * 3, 5, 4, 6, seed=k) for k in range(2)}
    image = {1: rand(5, 4, 6, seed=9)}
    source = replay()(video, image)
    for k in (0, 1):
        noise = source(f"k{k}/video", torch.empty(2, 5, 3, 4, 6))
        assert noise.shape == (2, 5, 3, 4, 6)
        for b in range(2):
            for frame in range(3):
                expected = video[k][3 * b + frame].float()
                assert torch.equal(noise[b, :, frame], expected)
    noise = source("k0/image", torch.empty(1, 5, 1, 4, 6))
    assert torch.equal(noise[0, :, 0], image[1].float())
    assert noise.shape == (1, 5, 1, 4, 6)


# -- whole runs ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    r"""Networks and tensors of the recorded run of problem A."""
    video, image = parity_models(tmp_path_factory.mktemp("wan") / "base")
    record = load_parity("sweeps_problem_a")
    physics = make_problem("A", (3, 9, 32, 48))
    return video, image, record, as_batch(record["y"]), physics


def names(record: dict[str, Tensor]):
    r"""The half-steps: sweep, model, label of the video before, after each step."""
    for k in range(5):
        before = f"k{k}/x_next" if k else "init/x_init"
        yield k, "video", before, f"k{k}/x_quarter", f"k{k}/x_half"
        if k < 4:
            n = k + 1
            yield k, "image", f"k{k}/x_half", f"k{n}/x_three_quarter", f"k{n}/x_next"


@needs_parity
def test_half_steps_of_the_recorded_run(run):
    video, image, record, y, physics = run
    noise, priors = recorded_noise(record), (SAEPrior(video), SAEPrior(image))
    iteration = LVTINOIteration()
    for k, model, before, between, after in names(record):
        half = getattr(A.sweeps[k], model)
        u = iteration.g_step(
            as_video(record[before]),
            priors[model == "image"],
            half.time,
            lambda like, label=f"k{k}/{model}": noise(label, like),
            A.clamp,
        )
        assert gap(u, record[between]) < NETWORK_STEP, (k, model)
        u = data_step(half.data_step, as_video(record[between]), y, physics)
        assert gap(u, record[after]) < DATA_STEP, (k, model)


@needs_parity
def test_recorded_run_from_its_measurement_to_its_output(run):
    video, image, record, y, physics = run
    seen = {}
    solver = LVTINO(
        video,
        image,
        schedule=A,
        noise_source=recorded_noise(record),
        final_data_step=False,
    )
    u = solver(y, physics, callback=seen.__setitem__)
    assert gap(seen["start"], record["init/x_init"]) < DATA_STEP
    compared = 1
    for k, model, _, between, after in names(record):
        for label, name in (("prior", between), ("data", after)):
            found = seen.get(f"k{k}/{model}/{label}")
            if found is not None:
                assert gap(found, record[name]) < ITERATE, (k, model, label)
                compared += 1
    assert compared == len(seen) == 18
    output = as_batch(record["final/output"])
    assert float((u - output).abs().max()) < OUTPUT

    # from the middle: the iterate after sweep 2, and two sweeps
    u = solver(y, physics, init=as_video(record["k3/x_next"]), first_sweep=3)
    assert float((u - output).abs().max()) < OUTPUT


@needs_parity
def test_solvers_at_the_size_of_the_recorded_operators():
    record = load_parity("operators")
    z = as_video(record["x"])
    for name, half, key, expected, frames in (
        ("A", A.sweeps[0].video, "tsr_sr_t4_s4", "solve_l2_tv", range(25)),
        (
            "A",
            A.sweeps[0].image,
            "tsr_sr_t4_s4",
            "data_consistency_cg_frames_0_6_12_18_24",
            range(0, 25, 6),
        ),
        ("C", C.sweeps[-1].video, "tsr_sr_t8_s8", "solve_l2_tv3_adam", range(25)),
    ):
        physics = make_problem(name, (3, 25, 64, 96))
        u = data_step(half.data_step, z, as_video(record[f"{key}/y_meas"]), physics)
        assert gap(u[:, :, list(frames)], record[f"{key}/{expected}"]) < DATA_STEP
