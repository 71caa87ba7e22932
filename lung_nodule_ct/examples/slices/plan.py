"""The plan of slices: images, their XML files, split lists in up to four folders, and a workbook that repeats the boxes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lung_nodule_ct.declaration.archives import Role
from lung_nodule_ct.declaration.findings import Code, Finding, FindingCollector
from lung_nodule_ct.declaration.identity import parse_image_name
from lung_nodule_ct.declaration.labels import LIST_SPLITS, UNASSIGNED
from lung_nodule_ct.declaration.published import CountedExample
from lung_nodule_ct.errors import Place
from lung_nodule_ct.examples.family import (
    ImageUnit,
    empty_archive,
    number_images,
    number_scans,
    row_finding,
    shortened,
    unique_images,
    unused_members,
)
from lung_nodule_ct.formats.pictures import SUFFIXES
from lung_nodule_ct.formats.tables import MAX_TABLE_BYTES, Listed, parse_split_list
from lung_nodule_ct.formats.workbook import MAX_WORKBOOK_BYTES, WorkbookRow, parse_workbook
from lung_nodule_ct.sources.source import ArchivePool
from lung_nodule_ct.sources.zip_member import read_member

if TYPE_CHECKING:
    from lung_nodule_ct.declaration.configs import Config
    from lung_nodule_ct.sources.source import Source
    from lung_nodule_ct.sources.zip_directory import Archive, Member

    Box2D = tuple[float, float, float, float]
    Entries = Mapping[str, Mapping[str, Sequence[Listed]]]

#: Folders of split lists, relative to the top of the layout. Where the lists disagree, the first folder is used.
_LIST_FOLDERS = ("imagesets/main", "imagesets", "", "images")


@dataclass(frozen=True, slots=True)
class CrossCheck:
    """The boxes of an image as another table lists them.

    Attributes:
        table: Name of the table's member.
        row: The row, empty if the table has one row per box.
        boxes: xmin, ymin, xmax, ymax in pixels.
    """

    table: str
    row: str
    boxes: tuple[Box2D, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceUnit(ImageUnit):
    """One slice with its annotation.

    Attributes:
        annotation: Its XML file, ``None`` if there is none.
        cross_checks: The boxes of the image in other tables.
    """

    annotation: Member | None
    cross_checks: tuple[CrossCheck, ...] = ()

    @property
    def members(self) -> tuple[Member, ...]:
        """The image and its XML file."""
        return (self.image, self.annotation) if self.annotation else (self.image,)

    def counted(self) -> CountedExample:
        """Whether it has an XML file."""
        return CountedExample(self.split, self.patient_id, self.scan_id, annotated=self.annotation is not None)


@dataclass(frozen=True, slots=True)
class _Layout:
    """The members of the archive by their purpose.

    Attributes:
        images: The images.
        annotations: XML files by stem.
        lists: Split lists by folder and split.
        workbook: The workbook of boxes.
        unused: Names of all other members.
    """

    images: tuple[Member, ...]
    annotations: Mapping[str, Member]
    lists: Mapping[str, Mapping[str, Member]]
    workbook: Member | None
    unused: tuple[str, ...]


def plan_slices(config: Config, source: Source) -> tuple[list[SliceUnit], tuple[Finding, ...]]:
    """Plan one unit per image."""
    del config  # one archive, one layout
    report = FindingCollector()
    units = [unit for archive in source.archives(Role.DETECTION_2D) for unit in _plan_archive(archive, report)]
    numbering = number_scans(source)
    report.extend(numbering.findings)
    return number_images(units, numbering.numbers), report.findings


def _plan_archive(archive: Archive, report: FindingCollector) -> list[SliceUnit]:
    layout = _layout(archive, report)
    if not layout.images:
        report.extend([empty_archive(archive, "images")])
    units = unique_images([_unit(image, layout.annotations) for image in layout.images], report)
    with ArchivePool() as archives:
        entries: Entries = {
            folder: {
                split: parse_split_list(read_member(member, archives, limit=MAX_TABLE_BYTES))
                for split, member in lists.items()
            }
            for folder, lists in layout.lists.items()
        }
        # empty lists do not take precedence over lists with entries
        entries = dict(sorted(entries.items(), key=lambda item: not any(item[1].values())))
        rows = _workbook_rows(archive, layout.workbook, archives, report)
    stems = {unit.source_name for unit in units}
    splits = _splits(archive, layout, entries, stems, report)
    checks = _cross_checks(layout, entries, rows, stems, report)
    units = [
        replace(unit, split=splits.get(unit.source_name, UNASSIGNED), cross_checks=tuple(checks[unit.source_name]))
        for unit in units
    ]
    report.extend(_pairing_findings(units, layout, stems))
    report.extend(unused_members(archive, layout.unused))
    return units


def _unit(image: Member, annotations: Mapping[str, Member]) -> SliceUnit:
    name = parse_image_name(image.stem)
    return SliceUnit(
        split=UNASSIGNED,
        source_name=image.stem,
        patient_id=name.patient,
        fold=name.fold,
        image=image,
        annotation=annotations.get(image.stem),
    )


def _layout(archive: Archive, report: FindingCollector) -> _Layout:
    top = _top(archive)
    pictures = [member for member in archive.members if member.suffix in SUFFIXES]
    in_folder = [member for member in pictures if "jpegimages" in member.name.lower().split("/")[:-1]]
    images = tuple(in_folder or pictures)
    annotations: dict[str, Member] = {}
    lists: defaultdict[str, dict[str, Member]] = defaultdict(dict)
    workbook, unused = None, [member.name for member in pictures if member not in images] if in_folder else []
    for member in archive.members:
        folder = _relative(member.name, top).rpartition("/")[0].lower()
        split = LIST_SPLITS.get(member.stem.lower())
        if member.suffix in SUFFIXES:
            continue
        if member.suffix == ".xml":
            if (kept := annotations.setdefault(member.stem, member)) is not member:
                report.add(Code.DUPLICATE_ID, f"left out, {kept.name} is used", member.place)
        elif member.suffix == ".txt" and split and folder in _LIST_FOLDERS and split not in lists[folder]:
            lists[folder][split] = member
        elif member.suffix == ".xlsx" and workbook is None:
            workbook = member
        else:
            unused.append(member.name)
    ordered = {folder: lists[folder] for folder in _LIST_FOLDERS if lists[folder]}
    return _Layout(images, annotations, ordered, workbook, tuple(unused))


def _relative(name: str, top: str) -> str:
    """The name of a member inside the layout, whose lists may start at another depth than its images."""
    start = f"/{name.lower()}".find("/imagesets/")
    return name[start:] if start >= 0 else name.removeprefix(top)


def _top(archive: Archive) -> str:
    """The folder that contains ``JPEGImages/`` or a similar folder, with a slash at its end; empty at the top."""
    for marker in ("jpegimages/", "annotations/", "imagesets/"):
        for member in archive.members:
            start = f"/{member.name.lower()}".find(f"/{marker}")
            if start >= 0:
                return member.name[:start]
    return ""


def _splits(
    archive: Archive, layout: _Layout, entries: Entries, stems: set[str], report: FindingCollector
) -> dict[str, str]:
    """The split of every image, by the first folder with lists. The lists of other folders are compared with it."""
    chosen: dict[str, str] = {}
    for rank, (folder, lists) in enumerate(entries.items()):
        listed_splits: dict[str, str] = {}
        for split, listed in lists.items():
            place = layout.lists[folder][split].place
            for entry in listed:
                first = listed_splits.setdefault(entry.stem, split)
                if rank > 0:
                    continue
                if first != split:
                    report.extend([row_finding(Code.LISTED_TWICE, f"it stays in {first}", place, entry.reference)])
                if entry.stem not in stems:
                    report.extend([row_finding(Code.LISTED_BUT_MISSING, "left out", place, entry.reference)])
        if rank == 0:
            chosen = listed_splits
            continue
        different = sorted(stem for stem in {*listed_splits, *chosen} if listed_splits.get(stem) != chosen.get(stem))
        if different:
            used = next(iter(entries))
            names = ", ".join(member.name for member in layout.lists[folder].values())
            report.add(
                Code.SPLIT_LISTS_DISAGREE,
                f"the lists in {used or 'the top folder'} are used",
                Place(archive.name, names),
                f"these lists assign {shortened(different)} to another split",
                len(different),
            )
    unlisted = sorted(stems - set(chosen))
    if unlisted:
        place = Place(archive.name, shortened(unlisted))
        report.add(Code.NOT_LISTED, f"they go to the split {UNASSIGNED!r}", place, count=len(unlisted))
    return chosen


def _workbook_rows(
    archive: Archive, workbook: Member | None, archives: ArchivePool, report: FindingCollector
) -> tuple[WorkbookRow, ...]:
    resolution = "the XML boxes are not checked"
    if workbook is None:
        report.add(Code.CROSS_CHECK_IMPOSSIBLE, resolution, archive.place, "no workbook")
        return ()
    data = read_member(workbook, archives, limit=MAX_WORKBOOK_BYTES)
    try:
        return parse_workbook(data, workbook.file_name)
    except ValueError as error:
        report.add(Code.CROSS_CHECK_IMPOSSIBLE, resolution, workbook.place, str(error))
        return ()


def _cross_checks(
    layout: _Layout, entries: Entries, rows: Sequence[WorkbookRow], stems: set[str], report: FindingCollector
) -> Mapping[str, list[CrossCheck]]:
    """The boxes of every image as the workbook and the lists with boxes give them."""
    checks: defaultdict[str, list[CrossCheck]] = defaultdict(list)
    if layout.workbook is not None and rows:
        boxes = _workbook_boxes(layout.workbook, rows, stems, report)
        for stem in stems:
            checks[stem].append(CrossCheck(layout.workbook.name, "", tuple(boxes[stem])))
    for folder, lists in entries.items():
        for split, listed in lists.items():
            by_stem: defaultdict[str, list[Listed]] = defaultdict(list)
            for entry in listed:
                if entry.boxes and entry.stem in stems:
                    by_stem[entry.stem].append(entry)
            for stem, same in by_stem.items():  # some lists have one line per box
                together = tuple(box for entry in same for box in entry.boxes)
                checks[stem].append(CrossCheck(layout.lists[folder][split].name, same[0].reference, together))
    return checks


def _workbook_boxes(
    workbook: Member, rows: Sequence[WorkbookRow], stems: set[str], report: FindingCollector
) -> Mapping[str, list[Box2D]]:
    boxes: defaultdict[str, list[Box2D]] = defaultdict(list)
    for row in rows:
        stem = _stem_of(row.name, stems)
        if stem is None or row.box is None:
            detail = "its numbers cannot be read" if stem else "there is no such image"
            finding = row_finding(Code.TABLES_DISAGREE, "the XML files are used", workbook.place, row.reference, detail)
            report.extend([finding])
            continue
        boxes[stem].append(row.box)
    return boxes


def _stem_of(name: str, stems: set[str]) -> str | None:
    """The image that a table refers to: by its stem, or by its file name with or without a folder."""
    file_name = name.replace("\\", "/").rpartition("/")[2]
    bare, dot, suffix = file_name.rpartition(".")
    for candidate in (file_name, bare if dot and f".{suffix.lower()}" in (*SUFFIXES, ".xml") else ""):
        if candidate in stems:
            return candidate
    return None


def _pairing_findings(units: Sequence[SliceUnit], layout: _Layout, stems: set[str]) -> list[Finding]:
    findings = [
        Finding(Code.ANNOTATION_WITHOUT_IMAGE, "left out", xml.place)
        for stem, xml in layout.annotations.items()
        if stem not in stems
    ]
    findings += [
        Finding(Code.IMAGE_WITHOUT_ANNOTATION, "kept, with no boxes", unit.image.place)
        for unit in units
        if unit.annotation is None
    ]
    return findings
