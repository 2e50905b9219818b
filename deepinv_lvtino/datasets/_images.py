r"""Frames as image files."""

from __future__ import annotations

import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageCms, ImageFile, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from deepinv_lvtino.datasets._colour import frame_to_rgb
from deepinv_lvtino.datasets._damage import decoder_log
from deepinv_lvtino.datasets._names import TooLarge, as_file, check_size

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
)
_WITH_ALPHA = frozenset({"RGBA", "RGBa", "LA", "La", "PA"})


# tags of TIFF: compression, and places and sizes of strips and of tiles
_COMPRESSION, _DEFLATE = 259, (8, 32946)
_BITS, _ORIENTATION = 258, 274
_PIECES = ((273, 279), (324, 325))
# by content, whatever the name says: no format that runs a program
_FORMATS = ("PNG", "JPEG", "BMP", "DIB", "TIFF", "WEBP", "PPM")
_PILLOW_ERRORS = (
    OSError,
    SyntaxError,
    EOFError,
    struct.error,
    ArithmeticError,
    LookupError,
    TypeError,
    ValueError,
    UserWarning,
    Image.DecompressionBombError,
)


class DamagedImage(ValueError):
    """A picture that cannot be decoded, or only in part; says what is wrong with it."""


class SeveralPictures(ValueError):
    """A file with more than one picture."""


