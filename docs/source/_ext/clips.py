"""
Video files on pages: a directive, and what collects them from the gallery.

``.. clip:: PATH`` shows an .mp4 file as ``.. image::`` shows a picture: the file is copied
beside the pictures, and a missing one is a warning.
:func:`collect_clips` moves the .mp4 files that a gallery script has written into the
gallery and shows them at that place of the page.
"""

from __future__ import annotations

import html
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from PIL import Image
from sphinx.util.docutils import SphinxDirective

from deepinv_lvtino.datasets import read_video


class clip(nodes.image):  # noqa: N801 (docutils' way to name nodes)
    """A video; to Sphinx a picture, whose file it finds, checks and copies."""


class Clip(SphinxDirective):
    """``.. clip:: PATH`` with the options ``alt`` and ``width``."""

    required_arguments = 1
    final_argument_whitespace = True
    option_spec = {"alt": directives.unchanged, "width": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        """A node with the path, relative to the page."""
        node = clip(uri=self.arguments[0], **self.options)
        self.set_source_info(node)
        return [node]


def visit_clip(translator: Any, node: clip) -> None:
    """Write the HTML element: muted and repeated, as short clips are looked at."""
    name = translator.builder.images[node["uri"]]
    source = f"{translator.builder.imgpath}/{name}"
    width = node.get("width", "100%")
    translator.body.append(
        f'<video class="clip" src="{html.escape(source)}" style="width: {width}" '
        f'aria-label="{html.escape(node.get("alt", ""))}" '
        "controls autoplay loop muted playsinline></video>\n"
    )
    raise nodes.SkipNode


def skip_clip(translator: Any, node: clip) -> None:
    """Leave the video out of formats that cannot show it."""
    raise nodes.SkipNode


def collect_clips(
    block: Sequence[Any], block_vars: dict[str, Any], gallery_conf: dict[str, Any]
) -> str:
    """Sphinx-Gallery scraper: the .mp4 files that the block has left beside its script."""
    folder = Path(block_vars["src_file"]).parent
    lines = []
    for source in sorted(folder.glob("*.mp4")):
        picture = Path(next(block_vars["image_path_iterator"]))
        target = picture.with_suffix(".mp4")
        shutil.move(source, target)
        # one of its frames, for the thumbnail of the example
        frames = read_video(target).frames
        middle = frames[:, frames.shape[1] // 2].permute(1, 2, 0)
        Image.fromarray((middle * 255).round().byte().numpy()).save(picture)
        place = Path(target).relative_to(gallery_conf["src_dir"]).as_posix()
        alt = source.stem.replace("_", " ")
        lines += ["", f".. clip:: /{place}", f"   :alt: {alt}", ""]
    return "\n".join(lines)


def setup(app: Any) -> dict[str, Any]:
    """Register the node and its directive."""
    app.add_node(
        clip,
        html=(visit_clip, None),
        latex=(skip_clip, None),
        text=(skip_clip, None),
        man=(skip_clip, None),
        texinfo=(skip_clip, None),
    )
    app.add_directive("clip", Clip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
