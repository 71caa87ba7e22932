"""``lung-nodule-ct audit`` and ``lung-nodule-ct verify``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lung_nodule_ct.cli.options import Json
from lung_nodule_ct.cli.terminal import print_indented, print_json, terminal

if TYPE_CHECKING:
    from lung_nodule_ct.audit import Audit

_MAX_NAMES = 20


def audit(
    build: Annotated[Path, typer.Argument(metavar="BUILD", help="The folder of a build, Parquet or Arrow.")],
    only: Annotated[
        list[str] | None,
        typer.Option(help="A group of checks, such as evidence; repeat it for several. Nothing is written."),
    ] = None,
    patient: Annotated[
        str | None, typer.Option(help="Check the rows of this patient only. Nothing is written.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check that the data of a build match their description. Writes a table, audit.json, a page and plots."""
    from lung_nodule_ct.audit import audit_build, write_audit
    from lung_nodule_ct.audit.report import AUDIT_FOLDER, INSTALL, PICTURES
    from lung_nodule_ct.read.audit_report import AUDIT
    from lung_nodule_ct.read.build_folder import open_build
    from lung_nodule_ct.system.imports import is_installed
    from lung_nodule_ct.system.progress import BuildProgressBar

    with BuildProgressBar() as progress:
        result = audit_build(open_build(build), progress, only=only or (), patient=patient)
    is_part = bool(only) or patient is not None
    plots = None if is_part else write_audit(build, result)
    if as_json:
        print_json(result.document())
        return
    _print(result)
    console = terminal()
    if is_part:
        console.print("a part of the audit, not written", highlight=False)
        return
    if not is_installed("scipy"):
        console.print(
            "voxels were not checked:",
            'pip install "lung_nodule_ct[imaging]"',
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    console.print(
        f"written to {build / AUDIT} and {build / AUDIT_FOLDER / 'index.html'}", highlight=False, soft_wrap=True
    )
    if plots is None:
        console.print(
            "no plots, because matplotlib is not installed:", INSTALL, markup=False, highlight=False, soft_wrap=True
        )
    elif plots:
        console.print(f"{len(plots)} plots in {build / PICTURES}", highlight=False, soft_wrap=True)


def verify(
    build: Annotated[
        str, typer.Argument(metavar="BUILD", help="The folder of a build of any format, or its URL (s3://...).")
    ],
    as_json: Json = False,
) -> None:
    """Compare every file of a build with the sizes and hashes in its manifest. The exit code is 1 if a file is not as it was written."""
    from lung_nodule_ct.errors import printable
    from lung_nodule_ct.read.verification import verify as verify_build
    from lung_nodule_ct.system.progress import BuildProgressBar

    with BuildProgressBar("files") as progress:
        result = verify_build(build, progress)
    if as_json:
        print_json(result.to_dict())
    else:
        lines = [*map(str, result.faults)]
        if result.foreign:
            more = f" and {len(result.foreign) - _MAX_NAMES:,} more" if len(result.foreign) > _MAX_NAMES else ""
            lines.append(f"not of this build, and not checked: {', '.join(result.foreign[:_MAX_NAMES])}{more}")
        lines += [f"not proven: {sentence}" for sentence in result.unproven]
        state = f"{len(result.faults):,} files are not as they were written" if result.faults else "no fault"
        lines.append(
            f"{state}; {result.files:,} files with {result.num_bytes:,} bytes have the recorded size and sha256; "
            f"sha256 of build.json: {result.manifest_sha256}"
        )
        for line in lines:
            terminal().print(printable(line), markup=False, highlight=False, soft_wrap=True)
    if not result.is_sound:
        raise typer.Exit(1)


def _print(audit: Audit) -> None:
    """Print one line per check, then the details of the checks that did not pass."""
    from collections import Counter

    from rich.markup import escape
    from rich.table import Column, Table

    from lung_nodule_ct.declaration.findings import Grade
    from lung_nodule_ct.errors import printable
    from lung_nodule_ct.read.audit_report import Verdict

    colours = {Verdict.PASS: "green", Verdict.WARN: "yellow", Verdict.FAIL: "red", Verdict.UNKNOWN: "dim"}
    console = terminal()
    table = Table(
        Column("verdict", no_wrap=True),
        Column("check", ratio=4),
        Column("measured", ratio=4),
        Column("expected", ratio=3),
        box=None,
        padding=(0, 2, 0, 0),
        pad_edge=False,
        header_style="bold underline",
        expand=sys.stdout.isatty(),  # a pipe would get the blanks up to its width
    )
    lines = [(check, check.to_dict()) for check in audit.checks if check.verdict is not Verdict.UNKNOWN]
    for check, texts in lines:
        verdict = f"[{colours[check.verdict]}]{check.verdict}[/]"
        table.add_row(verdict, *(escape(texts[key] or "") for key in ("title", "measured", "expected")))
    console.print(table, "")
    for check, texts in lines:
        if check.verdict in (Verdict.FAIL, Verdict.WARN) and texts["detail"]:
            console.print(
                f"[{colours[check.verdict]}]{check.verdict}[/] [bold]{escape(check.title)}[/]", highlight=False
            )
            print_indented(escape(texts["detail"]))
    counts = Counter(check.verdict for check in audit.checks)
    summary = ", ".join(f"[{colours[verdict]}]{counts[verdict]} {verdict}[/]" for verdict in Verdict)
    errors = sum(flag.grade is Grade.ERROR for flag in audit.flags)
    for flag in audit.flags[:_MAX_NAMES]:
        number = "" if flag.annotation is None else f", annotation {flag.annotation}"
        other = "" if flag.other is None else f" and {flag.other}"
        hint = "" if flag.hint is None else f". Hint: {flag.hint}"
        console.print(
            printable(f"{flag.grade}: {flag.check}: {flag.row}{number}{other}: {flag.measured}{hint}"),
            markup=False,
            highlight=False,
        )
    if len(audit.flags) > _MAX_NAMES:
        console.print(f"and {len(audit.flags) - _MAX_NAMES:,} more flags", highlight=False)
    if audit.annotations or audit.flags:
        console.print(
            f"{len(audit.flags):,} flags: {errors:,} errors, {len(audit.flags) - errors:,} warnings; "
            f"{len(audit.annotations):,} annotations judged",
            highlight=False,
        )
    console.print("", summary, highlight=False)
