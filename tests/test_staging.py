"""Outputs that appear together: stops, failures, links, and two runs at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from deepinv_lvtino import _staging
from deepinv_lvtino._signals import Interrupted, held_stops, stops_as_exceptions
from deepinv_lvtino._staging import PREFIX, Stage

pytestmark = pytest.mark.usefixtures("usual_signals")

NAMES = ("a.mp4", "frames", "a.json")


def fill(path: Path, text: str) -> None:
    """An output: a file, or a folder of one."""
    if path.suffix:
        path.write_text(text)
    else:
        path.mkdir()
        (path / "00000.png").write_text(text)


def content(folder: Path) -> list[str | None]:
    """What the outputs hold."""
    files = [folder / n if "." in n else folder / n / "00000.png" for n in NAMES]
    return [file.read_text() if file.exists() else None for file in files]


def hidden(folder: Path) -> list[Path]:
    return sorted(folder.glob(".*"))


def write_all(folder: Path, text: str, **options) -> Stage:
    with Stage([folder / name for name in NAMES], **options) as stage:
        for output in stage.outputs:
            fill(stage.path(output), text)
        stage.commit()
    return stage


def killed(folder: Path, before: int) -> None:
    """
    A run that is killed (really) right before a renaming, counted from 0.

    Those of the marker, of the first file, of the old folder, of the new folder, and of
    the last file.
    """
    code = f"""
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_staging import write_all
count = 0
def counted(original):
    def call(*arguments):
        global count
        if Path(arguments[0]).name not in ("claims.part", "lock"):
            if count == {before}:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1
        return original(*arguments)
    return call
os.rename, os.replace = counted(os.rename), counted(os.replace)
write_all(Path({str(folder)!r}), "new")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


class TestCommit:
    def test_new_outputs(self, tmp_path):
        stage = write_all(tmp_path / "made" / "here", "new")
        assert stage.committed
        assert content(tmp_path / "made" / "here") == ["new"] * 3
        assert not hidden(tmp_path / "made" / "here")

    def test_old_outputs_are_replaced(self, tmp_path):
        write_all(tmp_path, "old")
        write_all(tmp_path, "new")
        assert content(tmp_path) == ["new"] * 3
        assert not hidden(tmp_path)

    def test_nothing_appears_without_it(self, tmp_path):
        with Stage([tmp_path / "new" / "a.mp4"]) as stage:
            fill(stage.path(stage.outputs[0]), "new")
        assert not any(tmp_path.iterdir())

    def test_all_outputs_have_to_be_there(self, tmp_path):
        write_all(tmp_path, "old")
        with Stage([tmp_path / name for name in NAMES]) as stage:
            fill(stage.path(stage.outputs[0]), "new")
            with pytest.raises(RuntimeError, match="not written"):
                stage.commit()
        assert content(tmp_path) == ["old"] * 3

    @pytest.mark.parametrize("number", range(3))
    @pytest.mark.parametrize("links", [True, False])
    def test_a_move_that_fails_moves_the_others_back(
        self, tmp_path, monkeypatch, number, links
    ):
        write_all(tmp_path, "old")
        put, calls = _staging.put, []

        def fail(*arguments):
            calls.append(arguments)
            if len(calls) == number + 1:
                raise PermissionError(13, "Permission denied")
            put(*arguments)

        def no_links(*arguments):
            raise OSError(38, "Function not implemented")

        monkeypatch.setattr(_staging, "put", fail)
        if not links:
            monkeypatch.setattr(os, "link", no_links)
        with pytest.raises(PermissionError, match=f"{NAMES[number]} cannot be written"):
            write_all(tmp_path, "new")
        assert content(tmp_path) == ["old"] * 3
        assert not hidden(tmp_path)

    def test_what_appeared_meanwhile_is_asked_about_again(self, tmp_path):
        def allowed():
            if (tmp_path / "a.json").exists():
                msg = "a.json exists"
                raise FileExistsError(msg)

        with Stage([tmp_path / "a.json"], allowed=allowed) as stage:
            fill(stage.path(stage.outputs[0]), "new")
            (tmp_path / "a.json").write_text("precious")
            with pytest.raises(FileExistsError):
                stage.commit()
        assert (tmp_path / "a.json").read_text() == "precious"

    def test_folder_that_cannot_be_written(self, tmp_path, monkeypatch):
        def fail(*arguments, **options):
            raise OSError(30, "Read-only file system")

        monkeypatch.setattr(Path, "mkdir", fail)
        with pytest.raises(OSError, match="cannot be written into .Read-only"):
            write_all(tmp_path, "new")


