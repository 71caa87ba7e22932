"""The plan of slices: images, their XML files, split lists in up to four folders, and a workbook that repeats the boxes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from lung_nodule_ct.declaration.archives import Role
from lung_nodule_ct.declaration.findings import Code, FindingCollector
from lung_nodule_ct.declaration.identity import parse_image_name, quoted
from lung_nodule_ct.declaration.labels import LIST_SPLITS, UNASSIGNED
from lung_nodule_ct.declaration.names import NameIndex, name_key
from lung_nodule_ct.declaration.published import CountedExample
from lung_nodule_ct.errors import Place
from lung_nodule_ct.examples.family import (
    ImageUnit,
    Planned,
    empty_archive,
    leave_out_unused,
    number_images,
    number_scans,
    parse_member,
    shortened,
    unique_images,
)
from lung_nodule_ct.examples.uses import PlanReport
from lung_nodule_ct.formats.pictures import SUFFIXES
from lung_nodule_ct.formats.split_lists import MAX_LIST_BYTES, Listed, parse_split_list
from lung_nodule_ct.formats.workbook import MAX_WORKBOOK_BYTES, Workbook, parse_workbook
from lung_nodule_ct.sources.source import ArchivePool
from lung_nodule_ct.sources.zip_member import read_member

if TYPE_CHECKING:
    from lung_nodule_ct.declaration.configs import Config
    from lung_nodule_ct.declaration.findings import Finding
    from lung_nodule_ct.sources.source import Source
    from lung_nodule_ct.sources.zip_directory import Archive, Member

    Box2D = tuple[float, float, float, float]
    Lists = Mapping[str, Mapping[str, "_SplitList"]]

#: Folders of split lists, relative to the top of the layout. Where the lists disagree, the first folder is used.
_LIST_FOLDERS = ("imagesets/main", "imagesets", "", "images")
_MAX_LINES_PER_IMAGE = 1000
"""Lines of one list about one image that are kept; a list with boxes may have one line per box."""


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
        annotations: The XML files.
        lists: Split lists by folder and split.
        workbook: The workbook of boxes.
        unused: All other members.
    """

    images: tuple[Member, ...]
    annotations: tuple[Member, ...]
    lists: Mapping[str, Mapping[str, Member]]
    workbook: Member | None
    unused: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class _SplitList:
    """A split list whose names were found.

    Attributes:
        member: The list.
        entries: The lines about each image.
        num_used: Number of lines that name an image.
        num_missing: Number of the other lines.
        findings: What is wrong with the list.
    """

    member: Member
    entries: Mapping[str, Sequence[Listed]]
    num_used: int
    num_missing: int
    findings: tuple[Finding, ...]


def plan_slices(config: Config, source: Source) -> Planned[SliceUnit]:
    """Plan one unit per image."""
    del config  # one archive, one layout
    report = PlanReport()
    units = [unit for archive in source.archives(Role.DETECTION_2D) for unit in _plan_archive(archive, report)]
    numbering = number_scans(source)
    report.extend(numbering.findings)
    return Planned(number_images(units, numbering.numbers), report.findings, report.uses)


def _plan_archive(archive: Archive, report: PlanReport) -> list[SliceUnit]:
    layout = _layout(archive)
    if not layout.images:
        report.extend([empty_archive(archive, "images")])
    units = unique_images([_unit(image) for image in layout.images], report)
    stems = NameIndex(unit.source_name for unit in units)
    annotations = _annotations(layout, stems, report)
    lists: dict[str, dict[str, _SplitList]] = {}
    with ArchivePool() as archives:
        for folder, members in layout.lists.items():
            lists[folder] = {}
            for split, member in members.items():
                read = partial(_read_list, member=member, stems=stems)
                data, listed = parse_member(member, archives, read, limit=MAX_LIST_BYTES)
                report.reads_list(member, data, used=listed.num_used, reported=listed.num_missing)
                lists[folder][split] = listed
        workbook = _read_workbook(archive, layout.workbook, archives, report)
    # lists that name no image do not take precedence over lists that do
    lists = dict(sorted(lists.items(), key=lambda item: not any(each.entries for each in item[1].values())))
    splits = _splits(archive, layout, lists, units, report)
    checks = _cross_checks(layout, lists, workbook, stems, units, report)
    units = [
        replace(
            unit,
            split=splits.get(unit.source_name, UNASSIGNED),
            annotation=annotations.get(unit.source_name),
            cross_checks=tuple(checks[unit.source_name]),
        )
        for unit in units
    ]
    for unit in units:
        if unit.annotation is None:
            report.add(Code.IMAGE_WITHOUT_ANNOTATION, "kept, with no boxes", unit.image.place)
    leave_out_unused(archive, layout.unused, report)
    return units


