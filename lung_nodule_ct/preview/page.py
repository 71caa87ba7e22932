"""The page as one file: template, style, code and data joined, safe against what the data say, written whole or not at all."""

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
"""By which a page of ours is known."""

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
_HEAD = 4096


def render_page(document: Document) -> str:
    """The page's HTML.

    Texts from the data stand in JSON blocks only, where ``<``, ``>`` and ``&`` are escaped; the page's code sets them as
    text. Its content security policy lets no other code run and nothing be loaded.
    """
    style, script = _own("page.css"), "\n".join(map(_own, _SCRIPTS))
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    blocks = [("document", document.page), *document.slices.items()]
    return Template(_own("page.html")).substitute(
        mark=MARK,
        policy=policy,
        title=escape(document.page["title"]),
        style=style,
        script=script,
        data="\n".join(
            f'<script type="application/json" id="{name}">{_json(content)}</script>' for name, content in blocks
        ),
    )


def check_out(out: Path) -> None:
    """Refuse a place where the page would overwrite something else.

    Raises:
        OutputError: There is a folder, or a file that is no page of ours.
    """
    if not out.exists():
        return
    head = ""
    if out.is_file():
        with contextlib.suppress(OSError), out.open("rb") as file:
            head = file.read(_HEAD).decode("utf-8", "replace")
    if MARK not in head:
        raise OutputError(
            f"the output {out} exists and is no preview of ours",
            expected="a new file, or a page that an earlier preview wrote",
            got="a folder" if out.is_dir() else "another file",
            remedy="choose another --out, or remove it",
        )


def write_page(page: str, out: Path) -> None:
    """Write the page whole or not at all.

    Raises:
        OutputError: It cannot be written.
    """
    try:
        write_atomically(out, page)
    except OSError as error:
        raise OutputError(f"the output {out} cannot be written: {error}") from error


def _own(name: str) -> str:
    return (files("lung_nodule_ct.preview") / name).read_text("utf-8")


def _json(content: Any) -> str:
    """JSON in ASCII that no HTML parser takes for markup."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")


def _hash(inline: str) -> str:
    """What a content security policy calls an inline block (CSP Level 3, 2.3.1)."""
    return f"sha256-{base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()}"
