r"""The video metrics: exact values on constructed videos, batches, refusals."""

from __future__ import annotations

import sys
from types import ModuleType
from urllib.error import URLError

import numpy as np
import pytest
import torch
from deepinv.loss.metric import MAE, MSE, PSNR, SSIM, BlurStrength, HaarPSI
from torch.nn.functional import interpolate

from deepinv_lvtino.datasets import procedural_clip, read_video, resize_video
from deepinv_lvtino.metrics import (
    FVMD,
    FrameMetric,
    TemporalDifferenceError,
    WarpingError,
    visible_mask,
)
from deepinv_lvtino.metrics.motion import MotionWindows
from helpers import STREET_CLIP, needs_street_clip, rand

SIZE = (2, 3, 5, 20, 24)


@pytest.fixture
def pair():
    x = rand(*SIZE)
    return (x + 0.1 * rand(*SIZE, seed=1) - 0.05).clamp(0, 1), x


def pan(speed: int, frames: int = 4, height: int = 32, width: int = 48, seed: int = 0):
    """Smooth texture that moves to the left by whole pixels, float64, (1, 3, T, H, W)."""
    total = width + speed * (frames - 1)
    coarse = rand(1, 3, height // 4, total // 4 + 1, seed=seed)
    texture = interpolate(coarse, (height, total), mode="bicubic").clamp(0, 1)
    return torch.stack(
        [texture[..., speed * t : speed * t + width] for t in range(frames)], dim=2
    )


class Uniform:
    """Oracle of the flow of :func:`pan`: told which of two images comes first."""

    def __init__(self, x, speed):
        self.x, self.speed = x, float(speed)

    def __call__(self, first, second):
        frames = self.x.unbind(2)
        place = [k for k, frame in enumerate(frames) if torch.equal(frame, first)][0]
        later = place + 1 < len(frames) and torch.equal(frames[place + 1], second)
        shift = -self.speed if later else self.speed
        batch, _, height, width = first.shape
        return first.new_tensor([shift, 0.0]).expand(batch, height, width, 2)


# -- frames ----------------------------------------------------------------------------

IMAGE_METRICS = {"psnr": PSNR, "ssim": SSIM, "haarpsi": HaarPSI, "mae": MAE, "mse": MSE}


@pytest.mark.parametrize("name", IMAGE_METRICS)
def test_agrees_with_the_image_metric_on_every_frame(pair, name):
    estimate, x = (video.float() for video in pair)  # HaarPSI takes nothing else
    metric = IMAGE_METRICS[name]()
    wrapped = FrameMetric(metric, frame_batch=3)
    expected = torch.stack(
        [metric(estimate[:, :, t], x[:, :, t]) for t in range(SIZE[2])], dim=1
    )
    torch.testing.assert_close(wrapped.per_frame(estimate, x), expected)
    torch.testing.assert_close(wrapped(estimate, x), expected.mean(1))
    assert wrapped.lower_better == metric.lower_better


@pytest.mark.parametrize(
    "metric",
    [
        FrameMetric(SSIM()),
        FrameMetric(PSNR(norm_inputs="standardize")),
        FrameMetric(MSE(norm_inputs="min_max", center_crop=12)),
        TemporalDifferenceError(),
        WarpingError(),
    ],
    ids=["ssim", "standardize", "min_max", "difference", "warping"],
)
def test_batch_is_its_parts(pair, metric):
    if isinstance(metric, WarpingError):
        pytest.importorskip("cv2")
    estimate, x = pair
    both = metric(estimate, x)
    apart = [metric(estimate[b : b + 1], x[b : b + 1]) for b in range(2)]
    assert both.shape == (2,)
    torch.testing.assert_close(both, torch.cat(apart))


@pytest.mark.parametrize("make", [lambda **k: FrameMetric(PSNR(), **k)])
def test_reduction_is_over_the_batch(pair, make):
    values = make()(*pair)
    torch.testing.assert_close(make(reduction="mean")(*pair), values.mean())
    torch.testing.assert_close(make(reduction="sum")(*pair), values.sum())


def test_only_the_estimate_is_clamped_and_only_on_demand():
    x = torch.full(SIZE, 0.9)
    assert FrameMetric(MAE())(x + 0.3, x).tolist() == pytest.approx([0.1, 0.1])
    raw = FrameMetric(MAE(), clamp=None)(x + 0.3, x)
    assert raw.tolist() == pytest.approx([0.3, 0.3])
    # the reference is taken as it is
    assert FrameMetric(MAE())(x, x + 0.3).tolist() == pytest.approx([0.3, 0.3])


def test_known_psnr():
    x = torch.zeros(1, 1, 2, 4, 4)
    estimate = x.clone()
    estimate[:, :, 0], estimate[:, :, 1] = 0.1, 0.01
    # 20 and 40 dB: the mean of the frames, not that of the whole video
    assert FrameMetric(PSNR())(estimate, x).tolist() == pytest.approx([30.0], abs=1e-3)
    assert PSNR()(estimate, x).tolist() == pytest.approx([22.967], abs=1e-3)


def test_metric_without_reference(pair):
    estimate, _ = pair
    metric = BlurStrength()
    expected = [metric(estimate[:, :, t]) for t in range(SIZE[2])]
    found = FrameMetric(BlurStrength())(estimate)
    torch.testing.assert_close(found, torch.stack(expected, dim=1).mean(1))


def test_as_a_training_loss(pair):
    estimate, x = pair
    estimate.requires_grad_()
    ssim = FrameMetric(SSIM())(estimate, x)
    loss = FrameMetric(SSIM(), train_loss=True, reduction="mean")(estimate, x)
    torch.testing.assert_close(loss, 1 - ssim.mean())
    inner = FrameMetric(SSIM(train_loss=True))
    torch.testing.assert_close(inner(estimate, x), 1 - ssim)
    assert inner.lower_better
    loss.backward()
    assert float(estimate.grad.abs().sum()) > 0


def test_missing_estimate_gives_nan_as_in_deepinverse():
    assert torch.isnan(FrameMetric(PSNR())(None, torch.zeros(SIZE))).all()


def test_frame_metric_refusals(pair):
    estimate, x = pair
    with pytest.raises(TypeError, match="`metric` must be a deepinv"):
        FrameMetric(torch.nn.L1Loss())
    with pytest.raises(ValueError, match="has a reduction"):
        FrameMetric(PSNR(reduction="mean"))
    with pytest.raises(ValueError, match="`frame_batch`"):
        FrameMetric(PSNR(), frame_batch=0)
    with pytest.raises(ValueError, match="`clamp` must be an interval"):
        FrameMetric(PSNR(), clamp=(1, 0))
    with pytest.raises(ValueError, match="`x_net` must have 5 axes"):
        FrameMetric(PSNR())(estimate[0], x[0])
    with pytest.raises(ValueError, match="`x` must have the shape"):
        FrameMetric(PSNR())(estimate, x[:1])
    with pytest.raises(TypeError, match="floating point"):
        FrameMetric(PSNR())((255 * estimate).byte(), x)


# -- temporal difference ---------------------------------------------------------------


def test_flicker_has_twice_its_amplitude():
    x = 0.3 + 0.4 * rand(*SIZE)
    sign = torch.tensor([1.0, -1, 1, -1, 1]).view(1, 1, 5, 1, 1)
    flicker = torch.tensor([0.1, 0.25], dtype=x.dtype).view(2, 1, 1, 1, 1) * sign
    found = TemporalDifferenceError()(x + flicker, x)
    torch.testing.assert_close(found, torch.tensor([0.2, 0.5], dtype=x.dtype))


def test_what_stays_does_not_count():
    x = 0.5 * rand(*SIZE)
    still = 0.4 * rand(2, 3, 1, 20, 24, seed=1)
    assert TemporalDifferenceError()(x + still, x).max() < 1e-12
    # but a video that is frozen has the motion of the reference as its error
    frozen = x[:, :, :1].expand(SIZE)
    expected = x.diff(dim=2).abs().mean((1, 2, 3, 4))
    torch.testing.assert_close(TemporalDifferenceError()(frozen, x), expected)


def test_difference_clamps_the_estimate():
    x = torch.zeros(1, 1, 2, 4, 4)
    estimate = x.clone()
    estimate[:, :, 1] = -3.0
    assert TemporalDifferenceError()(estimate, x).item() == 0
    assert TemporalDifferenceError(clamp=None)(estimate, x).item() == 3


def test_temporal_refusals():
    x = torch.zeros(SIZE)
    with pytest.raises(ValueError, match="`x` is missing"):
        TemporalDifferenceError()(x)
    for metric in (TemporalDifferenceError(), WarpingError()):
        with pytest.raises(ValueError, match="2 frames or more; got 1"):
            metric(x[:, :, :1], x[:, :, :1])
    with pytest.raises(ValueError, match="`consistency`"):
        WarpingError(consistency=(-1, 0))
    with pytest.raises(ValueError, match="must be flows of one shape"):
        visible_mask(torch.zeros(1, 4, 4, 2), torch.zeros(1, 4, 5, 2))


# -- warping error ---------------------------------------------------------------------


@pytest.mark.parametrize("speed", (1, 3))
def test_translation_has_no_warping_error(speed):
    x = pan(speed)
    oracle = Uniform(x, speed)
    assert WarpingError(oracle)(x, x).item() < 1e-20
    # without a reference the flow is that of the estimate
    assert WarpingError(oracle)(x).item() < 1e-20
    # and with the classical flow nearly none: measured 7e-6 and 3e-5
    pytest.importorskip("cv2")
    assert WarpingError()(x.float(), x.float()).item() < 5e-5
    still = (x[:, :, 1:] - x[:, :, :-1]).square().mean()
    assert still > 2e-3  # what it would be without a flow


def test_flicker_has_the_square_of_twice_its_amplitude():
    x = 0.3 + 0.4 * pan(2)
    sign = torch.tensor([1.0, -1, 1, -1]).view(1, 1, 4, 1, 1)
    found = WarpingError(Uniform(x, 2))(x + 0.1 * sign, x)
    assert found.item() == pytest.approx(0.04, rel=1e-6)


def test_a_frozen_video_has_the_error_of_its_motion():
    x = pan(2)
    oracle = Uniform(x, 2)
    frozen = x[:, :, :1].expand_as(x)
    # moved along the reference's motion: pixel p is compared with p - (2, 0)
    first = x[:, :, 0]
    expected = (first[..., :-2] - first[..., 2:]).square().mean()
    torch.testing.assert_close(WarpingError(oracle)(frozen, x)[0], expected)


def test_hidden_pixels_do_not_count():
    # a square moves over a still background and uncovers a strip that was hidden
    background = rand(1, 1, 24, 32)
    x = torch.stack([background, background.clone()], dim=2)
    x[..., 0, 8:16, 4:12] = 0.5
    x[..., 1, 8:16, 10:18] = 0.5
    forward, backward = torch.zeros(2, 1, 24, 32, 2, dtype=x.dtype).unbind(0)
    forward, backward = forward.clone(), backward.clone()
    forward[:, 8:16, 4:12, 0] = 6.0
    backward[:, 8:16, 10:18, 0] = -6.0
    visible = visible_mask(forward, backward)
    hidden = torch.zeros(24, 32, dtype=torch.bool)
    hidden[8:16, 12:18] = True  # background that the square comes to lie over
    assert torch.equal(visible[0], ~hidden)
    flows = {0: forward, 1: backward}

    def oracle(first, second):
        return flows[0] if torch.equal(first, x[:, :, 0]) else flows[1]

    assert WarpingError(oracle)(x, x).item() < 1e-20


def test_pixels_that_leave_the_image_are_not_visible():
    flow = torch.zeros(1, 4, 6, 2)
    flow[..., 0] = 2.0
    flow[..., 1] = -1.0
    expected = torch.zeros(4, 6, dtype=torch.bool)
    expected[1:, :4] = True
    assert torch.equal(visible_mask(flow, -flow)[0], expected)


def test_nothing_visible_is_nan():
    x = rand(1, 1, 3, 8, 8)

    def away(first, second):
        return first.new_full((1, 8, 8, 2), 100.0)

    assert torch.isnan(WarpingError(away)(x, x)).all()


def test_missing_opencv_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(
        ImportError, match=r"warping error\) needs OpenCV.*lvtino\[flow\]"
    ):
        WarpingError()(torch.zeros(SIZE))


@needs_street_clip
def test_real_video_moves_less_along_its_flow():
    pytest.importorskip("cv2")
    x = resize_video(read_video(STREET_CLIP, 3).frames, 96, 160)[None]
    along = WarpingError()(x, x).item()
    still = x.diff(dim=2).square().mean().item()
    # measured 3.8e-4 and 1.5e-3
    assert along < 0.5 * still
    noisy = (x + 0.1 * torch.randn(x.shape)).clamp(0, 1)
    assert WarpingError()(noisy, x).item() > 10 * along


# -- motion distance -------------------------------------------------------------------


@pytest.fixture
def fake_fvmd(monkeypatch):
    """The names that FVMD uses of the package, with arithmetic of our own behind them."""
    package = ModuleType("fvmd")
    tracking = ModuleType("fvmd.keypoint_tracking")
    histograms = ModuleType("fvmd.extract_motion_features")
    distance = ModuleType("fvmd.frechet_distance")
    package.keypoint_tracking = tracking
    package.extract_motion_features = histograms
    package.frechet_distance = distance
    calls = []

    def track_keypoints(log_dir, gen_dataset, gt_dataset, v_stride=1):
        calls.append((len(gen_dataset), len(gt_dataset), v_stride))
        print("a table")

        def field(data, scale):
            means = [scale * float(data[i].float().mean()) for i in range(len(data))]
            return np.array(means)[:, None, None, None] * np.ones((1, 16, 400, 2))

        return (
            field(gen_dataset, 1),
            field(gt_dataset, 1),
            field(gen_dataset, 2),
            field(gt_dataset, 2),
        )

    tracking.track_keypoints = track_keypoints
    tracking.PIPS_WEIGHTS = "https://example.org/pips2_weights.pth"
    histograms.calc_hist = lambda vectors: vectors[:, :2, :3]
    distance.calculate_fd_given_vectors = lambda a, b: np.abs(a - b).mean()
    for module in (package, tracking, histograms, distance):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *a, **k: {})
    return calls


