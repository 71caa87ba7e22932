"""The documentation site: ``sphinx-build -W docs OUT``, without a network. ``nox -s docs`` installs what it needs."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pygments.lexers.special import TextLexer
from sphinx.util import logging

sys.path.insert(0, str(Path(__file__).parent))
import make_architecture
import make_reference

if TYPE_CHECKING:
    from sphinx.application import Sphinx

DOCS: Final = Path(__file__).parent

project = "lung_nodule_ct"
author = "The lung_nodule_ct maintainers"
copyright = f"2026, {author}"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "**/.ipynb_checkpoints", "**/build/**"]

autodoc_member_order = "bysource"
autodoc_mock_imports = ["torch"]  # 700 MB for signatures
autodoc_typehints = "description"
autodoc_typehints_format = "short"
autodoc_class_signature = "separated"
napoleon_use_ivar = True

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4

nb_execution_mode = "force"
nb_execution_timeout = 60
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_ipywidgets_js = {}

html_theme = "pydata_sphinx_theme"
html_title = "lung_nodule_ct"
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {"show_prev_next": True, "navigation_with_keys": False, "secondary_sidebar_items": ["page-toc"]}

_LOADED = re.compile(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"(https?:)?//|<link\b[^>]*\bhref=\"(https?:)?//")
_MERMAID = re.compile(r"```mermaid\n.*?```", re.DOTALL)


def _adapt_for_the_site(_app: Sphinx, document: str, content: list[str]) -> None:
    """Replace what only GitHub shows: the diagram of rooms, for which a browser would need a script, and a link out of ``docs``."""
    if document == "architecture":
        content[0] = _MERMAID.sub(lambda _: make_architecture.layer_table(), content[0])
    content[0] = content[0].replace("](../benchmarks/RESULTS.md)", "](/benchmarks.md)")


def _check_offline(app: Sphinx, error: Exception | None) -> None:
    """Warn of every page that loads something from a server when it is viewed."""
    if error is None:
        for page in sorted(Path(app.outdir).rglob("*.html")):
            if _LOADED.search(page.read_text(encoding="utf-8")):
                logging.getLogger(__name__).warning("%s loads a file from a server", page.relative_to(app.outdir))


def setup(app: Sphinx) -> None:
    """Write the generated pages of the reference, and check that the site can be viewed without a network."""
    make_reference.write(DOCS / "reference")
    app.add_lexer("mermaid", TextLexer)
    app.connect("source-read", _adapt_for_the_site)
    app.connect("build-finished", _check_offline)