def _unit(image: Member) -> SliceUnit:
    name = parse_image_name(image.stem)
    return SliceUnit(
        split=UNASSIGNED,
        source_name=image.stem,
        patient_id=name.patient,
        fold=name.fold,
        image=image,
        annotation=None,
    )


def _annotations(layout: _Layout, stems: NameIndex, report: PlanReport) -> Mapping[str, Member]:
    """The XML file of each image: the one of exactly its name, otherwise the first that is equal as names are compared."""
    annotations: dict[str, Member] = {}
    for xml in sorted(layout.annotations, key=lambda member: member.stem not in stems):
        stem = stems.find_file(xml.stem)
        if stem is None:
            report.add(Code.ANNOTATION_WITHOUT_IMAGE, "left out", xml.place)
            report.reports(xml)
        elif (kept := annotations.setdefault(stem, xml)) is not xml:
            report.add(Code.DUPLICATE_ID, f"left out, {quoted(kept.name)} is used", xml.place)
            report.reports(xml)
    return annotations


def _layout(archive: Archive) -> _Layout:
    top = _top(archive)
    pictures = [member for member in archive.members if member.suffix in SUFFIXES]
    in_folder = [member for member in pictures if "jpegimages" in member.name.lower().split("/")[:-1]]
    images = tuple(in_folder or pictures)
    annotations: list[Member] = []
    lists: defaultdict[str, dict[str, Member]] = defaultdict(dict)
    chosen = set(images)
    workbook, unused = None, [member for member in pictures if member not in chosen]
    for member in archive.members:
        folder = _relative(member.name, top).rpartition("/")[0].lower()
        split = LIST_SPLITS.get(name_key(member.stem))
        if member.suffix in SUFFIXES:
            continue
        if member.suffix == ".xml":
            annotations.append(member)
        elif member.suffix == ".txt" and split and folder in _LIST_FOLDERS and split not in lists[folder]:
            lists[folder][split] = member
        elif member.suffix == ".xlsx" and workbook is None:
            workbook = member
        else:
            unused.append(member)
    ordered = {folder: lists[folder] for folder in _LIST_FOLDERS if lists[folder]}
    return _Layout(images, tuple(annotations), ordered, workbook, tuple(unused))


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


def _read_list(data: bytes, *, member: Member, stems: NameIndex) -> _SplitList:
    """Find the image of every line."""
    entries: dict[str, list[Listed]] = {}
    report = FindingCollector()
    table = member.place
    used = missing = 0
    for entry in parse_split_list(data):
        match = stems.find_first(entry.names)
        if match.name is None:
            report.add_row(Code.LISTED_BUT_MISSING, "left out", table, entry, match.detail)
            missing += 1
            continue
        used += 1
        if match.repaired:
            report.add_row(Code.ZEROS_LOST, f"taken as {quoted(match.name)}", table, entry)
        if problem := entry.problem(stems):
            report.add_row(Code.BAD_ROW, f"taken as {quoted(match.name)}", table, entry, problem)
        same = entries.setdefault(match.name, [])
        if len(same) < _MAX_LINES_PER_IMAGE:
            same.append(entry)
    return _SplitList(member, entries, used, missing, report.findings)


