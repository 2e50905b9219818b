r"""
Odd calls of the public functions: each right, or an error that names argument and remedy.

``CASES`` holds for each function a call that works and, by argument, values that are
nonsense (``refused``) and values that are meant as the working one is (``same``). An error
has to name the argument in backticks and to come from this package, not from the depths of
a library that got the value.
"""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from deepinv.optim.data_fidelity import L2
from deepinv.physics import LinearPhysics
from deepinv.physics.noise import GaussianNoise
from torch import Tensor

import deepinv_lvtino
from deepinv_lvtino import LVTINO, Schedule, make_problem
from deepinv_lvtino.benchmark import Benchmark
from deepinv_lvtino.datasets import (
    DeadLeavesVideos,
    VideoCollection,
    dead_leaves_clip,
    procedural_clip,
    resize_video,
)
from deepinv_lvtino.metrics import TemporalDifferenceError
from deepinv_lvtino.models import (
    GaussianConsistencyModel,
    PowerSpectrum,
    RectifiedFlow,
    Tiles,
    TinyConfig,
    TinyConsistencyModel,
    TinyNetwork,
    VariancePreserving,
    spectral_image,
    spectral_video,
)
from deepinv_lvtino.optim import (
    ADMMTV,
    AdamTVStep,
    ConjugateGradientStep,
    GammaStep,
    HalfStep,
    LandweberStep,
    PnPADMM,
    PrimalDualTVStep,
    ProximalStep,
    SeededNoise,
    SpaceTimeVariation,
    TemporalVariation,
    VariationStep,
    element_seed,
    prox_l2_tv,
)
from deepinv_lvtino.physics import (
    PROBLEMS,
    JPEGCompression,
    SeparableVideoPhysics,
    TemporalBlur,
    TemporalDecimation,
    TemporalPooling,
    VideoBlur,
    VideoDownsampling,
    VideoInpainting,
    random_mask,
)
from deepinv_lvtino.plotting import time_slice
from deepinv_lvtino.training import PoolClips, TrainingOptions
from helpers import rand, randn

PACKAGE = Path(deepinv_lvtino.__file__).parent
NAN, INF = float("nan"), float("inf")
SIZE = (3, 8, 16, 16)

# nonsense for a number of things, for a seed, for a positive number, for a weight
COUNT = (0, -1, 2.5, NAN, INF, "3", np.float64(2.5), [2], True)
SEED = (-1, 1.5, 2.0, "0", 2**64, np.array([1, 2]), np.float32(0), torch.rand(1), True)
POSITIVE = (0, -1.0, NAN, INF, "1", [1.0], np.array([1.0, 2.0]))
NOT_NEGATIVE = (-1.0, NAN, INF, "1", [1.0])
SIZES = (
    (3, 8, 16),
    (3, 8, 16, 16, 1),
    (3, 0, 16, 16),
    (3, 8, 2.5, 16),
    "3888",
    5,
    None,
)
SIZES += ((3, NAN, 16, 16), (3, 8, 16.0, 16), (True, 8, 16, 16), torch.rand(4))

INT, INT32 = np.int64, np.int32


@dataclass
class Case:
    call: Callable[..., Any]
    good: dict[str, Any]
    refused: dict[str, tuple[Any, ...]]
    same: dict[str, tuple[Any, ...]] = field(default_factory=dict)


@functools.cache
def physics():
    return make_problem("A", SIZE, sigma=0.01)


@functools.cache
def video():
    return rand(1, *SIZE, dtype=torch.float32)


@functools.cache
def measurement():
    return physics().A(video())


@functools.cache
def pair():
    return spectral_video(), spectral_image()


def solver(**options):
    schedule = options.pop("schedule", Schedule.calibrated(0.02, num_steps=1))
    return LVTINO(*pair(), schedule=schedule, **options)


def run(y=None, physics_=None, **options):
    y = measurement() if y is None else y
    return solver(seed=0)(y, physics() if physics_ is None else physics_, **options)


def run_seeded(seed):
    return solver()(measurement(), physics(), seed=seed)


