r"""What a restoration costs: seconds, memory, and evaluations of networks."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from deepinv.models import Denoiser
from deepinv.optim import BaseOptim
from deepinv.physics import Physics
from torch import nn
from torch.nn.modules import module as modules

from deepinv_lvtino.models import ConsistencyModel

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Cost:
    r"""
    What the code within took, as a context manager.

    :param torch.device device: device that it runs on.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = 0.0
        self.memory: float | None = None
        self.evaluations: int | None = None

    def __enter__(self) -> Cost:
        self._counting = count_evaluations()
        self._counter = self._counting.__enter__()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            torch.cuda.synchronize(self.device)
            self._before = None
        else:
            self._before = _reset_peak()
        self._start = time.perf_counter()
        return self

    def __exit__(self, *error: Any) -> None:
        if self.device.type == "cuda" and error[0] is None:
            torch.cuda.synchronize(self.device)
        self.seconds = time.perf_counter() - self._start
        if self.device.type == "cuda":
            self.memory = torch.cuda.max_memory_allocated(self.device) / 1e9
        elif self._before is not None:
            peak = _resident("VmHWM")
            if peak is not None:
                self.memory = max(peak - self._before, 0) / 1e9
        self._counting.__exit__(*error)
        self.evaluations = self._counter.count or None

    def entry(self) -> dict[str, Any]:
        r"""
        For a cell.

        :return: (dict) ``seconds``, ``memory`` in GB and ``evaluations``; the last two
            are ``None`` where the system does not tell, or there is no network.
        """
        return {
            "seconds": round(self.seconds, 4),
            "memory": None if self.memory is None else round(self.memory, 6),
            "evaluations": self.evaluations,
        }


def _resident(key: str) -> int | None:
    """Bytes of this process as Linux tells them; elsewhere ``None``."""
    try:
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) * 1024
    return None


def _reset_peak() -> int | None:
    """Set the peak to what is resident now, and say how much; ``None`` if it cannot."""
    try:
        _RESET.write_text("5")
    except OSError:
        return None
    return _resident("VmRSS")


class _Counter:
    """Calls of networks, those of their parts not counted."""

    def __init__(self) -> None:
        self.count = 0
        self._inside: object | None = None
        self._depth = 0
        self._known: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()

    def enter(self, what: object, counts: bool = True) -> None:
        if self._inside is None:
            self._inside, self._depth = what, 1
            self.count += counts
        elif self._inside is what:
            self._depth += 1

    def leave(self, what: object) -> None:
        if self._inside is what:
            self._depth -= 1
            if not self._depth:
                self._inside = None

    def before(self, module: nn.Module, *_: Any) -> None:
        if self._inside is not None:
            if self._inside is module:
                self._depth += 1
            return
        if module not in self._known:
            self._known[module] = _is_network(module)
        if self._known[module]:
            self.enter(module)

    def after(self, module: nn.Module, *_: Any) -> None:
        self.leave(module)


def _is_network(module: nn.Module) -> bool:
    """Whether a call of it is an evaluation, not that of what holds networks."""
    if isinstance(module, (Physics, BaseOptim)):
        return False
    if next(module.parameters(), None) is None:
        return False
    if isinstance(module, Denoiser):
        return True
    parts = (part for part in module.modules() if part is not module)
    return not any(isinstance(part, (ConsistencyModel, Denoiser)) for part in parts)


@contextmanager
def count_evaluations() -> Iterator[_Counter]:
    r"""
    Count the evaluations of networks: jumps of consistency models, calls of denoisers, and
    calls of any other module with parameters that holds no such.

    :return: the counter, an object with ``count``.
    """
    counter = _Counter()
    changed: list[tuple[type, str, Any]] = []
    try:
        for kind in dict.fromkeys(_subclasses(ConsistencyModel)):
            for name in ("denoise", "encode", "decode"):
                if name in vars(kind):
                    original = vars(kind)[name]
                    if not callable(original):
                        continue
                    changed.append((kind, name, original))
                    setattr(kind, name, _watched(original, counter, name == "denoise"))
        hooks = [
            modules.register_module_forward_pre_hook(counter.before),
            modules.register_module_forward_hook(counter.after, always_call=True),
        ]
        try:
            yield counter
        finally:
            for hook in hooks:
                hook.remove()
    finally:
        for kind, name, original in changed:
            setattr(kind, name, original)


def _watched(
    function: Callable[..., Any], counter: _Counter, counts: bool
) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        # one token per call: a model may call itself, or another one
        token = object()
        counter.enter(token, counts)
        try:
            return function(*arguments, **options)
        finally:
            counter.leave(token)

    return call


def _subclasses(kind: type) -> Iterator[type]:
    yield kind
    below: type
    for below in kind.__subclasses__():
        yield from _subclasses(below)
