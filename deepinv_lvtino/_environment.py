r"""What a result depends on besides its settings: versions and hardware."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path

import torch

import deepinv_lvtino


def versions() -> dict[str, str]:
    r"""
    Versions of what a result depends on.

    :return: (dict[str, str]) from names to versions.
    """
    import av
    import deepinv

    libraries = av.library_versions
    return {
        "deepinv_lvtino": deepinv_lvtino.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "deepinv": deepinv.__version__,
        "av": av.__version__,
        "libavcodec": ".".join(map(str, libraries["libavcodec"])),
    }


def weights_digest(model: torch.nn.Module) -> str:
    r"""
    SHA-256 of the weights of a network.

    :param torch.nn.Module model: the network.
    :return: (str) of the names, shapes, types and values of all its tensors.
    """
    total = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        total.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\0".encode())
        plain = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
        total.update(plain.numpy().tobytes())
    return total.hexdigest()


def describe_device(device: torch.device) -> str:
    r"""
    Device in words.

    :param torch.device device: the device.
    :return: (str) what it is.
    """
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        return f"cpu ({platform.machine()}, {torch.get_num_threads()} threads)"
    return str(device)


def processor() -> str:
    r"""
    Name of the processor, as the system tells it.

    :return: (str) the name.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()
