r"""What produced a result: settings, weights, code, as a flat table of short texts."""

from __future__ import annotations

import functools
import hashlib
import sys
import sysconfig
import types
from collections.abc import Mapping
from enum import Enum
from fractions import Fraction
from importlib import import_module
from pathlib import Path, PurePath
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

import deepinv_lvtino
from deepinv_lvtino._environment import weights_digest

#: From paths of values, such as ``solver.schedule.delta``, to what they are.
Identity = dict[str, str]

_DEEPEST, _MOST = 16, 20_000
# entries below one value that are kept one by one; more become one
_FEW, _MANY = 40, 100
_LONGEST = 120
_PLAIN = (bool, int, float, complex, str, PurePath, Fraction, torch.dtype, torch.Size)

# of a module: what changes with use, and what its weights are
_OF_MODULE = frozenset(
    ["_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "training"]
    + ["_is_full_backward_hook", "_version"]
)


@functools.cache
def code_version() -> str:
    r"""
    Version of this package, and of its source.

    :return: (str) the version, and the start of the SHA-256 of the source files.
    """
    total, root = hashlib.sha256(), Path(deepinv_lvtino.__file__).parent
    for path in sorted(root.rglob("*.py")):
        total.update(f"{path.relative_to(root).as_posix()}\0".encode())
        total.update(path.read_bytes())
    return f"deepinv_lvtino {deepinv_lvtino.__version__}, {total.hexdigest()[:16]}"


class Describer:
    r"""
    Describes values for one run, in which no network is hashed twice.

    A value says what it is by a method ``settings_for_benchmark``, which returns what is to
    be described instead; other objects are described by their class and attributes,
    functions by their code and what it refers to.
    """

    def __init__(self) -> None:
        self._weights: WeakKeyDictionary[nn.Module, tuple[Any, str]] = (
            WeakKeyDictionary()
        )

    def describe(self, name: str, value: Any) -> Identity:
        r"""
        Describe a value.

        :param str name: path of the value.
        :param value: any value.
        :return: (dict[str, str]) what it is, and below it its parts.
        """
        found: Identity = {}
        self._walk(name, value, found, {}, 0, False)
        return found

    def _walk(
        self,
        path: str,
        value: Any,
        found: Identity,
        seen: dict[int, tuple[str, bool, Any]],
        depth: int,
        weighed: bool,
    ) -> None:
        """Describe a value; ``weighed`` says that its tensors are in a digest above."""
        if depth > _DEEPEST or len(found) > _MOST:
            found[path] = "…"
            return
        short = _plain(value)
        if short is not None:
            found[path] = short
            return
        place, within, _ = seen.get(id(value), ("", False, None))
        if within:
            found[path] = f"see {place}"
            return
        if place and isinstance(value, nn.Module):  # large, and described once
            found[path] = _class_name(type(value))
            if not weighed and next(_tensors(value), None) is not None:
                found[f"{path}.weights"] = self._digest(value)
            return
        seen[id(value)] = path, True, value
        self._parts(path, value, found, seen, depth, weighed)
        seen[id(value)] = path, False, value

    def _parts(
        self,
        path: str,
        value: Any,
        found: Identity,
        seen: dict[int, tuple[str, bool, Any]],
        depth: int,
        weighed: bool,
    ) -> None:
        """Describe a value that has parts."""

        def below(part: str, item: Any, weighed: bool = weighed) -> None:
            self._walk(f"{path}{part}", item, found, seen, depth + 1, weighed)

        if hasattr(type(value), "settings_for_benchmark"):
            found[path] = _class_name(type(value))
            below(".settings", value.settings_for_benchmark())
        elif isinstance(value, (list, tuple, set, frozenset)):
            self._sequence(path, value, found, below)
        elif isinstance(value, Mapping):
            items = {str(key): item for key, item in value.items()}
            shorts = {key: _plain(item) for key, item in items.items()}
            if None not in shorts.values():
                found[path] = _shortened(str(sorted(shorts.items())))
                return
            found[path] = f"{type(value).__name__} of {len(items)}"
            for key in sorted(items):
                below(f"[{key}]", items[key])
        elif isinstance(value, type):
            found[path] = _class_name(value)
            if _is_own(value.__module__):
                for name, item in sorted(vars(value).items()):
                    item = getattr(item, "__func__", getattr(item, "fget", item))
                    if isinstance(item, types.FunctionType):
                        below(f".{name}", item)
                    elif not name.startswith("__") and _plain(item) is not None:
                        below(f".{name}", item)
                for base in value.__bases__:
                    if _is_own(base.__module__):
                        below(f".{base.__name__}", base)
        elif isinstance(value, types.FunctionType):
            self._function(path, value, found, below)
        elif isinstance(value, types.MethodType):
            found[path] = f"method {value.__func__.__qualname__}"
            below(".self", value.__self__)
            below(".function", value.__func__)
        elif isinstance(value, functools.partial):
            found[path] = "partial"
            below(".function", value.func)
            below(".arguments", value.args)
            below(".keywords", value.keywords)
        elif isinstance(value, types.ModuleType):
            found[path] = f"module {value.__name__}"
        elif isinstance(value, torch.Generator):
            found[path] = f"generator of seed {value.initial_seed()}"
        else:
            self._object(path, value, found, below, weighed)

    @staticmethod
    def _sequence(path: str, value: Any, found: Identity, below: Any) -> None:
        shorts = [_plain(item) for item in value]
        unordered = isinstance(value, (set, frozenset))
        if None not in shorts:
            texts = [str(text) for text in shorts]
            found[path] = _shortened(
                f"({', '.join(sorted(texts) if unordered else texts)})"
            )
            return
        found[path] = f"{type(value).__name__} of {len(shorts)}"
        for k, item in enumerate(() if unordered else value):
            below(f"[{k}]", item)

    @staticmethod
    def _function(path: str, value: Any, found: Identity, below: Any) -> None:
        found[path] = f"function {value.__module__}.{value.__qualname__}"
        if _is_own(value.__module__):
            found[path] = f"function {value.__qualname__}, code {_code(value.__code__)}"
            for name in sorted(_names(value.__code__)):
                item = value.__globals__.get(name)
                if not isinstance(item, (types.ModuleType, type(None))):
                    below(f".{name}", item)
        if value.__defaults__:
            below(".defaults", value.__defaults__)
        if value.__kwdefaults__:
            below(".keywords", value.__kwdefaults__)
        names = value.__code__.co_freevars
        for name, cell in zip(names, value.__closure__ or (), strict=True):
            try:
                item = cell.cell_contents
            except ValueError:  # a variable that is not set yet
                continue
            below(f".{name}", item)

    def _object(
        self, path: str, value: Any, found: Identity, below: Any, weighed: bool
    ) -> None:
        kind = type(value)
        found[path] = _class_name(kind)
        if _is_own(kind.__module__):
            below(".class", kind)
        attributes = dict(getattr(value, "__dict__", None) or {})
        for base in kind.__mro__:
            slots = vars(base).get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                    attributes.setdefault(name, getattr(value, name))
        if isinstance(value, nn.Module):
            if not weighed and next(_tensors(value), None) is not None:
                found[f"{path}.weights"] = self._digest(value)
                weighed = True
            for name, part in value._modules.items():
                if part is not None:
                    below(f".{name}", part, weighed=weighed)
            left = _OF_MODULE
            if hasattr(value, "measure_pixel_scale"):  # measured anew, and moved about
                left |= {"pixel_scale", "_parts"}
            attributes = {
                name: item
                for name, item in attributes.items()
                if name not in left and "hook" not in name
            }
        for name in sorted(attributes):
            if isinstance(getattr(kind, name, None), functools.cached_property):
                continue  # which follows from the rest, and may be there or not
            below(f".{name}", attributes[name])

    def _digest(self, module: nn.Module) -> str:
        state = tuple((id(x), _version(x)) for x in _tensors(module))
        known = self._weights.get(module)
        if known is None or known[0] != state:
            known = state, f"sha256 {weights_digest(module)}"
            self._weights[module] = known
        return known[1]


def _tensors(module: nn.Module) -> Any:
    yield from module.parameters()
    yield from module.buffers()


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version


def _plain(value: Any) -> str | None:
    """Text of a value without parts; ``None`` if it has some."""
    if value is None or isinstance(value, Enum) or isinstance(value, _PLAIN):
        return _shortened(repr(value))
    if isinstance(value, torch.device):
        return "device"  # where it runs is not what it is
    if isinstance(value, (bytes, bytearray)):
        return f"bytes {hashlib.sha256(value).hexdigest()[:16]}"
    if isinstance(value, np.generic):
        return _shortened(repr(value.item()))
    if isinstance(value, Tensor):
        return tensor_digest(value)
    if isinstance(value, np.ndarray):
        data = repr(value.tolist()) if value.dtype.hasobject else value.tobytes()
        data = data.encode() if isinstance(data, str) else data
        digest = hashlib.sha256(data).hexdigest()[:16]
        return f"array {value.shape} {value.dtype} {digest}"
    if isinstance(value, (types.BuiltinFunctionType, np.ufunc)):
        return f"function {getattr(value, '__qualname__', value.__name__)}"
    return None


def tensor_digest(value: Tensor) -> str:
    r"""
    Shape, type and hash of a tensor.

    :param torch.Tensor value: the tensor.
    :return: (str) the text.
    """
    words = f"tensor {tuple(value.shape)} {value.dtype}"
    if value.layout is not torch.strided or value.is_meta:
        return words
    plain = value.detach().cpu().resolve_conj().resolve_neg().contiguous().view(-1)
    data = plain.view(torch.uint8).numpy().tobytes()
    return f"{words} {hashlib.sha256(data).hexdigest()[:16]}"


def _shortened(text: str) -> str:
    if len(text) <= _LONGEST:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
    return f"{text[: _LONGEST - 20]}… {digest[:16]}"


def _class_name(kind: type) -> str:
    top = kind.__module__.partition(".")[0]
    version = getattr(sys.modules.get(top), "__version__", None)
    if top == deepinv_lvtino.__name__ or not isinstance(version, str):
        return f"{kind.__module__}.{kind.__qualname__}"
    return f"{kind.__module__}.{kind.__qualname__} ({top} {version})"


@functools.cache
def _is_own(module: str) -> bool:
    """Whether a module is code of the user, not installed under a version."""
    top = module.partition(".")[0]
    if top in (deepinv_lvtino.__name__, "builtins", "deepinv", "torch", "numpy"):
        return False
    if top == "__main__":
        return True
    if top in sys.stdlib_module_names:
        return False
    try:
        file = getattr(sys.modules.get(module) or import_module(module), "__file__", "")
    except Exception:
        return True
    installed = {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")}
    parents = Path(file or "").resolve().parents
    return not any(place.resolve() in parents for place in installed)


def _code(code: types.CodeType) -> str:
    total = hashlib.sha256()

    def add(part: types.CodeType) -> None:
        names = part.co_names, part.co_varnames, part.co_freevars, part.co_cellvars
        total.update(part.co_code + repr(names).encode())
        for constant in part.co_consts:
            if isinstance(constant, types.CodeType):
                add(constant)
            elif isinstance(constant, frozenset):
                total.update(repr(sorted(map(repr, constant))).encode())
            else:
                total.update(repr(constant).encode("utf-8", "backslashreplace"))

    add(code)
    return total.hexdigest()[:16]


def _names(code: types.CodeType) -> set[str]:
    """Names that code refers to, that of functions within it too."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= _names(constant)
    return found


def changed_by_use(before: Identity, after: Identity) -> list[str]:
    r"""
    Values that a call has changed: state, not settings.

    :param dict before: description before the call.
    :param dict after: description after it.
    :return: (list[str]) their paths, without those below others.
    """
    paths = sorted(
        path for path in {*before, *after} if before.get(path) != after.get(path)
    )
    kept: list[str] = []
    for path in paths:
        if not _within(path, kept):
            kept.append(path)
    return kept


def settled(identity: Identity, state: list[str]) -> Identity:
    r"""
    A description as it is kept: without state, and what has many parts in one entry.

    :param dict identity: the description.
    :param list[str] state: paths of what is left out, with all below them.
    :return: (dict[str, str]) the description.
    """
    left = {path: text for path, text in identity.items() if not _within(path, state)}
    found = left
    for count in (3, 2, 1):
        found = _grouped(left, count)
        if len(found) <= _MANY:
            break
    return found


def _grouped(left: Identity, count: int) -> Identity:
    """Of paths that agree in their first parts, one entry where they are more than few."""
    groups: dict[str, list[str]] = {}
    for path in left:
        groups.setdefault(_first_parts(path, count), []).append(path)
    found: Identity = {}
    for group, paths in groups.items():
        apart = [p for p in paths if len(paths) <= _FEW or _named(p, group)]
        found |= {path: left[path] for path in apart}
        rest = [path for path in paths if path not in set(apart)]
        if rest:
            text = "\n".join(f"{path}\t{left[path]}" for path in sorted(rest))
            digest = hashlib.sha256(text.encode("utf-8", "backslashreplace"))
            found[f"{group} (more)"] = f"{len(rest)} settings {digest.hexdigest()[:16]}"
    return found


def _named(path: str, group: str) -> bool:
    return path == group or path.endswith(".weights")


def _first_parts(path: str, count: int) -> str:
    return ".".join(path.replace("[", ".[").split(".")[:count]).replace(".[", "[")


def _within(path: str, roots: list[str]) -> bool:
    return any(
        path == root or (path.startswith(root) and path[len(root)] in ".[")
        for root in roots
    )


def difference(kept: Mapping[str, str], now: Identity) -> str | None:
    r"""
    What differs between what produced a kept result and what would produce it now.

    :param dict kept: description of the kept result.
    :param dict now: that of now.
    :return: (str) the first differences in words, or ``None``.
    """
    paths = [path for path in {**now, **kept} if kept.get(path) != now.get(path)]
    if not paths:
        return None
    words = [
        f"{path} was {kept.get(path, 'not there')}, is {now.get(path, 'not there')}"
        for path in paths[:2]
    ]
    if len(paths) > 2:
        words.append(f"and {len(paths) - 2} more")
    return "; ".join(words)
