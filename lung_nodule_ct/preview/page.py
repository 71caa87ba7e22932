"""The page as one file: template, style, scripts and data joined, so that no text of the data can become markup."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
from html import escape
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, Any, Final

from lung_nodule_ct.errors import OutputError
from lung_nodule_ct.system.files import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from lung_nodule_ct.preview.document import Document

MARK: Final = '<meta name="generator" content="lung_nodule_ct preview">'
"""The line that identifies a page as an output of this package."""

_SCRIPTS = (
    "dom.js",
    "marks.js",
    "volume.js",
    "pane.js",
    "scan.js",
    "viewer.js",
    "gallery.js",
    "patients.js",
    "audit.js",
    "main.js",
)
_HEAD_BYTES = 4096


def render_page(document: Document) -> str:
    """Return the HTML of the page.

    Texts of the data are only in JSON blocks, where ``<``, ``>`` and ``&`` are escaped, and the scripts set them as
    text. The content security policy of the page lets no other script run and nothing be loaded.
    """
    style, script = _resource("page.css"), "\n".join(map(_resource, _SCRIPTS))
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_csp_hash(style)}'; script-src '{_csp_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    blocks = [("document", document.page), *document.slices.items()]
    return Template(_resource("page.html")).substitute(
        mark=MARK,
        policy=policy,
        title=escape(document.page["title"]),
        style=style,
        script=script,
        data="\n".join(
            f'<script type="application/json" id="{name}">{_json(content)}</script>' for name, content in blocks
        ),
    )


def check_output(out: Path) -> None:
    """Refuse to overwrite a file that is not a preview page.

    Raises:
        OutputError: ``out`` is a folder, or another file.
    """
    if not out.exists():
        return
    head = ""
    if out.is_file():
        with contextlib.suppress(OSError), out.open("rb") as file:
            head = file.read(_HEAD_BYTES).decode("utf-8", "replace")
    if MARK not in head:
        raise OutputError(
            f"the output {out} exists and is not a preview page",
            expected="a new file, or a page that an earlier preview wrote",
            got="a folder" if out.is_dir() else "another file",
            remedy="choose another --out",
        )


def write_page(page: str, out: Path) -> None:
    """Write the page atomically.

    Raises:
        OutputError: The page cannot be written.
    """
    try:
        write_atomically(out, page)
    except OSError as error:
        raise OutputError(f"the output {out} cannot be written: {error}") from error


def _resource(name: str) -> str:
    return (files("lung_nodule_ct.preview") / name).read_text("utf-8")


def _json(content: Any) -> str:
    """Return ASCII JSON that no HTML parser reads as markup."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")


def _csp_hash(inline: str) -> str:
    """Return the hash source of an inline block (CSP Level 3, 2.3.1)."""
    return f"sha256-{base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()}"
