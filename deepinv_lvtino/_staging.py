r"""
Outputs that appear together, complete, or not at all.

A run works in a hidden folder beside its outputs, ``.deepinv-lvtino-<random>``:

- ``lock``, locked as long as the run lives, so that the folder of a dead one is known;
- ``claims.json``, the outputs that it will write, so that a second run is refused;
- ``new``, the files on the way;
- ``moves.json``, written when all of them are complete, before the first one moves;
- ``old``, what had their names before, kept until the last one has moved.

Who finds the folder of a dead run finishes its moves if ``moves.json`` is there, and else
removes it.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from deepinv_lvtino._signals import held_stops

PREFIX = ".deepinv-lvtino-"
_TRIES = 8


def _nothing() -> None:
    pass


class Stage:
    r"""
    Outputs of one run, as a context: claimed on entry, moved by :meth:`commit`.

    What is not committed is removed on exit. A link is followed: what it points to is
    replaced, the link stays. Outputs in several folders (through links) change places one
    folder after the other, the last output's last.

    :param Sequence[pathlib.Path] outputs: files and folders, in the order of the moves.
    :param Callable allowed: raises where one may not be written or replaced; called when
        they are claimed, and again before they move.
    :param Callable say: called with a line about what a dead run left.
    :raises BlockingIOError: on entry, if another run is writing one of them.
    :raises OSError: on entry, if the folder cannot be written or a link leads nowhere.
    """

    def __init__(
        self,
        outputs: Sequence[Path],
        *,
        allowed: Callable[[], None] = _nothing,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.outputs = [Path(output) for output in outputs]
        self.committed = False
        self._allowed, self._say = allowed, say
        self._finals: dict[Path, Path] = {}
        self._folders: dict[Path, _Folder] = {}
        self._made: list[Path] = []

    def __enter__(self) -> Stage:
        try:
            self._finals = {output: follow(output) for output in self.outputs}
            claims: dict[Path, list[str]] = {}
            for final in self._finals.values():
                claims.setdefault(final.parent, []).append(final.name)
            _check_distinct(self._finals)
            # the folder of the last output moves last
            last = self._finals[self.outputs[-1]].parent
            for parent in sorted(claims, key=lambda p: p == last):
                self._make(parent)
                self._folders[parent] = _Folder(parent, claims[parent], self._say)
            self._allowed()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._remove()

    def path(self, output: Path) -> Path:
        r"""
        Where an output is to be written.

        :param pathlib.Path output: one of the outputs.
        :return: (pathlib.Path) absolute, of the same name, in the hidden folder.
        """
        return self._folders[self._finals[output].parent].new / output.name

    @property
    def complete(self) -> bool:
        """Whether every output is there and waits to be moved."""
        return all(os.path.lexists(self.path(output)) for output in self.outputs)

    def commit(self) -> None:
        r"""
        Give all outputs their names; signals wait until it is done.

        :raises OSError: if one cannot be moved; those before it are moved back.
        :raises RuntimeError: if one was not written.
        """
        if not self.complete:
            msg = "an output was not written; none is moved."
            raise RuntimeError(msg)
        self._allowed()
        groups: dict[Path, list[tuple[str, str]]] = {p: [] for p in self._folders}
        for output, final in self._finals.items():
            groups[final.parent].append((output.name, final.name))
        with held_stops():
            done: list[_Folder] = []
            try:
                for parent, folder in self._folders.items():
                    done.append(folder)
                    folder.move(groups[parent])
            except OSError as error:
                _move_back(done, error)
                raise
            self.committed = True

    def _make(self, parent: Path) -> None:
        """Make missing folders, and remember which."""
        missing = [p for p in (parent, *parent.parents) if not p.exists()]
        for path in reversed(missing):
            path.mkdir(exist_ok=True)
            self._made.append(path)

    def _remove(self) -> None:
        with held_stops():
            for folder in self._folders.values():
                folder.close()
            if not self.committed:
                for path in reversed(self._made):
                    try:
                        path.rmdir()
                    except OSError:  # somebody has put something there
                        break


def _move_back(folders: Sequence[_Folder], error: OSError) -> None:
    try:
        for folder in reversed(folders):
            folder.move_back()
    except OSError as second:
        msg = (
            f"{error}; some outputs have changed places before, and cannot change back "
            f"({second.strerror}): old and new ones stand side by side. The next run that "
            "writes into the folder puts the new ones in place."
        )
        raise OSError(msg) from second


class _Folder:
    """The hidden folder of one run beside its outputs, locked."""

    def __init__(
        self, parent: Path, names: Sequence[str], say: Callable[[str], None]
    ) -> None:
        self.parent = parent
        self._moved: list[tuple[str, str]] = []
        for _ in range(_TRIES):
            self.path = parent / f"{PREFIX}{uuid.uuid4().hex[:12]}"
            self._lock = FileLock(self.path / "lock", timeout=0)
            try:
                self.path.mkdir(mode=0o700)
                _lock(self._lock)
                _write(self.path / "claims.json", list(names))
                self.new.mkdir()
                self._old.mkdir()
                break
            except (Timeout, FileNotFoundError):
                # taken for that of a dead run before it was locked
                shutil.rmtree(self.path, ignore_errors=True)
            except OSError as error:
                self.close()
                msg = (
                    f"`path`: the folder {parent} cannot be written into "
                    f"({error.strerror}). Choose another one."
                )
                raise type(error)(msg) from error
            except BaseException:
                self.close()
                raise
        else:
            msg = f"{parent} changes too quickly to be written into. Try again."
            raise OSError(msg)
        try:
            self._look_around(set(names), say)
        except BaseException:
            self.close()
            raise

    @property
    def new(self) -> Path:
        """Where outputs are made."""
        return self.path / "new"

    @property
    def _old(self) -> Path:
        return self.path / "old"

    @property
    def _marker(self) -> Path:
        return self.path / "moves.json"

    def _look_around(self, names: set[str], say: Callable[[str], None]) -> None:
        """Finish or remove what dead runs left; refuse what another one is writing."""
        for other in sorted(self.parent.glob(f"{PREFIX}*")):
            if other == self.path or not _is_ours(other):
                continue
            lock = FileLock(other / "lock", timeout=0)
            try:
                _lock(lock, own=False)
            except Timeout:
                taken = sorted(names & set(_strings(other / "claims.json")))
                if taken:
                    msg = (
                        f"`path`: {self.parent / taken[0]} is being written by another "
                        f"run, in {other.name}. Wait for it, or choose another name."
                    )
                    raise BlockingIOError(msg) from None
                continue
            except OSError:  # gone meanwhile, or closed to us
                continue
            with held_stops():
                recover(other, say)
                lock.release()
                if other.is_dir() and not (other / "moves.json").exists():
                    shutil.rmtree(other, ignore_errors=True)

    def move(self, names: Sequence[tuple[str, str]]) -> None:
        """From ``new`` to the final names; what had them goes to ``old``."""
        final = names[0][1]
        try:
            moves = [
                {"new": new, "final": final, "before": _identity(self.parent / final)}
                for new, final in names
            ]
            _write(self._marker, moves)
            for new, final in names:
                self._moved.append((new, final))
                put(self.new / new, self.parent / final, self._old / final)
        except OSError as error:
            msg = (
                f"`path`: {self.parent / final} cannot be written ({error.strerror}). "
                "Choose another name."
            )
            raise type(error)(msg) from error

    def move_back(self) -> None:
        """Undo the moves, the last one first."""
        for new, final in reversed(self._moved):
            place, old = self.parent / final, self._old / final
            if not os.path.lexists(self.new / new) and os.path.lexists(place):
                place.rename(self.new / new)
            if os.path.lexists(old):
                if os.path.lexists(place):  # it never left; this is its second name
                    old.unlink()
                else:
                    old.rename(place)
        self._moved.clear()
        self._marker.unlink(missing_ok=True)

    def close(self) -> None:
        """Remove it, unless moves wait to be finished."""
        if self._marker.exists() and any(
            os.path.lexists(self.new / new) for new, _ in self._moved
        ):
            self._lock.release()
            return
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.release()
        if self.path.is_dir():  # where open files cannot be removed
            shutil.rmtree(self.path, ignore_errors=True)


def put(new: Path, final: Path, old: Path) -> None:
    r"""
    Give a complete file or folder its final name; what had it becomes ``old``.

    A file keeps its name until the new one takes it, where the file system has hard links.

    :param pathlib.Path new: the new one, on the same file system.
    :param pathlib.Path final: the name.
    :param pathlib.Path old: unused name, for what has it now.
    """
    if os.path.lexists(final):
        if final.is_dir():
            final.rename(old)
        else:
            try:
                os.link(final, old)
            except OSError:  # no hard links here
                final.rename(old)
    new.replace(final)


def recover(folder: Path, say: Callable[[str], None]) -> None:
    r"""
    Finish the moves of a dead run, if it had begun them.

    What has changed since then is never replaced: the folder stays, and is named.

    :param pathlib.Path folder: its hidden folder.
    :param Callable say: called with a line about it.
    """
    finished, changed = [], []
    for new, final, before in _moves(folder / "moves.json"):
        source, target = folder / "new" / new, folder.parent / final
        if not os.path.lexists(source):
            continue
        found = _identity(target)
        if found is not None and found != before:
            changed.append(target)
            continue
        old = folder / "old" / final
        if os.path.lexists(old) and os.path.lexists(target):
            old.unlink()  # a second name of the same file
        put(source, target, old)
        finished.append(final)
    if finished:
        say(
            f"note: a run that died while moving its outputs had finished "
            f"{', '.join(finished)}; in place now"
        )
    if changed:
        say(
            f"note: {changed[0]} has changed since a run died that was to replace it; "
            f"its result stays in {folder / 'new'}. Take it from there, and remove the "
            "folder."
        )
    else:
        (folder / "moves.json").unlink(missing_ok=True)


def follow(path: Path) -> Path:
    r"""
    What a name stands for, links followed.

    :param pathlib.Path path: a name; what it stands for need not exist.
    :return: (pathlib.Path) absolute, without links.
    :raises OSError: if it is a link that leads nowhere, or too long to be a name.
    """
    try:
        link = _is_link(path)
    except OSError as error:
        msg = f"`path`: {path} cannot be a name here ({error.strerror})."
        raise OSError(msg) from error
    real = Path(os.path.realpath(path))
    if link and (real.is_symlink() or not real.parent.is_dir()):
        msg = (
            f"`path`: {path} is a link to {os.readlink(path)}, which leads nowhere. "
            "Remove it, or choose another name."
        )
        raise FileNotFoundError(msg)
    return real


def _check_distinct(finals: dict[Path, Path]) -> None:
    known: dict[Path, Path] = {}
    for output, final in finals.items():
        other = known.setdefault(final, output)
        if other is not output:
            msg = (
                f"`path`: {other} and {output} are both links to {final}. Choose another "
                "name."
            )
            raise ValueError(msg)


def _is_link(path: Path) -> bool:
    """Whether it is a link; an error other than that it does not exist is raised."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return path.is_symlink()


