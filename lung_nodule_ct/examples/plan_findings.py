"""Findings that several planners make in the same way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from lung_nodule_ct.declaration.findings import Code, Finding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lung_nodule_ct.examples.family import CropUnit, SliceUnit
    from lung_nodule_ct.formats.tables import Parsed
    from lung_nodule_ct.sources.zip_directory import Archive

    Image = TypeVar("Image", CropUnit, SliceUnit)


def unused_members(archive: Archive, names: Sequence[str]) -> list[Finding]:
    """One finding for all members that no rule of the layout claims."""
    if not names:
        return []
    return [Finding(Code.MEMBER_UNUSED, "left out", archive.name, shortened(names), count=len(names))]


def table_findings(table: Parsed[Any], place: tuple[str, str], expected: str) -> list[Finding]:
    """What was odd about the rows of a table."""
    findings = [Finding(Code.BAD_ROW, "left out", *place, row.place, f"expected {expected}") for row in table.bad]
    if not table.good:
        detail = f"expected rows of {expected}, got {len(table.bad):,} that cannot be read"
        findings.append(Finding(Code.TABLE_EMPTY, "nothing is taken from it", *place, detail=detail))
    if table.unknown_header is not None:
        action = f"taken by their position: {', '.join(table.guessed)}" if table.guessed else "these words are not read"
        findings.append(Finding(Code.TABLE_HEADER_UNKNOWN, action, *place, table.unknown_header.place))
    return findings


def shortened(names: Sequence[str]) -> str:
    """The first few of some names."""
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def unique_images(units: Sequence[Image], findings: list[Finding]) -> list[Image]:
    """The images, each name once; images without a patient are reported."""
    first: dict[str, Image] = {}
    for unit in units:
        if (kept := first.setdefault(unit.source_name, unit)) is not unit:
            detail = f"the same name as {kept.image.name}"
            findings.append(
                Finding(
                    Code.DUPLICATE_ID, "left out, the first is used", unit.image.archive, unit.image.name, detail=detail
                )
            )
    nameless = [unit.image.name for unit in first.values() if unit.patient_id is None]
    if nameless:
        findings.append(
            Finding(
                Code.NO_PATIENT,
                "patient_id, scan_id and fold are null",
                units[0].image.archive,
                shortened(nameless),
                count=len(nameless),
            )
        )
    return list(first.values())
