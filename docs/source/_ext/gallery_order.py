"""Order of the examples of a gallery's section: the quickstart first, then by name."""

from __future__ import annotations

from sphinx_gallery.sorting import FileNameSortKey


class QuickstartFirst(FileNameSortKey):
    """Key of a script's file name."""

    def __call__(self, filename: str) -> tuple[bool, str]:  # type: ignore[override]
        """The quickstart comes before all others."""
        return filename != "demo_quickstart.py", filename