def run_solver(**options):
    return solver(**options)(measurement(), physics(), seed=0)


def with_tv(**options):
    return solver(**{"tv": "temporal"} | options)


def time_of(schedule, method):
    return lambda **value: getattr(schedule, method)(**value)


def sample(num_samples):
    return solver(seed=0).sample(measurement(), physics(), num_samples)


def video_size(measurement_size, num_frames):
    return PROBLEMS["A"].video_size(measurement_size, num_frames)


def pools(**options):
    return PoolClips(**{"pools": [np.zeros((2, 3, 4, 16, 16), np.uint8)]} | options)


def bench(**options):
    clips = {"one": torch.zeros(3, 8, 16, 16)}
    settings = {"solvers": ["pinv"], "problems": ["A"], "clips": clips}
    return Benchmark("never-written", **settings | {"scores": ["psnr"]} | options)


def tv_prox(**options):
    z = video() if "z" not in options else options.pop("z")
    return prox_l2_tv(z, measurement(), physics(), **options)


def metric(**options):
    return TemporalDifferenceError()(**options)


KERNEL = torch.full((3, 3), 1 / 9)
WRONG_VIDEOS = (
    np.zeros((1, *SIZE), np.float32),
    None,
    "video",
    torch.zeros(SIZE),
    torch.zeros(1, *SIZE, dtype=torch.uint8),
    torch.zeros(1, 3, 8, 16, 17),
    torch.zeros(1, *SIZE, dtype=torch.float64),
    torch.zeros(0, *SIZE),
)
EIGHT_BITS = tuple(255 * value for value in (0.2, 0.5, 1.0))

