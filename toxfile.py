"""
Tox plugin of this project: several environments, one virtual environment.

Tox notes in the virtual environment's folder, in ``.tox-info.json``, for which of its
environments the folder was made, and makes it anew when another one uses it. Here the
environments that share a folder have the same requirements, so the note is dropped,
and the folder is kept. Everything else that tox compares (the Python version, the
requirements, the installer's options) is compared as ever. Should a later tox write
its note elsewhere, nothing breaks: environments are then made anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from tox.plugin import impl

if TYPE_CHECKING:
    from tox.config.sets import ConfigSet
    from tox.session.state import State
    from tox.tox_env.api import ToxEnv

SHARED = "shared"


def forget_owner(env_dir: Path) -> None:
    """Drop the name of the environment that a shared folder was made for."""
    note = env_dir / ".tox-info.json"
    if env_dir.name != SHARED or not note.is_file():
        return
    content = json.loads(note.read_text(encoding="utf-8"))
    if isinstance(content, dict) and content.pop("ToxEnv", None) is not None:
        note.write_text(json.dumps(content, indent=2), encoding="utf-8")


@impl
def tox_add_core_config(core_conf: ConfigSet, state: State) -> None:
    """Drop what an interrupted run may have left."""
    forget_owner(core_conf["work_dir"] / SHARED)


@impl
def tox_before_run_commands(tox_env: ToxEnv) -> None:
    """Drop the name as soon as the environment is set up."""
    forget_owner(tox_env.env_dir)


@impl
def tox_env_teardown(tox_env: ToxEnv) -> None:
    """Drop the name too where no command was run (``--notest``)."""
    forget_owner(tox_env.env_dir)
