r"""Frames as image files."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from deepinv_lvtino.datasets._colour import frame_to_rgb

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
)
_WITH_ALPHA = frozenset({"RGBA", "RGBa", "LA", "La", "PA"})


def list_frames(folder: Path) -> list[Path]:
    r"""
    Image files of a folder in natural order (``2.png`` before ``10.png``).

    :param pathlib.Path folder: the folder; hidden files and other files are ignored.
    :return: (list[pathlib.Path]) the images.
    """
    images = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    ]
    return sorted(images, key=lambda path: (natural_key(path.name), path.name))


def natural_key(name: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", name.lower())
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts if p]


def read_image(path: Path) -> np.ndarray:
    r"""
    One image file as RGB.

    Grey, palette and CMYK images are converted, the EXIF orientation is applied, 16-bit
    images keep their precision.

    :param pathlib.Path path: the file.
    :return: (numpy.ndarray) float32, shape ``(H, W, 3)``, in [0, 1].
    :raises ValueError: if the file cannot be decoded, has transparent pixels, or holds
        values without a known range (32-bit integers or floating point).
    """
    try:
        with Image.open(path) as image:
            image.load()
            if _is_deep_colour(path, image):
                return _read_deep(path)
            turned = ImageOps.exif_transpose(image)
    except UnidentifiedImageError as error:
        msg = f"`path`: {path} is not an image that can be read. Remove or replace it."
        raise ValueError(msg) from error
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        msg = f"`path`: {path} cannot be decoded ({error}). Is the file complete?"
        raise ValueError(msg) from error
    if turned.mode.startswith("I;16"):
        grey = np.asarray(turned, dtype=np.float32) / 65535
        return np.repeat(grey[..., None], 3, axis=2)
    if turned.mode in ("I", "F"):
        msg = (
            f"`path`: {path} holds 32-bit values (mode {turned.mode}), whose range is not "
            "known. Convert the frames to 8 or 16 bit."
        )
        raise ValueError(msg)
    if "transparency" in turned.info or turned.mode in _WITH_ALPHA:
        turned = turned.convert("RGBA")
        if np.asarray(turned)[..., 3].min() < 255:
            msg = (
                f"`path`: {path} has transparent pixels, whose colour depends on what is "
                "behind them. Flatten the frames on a background first."
            )
            raise ValueError(msg)
    return np.asarray(turned.convert("RGB"), dtype=np.float32) / 255


def _is_deep_colour(path: Path, image: Image.Image) -> bool:
    """Whether Pillow would cut 16-bit colour to 8 bit (it keeps 16-bit grey)."""
    if image.format != "PNG":
        return False
    with path.open("rb") as file:
        header = file.read(26)
    return header[24] == 16 and header[25] != 0


def _read_deep(path: Path) -> np.ndarray:
    import av

    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        if frame.format.name.startswith(("rgba", "ya")):
            msg = (
                f"`path`: {path} has 16-bit colour and an alpha channel, which is not "
                "supported. Flatten the frames on a background first."
            )
            raise ValueError(msg)
        return frame_to_rgb(frame)


def write_image(path: Path, rgb: np.ndarray) -> None:
    r"""
    Write 8-bit RGB as a PNG.

    :param pathlib.Path path: the file.
    :param numpy.ndarray rgb: uint8, shape ``(H, W, 3)``.
    """
    Image.fromarray(rgb).save(path, format="PNG")
