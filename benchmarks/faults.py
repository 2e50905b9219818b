r"""
Stops and failures at ten moments of a command, and what is left of its outputs.

Every run replaces outputs that exist, and is hit at one moment: by a signal (KILL, TERM,
INT), by a disk that is full (a small file system of its own, filled at that moment), or
by a folder that turns read-only (files and folders made immutable). Then the same command
runs again, undisturbed. The outputs have to be all old or all new; in between only after
KILL (or where a disk that has turned read-only lets nothing be moved back, which is said),
and only until the next run, which has to know it.

Needs Linux and the rights to mount a file system: ``sudo python benchmarks/faults.py``.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from measure import provenance

from deepinv_lvtino import _staging

# loaded once, before the forks
from deepinv_lvtino.cli import _benchmark_arguments as _benchmark_arguments
from deepinv_lvtino.cli import _commands as _commands
from deepinv_lvtino.cli import main as command_line
from deepinv_lvtino.cli._report import digest
from deepinv_lvtino.datasets import procedural_clip, write_video

FAULTS = ("KILL", "TERM", "INT", "full disk", "read-only")  # and HUP
TABLES = ("benchmark.csv", "benchmark.md", "benchmark.json", "benchmark.png")
DISK = 24 * 2**20

# Where a run is hit: module, function, and which of its calls (from 1), before it begins.
# "move" is a move of an output itself; those within hidden folders are not counted.
Moment = tuple[str, str, int]
MOMENTS: dict[str, dict[str, Moment]] = {
    "restore": {
        "arguments read": ("deepinv_lvtino.cli._commands", "output_files", 1),
        "outputs claimed": ("deepinv_lvtino.cli._commands", "check_model", 1),
        "input being read": ("deepinv_lvtino.cli._commands", "clean_clip", 1),
        "rehearsed": ("deepinv_lvtino.cli._solve", "solver_for", 1),
        "solved": ("deepinv_lvtino.cli._solve", "score", 1),
        "picture being drawn": ("deepinv_lvtino.cli._solve", "_draw", 1),
        "report being written": ("deepinv_lvtino.cli._solve", "write_report", 1),
        "first move": ("deepinv_lvtino._staging", "move", 1),
        "within a move": ("pathlib.Path", "replace", 1),
        "last move": ("deepinv_lvtino._staging", "move", 5),
        "all moved": ("deepinv_lvtino._staging._Folder", "close", 1),
    },
    "degrade": {
        "arguments read": ("deepinv_lvtino.cli._commands", "output_path", 1),
        "outputs claimed": ("deepinv_lvtino.cli._commands", "get_problem", 1),
        "input being read": ("deepinv_lvtino.cli._commands", "clean_clip", 1),
        "input read": ("deepinv_lvtino.cli._commands", "simulate", 1),
        "degraded": ("deepinv_lvtino.cli._outputs.Outputs", "rehearse", 1),
        "video being written": ("deepinv_lvtino.cli._commands", "write_video", 1),
        "video written": ("deepinv_lvtino.cli._commands", "base_report", 1),
        "report being written": ("deepinv_lvtino.cli._commands", "write_report", 1),
        "first move": ("deepinv_lvtino._staging", "move", 1),
        "last move": ("deepinv_lvtino._staging", "move", 2),
        "all moved": ("deepinv_lvtino._staging._Folder", "close", 1),
    },
    "benchmark": {
        "arguments read": ("deepinv_lvtino.cli._benchmark", "choose_device", 1),
        "checked": ("deepinv_lvtino.benchmark.run.Benchmark", "run", 1),
        "outputs claimed": ("deepinv_lvtino.benchmark.run.Benchmark", "_compute", 1),
        "cell being computed": (
            "deepinv_lvtino.benchmark.run.Benchmark",
            "_restore",
            1,
        ),
        "cell computed": ("deepinv_lvtino.benchmark.run.Benchmark", "_finish", 1),
        "cell being written": ("deepinv_lvtino.benchmark.run", "write_cell", 1),
        "second cell computed": (
            "deepinv_lvtino.benchmark.run.Benchmark",
            "_finish",
            2,
        ),
        "cells done": ("deepinv_lvtino.benchmark.results.Results", "write_into", 1),
        "figure being drawn": ("deepinv_lvtino.benchmark.results", "draw_bars", 1),
        "first move": ("deepinv_lvtino._staging", "move", 1),
        "last move": ("deepinv_lvtino._staging", "move", 4),
    },
}


def commands(folder: Path, clip: Path, new: bool) -> dict[str, list[str]]:
    r"""The commands, of which the new one gives other results than the old one."""
    common = ["--device", "cpu", "--seed", "2" if new else "1"]
    restore = ["--simulate", "--samples", "2", "--steps", "1", "--overwrite", *common]
    restore += ["--eta", "0"]  # one of the networks, for speed
    degrade = ["--problem", "A", "--overwrite", *common]
    size = ["--size", "48x32", "--frames", "5", "--device", "cpu", "--save-videos"]
    problems = ["A", "B", "C"] if new else ["A"]
    bench = ["-o", str(folder), "--solvers", "pinv", "--problems", *problems, *size]
    bench += ["--scores", "psnr"]
    # frames in a folder: the move that takes two steps
    return {
        "restore": ["restore", str(clip), "-o", str(folder / "out"), *restore],
        "degrade": ["degrade", str(clip), "-o", str(folder / "out.mkv"), *degrade],
        "benchmark": ["benchmark", *bench],
    }


def outputs(command: str, folder: Path) -> dict[str, str]:
    r"""What is visible of the outputs that change as one, by name, as SHA-256."""
    names = {
        "restore": ("out", "out-mean", "out-std.png", "out-comparison.png", "out.json"),
        "degrade": ("out.mkv", "out.json"),
        "benchmark": TABLES,
    }[command]
    return {name: digest(folder / name) for name in names if (folder / name).exists()}


def cells(folder: Path) -> dict[str, str]:
    r"""Finished cells."""
    return {p.name: digest(p) for p in (folder / "cells").glob("[!.]*.json")}


def others(command: str, folder: Path) -> list[str]:
    r"""All that is neither an output nor the input."""
    expected = {"cells", "videos"} if command == "benchmark" else set()
    found = [p.name for p in folder.iterdir() if p.name not in expected]
    inner = [p.name for p in folder.rglob(f"{_staging.PREFIX}*") if p.parent != folder]
    return sorted({*found, *inner} - set(outputs(command, folder)))


def verdict(command: str, old: dict[str, str], folder: Path) -> str:
    r"""Whether the outputs are all old, all new, or something else."""
    found = outputs(command, folder)
    if found == old:
        return "old"
    if set(found) != set(old):
        return f"{len(old) - len(found)} missing"
    if any(found[name] == old[name] for name in old):
        return "mixed"
    if command == "benchmark":
        return "new"
    report = json.loads((folder / "out.json").read_text(encoding="utf-8"))
    video = "out" if command == "restore" else "out.mkv"
    return "new" if report["sha256"]["output"] == found[video] else "mixed"


@contextmanager
def _disk() -> Iterator[Path]:
    """A small file system of its own."""
    place = Path(tempfile.mkdtemp(prefix="faults-"))
    options = ["-t", "tmpfs", "-o", f"size={DISK}", "tmpfs"]
    subprocess.run(["mount", *options, str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
        place.rmdir()


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder on a disk whose files can be made immutable."""
    with tempfile.TemporaryDirectory(prefix="faults-") as place:
        try:
            yield Path(place)
        finally:
            _immutable(Path(place), False)