def _lock(lock: FileLock, own: bool = True) -> None:
    """Lock, where the file system can; one that cannot has no dead runs to be known."""
    try:
        lock.acquire()
    except (NotImplementedError, OSError) as error:
        number = getattr(error, "errno", errno.ENOSYS)
        if number not in (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP):
            raise
        if not own:
            raise Timeout(str(lock.lock_file)) from error


def _is_ours(folder: Path) -> bool:
    """A real folder of this user: nobody else's word moves files."""
    try:
        if folder.is_symlink() or not folder.is_dir():
            return False
        return os.name == "nt" or folder.stat().st_uid == os.geteuid()
    except OSError:
        return False


def _identity(path: Path) -> list[int] | None:
    """Which file has a name, if any."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    return [found.st_ino, found.st_mtime_ns]


def _write(path: Path, content: Any) -> None:
    """JSON that appears complete."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content), encoding="utf-8")
    part.replace(path)


def _strings(path: Path) -> list[str]:
    content = _read(path)
    return [name for name in content if isinstance(name, str)]


def _moves(path: Path) -> list[tuple[str, str, Any]]:
    """Moves of a marker: plain names, within its folder."""
    return [
        (entry["new"], entry["final"], entry.get("before"))
        for entry in _read(path)
        if isinstance(entry, dict)
        and all(_is_plain(entry.get(key)) for key in ("new", "final"))
    ]


def _read(path: Path) -> list[Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    return content if isinstance(content, list) else []


def _is_plain(name: Any) -> bool:
    return (
        isinstance(name, str)
        and name not in ("", ".", "..")
        and (os.path.basename(name) == name)
    )
