r"""Outputs: checked before any computing, complete when they appear."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from deepinv_lvtino.cli._errors import UserError, user_errors
from deepinv_lvtino.datasets import check_output
from deepinv_lvtino.datasets.video import replace_output


def beside(path: Path, ending: str) -> Path:
    """``clip.mp4`` and ``-mean.mp4`` to ``clip-mean.mp4``; suffix-less names too."""
    stem = path.stem if path.suffix else path.name
    return path.with_name(stem + ending)


def check_outputs(paths: Sequence[Path], overwrite: bool, source: Path | None) -> None:
    """Refuse to write where it is not allowed, or over the input."""
    for path in paths:
        if source is not None and path.resolve() == source.resolve():
            msg = f"{path} is the input; choose another output."
            raise UserError(msg)
        if path.suffix in (".json", ".png"):
            if path.is_dir():
                msg = (
                    f"{path} is to be written, but is a folder. Choose another output."
                )
                raise UserError(msg)
            if path.exists() and not overwrite:
                msg = f"{path} exists. Choose another output, or give --overwrite."
                raise UserError(msg)
        else:
            with user_errors():
                check_output(path, overwrite=overwrite)


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A temporary folder whose files move to ``folder`` if nothing went wrong."""
    with user_errors():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".deepinv-lvtino-", dir=folder))
    try:
        yield temporary
        with user_errors():
            for path in sorted(temporary.iterdir()):
                replace_output(path, folder / path.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
