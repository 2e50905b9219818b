"""Settings that all tests share."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from types import ModuleType

import matplotlib
import pytest
import torch

# figures are drawn, never shown
matplotlib.use("Agg")

# On small tensors threads only wait for each other, and for long on a busy machine.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _fixed_randomness() -> Iterator[None]:
    """Start every test from the same global state, and leave no default changed."""
    dtype = torch.get_default_dtype()
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(dtype)


@pytest.fixture(scope="module")
def ray() -> Iterator[ModuleType]:
    """Ray on two cores of this machine, for the tests of one file."""
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


@pytest.fixture
def usual_signals() -> Iterator[None]:
    """Stops act as in a terminal, also if the tests run in the background (``nohup``)."""
    usual = {
        "SIGINT": signal.default_int_handler,
        "SIGTERM": signal.SIG_DFL,
        "SIGHUP": signal.SIG_DFL,
    }
    before = {
        getattr(signal, name): signal.signal(getattr(signal, name), handler)
        for name, handler in usual.items()
        if hasattr(signal, name)
    }
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)
