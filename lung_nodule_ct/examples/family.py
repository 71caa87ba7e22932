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
from lung_nodule_ct.declaration.identity import Name, ScanNumbers, parse_image_name, parse_volume_name
from lung_nodule_ct.declaration.published import CountedExample
from lung_nodule_ct.errors import ArchiveError, ArchiveNotFoundError, MemberError, Place
from lung_nodule_ct.formats.pictures import SUFFIXES

if TYPE_CHECKING:
    from lung_nodule_ct.declaration.configs import Config
    from lung_nodule_ct.declaration.findings import FindingCollector
    from lung_nodule_ct.formats.tables import Parsed
    from lung_nodule_ct.sources.source import ArchivePool, Source
    from lung_nodule_ct.sources.zip_directory import Archive, Member
    from lung_nodule_ct.system.memory import BufferPool


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
        """The members that are certainly read; their sizes are the cost of the unit."""
        raise NotImplementedError

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
        pixels_key: Equal for equal pixels or voxels, however they were encoded.
        findings: What was wrong with the data that were read for it.
    """

    row: Mapping[str, object]
    pixels_key: str
    findings: tuple[Finding, ...] = ()


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
class Family(Generic[UnitT]):
    """How the examples of one kind of config are planned and made. Both functions must be importable by worker processes.

    Attributes:
        plan: ``plan(config, source)`` returns the units in the order in which they are written, and what was wrong with the archives.
            It raises ``ArchiveNotFoundError`` if an archive that the config reads is missing, and ``MemberError`` for a damaged table.
        make: ``make(unit, reading)`` returns the examples of a unit. It raises ``MemberError`` for a damaged member.
    """

    plan: Callable[[Config, Source], tuple[Sequence[UnitT], Sequence[Finding]]]
    make: Callable[[UnitT, Reading], Sequence[Example]]


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
        digest.update(f"{archive_name}\0{member.size}\0{member.crc}\0{numbers.scan_id(name)}\0".encode())
    return Numbering(numbers, tuple(archives), digest.hexdigest(), tuple(findings))


def _names_of(archive: Archive, role: Role) -> list[tuple[Member, Name]]:
    suffixes, parse = (SUFFIXES, parse_image_name) if role in _OF_IMAGES else (HEADER_SUFFIXES, parse_volume_name)
    return [(member, parse(member.stem)) for member in archive.members if member.suffix in suffixes]


def _not_counted(place: Place, detail: str, count: int) -> Finding:
    return Finding(Code.CONTEXT_MISSING, "the numbers in scan_id are counted without it", place, detail, count)
