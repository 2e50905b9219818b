"""The optical flow, and images moved along it."""

from __future__ import annotations

import pytest
import torch

from deepinv_lvtino import metrics
from deepinv_lvtino.flow import optical_flow, warp
from deepinv_lvtino.optim import starts
from helpers import rand, translating


def test_flow_and_warp_undo_a_shift():
    x = translating(2, 48, 64, 3)
    first, second = x[:, :, 0], x[:, :, 1]
    flow = optical_flow(first, second)
    inner = flow[:, 8:-8, 8:-8]
    assert inner.shape == (1, 32, 48, 2)
    # What is at column c of the first image is three columns to the left in the second.
    assert (inner - torch.tensor([-3.0, 0.0])).abs().mean() < 0.1
    exact = torch.tensor([-3.0, 0.0]).expand(1, 48, 64, 2)
    moved = warp(second, exact)
    torch.testing.assert_close(moved[..., 3:], first[..., 3:], atol=1e-4, rtol=0)
    assert torch.equal(moved[..., 0], moved[..., 1])  # border


def test_flow_leaves_the_threads_of_opencv_alone():
    cv2 = pytest.importorskip("cv2")
    threads = cv2.getNumThreads()
    image = rand(1, 3, 32, 32, dtype=torch.float32)
    assert optical_flow(image, image).abs().max() < 1e-3
    assert cv2.getNumThreads() == threads


def test_flow_of_the_starts_is_that_of_the_metrics():
    for user in (starts, metrics):
        assert (user.optical_flow, user.warp) == (optical_flow, warp)
