"""Sphinx settings of the readers' site; ``make site`` gathers the pages and calls Sphinx."""

from __future__ import annotations

import html
import re
import tomllib
from pathlib import Path

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxTranslator

import nclib

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

project = "Neural collapse"
author = copyright = "The neural collapse course authors"
release = version = nclib.__version__
language = "en"

extensions = ["myst_nb", "sphinx.ext.autodoc"]
exclude_patterns = ["README.md", "exercises"]  # index.md includes parts of the README
myst_enable_extensions = ["dollarmath", "attrs_inline"]
myst_heading_anchors = 3  # as GitHub makes them
nb_execution_mode = "off"  # the saved outputs are the ones that the tests compare
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True  # as they stand in the code: no path of the machine that builds
autodoc_default_options = {"members": True}

html_context = {"default_mode": "auto"}  # light or dark as the reader has it
html_theme = "sphinx_book_theme"
html_title = "Neural collapse"
html_static_path = ["static", "../tools/templates/quiz.js"]
html_favicon = "static/icon.svg"
html_css_files = ["site.css"]
html_js_files = [(name, {"defer": "defer"}) for name in ("quiz.js", "site.js")]
html_show_copyright = html_show_sphinx = html_copy_source = False
templates_path = ["templates"]
html_sidebars = {"**": ["home.html", "sbt-sidebar-nav.html"]}  # the search is in the header
html_math_renderer = "mathml"
html_theme_options = {
    "repository_url": SETTINGS["project"]["urls"]["Repository"],
    "repository_branch": SETTINGS["tool"]["nclib"]["tag"],
    "path_to_docs": ".",
    "use_repository_button": True,
    "use_download_button": False,  # of the source of a page; a lesson has links of its own
    "launch_buttons": {"colab_url": "https://colab.research.google.com"},
    "home_page_in_toc": True,
    "show_navbar_depth": 1,
}


# A bar over a term: few fonts have one that grows, so the style sheet draws it.
BAR = re.compile(r'<mover[^>]*>((?:(?!<mover).)*?)<mo accent="true">_</mo>\s*</mover>', re.S)

# The bars of a length keep to their letter, and do not grow with a square beside them.
FENCE = re.compile("<mo[^>]*>([|\N{DOUBLE VERTICAL LINE}])</mo>")
# An index goes beside a letter with an accent, not below it.
ACCENTED = re.compile(
    r"<munderover>\s*(<mi[^>]*>[^<]*</mi>)(.*?)(<mo[^>]*>[\u02c6-\u02df\u00a8\u2192]</mo>)\s*</munderover>",
    re.S,
)


def inline_math(writer: SphinxTranslator, node: nodes.math) -> None:
    """MathML, which browsers draw by themselves: no script to fetch from elsewhere."""
    writer.body.append(_mathml(node, block=False))
    raise nodes.SkipNode


def block_math(writer: SphinxTranslator, node: nodes.math_block) -> None:
    """The same on a line of its own."""
    writer.body.append(f'<div class="formula">{_mathml(node, block=True)}</div>')
    raise nodes.SkipNode


def _mathml(node: nodes.Element, block: bool) -> str:
    source = node.astext()
    try:
        mathml = tex2mathml("{}" + source if source[0] in "^_" else source, as_block=block)
        mathml = mathml.replace("\N{REVERSE SOLIDUS OPERATOR}", "\\")  # few fonts have that one
        mathml = FENCE.sub(r'<mo stretchy="false" lspace="0" rspace="0">\1</mo>', mathml)
        mathml = ACCENTED.sub(r'<msub><mover accent="true">\1\3</mover>\2</msub>', mathml)
        return BAR.sub(r'<mrow class="overline">\1</mrow>', mathml)
    except MathError as error:
        logging.getLogger(__name__).warning("formula %s: %s", source, error, location=node)
        return html.escape(source)


def plain_bars(app: Sphinx, what: str, name: str, obj: object, options, lines: list[str]) -> None:
    """Let |x| in a docstring be a length; reStructuredText takes it for a substitution."""
    for i, line in enumerate(lines):
        parts = line.split("``")  # every second one is code
        parts[::2] = [part.replace("|", r"\|") for part in parts[::2]]
        lines[i] = "``".join(parts)


def name_empty_headers(app: Sphinx, document: nodes.document) -> None:
    """A header cell that is empty, above the names of the rows, says so to who cannot see it."""
    for entry in (e for head in document.findall(nodes.thead) for e in head.findall(nodes.entry)):
        if not entry.astext().strip():
            entry.clear()
            entry += nodes.paragraph("", "", nodes.inline("", "name", classes=["visually-hidden"]))


def setup(app: Sphinx) -> None:
    app.connect("doctree-read", name_empty_headers)
    app.connect("autodoc-process-docstring", plain_bars)
    app.add_html_math_renderer("mathml", (inline_math, None), (block_math, None))
