"""Shards written on this machine and uploaded one by one, so that it needs space for one shard per process, and not for the build.

The folder of the job is that of a cluster (:mod:`.job`): a build that ended early goes on, here or there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lung_nodule_ct.errors import LungNoduleCTError
from lung_nodule_ct.system.progress import notice
from lung_nodule_ct.targets.engine import LocalEngine
from lung_nodule_ct.targets.job import Job
from lung_nodule_ct.targets.shards import write_shard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from lung_nodule_ct.system.object_store import ObjectFolder
    from lung_nodule_ct.system.progress import BuildProgress
    from lung_nodule_ct.targets.shards import Shard, ShardLayout, WrittenShard


class UploadEngine(LocalEngine):
    """Writes shards on this machine, and uploads each as soon as it is complete.

    Args:
        num_proc: Number of workers.
        jobs: The folder for the files of jobs. It stays where a build fails, so that the next one goes on.
    """

    def __init__(self, num_proc: int, jobs: ObjectFolder) -> None:
        super().__init__(num_proc)
        self._jobs = jobs
        self._writers: dict[tuple[str, int], _UploadingWriter] = {}

    def write(
        self, layout: ShardLayout, shards: Sequence[Shard], stage: Path, progress: BuildProgress
    ) -> Iterator[WrittenShard]:
        """Write and upload the shards that an earlier build has not left at the URL as they are to be.

        Raises:
            LungNoduleCTError: A shard cannot be made.
            OutputError: A shard cannot be written or uploaded.
        """
        if not shards:
            return
        config = shards[0].config.name
        job = Job(self._jobs / config)
        try:
            missing = []
            for plan, shard in zip(job.submit(layout, shards), shards, strict=True):
                if job.finished(plan) is None:
                    missing.append(shard)
                    self._writers[shard.split, shard.index] = _UploadingWriter(job, plan)
                    continue
                progress.advance(config, shard.packed_bytes)
                yield job.collect(plan, shard, stage)
            yield from super().write(layout, missing, stage, progress)
        except LungNoduleCTError:
            if job.keep_finished():
                notice(f"the shards that are finished are in {self._jobs}; the same command goes on from there")
            raise

    def writer_of(self, shard: Shard) -> Callable[..., WrittenShard]:
        return self._writers[shard.split, shard.index]


@dataclass(frozen=True)
class _UploadingWriter:
    """Writes a shard, uploads it, and removes it from this machine."""

    job: Job
    plan: str

    def __call__(self, layout: ShardLayout, shard: Shard, stage: Path, *others: Any) -> WrittenShard:
        written = write_shard(layout, shard, stage, *others)
        return self.job.add(self.plan, written, stage)
