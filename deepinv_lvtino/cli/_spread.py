r"""Options of commands that several processes share, by Ray."""

from __future__ import annotations

import argparse
import os

import torch

from deepinv_lvtino.cluster import Spread


def spread_of(arguments: argparse.Namespace) -> Spread:
    r"""
    Where the work is done, as the options say.

    :param argparse.Namespace arguments: the options.
    :return: (Spread) workers, each with a GPU where the device is one.
    """
    threads = arguments.threads
    if threads is None and arguments.workers is not None:
        threads = max(1, (os.cpu_count() or 1) // arguments.workers)
    device = arguments.device
    if device is None:
        gpus = int(torch.cuda.is_available())
    else:
        gpus = int(device.startswith("cuda"))
    return Spread(arguments.workers, arguments.address, threads, gpus)
