r"""Many jobs on several processes or machines, by Ray."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Generic, TypeVar

import torch

from deepinv_lvtino.utils import check_integer

Job = TypeVar("Job")
Result = TypeVar("Result")

#: How often a job is done again whose process was lost.
RETRIES = 2


class WorkerLost(RuntimeError):
    r"""The process of a job was lost, again and again: killed, or out of memory."""


@dataclass(frozen=True)
class Spread:
    r"""
    Where jobs are done.

    :param int workers: processes, each of which does one job at a time; ``None`` for this
        process alone, without Ray (or, with an address, one).
    :param str address: of a running Ray cluster (``'auto'``, ``'HEAD:6379'``); by
        default one on this machine is started, and stopped in the end.
    :param int threads: threads of a process; PyTorch's by default. Results are the same
        bit for bit wherever this number is the same.
    :param int gpus: GPUs that Ray reserves for each process.
    :raises TypeError: if a number is not an integer.
    :raises ValueError: if one is not positive (``gpus``: negative).
    """

    workers: int | None = None
    address: str | None = None
    threads: int | None = None
    gpus: int = 0

    def __post_init__(self) -> None:
        for name, value in (("workers", self.workers), ("threads", self.threads)):
            if value is not None:
                check_integer(name, value, 1)
        check_integer("gpus", self.gpus, 0)

    @property
    def here(self) -> bool:
        """Whether all is done in this process."""
        return self.workers is None and self.address is None

    def run(
        self, make: Callable[[], Callable[[Job], Result]], jobs: Iterable[Job]
    ) -> Iterator[tuple[Job, Result | Exception]]:
        r"""
        Do jobs, and give their results as they come.

        :param Callable make: makes what does a job, once in every process, which keeps it:
            this is where networks are loaded. With Ray it travels to the processes, with
            the jobs and the results (pickle).
        :param Iterable jobs: the jobs.
        :return: (Iterator[tuple]) every job with its result or the exception that it ended
            in, in the order in which they are finished. A lost process is replaced, and its
            job done again, twice if need be; then the exception is :class:`WorkerLost`.
        :raises ImportError: if Ray is needed and not installed; the message says how to.
        """
        if self.here:
            yield from _here(_Worker(make, self.threads), jobs)
            return
        with _ray(self) as ray:
            actor = ray.remote(_Worker).options(
                num_cpus=1,
                num_gpus=self.gpus,
                max_restarts=-1,
                max_task_retries=RETRIES,
            )
            idle = deque(
                actor.remote(make, self.threads) for _ in range(self.workers or 1)
            )
            waiting = deque(jobs)
            running: dict[Any, tuple[Any, Job]] = {}
            while waiting or running:
                while waiting and idle:
                    worker, job = idle.popleft(), waiting.popleft()
                    running[worker.do.remote(job)] = worker, job
                (done, *_), _ = ray.wait(list(running))
                worker, job = running.pop(done)
                idle.append(worker)
                yield job, _result(ray, done)


class _Worker(Generic[Job, Result]):
    """What lives in a process."""

    def __init__(
        self, make: Callable[[], Callable[[Job], Result]], threads: int | None
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.work = make()

    def do(self, job: Job) -> Result:
        return self.work(job)


def _here(
    worker: _Worker[Job, Result], jobs: Iterable[Job]
) -> Iterator[tuple[Job, Result | Exception]]:
    for job in jobs:
        result: Result | Exception
        try:
            result = worker.do(job)
        except Exception as error:  # the others are still done
            result = error
        yield job, result


def _result(ray: ModuleType, reference: Any) -> Any:
    """Result of a job, or its exception."""
    errors = ray.exceptions
    try:
        return ray.get(reference)
    except errors.RayTaskError as error:
        return error.cause if isinstance(error.cause, Exception) else error
    except errors.RayError as error:
        return WorkerLost(
            f"its process was lost {RETRIES + 1} times ({type(error).__name__}): killed, "
            "or out of memory. Give fewer workers, or smaller windows."
        )


@contextmanager
def _ray(spread: Spread) -> Iterator[ModuleType]:
    """Ray, connected to a cluster: that of the address, or one of this machine."""
    try:
        import ray
    except ImportError as error:
        msg = (
            f"several workers need Ray, which could not be imported ({error}). Install "
            "the extra: pip install 'deepinv-lvtino[cluster]'"
        )
        raise ImportError(msg) from error
    ours = not ray.is_initialized()
    if ours and spread.address is not None:
        ray.init(address=spread.address, log_to_driver=False)
    elif ours:
        ray.init(
            num_cpus=spread.workers,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()
