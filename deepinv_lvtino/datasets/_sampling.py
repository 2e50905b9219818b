r"""Whether a file stores colour at a lower resolution than brightness."""

from __future__ import annotations

from pathlib import Path

from deepinv_lvtino.datasets._names import as_file


def colour_is_coarse(path: Path) -> bool:
    r"""
    Whether colour has fewer pixels than brightness, as in 4:2:0 and 4:2:2.

    :param pathlib.Path path: a video file, or a folder of frames, whose first one counts.
    :return: (bool) false also where that cannot be told.
    """
    if path.is_dir():
        images = sorted(
            one for one in path.iterdir() if one.suffix.lower() in (".jpg", ".jpeg")
        )
        return bool(images) and _of_jpeg(images[0])
    import av

    try:
        with av.open(as_file(path)) as container:
            streams = container.streams.video
            layout = streams[0].codec_context.format if streams else None
            if layout is None or len(layout.components) < 3 or layout.is_rgb:
                return False
            first, second = layout.components[:2]
            return bool(second.width < first.width or second.height < first.height)
    except (OSError, ValueError):
        return False


def _of_jpeg(path: Path) -> bool:
    from PIL import Image, JpegImagePlugin

    try:
        with Image.open(path) as image:
            return JpegImagePlugin.get_sampling(image) in (1, 2)
    except OSError:
        return False
