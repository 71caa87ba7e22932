"""Findings that the plans of several kinds make in the same way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from lung_nodule_ct.declaration.findings import Code, Finding
from lung_nodule_ct.errors import Place

if TYPE_CHECKING:
    from lung_nodule_ct.declaration.findings import FindingCollector
    from lung_nodule_ct.formats.tables import Parsed
    from lung_nodule_ct.sources.zip_directory import Archive, Member

_MAX_NAMES = 5


class ImageUnit(Protocol):
    """A unit that reads one image."""

    @property
    def source_name(self) -> str:
        """Its name in the archives."""

    @property
    def patient_id(self) -> str | None:
        """The patient."""

    @property
    def image(self) -> Member:
        """The image."""


ImageUnitT = TypeVar("ImageUnitT", bound=ImageUnit)


def unused_members(archive: Archive, names: Sequence[str]) -> list[Finding]:
    """One finding for all members that the layout does not describe; none if there are no such members."""
    if not names:
        return []
    return [Finding(Code.MEMBER_UNUSED, "left out", Place(archive.name, shortened(names)), count=len(names))]


def empty_archive(archive: Archive, expected: str) -> Finding:
    """The finding that an archive contains nothing of what it should contain."""
    return Finding(Code.ARCHIVE_EMPTY, "nothing is taken from it", archive.place, f"no {expected}")


def table_findings(table: Parsed[Any], member: Member, expected: str) -> list[Finding]:
    """What was odd about the rows of a table."""
    place = member.place
    findings = [
        row_finding(Code.BAD_ROW, "left out", place, row.reference, f"expected {expected}") for row in table.bad
    ]
    if not table.good:
        detail = f"expected rows of {expected}, got {len(table.bad):,} that cannot be read"
        findings.append(Finding(Code.TABLE_EMPTY, "nothing is taken from it", place, detail))
    if table.unknown_header is not None:
        names = ", ".join(table.guessed)
        resolution = f"taken by their position: {names}" if names else "these columns are not read"
        findings.append(row_finding(Code.TABLE_HEADER_UNKNOWN, resolution, place, table.unknown_header.reference))
    return findings


def row_finding(code: Code, resolution: str, table: Place, row: str, detail: str | None = None) -> Finding:
    """A finding about one row of a table."""
    return Finding(code, resolution, Place(table.archive, table.member, row), detail)


def shortened(names: Sequence[str]) -> str:
    """The first few of some names, separated by commas."""
    return ", ".join(names[:_MAX_NAMES]) + (", …" if len(names) > _MAX_NAMES else "")


def unique_images(units: Sequence[ImageUnitT], report: FindingCollector) -> list[ImageUnitT]:
    """The units of images, each name once. Repeated names and images without a patient are reported."""
    first: dict[str, ImageUnitT] = {}
    for unit in units:
        if (kept := first.setdefault(unit.source_name, unit)) is not unit:
            detail = f"the same name as {kept.image.name}"
            report.add(Code.DUPLICATE_ID, "left out, the first is used", unit.image.place, detail)
    nameless = [unit.image.name for unit in first.values() if unit.patient_id is None]
    if nameless:
        place = Place(units[0].image.archive, shortened(nameless))
        report.add(Code.NO_PATIENT, "patient_id, scan_id and fold are null", place, count=len(nameless))
    return list(first.values())
