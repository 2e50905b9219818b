"""
Configuration of the documentation, after DeepInverse's own.

Built offline: links into other projects' documentation are made by rule (see
:func:`link_out`), not from inventories that would have to be fetched.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.ext.autosummary import Autosummary
from sphinx.util.nodes import make_refnode
from sphinx_gallery.sorting import ExplicitOrder

import deepinv_lvtino
from deepinv_lvtino import cli

# width and plainness of the help texts
os.environ.update(COLUMNS="84", NO_COLOR="1")

# -- Project ---------------------------------------------------------------------------

project = "deepinv-lvtino"
author = "The deepinv-lvtino developers"
copyright = f"2026, {author}"
release = deepinv_lvtino.__version__
version = release

# -- General ---------------------------------------------------------------------------

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

extensions = [
    "clips",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",  # formulas without a network: MathJax is part of the site
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinxcontrib.bibtex",
]

templates_path = ["_templates"]
exclude_patterns = ["_build"]
default_role = "code"
nitpicky = True
add_module_names = True
suppress_warnings = ["config.cache"]

# a line between the parts of a docstring
rst_prolog = """
.. |sep| raw:: html

   <hr />

"""

# -- Docstrings ------------------------------------------------------------------------

# types are written in the docstrings, ``:param type name:``
autodoc_typehints = "none"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autosummary_generate = True
autosummary_imported_members = False

# -- Bibliography ----------------------------------------------------------------------

bibtex_bibfiles = ["refs.bib"]
bibtex_default_style = "plain"
bibtex_foot_reference_style = "foot"
bibtex_tooltips = True
bibtex_footbibliography_backrefs = True

# -- Mathematics -----------------------------------------------------------------------

# the macros of DeepInverse's documentation, so that docstrings read the same in both
mathjax3_config = {
    "tex": {
        "macros": {
            "forw": [r"{A\left({#1}\right)}", 1],
            "noise": [r"{N\left({#1}\right)}", 1],
            "inverse": [r"{R\left({#1}\right)}", 1],
            "inversef": [r"{R\left({#1},{#2}\right)}", 2],
            "inversename": r"R",
            "reg": [r"{g_\sigma\left({#1}\right)}", 1],
            "regname": r"g_\sigma",
            "sensor": [r"{\eta\left({#1}\right)}", 1],
            "datafid": [r"{f\left({#1},{#2}\right)}", 2],
            "datafidname": r"f",
            "distance": [r"{d\left({#1},{#2}\right)}", 2],
            "distancename": r"d",
            "denoiser": [r"{\operatorname{D}_{{#2}}\left({#1}\right)}", 2],
            "denoisername": r"\operatorname{D}_{\sigma}",
            "xset": r"\mathcal{X}",
            "yset": r"\mathcal{Y}",
            "group": r"\mathcal{G}",
            "metric": [r"{d\left({#1},{#2}\right)}", 2],
            "loss": [r"{\mathcal{L}\left({#1}\right)}", 1],
            "conj": [r"{\overline{#1}^{\top}}", 1],
        }
    }
}

# -- Gallery ---------------------------------------------------------------------------

sphinx_gallery_conf = {
    "examples_dirs": ["../../examples"],
    "gallery_dirs": ["auto_examples"],
    "filename_pattern": r"/demo_",
    "ignore_pattern": r"__init__\.py",
    "nested_sections": True,
    "subsection_order": ExplicitOrder(
        [
            f"../../examples/{name}"
            for name in ("basics", "problems", "sampling", "solvers", "extending")
        ]
    ),
    "within_subsection_order": "gallery_order.QuickstartFirst",
    "doc_module": ("deepinv_lvtino",),
    "reference_url": {"deepinv_lvtino": None},
    "backreferences_dir": "gen_modules/backreferences",
    "image_scrapers": ("matplotlib", "clips.collect_clips"),
    # tables of results, where a block ends with one
    "capture_repr": ("_repr_html_",),
    "remove_config_comments": True,
    "show_memory": False,
    "abort_on_example_error": False,
    "only_warn_on_example_error": False,
}

# -- HTML ------------------------------------------------------------------------------

html_theme = "pydata_sphinx_theme"
html_title = f"deepinv-lvtino {release}"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_copy_source = True
html_show_sourcelink = True
html_sidebars = {"changelog": []}
html_theme_options = {
    "logo": {"text": "deepinv-lvtino"},
    "show_prev_next": True,
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "icon_links": [
        {
            "name": "DeepInverse",
            "url": "https://deepinv.org/",
            "icon": "fa-solid fa-arrow-up-right-from-square",
        }
    ],
    "secondary_sidebar_items": {"**": ["page-toc", "sourcelink", "sg_download_links"]},
}
copybutton_exclude = ".linenos, .gp"

# -- References ------------------------------------------------------------------------


def add_references(
    app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Close a docstring that cites with its list of references."""
    if any(":footcite:" in line for line in lines) and not any(
        "footbibliography" in line for line in lines
    ):
        lines += ["", "|sep|", "", ":References:", "", ".. footbibliography::", ""]


