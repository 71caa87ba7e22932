"""The 2D detection archive: images, their XML, split lists in four places, and a workbook that tells the boxes again."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lung_nodule_ct.declaration.archives import Role
from lung_nodule_ct.declaration.findings import Code, Finding
from lung_nodule_ct.declaration.identity import parse_image_name
from lung_nodule_ct.declaration.labels import TRAIN, UNASSIGNED, VALIDATION
from lung_nodule_ct.examples.family import SliceUnit
from lung_nodule_ct.examples.plan_findings import shortened, unique_images, unused_members
from lung_nodule_ct.formats.pictures import SUFFIXES
from lung_nodule_ct.formats.tables import MAX_TABLE_BYTES, Listed, parse_split_list
from lung_nodule_ct.formats.workbook import MAX_WORKBOOK_BYTES, WorkbookRow, parse_workbook
from lung_nodule_ct.sources.source import ArchivePool
from lung_nodule_ct.sources.zip_member import read_member

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from lung_nodule_ct.examples.family import Box2D
    from lung_nodule_ct.sources.source import Source
    from lung_nodule_ct.sources.zip_directory import Archive, Member

LIST_SPLITS = {"train": TRAIN, "val": VALIDATION, "validation": VALIDATION, "validate": VALIDATION, "valid": VALIDATION}
#: Where split lists are known to stand, relative to the top of the layout; where they disagree the first wins.
_PLACES = ("imagesets/main", "imagesets", "", "images")


@dataclass(frozen=True, slots=True)
class _Layout:
    """The members of the archive by what they are."""

    images: tuple[Member, ...]
    annotations: dict[str, Member]
    lists: dict[str, dict[str, Member]]
    workbook: Member | None
    unused: tuple[str, ...]


def plan_slices(source: Source) -> tuple[list[SliceUnit], list[Finding]]:
    """The units of ``det2d_1.25mm``."""
    units: list[SliceUnit] = []
    findings: list[Finding] = []
    for archive in source.archives(Role.DETECTION_2D):
        layout = _layout(archive, findings)
        if not layout.images:
            findings.append(Finding(Code.ARCHIVE_EMPTY, "nothing is taken from it", archive.name, detail="no images"))
        found = unique_images([_unit(image, layout.annotations) for image in layout.images], findings)
        with ArchivePool() as archives:
            entries = {
                place: {
                    name: parse_split_list(read_member(member, archives, limit=MAX_TABLE_BYTES))
                    for name, member in lists.items()
                }
                for place, lists in layout.lists.items()
            }
            # a list that names nobody does not win over one that does
            entries = dict(sorted(entries.items(), key=lambda item: not any(item[1].values())))
            rows = _workbook_rows(archive, layout.workbook, archives, findings)
        stems = {unit.source_name for unit in found}
        splits = _splits(archive, layout, entries, stems, findings)
        cross_checks = _told_again(archive, layout, entries, rows, stems, findings)
        units += [
            replace(
                unit, split=splits.get(unit.source_name, UNASSIGNED), cross_checks=tuple(cross_checks[unit.source_name])
            )
            for unit in found
        ]
        findings += _pairing_findings(archive, found, layout)
        findings += unused_members(archive, layout.unused)
    return units, findings


def _unit(image: Member, annotations: Mapping[str, Member]) -> SliceUnit:
    name = parse_image_name(image.stem)
    return SliceUnit(
        split=UNASSIGNED,
        source_name=image.stem,
        patient_id=name.patient,
        scan_id=name.scan_id,
        fold=name.fold,
        image=image,
        annotation=annotations.get(image.stem),
    )


def _layout(archive: Archive, findings: list[Finding]) -> _Layout:
    top = _top(archive)
    pictures = [member for member in archive.members if member.suffix in SUFFIXES]
    in_place = [member for member in pictures if "jpegimages" in member.name.lower().split("/")[:-1]]
    images = tuple(in_place or pictures)
    annotations: dict[str, Member] = {}
    lists: defaultdict[str, dict[str, Member]] = defaultdict(dict)
    workbook, unused = None, [member.name for member in pictures if member not in images] if in_place else []
    for member in archive.members:
        folder = _within(member.name, top).rpartition("/")[0].lower()
        split = LIST_SPLITS.get(member.stem.lower())
        if member.suffix in SUFFIXES:
            continue
        if member.suffix == ".xml":
            if (kept := annotations.setdefault(member.stem, member)) is not member:
                findings.append(Finding(Code.DUPLICATE_ID, f"left out, {kept.name} is used", archive.name, member.name))
        elif member.suffix == ".txt" and split and folder in _PLACES and split not in lists[folder]:
            lists[folder][split] = member
        elif member.suffix == ".xlsx" and workbook is None:
            workbook = member
        else:
            unused.append(member.name)
    ordered = {place: lists[place] for place in _PLACES if lists[place]}
    return _Layout(images, annotations, ordered, workbook, tuple(unused))


def _within(name: str, top: str) -> str:
    """The member's name inside the layout, which may begin at another depth for its lists than for its images."""
    at = f"/{name.lower()}".find("/imagesets/")
    return name[at:] if at >= 0 else name.removeprefix(top)


