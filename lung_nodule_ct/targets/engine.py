"""Shards: which units stand in which file. A shard is also the piece of work of a process.

How units fall into shards follows from the plan alone, so the number of workers never changes what is written.

Who writes the shards of a build: engines, of which the one here is this machine.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import signal
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from lung_nodule_ct.declaration.configs import get_config
from lung_nodule_ct.declaration.findings import Finding
from lung_nodule_ct.errors import LungNoduleCTError, OutputError
from lung_nodule_ct.examples.report import Pixels
from lung_nodule_ct.sources.source import ArchivePool
from lung_nodule_ct.system.memory import BufferPool
from lung_nodule_ct.system.progress import BuildProgress
from lung_nodule_ct.targets.arrow_columns import to_arrow_schema
from lung_nodule_ct.targets.batches import batches_of
from lung_nodule_ct.targets.hub_features import built_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    import pyarrow as pa

    from lung_nodule_ct.declaration.schema import Schema
    from lung_nodule_ct.examples.family import Unit
    from lung_nodule_ct.examples.plan import Plan


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


_PARTIAL = ".partial"
_MAX_THREADS = 4
"""Threads that make volumes side by side, before another process is worth its start."""


class ShardLayout(Protocol):
    """What a shard is as a file. Must be picklable: it goes to the worker processes."""

    @property
    def hash_shards(self) -> bool:
        """Whether the manifest pins the SHA-256 of every shard, for those who download it."""

    def path_of(self, shard: Shard) -> str:
        """Where a shard stands, relative to the folder."""

    @property
    def cpu_bound(self) -> bool:
        """Whether to write an example takes about as long as to inflate it, and not a fraction of that."""

    def open_writer(
        self, path: Path, schema: Schema, hashed: Callable[[Any], object] | None
    ) -> AbstractContextManager[Callable[[pa.Table], None]]:
        """A file that takes tables. Where it is pinned, ``hashed`` is given all its bytes in their order."""


class Engine(Protocol):
    """Who writes the shards of a build."""

    def __enter__(self) -> Self:
        """Before the first config."""

    def __exit__(self, *_: object) -> None:
        """After the last."""

    def write(
        self, layout: ShardLayout, shards: Sequence[Shard], stage: Path, progress: BuildProgress
    ) -> Iterator[Written]:
        """Write the shards of a config into a stage, in any order."""


class LocalEngine:
    """Shards written on this machine: by threads, and by processes, started when a config has shards for more than one.

    Args:
        allowed: How many may work side by side.
    """

    def __init__(self, num_proc: int = 1) -> None:
        self._num_proc = num_proc
        self._pools: dict[int, ProcessPoolExecutor] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pool in self._pools.values():
            pool.shutdown(cancel_futures=True)

    def write(
        self, layout: ShardLayout, shards: Sequence[Shard], stage: Path, progress: BuildProgress
    ) -> Iterator[Written]:
        """Write shards into a stage. Those that are done first come first."""
        if not shards:
            return
        name = shards[0].config
        # Of volumes that are only inflated and written nearly nothing needs Python's lock: threads will do.
        crew = _MAX_THREADS if get_config(name).schema.has_voxels and not layout.cpu_bound else 1
        processes = min(-(-self._num_proc // crew), len(shards))
        workers = self._num_proc // processes
        # Who writes inflates nothing meanwhile, so it only counts as one of the workers where it has as much to do.
        prefetch = workers - 1 if layout.cpu_bound or workers == 1 else workers
        if processes == 1:
            # kept from shard to shard: new memory can cost as much as to inflate what it holds
            kept = [BufferPool() for _ in range(prefetch + 1)]
            for shard in shards:
                yield write_shard(
                    layout,
                    shard,
                    stage,
                    prefetch,
                    lambda unit: progress.advance(name, unit.packed_bytes),
                    iter(kept).__next__,
                )
            return
        futures = [self._pool_of(processes).submit(write_shard, layout, shard, stage, prefetch) for shard in shards]
        try:
            for future in as_completed(futures):
                written = future.result()
                progress.advance(name, sum(unit.packed_bytes for unit in written.shard.units))
                yield written
        except BrokenProcessPool as error:
            raise OutputError(
                "a worker process was killed, most likely for want of memory", remedy="build with a smaller --num-proc"
            ) from error

    def _pool_of(self, processes: int) -> ProcessPoolExecutor:
        if processes not in self._pools:
            # Spawned, not forked: pyarrow has threads.
            context = multiprocessing.get_context("spawn")
            pool = ProcessPoolExecutor(processes, context, initializer=_leave_interrupts_to_the_parent)
            self._pools[processes] = pool
        return self._pools[processes]


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def write_shard(
    layout: ShardLayout,
    shard: Shard,
    stage: Path,
    prefetch: int,
    on_unit: Callable[[Unit], None] = lambda _: None,
    buffers: Callable[[], BufferPool] = BufferPool,
) -> Written:
    """Write one shard.

    Args:
        layout: What to write.
        shard: What goes into it.
        stage: The folder of the build.
        prefetch: Threads that make examples ahead.
        on_unit: Called after every unit.
        buffers: Gives one place for voxels after the other, one more than ``prefetch``.

    Raises:
        MemberError: A member is damaged.
        OutputError: It cannot be written.
    """
    try:
        return _write(layout, shard, stage, prefetch, on_unit, buffers)
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
    buffers: Callable[[], BufferPool],
) -> Written:
    path = _partial(stage / layout.path_of(shard))
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = built_schema(get_config(shard.config), keep_source_names=shard.keep_source_names)
    arrow_schema = to_arrow_schema(schema)
    findings: list[Finding] = []
    pixels: list[Pixels] = []
    hashed = hashlib.sha256()
    rows = arrow_bytes = 0
    with (
        ArchivePool() as archives,
        closing(
            batches_of(shard.units, schema, arrow_schema, archives, buffers=buffers, prefetch=prefetch, on_unit=on_unit)
        ) as batches,
        layout.open_writer(path, schema, hashed.update if layout.hash_shards else None) as write,
    ):
        for batch in batches:
            write(batch.table)
            rows += batch.table.num_rows
            arrow_bytes += batch.table.nbytes
            findings += batch.findings
            pixels += batch.pixels
    return Written(
        shard=shard,
        path=layout.path_of(shard),
        rows=rows,
        arrow_bytes=arrow_bytes,
        file_bytes=path.stat().st_size,
        sha256=hashed.hexdigest() if layout.hash_shards else None,
        findings=tuple(findings),
        pixels=tuple(pixels),
    )


def _partial(path: Path) -> Path:
    """The name of a file until the whole build is done, by which nothing loads it."""
    return path.with_name(path.name + _PARTIAL)


def publish_names(stage: Path, files: Iterable[Written]) -> None:
    """Give the files of a finished build their names."""
    for written in files:
        path = stage / written.path
        _partial(path).rename(path)
