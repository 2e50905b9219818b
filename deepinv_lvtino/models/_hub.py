r"""Files and folders of weights: on this machine, or from the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

from deepinv_lvtino.models._lora import is_lora
from deepinv_lvtino.models._weight_files import Source, read_file

_FILES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
_LORA_FILE = "pytorch_lora_weights.safetensors"


def need(name: str) -> ModuleType:
    r"""
    Import a library of the extra ``diffusers``.

    :param str name: module.
    :return: (module) the module.
    :raises ImportError: if it is not installed; the message says how to.
    """
    try:
        return import_module(name)
    except ImportError as error:
        msg = (
            f"this model needs {name.split('.')[0]}, which could not be imported "
            f"({error}). Install the extra: pip install 'deepinv-lvtino[diffusers]'"
        )
        raise ImportError(msg) from error


def is_file_name(source: Source) -> bool:
    r"""
    Whether a source names a file of weights rather than a folder or repository.

    :param str, pathlib.Path source: the source.
    :return: (bool) whether it does.
    """
    return str(source).lower().endswith(_FILES)


def locate(
    source: Source,
    patterns: Sequence[str] = ("*",),
    *,
    revision: str | None = None,
    cache_dir: Source | None = None,
    local_files_only: bool = False,
) -> Path:
    r"""
    Local path of a source, fetched from the Hub if it is not one.

    Fetching resumes, and respects ``HF_HUB_OFFLINE`` and ``HF_HOME``.

    :param str, pathlib.Path source: local file or folder; or a repository
        ``'owner/name'``; or a file in one, ``'owner/name/path/to/file.pt'``.
    :param Sequence[str] patterns: files to fetch of a repository.
    :param str revision: branch, tag or commit on the Hub; the main branch by default.
    :param str, pathlib.Path cache_dir: cache of the Hub; its default place by default.
    :param bool local_files_only: use only what the cache holds.
    :return: (pathlib.Path) file or folder.
    :raises FileNotFoundError: if there is no such path and no such repository name, or the
        Hub cannot provide it.
    """
    path = Path(source)
    if path.exists():
        return path
    pieces = str(source).split("/")
    if len(pieces) < 2 or not all(pieces) or pieces[0] in (".", "..", "~"):
        msg = (
            f"{source} does not exist. Give a file, a folder, or a repository of the "
            "Hugging Face Hub, such as 'Wan-AI/Wan2.1-T2V-1.3B-Diffusers'."
        )
        raise FileNotFoundError(msg)
    repo, inside = "/".join(pieces[:2]), "/".join(pieces[2:])
    if inside:
        patterns = (inside,) if is_file_name(inside) else (f"{inside}/*",)
    try:
        folder = fetch(
            repo,
            patterns,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )
    except FileNotFoundError as error:
        msg = (
            f"{source} is no local path, and the Hugging Face Hub cannot provide it "
            f"({error}). Fetch it beforehand with `deepinv-lvtino download`, or give a "
            "local folder."
        )
        raise FileNotFoundError(msg) from error
    found = folder / inside if inside else folder
    if not found.exists():
        msg = (
            f"{repo} holds no {inside} (revision {revision or 'main'}). Check the name, or "
            "fetch it if only the cache may be used."
        )
        raise FileNotFoundError(msg)
    return found


def fetch(
    repository: str,
    patterns: Sequence[str],
    *,
    revision: str | None = None,
    cache_dir: Source | None = None,
    local_dir: Source | None = None,
    local_files_only: bool = False,
) -> Path:
    r"""
    Fetch files of a repository of the Hub, or find them in its cache.

    :param str repository: ``'owner/name'``.
    :param Sequence[str] patterns: the files.
    :param str revision: branch, tag or commit; the main branch by default.
    :param str, pathlib.Path cache_dir: cache of the Hub; its default place by default.
    :param str, pathlib.Path local_dir: folder to write to instead of the cache.
    :param bool local_files_only: use only what is there already.
    :return: (pathlib.Path) the folder that holds them.
    :raises FileNotFoundError: if the Hub cannot provide them; the message is its reason.
    """
    hub = need("huggingface_hub")
    # connections that break off are errors of its HTTP library, which has changed
    transport = getattr(hub.errors, "HTTPError", OSError)
    try:
        found = hub.snapshot_download(
            repository,
            revision=revision,
            allow_patterns=list(patterns),
            cache_dir=cache_dir,
            local_dir=local_dir,
            local_files_only=local_files_only,
        )
    except (OSError, ValueError, transport) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FileNotFoundError(reason) from error
    return Path(found)


def lora_or_network(path: Path) -> tuple[Path, bool]:
    r"""
    Whether weights are those of a network, or low-rank changes (LoRA).

    :param pathlib.Path path: file, or folder in the layout of diffusers.
    :return: (tuple[pathlib.Path, bool]) the path, that of the file for a folder with a
        LoRA, and whether it is one.
    """
    if (path / _LORA_FILE).is_file():
        path = path / _LORA_FILE
    return path, path.is_file() and is_lora(read_file(path))
