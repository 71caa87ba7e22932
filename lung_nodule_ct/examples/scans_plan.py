"""The volumes of the MHD sets: which there are, when they were taken, which nodules and mask and pathology they have."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lung_nodule_ct.declaration.archives import Role
from lung_nodule_ct.declaration.configs import LONGITUDINAL, Config
from lung_nodule_ct.declaration.findings import Code, Finding
from lung_nodule_ct.declaration.identity import Name, parse_volume_name
from lung_nodule_ct.declaration.labels import TRAIN
from lung_nodule_ct.errors import MemberError
from lung_nodule_ct.examples.crops import list_crops
from lung_nodule_ct.examples.family import Nodule, ScanUnit
from lung_nodule_ct.examples.plan_findings import table_findings, unused_members
from lung_nodule_ct.formats.tables import MAX_TABLE_BYTES, parse_nodules
from lung_nodule_ct.sources.source import ArchivePool
from lung_nodule_ct.sources.zip_member import read_member

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import date

    from lung_nodule_ct.sources.source import Source
    from lung_nodule_ct.sources.zip_directory import Archive, Member

HEADER_SUFFIXES = (".mhd", ".mha")
_DATA_SUFFIXES = (".raw", ".zraw")


@dataclass(frozen=True, slots=True)
class _Set:
    """One of the two MHD sets."""

    thickness_mm: float
    volumes: Role
    nodules: Role
    masks: Role | None


_SETS = (
    _Set(1.25, Role.CT_1_25MM, Role.NODULES_1_25MM, Role.LUNG_MASKS),
    _Set(5.0, Role.CT_5MM, Role.NODULES_5MM, None),
)


@dataclass(frozen=True, slots=True)
class ArchivedVolume:
    """A volume in an archive, before its header is read."""

    name: Name
    header: Member
    data: tuple[Member, ...]

    @property
    def stem(self) -> str:
        """The header's stem, by which tables and masks name it."""
        return self.header.stem


class Timeline:
    """The distinct dates of every patient, and the scans without one, in both MHD sets together."""

    def __init__(self, volumes: Iterable[ArchivedVolume]) -> None:
        dates: defaultdict[str, set[date]] = defaultdict(set)
        undated: defaultdict[str, set[str]] = defaultdict(set)
        for volume in volumes:
            if volume.name.patient and volume.name.day:
                dates[volume.name.patient].add(volume.name.day)
            elif volume.name.patient:
                undated[volume.name.patient].add(volume.name.scan_token)
        self._dates = {patient: sorted(days) for patient, days in dates.items()}
        self._undated = {patient: len(tokens) for patient, tokens in undated.items()}

    def place(self, name: Name) -> tuple[int | None, int | None, int | None]:
        """Timepoint, number of timepoints and days since the first, of one scan."""
        if name.patient is None:
            return None, None, None
        days = self._dates.get(name.patient)
        if days is None:
            # of several scans without a date nobody knows the order, nor whether their dates differ
            return (0, 1, None) if self._undated.get(name.patient) == 1 else (None, None, None)
        if name.day is None:
            return None, len(days), None
        return days.index(name.day), len(days), (name.day - days[0]).days

    def count(self, patient: str | None) -> int:
        """How many distinct dates a patient has."""
        return len(self._dates.get(patient or "", ()))


def plan_scans(config: Config, source: Source) -> tuple[list[ScanUnit], list[Finding]]:
    """The units of ``det3d_*`` and ``longitudinal``."""
    findings: list[Finding] = []
    own = [entry for entry in _SETS if entry.volumes in config.reads]
    listed = {entry.volumes: _list_volumes(source.archives(entry.volumes), findings) for entry in own}
    timeline = _timeline(source, listed, findings)
    classes = _classes(source, findings)
    scans = [
        scan
        for entry in own
        for scan in _scans_of_set(entry, source, listed[entry.volumes], timeline, classes, findings)
    ]
    if config.name == LONGITUDINAL.name and timeline is not None:
        scans = [
            scan for scan in scans if timeline.count(scan[0].patient_id) >= 2 and scan[0].days_since_first is not None
        ]
        scans.sort(key=lambda scan: (scan[0].patient_id or "", scan[0].timepoint or 0, scan[0].slice_thickness_mm))
    units = [unit for unit, _ in scans]
    findings += [finding for _, found in scans for finding in found]
    findings += _pathology_findings(units)
    return units, findings


