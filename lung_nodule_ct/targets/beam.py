"""Shards written by Apache Beam, one element per shard, on any runner.

Workers must be able to read the archives and the folder of the job (:mod:`.job`) under the same paths or URLs as this machine.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.runner import create_runner

from lung_nodule_ct.errors import LungNoduleCTError, OptionError, OutputError
from lung_nodule_ct.system.progress import notice
from lung_nodule_ct.targets.job import Job

if TYPE_CHECKING:
    from collections.abc import Callable

    from lung_nodule_ct.system.object_store import ObjectFolder
    from lung_nodule_ct.system.progress import BuildProgress
    from lung_nodule_ct.targets.shards import Shard, ShardLayout, WrittenShard

_DASK: Final = "apache_beam.runners.dask.dask_runner.DaskRunner"
"""The runner for Dask, which Beam knows by its full name only."""

_MAX_PARTITIONS: Final = 10_000
"""Of one job on Dask. More would keep its scheduler busy, and fewer than shards only means that a worker takes several at a time."""

T = TypeVar("T")
R = TypeVar("R")


class BeamEngine:
    """Writes the shards of a build in one pipeline per config.

    Args:
        options: The options of Beam's command line, as ``["--runner=DaskRunner"]``, or as Beam parses them.
        runner: Used instead of the runner in the options.
        jobs: Folder for the files of jobs, or its URL. It stays where a job fails, so that the next one goes on. The default is a folder of
            the stage.

    Raises:
        OptionError: Beam has no such runner, or the runner needs a package that is not installed.
    """

    def __init__(
        self,
        options: Sequence[str] | PipelineOptions = (),
        runner: str | None = None,
        jobs: Path | ObjectFolder | None = None,
    ) -> None:
        self._options = options if isinstance(options, PipelineOptions) else PipelineOptions(list(options))
        self._jobs = jobs
        name = runner or self._options.view_as(StandardOptions).runner
        self._on_dask = isinstance(name, str) and name.lower() in ("dask", "daskrunner", _DASK.lower())
        self._runner = _DASK if self._on_dask else runner
        try:
            if isinstance(name, str):
                create_runner(_DASK if self._on_dask else name)
            if self._on_dask:
                import_module("distributed")  # Beam imports it when the job starts
        except (ValueError, TypeError, ImportError, AttributeError) as error:
            problem = " ".join(str(error).split())
            remedy = 'install it: python -m pip install "lung_nodule_ct[cluster]"' if self._on_dask else None
            raise OptionError(
                "beam_options", f"the runner {name!r} cannot be used", got=problem, remedy=remedy
            ) from error
        self._partitions = _dask_options(self._options) if self._on_dask else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is kept between configs."""

    def write(
        self, layout: ShardLayout, shards: Sequence[Shard], stage: Path, progress: BuildProgress
    ) -> Iterator[WrittenShard]:
        """Write shards into a stage.

        Raises:
            LungNoduleCTError: A shard failed; the error of the first one in the order of the shards.
            OutputError: The job failed.
        """
        if not shards:
            return
        job = Job((self._jobs or stage / ".jobs") / shards[0].config.name)
        try:
            plans = job.submit(layout, shards)
            self._run(job, len(shards))
            for written in job.collect_all(plans, shards, stage):
                progress.advance(written.shard.config.name, written.shard.packed_bytes)
                yield written
            if self._jobs is None:
                shutil.rmtree(stage / ".jobs")
        except LungNoduleCTError:
            if self._jobs is not None and job.keep_finished():
                notice(f"the shards that are finished are in {self._jobs}; the same command goes on from there")
            raise

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """Yield the results of a function for some items, in their order, on this machine."""
        yield from map(function, items)

    def _run(self, job: Job, count: int) -> None:
        """Run the pipeline. ``Create`` spreads its elements over the workers.

        On Dask that takes one partition per shard, unless the options state another number: the default is 128 shards in each.

        Raises:
            OutputError: The runner failed.
        """
        if self._partitions is not None:
            self._partitions.npartitions = min(count, _MAX_PARTITIONS)
        pipeline = beam.Pipeline(self._runner, options=self._options)
        _ = pipeline | "Shards" >> beam.Create(range(count)) | "Write" >> beam.FlatMap(_ShardWriter(job))
        try:
            result = pipeline.run()
            try:
                result.wait_until_finish()
            finally:
                if self._on_dask:
                    result.client.close()
        except Exception as error:
            raise OutputError(
                f"the job failed on the runner: {' '.join(str(error).split())[:1000] or type(error).__name__}",
                remedy="see the messages of the workers, and run the same command again",
            ) from error


def _dask_options(options: PipelineOptions) -> Any:
    """The options for Dask whose number of partitions is still to be stated, ``None`` if they state one."""
    from apache_beam.runners.dask.dask_runner import DaskOptions  # noqa: PLC0415 -- imports Dask, which changes how errors are pickled

    dask = options.view_as(DaskOptions)
    return None if dask.npartitions or dask.partition_size else dask


@dataclass(frozen=True)
class _ShardWriter:
    """What a worker does with an element. It gives no elements back."""

    job: Job

    def __call__(self, number: int) -> tuple[()]:
        self.job.write(number)
        return ()
