"""The 8-bit slice stacks: folders of BMP slices by case, a table of boxes, and split lists by case number.

``det3d_bmp_1.25mm``: one stack of 8-bit slices with its boxes.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lung_nodule_ct.declaration.archives import Role
from lung_nodule_ct.declaration.findings import Code, Finding
from lung_nodule_ct.declaration.identity import image_id
from lung_nodule_ct.declaration.labels import UNASSIGNED
from lung_nodule_ct.errors import MemberError
from lung_nodule_ct.examples.family import Example, StackBox, StackUnit, pixels_key
from lung_nodule_ct.examples.plan_findings import shortened, table_findings, unused_members
from lung_nodule_ct.examples.slices_plan import LIST_SPLITS
from lung_nodule_ct.formats.pictures import SUFFIXES, as_grey, read_picture
from lung_nodule_ct.formats.tables import MAX_TABLE_BYTES, BoxRow, parse_boxes, parse_split_list
from lung_nodule_ct.geometry.boxes import clip_box
from lung_nodule_ct.sources.source import ArchivePool
from lung_nodule_ct.sources.zip_member import read_member

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lung_nodule_ct.geometry.types import GreyVolume
    from lung_nodule_ct.sources.source import Source
    from lung_nodule_ct.sources.zip_directory import Archive, Member
    from lung_nodule_ct.system.memory import BufferPool


MAIN_TABLE = "image_annotation_augment_diameter.csv"
_SLICE_NUMBER = re.compile(r"(?<!\d)(\d{1,9})$")
_SPLIT_TABLE = re.compile(r"(?:(\w+?)_anno(?:tation)?s?|anno(?:tation)?s?_(\w+?))", re.IGNORECASE)

_Place = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Tables:
    """What the table archive says: boxes, and who belongs to which split, each with its place."""

    boxes: tuple[tuple[_Place, BoxRow], ...]
    by_list: dict[str, tuple[str, _Place, str]]
    by_table: dict[str, tuple[str, _Place, str]]


def plan_stacks(source: Source) -> tuple[list[StackUnit], list[Finding]]:
    """The units of ``det3d_bmp_1.25mm``."""
    findings: list[Finding] = []
    cases = _cases(source.archives(Role.BMP_SLICES), findings)
    tables = _read_tables(source.archives(Role.BMP_TABLES), findings)
    boxes: defaultdict[str, list[StackBox]] = defaultdict(list)
    augmented: defaultdict[str, set[bool]] = defaultdict(set)
    seen: Counter[tuple[object, ...]] = Counter()
    for place, row in tables.boxes:
        pid = _case_of(row.pid, cases, place, row.row.place, findings)
        if pid is None:
            continue
        seen[key := (pid, row.low, row.high, row.diameter)] += 1
        if seen[key] > 1:
            findings.append(Finding(Code.DUPLICATE_ANNOTATION, "kept", *place, row.row.place))
        if row.diameter is None and row.row.cells["diameter"]:
            findings.append(Finding(Code.DIAMETER_UNREADABLE, "diameter is null", *place, row.row.place))
        boxes[pid].append(StackBox(row.low, row.high, row.diameter, place, row.row.place))
        if row.augmented is not None:
            augmented[pid].add(row.augmented)
    splits = _splits(tables, cases, findings)
    units = []
    for pid, slices in cases.items():
        if pid not in boxes:
            findings.append(
                Finding(
                    Code.IMAGE_WITHOUT_ANNOTATION,
                    "kept, with no nodules",
                    slices[0][1].archive,
                    f"{slices[0][1].folder}/",
                )
            )
        units.append(
            StackUnit(
                split=splits.get(pid, UNASSIGNED),
                source_name=pid,
                slices=tuple(slices),
                boxes=tuple(boxes[pid]),
                augmented=next(iter(augmented[pid])) if len(augmented[pid]) == 1 else None,
            )
        )
    return units, findings


def _cases(archives: Sequence[Archive], findings: list[Finding]) -> dict[str, list[tuple[int, Member]]]:
    """The slices of every case in numeric order. A case may be spread over archives."""
    numbered: defaultdict[str, dict[int, Member]] = defaultdict(dict)
    for archive in archives:
        unused, found = [], 0
        for member in archive.members:
            number = _SLICE_NUMBER.search(member.stem)
            pid = member.folder.rpartition("/")[2]
            if member.suffix not in SUFFIXES or number is None or not pid:
                unused.append(member.name)
                continue
            found += 1
            kept = numbered[pid].setdefault(int(number[1]), member)
            if kept is not member:
                detail = f"the same case and slice as {kept.archive} > {kept.name}"
                findings.append(
                    Finding(Code.DUPLICATE_ID, "left out, the first is used", archive.name, member.name, detail=detail)
                )
        if not found:
            findings.append(
                Finding(
                    Code.ARCHIVE_EMPTY, "nothing is taken from it", archive.name, detail="no imgs/<case>/<slice>.bmp"
                )
            )
        findings += unused_members(archive, unused)
    cases = {pid: sorted(slices.items()) for pid, slices in numbered.items()}
    for slices in cases.values():
        first, last = slices[0][0], slices[-1][0]
        if last - first + 1 != len(slices):
            absent = sorted(set(range(first, last + 1)) - {number for number, _ in slices})
            findings.append(
                Finding(
                    Code.SLICE_GAP,
                    "the slices that are there are stacked",
                    slices[0][1].archive,
                    f"{slices[0][1].folder}/",
                    detail=f"expected slices {first} to {last}, got none of number {shortened([str(n) for n in absent])}",
                    count=len(absent),
                )
            )
    return cases


def _read_tables(archives: Sequence[Archive], findings: list[Finding]) -> _Tables:
    main: list[tuple[_Place, BoxRow]] = []
    by_split: list[tuple[str, _Place, BoxRow]] = []
    by_list: dict[str, tuple[str, _Place, str]] = {}
    read: list[str] = []
    for archive in archives:
        unused = []
        for member in archive.members:
            place = (archive.name, member.name)
            if member.suffix not in (".csv", ".txt"):
                unused.append(member.name)
                continue
            with ArchivePool() as pool:
                data = read_member(member, pool, limit=MAX_TABLE_BYTES)
            split = _split_of(member)
            if member.suffix == ".txt":
                if split is None:
                    unused.append(member.name)
                    continue
                for entry in parse_split_list(data):
                    other = by_list.setdefault(entry.stem, (split, place, entry.place))
                    if other[0] != split:
                        findings.append(Finding(Code.LISTED_TWICE, f"it stays in {other[0]}", *place, entry.place))
                continue
            read.append(member.name)
            table = parse_boxes(data)
            findings += table_findings(table, place, "a case and six whole numbers")
            if split is None:
                main += [(place, row) for row in table.good]
            else:
                by_split += [(split, place, row) for row in table.good]
        findings += unused_members(archive, unused)
    if not main and not by_split:
        members = ", ".join(member.name for member in archives[0].members[:5])
        raise MemberError(
            "holds no box",
            archive=archives[0].name,
            expected=f"rows of boxes in {MAIN_TABLE}",
            got=f"no row that can be read in {', '.join(read)}" if read else members or "no members",
            remedy="download the archive again",
        )
    if not main:
        action = "the tables of the splits are used, which have no diameters"
        findings.append(Finding(Code.TABLE_STANDS_IN, action, by_split[0][1][0], detail=f"expected {MAIN_TABLE}"))
    by_table: dict[str, tuple[str, _Place, str]] = {}
    for split, place, row in by_split:
        other = by_table.setdefault(row.pid, (split, place, row.row.place))
        if other[0] != split:
            findings.append(Finding(Code.LISTED_TWICE, f"it stays in {other[0]}", *place, row.row.place))
    findings += _compare(main, [(place, row) for split, place, row in by_split if by_table[row.pid][0] == split])
    return _Tables(tuple(main or [(place, row) for _, place, row in by_split]), by_list, by_table)


def _split_of(member: Member) -> str | None:
    """The split that a table or list is for, by its name: ``train.txt``, ``train_anno.csv``, ``anno_train.csv``."""
    stem = member.stem.lower()
    named = _SPLIT_TABLE.fullmatch(stem)
    return LIST_SPLITS.get(stem) or (LIST_SPLITS.get(named[1] or named[2]) if named else None)


def _compare(main: Sequence[tuple[_Place, BoxRow]], by_split: Sequence[tuple[_Place, BoxRow]]) -> list[Finding]:
    """Hold the tables of the splits against the one that has the diameters."""
    if not main or not by_split:
        return []
    known = Counter(_box_key(row) for _, row in main)
    findings = []
    for place, row in by_split:
        key = _box_key(row)
        if known[key] > 0:
            known[key] -= 1
        else:
            detail = f"{main[0][0][1]} has no such box"
            findings.append(Finding(Code.TABLES_DISAGREE, "that table is used", *place, row.row.place, detail))
    for place, row in main:
        key = _box_key(row)
        if known[key] > 0:
            known[key] -= 1
            findings.append(
                Finding(Code.TABLES_DISAGREE, "it is used", *place, row.row.place, "no table of a split has this box")
            )
    return findings


def _box_key(row: BoxRow) -> tuple[object, ...]:
    """What makes two rows tell of the same box, leading zeros or not."""
    return row.pid.lstrip("0"), row.low, row.high


def _case_of(pid: str, cases: Mapping[str, object], place: _Place, row: str, findings: list[Finding]) -> str | None:
    """The case that a table means; ids that lost their leading zeros are mended where no doubt is left."""
    if pid in cases:
        return pid
    number = pid.removesuffix(".0")
    same = [case for case in cases if number.isdecimal() and case.lstrip("0") == number.lstrip("0")]
    if len(same) == 1:
        findings.append(Finding(Code.ZEROS_LOST, f"taken as {same[0]}", *place, row))
        return same[0]
    findings.append(Finding(Code.ANNOTATION_WITHOUT_IMAGE, "left out", *place, row))
    return None


def _splits(
    tables: _Tables, cases: Mapping[str, Sequence[tuple[int, Member]]], findings: list[Finding]
) -> dict[str, str]:
    """The split of every case: by the lists where there are any, else by the tables of the splits."""
    first, second = (tables.by_list, tables.by_table) if tables.by_list else (tables.by_table, {})
    splits: dict[str, str] = {}
    for pid, (split, place, row) in first.items():
        doubts: list[Finding] = []
        case = _case_of(pid, cases, place, row, doubts)
        for doubt in doubts:
            missing = doubt.code is Code.ANNOTATION_WITHOUT_IMAGE
            findings.append(Finding(Code.LISTED_BUT_MISSING, "left out", *place, row) if missing else doubt)
        if case is not None and splits.setdefault(case, split) != split:
            findings.append(Finding(Code.LISTED_TWICE, f"it stays in {splits[case]}", *place, row))
    for pid, (split, place, row) in second.items():
        case = _case_of(pid, cases, place, row, [])  # what is odd about it was found with its boxes
        if case is not None and splits.get(case, split) != split:
            findings.append(Finding(Code.SPLIT_LISTS_DISAGREE, f"the lists' {splits[case]} is used", *place, row))
    left = sorted(set(cases) - set(splits))
    if left:
        archive = cases[left[0]][0][1].archive
        findings.append(
            Finding(Code.NOT_LISTED, f"they go to the split {UNASSIGNED!r}", archive, shortened(left), count=len(left))
        )
    return splits


def build_stack(unit: StackUnit, archives: ArchivePool, buffers: BufferPool) -> Example:
    """The slices as one volume, in the order of their numbers, and the boxes.

    Raises:
        MemberError: A slice is damaged, no grey picture, or of another size than the first.
    """
    volume = _read_volume([member for _, member in unit.slices], archives, buffers)
    numbers = [number for number, _ in unit.slices]
    findings: list[Finding] = []
    row = {
        "case_id": image_id(unit.source_name),
        "volume": volume,
        "nodules": [nodule for box in unit.boxes if (nodule := _nodule(box, numbers, volume.shape, findings))],
        "augmented": unit.augmented,
        "fold": unit.fold,
        "source_name": unit.source_name,
    }
    return Example(row, pixels_key(volume), tuple(findings))


def _read_volume(members: list[Member], archives: ArchivePool, buffers: BufferPool) -> GreyVolume:
    volume: GreyVolume | None = None
    for index, member in enumerate(members):
        _, pixels = read_picture(member, archives)
        try:
            grey = as_grey(pixels)
        except ValueError as error:
            raise member.error("is no slice", expected="8-bit grey values", got=error) from error
        if volume is None:
            volume = buffers.take("volume", (len(members), *grey.shape), np.uint8)
        if grey.shape != volume.shape[1:]:
            raise member.error(
                "has another size than the first slice of its case",
                expected=f"{volume.shape[2]} x {volume.shape[1]} pixels",
                got=f"{grey.shape[1]} x {grey.shape[0]}",
                remedy="if it is whole, report this case",
            )
        volume[index] = grey
    assert volume is not None, "a case has at least one slice"  # noqa: S101 -- the plan makes a case from its slices
    return volume


def _nodule(
    box: StackBox, numbers: list[int], shape: tuple[int, ...], findings: list[Finding]
) -> dict[str, Any] | None:
    """One box, from inclusive slice and pixel numbers to half-open voxel indices."""
    where = (*box.table, box.row)
    if any(high < low for low, high in zip(box.low, box.high, strict=True)):
        findings.append(Finding(Code.BOX_INVERTED, "left out", *where, "expected min <= max on each axis"))
        return None
    low_z, high_z = _index_range(box.low[2], box.high[2], numbers)
    whole = (box.low[0], box.low[1], low_z, box.high[0] + 1, box.high[1] + 1, high_z)
    clipped = clip_box(whole, shape)
    size = f"the volume has {' x '.join(map(str, shape[::-1]))} voxels"
    if clipped is None:
        findings.append(Finding(Code.NODULE_OUTSIDE_VOLUME, "its centre is kept, its box is null", *where, size))
    elif clipped != whole:
        findings.append(Finding(Code.BOX_PARTLY_OUTSIDE, "clipped to the volume", *where, size))
    center = [(low + high - 1) / 2 for low, high in zip(whole[:3], whole[3:], strict=True)]
    return {"box_voxel": clipped, "center_voxel": center, "diameter": box.diameter}


def _index_range(low: int, high: int, numbers: list[int]) -> tuple[int, int]:
    """Slice numbers low to high, inclusive, as half-open places in the stack; outside of it one number is one place."""
    first, last = numbers[0], numbers[-1]
    start = low - first if low < first else bisect_left(numbers, low) + max(0, low - last - 1)
    stop = high - first + 1 if high < first else bisect_right(numbers, high) + max(0, high - last)
    return start, stop
