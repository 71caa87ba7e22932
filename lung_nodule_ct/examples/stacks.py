"""The kind ``stack``: stacks of 8-bit slices with nodule boxes in voxels (``det3d_bmp_1.25mm``).

The archives hold one folder of numbered slices per case, a table of boxes, tables of boxes per split, and split lists of case numbers.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from lung_nodule_ct.declaration.archives import Role
from lung_nodule_ct.declaration.findings import Code, Finding, FindingCollector
from lung_nodule_ct.declaration.identity import is_published_number, natural_key
from lung_nodule_ct.declaration.labels import LIST_SPLITS, UNASSIGNED
from lung_nodule_ct.declaration.rows import StackNoduleRecord, StackRow
from lung_nodule_ct.errors import MemberError, Place
from lung_nodule_ct.examples.family import (
    Example,
    Family,
    Reading,
    Unit,
    empty_archive,
    shortened,
    table_findings,
    unused_members,
)
from lung_nodule_ct.formats.pictures import SUFFIXES, as_grey, pixels_key, read_picture
from lung_nodule_ct.formats.tables import MAX_TABLE_BYTES, BoxRow, parse_boxes, parse_split_list
from lung_nodule_ct.geometry.boxes import clip_box
from lung_nodule_ct.sources.source import ArchivePool
from lung_nodule_ct.sources.zip_member import read_member

if TYPE_CHECKING:
    from lung_nodule_ct.declaration.configs import Config
    from lung_nodule_ct.geometry.frame import GreyVolume
    from lung_nodule_ct.sources.source import Source
    from lung_nodule_ct.sources.zip_directory import Archive, Member

MAIN_TABLE: Final = "image_annotation_augment_diameter.csv"
_SLICE_NUMBER = re.compile(r"(?<!\d)(\d{1,9})$")
_SPLIT_TABLE = re.compile(r"(?:(\w+?)_anno(?:tation)?s?|anno(?:tation)?s?_(\w+?))", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class StackBox:
    """One annotated box of a stack.

    Attributes:
        low: First voxel of the box, x, y and slice number, as published.
        high: Last voxel of the box, inclusive, likewise.
        diameter: As published, ``None`` if it is missing.
        place: The row of its table.
    """

    low: tuple[int, int, int]
    high: tuple[int, int, int]
    diameter: float | None
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class StackUnit(Unit):
    """One stack of slices.

    Attributes:
        case_id: Its number as published; of a case whose folder has another name, its rank in natural order, as ``case-3``.
        slices: Number and member of each slice, in numeric order, which is z order.
        boxes: In the order of their table.
        augmented: Whether the archive marks it as a flipped or rotated copy; ``None`` if it does not say.
    """

    case_id: str
    slices: tuple[tuple[int, Member], ...]
    boxes: tuple[StackBox, ...]
    augmented: bool | None

    @property
    def members(self) -> tuple[Member, ...]:
        """The slices."""
        return tuple(member for _, member in self.slices)


CaseSlices = Mapping[str, Sequence[tuple[int, "Member"]]]
"""Number and member of the slices of every case."""


@dataclass(frozen=True, slots=True)
class _Assigned:
    """A case that a list or table assigns to a split."""

    split: str
    place: Place


@dataclass(frozen=True, slots=True)
class _Tables:
    """The content of the table archive.

    Attributes:
        boxes: The rows of boxes, each with its place.
        by_list: Cases assigned to a split by the split lists.
        by_table: Cases assigned to a split by the tables of the splits.
    """

    boxes: tuple[tuple[Place, BoxRow], ...]
    by_list: Mapping[str, _Assigned]
    by_table: Mapping[str, _Assigned]


def plan_stacks(config: Config, source: Source) -> tuple[list[StackUnit], tuple[Finding, ...]]:
    """Plan one unit per case."""
    del config  # one set of archives, one layout
    report = FindingCollector()
    cases = _cases(source.archives(Role.BMP_SLICES), report)
    tables = _read_tables(source.archives(Role.BMP_TABLES), report)
    boxes: defaultdict[str, list[StackBox]] = defaultdict(list)
    augmented: defaultdict[str, set[bool]] = defaultdict(set)
    seen: Counter[tuple[object, ...]] = Counter()
    for place, row in tables.boxes:
        case = _case_of(row.pid, cases, place, report)
        if case is None:
            continue
        seen[key := (case, row.low, row.high, row.diameter)] += 1
        if seen[key] > 1:
            report.add(Code.DUPLICATE_ANNOTATION, "kept", place)
        if row.diameter is None and row.row.cells["diameter"]:
            report.add(Code.DIAMETER_UNREADABLE, "diameter is null", place)
        boxes[case].append(StackBox(row.low, row.high, row.diameter, place))
        if row.augmented is not None:
            augmented[case].add(row.augmented)
    splits = _splits(tables, cases, report)
    ranks = {case: rank for rank, case in enumerate(sorted(cases, key=natural_key), 1)}
    units = []
    for case, slices in cases.items():
        if not is_published_number(case):
            report.add(Code.NO_PATIENT, f"case_id is case-{ranks[case]}", _folder(slices))
        if case not in boxes:
            report.add(Code.IMAGE_WITHOUT_ANNOTATION, "kept, with no nodules", _folder(slices))
        units.append(
            StackUnit(
                split=splits.get(case, UNASSIGNED),
                source_name=case,
                case_id=case if is_published_number(case) else f"case-{ranks[case]}",
                slices=tuple(slices),
                boxes=tuple(boxes[case]),
                augmented=next(iter(augmented[case])) if len(augmented[case]) == 1 else None,
            )
        )
    return units, report.findings


def make_stack(unit: StackUnit, reading: Reading) -> list[Example]:
    """Make the example of a stack: the slices as one volume, in the order of their numbers, and the boxes.

    Raises:
        MemberError: A slice is damaged, is not a grey picture, or has another size than the first slice.
    """
    report = FindingCollector()
    volume = _read_volume([member for _, member in unit.slices], reading, report)
    numbers = [number for number, _ in unit.slices]
    row = StackRow(
        case_id=unit.case_id,
        volume=volume,
        nodules=[nodule for box in unit.boxes if (nodule := _nodule(box, numbers, volume.shape, report))],
        augmented=unit.augmented,
        fold=unit.fold,
        source_name=unit.source_name,
    )
    return [Example(row, pixels_key(volume), report.findings)]


STACKS: Final = Family(plan_stacks, make_stack)


def _folder(slices: Sequence[tuple[int, Member]]) -> Place:
    first = slices[0][1]
    return Place(first.archive, f"{first.folder}/")


def _cases(archives: Sequence[Archive], report: FindingCollector) -> CaseSlices:
    """The slices of every case in numeric order. A case may extend over several archives."""
    numbered: defaultdict[str, dict[int, Member]] = defaultdict(dict)
    for archive in archives:
        unused, count = [], 0
        for member in archive.members:
            number = _SLICE_NUMBER.search(member.stem)
            case = member.folder.rpartition("/")[2]
            if member.suffix not in SUFFIXES or number is None or not case:
                unused.append(member.name)
                continue
            count += 1
            kept = numbered[case].setdefault(int(number[1]), member)
            if kept is not member:
                detail = f"the same case and slice as {kept.place}"
                report.add(Code.DUPLICATE_ID, "left out, the first is used", member.place, detail)
        if not count:
            report.extend([empty_archive(archive, "imgs/<case>/<slice>.bmp")])
        report.extend(unused_members(archive, unused))
    cases = {case: sorted(slices.items()) for case, slices in numbered.items()}
    for slices in cases.values():
        first, last = slices[0][0], slices[-1][0]
        if last - first + 1 != len(slices):
            absent = sorted(set(range(first, last + 1)) - {number for number, _ in slices})
            missing = shortened([str(number) for number in absent])
            detail = f"expected slices {first} to {last}, got none of number {missing}"
            report.add(Code.SLICE_GAP, "the available slices are stacked", _folder(slices), detail, len(absent))
    return cases


def _read_tables(archives: Sequence[Archive], report: FindingCollector) -> _Tables:
    main: list[tuple[Place, BoxRow]] = []
    by_split: list[tuple[str, Place, BoxRow]] = []
    by_list: dict[str, _Assigned] = {}
    read: list[str] = []
    for archive in archives:
        unused = []
        for member in archive.members:
            split = _split_of(member)
            if member.suffix not in (".csv", ".txt") or (member.suffix == ".txt" and split is None):
                unused.append(member.name)
                continue
            with ArchivePool() as pool:
                data = read_member(member, pool, limit=MAX_TABLE_BYTES)
            if member.suffix == ".txt":
                for entry in parse_split_list(data):
                    place = Place(archive.name, member.name, entry.reference)
                    _assign(by_list, entry.stem, _Assigned(split or UNASSIGNED, place), report)
                continue
            read.append(member.name)
            table = parse_boxes(data)
            report.extend(table_findings(table, member, "a case and six integers"))
            rows = [(Place(archive.name, member.name, row.row.reference), row) for row in table.good]
            if split is None:
                main += rows
            else:
                by_split += [(split, place, row) for place, row in rows]
        report.extend(unused_members(archive, unused))
    if not main and not by_split:
        raise _no_boxes(archives[0], read)
    if not main:
        resolution = "the tables of the splits are used, which have no diameters"
        place = Place(by_split[0][1].archive)
        report.add(Code.TABLE_STANDS_IN, resolution, place, f"expected {MAIN_TABLE}")
    by_table: dict[str, _Assigned] = {}
    for split, place, row in by_split:
        _assign(by_table, row.pid, _Assigned(split, place), report)
    own = [(place, row) for split, place, row in by_split if by_table[row.pid].split == split]
    report.extend(_compare_tables(main, own))
    return _Tables(tuple(main or [(place, row) for _, place, row in by_split]), by_list, by_table)


def _assign(splits: dict[str, _Assigned], case: str, assigned: _Assigned, report: FindingCollector) -> None:
    first = splits.setdefault(case, assigned)
    if first.split != assigned.split:
        report.add(Code.LISTED_TWICE, f"it stays in {first.split}", assigned.place)


def _no_boxes(archive: Archive, read: Sequence[str]) -> MemberError:
    members = ", ".join(member.name for member in archive.members[:5])
    return MemberError(
        "contains no box",
        archive=archive.name,
        expected=f"rows of boxes in {MAIN_TABLE}",
        got=f"no readable row in {', '.join(read)}" if read else members or "no members",
        remedy="download the archive again",
    )


def _split_of(member: Member) -> str | None:
    """The split of a table or list, by its name: ``train.txt``, ``train_anno.csv``, ``anno_train.csv``."""
    stem = member.stem.lower()
    named = _SPLIT_TABLE.fullmatch(stem)
    return LIST_SPLITS.get(stem) or (LIST_SPLITS.get(named[1] or named[2]) if named else None)


def _compare_tables(main: Sequence[tuple[Place, BoxRow]], by_split: Sequence[tuple[Place, BoxRow]]) -> list[Finding]:
    """Compare the tables of the splits with the table that has the diameters."""
    if not main or not by_split:
        return []
    known = Counter(_box_key(row) for _, row in main)
    findings = []
    for place, row in by_split:
        key = _box_key(row)
        if known[key] > 0:
            known[key] -= 1
        else:
            detail = f"{main[0][0].member} has no such box"
            findings.append(Finding(Code.TABLES_DISAGREE, "that table is used", place, detail))
    for place, row in main:
        key = _box_key(row)
        if known[key] > 0:
            known[key] -= 1
            findings.append(Finding(Code.TABLES_DISAGREE, "it is used", place, "no table of a split has this box"))
    return findings


def _box_key(row: BoxRow) -> tuple[object, ...]:
    """Equal for two rows about the same box, with or without leading zeros in the case number."""
    return row.pid.lstrip("0"), row.low, row.high


def _case_of(pid: str, cases: CaseSlices, place: Place, report: FindingCollector) -> str | None:
    """The case that a table refers to. A case number that lost its leading zeros is repaired if only one case fits."""
    if pid in cases:
        return pid
    number = pid.removesuffix(".0")
    same = [case for case in cases if number.isdecimal() and case.lstrip("0") == number.lstrip("0")]
    if len(same) == 1:
        report.add(Code.ZEROS_LOST, f"taken as {same[0]}", place)
        return same[0]
    report.add(Code.ANNOTATION_WITHOUT_IMAGE, "left out", place)
    return None


def _splits(tables: _Tables, cases: CaseSlices, report: FindingCollector) -> Mapping[str, str]:
    """The split of every case: by the lists if there are any, otherwise by the tables of the splits."""
    first, second = (tables.by_list, tables.by_table) if tables.by_list else (tables.by_table, {})
    splits: dict[str, str] = {}
    for pid, assigned in first.items():
        doubts = FindingCollector()
        case = _case_of(pid, cases, assigned.place, doubts)
        if case is None:
            report.add(Code.LISTED_BUT_MISSING, "left out", assigned.place)
            continue
        report.extend(doubts.findings)
        if splits.setdefault(case, assigned.split) != assigned.split:
            report.add(Code.LISTED_TWICE, f"it stays in {splits[case]}", assigned.place)
    for pid, assigned in second.items():
        case = _case_of(pid, cases, assigned.place, FindingCollector())  # reported with the boxes of the case
        if case is not None and splits.get(case, assigned.split) != assigned.split:
            report.add(Code.SPLIT_LISTS_DISAGREE, f"{splits[case]}, from the lists, is used", assigned.place)
    unlisted = sorted(set(cases) - set(splits))
    if unlisted:
        place = Place(cases[unlisted[0]][0][1].archive, shortened(unlisted))
        report.add(Code.NOT_LISTED, f"they go to the split {UNASSIGNED!r}", place, count=len(unlisted))
    return splits


def _read_volume(members: Sequence[Member], reading: Reading, report: FindingCollector) -> GreyVolume:
    volume: GreyVolume | None = None
    for index, member in enumerate(members):
        _, picture, findings = read_picture(member, reading.archives)
        report.extend(findings)
        try:
            grey = as_grey(picture.pixels)
        except ValueError as error:
            raise member.error("is not a slice", expected="8-bit grey values", got=error) from error
        if volume is None:
            volume = reading.buffers.take("volume", (len(members), *grey.shape), np.uint8)
        if grey.shape != volume.shape[1:]:
            raise member.error(
                "has another size than the first slice of its case",
                expected=f"{volume.shape[2]} x {volume.shape[1]} pixels",
                got=f"{grey.shape[1]} x {grey.shape[0]}",
                remedy="if the archive is intact, report this case",
            )
        volume[index] = grey
    assert volume is not None, "a case has at least one slice"  # noqa: S101 -- the plan makes a case from its slices
    return volume


def _nodule(
    box: StackBox, numbers: Sequence[int], shape: tuple[int, ...], report: FindingCollector
) -> StackNoduleRecord | None:
    """One box, converted from inclusive slice and pixel numbers to half-open voxel indices."""
    if any(high < low for low, high in zip(box.low, box.high, strict=True)):
        report.add(Code.BOX_INVERTED, "left out", box.place, "expected min <= max on each axis")
        return None
    low_z, high_z = _index_range(box.low[2], box.high[2], numbers)
    unclipped = (box.low[0], box.low[1], low_z, box.high[0] + 1, box.high[1] + 1, high_z)
    clipped = clip_box(unclipped, shape)
    size = f"the volume has {' x '.join(map(str, shape[::-1]))} voxels"
    if clipped is None:
        report.add(Code.NODULE_OUTSIDE_VOLUME, "its centre is kept, its box is null", box.place, size)
    elif clipped != unclipped:
        report.add(Code.BOX_PARTLY_OUTSIDE, "clipped to the volume", box.place, size)
    center = [(low + high - 1) / 2 for low, high in zip(unclipped[:3], unclipped[3:], strict=True)]
    return StackNoduleRecord(box_voxel=clipped, center_voxel=center, diameter=box.diameter)


def _index_range(low: int, high: int, numbers: Sequence[int]) -> tuple[int, int]:
    """Slice numbers ``low`` to ``high``, inclusive, as half-open indices in the stack. Outside it one number is one index."""
    first, last = numbers[0], numbers[-1]
    start = low - first if low < first else bisect_left(numbers, low) + max(0, low - last - 1)
    stop = high - first + 1 if high < first else bisect_right(numbers, high) + max(0, high - last)
    return start, stop