def _list_volumes(archives: Sequence[Archive], findings: list[Finding]) -> list[ArchivedVolume]:
    """The volumes of a set, each identity once."""
    first: dict[str, ArchivedVolume] = {}
    for archive in archives:
        by_stem: defaultdict[str, list[Member]] = defaultdict(list)
        for member in archive.members:
            if member.suffix in _DATA_SUFFIXES:
                by_stem[_bare(member)].append(member)
        headers = [member for member in archive.members if member.suffix in HEADER_SUFFIXES]
        if not headers:
            findings.append(
                Finding(Code.ARCHIVE_EMPTY, "nothing is taken from it", archive.name, detail="no .mhd and no .mha")
            )
        for header in headers:
            volume = ArchivedVolume(parse_volume_name(header.stem), header, tuple(by_stem.pop(_bare(header), ())))
            key = volume.name.scan_id or header.stem
            if key in first:
                findings.append(
                    Finding(
                        Code.DUPLICATE_ID,
                        "left out, the first is used",
                        archive.name,
                        header.name,
                        detail=f"the same patient and date as {first[key].header.archive} > {first[key].header.name}",
                    )
                )
            else:
                first[key] = volume
        findings += _unused(archive, headers, by_stem)
    return list(first.values())


def _bare(member: Member) -> str:
    """The name without its extension, by which a header and its data file belong together."""
    return member.name[: len(member.name) - len(member.suffix)]


def _unused(archive: Archive, headers: Sequence[Member], left: dict[str, list[Member]]) -> list[Finding]:
    other = [member.name for member in archive.members if member.suffix not in (*HEADER_SUFFIXES, *_DATA_SUFFIXES)]
    stems = {_bare(member) for member in archive.members if member.suffix in _DATA_SUFFIXES}
    if all(header.suffix == ".mha" or _bare(header) in stems for header in headers):
        # every header has its own data file, so what is left belongs to none
        other += [member.name for members in left.values() for member in members]
    return unused_members(archive, other)


def _timeline(source: Source, listed: dict[Role, list[ArchivedVolume]], findings: list[Finding]) -> Timeline | None:
    volumes: list[ArchivedVolume] = []
    for entry in _SETS:
        if entry.volumes in listed:
            volumes += listed[entry.volumes]
        elif missing := source.missing(entry.volumes):
            findings.append(_context_missing(missing, "timepoint, num_timepoints and days_since_first are null"))
            return None
        else:
            volumes += _list_volumes(source.archives(entry.volumes), [])
    return Timeline(volumes)


def _classes(source: Source, findings: list[Finding]) -> dict[str, set[int]] | None:
    """The classes of every patient in the classification archive."""
    if missing := source.missing(Role.CLASSIFICATION):
        findings.append(_context_missing(missing, "pathology is null"))
        return None
    classes: defaultdict[str, set[int]] = defaultdict(set)
    for archive in source.archives(Role.CLASSIFICATION):
        for crop in list_crops(archive)[0]:
            if crop.patient_id is not None:
                classes[crop.patient_id].add(crop.label)
    return dict(classes)


def _context_missing(missing: Sequence[object], action: str) -> Finding:
    names = [str(getattr(spec, "name", spec)) for spec in missing]
    return Finding(Code.CONTEXT_MISSING, action, archive=", ".join(names), count=len(names))


def _scans_of_set(
    entry: _Set,
    source: Source,
    volumes: Sequence[ArchivedVolume],
    timeline: Timeline | None,
    classes: dict[str, set[int]] | None,
    findings: list[Finding],
) -> list[tuple[ScanUnit, list[Finding]]]:
    """The scans of a set, each with what was found of it."""
    stems = {volume.stem for volume in volumes}
    masks = _masks(source, entry.masks, stems, findings)
    nodules, doubtful = _nodules(source, entry.nodules, stems, findings)
    scans = []
    for volume in volumes:
        timepoint, num_timepoints, days = timeline.place(volume.name) if timeline else (None, None, None)
        mask = masks.get(volume.stem)
        spheres = nodules.get(volume.stem, ())
        known = (classes or {}).get(volume.name.patient or "", set())
        joins = len(known) == 1 and len(spheres) == 1 and volume.stem not in doubtful
        unit = ScanUnit(
            split=TRAIN,
            source_name=volume.stem,
            patient_id=volume.name.patient,
            scan_id=volume.name.scan_id,
            fold=volume.name.fold,
            header=volume.header,
            data=volume.data,
            mask=mask.header if mask else None,
            mask_data=mask.data if mask else (),
            slice_thickness_mm=entry.thickness_mm,
            timepoint=timepoint,
            num_timepoints=num_timepoints,
            days_since_first=days,
            nodules=tuple(spheres),
            pathology=next(iter(known)) if joins else None,
        )
        scans.append(
            (unit, _scan_findings(volume, spheres, mask, entry, lost=timeline is not None and timepoint is None))
        )
    return scans


