"""Settings that all tests share."""

from __future__ import annotations

from collections.abc import Iterator

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