class OtherColours(ValueError):
    """A picture whose colour space cannot be converted."""


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
    images keep their precision. Colours of a profile other than sRGB (Display P3, Adobe
    RGB) are converted to sRGB, 8-bit ones by Little CMS; 16-bit ones are refused.

    :param pathlib.Path path: the file.
    :return: (numpy.ndarray) float32, shape ``(H, W, 3)``, in [0, 1].
    :raises DamagedImage: if the file cannot be decoded as a whole.
    :raises ValueError: if it is too large, has transparent pixels or several pictures, or
        holds values without a known range (32-bit integers or floating point).
    """
    turned = _load(path)
    return _read_deep(path) if turned is None else _as_rgb(path, turned)


def _as_rgb(path: Path, turned: Image.Image) -> np.ndarray:
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
    rgb = turned.convert("RGB")
    profile = _wide_profile(turned)
    if profile is not None and turned.mode in ("RGB", "RGBA", "P"):
        to = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        changed = ImageCms.profileToProfile(rgb, profile, to)
        rgb = rgb if changed is None else changed
    return np.asarray(rgb, dtype=np.float32) / 255


def _wide_profile(image: Image.Image) -> ImageCms.ImageCmsProfile | None:
    """The colour profile of a picture, if it is another one than sRGB."""
    stored = image.info.get("icc_profile")
    if not stored:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(stored))
        name = ImageCms.getProfileDescription(profile)
    except (ImageCms.PyCMSError, OSError):
        return None  # as every viewer does with a profile that cannot be read
    rgb = profile.profile.xcolor_space.strip() == "RGB"
    return profile if rgb and "srgb" not in name.lower() else None


def count_pictures(path: Path) -> int:
    r"""
    Pictures in an image file; photographs with small copies of themselves hold one.

    :param pathlib.Path path: the file.
    :return: (int) how many; 1 if it cannot be read.
    """
    try:
        with _strict_pillow(), Image.open(path, formats=_FORMATS) as image:
            return 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))
    except _PILLOW_ERRORS:
        return 1


def read_stack(path: Path) -> tuple[list[np.ndarray], Fraction | None]:
    r"""
    Pictures of a file with several: TIFF of many pages, animated WebP or PNG.

    :param pathlib.Path path: the file.
    :return: (tuple) pictures as of :func:`read_image`, and their number per second, where
        the format has one.
    :raises DamagedImage: if one cannot be decoded.
    :raises ValueError: if the sizes differ, they are shown for different times, or are
        of a kind that :func:`read_image` refuses, or 16-bit colour.
    """
    pictures: list[np.ndarray] = []
    times: list[float | None] = []
    try:
        with _strict_pillow(), Image.open(path, formats=_FORMATS) as image:
            check_size(path, image.height, image.width)
            for index in range(int(getattr(image, "n_frames", 1))):
                image.seek(index)
                if _is_deep(path, image):
                    msg = (
                        f"`path`: {path} holds several pictures of 16-bit colour, which "
                        "are not supported. Give each a file of its own."
                    )
                    raise SeveralPictures(msg)
                image.load()
                times.append(image.info.get("duration"))
                pictures.append(_as_rgb(path, image.copy()))
    except SeveralPictures:
        raise
    except _PILLOW_ERRORS as error:
        if str(error).startswith("`path`"):
            raise
        msg = f"cannot be decoded from picture {len(pictures)} on ({error})"
        raise DamagedImage(msg) from error
    if len({picture.shape for picture in pictures}) > 1:
        msg = f"`path`: the pictures in {path} differ in size. Give one size to all."
        raise ValueError(msg)
    if len(set(times)) > 1:
        msg = (
            f"`path`: the pictures in {path} are shown for different times "
            f"({min(filter(None, times), default=0):g} to "
            f"{max(filter(None, times), default=0):g} ms), but frames must be equally "
            "spaced in time. Give each a file of its own, in a folder."
        )
        raise ValueError(msg)
    return pictures, Fraction(1000) / Fraction(times[0]) if times[0] else None


def _load(path: Path) -> Image.Image | None:
    """The whole picture, verified; None if Pillow would cut its 16 bit to 8."""
    try:
        with _strict_pillow(), path.open("rb") as file:
            with Image.open(file, formats=_FORMATS) as image:
                check_size(path, image.height, image.width)
                _check_single(path, image)
                deep = _is_deep(path, image)
                fault = _tiff_fault(path, image)
                if deep and _wide_profile(image) is not None:
                    msg = (
                        f"`path`: {path} has 16-bit colour in another colour space than "
                        "sRGB. Convert the frames to sRGB first."
                    )
                    raise OtherColours(msg)
                image.verify()  # checksums, where the format has them
            if not fault:
                with Image.open(file, formats=_FORMATS) as image:
                    image.load()
                    turned = ImageOps.exif_transpose(image)
                    if image.format in ("JPEG", "MPO"):
                        fault = _jpeg_fault(path)
    except (TooLarge, SeveralPictures, OtherColours):
        raise
    except UnidentifiedImageError as error:
        msg = "is not an image that can be read"
        raise DamagedImage(msg) from error
    except _PILLOW_ERRORS as error:
        msg = f"cannot be decoded ({error or type(error).__name__})"
        raise DamagedImage(msg) from error
    if fault:
        msg = f"is damaged ({fault})"
        raise DamagedImage(msg)
    return None if deep else turned


@contextmanager
def _strict_pillow() -> Iterator[None]:
    """No truncated pictures, and warnings of damage as errors."""
    lenient = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with warnings.catch_warnings():
            # size is checked by us; metadata are not used
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", message="(?i).*truncated")
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = lenient


def _check_single(path: Path, image: Image.Image) -> None:
    count = getattr(image, "n_frames", 1)
    if count > 1 and image.format != "MPO":  # a photograph with small copies of it
        msg = (
            f"`path`: {path} holds {count} pictures. Give each frame a file of its own, "
            f"for example with `ffmpeg -i {path.name} FOLDER/%05d.png`."
        )
        raise SeveralPictures(msg)


def _tiff_fault(path: Path, image: Image.Image) -> str | None:
    """The checksums of deflated pieces, which libtiff does not reach."""
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    if tags.get(_COMPRESSION, 1) not in _DEFLATE:
        return None
    for places, sizes in _PIECES:
        pairs = zip(tags.get(places, ()), tags.get(sizes, ()), strict=False)
        with path.open("rb") as file:
            for place, size in pairs:
                file.seek(place)
                packed = zlib.decompressobj()
                try:
                    packed.decompress(file.read(size))
                except zlib.error as error:
                    return str(error)
                if not packed.eof:
                    return "a piece of it is cut short"
    return None


def _jpeg_fault(path: Path) -> str | None:
    """What FFmpeg's decoder says about a JPEG; Pillow's says nothing."""
    import av

    with decoder_log() as log:
        try:
            with av.open(as_file(path), format="jpeg_pipe") as container:
                container.streams.video[0].codec_context.thread_count = 1
                for _ in container.decode(video=0):
                    pass
        except (av.error.PatchWelcomeError, NotImplementedError):
            return None  # a kind that it does not know
        except av.error.FFmpegError as error:
            return log.damage("mjpeg") or error.strerror or str(error)
        return log.damage("mjpeg")


def _is_deep(path: Path, image: Image.Image) -> bool:
    """Whether Pillow would cut 16 bit to 8, or not say how large white is."""
    if image.format == "PPM":
        with path.open("rb") as file:
            return _portable_header(file)[3] > 255
    if isinstance(image, TiffImageFile):
        # a turned one keeps 8 bit, and is turned
        turned = image.tag_v2.get(_ORIENTATION, 1) != 1
        return image.tag_v2.get(_BITS) == (16, 16, 16) and not turned
    if image.format != "PNG":
        return False
    with path.open("rb") as file:
        header = file.read(26)
    return header[24] == 16 and header[25] != 0


def _read_deep(path: Path) -> np.ndarray:
    with path.open("rb") as file:
        kind = file.read(2)
    if kind in (b"II", b"MM"):
        return _read_deep_tiff(path)
    return _read_portable(path) if kind[:1] == b"P" else _read_deep_png(path)


def _read_deep_tiff(path: Path) -> np.ndarray:
    import cv2

    packed = np.fromfile(path, dtype=np.uint8)
    values = cv2.imdecode(packed, cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.shape[2:] != (3,):
        msg = "is a TIFF with 16-bit colour of a kind that cannot be read"
        raise DamagedImage(msg)
    return values[..., ::-1].astype(np.float32) / 65535


def _read_portable(path: Path) -> np.ndarray:
    """Portable any-map of 16 bit, white being what its header says."""
    with path.open("rb") as file:
        channels, width, height, white = _portable_header(file)
        content = file.read()
    values = np.frombuffer(content, ">u2", count=height * width * channels)
    rgb = values.reshape(height, width, channels).astype(np.float32) / white
    return np.clip(np.broadcast_to(rgb, (height, width, 3)), 0, 1)


def _portable_header(file: BinaryIO) -> tuple[int, int, int, int]:
    """Channels, width, height and the value of white; comments end with the line."""
    channels = {b"P5": 1, b"P6": 3}.get(file.read(2), 0)
    numbers: list[int] = []
    digits = b""
    while channels and len(numbers) < 3:
        byte = file.read(1)
        if byte == b"#":
            file.readline()
            byte = b"\n"
        if byte.isdigit():
            digits += byte
        elif digits:
            numbers.append(int(digits))
            digits = b""
        if not byte:
            break
    return (channels, *numbers) if len(numbers) == 3 else (0, 0, 0, 0)  # type: ignore[return-value]


def _read_deep_png(path: Path) -> np.ndarray:
    import av

    # as a PNG and nothing else: a % in a name stands for a number elsewhere
    with av.open(as_file(path), format="png_pipe") as container:
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
    Write RGB as a PNG of 8 or 16 bit.

    :param pathlib.Path path: the file.
    :param numpy.ndarray rgb: uint8 or uint16, shape ``(H, W, 3)``.
    """
    if rgb.dtype == np.uint16:
        import cv2

        done, packed = cv2.imencode(".png", np.ascontiguousarray(rgb[..., ::-1]))
        assert done
        path.write_bytes(packed.tobytes())
        return
    Image.fromarray(rgb).save(path, format="PNG")