CASES: dict[str, Case] = {
    "TemporalBlur": Case(
        TemporalBlur,
        {"img_size": SIZE, "kernel_size": 3},
        {
            "img_size": SIZES,
            "kernel_size": COUNT,
            "kernel": ("box", None, np.ones(3), torch.ones(2, 2), torch.tensor([NAN])),
            "padding": ("mirror", None, 3),
        },
        {
            "kernel_size": (INT(3), INT32(3), np.uint8(3)),
            "img_size": (list(SIZE), tuple(map(INT, SIZE)), np.array(SIZE)),
        },
    ),
    "TemporalPooling": Case(
        TemporalPooling,
        {"img_size": SIZE, "factor": 4},
        {"factor": COUNT, "tail": ("keep", None), "img_size": SIZES[:3]},
        {"factor": (INT(4), np.uint8(4))},
    ),
    "TemporalDecimation": Case(
        TemporalDecimation,
        {"img_size": SIZE, "factor": 4, "offset": 1},
        {"factor": COUNT, "offset": (-1, 8, 1.5, "0", NAN)},
        {"factor": (INT(4),), "offset": (INT(1),)},
    ),
    "VideoDownsampling": Case(
        VideoDownsampling,
        {"img_size": SIZE, "factor": 4},
        {
            "factor": COUNT,
            "filter": ("magic", None, np.ones((3, 3)), 3),
            "padding": ("mirror", None),
            "alignment": ("left", None, 3),
        },
        {"factor": (INT(4), np.uint8(4))},
    ),
    "VideoBlur": Case(
        VideoBlur,
        {"img_size": SIZE, "filter": KERNEL},
        {
            "filter": (np.ones((3, 3)), None, "gaussian", 3, torch.ones(3), [KERNEL]),
            "padding": ("mirror", None),
        },
    ),
    "SeparableVideoPhysics": Case(
        SeparableVideoPhysics,
        {"img_size": SIZE, "temporal": torch.eye(8)},
        {
            "temporal": (np.eye(8), torch.eye(7), NAN * torch.eye(8), [[1.0]], 3),
            "vertical": (np.eye(16), torch.eye(7), torch.ones(16)),
            "horizontal": ("eye", INF * torch.ones(1, 16)),
        },
    ),
    "SeparableVideoPhysics.A": Case(
        lambda x: physics().A(x), {"x": video()}, {"x": WRONG_VIDEOS}
    ),
    "SeparableVideoPhysics.prox_l2": Case(
        lambda **options: physics().prox_l2(y=measurement(), **options),
        {"z": video(), "gamma": 10.0},
        {
            "z": (*WRONG_VIDEOS[:1], *WRONG_VIDEOS[3:6], "0"),
            "gamma": (*POSITIVE[:5], None, torch.ones(3), torch.tensor([NAN])),
        },
        {"gamma": (10, INT(10), np.float32(10), torch.tensor(10.0))},
    ),
    "SeparableVideoPhysics.A_dagger": Case(
        lambda **options: physics().A_dagger(measurement(), **options),
        {"smallest": 0.5},
        {"smallest": (-1.0, NAN, "0", [0.1])},
        {"smallest": (np.float64(0.5), torch.tensor(0.5))},
    ),
    "make_problem": Case(
        lambda **options: make_problem(**{"img_size": SIZE} | options),
        {"name": "inpaint", "sigma": 1, "mask_seed": 3},
        {
            "name": ("Z", 3, None, ["A"]),
            "img_size": SIZES,
            "sigma": (-1, NAN, INF, "0.1", [0.1], np.array([0.1])),
            "mask_seed": SEED,
            "alignment": ("left", None),
        },
        {"sigma": (INT(1), np.float32(1)), "mask_seed": (INT(3), np.uint8(3))},
    ),
    "Problem.video_size": Case(
        video_size,
        {"measurement_size": (3, 2, 4, 4), "num_frames": 6},
        {
            "measurement_size": ((3, 2, 4), (3, 2, 4.5, 4), None, "3244"),
            "num_frames": (0, 9, 6.0, "6", NAN),
        },
        {"num_frames": (INT(6),)},
    ),
    "JPEGCompression": Case(
        JPEGCompression,
        {"quality": 10, "sigma": 0.01},
        {"quality": (0, 101, 2.5, "10", NAN, None), "sigma": NOT_NEGATIVE},
        {"quality": (INT(10), np.uint8(10)), "sigma": (np.float64(0.01),)},
    ),
    "random_mask": Case(
        random_mask,
        {"height": 8, "width": 8, "keep": 0.5, "seed": 3},
        {
            "height": COUNT,
            "width": COUNT[:3],
            "keep": (0, 1.1, NAN, "half", [0.5]),
            "seed": SEED,
        },
        {"height": (INT(8),), "keep": (np.float64(0.5),), "seed": (INT(3),)},
    ),
    "VideoInpainting": Case(
        VideoInpainting,
        {"img_size": SIZE, "mask": torch.ones(16, 16)},
        {
            "mask": (np.ones((16, 16)), None, 0.5, torch.ones(3, 3)),
            "temporal": (np.eye(8), torch.eye(3)),
            "img_size": SIZES[:4],
        },
    ),
    # -- solver -------------------------------------------------------------------------
    "LVTINO": Case(
        run_solver,
        {"eta": 0.5, "clamp": (0.0, 1.0)},
        {
            "eta": (-0.1, 1.1, NAN, "0.5", [0.5]),
            "clamp": ((1, 0), (0,), 5, "01", (NAN, 1), (0, NAN), (0, "1"), (0, 0)),
            "schedule": (3, "A", object()),
            "init": ("foo", torch.zeros(1, 3, 8, 16, 17), NAN * video()),
            "tv": ("foo", 3),
            "data_fidelity": ([],),
        },
        {"eta": (np.float64(0.5), torch.tensor(0.5)), "clamp": ((0, 1), [0.0, 1.0])},
    ),
    "LVTINO(seed)": Case(
        run_seeded,
        {"seed": 3},
        {"seed": (*SEED, [], [1, 2], [1.5], {3})},
        {"seed": (INT(3), np.uint8(3), [3], (INT(3),))},
    ),
    "LVTINO(tv)": Case(
        with_tv,
        {"lambda_reg": 1.0},
        {"lambda_reg": ([1.0, 2.0],)},
        {},
    ),
    "LVTINO()": Case(
        run,
        {"y": measurement()},
        {
            "y": (
                measurement().numpy(),
                "video",
                measurement()[0],
                measurement()[:, :2],
                measurement().double(),
                (255 * measurement()).to(torch.uint8),
                NAN * measurement(),
                *(scale * measurement() for scale in EIGHT_BITS),
            ),
            "seed": SEED[:6],
        },
        {"seed": (INT(0),)},
    ),
    "LVTINO.sample": Case(
        sample, {"num_samples": 2}, {"num_samples": COUNT}, {"num_samples": (INT(2),)}
    ),
    "SeededNoise": Case(
        lambda seed: SeededNoise(seed)("", torch.empty(1, 4)),
        {"seed": 3},
        {"seed": SEED},
        {"seed": (INT(3), (3,))},
    ),
    "element_seed": Case(
        element_seed,
        {"seed": 3, "index": 2},
        {"seed": SEED, "index": SEED[:5]},
        {"seed": (INT(3),), "index": (INT(2),)},
    ),
    # -- schedules and steps ---------------------------------------------------------------
    "Schedule.calibrated": Case(
        Schedule.calibrated,
        {"delta": 0.5, "eta": 0.5, "num_steps": 3},
        {
            "delta": (0, -1, NAN, INF, "a", [], [0.1, NAN, 0.1], [0.1], object()),
            "eta": (-0.1, 1.1, NAN, "0.5"),
            "num_steps": COUNT,
        },
        {
            "delta": (np.float64(0.5), [0.5] * 3, (0.5,) * 3, torch.tensor(0.5)),
            "num_steps": (INT(3),),
            "eta": (np.float32(0.5),),
        },
    ),
    "Schedule.embedded": Case(
        Schedule.embedded,
        {"problem": "A", "num_steps": 2},
        {"problem": ("Z", "jpeg", 3, ["A"]), "num_steps": COUNT, "eta": (2, NAN, "a")},
        {"num_steps": (INT(2),)},
    ),
    "Schedule.published": Case(
        Schedule.published, {"problem": "A"}, {"problem": ("Z", None, 3, ["A"])}
    ),
    "Schedule.explicit": Case(
        Schedule.explicit,
        {"video_times": [300, 200], "video_steps": [0.02, 0.01]},
        {
            "video_times": ([NAN, 1], [-1, 1], ["a", 1], [1], 5, "ab", [INF, 1]),
            "video_steps": ([0, 1], [NAN, 1], ["a", 1], [-1.0, 1], [None, 1], 5),
            "image_times": ([1], [NAN], 3),
            "clamp": ((1, 0), 3),
        },
        {"video_times": ((300, 200), [INT(300), np.float64(200)])},
    ),
    "Schedule": Case(Schedule, {}, {"sweeps": ([], [3], 5, "ab")}),
    "HalfStep": Case(
        HalfStep,
        {"time": 5.0, "data_step": ProximalStep(0.1)},
        {"time": (NAN, -1, "a", INF, None), "data_step": (3, "prox", 0.1)},
        {"time": (5, INT(5))},
    ),
    "ProximalStep": Case(ProximalStep, {"stepsize": 1.0}, {"stepsize": POSITIVE}),
    "GammaStep": Case(GammaStep, {"gamma": 1.0}, {"gamma": POSITIVE}),
    "LandweberStep": Case(
        LandweberStep, {"num_steps": 3}, {"num_steps": COUNT, "gamma": POSITIVE}
    ),
    "ConjugateGradientStep": Case(
        ConjugateGradientStep,
        {"num_steps": 3},
        {"num_steps": COUNT, "epsilon": NOT_NEGATIVE},
    ),
    "PrimalDualTVStep": Case(
        PrimalDualTVStep,
        {"num_steps": 3, "lam": 0.1},
        {"num_steps": COUNT, "lam": NOT_NEGATIVE, "tau": POSITIVE, "sigma": POSITIVE},
    ),
    "AdamTVStep": Case(
        AdamTVStep,
        {"num_steps": 3, "lam": 0.1, "learning_rate": 0.1},
        {"num_steps": COUNT, "lam": NOT_NEGATIVE, "learning_rate": POSITIVE},
    ),
    "VariationStep": Case(
        VariationStep,
        {"stepsize": 1.0, "variation": TemporalVariation(), "weight": 1.0},
        {"stepsize": POSITIVE, "weight": POSITIVE, "variation": ("temporal", None)},
    ),
    "SpaceTimeVariation": Case(
        SpaceTimeVariation,
        {"time_weight": 1.0},
        {"time_weight": POSITIVE, "smoothing": NOT_NEGATIVE},
    ),
    "prox_l2_tv": Case(
        tv_prox,
        {"gamma": 10.0, "lam": 0.1, "max_iter": 400, "tol": 1e-2},
        {
            "gamma": NOT_NEGATIVE,
            "lam": NOT_NEGATIVE,
            "kind": ("foo", None, 3),
            "solver": ("foo", None),
            "tol": POSITIVE,
            "max_iter": COUNT,
            "z": WRONG_VIDEOS[:5],
            "dual": (torch.zeros(1, 2),),
        },
        {"gamma": (10, INT(10), np.float64(10)), "max_iter": (INT(400),)},
    ),
    "ADMMTV": Case(
        ADMMTV,
        {"lambda_reg": 10.0, "max_iter": 3},
        {
            "lambda_reg": (0, -1.0, NAN, INF, "Z", [1.0]),
            "time_weight": POSITIVE,
            "threshold": POSITIVE,
            "max_iter": COUNT,
            "thres_conv": POSITIVE,
        },
    ),
    "PnPADMM": Case(
        functools.partial(PnPADMM, lambda x, sigma: x),
        {"sigma_denoiser": (0.2, 0.1), "max_iter": 3},
        {
            "sigma_denoiser": ((0.1, 0.2), (NAN, 0.1), (0.1, 0), "ab", 3, (0.1,)),
            "lambda_reg": POSITIVE,
            "max_iter": COUNT,
        },
    ),
    # -- models ----------------------------------------------------------------------------
    "VariancePreserving": Case(
        VariancePreserving,
        {"num_steps": 10},
        {
            "num_steps": (*COUNT, 1),
            "beta_start": POSITIVE,
            "beta_end": (0, NAN, 1.0, "a", 2.0),
        },
    ),
    "VariancePreserving.alpha": Case(
        time_of(VariancePreserving(), "alpha"),
        {"t": 5},
        {"t": (-1, 1000, NAN, INF, "5", None, [5])},
        {"t": (5.0, INT(5))},
    ),
    "RectifiedFlow": Case(
        RectifiedFlow, {"num_steps": 10}, {"num_steps": COUNT, "shift": POSITIVE}
    ),
    "RectifiedFlow.sigma": Case(
        time_of(RectifiedFlow(), "sigma"),
        {"t": 5},
        {"t": (-1, 0, 1001, NAN, "5", None, [5])},
        {"t": (5.0, INT(5))},
    ),
    "ConsistencyModel.sae": Case(
        lambda **options: spectral_video().sae(**{"x": video(), "t": 5.0} | options),
        {"noise": torch.zeros(1, *SIZE)},
        {
            "x": WRONG_VIDEOS[:5],
            "t": (-1, NAN, "5"),
            "noise": (torch.zeros(3), np.zeros((1, *SIZE)), 3, "gauss"),
        },
    ),
    "GaussianConsistencyModel": Case(
        GaussianConsistencyModel,
        {"mean": torch.zeros(2), "covariance": torch.eye(2)},
        {
            "mean": (np.zeros(2), None, NAN * torch.ones(2)),
            "covariance": (np.eye(2), torch.eye(3), -torch.eye(2), 3),
        },
    ),
    "PowerSpectrum": Case(
        PowerSpectrum,
        {"power": 1.0},
        {"power": POSITIVE, "slope": POSITIVE[:4], "floor": NOT_NEGATIVE},
    ),
    "TinyConfig": Case(
        TinyConfig,
        {"channels": (4, 4), "blocks": (1, 1), "embedding": 4},
        {
            "channels": ((4,), (), 4, "44", (0, 4), (2.5, 4), (True, 4)),
            "blocks": ((1, 0), (1, -1), 1, (1, "1")),
            "embedding": COUNT,
        },
        {"embedding": (INT(4),)},
    ),
    "TinyConsistencyModel": Case(
        functools.partial(
            TinyConsistencyModel, TinyNetwork(TinyConfig((4,), (1,), embedding=4))
        ),
        {"precision": torch.float32},
        {"precision": ("half", 16, None)},
    ),
    "Tiles": Case(
        Tiles,
        {"side": 64},
        {"side": (0, 100.5, "9", NAN), "overlap": (0, -1, 2.5, "9")},
    ),
    # -- data, metrics, training, benchmark ---------------------------------------------
    "procedural_clip": Case(
        procedural_clip,
        {"num_frames": 1, "height": 16, "width": 16, "seed": 1},
        {
            "num_frames": COUNT,
            "height": COUNT[:5],
            "width": COUNT[:5],
            "seed": (*SEED[:4], np.array([1])),
        },
        {"num_frames": (INT(1),), "height": (INT32(16),), "seed": (INT(1),)},
    ),
    "dead_leaves_clip": Case(
        dead_leaves_clip,
        {"index": 1, "num_frames": 1, "height": 8, "width": 8},
        {"index": SEED[:4], "num_frames": COUNT, "height": COUNT[:3], "seed": SEED[:4]},
    ),
    "DeadLeavesVideos": Case(
        DeadLeavesVideos,
        {"num_clips": 2},
        {"num_clips": COUNT, "first": SEED[:4], "seed": SEED[:4]},
    ),
    "resize_video": Case(
        resize_video,
        {"frames": video()[0], "height": 8, "width": 8},
        {
            "frames": (video(), video()[0].numpy(), (255 * video()[0]).byte(), None),
            "height": COUNT,
            "width": COUNT[:4],
        },
        {"height": (INT(8),)},
    ),
    "VideoCollection": Case(
        functools.partial(VideoCollection, "nowhere", videos=[]),
        {"num_frames": 2},
        {"num_frames": COUNT, "height": COUNT[:4], "start": (-1, 1.5, "0")},
        {"num_frames": (INT(2),), "start": (INT(0),)},
    ),
    "TemporalDifferenceError": Case(
        metric,
        {"x_net": video(), "x": video()},
        {
            "x_net": (*WRONG_VIDEOS[2:5], video().numpy(), video()[:, :, :1]),
            "x": WRONG_VIDEOS[3:6],
        },
    ),
    "time_slice": Case(
        time_slice,
        {"video": video(), "column": 3},
        {"video": (None, video().numpy(), 3), "column": (16, -17, 1.5, "3", NAN)},
        {"column": (INT(3), -13)},
    ),
    "PoolClips": Case(
        pools,
        {"num_frames": 2, "size": 8},
        {
            "pools": ([], "pool.npy", 3, [np.zeros((2, 3, 4, 8), np.uint8)]),
            "num_frames": COUNT,
            "size": COUNT,
            "seed": SEED[:4],
        },
    ),
    "TrainingOptions": Case(
        TrainingOptions,
        {"steps": 3},
        {
            "stage": ("sleep", None),
            "batch_size": COUNT,
            "minutes": POSITIVE[:5],
            "steps": (-1, 1.5, "3", NAN),
            "learning_rate": POSITIVE[:5],
            "adam_rate": POSITIVE[:5],
            "warmup": (0, -1, 1.5, "3"),
            "decay": (-0.1, 1.1, NAN, "1"),
            "seed": SEED[:4],
        },
    ),
    "Benchmark": Case(
        bench,
        {"num_samples": 2},
        {
            "num_samples": COUNT,
            "seed": SEED[:4],
            "sigma": POSITIVE[:5],
            "eta": (-0.1, NAN, "a"),
            "problems": (["Z"], []),
        },
    ),
}
REFUSED = [
    pytest.param(name, argument, index, id=f"{name}-{argument}-{index}")
    for name, case in CASES.items()
    for argument, values in case.refused.items()
    for index in range(len(values))
]
SAME = [
    pytest.param(name, argument, index, id=f"{name}-{argument}-{index}")
    for name, case in CASES.items()
    for argument, values in case.same.items()
    for index in range(len(values))
]


