r"""The rooms of the package: who imports whom, and how large modules and calls are."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

import deepinv_lvtino

NAME = "deepinv_lvtino"
ROOT = Path(deepinv_lvtino.__file__).parent

MOST_LINES, MOST_PARAMETERS = 450, 12

#: Modules that need each other, still: to be taken apart, none to be added.
CIRCLES: list[set[str]] = []

#: Longer modules, and why.
LONG_MODULES = {
    # one mechanism: what is claimed, moved, moved back and recovered
    "_staging",
    # one class, whose settings say what a cell is
    "benchmark.run",
    # one class, with all that DeepInverse asks of a decomposable operator
    "physics.separable",
}

#: Functions with more parameters, and why.
LONG_CALLS = {
    # what a sampler is made of, each with a default; the settings of its schedule and of
    # its variation are objects of their own
    "optim.lvtino.LVTINO.__init__",
    # what a few-step model of diffusers may be, each with a default of its own
    "models.adapter.DiffusersConsistencyModel.__init__",
    # solvers, problems, clips, and what is the same for all, each with a default
    "benchmark.run.Benchmark.__init__",
    # the names of diffusers' own `from_pretrained` and of the Hub beside those of the model
    "models.sdxl.SDXLConsistencyModel.from_pretrained",
    "models.wan.WanConsistencyModel.from_pretrained",
}


def module_name(path: Path, root: Path, name: str) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join((name, *(part for part in parts if part != "__init__")))


def read(root: Path, name: str) -> dict[str, ast.Module]:
    r"""Every module of a package by its name, parsed."""
    return {
        module_name(path, root, name): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(root.rglob("*.py"))
    }


def is_type_checking(test: ast.expr) -> bool:
    return getattr(test, "id", getattr(test, "attr", None)) == "TYPE_CHECKING"


def imports(
    tree: ast.AST, for_types: bool
) -> Iterator[tuple[str, str | None, str | None]]:
    r"""
    Every import: the module, the name taken from it, and the name it has here.

    Those inside functions count; those for type checkers alone if ``for_types``.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, None, alias.asname
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name their module in full"
            for alias in node.names:
                yield str(node.module), alias.name, alias.asname or alias.name
        elif isinstance(node, ast.If) and is_type_checking(node.test) and not for_types:
            yield from imports(ast.Module(node.orelse, []), for_types)
        else:
            yield from imports(node, for_types)


def home(module: str, taken: str | None, modules: dict[str, ast.Module]) -> str | None:
    r"""
    The module that an import needs: where a package has the name from, not the package.
    """
    if taken is None:
        return module if module in modules else None
    if f"{module}.{taken}" in modules:
        return f"{module}.{taken}"
    if module not in modules:
        return None
    for source, name, here in imports(modules[module], for_types=True):
        if here == taken and name is not None and source.startswith(f"{module}."):
            return home(source, name, modules)
    return module


def import_graph(modules: dict[str, ast.Module]) -> dict[str, set[str]]:
    graph = {}
    for name, tree in modules.items():
        needed = {
            home(module, taken, modules)
            for module, taken, _ in imports(tree, for_types=False)
        }
        graph[name] = {other for other in needed if other is not None} - {name}
    return graph


def circles(graph: dict[str, set[str]]) -> list[frozenset[str]]:
    r"""The largest sets of modules each of which needs all others."""

    def reached(start: str) -> set[str]:
        found: set[str] = set()
        ahead = list(graph[start])
        while ahead:
            node = ahead.pop()
            if node not in found:
                found.add(node)
                ahead += graph[node]
        return found

    reach = {name: reached(name) for name in graph}
    found = {
        frozenset(other for other in reach[name] if name in reach[other])
        for name in graph
    }
    return sorted((circle for circle in found if circle), key=sorted)


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    r"""Names of the parameters of a function, without that of the object or the class."""
    given = function.args
    names = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


