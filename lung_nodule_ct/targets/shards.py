"""Shards: which units are stored in which file, and how one shard is written. A shard is the work item of a process.

The assignment of units to shards follows from the plan alone, so the number of workers never changes what is written.
A :class:`Layout` adds the files that a format needs next to the shards of a :class:`Build`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from lung_nodule_ct.declaration.findings import Finding, FindingCollector
from lung_nodule_ct.errors import LungNoduleCTError, OutputError
from lung_nodule_ct.examples.plan import family_of
from lung_nodule_ct.sources.source import ArchivePool
from lung_nodule_ct.system.memory import BufferPool
from lung_nodule_ct.targets.batches import make_batches
from lung_nodule_ct.targets.columns import to_arrow_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    import pyarrow as pa

    from lung_nodule_ct.declaration.configs import Config
    from lung_nodule_ct.declaration.labels import SplitBy
    from lung_nodule_ct.declaration.manifest import Format
    from lung_nodule_ct.declaration.schema import Schema
    from lung_nodule_ct.examples.account import Account
    from lung_nodule_ct.examples.family import Family, Unit
    from lung_nodule_ct.examples.plan import Plan
    from lung_nodule_ct.examples.report import Pixels
    from lung_nodule_ct.sources.records import Record
    from lung_nodule_ct.sources.zip_directory import Member


_PARTIAL = ".partial"


@dataclass(frozen=True)
class Shard:
    """One file to write. It carries what a worker process needs: the config, its family and the units.

    Attributes:
        config: The config.
        family: Makes its examples.
        split: The split.
        index: Position among the files of the split, from 0.
        count: Number of files of the split.
        units: The units to write.
        keep_source_names: Write the column ``source_name``.
    """

    config: Config
    family: Family[Any]
    split: str
    index: int
    count: int
    units: tuple[Unit, ...]
    keep_source_names: bool = False

    @property
    def number(self) -> str:
        """Its number among the files of the split, as every layout writes it: ``00000-of-00002``."""
        return f"{self.index:05d}-of-{self.count:05d}"

    @property
    def schema(self) -> Schema:
        """The columns of its examples."""
        return self.config.built_schema(keep_source_names=self.keep_source_names)

    @property
    def packed_bytes(self) -> int:
        """Size of its units as compressed in the archives."""
        return sum(unit.packed_bytes for unit in self.units)


@dataclass(frozen=True)
class WrittenShard:
    """A file that was written.

    Attributes:
        shard: The shard.
        path: The file, relative to the folder of the build.
        rows: Number of examples.
        arrow_bytes: Their size in Arrow, uncompressed.
        file_bytes: Size of the file.
        sha256: SHA-256 of the file in hexadecimal.
        findings: Findings of its examples.
        pixels: The keys of the pixels of its examples.
        read: Members that its examples were read from, for examples that state it.
        left_out: The main member of each unit of which every example was left out.
        url: Where the file is, if it is not on this machine.
    """

    shard: Shard
    path: str
    rows: int
    arrow_bytes: int
    file_bytes: int
    sha256: str
    findings: tuple[Finding, ...]
    pixels: tuple[Pixels, ...]
    read: tuple[Member, ...]
    left_out: tuple[Member, ...]
    url: str | None = None


class ShardLayout(Protocol):
    """The file format of a shard. It must be picklable, since it is sent to worker processes."""

    @property
    def cpu_bound(self) -> bool:
        """Whether writing an example takes about as long as inflating it, and not a fraction of that."""

    @property
    def max_threads(self) -> int:
        """Threads that inflate and write volumes in one process, before another process is worth its start."""

    def path_of(self, shard: Shard) -> str:
        """The path of a shard, relative to the folder of the build."""

    def open_writer(
        self, path: Path, schema: Schema, hashed: Callable[[Any], object]
    ) -> AbstractContextManager[Callable[[pa.Table], None]]:
        """Open a file that takes tables. All its bytes are passed to ``hashed`` in order."""


def plan_shards(plan: Plan, *, keep_source_names: bool, shard_bytes: int) -> list[Shard]:
    """Divide the units of every split into shards of about ``shard_bytes``, as compressed in the archives."""
    family = family_of(plan.config)
    shards = []
    for split, units in plan.splits.items():
        total = sum(unit.packed_bytes for unit in units)
        groups = _divide(units, max(1, min(len(units), round(total / shard_bytes))), total)
        shards += [
            Shard(plan.config, family, split, index, len(groups), tuple(group), keep_source_names)
            for index, group in enumerate(groups)
        ]
    return shards


def _divide(units: Sequence[Unit], count: int, total: int) -> list[list[Unit]]:
    """Contiguous groups of about equal size, none empty."""
    groups: list[list[Unit]] = [[] for _ in range(count)]
    done = 0
    for unit in units:
        middle = done + unit.packed_bytes / 2
        groups[min(count - 1, int(middle * count / total)) if total else 0].append(unit)
        done += unit.packed_bytes
    return [group for group in groups if group]


def write_shard(
    layout: ShardLayout,
    shard: Shard,
    stage: Path,
    prefetch: int,
    on_unit: Callable[[Unit], None] = lambda _: None,
    new_buffers: Callable[[], BufferPool] = BufferPool,
) -> WrittenShard:
    """Write one shard, under a name that nothing loads until :func:`publish_names` is called.

    Args:
        layout: The file format.
        shard: The content.
        stage: The folder of the build.
        prefetch: Number of threads that make examples in advance.
        on_unit: Called after every unit.
        new_buffers: Returns memory for voxels; called ``prefetch + 1`` times.

    Raises:
        MemberError: A member is damaged.
        OutputError: The file cannot be written.
    """
    try:
        return _write(layout, shard, stage, prefetch, on_unit, new_buffers)
    except LungNoduleCTError:
        raise
    except OSError as error:
        raise OutputError(f"{layout.path_of(shard)} cannot be written: {error}") from error


def _write(
    layout: ShardLayout,
    shard: Shard,
    stage: Path,
    prefetch: int,
    on_unit: Callable[[Unit], None],
    new_buffers: Callable[[], BufferPool],
) -> WrittenShard:
    path = unpublished(stage / layout.path_of(shard))
    path.parent.mkdir(parents=True, exist_ok=True)
    report = FindingCollector()
    pixels: list[Pixels] = []
    read: list[Member] = []
    left_out: list[Member] = []
    hashed = hashlib.sha256()
    rows = arrow_bytes = 0
    with (
        ArchivePool() as archives,
        closing(
            make_batches(
                shard.units,
                shard.family,
                shard.schema,
                to_arrow_schema(shard.schema),
                archives,
                new_buffers=new_buffers,
                prefetch=prefetch,
                on_unit=on_unit,
            )
        ) as batches,
        layout.open_writer(path, shard.schema, hashed.update) as write,
    ):
        for batch in batches:
            if batch.table.num_rows:
                write(batch.table)
            rows += batch.table.num_rows
            arrow_bytes += batch.table.nbytes
            report.extend(batch.findings)
            pixels += batch.pixels
            read += batch.read
            left_out += batch.left_out
    return WrittenShard(
        shard=shard,
        path=layout.path_of(shard),
        rows=rows,
        arrow_bytes=arrow_bytes,
        file_bytes=path.stat().st_size,
        sha256=hashed.hexdigest(),
        findings=report.findings,
        pixels=tuple(pixels),
        read=tuple(read),
        left_out=tuple(left_out),
    )


def unpublished(path: Path) -> Path:
    """The name of a file until the build is complete, under which nothing loads it."""
    return path.with_name(path.name + _PARTIAL)


def without_empty_splits(stage: Path, files: Sequence[WrittenShard]) -> tuple[WrittenShard, ...]:
    """The files of the splits that have examples. The others, of which every example was left out, are removed: nothing loads them."""
    filled = {written.shard.split for written in files if written.rows}
    for written in files:
        if written.shard.split not in filled and written.url is None:
            unpublished(stage / written.path).unlink()
    return tuple(written for written in files if written.shard.split in filled)


def publish_names(stage: Path, files: Iterable[WrittenShard]) -> None:
    """Rename the files of a complete build to their final names, those that are on this machine."""
    for written in files:
        if written.url is None:
            path = stage / written.path
            unpublished(path).rename(path)


@dataclass(frozen=True)
class BuiltConfig:
    """The result of building one config.

    Attributes:
        plan: Its plan.
        files: The files that were written.
        findings: Findings of the plan and of the examples.
        account: What became of the files and rows of its archives.
    """

    plan: Plan
    files: tuple[WrittenShard, ...]
    findings: tuple[Finding, ...]
    account: Account

    @property
    def rows(self) -> dict[str, int]:
        """Number of examples by split."""
        rows = Counter[str]()
        for written in self.files:
            rows[written.shard.split] += written.rows
        return dict(rows)

    @property
    def shared_patients(self) -> dict[str, int]:
        """Number of patients that two splits share, by pair of splits."""
        return self.plan.shared_patients


@dataclass(frozen=True)
class Build:
    """A build, complete except for the files that the layout adds to the shards.

    Attributes:
        configs: What was built, by config name; a config without examples is left out.
        findings: By config, including configs without examples.
        accounts: What became of the files and rows of the archives of each config, likewise.
        report: The content of ``findings.json``.
        split_by: How examples were split.
        keep_source_names: Whether the column ``source_name`` was added.
        records: The records that the archives belong to, if they are known.
        kept: Configs of an earlier build in the same folder, which were not built again.
        removed: Files that commands had added to the earlier build, and that do not describe the new one, with the name of the command.
        by_user: Files in the folder that this package did not write. They are kept.
    """

    configs: Mapping[str, BuiltConfig]
    findings: Mapping[str, tuple[Finding, ...]]
    accounts: Mapping[str, Account]
    report: Mapping[str, Any]
    split_by: SplitBy
    keep_source_names: bool
    records: tuple[Record, ...] = ()
    kept: tuple[str, ...] = ()
    removed: Mapping[str, str] = field(default_factory=dict)
    by_user: tuple[str, ...] = ()


class Layout(ShardLayout, Protocol):
    """The files of a build."""

    @property
    def format(self) -> Format:
        """The file format."""

    @property
    def shard_bytes(self) -> int:
        """Size of the members of a shard, as compressed in the archives."""

    @property
    def manifest_extra(self) -> dict[str, str]:
        """Further entries of the manifest."""

    def finish(self, folder: Path, build: Build) -> None:
        """Write the files that the format needs next to the shards."""