@pytest.mark.parametrize(("name", "argument", "index"), REFUSED)
def test_nonsense_is_refused_by_name(name, argument, index):
    case = CASES[name]
    arguments = case.good | {argument: case.refused[argument][index]}
    with pytest.raises((ValueError, TypeError)) as caught:
        case.call(**arguments)
    message = str(caught.value)
    assert f"`{argument}" in message
    assert len(message) > len(argument) + 20
    assert len(message) < 600
    last = traceback.extract_tb(caught.tb)[-1]
    assert PACKAGE in Path(last.filename).parents


def entries(result: Any) -> dict[str, Any]:
    """What a result consists of."""
    if isinstance(result, Tensor):
        return {"": result}
    if isinstance(result, (tuple, list)):
        return {str(index): value for index, value in enumerate(result)}
    if isinstance(result, torch.nn.Module):
        return dict(result.named_buffers())
    return {"": result}


@pytest.mark.parametrize(("name", "argument", "index"), SAME)
def test_what_means_the_same_gives_the_same(name, argument, index):
    case = CASES[name]
    expected = entries(case.call(**case.good))
    found = entries(case.call(**case.good | {argument: case.same[argument][index]}))
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if isinstance(value, Tensor):
            torch.testing.assert_close(found[key], value, rtol=1e-6, atol=1e-6)
        elif not isinstance(value, VideoCollection):
            assert found[key] == value


