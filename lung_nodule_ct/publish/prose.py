"""The prose of a card: the Markdown files of ``card/``, with the facts of a build filled in.

The card and Croissant share it. Text that comes from data is escaped, so that it cannot act as Markdown or HTML.
"""

from __future__ import annotations

import re
from datetime import date
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Final, NamedTuple

from lung_nodule_ct.declaration.archives import DEFAULT_RELEASE
from lung_nodule_ct.declaration.labels import PATHOLOGY
from lung_nodule_ct.declaration.published import DOI
from lung_nodule_ct.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lung_nodule_ct.read.build_folder import BuildFolder

TITLE: Final = "Cross spatio-temporal pathology-based lung nodule CT"
TAGS: Final = ("medical", "radiology", "ct", "chest", "lung-nodule", "pathology", "longitudinal", "biology")

#: The sections of a card, each from the file ``card/<name>.md``.
SECTIONS: Final = (
    "summary",
    "origin",
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

# Of the archives that the repository embeds: the pictures that every config but one reads, or takes the numbers of scans from, and the
# first stacks, which the other config reads.
_EMBEDDED: Final = frozenset(
    {
        "b71906f3678ea597fb8040a0cd59c7c5fdcbf4984135ca60a12cc6e855d6b600",
        "db00c0f05afb5cb42ccc7448d9f3d733c6f03ff1cb81f3e1c26df658431c5395",
    }
)

# Characters of Markdown; the full stop of a numbered list; and what makes an address of "http://x", "a@b" or "www.x".
_SPECIAL = re.compile(r"[\\`*_{}\[\]()#+!|~$^-]|(?<=\d)\.(?=\s)|(?<=\w)[:@.](?=[\w/])")


class RecordLink(NamedTuple):
    """A Zenodo record: its number, its address, and its DOI if it is known."""

    number: str
    url: str
    doi: str | None


def prose_of(build: BuildFolder) -> dict[str, str]:
    """Return the sections of a card in Markdown, with the facts of a build filled in."""
    facts = build_facts(build)
    return {name: fill(name, facts).strip() for name in SECTIONS}


def build_facts(build: BuildFolder) -> dict[str, str]:
    """Return the facts of a build that the sections mention, in Markdown."""
    shared = {
        f"{name}, {splits}": count
        for name, pairs in build.report["shared_patients"].items()
        for splits, count in pairs.items()
    }
    return {
        "doi": DOI,
        "records": ", ".join(
            f"[{escape(number)}]({url}){f' (DOI {escape(doi)})' if doi else ''}"
            for number, url, doi in record_links(build)
        ),
        "classes": ", ".join(
            f"{entry.folder} {entry.name} ({'malignant' if entry.malignant else 'benign'})" for entry in PATHOLOGY
        ),
        "shared": ", ".join(f"{count} in {splits}" for splits, count in shared.items() if count)
        or "none in this build",
        "dates": (
            "This build keeps the source names, so **it contains those dates**."
            if build.manifest["keep_source_names"]
            else "This build does not contain them: a scan has its rank in time, and the days since the first scan."
        ),
    }


def shows_phantoms(build: BuildFolder) -> bool:
    """Whether a build was made from the archives that the repository embeds, whose scans are phantoms."""
    return not _EMBEDDED.isdisjoint(build.manifest["source"].values())


def warnings(build: BuildFolder) -> dict[str, str]:
    """Return what a reader must know before anything else: that scans are phantoms, or that examples were left out; empty if not so."""
    return {
        "phantoms": fill("phantoms", {}).strip() if shows_phantoms(build) else "",
        "limited": "" if build.limit is None else fill("limited", {"limit": str(build.limit)}).strip(),
    }


def licences(build: BuildFolder) -> list[str]:
    """Return the licences of the records; none if the licence of any record is unknown, because it is never assumed."""
    records = build.manifest["records"]
    known = [record["licence"] for record in records if record["licence"]]
    return sorted(set(known)) if known and len(known) == len(records) else []


def date_published(build: BuildFolder) -> date | None:
    """Return the day on which the last of the records was published, ``None`` if that of any record is unknown."""
    days = [record.get("datePublished") for record in build.manifest["records"]]
    return date.fromisoformat(max(days)) if days and all(days) else None


def record_links(build: BuildFolder) -> list[RecordLink]:
    """Return the records of the archives; those of the published release if the build was made from a folder."""
    records = [
        RecordLink(str(record["number"]), f"https://zenodo.org/records/{int(record['number'])}", record["doi"])
        for record in build.manifest["records"]
    ]
    return records or [
        RecordLink(str(DEFAULT_RELEASE.record(part)), DEFAULT_RELEASE.url(part), None) for part in ("A", "B")
    ]


def fill(name: str, facts: Mapping[str, str]) -> str:
    """Return a file of ``card/`` with the facts in place of ``${...}``.

    Raises:
        KeyError: A fact is missing.
    """
    packaged = files("lung_nodule_ct") / "card" / f"{name}.md"
    # in a checkout, the folder is next to the package
    path = packaged if packaged.is_file() else Path(__file__).parents[2] / "card" / f"{name}.md"
    return Template(path.read_text(encoding="utf-8")).substitute(facts)


def escape(text: str) -> str:
    r"""Return ``text`` on one line, escaped so that Markdown and HTML show it as it is, without links.

    Example:
        >>> escape("<b> | c_d")
        '&lt;b&gt; \\| c\\_d'
    """
    plain = printable(" ".join(text.split()))
    marked = _SPECIAL.sub(lambda match: "\\" + match.group(), plain)
    return marked.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def markdown_table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Return a table of GitHub-flavoured Markdown. Cells are Markdown: escape text that comes from data first."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(re.sub(r"(?<!\\)\|", r"\\|", cell) for cell in line) + " |" for line in lines)
