"""GitHub-flavoured Markdown in which text from data stays text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lung_nodule_ct.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

_SPECIAL = re.compile(r"[\\`*_{}\[\]()#+!|~$^-]|(?<=\d)\.(?=\s)|(?<=\w)[:@.](?=[\w/])")


def escape(text: str) -> str:
    """``text`` on one line, with nothing in it that Markdown or HTML would act on (no links of its own making, either)."""
    plain = printable(" ".join(text.split()))
    marked = _SPECIAL.sub(lambda found: "\\" + found.group(), plain)
    return marked.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table; cells are Markdown, so that text from data is escaped before."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(re.sub(r"(?<!\\)\|", r"\\|", cell) for cell in line) + " |" for line in lines)
