"""What every kind of config is made of: units of work, examples, and the family that plans and makes them.

A :class:`Family` holds the two steps of one kind: ``plan`` turns a config and its archives into units, reading directories and tables
only; ``make`` turns one unit into examples. A unit is small, picklable and complete: a worker process needs a unit, its family and the
archives, but not the plan. The same unit always gives the same bytes. The functions of this module make the findings that the plans of several kinds share.

:func:`number_scans` gives the numbers of the scans of a source. A scan has the same id in every config because all archives whose names state patient and date are counted, whichever the config reads.
Only their directories are read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar
from weakref import WeakKeyDictionary

from lung_nodule_ct.declaration.archives import NAMING_ROLES, Role, archives_of
from lung_nodule_ct.declaration.findings import Code, Finding
from lung_nodule_ct.declaration.identity import Name, ScanNumbers, parse_image_name, parse_volume_name, quoted
from lung_nodule_ct.declaration.published import CountedExample
from lung_nodule_ct.errors import ArchiveError, ArchiveNotFoundError, MemberError, Place
from lung_nodule_ct.formats.pictures import SUFFIXES
from lung_nodule_ct.formats.tables import MAX_TABLE_BYTES
from lung_nodule_ct.sources.unrecognised import archives_inside
from lung_nodule_ct.sources.zip_member import read_member

if TYPE_CHECKING:
    from lung_nodule_ct.declaration.configs import Config
    from lung_nodule_ct.examples.uses import PlanReport, Uses
    from lung_nodule_ct.formats.tables import Parsed
    from lung_nodule_ct.sources.source import ArchivePool, Source
    from lung_nodule_ct.sources.zip_directory import Archive, Member
    from lung_nodule_ct.system.memory import BufferPool

ParsedT = TypeVar("ParsedT")

_MAX_NAMES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One unit of work. Most kinds make one example from it; ``num_examples`` is ``None`` if only reading it shows how many.

    Attributes:
        split: The split of its examples.
        source_name: Its name in the archives. A thin and a thick scan of one day share it.
        patient_id: The patient, ``None`` if the name contains none.
        scan_id: The id of the scan, ``None`` without a patient.
        fold: The fold of the patient, ``None`` without a patient.
    """

    split: str
    source_name: str
    patient_id: str | None = None
    scan_id: str | None = None
    fold: int | None = None

    @property
    def members(self) -> tuple[Member, ...]:
        """The members that are read, the main one first; their sizes are the cost of the unit."""
        raise NotImplementedError

    @property
    def likely_members(self) -> tuple[Member, ...]:
        """Those of :attr:`members` of which only the example shows whether it is read from them."""
        return ()

    @property
    def rows(self) -> tuple[Place, ...]:
        """The rows of tables that are part of it."""
        return ()

    @property
    def num_examples(self) -> int | None:
        """Number of examples that it makes."""
        return 1

    def counted(self) -> CountedExample:
        """What it contributes to the published counts."""
        return CountedExample(self.split, self.patient_id, self.scan_id)

    @property
    def packed_bytes(self) -> int:
        """Size of the members as compressed in the archives, which is close to their size in Parquet."""
        return sum(member.packed for member in self.members)