def _immutable(folder: Path, on: bool) -> None:
    flag = "+i" if on else "-i"
    subprocess.run(["chattr", "-R", "-f", flag, str(folder)], check=on)


def _fill(folder: Path) -> None:
    """Leave no byte free."""
    with (folder.parent / "filler").open("wb", buffering=0) as file:
        for size in (2**20, 4096, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue


def _strike(fault: str, folder: Path) -> None:
    if fault == "full disk":
        _fill(folder)
    elif fault == "read-only":
        _immutable(folder, True)
    else:
        os.kill(os.getpid(), getattr(signal, f"SIG{fault}"))
        time.sleep(0)  # the handler runs here


def _owner(name: str) -> Any:
    """A module, or a class of one."""
    try:
        return import_module(name)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        return getattr(import_module(module), attribute)


def _arm(moment: Moment, hit: Callable[[], None], folder: Path) -> None:
    """Have ``hit`` called before a call of a function."""
    owner, name, number = moment
    place = _owner(owner)
    attribute = "put" if name == "move" else name
    original = getattr(place, attribute)
    calls = 0

    def hooked(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        if _counts(name, arguments, folder):
            calls += 1
            if calls == number:
                hit()
        return original(*arguments, **options)

    setattr(place, attribute, hooked)


def _counts(name: str, arguments: tuple[Any, ...], folder: Path) -> bool:
    """Whether a call is one of those that the moment means."""
    if name in ("move", "replace"):  # of an output itself
        return Path(arguments[1]).parent == folder
    if name == "close":  # of the command's own hidden folder
        return bool(arguments[0].parent == folder)
    return True


def run(
    argv: list[str], log: Path, moment: Moment | None, fault: str, folder: Path
) -> int | str:
    r"""
    Run a command in a child, hit at a moment.

    :return: (int) its exit code; the name of the signal if one killed it.
    """
    child = os.fork()
    if child == 0:
        with log.open("ab", buffering=0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        code = 70
        try:
            if moment is not None:
                _arm(moment, lambda: _strike(fault, folder), folder)
            code = command_line(argv)
        except BaseException:  # a traceback is what this script looks for
            import traceback

            traceback.print_exc()
            code = 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return os.WEXITSTATUS(status)


def strike_once(
    command: str, name: str, fault: str, clip: Path, before: Path
) -> dict[str, Any]:
    r"""One line of the table; ``before`` holds the outputs of an earlier run."""
    log = Path(tempfile.mkstemp(prefix="faults-", suffix=".log")[1])
    with _disk() if fault == "full disk" else _folder() as place:
        folder = place / "work"
        shutil.copytree(before, folder)
        old, old_cells = outputs(command, folder), cells(folder)
        argv = commands(folder, clip, True)[command]
        code = run(argv, log, MOMENTS[command][name], fault, folder)
        (place / "filler").unlink(missing_ok=True)
        _immutable(place, False)
        said = log.read_text(encoding="utf-8")
        kept = re_kept(said)
        entry: dict[str, Any] = {
            "command": command,
            "moment": name,
            "fault": fault,
            "exit": code,
            "outputs": verdict(command, old, folder),
            "others": others(command, folder),
            "kept": kept,
            "says": said.strip().splitlines()[-1:] if said.strip() else [],
            "traceback": "Traceback" in said,
            "cells lost": len(set(old_cells.items()) - set(cells(folder).items())),
            "known": any(folder.glob(f"{_staging.PREFIX}*/moves.json")),
        }
        log.write_bytes(b"")
        entry["next exit"] = run(argv, log, None, "", folder)
        entry["next outputs"] = verdict(command, old, folder)
        entry["next others"] = others(command, folder)
    elsewhere = Path(tempfile.gettempdir())
    for path in map(Path, kept):
        if path.is_dir() and elsewhere in path.parents:
            shutil.rmtree(elsewhere / path.relative_to(elsewhere).parts[0])
    log.unlink()
    entry["failures"] = judge(entry)
    for key in ("says", "kept"):
        entry[key] = [
            line.replace(str(folder), "FOLDER").replace(str(elsewhere), "TEMPORARY")
            for line in entry[key]
        ]
    return entry


def table(lines: list[dict[str, Any]]) -> list[list[str]]:
    r"""A row per command and moment, a column per fault: the outputs after it."""
    faults = list(dict.fromkeys(entry["fault"] for entry in lines))
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for entry in lines:
        found = entry["outputs"]
        if found not in ("old", "new"):
            found = f"{found}, known, then {entry['next outputs']}"
        found += ", frames kept" if entry["kept"] else ""
        row = rows.setdefault((entry["command"], entry["moment"]), {})
        row[entry["fault"]] = "WRONG" if entry["failures"] else found
    head = ["command", "moment", *faults]
    return [head, *([*key, *map(row.get, faults)] for key, row in rows.items())]


def re_kept(said: str) -> list[str]:
    r"""Folders that a command names as what it kept."""
    import re

    return re.findall(r"is kept in (\S+?)\.?(?:\s|$)", said)


def judge(entry: dict[str, Any]) -> list[str]:
    r"""What is wrong with a line of the table."""
    failures = []
    killed = entry["fault"] == "KILL"
    said = " ".join(entry["says"])
    # a disk that turns read-only between two moves lets nothing be moved back either
    known = entry["known"] and (killed or "side by side" in said)
    names = {Path(path).name for path in entry["kept"]} | {"kept"}
    if entry["outputs"] not in ("old", "new") and not known:
        failures.append(f"outputs {entry['outputs']}")
    if not killed and set(entry["others"]) - names:
        # what is immutable cannot be removed: the next run does it
        if entry["fault"] != "read-only":
            failures.append(f"left behind: {entry['others']}")
    if set(entry["next others"]) - names:
        failures.append(f"left behind after the next run: {entry['next others']}")
    if entry["next exit"] != 0 or entry["next outputs"] != "new":
        failures.append(f"next run: {entry['next exit']}, {entry['next outputs']}")
    if entry["traceback"] or entry["cells lost"]:
        failures.append("traceback" if entry["traceback"] else "cells lost")
    expected = {"TERM": 143, "INT": 130, "HUP": 129, "KILL": "SIGKILL"}
    if entry["exit"] != expected.get(entry["fault"], entry["exit"]):
        failures.append(f"exit {entry['exit']}")
    if entry["exit"] in (1, 70):
        failures.append(f"exit {entry['exit']}")
    if entry["exit"] == 0 and entry["outputs"] != "new":
        failures.append("success without outputs")
    if "nothing written" in said and entry["outputs"] != "old":
        failures.append("says that nothing was written")
    return failures


def main() -> None:
    r"""Measure, print, and file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commands", nargs="+", default=list(MOMENTS))
    parser.add_argument("--faults", nargs="+", default=list(FAULTS))
    parser.add_argument("--moments", nargs="+", help="names; default: all")
    parser.add_argument("--output", type=Path, help="JSON file; a CSV beside it")
    options = parser.parse_args()
    torch.set_num_threads(1)
    mpl.use("agg")
    import_module("matplotlib.pyplot")
    lines = []
    with tempfile.TemporaryDirectory(prefix="faults-") as place:
        clip = Path(place) / "clip.mkv"
        write_video(clip, procedural_clip(5, 32, 48), 25, lossless=True)
        for command in options.commands:
            before = Path(place) / command
            log = Path(place) / "log"
            if run(commands(before, clip, False)[command], log, None, "", before):
                raise RuntimeError(log.read_text(encoding="utf-8"))
            for moment in options.moments or MOMENTS[command]:
                for fault in options.faults:
                    entry = strike_once(command, moment, fault, clip, before)
                    lines.append(entry)
                    print(
                        f"{command:<10}{moment:<22}{fault:<11}{entry['exit']!s:<9}"
                        f"{entry['outputs']:<10}{len(entry['others'])} left "
                        f"{len(entry['kept'])} kept -> {entry['next outputs']}, "
                        f"{len(entry['next others'])} left "
                        f"{'; '.join(entry['failures'])}",
                        flush=True,
                    )
    wrong = sum(bool(entry["failures"]) for entry in lines)
    print(f"{len(lines)} runs, {wrong} wrong")
    if options.output:
        content = {**provenance(torch.device("cpu")), "wrong": wrong, "runs": lines}
        text = json.dumps(content, indent=1, ensure_ascii=False)
        options.output.write_text(text + "\n", encoding="utf-8")
        place = options.output.with_suffix(".csv")
        with place.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(table(lines))


if __name__ == "__main__":
    main()