def functions(tree: ast.AST, prefix: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    r"""Every function of a module, by its name in full."""
    for node in ast.iter_child_nodes(tree):
        name = prefix
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            name = f"{prefix}.{node.name}"
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield name, node
        yield from functions(node, name)


@pytest.fixture(scope="module")
def modules() -> dict[str, ast.Module]:
    return read(ROOT, NAME)


def test_no_modules_need_each_other(modules):
    found = circles(import_graph(modules))
    assert [
        sorted(circle)
        for circle in found
        if not any(circle <= allowed for allowed in CIRCLES)
    ] == []


def test_modules_are_short(modules):
    lines = {
        name: len(path.read_text(encoding="utf-8").splitlines())
        for path in ROOT.rglob("*.py")
        for name in [module_name(path, ROOT, NAME).removeprefix(f"{NAME}.")]
    }
    assert len(lines) == len(modules)
    long = {name for name, count in lines.items() if count > MOST_LINES}
    assert sorted(long - LONG_MODULES) == []


def test_calls_are_short(modules):
    found = {
        name.removeprefix(f"{NAME}."): len(parameters(function))
        for module, tree in modules.items()
        for name, function in functions(tree, module)
    }
    long = {name for name, count in found.items() if count > MOST_PARAMETERS}
    assert sorted(long - LONG_CALLS) == []


# -- the tests themselves --------------------------------------------------------------

PACKAGE = {
    "__init__": "from rooms.a import f\nfrom rooms.parts import g",
    "a": "def f():\n    from rooms.b import h",  # inside of a function, and it counts
    "b": """
        from typing import TYPE_CHECKING

        from rooms import parts
        from rooms.parts import g

        if TYPE_CHECKING:
            from rooms.a import f
        else:
            import rooms.lonely
        """,
    "parts.__init__": "from rooms.parts.one import g\nfrom rooms.parts.two import k",
    "parts.one": "from rooms.parts import k",
    "parts.two": "import os, rooms.lonely",
    "lonely": "",
}


@pytest.fixture
def package(tmp_path):
    def write(**changes: str) -> dict[str, ast.Module]:
        for name, text in {**PACKAGE, **changes}.items():
            path = tmp_path.joinpath("rooms", *name.split(".")).with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(text), encoding="utf-8")
        return read(tmp_path / "rooms", "rooms")

    return write


def test_a_package_stands_for_the_module_that_has_the_name(package):
    assert import_graph(package()) == {
        "rooms": {"rooms.a", "rooms.parts.one"},
        "rooms.a": {"rooms.b"},
        "rooms.b": {"rooms.lonely", "rooms.parts", "rooms.parts.one"},
        "rooms.parts": {"rooms.parts.one", "rooms.parts.two"},
        "rooms.parts.one": {"rooms.parts.two"},
        "rooms.parts.two": {"rooms.lonely"},
        "rooms.lonely": set(),
    }
    assert circles(import_graph(package())) == []


@pytest.mark.parametrize(
    ("change", "circle"),
    [
        ({"b": "from rooms.a import f"}, ["rooms.a", "rooms.b"]),
        ({"b": "def x():\n    import rooms.a"}, ["rooms.a", "rooms.b"]),
        ({"b": "from rooms import f"}, ["rooms.a", "rooms.b"]),
        ({"b": "try:\n    import rooms.a\nexcept OSError:\n    pass"}, None),
        (
            {"lonely": "from rooms.parts import g"},
            ["rooms.lonely", "rooms.parts.one", "rooms.parts.two"],
        ),
        (
            {"parts.two": "import rooms.parts"},
            ["rooms.parts", "rooms.parts.one", "rooms.parts.two"],
        ),
    ],
)
def test_circles_are_found(package, change, circle):
    expected = ["rooms.a", "rooms.b"] if circle is None else circle
    assert [sorted(found) for found in circles(import_graph(package(**change)))] == [
        expected
    ]


def test_parameters_are_counted():
    tree = ast.parse(
        "def f(a, /, b, *args, c=1, **kw): ...\n"
        "class K:\n"
        "    def g(self, a):\n"
        "        def h(): ...\n"
        "    async def i(cls): ..."
    )
    found = {name: parameters(node) for name, node in functions(tree, "m")}
    assert found == {
        "m.f": ["a", "b", "c"],
        "m.K.g": ["a"],
        "m.K.g.h": [],
        "m.K.i": [],
    }
