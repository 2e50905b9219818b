r"""The checker of the built documentation finds what it should, and nothing else."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

PROGRAM = Path(__file__).resolve().parents[1] / "docs" / "check_site.py"

pytestmark = pytest.mark.skipif(not PROGRAM.is_file(), reason="needs the source tree")


@pytest.fixture(scope="module")
def checker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_site", PROGRAM)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up
    import sys

    sys.modules["check_site"] = module
    spec.loader.exec_module(module)
    return module


GOOD = r"""
<html><head><link rel="index" href="#" />
<script>window.MathJax = {"tex": {"macros": {"forw": ["A", 1]}}}</script>
</head><body><h1 id="top">Title</h1>
<a href="other.html#place">there</a> <a href="#top">up</a> <a href="sub/">folder</a>
<a href="https://example.org/missing">outside</a> <a href="mailto:a@b.org">post</a>
<img src="_images/picture.png" alt="what it shows"><video src="_images/clip.mp4"></video>
<a href="other.html"><img src="_images/picture_thumb.png" alt="">its title</a>
<span class="math notranslate">\(\forw{x} = \left\{ \tfrac12 x \right\}\)</span>
<div class="math notranslate">\[\begin{split}a &amp;= b \\ c &amp;&lt; d\end{split}\]</div>
</body></html>
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "_images").mkdir()
    (tmp_path / "sub").mkdir()
    for name in ("picture.png", "picture_thumb.png"):
        (tmp_path / "_images" / name).write_bytes(b"png")
    (tmp_path / "_images" / "clip.mp4").write_bytes(b"mp4")
    (tmp_path / "index.html").write_text(GOOD, encoding="utf-8")
    (tmp_path / "other.html").write_text('<a id="place"></a>', encoding="utf-8")
    (tmp_path / "sub" / "index.html").write_text("<p>page</p>", encoding="utf-8")
    return tmp_path


def test_a_good_site_passes(
    checker: ModuleType, site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert checker.check(site) == []
    assert checker.main([str(site)]) == 0
    assert capsys.readouterr().out.startswith("0 mistakes")


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("other.html#place", "gone.html", "link gone.html leads to nothing"),
        ("#place", "#elsewhere", "leads to no place"),
        ("#top", "#bottom", "leads to no place"),
        ("sub/", "none/", "leads to nothing"),
        ("picture.png", "gone.png", "<img> _images/gone.png does not exist"),
        ("clip.mp4", "gone.mp4", "<video> _images/gone.mp4 does not exist"),
        ("what it shows", "", "has no text"),
        ('_thumb.png" alt=""', '_thumb.png"', "has no text"),
        (r"\tfrac12 x", r"\tfrac{1}{2 x", "unbalanced braces"),
        (r"\tfrac12 x", r"\tfrac12} x", "unbalanced braces"),
        (r"\tfrac12", r"\tfarc12", r"uses \tfarc"),
        (r"\forw", r"\frow", r"uses \frow"),
        (r"\right\}", "", r"\left as \right"),
        (r"\end{split}", "", "does not end split"),
        (r"\end{split}", r"\end{aligned}", "ends aligned, which is not open"),
        (r"\forw{x} = \left\{ \tfrac12 x \right\}", "", "is empty"),
    ],
)
def test_mistakes_are_found(
    checker: ModuleType, site: Path, old: str, new: str, message: str
) -> None:
    assert old in GOOD
    (site / "index.html").write_text(GOOD.replace(old, new), encoding="utf-8")
    wrong = checker.check(site)
    assert any(message in line for line in wrong), wrong
    assert all(line.startswith("index.html: ") for line in wrong)
    assert checker.main([str(site)]) == 1


def test_empty_files_and_empty_sites(checker: ModuleType, site: Path) -> None:
    (site / "_images" / "picture.png").write_bytes(b"")
    assert checker.check(site) == ["index.html: <img> _images/picture.png is empty"]
    assert checker.check(site / "_images")[0].endswith("there is no page")