def _splits(
    archive: Archive, layout: _Layout, lists: Lists, units: Sequence[SliceUnit], report: PlanReport
) -> dict[str, str]:
    """The split of every image, by the first folder with lists. The lists of other folders are compared with it."""
    chosen: dict[str, str] = {}
    for rank, (folder, by_split) in enumerate(lists.items()):
        listed_splits: dict[str, str] = {}
        for split, listed in by_split.items():
            report.extend(listed.findings)
            for stem, entries in listed.entries.items():
                first = listed_splits.setdefault(stem, split)
                if first != split:
                    report.add_row(Code.LISTED_TWICE, f"it stays in {first}", listed.member.place, entries[0])
        if rank == 0:
            chosen = listed_splits
            continue
        different = sorted(stem for stem in {*listed_splits, *chosen} if listed_splits.get(stem) != chosen.get(stem))
        if different:
            used = next(iter(lists))
            names = ", ".join(member.name for member in layout.lists[folder].values())
            report.add(
                Code.SPLIT_LISTS_DISAGREE,
                f"the lists in {used or 'the top folder'} are used",
                Place(archive.name, names),
                f"these lists assign {quoted(shortened(different))} to another split",
                len(different),
            )
    unlisted = sorted({unit.source_name for unit in units} - set(chosen))
    if unlisted:
        place = Place(archive.name, shortened(unlisted))
        report.add(Code.NOT_LISTED, f"they go to the split {UNASSIGNED!r}", place, count=len(unlisted))
    return chosen


def _read_workbook(
    archive: Archive, workbook: Member | None, archives: ArchivePool, report: PlanReport
) -> Workbook | None:
    resolution = "the XML boxes are not checked"
    if workbook is None:
        report.add(Code.CROSS_CHECK_IMPOSSIBLE, resolution, archive.place, "no workbook")
        return None
    data = read_member(workbook, archives, limit=MAX_WORKBOOK_BYTES)
    try:
        parsed = parse_workbook(data, workbook.file_name)
    except ValueError as error:
        report.add(Code.CROSS_CHECK_IMPOSSIBLE, resolution, workbook.place, str(error))
        report.reports(workbook)
        return None
    for sheet, guessed in parsed.guessed:
        place = Place(archive.name, workbook.name, f"sheet {quoted(sheet)}")
        report.add(Code.TABLE_HEADER_UNKNOWN, f"taken by their position: {', '.join(guessed)}", place)
    for sheet, problem in parsed.unread:
        place = Place(archive.name, workbook.name, f"sheet {quoted(sheet)}")
        code = Code.TABLE_LINES_SKIPPED if parsed.rows else Code.CROSS_CHECK_IMPOSSIBLE
        report.add(code, "this sheet is not read", place, problem)
    return parsed


def _cross_checks(
    layout: _Layout,
    lists: Lists,
    workbook: Workbook | None,
    stems: NameIndex,
    units: Sequence[SliceUnit],
    report: PlanReport,
) -> Mapping[str, list[CrossCheck]]:
    """The boxes of every image as the workbook and the lists with boxes give them."""
    checks: defaultdict[str, list[CrossCheck]] = defaultdict(list)
    if layout.workbook is not None and workbook is not None:
        boxes = _workbook_boxes(layout.workbook, workbook, stems, report)
        for unit in units if workbook.rows else ():
            check = CrossCheck(layout.workbook.name, "", tuple(boxes[unit.source_name]))
            checks[unit.source_name].append(check)
    for by_split in lists.values():
        for listed in by_split.values():
            for stem, entries in listed.entries.items():  # some lists have one line per box
                boxed = [entry for entry in entries if entry.boxes]
                if boxed:
                    together = tuple(box for entry in boxed for box in entry.boxes)
                    checks[stem].append(CrossCheck(listed.member.name, boxed[0].reference, together))
    return checks


def _workbook_boxes(
    table: Member, workbook: Workbook, stems: NameIndex, report: PlanReport
) -> Mapping[str, list[Box2D]]:
    boxes: defaultdict[str, list[Box2D]] = defaultdict(list)
    used = 0
    for row in workbook.rows:
        match = stems.find(row.name)
        if match.name is None or row.box is None:
            detail = "its numbers cannot be read" if match.name else match.detail or "there is no such image"
            report.add_row(Code.TABLES_DISAGREE, "the XML files are used", table.place, row, detail)
            continue
        boxes[match.name].append(row.box)
        used += 1
    report.reads_workbook(
        table,
        total=workbook.num_filled,
        used=used,
        reported=len(workbook.rows) - used + workbook.num_unread,
        ignored=workbook.num_headings,
    )
    return boxes