def test_motion_distance_hands_windows_to_the_package(fake_fvmd, capsys):
    x = torch.full((2, 3, 18, 8, 12), 0.2)
    found = FVMD()(x + 0.2, x)
    assert found.shape == (1,)
    # greys 102 and 51; velocities and twice that, in equal parts
    assert found.item() == pytest.approx(1.5 * 51)
    assert fake_fvmd == [(6, 6, 1)]
    assert capsys.readouterr().out == ""
    estimate, reference = FVMD().features(x + 0.2, x)
    assert estimate.shape == reference.shape == (6, 24)
    assert FVMD().distance(estimate, reference) == pytest.approx(1.5 * 51)


def test_motion_windows_are_successive_frames_of_one_video():
    x = torch.arange(2 * 18).float().view(2, 1, 18, 1, 1).expand(2, 3, 18, 8, 12) / 255
    windows = MotionWindows(x)
    assert windows[0].shape == (16, 3, 256, 256)
    assert windows[0].dtype == torch.uint8
    found = [windows[i][:, 0, 0, 0].tolist() for i in range(len(windows))]
    starts = [0, 1, 2, 18, 19, 20]
    assert found == [list(range(start, start + 16)) for start in starts]


def test_motion_distance_refusals(fake_fvmd, monkeypatch):
    x = torch.zeros(1, 3, 17, 8, 8)
    with pytest.raises(ValueError, match="two windows of 16 frames"):
        FVMD()(x[:, :, :16], x[:, :, :16])
    with pytest.raises(ValueError, match="16 frames or more; got 9"):
        FVMD()(x[:, :, :9], x[:, :, :9])
    with pytest.raises(ValueError, match="3 channels"):
        FVMD()(x[:, :1], x[:, :1])
    with pytest.raises(ValueError, match="`x` is missing"):
        FVMD()(x)

    def offline(*args, **kwargs):
        msg = "no network"
        raise URLError(msg)

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    with pytest.raises(RuntimeError, match=r"weights .* missing .*pips2_weights.pth"):
        FVMD()(x, x)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="needs a CUDA device"):
        FVMD()(x, x)
    monkeypatch.setitem(sys.modules, "fvmd", None)
    with pytest.raises(ImportError, match=r"deepinv-lvtino\[fvmd\]"):
        FVMD()(x, x)


def test_motion_distance_of_the_package_itself():
    pytest.importorskip("fvmd")
    if not torch.cuda.is_available():
        pytest.skip("the package `fvmd` runs on CUDA only")
    x = procedural_clip(18, 64, 96)[None]
    assert abs(FVMD()(x, x).item()) < 0.1
