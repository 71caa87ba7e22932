"""What a plan does with the members and table rows of the archives that do not become part of a unit.

A :class:`PlanReport` collects it together with the findings of the plan, and :mod:`.account` compares it with the archives.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lung_nodule_ct.declaration.findings import FindingCollector
from lung_nodule_ct.formats.tables import COMMENTS, filled_lines
from lung_nodule_ct.formats.text import open_text

if TYPE_CHECKING:
    from lung_nodule_ct.errors import Place
    from lung_nodule_ct.formats.tables import Parsed
    from lung_nodule_ct.sources.zip_directory import Member


@dataclass(frozen=True, slots=True)
class TableRows:
    """What became of the rows of a table. Rows that are part of a unit are counted with the unit.

    Attributes:
        table: The table.
        total: Number of lines that are not blank.
        used: Rows that were compared with other tables, or say where an example belongs.
        reported: Rows that a finding reports.
        ignored: Lines of a heading, and comments.
    """

    table: Member
    total: int
    used: int
    reported: int
    ignored: int


@dataclass(frozen=True, slots=True)
class Uses:
    """What a plan did with the members and rows that are not part of a unit.

    Attributes:
        tables: Members that were read as tables or lists.
        reported: Members that a finding reports.
        ignored: Members that contain no data, such as a READ_ME.
        undecided: Members that an example may turn out to be read from; otherwise they are unused.
        rows: The rows of the tables.
        left_out: Number of rows that a finding reports instead of a unit, by archive and member of their table.
    """

    tables: tuple[Member, ...] = ()
    reported: tuple[Member, ...] = ()
    ignored: tuple[Member, ...] = ()
    undecided: tuple[Member, ...] = ()
    rows: tuple[TableRows, ...] = ()
    left_out: Mapping[tuple[str | None, str | None], int] = field(default_factory=dict)

    def without(self, members: Iterable[Member], rows: Iterable[Place]) -> Uses:
        """The same after a finding has reported some units, which are left out with their members and rows."""
        left_out = Counter(self.left_out)
        left_out.update((row.archive, row.member) for row in rows)
        return replace(self, reported=(*self.reported, *members), left_out=left_out)


class PlanReport(FindingCollector):
    """Collects what a plan finds, and what it does with the members and rows of the archives.

    Example:
        >>> report = PlanReport()
        >>> report.uses.reported
        ()
    """

    def __init__(self) -> None:
        super().__init__()
        self._tables: list[Member] = []
        self._reported: list[Member] = []
        self._ignored: list[Member] = []
        self._undecided: list[Member] = []
        self._rows: list[TableRows] = []
        self._left_out: Counter[tuple[str | None, str | None]] = Counter()

    @property
    def uses(self) -> Uses:
        """What was done with members and rows so far."""
        return Uses(
            tuple(self._tables),
            tuple(self._reported),
            tuple(self._ignored),
            tuple(self._undecided),
            tuple(self._rows),
            Counter(self._left_out),
        )

    def reports(self, *members: Member) -> None:
        """Note that a finding reports some members, which are not read."""
        self._reported += members

    def ignores(self, *members: Member) -> None:
        """Note that some members contain no data."""
        self._ignored += members

    def may_be_read(self, *members: Member) -> None:
        """Note that only the examples show whether some members are read."""
        self._undecided += members

    def leaves_out_row(self, row: Place) -> None:
        """Note that a finding reports a row that would have been part of a unit."""
        self._left_out[row.archive, row.member] += 1

    def reads_table(self, table: Member, data: bytes, parsed: Parsed[Any], *, compared: int = 0) -> None:
        """Note what was done with the rows of a table, other than those that become part of a unit.

        Args:
            table: The table.
            data: Its content.
            parsed: Its rows.
            compared: Number of good rows that only serve as a comparison.
        """
        self._add_table(table, filled_lines(data), compared, parsed.bad_count, parsed.ignored)

    def reads_list(self, table: Member, data: bytes, *, used: int, reported: int) -> None:
        """Note that a split list was read: how many of its lines were used, and how many a finding reports."""
        lines = [text for line in open_text(data) if (text := line.strip())]
        comments = sum(line.startswith(COMMENTS) for line in lines)
        self._add_table(table, len(lines), used, reported, comments)

    def reads_workbook(self, table: Member, *, total: int, used: int, reported: int, ignored: int) -> None:
        """Note what was done with the rows of a workbook; the numbers are the attributes of :class:`TableRows`."""
        self._add_table(table, total, used, reported, ignored)

    def _add_table(self, table: Member, total: int, used: int, reported: int, ignored: int) -> None:
        self._tables.append(table)
        self._rows.append(TableRows(table, total, used, reported, ignored))