def _top(archive: Archive) -> str:
    """The folder in which the layout begins, with its slash: what stands before ``JPEGImages/`` or its like."""
    for marker in ("jpegimages/", "annotations/", "imagesets/"):
        for member in archive.members:
            at = f"/{member.name.lower()}".find(f"/{marker}")
            if at >= 0:
                return member.name[:at]
    return ""


def _splits(
    archive: Archive,
    layout: _Layout,
    entries: Mapping[str, Mapping[str, Sequence[Listed]]],
    stems: set[str],
    findings: list[Finding],
) -> dict[str, str]:
    """The split of every image, by the first place that lists any."""
    chosen: dict[str, str] = {}
    for rank, (place, lists) in enumerate(entries.items()):
        own: dict[str, str] = {}
        for split, listed in lists.items():
            where = (archive.name, layout.lists[place][split].name)
            for entry in listed:
                if rank == 0 and own.get(entry.stem, split) != split:
                    findings.append(Finding(Code.LISTED_TWICE, f"it stays in {own[entry.stem]}", *where, entry.place))
                if rank == 0 and entry.stem not in stems:
                    findings.append(Finding(Code.LISTED_BUT_MISSING, "left out", *where, entry.place))
                own.setdefault(entry.stem, split)
        if rank == 0:
            chosen = own
            continue
        different = sorted(stem for stem in {*own, *chosen} if own.get(stem) != chosen.get(stem))
        if different:
            first = next(iter(entries))
            findings.append(
                Finding(
                    Code.SPLIT_LISTS_DISAGREE,
                    f"the lists in {first or 'the top folder'} are used",
                    archive.name,
                    ", ".join(member.name for member in layout.lists[place].values()),
                    detail=f"they place {shortened(different)} otherwise",
                    count=len(different),
                )
            )
    left = sorted(stems - set(chosen))
    if left:
        findings.append(
            Finding(
                Code.NOT_LISTED, f"they go to the split {UNASSIGNED!r}", archive.name, shortened(left), count=len(left)
            )
        )
    return chosen


def _workbook_rows(
    archive: Archive, workbook: Member | None, archives: ArchivePool, findings: list[Finding]
) -> tuple[WorkbookRow, ...]:
    if workbook is None:
        findings.append(
            Finding(Code.CROSS_CHECK_IMPOSSIBLE, "the XML boxes are not checked", archive.name, detail="no workbook")
        )
        return ()
    data = read_member(workbook, archives, limit=MAX_WORKBOOK_BYTES)
    try:
        return parse_workbook(data, workbook.file_name)
    except ValueError as error:
        findings.append(
            Finding(
                Code.CROSS_CHECK_IMPOSSIBLE,
                "the XML boxes are not checked",
                archive.name,
                workbook.name,
                detail=str(error),
            )
        )
        return ()


def _told_again(
    archive: Archive,
    layout: _Layout,
    entries: Mapping[str, Mapping[str, Sequence[Listed]]],
    rows: Iterable[WorkbookRow],
    stems: set[str],
    findings: list[Finding],
) -> defaultdict[str, list[tuple[str, str, tuple[Box2D, ...]]]]:
    """The boxes of every image as the workbook and the lists with boxes tell them."""
    told: defaultdict[str, list[tuple[str, str, tuple[Box2D, ...]]]] = defaultdict(list)
    if layout.workbook is not None:
        boxes: defaultdict[str, list[Box2D]] = defaultdict(list)
        for row in rows:
            stem = _stem_of(row.name, stems)
            if stem is None or row.box is None:
                detail = "its numbers cannot be read" if stem else "there is no such image"
                findings.append(
                    Finding(
                        Code.TABLES_DISAGREE,
                        "the XML files are used",
                        archive.name,
                        layout.workbook.name,
                        row.place,
                        detail,
                    )
                )
                continue
            boxes[stem].append(row.box)
        if rows:
            for stem in stems:
                told[stem].append((layout.workbook.name, "", tuple(boxes[stem])))
    for place, lists in entries.items():
        for split, listed in lists.items():
            listed_boxes: defaultdict[str, list[Listed]] = defaultdict(list)
            for entry in listed:
                if entry.boxes and entry.stem in stems:
                    listed_boxes[entry.stem].append(entry)
            for stem, own in listed_boxes.items():  # some lists have a line a box
                together = tuple(box for entry in own for box in entry.boxes)
                told[stem].append((layout.lists[place][split].name, own[0].place, together))
    return told


def _stem_of(name: str, stems: set[str]) -> str | None:
    file_name = name.replace("\\", "/").rpartition("/")[2]
    bare, dot, suffix = file_name.rpartition(".")
    for candidate in (file_name, bare if dot and f".{suffix.lower()}" in (*SUFFIXES, ".xml") else ""):
        if candidate in stems:
            return candidate
    return None


def _pairing_findings(archive: Archive, units: Sequence[SliceUnit], layout: _Layout) -> list[Finding]:
    stems = {unit.source_name for unit in units}
    findings = [
        Finding(Code.ANNOTATION_WITHOUT_IMAGE, "left out", archive.name, xml.name)
        for stem, xml in layout.annotations.items()
        if stem not in stems
    ]
    findings += [
        Finding(Code.IMAGE_WITHOUT_ANNOTATION, "kept, with no boxes", archive.name, unit.image.name)
        for unit in units
        if unit.annotation is None
    ]
    return findings
