r"""
The published networks at full size, on the CPU, with random weights.

Wan 2.1 1.3B (transformer and autoencoder) and SDXL (UNet and autoencoder) are built from
configurations written in code, nothing is downloaded, and each takes one stochastic
autoencoding step through the classes that users load them by. Reported are the numbers of
parameters, seconds, the largest resident memory of the process, and what
:func:`deepinv_lvtino.models.estimate_memory` predicts. The exit code is 1 if the memory
exceeds 20 GiB. Usage::

    python benchmarks/full_size.py [--dtype bfloat16] [--frames 5] [--height 128]
        [--width 192] [--tiny]
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import networks
import torch
from measure import peak_bytes, provenance, resident_bytes, save, trim_heap

from deepinv_lvtino.models import estimate_memory
from deepinv_lvtino.models._memory import num_bytes

GIB = 2**30
LIMIT = 20 * GIB
TIMES = {"wan": 522.0, "sdxl": 374.0}


def measure(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    r"""One step of a model, in a process of its own."""
    import diffusers
    import transformers

    dtype = getattr(torch, settings["dtype"])
    size = tuple(settings[key] for key in ("frames", "height", "width"))
    libraries = resident_bytes()
    start = time.perf_counter()
    model = getattr(networks, name)(dtype, settings["tiny"])
    built = time.perf_counter() - start
    parts = {"network": model.network, "autoencoder": model.autoencoder}
    gc.collect()
    rows: dict[str, Any] = {
        "parameters": {
            key: sum(p.numel() for p in part.parameters())
            for key, part in parts.items()
        },
        "weights, GiB": sum(map(num_bytes, parts.values())) / GIB,
        "seconds to build": built,
    }
    x = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    noise = torch.Generator().manual_seed(1)
    start = time.perf_counter()
    result = model.sae(x, TIMES[name], generator=noise)
    rows["seconds of one sae"] = time.perf_counter() - start
    if result.shape != x.shape or not bool(torch.isfinite(result).all()):
        msg = f"{name} returned {tuple(result.shape)}, or values that are not finite"
        raise ArithmeticError(msg)
    rows["largest resident memory, GiB"] = resident_bytes(largest=True) / GIB
    rows["of which before the networks, GiB"] = libraries / GIB

    # stage by stage, beside the weights: what is used, and what was foreseen
    latent = model.encode(model.pad(x))
    stages = {
        "encode": lambda: model.encode(model.pad(x)),
        "denoise": lambda: model.denoise(latent, TIMES[name]),
        "decode": lambda: model.decode(latent),
    }
    cpu = torch.device("cpu")
    rows["activations, MiB"] = {}
    for key, stage in stages.items():
        trim_heap()
        rows["activations, MiB"][key] = {"measured": peak_bytes(stage, cpu) / 2**20}
    if not settings["tiny"]:
        estimate = estimate_memory(name, *size, dtype=dtype)
        rows["weights foreseen, GiB"] = sum(estimate.weights.values()) / GIB
        for key, row in rows["activations, MiB"].items():
            row["foreseen"] = estimate.activations[key] / 2**20
    rows["diffusers"] = diffusers.__version__
    rows["transformers"] = transformers.__version__
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="The published networks at full size.")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--frames", type=int, default=5)
    parser.add_argument("--height", type=int, default=128)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--tiny", action="store_true", help="tiny networks, not saved")
    settings = vars(parser.parse_args())
    results: dict[str, Any] = {
        "benchmark": "one sae of each published network, full size, random weights",
        "command": " ".join(["python", *sys.argv]),
        **provenance(torch.device("cpu")),
        **settings,
    }
    largest = 0.0
    for name in TIMES:
        # a process of its own, so that one network's memory is not the other's
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            results[name] = pool.submit(measure, name, settings).result()
        largest = max(largest, results[name]["largest resident memory, GiB"])
    results["within 20 GiB"] = largest * GIB <= LIMIT
    if settings["tiny"]:
        print(results)
    else:
        save("full_size-cpu", results)
    sys.exit(not results["within 20 GiB"])


if __name__ == "__main__":
    main()
