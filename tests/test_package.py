"""The package as a whole: metadata, import, type marker, contents of the repository."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import deepinv_lvtino

ROOT = Path(__file__).resolve().parents[1]
SUBPACKAGES = (
    "physics",
    "models",
    "optim",
    "metrics",
    "datasets",
    "plotting",
    "benchmark",
)

in_checkout = pytest.mark.skipif(
    not (ROOT / "pyproject.toml").is_file(), reason="needs the source tree"
)


def run(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def repository_files() -> list[Path]:
    """Files under version control, or that would be, ignored ones left out."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs git and a checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip(f"git cannot list the files: {listed.stderr.decode().strip()}")
    names = [name for name in listed.stdout.decode().split("\0") if name]
    return [ROOT / name for name in names if (ROOT / name).is_file()]


# -- version and metadata --------------------------------------------------------------


def test_version_agrees_with_the_metadata():
    assert deepinv_lvtino.__version__ == importlib.metadata.version("deepinv-lvtino")


@in_checkout
def test_version_is_the_one_of_the_changelog_and_the_citation():
    version = re.escape(deepinv_lvtino.__version__)
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(rf"^## {version}\b", changelog, flags=re.MULTILINE)
    assert re.search(rf"^version: {version}$", citation, flags=re.MULTILINE)


def test_command_is_registered():
    scripts = importlib.metadata.entry_points(group="console_scripts")
    assert scripts["deepinv-lvtino"].value == "deepinv_lvtino.cli:main"
    assert callable(scripts["deepinv-lvtino"].load())


def test_type_marker_is_shipped():
    assert (Path(deepinv_lvtino.__file__).parent / "py.typed").is_file()


# -- import ----------------------------------------------------------------------------

HEAVY = ("diffusers", "transformers", "av", "matplotlib.pyplot")


def test_import_costs_nothing():
    report = run("import sys, deepinv_lvtino; print('torch' in sys.modules)")
    assert report.strip() == "False"


def test_import_loads_nothing_heavy():
    # what DeepInverse itself loads is not ours to decide
    code = f"""
import importlib, sys
import deepinv
before = set(sys.modules)
for name in {("", *(f".{name}" for name in SUBPACKAGES), ".cli")}:
    importlib.import_module("deepinv_lvtino" + name)
print(*[m for m in {HEAVY} if m in sys.modules and m not in before])
"""
    assert run(code).split() == []


def test_unknown_name_says_so():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        deepinv_lvtino.nothing  # noqa: B018


@pytest.mark.parametrize("name", ("", *SUBPACKAGES))
def test_public_names_exist(name):
    module = importlib.import_module(f"deepinv_lvtino.{name}".rstrip("."))
    assert list(module.__all__) == sorted(set(module.__all__), key=module.__all__.index)
    for public in module.__all__:
        assert getattr(module, public).__doc__ or public.isupper()
        assert public in dir(module)


# -- documentation ---------------------------------------------------------------------


@in_checkout
@pytest.mark.parametrize("name", SUBPACKAGES)
def test_public_names_are_on_the_api_page(name):
    page = (ROOT / "docs/source/api" / f"{name}.rst").read_text(encoding="utf-8")
    words = set(re.findall(r"\w+", page))
    missing = set(importlib.import_module(f"deepinv_lvtino.{name}").__all__) - words
    assert not missing


# -- repository ------------------------------------------------------------------------


@in_checkout
def test_no_file_is_large():
    sizes = {path.name: path.stat().st_size for path in repository_files()}
    assert {name: size for name, size in sizes.items() if size > 15e6} == {}


# a home, temporary or machine-wide folder, followed by a name
MACHINE_PATH = re.compile(
    r"(?<![\w.}/:-])/(?:home|root|Users|tmp|opt|mnt|work|workspace)/\w"
    r"|\b[A-Z]:\\Users"
)
# addresses of machines and of private networks
PRIVATE_HOST = re.compile(
    r"\b(?:10\.\d+|192\.168|172\.(?:1[6-9]|2\d|3[01]))\.\d+\.\d+\b|\bhttps?://[\w.-]+:\d+"
)


@in_checkout
@pytest.mark.parametrize("pattern", (MACHINE_PATH, PRIVATE_HOST), ids=("path", "host"))
def test_no_trace_of_a_machine(pattern):
    found = []
    for path in repository_files():
        if path == Path(__file__).resolve():
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [
            f"{path.relative_to(ROOT)}: {match.group()}"
            for match in pattern.finditer(text)
        ]
    assert found == []


@pytest.mark.parametrize(
    "text",
    ("open('/home/me/x')", "see /" + "tmp/out.mp4", "C:\\Users\\me", "(/opt/data)"),
)
def test_machine_paths_are_recognised(text):
    assert MACHINE_PATH.search(text)


@pytest.mark.parametrize("text", ("docs/home/x", "https://a.org/opt/data", "a/tmp/b"))
def test_other_paths_are_not(text):
    assert not MACHINE_PATH.search(text)


@in_checkout
def test_every_module_says_what_it_is():
    for path in sorted((ROOT / "deepinv_lvtino").rglob("*.py")):
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path
