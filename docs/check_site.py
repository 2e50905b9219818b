r"""
Check the built site: links, pictures and formulas, without a network. Usage::

    python docs/check_site.py docs/_build/html

What is checked on every page: links to other pages, and to places on them, lead
somewhere; pictures, videos, style sheets and scripts of the site are there and not empty;
pictures say what they show; formulas have balanced braces and environments, and use only
commands that MathJax knows (:data:`COMMANDS`) or that the configuration defines. The
program prints what is wrong and then ends with code 1.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

#: Elements that refer to files, and the attributes that do.
FILES = {
    "img": "src",
    "video": "src",
    "source": "src",
    "script": "src",
    "link": "href",
}

#: End of the names of pictures that only adorn a link with a text of its own (thumbnails of
#: the gallery): an empty text is right for them.
ADORNING = "_thumb.png"

#: Pages that are not written for this site.
FOREIGN = ("_static",)

#: Commands of LaTeX that the pages use and MathJax has. A new one belongs here once its
#: formula was seen in a browser.
COMMANDS = frozenset(
    r"""
    alpha beta gamma delta epsilon varepsilon eta theta lambda mu nu pi rho sigma tau phi
    chi psi omega Delta Sigma Omega Phi ell nabla partial infty hbar
    hat bar tilde vec dot widehat overline underline underset overset underbrace
    mathcal mathrm mathbf mathbb text operatorname
    frac tfrac sqrt sum prod int min max arg log exp sin cos det lim
    left right big Big bigl bigr Bigl Bigr bigg Bigg
    langle rangle lVert rVert lvert rvert lfloor rfloor lceil rceil
    in notin sim approx propto le ge leq geq ne neq equiv to mapsto leftarrow rightarrow
    Rightarrow mid cdot times otimes odot oplus circ dagger top star pm ll gg cup cap
    subset forall exists
    dots ldots cdots vdots ddots quad qquad begin end displaystyle textstyle limits not
    """.split()
)


@dataclass
class Page:
    """What a page refers to, and what can be referred to on it."""

    links: list[str] = field(default_factory=list)
    files: list[tuple[str, str]] = field(default_factory=list)
    nameless: list[str] = field(default_factory=list)
    places: set[str] = field(default_factory=set)
    formulas: list[str] = field(default_factory=list)
    macros: set[str] = field(default_factory=set)


class Reader(HTMLParser):
    """Collects a :class:`Page`."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.page = Page()
        self._formula: list[str] | None = None
        self._formula_depth = 0
        self._script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note links, files, places, and where a formula begins."""
        values = {name: value or "" for name, value in attrs}
        for name in ("id", "name"):
            if name in values:
                self.page.places.add(values[name])
        if tag == "a" and "href" in values:
            self.page.links.append(values["href"])
        if tag in FILES and values.get(FILES[tag]):
            self.page.files.append((tag, values[FILES[tag]]))
        if tag == "img" and not values.get("alt", "").strip():
            adorning = "alt" in values and values.get("src", "").endswith(ADORNING)
            if not adorning:
                self.page.nameless.append(values.get("src", ""))
        self._script = tag == "script"
        if self._formula is not None:
            self._formula_depth += 1
        elif "math" in values.get("class", "").split():
            self._formula, self._formula_depth = [], 0

    def handle_endtag(self, tag: str) -> None:
        """Note where a formula ends."""
        self._script = False
        if self._formula is None:
            return
        if self._formula_depth == 0:
            self.page.formulas.append("".join(self._formula).strip())
            self._formula = None
        else:
            self._formula_depth -= 1

    def handle_data(self, data: str) -> None:
        """Collect the text of a formula, and the macros that MathJax is given."""
        if self._formula is not None:
            self._formula.append(data)
        elif self._script and "macros" in data:
            self.page.macros |= set(re.findall(r'"([A-Za-z]+)": ?[\["]', data))


def read(path: Path) -> Page:
    """Read one page."""
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader.page


def formula_errors(formula: str, macros: set[str]) -> list[str]:
    r"""
    Mistakes of a formula that need no renderer to be seen.

    :param str formula: LaTeX with its delimiters, as Sphinx writes it.
    :param set[str] macros: names of the macros that the configuration defines.
    :return: (list[str]) the mistakes in words.
    """
    text = re.sub(r"^\\[(\[]|\\[)\]]$", "", formula.strip()).strip()
    errors = [] if text else ["is empty"]
    bare = re.sub(r"\\[{}\\]", "", text)
    depth = 0
    for character in bare:
        depth += (character == "{") - (character == "}")
        if depth < 0:
            break
    if depth:
        errors.append("has unbalanced braces")
    open_environments: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+\*?)\}", text):
        if kind == "begin":
            open_environments.append(name)
        elif not open_environments or open_environments.pop() != name:
            errors.append(f"ends {name}, which is not open")
    if open_environments:
        errors.append(f"does not end {', '.join(open_environments)}")
    commands = re.findall(r"\\([A-Za-z]+)", bare)
    if commands.count("left") != commands.count("right"):
        errors.append(r"has not as many \left as \right")
    unknown = sorted(set(commands) - COMMANDS - macros)
    if unknown:
        errors.append("uses " + ", ".join("\\" + name for name in unknown))
    return errors


def _is_outside(address: str) -> bool:
    return bool(urlsplit(address).scheme) or address.startswith("//")


def check(root: Path) -> list[str]:
    r"""
    Check all pages of a site.

    :param pathlib.Path root: folder of the site.
    :return: (list[str]) what is wrong, one line each.
    """
    pages = {
        path.resolve(): read(path)
        for path in sorted(root.rglob("*.html"))
        if path.relative_to(root).parts[0] not in FOREIGN
    }
    wrong = [] if pages else [f"{root}: there is no page"]
    for path, page in pages.items():
        name = path.relative_to(root.resolve()).as_posix()
        for link in page.links:
            if not _is_outside(link):
                wrong += [f"{name}: {text}" for text in _link_errors(path, link, pages)]
        for tag, address in page.files:
            if _is_outside(address) or address == "#":  # "#": the page itself
                continue
            target = (path.parent / unquote(urlsplit(address).path)).resolve()
            if not target.is_file():
                wrong.append(f"{name}: <{tag}> {address} does not exist")
            elif target.stat().st_size == 0:
                wrong.append(f"{name}: <{tag}> {address} is empty")
        wrong += [f"{name}: picture {source} has no text" for source in page.nameless]
        for formula in page.formulas:
            for error in formula_errors(formula, page.macros):
                wrong.append(f"{name}: formula {' '.join(formula.split())} {error}")
    return wrong


def _link_errors(path: Path, link: str, pages: dict[Path, Page]) -> list[str]:
    parts = urlsplit(link)
    target = path
    if parts.path:
        target = (path.parent / unquote(parts.path)).resolve()
        if target.is_dir():
            target /= "index.html"
    if not target.is_file():
        return [f"link {link} leads to nothing"]
    place = unquote(parts.fragment)
    if place and target in pages and place not in pages[target].places:
        return [f"link {link} leads to no place on that page"]
    return []


def main(arguments: list[str] | None = None) -> int:
    r"""
    Check a site and print what is wrong.

    :param list[str] arguments: arguments of the command line.
    :return: (int) 0 if nothing is wrong, else 1.
    """
    parser = argparse.ArgumentParser(description="Check the built documentation.")
    parser.add_argument("folder", type=Path, help="folder of the built site")
    root = parser.parse_args(arguments).folder
    wrong = check(root)
    print(*wrong, sep="\n", end="\n" if wrong else "")
    print(f"{len(wrong)} mistakes on the pages of {root}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
