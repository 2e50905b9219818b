r"""
What the command line does with a folder of difficult files, as a table.

Every file (and folder of frames) is restored with one step; the table holds the exit code
and the last line that the command said. Usage::

    python benchmarks/cases.py FOLDER [--problem sr4]

``index.json`` in the folder, if there is one, says what is expected of each file, and the
problem in its command.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from embedded_models import RESULTS

_PROBLEM = re.compile(r"--problem (\S+)")
#: Seconds after which a restoration is stopped.
PATIENCE = 120
_SKIPPED = (".py", ".pt", ".json")


def run(path: Path, problem: str, folder: Path) -> tuple[int | None, str]:
    r"""Exit code (none if it takes too long), and what was said last."""
    command = [sys.executable, "-m", "deepinv_lvtino", "restore", str(path)]
    command += ["-o", str(folder / "out.mkv"), "--problem", problem, "--steps", "1"]
    try:
        done = subprocess.run(
            [*command, "--device", "cpu", "--overwrite"],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired as still:
        said = (still.stdout or b"").decode().strip().replace("\n", "; ")
        return None, f"still at work after {PATIENCE} s: {said}"
    errors = done.stderr.strip().splitlines()
    lines = [line for line in done.stdout.splitlines() if not line.startswith("memory")]
    said = errors[-1:] or [line for line in lines if "frames at" in line]
    notes = [line for line in lines if "copied from" in line or "accepted" in line]
    text = "; ".join([*notes, *said]).replace(str(path), path.name)
    return done.returncode, re.sub(r"\S*/new/", "", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().split("\n\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--problem", default="sr4")
    arguments = parser.parse_args()
    index = arguments.folder / "index.json"
    known = {}
    if index.exists():
        found = json.loads(index.read_text())
        found = found if isinstance(found, list) else found["cases"]
        known = {entry["file"]: entry for entry in found}
    rows = ["| file | expected | exit code | said |", "| --- | --- | --- | --- |"]
    for path in sorted(arguments.folder.iterdir()):
        if path.suffix in _SKIPPED:
            continue
        entry = known.get(path.name, {})
        named = _PROBLEM.search(entry.get("command", ""))
        problem = named[1] if named else arguments.problem
        inner = sorted(path.glob("*.mkv")) if path.is_dir() else []
        with tempfile.TemporaryDirectory() as scratch:
            code, said = run(inner[0] if inner else path, problem, Path(scratch))
        ended = "-" if code is None else code
        said = said.replace(str(arguments.folder) + "/", "").replace("|", "/")
        rows.append(
            f"| {path.name} | {entry.get('expected', '')} | {ended} | {said[:300]} |"
        )
        print(rows[-1], flush=True)
    (RESULTS / "cases-cpu.md").write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
