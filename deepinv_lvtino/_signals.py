r"""Signals that ask a program to stop: as exceptions, and held while files move."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# Ctrl-C, the scheduler or `kill`, and a terminal that is closed; Windows lacks the last
_STOPS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP")
    if hasattr(signal, name)
)


class Interrupted(KeyboardInterrupt):
    r"""
    A signal asked to stop.

    :param int signum: its number.
    :param str state: what there is now, for people.
    """

    def __init__(self, signum: int = signal.SIGINT, state: str = "") -> None:
        super().__init__(signum, state)
        self.signum, self.state = signum, state

    @classmethod
    def of(cls, stop: KeyboardInterrupt, state: str) -> Interrupted:
        """The same stop, with what there is now."""
        return cls(getattr(stop, "signum", signal.SIGINT), state)


@contextmanager
def stops_as_exceptions() -> Iterator[None]:
    r"""
    SIGTERM and SIGHUP raise :class:`Interrupted`, as Ctrl-C raises ``KeyboardInterrupt``.

    Signals that are ignored (``nohup``) or handled by somebody else stay as they are, as do
    all outside the main thread, where Python delivers none.
    """

    def stop(signum: int, frame: FrameType | None) -> None:
        raise Interrupted(signum)

    chosen = [
        signum
        for signum in _STOPS
        if signum != signal.SIGINT and signal.getsignal(signum) == signal.SIG_DFL
    ]
    with _handlers(chosen, stop):
        yield


@contextmanager
def held_stops() -> Iterator[None]:
    r"""
    Hold signals that ask to stop; they act when the block is left.

    A mask would not do: the process has other threads, of torch, that take the signal.
    """
    caught: list[int] = []

    def note(signum: int, frame: FrameType | None) -> None:
        caught.append(signum)

    chosen = [
        signum
        for signum in _STOPS
        if signal.getsignal(signum) not in (None, signal.SIG_IGN)
    ]
    try:
        with _handlers(chosen, note):
            yield
    finally:
        if caught:
            signal.raise_signal(caught[0])


@contextmanager
def _handlers(chosen: list[int], handler: Any) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous: dict[int, Any] = {}
    try:
        for signum in chosen:
            previous[signum] = signal.getsignal(signum)
            signal.signal(signum, handler)
        yield
    finally:
        for signum, old in previous.items():
            signal.signal(signum, old)
