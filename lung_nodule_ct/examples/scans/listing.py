"""The volumes of the MHD archives, before their headers are read, and the order of a patient's scans in time."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lung_nodule_ct.declaration.archives import Role
from lung_nodule_ct.declaration.findings import Code
from lung_nodule_ct.declaration.identity import Name, parse_volume_name, quoted
from lung_nodule_ct.examples.family import HEADER_SUFFIXES, empty_archive, leave_out_unused

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import date

    from lung_nodule_ct.errors import Place
    from lung_nodule_ct.examples.uses import PlanReport
    from lung_nodule_ct.sources.zip_directory import Archive, Member

DATA_SUFFIXES: Final = (".raw", ".zraw")


@dataclass(frozen=True, slots=True)
class ScanSet:
    """One of the two MHD sets.

    Attributes:
        thickness_mm: The slice thickness.
        volumes: Role of the archives with the volumes.
        nodules: Role of the archive with the annotation table.
        masks: Role of the archive with the lung masks, ``None`` if the set has none.
    """

    thickness_mm: float
    volumes: Role
    nodules: Role
    masks: Role | None


SCAN_SETS: Final = (
    ScanSet(1.25, Role.CT_1_25MM, Role.NODULES_1_25MM, Role.LUNG_MASKS),
    ScanSet(5.0, Role.CT_5MM, Role.NODULES_5MM, None),
)


@dataclass(frozen=True, slots=True)
class ArchivedVolume:
    """A volume in an archive, before its header is read.

    Attributes:
        name: Patient and date, from the name of the header.
        header: The ``.mhd`` or ``.mha`` member.
        data: Members of the same name that are likely to hold its elements.
    """

    name: Name
    header: Member
    data: tuple[Member, ...]

    @property
    def stem(self) -> str:
        """The stem of the header, by which tables and masks refer to the volume."""
        return self.header.stem


@dataclass(frozen=True, slots=True)
class Track:
    """The track of a nodule through the scans of its patient; the attributes are the columns ``track_…``.

    Attributes:
        id: Patient and number, ``None`` with a reason.
        confidence: Of the link to the scan before, 0 to 1.
        event: What the nodule does at this scan.
        parent_id: For a split, the track that it left.
        ended: Whether a later scan shows its place without an annotation.
        reason: Why there is no track.
        pathology: Index of the class that one of its annotations has without doubt.
    """

    id: str | None = None
    confidence: float | None = None
    event: str | None = None
    parent_id: str | None = None
    ended: bool | None = None
    reason: str | None = None
    pathology: int | None = None


@dataclass(frozen=True, slots=True)
class Nodule:
    """One annotated nodule of a scan.

    Attributes:
        center_world: x, y, z in LPS mm.
        diameter_mm: As published, ``None`` if the table has no diameters.
        place: The row of the annotation table.
        track: Its track; empty unless tracks were computed.
    """

    center_world: tuple[float, float, float]
    diameter_mm: float | None
    place: Place
    track: Track = Track()


@dataclass(frozen=True, slots=True)
class Timepoint:
    """The position of a scan among the scans of its patient; ``None`` for what the names do not show.

    Attributes:
        rank: Rank of its date among the patient's distinct dates, from 0.
        count: Number of the patient's distinct dates.
        days: Days since the patient's first scan.
    """

    rank: int | None = None
    count: int | None = None
    days: int | None = None


class Timeline:
    """The distinct dates of every patient, and the scans without a date, over both MHD sets.

    Args:
        volumes: The volumes of both sets.
    """

    def __init__(self, volumes: Iterable[ArchivedVolume]) -> None:
        dates: defaultdict[str, set[date]] = defaultdict(set)
        undated: defaultdict[str, set[str]] = defaultdict(set)
        for volume in volumes:
            if volume.name.patient and volume.name.day:
                dates[volume.name.patient].add(volume.name.day)
            elif volume.name.patient:
                undated[volume.name.patient].add(volume.name.bad_date or "")
        self._dates = {patient: sorted(days) for patient, days in dates.items()}
        self._undated = {patient: len(tokens) for patient, tokens in undated.items()}

    def timepoint(self, name: Name) -> Timepoint:
        """The timepoint of a scan."""
        if name.patient is None:
            return Timepoint()
        days = self._dates.get(name.patient)
        if days is None:
            # the order of several scans without a date is unknown, and so is whether their dates differ
            return Timepoint(0, 1) if self._undated.get(name.patient) == 1 else Timepoint()
        if name.day is None:
            return Timepoint(count=len(days))
        return Timepoint(days.index(name.day), len(days), (name.day - days[0]).days)

    def count(self, patient: str | None) -> int:
        """Number of distinct dates of a patient."""
        return len(self._dates.get(patient or "", ()))


def list_volumes(archives: Sequence[Archive], report: PlanReport) -> list[ArchivedVolume]:
    """The volumes of some archives, each identity once."""
    first: dict[tuple[object, ...], ArchivedVolume] = {}
    for archive in archives:
        by_stem: defaultdict[str, list[Member]] = defaultdict(list)
        for member in archive.members:
            if member.suffix in DATA_SUFFIXES:
                by_stem[_without_suffix(member)].append(member)
        headers = [member for member in archive.members if member.suffix in HEADER_SUFFIXES]
        if not headers:
            report.extend([empty_archive(archive, ".mhd and no .mha")])
        for header in headers:
            data = tuple(by_stem.pop(_without_suffix(header), ()))
            volume = ArchivedVolume(parse_volume_name(header.stem), header, data)
            key = (header.stem,) if volume.name.patient is None else volume.name.scan
            kept = first.setdefault(key, volume)
            if kept is not volume:
                detail = f"the same patient and date as {quoted(kept.header.name)} of {kept.header.archive}"
                report.add(Code.DUPLICATE_ID, "left out, the first is used", header.place, detail)
                report.reports(header, *data)
        _leave_out(archive, headers, by_stem, report)
    return list(first.values())


def _without_suffix(member: Member) -> str:
    """The name without its extension, which a header and its data file share."""
    return member.name[: len(member.name) - len(member.suffix)]


def _leave_out(
    archive: Archive, headers: Sequence[Member], left: Mapping[str, Sequence[Member]], report: PlanReport
) -> None:
    """Report the members that belong to no header."""
    other = [member for member in archive.members if member.suffix not in (*HEADER_SUFFIXES, *DATA_SUFFIXES)]
    stems = {_without_suffix(member) for member in archive.members if member.suffix in DATA_SUFFIXES}
    orphans = [member for members in left.values() for member in members]
    if all(header.suffix == ".mha" or _without_suffix(header) in stems for header in headers):
        # every header has a data file of its own name, so the remaining data files belong to no header
        leave_out_unused(archive, [*other, *orphans], report)
    else:  # a header may name any of them as its data file
        report.may_be_read(*other, *orphans)
