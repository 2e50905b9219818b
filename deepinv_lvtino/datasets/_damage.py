r"""What is wrong with a file, and what FFmpeg says about it while it reads."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DAMAGED = ("refuse", "accept")
COPY_AGAIN = "Is the file a complete video? Copy or encode it again"
_REMEDY = (
    "or take what is left (`damaged='accept'`, on the command line --damaged accept)"
)


def check_damaged(damaged: str) -> None:
    r"""
    Check the argument ``damaged``.

    :param str damaged: what to do with a damaged file.
    :raises ValueError: if it is not ``'refuse'`` or ``'accept'``.
    """
    if damaged not in DAMAGED:
        msg = (
            "`damaged` must be 'refuse', or 'accept' to take what is left; got "
            f"{damaged!r}."
        )
        raise ValueError(msg)


class Faults:
    r"""
    Faults of a file: the first one is an error, or all are noted.

    :param pathlib.Path path: the file or folder.
    :param bool accept: note faults rather than raise an error.
    :param str remedy: what to do about them.
    """

    def __init__(self, path: Path, accept: bool, remedy: str = COPY_AGAIN) -> None:
        self.path = path
        self.remedy = remedy
        self.accept = accept
        self.notes: list[str] = []

    def add(
        self, fault: str, frame: int | None = None, path: Path | None = None
    ) -> None:
        r"""
        Refuse the file, or note the fault.

        :param str fault: what is wrong, to follow the name of the file.
        :param int frame: the frame that it concerns.
        :param pathlib.Path path: the file that it concerns; the whole by default.
        :raises ValueError: if faults are not accepted.
        """
        of = "" if frame is None else f"frame {frame} of "
        note = f"{of}{path or self.path} {fault}"
        if not self.accept:
            msg = f"`path`: {note}. {self.remedy}, {_REMEDY}."
            raise ValueError(msg)
        if note not in self.notes:
            self.notes.append(note)


# warnings that mean that something is missing or was replaced; errors always do
_DAMAGE = re.compile(
    r"corrupt|conceal|truncat|incomplete|premature|missing|mismatch|partial|damage"
    r"|discontinu|continuity|overread|0 quant|invalid data|bad vlc|error",
    re.IGNORECASE,
)
# errors about what surrounds the pictures
_HARMLESS = re.compile(
    r"\bSEI\b|APP fields|chapter|UDTA|metadata|timecode|attached|Unsupported encoding"
)


class Log:
    r"""
    What FFmpeg says in one thread.

    The decoders have to work in this thread (``thread_count`` 1): messages from others
    cannot be attributed, and may wait for the interpreter that waits for them.
    """

    def __init__(self, lines: list[tuple[int, str, str]]) -> None:
        self._lines = lines
        self._done = 0

    def damage(self, *sources: str) -> str | None:
        r"""
        The first message since the last call that means damage.

        :param str sources: names of the decoder or the container that are asked about.
        :return: (str) the message, or None.
        """
        import av

        fresh = self._lines[self._done :]
        self._done = len(self._lines)
        for level, source, text in fresh:
            if source not in sources or _HARMLESS.search(text):
                continue
            if level <= av.logging.ERROR or (
                level <= av.logging.WARNING and _DAMAGE.search(text)
            ):
                return " ".join(text.split())
        return None

    def refused_size(self) -> tuple[int, int] | None:
        r"""
        Height and width of a picture that was larger than allowed.

        :return: (tuple[int, int]) the size, or None.
        """
        for _, _, text in self._lines:
            match = _SIZE.search(text)
            if match:
                return int(match[2]), int(match[1])
        return None


_SIZE = re.compile(r"Picture size (\d+)x(\d+) (?:is invalid|exceeds)")
_lock = threading.Lock()
_users = 0
_before: tuple[int | None, bool] = None, True


@contextmanager
def decoder_log() -> Iterator[Log]:
    r"""
    Collect what FFmpeg says in this thread; nothing of it is printed.

    :return: (Iterator[Log]) the messages.
    """
    import av

    global _users, _before
    with _lock:
        if _users == 0:
            _before = av.logging.get_level(), av.logging.get_skip_repeated()
        _users += 1
        if (_before[0] or 0) < av.logging.WARNING:
            av.logging.set_level(av.logging.WARNING)
        # a message that the last file ended with would be left out in the next one
        av.logging.set_skip_repeated(False)
    try:
        with av.logging.Capture() as lines:
            yield Log(lines)
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                av.logging.set_level(_before[0])
                av.logging.set_skip_repeated(_before[1])
