"""The account of a build: what became of every file in the archives that a config reads, and of every row of its tables.

An item of the source is part of an example, or a finding reports it, or it is ignored (what desktops add, headings of tables). A plan
says so with a :class:`~.uses.PlanReport`, where it reads a member or leaves it out. :func:`make_account` compares that with the directories of
the archives, which were read by other code. An item that nothing accounts for is a finding of error grade, ``not-accounted-for``. It
does not stop the build: the examples are as good as without the account, and the report says what they lack.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from lung_nodule_ct.declaration.findings import Code, Finding
from lung_nodule_ct.errors import Place
from lung_nodule_ct.examples.family import unused_members

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lung_nodule_ct.examples.plan import Plan
    from lung_nodule_ct.examples.uses import Uses
    from lung_nodule_ct.sources.zip_directory import Archive, Member

MAX_VANISHED: Final = 100
"""Items that a finding names."""


class Fate(StrEnum):
    """What became of an item of the source."""

    EXAMPLE = "examples"
    PART = "parts"
    FINDING = "findings"
    IGNORED = "ignored"


@dataclass(frozen=True, slots=True)
class ArchiveAccount:
    """What became of the files of one archive and of the rows of its tables.

    Attributes:
        archive: The archive.
        files: Number of files by fate.
        rows: Number of rows by fate.
        vanished: Items that nothing accounts for, at most :data:`MAX_VANISHED`.
        num_vanished: Their number.
    """

    archive: str
    files: Mapping[Fate, int]
    rows: Mapping[Fate, int]
    vanished: tuple[str, ...]
    num_vanished: int

    def to_dict(self) -> dict[str, Any]:
        """The account as JSON values."""
        return {
            "files": {str(fate): self.files.get(fate, 0) for fate in Fate},
            "rows": {str(fate): self.rows.get(fate, 0) for fate in Fate if fate is not Fate.EXAMPLE},
            "vanished": self.num_vanished,
        }


@dataclass(frozen=True, slots=True)
class Account:
    """The account of one config.

    Attributes:
        archives: What became of each archive that it reads.
        unread: Members that were expected to be read and were not.
        num_lost: Number of examples that were planned and not written.
    """

    archives: tuple[ArchiveAccount, ...]
    unread: tuple[Member, ...] = ()
    num_lost: int = 0

    def count(self, fate: Fate) -> int:
        """Number of items with a fate."""
        return sum(archive.files.get(fate, 0) + archive.rows.get(fate, 0) for archive in self.archives)

    @property
    def num_vanished(self) -> int:
        """Number of items that nothing accounts for."""
        return sum(archive.num_vanished for archive in self.archives)

    @property
    def num_items(self) -> int:
        """Number of items of the source."""
        return sum(map(self.count, Fate)) + self.num_vanished

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Findings for the members that are not read, and for what nothing accounts for."""
        findings = []
        for archive, members in groupby(self.unread, key=lambda member: member.archive):
            findings += unused_members(archive, list(members))
        resolution = "report this, it is a fault of the package; the examples of the build are not affected"
        for account in self.archives:
            if account.num_vanished:
                place = Place(account.archive, ", ".join(account.vanished))
                findings.append(Finding(Code.NOT_ACCOUNTED_FOR, resolution, place, count=account.num_vanished))
        if self.num_lost:
            detail = "examples were planned and not written, or written and not planned"
            findings.append(Finding(Code.NOT_ACCOUNTED_FOR, resolution, detail=detail, count=abs(self.num_lost)))
        return tuple(findings)

    def to_dict(self) -> dict[str, Any]:
        """The account as JSON values, as ``findings.json`` holds it."""
        return {
            "items": self.num_items,
            **{str(fate): self.count(fate) for fate in Fate},
            "vanished": self.num_vanished,
            "lost_examples": self.num_lost,
            "archives": {archive.archive: archive.to_dict() for archive in self.archives},
        }

    def __str__(self) -> str:
        counts = " + ".join(f"{self.count(fate):,} {_WORDS[fate]}" for fate in Fate)
        vanished = f" + {self.num_vanished:,} not accounted for" if self.num_vanished else ""
        return f"{self.num_items:,} files and rows = {counts}{vanished}"


_WORDS: Final = {
    Fate.EXAMPLE: "examples",
    Fate.PART: "parts of examples",
    Fate.FINDING: "in findings",
    Fate.IGNORED: "ignored",
}


def make_account(plan: Plan, read: Iterable[Member], num_examples: int, left_out: Iterable[Member] = ()) -> Account:
    """Compare what a plan and its examples used with what the archives hold.

    Args:
        plan: The plan.
        read: Members that the examples state they were read from.
        num_examples: Number of examples that were written.
        left_out: The main member of each unit of which a finding reports that every example was left out.
    """
    gone, read = frozenset(left_out), frozenset(read)
    units = [unit for unit in plan.units if unit.members[0] not in gone]
    others = [unit for unit in plan.units if unit.members[0] in gone]
    uses = plan.uses.without(
        (member for unit in others for member in unit.members), (row for unit in others for row in unit.rows)
    )
    likely = {member for unit in units for member in unit.likely_members}
    expected = sorted(likely.union(uses.undecided), key=lambda member: (member.location, member.offset))
    unread = tuple(member for member in expected if member not in read)
    fates: dict[Member, Fate] = dict.fromkeys(uses.ignored, Fate.IGNORED)
    fates |= dict.fromkeys((*uses.reported, *unread), Fate.FINDING)
    fates |= dict.fromkeys(uses.tables, Fate.PART)
    fates |= dict.fromkeys((member for unit in units for member in unit.members if member not in likely), Fate.PART)
    fates |= dict.fromkeys(read, Fate.PART)
    fates |= {unit.members[0]: Fate.EXAMPLE for unit in units}
    in_units = Counter((row.archive, row.member) for unit in units for row in unit.rows)
    archives = tuple(_archive_account(archive, uses, fates, in_units) for archive in plan.archives)
    planned = [unit.num_examples for unit in units]
    known = [count for count in planned if count is not None]
    lost = sum(known) - num_examples if len(known) == len(planned) else 0
    return Account(archives, unread, lost)


def _archive_account(
    archive: Archive,
    uses: Uses,
    fates: Mapping[Member, Fate],
    in_units: Mapping[tuple[str | None, str | None], int],
) -> ArchiveAccount:
    files: Counter[Fate] = Counter()
    files[Fate.IGNORED] += len(archive.ignored)
    files[Fate.FINDING] += len(archive.left_out)
    vanished: list[str] = []
    for member in archive.members:
        fate = fates.get(member)
        if fate is None:
            vanished.append(member.name)
        else:
            files[fate] += 1
    num_vanished = len(vanished)
    if more := abs(archive.num_files - files.total() - num_vanished):
        vanished.append(f"{more:,} entries of the directory")
        num_vanished += more
    rows: Counter[Fate] = Counter()
    for table in uses.rows:
        if table.table.location != archive.location:
            continue
        key = (table.table.archive, table.table.name)
        left_out = uses.left_out.get(key, 0)
        rows[Fate.PART] += table.used + in_units.get(key, 0)
        rows[Fate.FINDING] += table.reported + left_out
        rows[Fate.IGNORED] += table.ignored
        known = table.used + in_units.get(key, 0) + table.reported + left_out + table.ignored
        if known != table.total:
            vanished.append(f"{table.table.name}: {known:,} of {table.total:,} rows")
            num_vanished += abs(table.total - known)
    return ArchiveAccount(archive.name, +files, +rows, tuple(vanished[:MAX_VANISHED]), num_vanished)
