"""Shards: which units stand in which file. A shard is also the piece of work of a process.

How units fall into shards follows from the plan alone, so the number of workers never changes what is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lung_nodule_ct.declaration.findings import Finding
    from lung_nodule_ct.examples.family import Unit
    from lung_nodule_ct.examples.plan import Plan
    from lung_nodule_ct.examples.report import Pixels


@dataclass(frozen=True)
class Shard:
    """One file to be.

    Attributes:
        config: The config's name.
        split: The split.
        index: Its place among the split's files.
        count: How many files the split has.
        units: What goes into it.
        keep_source_names: Whether it has the column ``source_name``.
    """

    config: str
    split: str
    index: int
    count: int
    units: tuple[Unit, ...]
    keep_source_names: bool = False

    @property
    def place(self) -> str:
        """Its number among the split's files, as every layout writes it."""
        return f"{self.index:05d}-of-{self.count:05d}"


@dataclass(frozen=True)
class Written:
    """A file that was written.

    Attributes:
        shard: What it was to be.
        path: Where, relative to the folder of the build.
        rows: Examples in it.
        arrow_bytes: Their size in Arrow, uncompressed.
        file_bytes: Size of the file.
        sha256: Of the file, ``None`` where the layout does not pin it.
        findings: From its examples.
        pixels: Where the pixels of every example stand, and their key.
    """

    shard: Shard
    path: str
    rows: int
    arrow_bytes: int
    file_bytes: int
    sha256: str | None
    findings: tuple[Finding, ...]
    pixels: tuple[Pixels, ...]


def plan_shards(plan: Plan, *, keep_source_names: bool, shard_bytes: int) -> list[Shard]:
    """Deal the units of every split into shards of about ``shard_bytes`` as packed."""
    shards = []
    for split, units in plan.splits.items():
        total = sum(unit.packed_bytes for unit in units)
        count = max(1, min(len(units), round(total / shard_bytes)))
        groups = _deal(units, count, total)
        shards += [
            Shard(plan.config.name, split, index, len(groups), tuple(group), keep_source_names)
            for index, group in enumerate(groups)
        ]
    return shards


def _deal(units: Sequence[Unit], count: int, total: int) -> list[list[Unit]]:
    """Contiguous groups of about equal size, none empty."""
    groups: list[list[Unit]] = [[] for _ in range(count)]
    done = 0
    for unit in units:
        middle = done + unit.packed_bytes / 2
        groups[min(count - 1, int(middle * count / total)) if total else 0].append(unit)
        done += unit.packed_bytes
    return [group for group in groups if group]