@dataclass(frozen=True, slots=True)
class Example:
    """One example.

    Attributes:
        row: Its values by column name, ``source_name`` included. Voxels are arrays (z, y, x), pictures their encoded bytes.
        pixels_key: Equal for equal voxels, and for equal pixels of pictures that were encoded in one way.
        findings: What was wrong with the data that were read for it.
        read: The members that it was read from, if its unit has likely members.
    """

    row: Mapping[str, object]
    pixels_key: str
    findings: tuple[Finding, ...] = ()
    read: tuple[Member, ...] = ()


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An example that cannot be made, because its data do not say what a column must say.

    Attributes:
        findings: What was wrong with the data.
    """

    findings: tuple[Finding, ...]

    def __post_init__(self) -> None:
        if not self.findings:
            raise ValueError("findings: nothing is left out without a reason")


@dataclass(frozen=True, slots=True)
class Reading:
    """What a family needs to read a unit.

    Attributes:
        archives: The open archives.
        buffers: Memory for voxels. With a plain ``BufferPool`` they are valid until the next unit is made.
        keep_metadata: Keep the metadata of pictures, which may identify a patient.
    """

    archives: ArchivePool
    buffers: BufferPool
    keep_metadata: bool = False


UnitT = TypeVar("UnitT", bound=Unit)


@dataclass(frozen=True, slots=True)
class Planned(Generic[UnitT]):
    """The result of planning a config.

    Attributes:
        units: The units in the order in which they are written.
        findings: What was wrong with the archives.
        uses: What was done with the members and rows that are not part of a unit.
    """

    units: Sequence[UnitT]
    findings: Sequence[Finding]
    uses: Uses

    def without(self, units: Sequence[UnitT], finding: Finding) -> Planned[UnitT]:
        """The same without some units, which a finding reports."""
        members = [member for unit in units for member in unit.members]
        rows = [row for unit in units for row in unit.rows]
        left_out = set(map(id, units))
        kept = [unit for unit in self.units if id(unit) not in left_out]
        return Planned(kept, (*self.findings, finding), self.uses.without(members, rows))


@dataclass(frozen=True, slots=True)
class Family(Generic[UnitT]):
    """How the examples of one kind of config are planned and made. Both functions must be importable by worker processes.

    Attributes:
        plan: ``plan(config, source)`` returns the units, and what was found in the archives and done with their members. It raises ``ArchiveNotFoundError``
            if an archive that the config reads is missing, and ``MemberError`` for a damaged table.
        make: ``make(unit, reading)`` returns the examples of a unit, and those that are left out. It raises ``MemberError`` for a
            damaged member.
    """

    plan: Callable[[Config, Source], Planned[UnitT]]
    make: Callable[[UnitT, Reading], Sequence[Example | LeftOut]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageUnit(Unit):
    """A unit that reads one image.

    Attributes:
        image: The encoded image.
        image_id: The id of the image; empty until :func:`number_images` gives it one.
    """

    image: Member
    image_id: str = ""


ImageUnitT = TypeVar("ImageUnitT", bound=ImageUnit)


def leave_out_unused(archive: Archive, members: Sequence[Member], report: PlanReport) -> None:
    """Add one finding for all members that the layout does not describe; none if there are no such members."""
    report.reports(*members)
    report.extend(unused_members(archive.name, members))


def unused_members(archive: str, members: Sequence[Member]) -> list[Finding]:
    """One finding for some members of an archive that are not used."""
    if not members:
        return []
    place = Place(archive, shortened([member.name for member in members]))
    return [Finding(Code.MEMBER_UNUSED, "left out", place, count=len(members))]


def empty_archive(archive: Archive, expected: str) -> Finding:
    """The finding that an archive contains nothing of what it should contain."""
    inside = archives_inside(archive)
    detail = f"no {expected}" + (f"; {inside}" if inside else "")
    return Finding(Code.ARCHIVE_EMPTY, "nothing is taken from it", archive.place, detail)


def table_findings(table: Parsed[Any], member: Member, expected: str) -> list[Finding]:
    """What was odd about the rows of a table."""
    place = member.place
    findings = [
        row_finding(Code.BAD_ROW, "left out", place, row.reference, f"{row.problem}; a row has {expected}")
        for row in table.bad
    ]
    if further := table.bad_count - len(table.bad):
        findings.append(Finding(Code.BAD_ROW, "left out", place, "further rows that cannot be read", further))
    if not table.good:
        detail = f"expected rows of {expected}, got {table.bad_count:,} that cannot be read"
        findings.append(Finding(Code.TABLE_EMPTY, "nothing is taken from it", place, detail))
    if table.unknown_header is not None:
        names = ", ".join(table.guessed)
        resolution = f"taken by their position: {names}" if names else "these columns are not read"
        findings.append(row_finding(Code.TABLE_HEADER_UNKNOWN, resolution, place, table.unknown_header.reference))
    if table.skipped:
        row = table.skipped[0].reference
        count = len(table.skipped)
        findings.append(
            Finding(Code.TABLE_LINES_SKIPPED, "not read", Place(place.archive, place.member, row), count=count)
        )
    if table.converted:
        first = table.good[0].row.reference if table.good else None
        findings.append(
            Finding(Code.TABLE_COLUMN_CONVERTED, table.converted, Place(place.archive, place.member, first))
        )
    return findings


def parse_member(
    member: Member, archives: ArchivePool, parse: Callable[[bytes], ParsedT], *, limit: int = MAX_TABLE_BYTES
) -> tuple[bytes, ParsedT]:
    """Read a table or a list, and return its content and what it is parsed to.

    Args:
        member: The file.
        archives: The open archives.
        parse: Parses its content, and raises ``ValueError`` if it exceeds a limit.
        limit: The maximum size in bytes.

    Raises:
        MemberError: The member is damaged, or exceeds a limit.
    """
    data = read_member(member, archives, limit=limit)
    try:
        return data, parse(data)
    except ValueError as error:
        raise MemberError(
            "exceeds a limit that no table of this dataset reaches",
            archive=member.archive,
            member=member.name,
            got=error,
            remedy="if the file is as published, report it",
        ) from error


def row_finding(code: Code, resolution: str, table: Place, row: str, detail: str | None = None) -> Finding:
    """A finding about one row of a table."""
    return Finding(code, resolution, Place(table.archive, table.member, row), detail)


def shortened(names: Sequence[str]) -> str:
    """The first few of some names, separated by commas."""
    return ", ".join(names[:_MAX_NAMES]) + (", …" if len(names) > _MAX_NAMES else "")


def unique_images(units: Sequence[ImageUnitT], report: PlanReport) -> list[ImageUnitT]:
    """The units of images, each name once. Repeated names and images without a patient are reported."""
    first: dict[str, ImageUnitT] = {}
    for unit in units:
        if (kept := first.setdefault(unit.source_name, unit)) is not unit:
            detail = f"the same name as {quoted(kept.image.name)}"
            report.add(Code.DUPLICATE_ID, "left out, the first is used", unit.image.place, detail)
            report.reports(unit.image)
    nameless = [unit.image.name for unit in first.values() if unit.patient_id is None]
    if nameless:
        place = Place(units[0].image.archive, shortened(nameless))
        report.add(Code.NO_PATIENT, "patient_id, scan_id and fold are null", place, count=len(nameless))
    return list(first.values())


def number_images(units: Sequence[ImageUnitT], numbers: ScanNumbers) -> list[ImageUnitT]:
    """The units of the images of an archive with the ids of their scans and images."""
    names = [parse_image_name(unit.image.stem) for unit in units]
    ids = numbers.image_ids([(unit.image.name, name) for unit, name in zip(units, names, strict=True)])
    return [
        replace(unit, image_id=image_id, scan_id=numbers.scan_id(name))
        for unit, name, image_id in zip(units, names, ids, strict=True)
    ]


HEADER_SUFFIXES: Final = (".mhd", ".mha")
_OF_IMAGES: Final = (Role.CLASSIFICATION, Role.DETECTION_2D)


@dataclass(frozen=True)
class Numbering:
    """The numbers of the scans of a source.

    Attributes:
        numbers: The numbers.
        archives: Published names of the archives that they come from.
        sha256: A hash of the numbers and of the members that have them. It contains no name.
        findings: Archives that are missing or cannot be read, so that their scans are not counted.
    """

    numbers: ScanNumbers
    archives: tuple[str, ...]
    sha256: str
    findings: tuple[Finding, ...]


_NUMBERINGS: WeakKeyDictionary[Source, Numbering] = WeakKeyDictionary()


def number_scans(source: Source) -> Numbering:
    """Return the numbers of the scans of a source. The directories are read once per source.

    Raises:
        DownloadError: A server does not send a directory. The scans are not numbered without it, because they would have other numbers.
    """
    if source not in _NUMBERINGS:
        _NUMBERINGS[source] = _number(source)
    return _NUMBERINGS[source]


def _number(source: Source) -> Numbering:
    named: list[tuple[str, Member, Name]] = []
    archives, findings, missing = [], [], []
    for role in NAMING_ROLES:
        for spec in archives_of(role):
            if not source.has(spec):
                missing.append(spec.name)
                continue
            try:
                archive = source.archive(spec)
            except (ArchiveNotFoundError, ArchiveError, MemberError):
                findings.append(_not_counted(Place(spec.name), "it cannot be read", 1))
                continue
            archives.append(spec.name)
            named += [(spec.name, member, name) for member, name in _names_of(archive, role)]
    if missing:
        findings.append(_not_counted(Place(", ".join(missing)), "missing", len(missing)))
    numbers = ScanNumbers(name for _, _, name in named)
    digest = hashlib.sha256()
    for archive_name, member, name in named:
        digest.update(f"{archive_name}\0{member.size}\0{numbers.scan_id(name)}\0".encode())
    return Numbering(numbers, tuple(archives), digest.hexdigest(), tuple(findings))


def _names_of(archive: Archive, role: Role) -> list[tuple[Member, Name]]:
    suffixes, parse = (SUFFIXES, parse_image_name) if role in _OF_IMAGES else (HEADER_SUFFIXES, parse_volume_name)
    return [(member, parse(member.stem)) for member in archive.members if member.suffix in suffixes]


def _not_counted(place: Place, detail: str, count: int) -> Finding:
    return Finding(Code.CONTEXT_MISSING, "the numbers in scan_id are counted without it", place, detail, count)