def test_there_are_enough():
    assert len(REFUSED) + len(SAME) >= 300


class Sum(LinearPhysics):
    """Sum of groups of frames: measurements of a video in [0, 1] reach 8."""

    def A(self, x, **kwargs):
        return x.sum(2, keepdim=True)

    def A_adjoint(self, y, **kwargs):
        return y.expand(-1, -1, 8, -1, -1)


class TestRange:
    """What is refused as 0 to 255, and what must not be."""

    def solve(self, y, operator, **options):
        with torch.no_grad():
            return solver(seed=0, **options)(y, operator)

    def test_sums_of_frames(self):
        operator = Sum(img_size=SIZE, noise_model=GaussianNoise(0.05))
        y = operator(video())
        assert y.max() > 4
        assert torch.isfinite(self.solve(y, operator)).all()
        with pytest.raises(ValueError, match=r"`y` must be .*`y / 255`"):
            self.solve(255 * y, operator)

    @pytest.mark.parametrize("name", ("A", "B", "deblur"))
    @pytest.mark.parametrize("sigma", (3.0, 30.0))
    def test_very_noisy_measurements(self, name, sigma):
        operator = make_problem(name, (3, 8, 32, 32), sigma=sigma)
        y = operator(rand(1, 3, 8, 32, 32, dtype=torch.float32))
        assert y.abs().max() > 4
        assert torch.isfinite(self.solve(y, operator)).all()

    def test_noise_that_only_the_data_fidelity_tells(self):
        silent = make_problem("A", SIZE, sigma=0)
        y = measurement() + 5 * randn(*measurement().shape, dtype=torch.float32)
        assert torch.isfinite(self.solve(y, silent, data_fidelity=L2(5.0))).all()

    def test_a_few_wild_pixels(self):
        y = measurement().clone()
        y.view(-1)[5] = 10.0
        assert torch.isfinite(self.solve(y, physics())).all()

    def test_a_dark_video_of_8_bits(self):
        with pytest.raises(ValueError, match="`y` must be the measurement of a video"):
            self.solve(255 * measurement() / 20, physics())
