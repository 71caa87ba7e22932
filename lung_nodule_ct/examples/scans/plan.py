"""The plan of scans: which volumes there are, and their timepoints, nodules, lung masks and pathology."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lung_nodule_ct.declaration.archives import ArchiveSpec, Role
from lung_nodule_ct.declaration.findings import Code, Finding
from lung_nodule_ct.declaration.identity import natural_key, quoted
from lung_nodule_ct.declaration.labels import TRAIN
from lung_nodule_ct.declaration.names import NameIndex, name_key
from lung_nodule_ct.declaration.published import CountedExample
from lung_nodule_ct.errors import MemberError, Place
from lung_nodule_ct.examples.crops import list_crops
from lung_nodule_ct.examples.family import (
    HEADER_SUFFIXES,
    Numbering,
    Planned,
    Unit,
    leave_out_unused,
    number_scans,
    parse_member,
    shortened,
    table_findings,
)
from lung_nodule_ct.examples.scans.consistency import name_findings, row_findings
from lung_nodule_ct.examples.scans.listing import SCAN_SETS, Nodule, Timeline, Timepoint, list_volumes
from lung_nodule_ct.examples.uses import PlanReport
from lung_nodule_ct.formats.tables import parse_nodules
from lung_nodule_ct.sources.source import ArchivePool
from lung_nodule_ct.sources.unrecognised import archives_inside

if TYPE_CHECKING:
    from lung_nodule_ct.declaration.configs import Config
    from lung_nodule_ct.examples.scans.listing import ArchivedVolume, ScanSet
    from lung_nodule_ct.sources.source import Source
    from lung_nodule_ct.sources.zip_directory import Archive, Member


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanUnit(Unit):
    """One CT volume.

    Attributes:
        volume_id: The id of the scan; of a volume without a patient, its rank in natural order, as ``volume-3``.
        header: Its ``.mhd`` or ``.mha``.
        data: Members that are likely to hold its elements.
        mask: The header of its lung mask, ``None`` if there is none.
        mask_data: Members that are likely to hold the elements of the mask.
        slice_thickness_mm: The set that it belongs to.
        timepoint: Rank of its date, ``None`` if that is unknown.
        num_timepoints: Number of distinct dates of its patient.
        days_since_first: Days since the patient's first scan, ``None`` without a date.
        nodules: In the order of the table.
        pathology: Index of its class, ``None`` unless the archives leave no doubt.
        makes_mask: Whether a lung mask is made from the voxels if there is none.
        seeks_key_slices: Whether the key slices are those of the evidence in the voxels.
    """

    volume_id: str
    header: Member
    data: tuple[Member, ...]
    mask: Member | None
    mask_data: tuple[Member, ...]
    slice_thickness_mm: float
    timepoint: int | None
    num_timepoints: int | None
    days_since_first: int | None
    nodules: tuple[Nodule, ...]
    pathology: int | None
    makes_mask: bool = False
    seeks_key_slices: bool = False

    @property
    def members(self) -> tuple[Member, ...]:
        """Header and data of volume and mask."""
        headers = (self.header, self.mask) if self.mask else (self.header,)
        return (*headers, *self.likely_members)

    @property
    def likely_members(self) -> tuple[Member, ...]:
        """The data of volume and mask: their headers may name other members."""
        return (*self.data, *self.mask_data)

    @property
    def rows(self) -> tuple[Place, ...]:
        """The rows of its nodules."""
        return tuple(nodule.place for nodule in self.nodules)

    def counted(self) -> CountedExample:
        """Its diameters and its timepoint. A scan without a patient has no ``scan_id`` and counts on its own."""
        diameters = tuple(nodule.diameter_mm for nodule in self.nodules if nodule.diameter_mm is not None)
        scan = self.scan_id or str(self.header.place)
        return CountedExample(self.split, self.patient_id, scan, diameters, timepoint=self.timepoint)


@dataclass(frozen=True, slots=True)
class _Context:
    """What archives other than those of a set contribute; ``None`` where an archive is missing.

    Attributes:
        timeline: The dates of all patients.
        classes: The pathology classes of every patient in the classification archive.
        numbering: The numbers of all scans of the source.
    """

    timeline: Timeline | None
    classes: Mapping[str, set[int]] | None
    numbering: Numbering


def plan_scans(config: Config, source: Source) -> Planned[ScanUnit]:
    """Plan one unit per volume of the sets that the config reads."""
    report = PlanReport()
    sets = [scan_set for scan_set in SCAN_SETS if scan_set.volumes in config.reads]
    listed = {scan_set.volumes: list_volumes(source.archives(scan_set.volumes), report) for scan_set in sets}
    every = _every_volume(source, listed, report)
    timeline = None if every is None else Timeline([volume for volumes in every.values() for volume in volumes])
    context = _Context(timeline, _classes(source, report), number_scans(source))
    for role, volumes in listed.items():
        others = None if every is None else [volume for other in every if other is not role for volume in every[other]]
        report.extend(name_findings(volumes, others))
    report.extend(context.numbering.findings)
    scans = [
        scan for scan_set in sets for scan in _scans_of_set(scan_set, source, listed[scan_set.volumes], context, report)
    ]
    left_out: list[ScanUnit] = []
    if config.longitudinal and context.timeline is not None:
        timeline = context.timeline
        left_out = [unit for unit, _ in scans if not _is_longitudinal(unit, timeline)]
        scans = [scan for scan in scans if _is_longitudinal(scan[0], timeline)]
        scans.sort(key=lambda scan: (scan[0].patient_id or "", scan[0].timepoint or 0, scan[0].slice_thickness_mm))
    units = [unit for unit, _ in scans]
    for _, findings in scans:
        report.extend(findings)
    report.extend(_pathology_findings(units))
    planned = Planned([*units, *left_out], report.findings, report.uses)
    return planned.without(left_out, _not_selected(left_out)) if left_out else planned


def _is_longitudinal(unit: ScanUnit, timeline: Timeline) -> bool:
    return timeline.count(unit.patient_id) >= 2 and unit.days_since_first is not None


def _not_selected(units: Sequence[ScanUnit]) -> Finding:
    """The finding that some scans are not among the dated scans of a patient with two or more dates."""
    archives = ", ".join(dict.fromkeys(member.archive for unit in units for member in unit.members))
    place = Place(archives, shortened([unit.header.name for unit in units]))
    return Finding(Code.SCAN_NOT_SELECTED, "left out", place, "expected two or more dates of a patient", len(units))


def _every_volume(
    source: Source, listed: Mapping[Role, Sequence[ArchivedVolume]], report: PlanReport
) -> dict[Role, Sequence[ArchivedVolume]] | None:
    """The volumes of both thicknesses, ``None`` if archives of one are missing: then there are no timepoints."""
    volumes: dict[Role, Sequence[ArchivedVolume]] = {}
    for scan_set in SCAN_SETS:
        if scan_set.volumes in listed:
            volumes[scan_set.volumes] = listed[scan_set.volumes]
        elif missing := source.missing(scan_set.volumes):
            report.extend([_missing_context(missing, "timepoint, num_timepoints and days_since_first are null")])
            return None
        else:  # what is odd about these archives is reported by the configs that read them
            volumes[scan_set.volumes] = list_volumes(source.archives(scan_set.volumes), PlanReport())
    return volumes


def _classes(source: Source, report: PlanReport) -> Mapping[str, set[int]] | None:
    """The classes of every patient in the classification archive."""
    if missing := source.missing(Role.CLASSIFICATION):
        report.extend([_missing_context(missing, "pathology is null")])
        return None
    classes: defaultdict[str, set[int]] = defaultdict(set)
    for archive in source.archives(Role.CLASSIFICATION):
        for crop in list_crops(archive)[0]:
            if crop.patient_id is not None:
                classes[crop.patient_id].add(crop.label)
    return dict(classes)


def _missing_context(missing: Sequence[ArchiveSpec], resolution: str) -> Finding:
    names = ", ".join(spec.name for spec in missing)
    return Finding(Code.CONTEXT_MISSING, resolution, Place(names), count=len(missing))


def _scans_of_set(
    scan_set: ScanSet,
    source: Source,
    volumes: Sequence[ArchivedVolume],
    context: _Context,
    report: PlanReport,
) -> list[tuple[ScanUnit, list[Finding]]]:
    """The scans of a set, each with its findings."""
    headers = (member for archive in source.archives(scan_set.volumes) for member in archive.members)
    others = (member.stem for member in headers if member.suffix in HEADER_SUFFIXES)
    stems = NameIndex((volume.stem for volume in volumes), left_out=others)
    masks = _masks(source, scan_set.masks, stems, report)
    nodules, unreadable = _nodules(source, scan_set.nodules, stems, report)
    report.extend(row_findings(nodules))
    ordered = sorted((volume.stem for volume in volumes), key=natural_key)
    ranks = {stem: rank for rank, stem in enumerate(ordered, 1)}
    scans = []
    for volume in volumes:
        scan_id = context.numbering.numbers.scan_id(volume.name)
        timepoint = context.timeline.timepoint(volume.name) if context.timeline else Timepoint()
        mask = masks.get(volume.stem)
        annotated = nodules.get(volume.stem, ())
        classes = (context.classes or {}).get(volume.name.patient or "", set())
        # with one nodule and one class there is no doubt which nodule the class belongs to
        joins = len(classes) == 1 and len(annotated) == 1 and volume.stem not in unreadable
        unit = ScanUnit(
            split=TRAIN,
            source_name=volume.stem,
            patient_id=volume.name.patient,
            scan_id=scan_id,
            fold=volume.name.fold,
            volume_id=scan_id or f"volume-{ranks[volume.stem]}",
            header=volume.header,
            data=volume.data,
            mask=mask.header if mask else None,
            mask_data=mask.data if mask else (),
            slice_thickness_mm=scan_set.thickness_mm,
            timepoint=timepoint.rank,
            num_timepoints=timepoint.count,
            days_since_first=timepoint.days,
            nodules=tuple(annotated),
            pathology=next(iter(classes)) if joins else None,
        )
        undated = context.timeline is not None and timepoint.rank is None
        scans.append((unit, _scan_findings(unit, volume, expects_mask=scan_set.masks is not None, undated=undated)))
    return scans


def _masks(source: Source, role: Role | None, stems: NameIndex, report: PlanReport) -> Mapping[str, ArchivedVolume]:
    if role is None:
        return {}
    masks: dict[str, ArchivedVolume] = {}
    for mask in list_volumes(source.archives(role), report):
        stem = stems.find_file(mask.stem)
        if stem is None:
            report.add(Code.MASK_WITHOUT_SCAN, "left out", mask.header.place)
            report.reports(mask.header, *mask.data)
        elif (kept := masks.setdefault(stem, mask)) is not mask:
            if mask.stem == stem:
                masks[stem], mask, kept = mask, kept, mask  # noqa: PLW2901 -- the mask of exactly this name is used
            detail = f"a mask of the same scan as {quoted(kept.header.name)} of {kept.header.archive}"
            report.add(Code.DUPLICATE_ID, "left out", mask.header.place, detail)
            report.reports(mask.header, *mask.data)
    return masks


def _nodules(
    source: Source, role: Role, stems: NameIndex, report: PlanReport
) -> tuple[Mapping[str, list[Nodule]], set[str | None]]:
    """The nodules of every scan of a set, by the stem of the scan; and the scans with rows that cannot be read."""
    nodules: defaultdict[str, list[Nodule]] = defaultdict(list)
    unreadable: set[str | None] = set()
    for archive in source.archives(role):
        table = _annotation_table(archive)
        with ArchivePool() as archives:
            data, parsed = parse_member(table, archives, parse_nodules)
        report.extend(table_findings(parsed, table, "scan, x, y, z, diameter"))
        if parsed.good and parsed.good[0].diameter is None:
            detail = "the table has no column of diameters in mm"
            report.add(
                Code.DIAMETER_UNREADABLE, "diameter_mm and box_voxel are null", table.place, detail, len(parsed.good)
            )
        unreadable |= {stems.find(name).name for name in parsed.bad_names}
        seen: Counter[tuple[object, ...]] = Counter()
        for entry in parsed.good:
            match = stems.find(entry.series_uid)
            if match.name is None:
                report.add_row(Code.ANNOTATION_WITHOUT_IMAGE, "left out", table.place, entry.row, match.detail)
                report.leaves_out_row(table.place)
                continue
            if match.repaired:
                report.add_row(Code.ZEROS_LOST, f"taken as {quoted(match.name)}", table.place, entry.row)
            seen[key := (match.name, entry.center, entry.diameter)] += 1
            if seen[key] > 1:
                report.add_row(Code.DUPLICATE_ANNOTATION, "kept", table.place, entry.row)
            place = Place(archive.name, table.name, entry.row.reference)
            nodules[match.name].append(Nodule(entry.center, entry.diameter, place))
        report.reads_table(table, data, parsed)
        leave_out_unused(archive, [member for member in archive.members if member is not table], report)
    return nodules, unreadable


def _annotation_table(archive: Archive) -> Member:
    tables = [member for member in archive.members if member.suffix == ".csv"]
    by_name = [member for member in tables if name_key(member.stem) == "annotations"] or tables
    if not by_name:
        raise MemberError(
            "contains no annotation table",
            archive=archive.name,
            expected="annotations.csv",
            got=", ".join(member.name for member in archive.members[:5]) or "no members",
            remedy=archives_inside(archive)
            or "compare the archive with its md5 in the record, and report it if it is as published",
        )
    return by_name[0]


def _scan_findings(unit: ScanUnit, volume: ArchivedVolume, *, expects_mask: bool, undated: bool) -> list[Finding]:
    place = volume.header.place
    findings = []
    if volume.name.bad_date is not None:
        digits = len(volume.name.bad_date)
        findings.append(
            Finding(Code.INVALID_DATE, "treated as undated", place, f"expected YYYYMMDD, got {digits} digits")
        )
    if unit.patient_id is None:
        findings.append(Finding(Code.NO_PATIENT, "patient_id, scan_id and fold are null", place))
    elif undated:
        findings.append(Finding(Code.UNDATED_SCAN, "timepoint and days_since_first are null", place))
    if not unit.nodules:
        findings.append(Finding(Code.IMAGE_WITHOUT_ANNOTATION, "kept, with no nodules", place))
    if unit.mask is None and expects_mask:
        findings.append(Finding(Code.MASK_MISSING, "lung_mask is null", place))
    return findings


def _pathology_findings(units: Sequence[ScanUnit]) -> list[Finding]:
    nodules = sum(len(unit.nodules) for unit in units)
    joined = sum(unit.pathology is not None for unit in units)
    if nodules == joined:
        return []
    detail = f"{joined:,} of {nodules:,} nodules in the archives are the only one of their scan, of a patient with exactly one class"
    return [Finding(Code.PATHOLOGY_NOT_JOINED, "their pathology is null", detail=detail, count=nodules - joined)]
