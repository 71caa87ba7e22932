"""The tables and split lists of slice stacks: the boxes of every case, and the split of every case."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from lung_nodule_ct.declaration.findings import Code, Finding, FindingCollector, Row
from lung_nodule_ct.declaration.identity import quoted
from lung_nodule_ct.declaration.labels import LIST_SPLITS
from lung_nodule_ct.declaration.names import name_key
from lung_nodule_ct.errors import MemberError, Place
from lung_nodule_ct.examples.family import leave_out_unused, parse_member, table_findings
from lung_nodule_ct.formats.split_lists import MAX_LIST_BYTES, parse_split_list
from lung_nodule_ct.formats.tables import BoxRow, Parsed, parse_boxes
from lung_nodule_ct.sources.source import ArchivePool

if TYPE_CHECKING:
    from lung_nodule_ct.declaration.names import NameIndex
    from lung_nodule_ct.examples.uses import PlanReport
    from lung_nodule_ct.sources.zip_directory import Archive, Member

MAIN_TABLE: Final = "image_annotation_augment_diameter.csv"
_SPLIT_TABLE = re.compile(r"(?:(\w+?)_anno(?:tation)?s?|anno(?:tation)?s?_(\w+?))")

Rows = list[tuple[Place, BoxRow]]


@dataclass(frozen=True, slots=True)
class StackTables:
    """The content of the table archive.

    Attributes:
        boxes: Case, place and content of each row of boxes of a case that the archives hold.
        splits: The split of every case that a list or a table names.
    """

    boxes: tuple[tuple[str, Place, BoxRow], ...]
    splits: Mapping[str, str]


class _Splits:
    """The split of each case, as one kind of file assigns it.

    Args:
        cases: The cases of which there are slices.
    """

    def __init__(self, cases: NameIndex) -> None:
        self.splits: dict[str, str] = {}
        self._cases = cases

    def assign(self, names: Sequence[str], split: str, table: Place, row: Row, report: FindingCollector) -> str | None:
        """Assign the case that one of some names refers to, and return it."""
        match = self._cases.find_first(names)
        if match.name is None:
            report.add_row(Code.LISTED_BUT_MISSING, "left out", table, row, match.detail)
            return None
        if match.repaired:
            report.add_row(Code.ZEROS_LOST, f"taken as {quoted(match.name)}", table, row)
        first = self.splits.setdefault(match.name, split)
        if first != split:
            report.add_row(Code.LISTED_TWICE, f"it stays in {first}", table, row)
        return match.name


def read_stack_tables(archives: Sequence[Archive], cases: NameIndex, report: PlanReport) -> StackTables:
    """Read all tables and lists.

    Args:
        archives: The table archive.
        cases: The cases of which there are slices.
        report: Takes what is wrong with tables and lists, and what was done with their rows.

    Raises:
        MemberError: There is no row of boxes, or a member is damaged or exceeds a limit.
    """
    main: Rows = []
    by_split: defaultdict[str, Rows] = defaultdict(list)
    by_list = _Splits(cases)
    read: list[tuple[Member, bytes, Parsed[BoxRow]]] = []
    with ArchivePool() as pool:
        for archive in archives:
            unused = []
            for member in archive.members:
                split = _split_of(member)
                if member.suffix == ".csv":
                    data, table = parse_member(member, pool, parse_boxes)
                    read.append((member, data, table))
                    report.extend(table_findings(table, member, "a case and six integers"))
                    rows = main if split is None else by_split[split]
                    rows += [(Place(archive.name, member.name, row.row.reference), row) for row in table.good]
                elif member.suffix == ".txt" and split is not None:
                    reader = partial(_read_list, member=member, split=split, splits=by_list, cases=cases, report=report)
                    data, (used, missing) = parse_member(member, pool, reader, limit=MAX_LIST_BYTES)
                    report.reads_list(member, data, used=used, reported=missing)
                else:
                    unused.append(member)
            leave_out_unused(archive, unused, report)
    if not main and not any(by_split.values()):
        raise _no_boxes(archives[0], [member.name for member, _, _ in read])
    for member, data, table in read:
        compared = len(table.good) if main and _split_of(member) is not None else 0
        report.reads_table(member, data, table, compared=compared)
    in_tables = [(split, place, row) for split, rows in by_split.items() for place, row in rows]
    if not main:
        resolution = "the tables of the splits are used, which have no diameters"
        report.add(Code.TABLE_STANDS_IN, resolution, Place(archives[0].name), f"expected {MAIN_TABLE}")
    boxes = _of_cases(main or [(place, row) for _, place, row in in_tables], cases, report)
    splits = _compare_splits(in_tables, by_list, cases, report)
    own = [(place, row) for split, place, row in in_tables if splits.get(_case_key(row, cases), split) == split]
    report.extend(_compare_tables(main, own, cases))
    return StackTables(tuple(boxes), by_list.splits or splits)


def _read_list(
    data: bytes, *, member: Member, split: str, splits: _Splits, cases: NameIndex, report: FindingCollector
) -> tuple[int, int]:
    """Assign the cases of a list; return the number of lines that name a case, and of the other lines."""
    table = member.place
    used = missing = 0
    for entry in parse_split_list(data):
        case = splits.assign(entry.names, split, table, entry, report)
        if case is None:
            missing += 1
            continue
        used += 1
        if problem := entry.problem(cases):
            report.add_row(Code.BAD_ROW, f"taken as {quoted(case)}", table, entry, problem)
    return used, missing


def _of_cases(rows: Rows, cases: NameIndex, report: PlanReport) -> list[tuple[str, Place, BoxRow]]:
    """The rows of the cases that the archives hold. A case number that lost its zeros is repaired if only one case fits."""
    found = []
    for place, row in rows:
        match = cases.find(row.pid)
        if match.name is None:
            report.add(Code.ANNOTATION_WITHOUT_IMAGE, "left out", place, match.detail)
            report.leaves_out_row(place)
            continue
        if match.repaired:
            report.add(Code.ZEROS_LOST, f"taken as {quoted(match.name)}", place)
        found.append((match.name, place, row))
    return found


def _compare_splits(
    rows: Sequence[tuple[str, Place, BoxRow]], by_list: _Splits, cases: NameIndex, report: FindingCollector
) -> dict[str, str]:
    """The split of every case by the tables of the splits. The lists are used if there are any, and compared with them."""
    by_table = _Splits(cases)
    doubts = FindingCollector()
    seen: set[tuple[str, str]] = set()
    for split, place, row in rows:
        if (split, row.pid) in seen:
            continue
        seen.add((split, row.pid))
        case = by_table.assign([row.pid], split, place, row.row, doubts)
        if case is not None and by_list.splits.get(case, split) != split:
            report.add(Code.SPLIT_LISTS_DISAGREE, f"{by_list.splits[case]}, from the lists, is used", place)
    # what else is wrong with the name of a case was reported with its boxes, unless the tables decide about its split
    report.extend(each for each in doubts.findings if each.code is Code.LISTED_TWICE or not by_list.splits)
    return by_table.splits


def _no_boxes(archive: Archive, read: Sequence[str]) -> MemberError:
    members = ", ".join(member.name for member in archive.members[:5])
    return MemberError(
        "contains no box",
        archive=archive.name,
        expected=f"rows of boxes in {MAIN_TABLE}",
        got=f"no readable row in {', '.join(read)}" if read else members or "no members",
        remedy="compare the archive with its md5 in the record, and report the table if it is as published",
    )


def _split_of(member: Member) -> str | None:
    """The split of a table or list, by its name: ``train.txt``, ``train_anno.csv``, ``anno_train.csv``."""
    stem = name_key(member.stem)
    named = _SPLIT_TABLE.fullmatch(stem)
    return LIST_SPLITS.get(stem) or (LIST_SPLITS.get(named[1] or named[2]) if named else None)


def _compare_tables(main: Rows, by_split: Rows, cases: NameIndex) -> Iterator[Finding]:
    """Compare the tables of the splits with the table that has the diameters."""
    if not main or not by_split:
        return
    known = Counter(_box_key(row, cases) for _, row in main)
    for place, row in by_split:
        key = _box_key(row, cases)
        if known[key] > 0:
            known[key] -= 1
        else:
            yield Finding(
                Code.TABLES_DISAGREE, "that table is used", place, f"{quoted(main[0][0].member)} has no such box"
            )
    for place, row in main:
        key = _box_key(row, cases)
        if known[key] > 0:
            known[key] -= 1
            yield Finding(Code.TABLES_DISAGREE, "it is used", place, "no table of a split has this box")


def _case_key(row: BoxRow, cases: NameIndex) -> str:
    """The case of a row; what else the row names, if that is not a case."""
    return cases.find(row.pid).name or name_key(row.pid)


def _box_key(row: BoxRow, cases: NameIndex) -> tuple[object, ...]:
    """Equal for two rows about the same box."""
    return _case_key(row, cases), row.low, row.high
