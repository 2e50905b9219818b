"""What README.md tells people to type works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deepinv_lvtino import cli

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"

pytestmark = pytest.mark.skipif(not README.is_file(), reason="needs the source tree")


def blocks(language: str) -> list[str]:
    """Fenced code blocks of one language."""
    text = README.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.M | re.S)


def commands() -> list[str]:
    joined = "".join(blocks("bash")).replace("\\\n", " ")
    lines = (line.split("  #")[0].strip() for line in joined.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def test_python_blocks_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sources = blocks("python")
    assert sources, "README.md has no Python example"
    namespace: dict[str, object] = {"__name__": "readme"}
    for number, source in enumerate(sources):
        exec(compile(source, f"README.md, block {number}", "exec"), namespace)
    assert capsys.readouterr().out.strip()


def test_shell_blocks_use_options_that_exist(capsys):
    ours = [line.split() for line in commands() if line.startswith("deepinv-lvtino ")]
    assert ours, "README.md shows no command"
    for _, command, *words in ours:
        with pytest.raises(SystemExit) as stop:
            cli.main([command, "--help"])
        assert stop.value.code == 0
        known = set(re.findall(r"(?<!\w)--?[a-z][a-z-]*", capsys.readouterr().out))
        assert {word for word in words if word.startswith("-")} <= known


def test_the_test_command_is_what_ci_runs():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    [command] = [line for line in commands() if "tox run -e py" in line]
    assert re.search(rf"^\s*{re.escape(command)}$", script, flags=re.M)
