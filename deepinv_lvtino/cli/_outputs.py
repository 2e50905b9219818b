r"""Outputs: checked before any computing, complete and together when they appear."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from deepinv_lvtino._signals import Interrupted
from deepinv_lvtino._staging import Stage
from deepinv_lvtino.cli._errors import UserError, user_errors
from deepinv_lvtino.datasets import Companions, check_output, read_video, write_video

# Least size of what is written, in bytes per byte of 8-bit video: refuses what cannot fit,
# not what may be tight.
_LEAST_LOSSY, _LEAST_LOSSLESS = 1 / 200, 1 / 20


def beside(path: Path, ending: str) -> Path:
    """``clip.mp4`` and ``-mean.mp4`` to ``clip-mean.mp4``; suffix-less names too."""
    stem = path.stem if path.suffix else path.name
    return path.with_name(stem + ending)


def output_path(text: str) -> Path:
    """The path of ``--output``, which has to be a name of its own."""
    path = Path(text)
    if path.name in ("", "..") or "\0" in text:
        msg = (
            f"--output must name a file or a folder to be made; got {text!r}. Add a name, "
            "such as out.mp4."
        )
        raise UserError(msg)
    return path


def output_folder(text: str) -> Path:
    """The folder of ``--output``, made where it is missing."""
    path = Path(text)
    if "\0" in text or path.resolve() == Path(path.resolve().anchor):
        msg = f"--output must be a folder to write into; got {text!r}. Name one."
        raise UserError(msg)
    return path


def check_outputs(paths: Sequence[Path], overwrite: bool, source: Path | None) -> None:
    """Refuse to write where it is not allowed, or over the input."""
    for path in paths:
        if source is not None and path.resolve() == source.resolve():
            msg = f"{path} is the input; choose another output."
            raise UserError(msg)
        if path.suffix in (".json", ".png"):
            if path.exists() and not path.is_file():
                kind = "a folder" if path.is_dir() else "no ordinary file"
                msg = f"{path} is to be written, but is {kind}. Choose another output."
                raise UserError(msg)
            if path.exists() and not overwrite:
                msg = f"{path} exists. Choose another output, or give --overwrite."
                raise UserError(msg)
        else:
            with user_errors():
                check_output(path, overwrite=overwrite)


@dataclass
class Outputs:
    r"""
    The outputs of a command, on their way.

    :param Stage stage: where they are written.
    :param dict computed: videos ``(3, T, H, W)`` and other tensors by name, which took
        long to compute: kept if writing them fails.
    :param bool finished: whether all is computed, so that also a stop keeps it.
    :param pathlib.Path resumable: folder of finished windows, from which the same command
        goes on.
    :param list afterwards: what is to be done when all outputs have their names.
    """

    stage: Stage
    computed: dict[str, Tensor] = field(default_factory=dict)
    finished: bool = False
    resumable: Path | None = None
    afterwards: list[Callable[[], None]] = field(default_factory=list)

    @property
    def going_on(self) -> str:
        """What is said of finished windows, if there are some."""
        if self.resumable is None or not any(self.resumable.glob("state-*")):
            return ""
        return (
            f"finished windows are kept in {self.resumable}: the same command goes on "
            "there"
        )

    @property
    def folder(self) -> Path:
        """A folder for files on the way, removed in the end."""
        return self.stage.path(self.stage.outputs[0]).parent

    def path(self, output: Path) -> Path:
        """Where an output is to be written."""
        return self.stage.path(output)

    def rehearse(
        self,
        output: Path,
        size: tuple[int, int, int],
        fps: Fraction,
        *,
        copies: int = 1,
        lossless: bool = False,
        bits: int = 8,
        companions: Companions | None = None,
    ) -> None:
        r"""
        Write two black frames as the output, and read them, before a long computation.

        :param pathlib.Path output: the video, a file or a folder.
        :param tuple[int, int, int] size: ``(T, H, W)``.
        :param fractions.Fraction fps: its frame rate.
        :param int copies: videos of this size that are to be written.
        :param bool lossless: whether it will be stored without loss.
        :param int bits: bits of a value.
        :param Companions companions: what is to be copied beside it.
        :raises UserError: if its size, frame rate or name cannot be written, or the disk is
            full.
        """
        frames, height, width = size
        path = self.path(output)
        folder = not output.suffix
        share = _LEAST_LOSSLESS if lossless or folder else _LEAST_LOSSY
        need = round(copies * 3 * frames * height * width * share)
        free = shutil.disk_usage(path.parent).free
        if need > free:
            msg = (
                f"{output} will need {need / 1e6:.0f} MB or more, and {free / 1e6:.0f} MB "
                "are free there. Make room, or choose another output."
            )
            raise UserError(msg)
        black = torch.zeros(1).expand(3, min(2, frames), height, width)
        with user_errors():
            write_video(
                path, black, fps, lossless=lossless, bits=bits, companions=companions
            )
            found = read_video(path, fps=fps if folder else None)
        if found.fps != fps:
            msg = (
                f"{output} cannot have the frame rate {float(fps):.6g} Hz: it would be "
                f"played at {float(found.fps):.6g} Hz. Choose another kind of file, or a "
                "folder of frames."
            )
            raise UserError(msg)
        if folder:
            shutil.rmtree(path)
        else:
            path.unlink()


@contextmanager
def writing(
    files: Sequence[Path], overwrite: bool, source: Path | None
) -> Iterator[Outputs]:
    r"""
    Around a command that writes files: they appear together, or not at all.

    :param Sequence[pathlib.Path] files: all of them, in the order of the moves: the video
        that the others depend on first, the report last.
    :param bool overwrite: whether they may be replaced.
    :param pathlib.Path source: the input, which may not.
    """
    stage = Stage(
        files,
        allowed=partial(check_outputs, files, overwrite, source),
        say=lambda line: print(line, flush=True),
    )
    outputs = Outputs(stage)
    try:
        with ExitStack() as stack:
            with user_errors():
                stack.enter_context(stage)
            try:
                yield outputs
                with user_errors():
                    stage.commit()
                for action in outputs.afterwards:
                    action()
            except Exception as error:
                place = keep(outputs, files[0])
                going_on = "" if stage.committed else outputs.going_on
                if place is None and not going_on:
                    raise
                kept = f"What was computed is kept in {place}."
                if going_on:
                    kept = f"{going_on[0].upper()}{going_on[1:]}."
                if isinstance(error, UserError):
                    msg = f"{str(error).removesuffix('.')}. {kept}"
                    raise UserError(msg) from error
                print(f"deepinv-lvtino: {kept}", file=sys.stderr)
                raise
            except KeyboardInterrupt as stop:
                place = keep(outputs, files[0]) if outputs.finished else None
                going_on = outputs.going_on
                if (place is None and not going_on) or stage.committed:
                    raise
                state = going_on or f"what was computed is kept in {place}"
                raise Interrupted.of(stop, state) from stop
    except KeyboardInterrupt as stop:
        state = getattr(stop, "state", "")
        if stage.committed:
            state = f"after {', '.join(map(str, files))} were written"
        raise Interrupted.of(stop, state or "nothing written") from stop


def keep(outputs: Outputs, output: Path) -> Path | None:
    r"""
    Keep what was computed, as it cannot be written as it should.

    Complete outputs are kept as they are, else the frames as PNG, and other tensors for
    :func:`numpy.load`; beside the output, or where that fails in the folder for temporary
    files.

    :param Outputs outputs: what was computed.
    :param pathlib.Path output: the first output.
    :return: (pathlib.Path) the folder, or ``None`` if there is nothing to be kept.
    """
    if not outputs.computed or outputs.stage.committed:
        return None
    complete = outputs.stage.complete
    reasons = []
    for parent in (output.parent, Path(tempfile.gettempdir())):
        place = None
        try:
            place = _new_folder(parent, beside(output, "-kept").name)
            if complete:
                for path in outputs.stage.outputs:
                    _move(outputs.path(path), place / path.name)
            else:
                for name, tensor in outputs.computed.items():
                    _keep_tensor(place / name, tensor)
        except OSError as error:
            reasons.append(f"{parent}: {error}")
            # what has been moved there already is the only one
            if place is not None and not complete:
                shutil.rmtree(place, ignore_errors=True)
        else:
            return place.resolve()
    print(
        f"deepinv-lvtino: nothing could be kept ({'; '.join(reasons)})", file=sys.stderr
    )
    return None


def _move(path: Path, place: Path) -> None:
    """Move, or copy where that is not possible (the rest goes with the hidden folder)."""
    try:
        path.rename(place)
    except OSError:
        if path.is_dir():
            shutil.copytree(path, place)
        else:
            shutil.copyfile(path, place)


def _keep_tensor(path: Path, tensor: Tensor) -> None:
    if path.name == "deviation":  # not a picture: most of it would be rounded to black
        np.save(path.with_suffix(".npy"), tensor.cpu().numpy())
    else:
        write_video(path, tensor.float().nan_to_num())


def _new_folder(parent: Path, name: str) -> Path:
    number = 1
    while True:
        path = parent / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
        else:
            return path