def _masks(source: Source, role: Role | None, stems: set[str], findings: list[Finding]) -> dict[str, ArchivedVolume]:
    if role is None:
        return {}
    masks = {volume.stem: volume for volume in _list_volumes(source.archives(role), findings)}
    findings += [
        Finding(Code.MASK_WITHOUT_SCAN, "left out", mask.header.archive, mask.header.name)
        for stem, mask in masks.items()
        if stem not in stems
    ]
    return masks


def _nodules(
    source: Source, role: Role, stems: set[str], findings: list[Finding]
) -> tuple[dict[str, list[Nodule]], set[str | None]]:
    """The nodules of every scan of a set, by the scan's stem; and the scans that have rows which cannot be read."""
    nodules: defaultdict[str, list[Nodule]] = defaultdict(list)
    doubtful: set[str | None] = set()
    for archive in source.archives(role):
        table = _annotation_table(archive)
        with ArchivePool() as archives:
            parsed = parse_nodules(read_member(table, archives, limit=MAX_TABLE_BYTES))
        where = (archive.name, table.name)
        findings += table_findings(parsed, where, "scan, x, y, z, diameter")
        doubtful |= {_scan_of(row.cells["seriesuid"], stems) for row in parsed.bad}
        seen: Counter[tuple[object, ...]] = Counter()
        for entry in parsed.good:
            stem = _scan_of(entry.name, stems)
            if stem is None:
                findings.append(Finding(Code.ANNOTATION_WITHOUT_IMAGE, "left out", *where, entry.row.place))
                continue
            key = (stem, entry.center, entry.diameter)
            seen[key] += 1
            if seen[key] > 1:
                findings.append(Finding(Code.DUPLICATE_ANNOTATION, "kept", *where, entry.row.place))
            nodules[stem].append(Nodule(entry.center, entry.diameter, where, entry.row.place))
        findings += unused_members(archive, [member.name for member in archive.members if member is not table])
    return nodules, doubtful


def _annotation_table(archive: Archive) -> Member:
    tables = [member for member in archive.members if member.suffix == ".csv"]
    named = [member for member in tables if member.stem.lower() == "annotations"] or tables
    if not named:
        raise MemberError(
            "holds no annotation table",
            archive=archive.name,
            expected="annotations.csv",
            got=", ".join(member.name for member in archive.members[:5]) or "no members",
            remedy="download the archive again",
        )
    return named[0]


def _scan_of(name: str, stems: set[str]) -> str | None:
    """The stem that a table means: as it stands, or with a folder and an extension taken off."""
    if name in stems:
        return name
    bare = name.replace("\\", "/").rpartition("/")[2]
    for suffix in (*HEADER_SUFFIXES, *_DATA_SUFFIXES):
        bare = bare.removesuffix(suffix)
    return bare if bare in stems else None


def _scan_findings(
    volume: ArchivedVolume, spheres: Sequence[Nodule], mask: ArchivedVolume | None, entry: _Set, *, lost: bool
) -> list[Finding]:
    where = (volume.header.archive, volume.header.name)
    findings = []
    if volume.name.bad_date is not None:
        findings.append(Finding(Code.INVALID_DATE, "taken as undated", *where, detail=f"got {volume.name.bad_date}"))
    if volume.name.patient is None:
        findings.append(Finding(Code.NO_PATIENT, "patient_id, scan_id and fold are null", *where))
    elif lost:
        findings.append(Finding(Code.UNDATED_SCAN, "timepoint and days_since_first are null", *where))
    if not spheres:
        findings.append(Finding(Code.IMAGE_WITHOUT_ANNOTATION, "kept, with no nodules", *where))
    if mask is None and entry.masks is not None:
        findings.append(Finding(Code.MASK_MISSING, "lung_mask is null", *where))
    return findings


def _pathology_findings(units: Sequence[ScanUnit]) -> list[Finding]:
    nodules = sum(len(unit.nodules) for unit in units)
    joined = sum(unit.pathology is not None for unit in units)
    if nodules == joined:
        return []
    detail = f"{joined:,} of {nodules:,} nodules are the only one of their scan, of a patient with exactly one class"
    return [Finding(Code.PATHOLOGY_NOT_JOINED, "their pathology is null", detail=detail, count=nodules - joined)]
