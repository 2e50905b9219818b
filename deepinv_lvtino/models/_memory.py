r"""Where the networks of a model are kept, and how much memory they need."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Offload = bool | str
Result = TypeVar("Result")

#: Left free beside the weights when a network is moved to a GPU, in bytes.
RESERVE = 2 * 2**30

# what the CPU and Apple's GPUs say
_OUT_OF_MEMORY = ("can't allocate memory", "backend out of memory")

_parts: weakref.WeakSet[Part] = weakref.WeakSet()
_clock = count()
_CPU = torch.device("cpu")


class OutOfMemory(RuntimeError):
    r"""A device has run out of memory; the message names the settings to change."""


def check_offload(offload: Offload) -> None:
    r"""
    Check the setting of the same name.

    :param bool, str offload: the setting.
    :raises ValueError: if it is none of the three.
    """
    if not (offload == "auto" or isinstance(offload, bool)):
        msg = f'`offload` must be "auto", True or False; got {offload!r}.'
        raise ValueError(msg)


class Part:
    r"""
    One network of a model, moved to the device of what it is given.

    :param str name: name for messages.
    :param torch.nn.Module module: the network.
    :param bool, str offload: ``True``: back to the CPU after every use; ``'auto'``: when
        another network needs the room; ``False``: never.
    """

    def __init__(self, name: str, module: nn.Module, offload: Offload) -> None:
        check_offload(offload)
        self.name = name
        self.module = module
        self.offload = offload
        self.last_used = -1
        _parts.add(self)

    @property
    def device(self) -> torch.device | None:
        r"""Where the network is; ``None`` if it has no tensors."""
        return next((tensor.device for tensor in _tensors(self.module)), None)

    def away_from(self, device: torch.device) -> bool:
        r"""
        Whether any of its tensors is elsewhere (a move may have failed half-way).

        :param torch.device device: the device.
        :return: (bool) whether the network has to move.
        """
        return any(tensor.device != device for tensor in _tensors(self.module))

    def run(
        self,
        function: Callable[[nn.Module], Result],
        device: torch.device,
        settings: Mapping[str, str],
    ) -> Result:
        r"""
        Use the network on a device.

        :param Callable function: what to do with it.
        :param torch.device device: where.
        :param Mapping[str, str] settings: for the message when memory runs out: what can
            be changed, and what that does.
        :return: what ``function`` returns.
        :raises OutOfMemory: if the device's memory does not suffice.
        """
        device = indexed(device)
        return with_room(
            lambda: self._use(function, device),
            device,
            what=self.name,
            settings=settings,
            keep=self,
        )

    def _use(
        self, function: Callable[[nn.Module], Result], device: torch.device
    ) -> Result:
        self.last_used = next(_clock)
        if self.away_from(device):
            make_room(self, device)
            self.module.to(device)
        try:
            return function(self.module)
        finally:
            if self.offload is True:
                self.leave()

    def leave(self) -> None:
        r"""Move the network to the CPU."""
        if self.device not in (None, torch.device("meta")) and self.away_from(_CPU):
            self.module.to(_CPU)


def with_room(
    function: Callable[[], Result],
    device: torch.device,
    *,
    what: str,
    settings: Mapping[str, str],
    keep: Part | None = None,
) -> Result:
    r"""
    Call a function; if memory runs out, once more after the networks have left.

    :param Callable function: what to do; it may be called twice.
    :param torch.device device: where.
    :param str what: name for the message.
    :param Mapping[str, str] settings: what can be changed, and what that does.
    :param Part keep: the network that stays.
    :return: what ``function`` returns.
    :raises OutOfMemory: if the device's memory does not suffice.
    """
    try:
        try:
            return function()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or not release_others(keep, device):
                raise
        return function()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        remedies = "; ".join(f"{key} ({text})" for key, text in settings.items())
        msg = (
            f"out of memory on {device} in the {what}. Settings that need less, the "
            f"cheapest first: {remedies}."
        )
        raise OutOfMemory(msg) from error


def indexed(device: torch.device) -> torch.device:
    r"""
    The device as tensors name it: ``cuda`` is the current one, such as ``cuda:0``.

    :param torch.device device: the device.
    :return: (torch.device) the same, with its number.
    """
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def num_bytes(module: nn.Module) -> int:
    r"""
    Memory of a network's weights.

    :param torch.nn.Module module: the network.
    :return: (int) bytes of parameters and buffers.
    """
    return sum(tensor.numel() * tensor.element_size() for tensor in _tensors(module))


def is_out_of_memory(error: BaseException) -> bool:
    r"""
    Whether an error means that memory ran out.

    :param BaseException error: the error.
    :return: (bool) whether it does.
    """
    return isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) or (
        isinstance(error, RuntimeError)
        and any(text in str(error) for text in _OUT_OF_MEMORY)
    )


def free_bytes(device: torch.device) -> int | None:
    r"""
    Memory that can still be taken on a device.

    :param torch.device device: the device.
    :return: (int) bytes, or ``None`` if that is not known.
    """
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(free + cached)


def _others(part: Part | None, device: torch.device) -> list[Part]:
    """Networks on a device that may leave, the longest unused first."""
    if device.type == "cpu":  # there is nowhere to go
        return []
    kept = None if part is None else part.module
    found = [
        other
        for other in _parts
        if other.module is not kept
        and other.offload != False  # noqa: E712  (0 and "auto" differ)
        and other.device == device
    ]
    return sorted(found, key=lambda other: other.last_used)


def make_room(part: Part, device: torch.device) -> None:
    r"""
    Move other networks away until one fits.

    :param Part part: the network that is to come.
    :param torch.device device: where to.
    """
    needed = num_bytes(part.module) + RESERVE
    for other in _others(part, device):
        free = free_bytes(device)
        if free is None or free >= needed:
            return
        other.leave()


def release_others(part: Part | None, device: torch.device) -> bool:
    r"""
    Move all other networks that may leave away from a device.

    :param Part part: the network that stays, or ``None``.
    :param torch.device device: the device.
    :return: (bool) whether there were any.
    """
    others = _others(part, device)
    for other in others:
        other.leave()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return bool(others)


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    r"""
    Inside, modules are built without memory for their parameters; buffers are real.

    The parameters have to be assigned afterwards
    (:meth:`torch.nn.Module.load_state_dict` with ``assign=True``).
    """
    original = nn.Module.register_parameter

    def register(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        if param is not None and param.device.type != "meta":
            param = nn.Parameter(param.detach().to("meta"), param.requires_grad)
        original(self, name, param)

    nn.Module.register_parameter = register  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = original  # type: ignore[method-assign]


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make, while they live."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        known = {
            tensor.untyped_storage()._cdata
            for tensor in tree_leaves((args, kwargs))
            if isinstance(tensor, Tensor)
        }
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage(), known)
        return result

    def _count(self, storage: torch.UntypedStorage, known: set[int]) -> None:
        key = storage._cdata
        if key in self._sizes or key in known:  # such as a view of a weight
            return
        self._sizes[key] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.now -= self._sizes.pop(key, 0)


class _FusedAttention(TorchFunctionMode):
    """Attention as the fused kernels do it: no matrix of all pairs is made."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.nn.functional.scaled_dot_product_attention:
            query = args[0] if args else kwargs["query"]
            value = args[2] if len(args) > 2 else kwargs["value"]
            return query.new_empty((*query.shape[:-1], value.shape[-1]))
        return func(*args, **kwargs)


def peak_activations(function: Callable[[], Any]) -> int:
    r"""
    Largest memory that operations hold at one time.

    Meant for networks and tensors on the ``meta`` device, where nothing is computed: the
    sizes alone pass through the code.

    :param Callable function: what to run.
    :return: (int) bytes; memory that existed before is not counted, nor is the working
        space of the device's libraries.
    """
    with torch.no_grad(), _FusedAttention(), _LiveBytes() as live:
        function()
    return live.peak