class TestKilled:
    @pytest.mark.parametrize("before", range(5))
    def test_next_run_finishes_or_removes(self, tmp_path, before):
        write_all(tmp_path, "old")
        killed(tmp_path, before)
        assert hidden(tmp_path)
        lines = []
        with Stage([tmp_path / "other.mp4"], say=lines.append):
            pass
        # the marker is the border between old and new
        assert content(tmp_path) == (["old"] if before == 0 else ["new"]) * 3
        assert not hidden(tmp_path)
        assert len(lines) == (before > 0)
        assert all("a run that died" in line for line in lines)

    def test_what_has_changed_since_is_never_replaced(self, tmp_path):
        write_all(tmp_path, "old")
        killed(tmp_path, 1)
        (tmp_path / "a.json").unlink()
        (tmp_path / "a.json").write_text("precious")
        lines = []
        with Stage([tmp_path / "other.mp4"], say=lines.append):
            pass
        assert content(tmp_path) == ["new", "new", "precious"]
        (place,) = hidden(tmp_path)
        assert (place / "new" / "a.json").read_text() == "new"
        assert any(str(place) in line and "has changed" in line for line in lines)

    @pytest.mark.parametrize(
        "moves",
        [
            '[{"new": "../../x", "final": "thesis.txt"}]',
            '[{"new": "x", "final": "../thesis.txt", "before": null}]',
            '[{"new": "x", "final": "thesis.txt", "before": [0, 0]}]',
            '{"new": 1}',
            "[" * 100_000,
            "[1, null]",
        ],
    )
    def test_foreign_markers_move_nothing(self, tmp_path, moves):
        inner = tmp_path / "inner"
        place = inner / f"{PREFIX}0123456789ab"
        (place / "new").mkdir(parents=True)
        (place / "new" / "x").write_text("evil")
        (tmp_path / "x").write_text("evil")
        (place / "moves.json").write_text(moves)
        for folder in (tmp_path, inner):
            (folder / "thesis.txt").write_text("years of work")
        with Stage([inner / "a.mp4"]):
            pass
        for folder in (tmp_path, inner):
            assert (folder / "thesis.txt").read_text() == "years of work"

    def test_links_in_its_place_are_not_followed(self, tmp_path):
        (tmp_path / "else").mkdir()
        (tmp_path / "else" / "thesis.txt").write_text("years of work")
        (tmp_path / f"{PREFIX}0123456789ab").symlink_to(tmp_path / "else")
        with Stage([tmp_path / "a.mp4"]):
            pass
        assert (tmp_path / "else" / "thesis.txt").exists()


class TestTwoRuns:
    def test_the_second_is_refused(self, tmp_path):
        with Stage([tmp_path / "a.mp4", tmp_path / "a.json"]):
            # the same report, of another video
            with pytest.raises(BlockingIOError, match="a.json is being written by"):
                Stage([tmp_path / "a.mkv", tmp_path / "a.json"]).__enter__()
            with Stage([tmp_path / "b.mp4"]):  # others are free
                pass
        with Stage([tmp_path / "a.mp4"]):
            pass
        assert not any(tmp_path.iterdir())

    def test_through_a_link_too(self, tmp_path):
        (tmp_path / "link.mp4").symlink_to(tmp_path / "a.mp4")
        with (
            Stage([tmp_path / "a.mp4"]),
            pytest.raises(BlockingIOError, match="being written"),
        ):
            Stage([tmp_path / "link.mp4"]).__enter__()

    def test_file_system_without_locks(self, tmp_path, monkeypatch):
        def unable(self, *arguments, **options):
            raise NotImplementedError

        monkeypatch.setattr(_staging.FileLock, "acquire", unable)
        write_all(tmp_path, "new")
        assert content(tmp_path) == ["new"] * 3
        # nobody can tell whether it lives
        with (
            Stage([tmp_path / "a.mp4"]),
            pytest.raises(BlockingIOError, match=r"in \.deepinv-lvtino-"),
        ):
            Stage([tmp_path / "a.mp4"]).__enter__()


