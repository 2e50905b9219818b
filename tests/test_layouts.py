r"""Layouts of Wan's other distillations, each name of a checkpoint accounted for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import checkpoints
from deepinv_lvtino.models._checkpoints import read_entry

# -- averaged weights ------------------------------------------------------------------


def forcing(path: Path, *entries: str) -> Path:
    r"""A file of Self-Forcing's or Causal-Forcing's training: several networks."""
    networks = {
        "generator": checkpoints.wan_transformer(seed=7),
        "generator_ema": checkpoints.wan_transformer(seed=8),
        "critic": checkpoints.wan_transformer(seed=9),
    }
    torch.save(
        {
            entry: {
                f"model.{name}": tensor
                for name, tensor in checkpoints.original_wan_weights(
                    networks[entry]
                ).items()
            }
            for entry in entries
        },
        path,
    )
    return path


@pytest.mark.parametrize(
    "entries, asked, taken",
    [
        (("generator", "critic", "generator_ema"), None, "generator_ema"),
        (("generator", "critic", "generator_ema"), "generator", "generator"),
        (("generator", "critic"), None, "generator"),
        (("generator_ema",), None, "generator_ema"),
    ],
)
def test_the_averaged_weights_are_taken_where_they_are_there(
    entries: tuple[str, ...], asked: str | None, taken: str, tmp_path: Path
) -> None:
    path = forcing(tmp_path / "model.pt", *entries)
    name, weights = read_entry(path, asked)
    assert name == taken
    seed = {"generator": 7, "generator_ema": 8}[taken]
    expected = checkpoints.wan_transformer(seed=seed).state_dict()["proj_out.weight"]
    assert torch.equal(weights["model.head.head.weight"], expected)


def test_an_entry_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = forcing(tmp_path / "model.pt", "generator", "critic")
    with pytest.raises(
        ValueError, match="no entry 'generator_ema'; it has 'generator'"
    ):
        read_entry(path, "generator_ema")
    torch.save({"x": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="no entry 'generator'; it has none"):
        read_entry(path, "generator")
    path = checkpoints.save_weights(tmp_path / "a.safetensors", {"x": torch.zeros(2)})
    with pytest.raises(ValueError, match="holds one network; it has no entry"):
        read_entry(path, "generator")
