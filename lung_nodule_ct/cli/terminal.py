"""Output of commands: tables, findings, JSON."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from lung_nodule_ct.errors import printable

if TYPE_CHECKING:
    from lung_nodule_ct.declaration.findings import Finding

_UNWRAPPED = 1_000_000
"""Columns of a pipe."""
_MAX_PER_CODE = 5
"""Findings that are printed of each code."""


def terminal() -> Any:
    """The console of rich, for output to people. Lines are wrapped only on a terminal, so that a pipe receives each line as one."""
    from rich.console import Console

    is_wrapped = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console() if is_wrapped else Console(width=_UNWRAPPED)


def print_indented(text: str) -> None:
    """Print lines with markup, indented by four columns, also where a terminal wraps them."""
    from rich.padding import Padding

    console = terminal()
    if console.width == _UNWRAPPED:  # padding would fill every line
        console.print("\n".join(f"    {line}" for line in text.split("\n")), highlight=False)
    else:
        console.print(Padding(text, (0, 0, 0, 4)), highlight=False)


def print_json(document: Any) -> None:
    """Print a document for a program, in the encoding of the output."""
    print(json.dumps(document, indent=2, ensure_ascii=(sys.stdout.encoding or "").lower() not in ("utf-8", "utf8")))


def new_table(*texts: str, **more: bool) -> Any:
    """A table that fits 80 columns; ``more`` names further columns, ``True`` for columns of numbers."""
    from rich.table import Column, Table

    columns = [Column(text, no_wrap=True) for text in texts]
    columns += [Column(name, justify="right" if number else "left", no_wrap=True) for name, number in more.items()]
    return Table(*columns, box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold underline")


def print_findings(findings: list[Finding]) -> None:
    """Print findings, the highest grade first, with names as in the archives; a few findings of each code."""
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
        for finding in own[:_MAX_PER_CODE]:
            text = "; ".join(part for part in (str(finding.place), finding.detail, finding.resolution) if part)
            console.print(f"    {escape(printable(text))}", highlight=False, soft_wrap=True)
        if more := sum(finding.count for finding in own[_MAX_PER_CODE:]):
            console.print(
                f"    … and {more:,} more; findings.json lists the first hundred of each archive", highlight=False
            )
