r"""Tensors recorded from the released LVTINO code, in this package's conventions."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from doctest import DocTestParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from deepinv_lvtino.models import SDXLConsistencyModel, WanConsistencyModel
from pages import SOURCE

NoiseSource = Callable[[str, Tensor], Tensor]

#: Recorded data steps, part of the repository (see the note beside the file).
DATA_STEPS = Path(__file__).parent / "data" / "released" / "data_steps.npz"

#: Whole recorded runs and their networks, which some machines have; users do not.
PARITY = Path(__file__).parents[2] / "shared" / "data" / "parity"

needs_parity = pytest.mark.skipif(
    not PARITY.is_dir(), reason="the recorded runs are not on this machine"
)


def load_steps() -> dict[str, Tensor]:
    r"""The recorded data steps, as they were recorded."""
    with np.load(DATA_STEPS) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def load_parity(name: str) -> dict[str, Tensor]:
    r"""One file of the recorded runs, as it was recorded."""
    from safetensors.torch import load_file

    return load_file(PARITY / f"{name}.safetensors")


def as_batch(frames: Tensor) -> Tensor:
    r"""``(T, C, H, W)`` to ``(1, C, T, H, W)``."""
    return frames.transpose(0, 1)[None]


def as_video(frames: Tensor) -> Tensor:
    r"""Recorded frames in [-1, 1], or a measurement of them, to a video in [0, 1]."""
    return (as_batch(frames) + 1) / 2


def gap(video: Tensor, frames: Tensor) -> float:
    r"""Largest difference to recorded frames, on their scale of [-1, 1]."""
    assert video.isfinite().all()
    return float((2 * video - 1 - as_batch(frames)).abs().max())


def replay() -> Callable[..., NoiseSource]:
    r"""The function of that name in the user guide."""
    page = (SOURCE / "user_guide" / "from_scripts.rst").read_text(encoding="utf-8")
    for example in DocTestParser().get_examples(page):
        if example.source.startswith("def replay"):
            found: dict[str, Any] = {}
            exec(example.source, found)
            return found["replay"]
    msg = "from_scripts.rst defines no `replay`"
    raise AssertionError(msg)


def recorded_noise(record: dict[str, Tensor]) -> NoiseSource:
    r"""The noise of a recorded run, for a run of this package."""
    return replay()(
        {k: record[f"k{k}/noise_video"] for k in range(5)},
        {k: record[f"k{k}/noise_image"] for k in range(1, 5)},
    )


def parity_models(folder: Path) -> tuple[WanConsistencyModel, SDXLConsistencyModel]:
    r"""The small networks of the recorded runs; ``folder`` is to be written to."""
    embeddings = load_parity("embeddings")
    for name, source in (("vae", "wan_vae_tiny"), ("transformer", "causvid_tiny")):
        shutil.copytree(PARITY / source, folder / name)
    for left_over in folder.glob("*/io.safetensors"):
        left_over.parent.chmod(0o755)
        left_over.unlink()
    video = WanConsistencyModel.from_pretrained(
        folder,
        PARITY / "causvid_tiny" / "model.pt",
        embeddings={"prompt_embeds": embeddings["video_prompt_embeds"]},
    )
    image = SDXLConsistencyModel.from_pretrained(
        PARITY / "sdxl_tiny",
        checkpoint=None,
        autoencoder=None,
        embeddings={
            "prompt_embeds": embeddings["image_prompt_embeds"],
            "pooled_prompt_embeds": embeddings["image_pooled_embeds"],
        },
    )
    return video, image
