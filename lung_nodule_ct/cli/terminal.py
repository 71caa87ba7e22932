"""How commands print: tables, findings, JSON."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from lung_nodule_ct.errors import printable

if TYPE_CHECKING:
    from lung_nodule_ct.declaration.findings import Finding


def terminal() -> Any:
    """Where answers for people go: rich's console."""
    from rich.console import Console

    return Console()


def print_json(document: Any) -> None:
    """Print ``document`` for a program, in whatever encoding the output has."""
    print(json.dumps(document, indent=2, ensure_ascii=(sys.stdout.encoding or "").lower() not in ("utf-8", "utf8")))


def new_table(*texts: str, **more: bool) -> Any:
    """A table that fits 80 columns; ``more`` names further columns, those of numbers by ``True``."""
    from rich.table import Column, Table

    columns = [Column(text, no_wrap=True) for text in texts]
    columns += [Column(name, justify="right" if number else "left", no_wrap=True) for name, number in more.items()]
    return Table(*columns, box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold underline")


def print_findings(findings: list[Finding]) -> None:
    """The findings, the gravest first and each as it stands in the archives; a few of each code."""
    from rich.markup import escape

    from lung_nodule_ct.declaration.findings import summarize

    console = terminal()
    colours = {"error": "red", "warning": "yellow", "note": "cyan"}
    for code, entry in summarize(findings).items():
        own = [finding for finding in findings if finding.code == code]
        head = (
            f"[{colours[entry['grade']]}]{entry['grade']}[/] [bold]{code}[/] x {entry['count']:,}: {entry['meaning']}"
        )
        console.print(head, highlight=False)
        for finding in own[:_SHOWN]:
            place = " > ".join(part for part in (finding.archive, finding.member, finding.row) if part)
            text = "; ".join(part for part in (place, finding.detail, finding.action) if part)
            console.print(f"    {escape(printable(text))}", highlight=False, soft_wrap=True)
        if len(own) > _SHOWN:
            console.print(f"    … and {len(own) - _SHOWN:,} more in findings.json", highlight=False)


_SHOWN = 5
