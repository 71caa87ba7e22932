"""The prose of ``card/``: one file a section, with ``${...}`` where a build fills in its own.

GitHub-flavoured Markdown in which text from data stays text.
"""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Final

from lung_nodule_ct.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


#: The sections, each a file ``card/<name>.md``.
SECTIONS: Final = (
    "summary",
    "motivation",
    "collection",
    "annotation",
    "preprocessing",
    "uses",
    "limits",
    "biases",
    "ethics",
    "privacy",
    "maintenance",
    "healthsheet",
)


def sections(facts: Mapping[str, str]) -> dict[str, str]:
    """The text of every section, in Markdown, with ``facts`` filled in."""
    return {name: fill(name, facts).strip() for name in SECTIONS}


def fill(name: str, facts: Mapping[str, str]) -> str:
    """One file of ``card/`` with ``facts`` filled in.

    Raises:
        KeyError: It asks for a fact that is not given.
    """
    packaged = files("lung_nodule_ct") / "card" / f"{name}.md"
    # in a checkout the prose stands beside the package
    home = packaged if packaged.is_file() else Path(__file__).parents[2] / "card" / f"{name}.md"
    return Template(home.read_text(encoding="utf-8")).substitute(facts)


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
