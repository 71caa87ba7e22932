"""Engines run the shards of a build: this machine, or Apache Beam (:mod:`.beam`)."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

from lung_nodule_ct.errors import OutputError
from lung_nodule_ct.system.memory import BufferPool
from lung_nodule_ct.system.processes import start_worker
from lung_nodule_ct.targets.shards import write_shard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from lung_nodule_ct.system.progress import BuildProgress
    from lung_nodule_ct.targets.shards import Shard, ShardLayout, WrittenShard

T = TypeVar("T")
R = TypeVar("R")


class Engine(Protocol):
    """Writes the shards of a build. A context manager that lives for all configs of the build."""

    def __enter__(self) -> Self:
        """Start."""

    def __exit__(self, *_: object) -> None:
        """Release workers."""

    def write(
        self, layout: ShardLayout, shards: Sequence[Shard], stage: Path, progress: BuildProgress
    ) -> Iterator[WrittenShard]:
        """Write the shards of a config into a stage, in any order."""

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """Yield the results of a function for some items, in their order."""


class LocalEngine:
    """Writes shards on this machine, with threads and with processes. Processes start when a config has shards for several.

    Args:
        num_proc: Number of workers.
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
    ) -> Iterator[WrittenShard]:
        """Write shards into a stage, in the order in which they are completed."""
        if not shards:
            return
        config = shards[0].config
        # Volumes rarely hold the interpreter lock while they are inflated, so threads are sufficient for them.
        threads = layout.max_threads if config.schema.has_voxels else 1
        processes = min(-(-self._num_proc // threads), len(shards))
        workers = self._num_proc // processes
        # The writing thread does not inflate meanwhile: it only counts as a worker if it has as much to do as the others.
        prefetch = workers - 1 if layout.cpu_bound or workers == 1 else workers
        if processes == 1:
            # reused for all shards: new memory can cost as much as inflating its content
            buffers = [BufferPool() for _ in range(prefetch + 1)]
            for shard in shards:
                yield self.writer_of(shard)(
                    layout,
                    shard,
                    stage,
                    prefetch,
                    lambda unit: progress.advance(config.name, unit.packed_bytes),
                    iter(buffers).__next__,
                )
            return
        # workers that do not divide evenly go to some of the processes; in the last round, a shard also has those that would have no shard
        last = len(shards) % processes
        spare = (processes - last) // last if last and config.schema.has_voxels else 0
        rest = self._num_proc % processes if config.schema.has_voxels else 0
        futures = [
            self._pool(processes).submit(
                self.writer_of(shard),
                layout,
                shard,
                stage,
                prefetch + (index % processes < rest) + spare * (index >= len(shards) - last),
            )
            for index, shard in enumerate(shards)
        ]
        with _named_loss():
            for future in as_completed(futures):
                written = future.result()
                progress.advance(config.name, written.shard.packed_bytes)
                yield written

    def writer_of(self, shard: Shard) -> Callable[..., WrittenShard]:  # noqa: ARG002 -- for engines that do more with a shard
        """What writes a shard, with the arguments of :func:`.write_shard`. It must be picklable."""
        return write_shard

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """Yield the results of a function for some items, in their order. Both must be picklable if there are several workers."""
        processes = min(self._num_proc, len(items))
        if processes < 2:
            yield from map(function, items)
            return
        with _named_loss():
            yield from self._pool(processes).map(function, items)

    def _pool(self, processes: int) -> ProcessPoolExecutor:
        if processes not in self._pools:
            # spawned, not forked: pyarrow has threads
            context = multiprocessing.get_context("spawn")
            self._pools[processes] = ProcessPoolExecutor(processes, context, initializer=start_worker)
        return self._pools[processes]


@contextmanager
def _named_loss() -> Iterator[None]:
    """Turn the loss of a worker process into an error of this package."""
    try:
        yield
    except BrokenProcessPool as error:
        raise OutputError(
            "a worker process was killed, most likely because memory ran out",
            remedy="build with a smaller --num-proc",
        ) from error