def lookup(dotted: str) -> Any:
    """Find the object of a dotted name, or raise ``LookupError``."""
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        try:
            for part in parts[cut:]:
                found = getattr(found, part)
        except AttributeError:
            break
        return found
    raise LookupError(dotted)


def public_name(dotted: str, found: Any) -> str:
    """Shorten ``deepinv.physics.forward.Physics`` to ``deepinv.physics.Physics``."""
    parts = dotted.split(".")
    for depth in range(1, len(parts) - 1):
        module = sys.modules.get(".".join(parts[:depth]))
        if module is not None and getattr(module, parts[-1], None) is found:
            return ".".join([*parts[:depth], parts[-1]])
    return dotted


# pages of PyTorch's documentation that do not follow its one-page-per-object rule
TORCH_PAGES = {
    "torch.Tensor": "tensors.html",
    "torch.dtype": "tensor_attributes.html",
    "torch.device": "tensor_attributes.html",
    "torch.Size": "size.html",
}

#: Modules whose names are documented here, for names that are used by another path.
DOCUMENTED = (
    "physics",
    "physics.functional",
    "models",
    "optim",
    "metrics",
    "datasets",
    "plotting",
    "benchmark",
)


def link_out(app: Any, env: Any, node: Any, contnode: Any) -> nodes.Element | None:
    """
    Link a name of another project by the rule that its documentation follows.

    The name must exist in the installed package: a misspelt one stays a warning.
    """
    target = node.get("reftarget", "")
    root = target.split(".")[0]
    if node.get("refdomain") != "py":
        return None
    if root == "deepinv_lvtino":
        return link_home(app, env, node, contnode)
    if root not in {"deepinv", "torch", "numpy", *sys.stdlib_module_names}:
        return None
    try:
        target = public_name(target, lookup(target))
        # methods and attributes are described on the page of their class
        page = target
        while not isinstance(lookup(page.rpartition(".")[0]), ModuleType):
            page = page.rpartition(".")[0]
    except LookupError:
        return None
    if root == "deepinv":
        uri = f"https://deepinv.org/stable/api/stubs/{page}.html#{target}"
    elif root == "torch":
        place = TORCH_PAGES.get(page, f"generated/{page}.html")
        uri = f"https://docs.pytorch.org/docs/stable/{place}#{target}"
    elif root == "numpy":
        uri = f"https://numpy.org/doc/stable/reference/generated/{page}.html#{target}"
    else:
        module = page.rpartition(".")[0]
        uri = f"https://docs.python.org/3/library/{module}.html#{target}"
    reference = nodes.reference("", "", internal=False, refuri=uri, reftitle=target)
    reference += contnode
    return reference


def link_home(app: Any, env: Any, node: Any, contnode: Any) -> nodes.Element | None:
    """Link ``deepinv_lvtino.LVTINO``, or a private path, to where it is documented."""
    try:
        found = lookup(node["reftarget"])
    except LookupError:
        return None
    tail = node["reftarget"].split(".")[1:]
    names = [
        f"deepinv_lvtino.{module}.{'.'.join(tail[cut:])}"
        for module in DOCUMENTED
        for cut in range(len(tail))
    ]
    for name in names:
        entry = env.domains["py"].objects.get(name)
        if entry is not None and lookup(name) == found:
            return make_refnode(
                app.builder, node["refdoc"], entry.docname, entry.node_id, contnode
            )
    return None


class PlainAutosummary(Autosummary):
    """Tables of names without citations: the notes are on the page of the name."""

    def get_items(self, names: list[str]) -> list[tuple[str, str | None, str, str]]:
        """Drop citations from the summaries."""
        return [
            (name, signature, re.sub(r"\s*:footcite:\w+:`[^`]*`", "", summary), real)
            for name, signature, summary, real in super().get_items(names)
        ]


class CommandHelp(Directive):
    """``.. command-help:: NAME``: what ``deepinv-lvtino NAME --help`` prints."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Ask the command line itself."""
        text = io.StringIO()
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            cli.main([self.arguments[0], "--help"])
        block = nodes.literal_block(text.getvalue(), text.getvalue())
        block["language"] = "text"
        return [block]


def changelog_page(app: Any, docname: str, source: list[str]) -> None:
    """Fill the changelog page with CHANGELOG.md, of which only the headings differ."""
    if docname != "changelog":
        return
    path = Path(__file__).resolve().parents[2] / "CHANGELOG.md"
    app.env.note_dependency(str(path))
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        marks, _, title = line.partition(" ")
        if marks and set(marks) == {"#"}:
            lines += [title, "=-~"[len(marks) - 1] * len(title)]
        else:
            lines.append(line)
    source[0] = "\n".join(lines)


def setup(app: Any) -> None:
    """Register the helpers above."""
    # the gallery's tensors are small: threads would only wait for each other
    torch.set_num_threads(1)
    app.add_directive("command-help", CommandHelp)
    app.add_directive("autosummary", PlainAutosummary, override=True)
    app.connect("source-read", changelog_page)
    app.connect("autodoc-process-docstring", add_references)
    app.connect("missing-reference", link_out)


# parts of the package without pages of their own, in signatures
nitpick_ignore = [("py:class", name) for name in ("Frames", "Term", "Path")]