class TestLinks:
    def test_target_is_replaced_and_the_link_stays(self, tmp_path):
        real = tmp_path / "disk"
        write_all(real, "old")
        for name in NAMES[:2]:
            (tmp_path / name).symlink_to(real / name)
        write_all(tmp_path, "new")
        assert content(real) == ["new", "new", "old"]
        assert content(tmp_path) == ["new"] * 3
        assert all((tmp_path / name).is_symlink() for name in NAMES[:2])
        assert not hidden(tmp_path) + hidden(real)

    def test_link_to_what_does_not_exist_yet(self, tmp_path):
        (tmp_path / "a.mp4").symlink_to("later.mp4")
        write_all(tmp_path, "new")
        assert (tmp_path / "later.mp4").read_text() == "new"

    @pytest.mark.parametrize("target", ["a.mp4", "nowhere/a.mp4"])
    def test_links_that_lead_nowhere(self, tmp_path, target):
        (tmp_path / "a.mp4").symlink_to(target)
        with pytest.raises(OSError, match="leads nowhere"):
            write_all(tmp_path, "new")

    def test_two_links_to_one_file(self, tmp_path):
        (tmp_path / "b.mp4").symlink_to("a.mp4")
        with pytest.raises(ValueError, match="both links"):
            Stage([tmp_path / "a.mp4", tmp_path / "b.mp4"]).__enter__()

    def test_name_that_is_too_long(self, tmp_path):
        with pytest.raises(OSError, match="cannot be a name here"):
            Stage([tmp_path / f"{'a' * 300}.mp4"]).__enter__()


class TestSignals:
    @pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
    def test_stops_are_exceptions(self, name):
        signum = getattr(signal, name)
        before = signal.getsignal(signum)
        with pytest.raises(Interrupted) as stop, stops_as_exceptions():
            signal.raise_signal(signum)
        assert stop.value.signum == signum
        assert signal.getsignal(signum) == before

    def test_ignored_signals_stay_ignored(self):
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            with stops_as_exceptions(), held_stops():
                signal.raise_signal(signal.SIGHUP)
        finally:
            signal.signal(signal.SIGHUP, before)

    @pytest.mark.parametrize("number", range(3))
    def test_a_stop_waits_until_all_have_moved(self, tmp_path, monkeypatch, number):
        write_all(tmp_path, "old")
        put, calls = _staging.put, []

        def interrupt(*arguments):
            if len(calls) == number:
                # to the process, as a terminal does; another thread may take it
                os.kill(os.getpid(), signal.SIGINT)
            calls.append(arguments)
            put(*arguments)

        monkeypatch.setattr(_staging, "put", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_all(tmp_path, "new")
        assert content(tmp_path) == ["new"] * 3
        assert not hidden(tmp_path)

    def test_other_threads_write_too(self, tmp_path):
        thread = threading.Thread(target=write_all, args=(tmp_path, "new"))
        thread.start()
        thread.join()
        assert content(tmp_path) == ["new"] * 3


def test_claims_name_the_outputs(tmp_path):
    with Stage([tmp_path / "a.mp4", tmp_path / "a.json"]):
        (place,) = hidden(tmp_path)
        claims = json.loads((place / "claims.json").read_text())
    assert claims == ["a.mp4", "a.json"]
