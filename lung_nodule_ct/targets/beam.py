"""Shards written by Apache Beam, one element per shard, on any runner.

Workers must be able to read the archives and write the output under the same paths as this machine.
"""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.runner import create_runner

from lung_nodule_ct.errors import LungNoduleCTError, OptionError
from lung_nodule_ct.system.files import write_atomically
from lung_nodule_ct.targets.shards import write_shard

if TYPE_CHECKING:
    from collections.abc import Callable

    from lung_nodule_ct.system.progress import BuildProgress
    from lung_nodule_ct.targets.shards import Shard, ShardLayout, WrittenShard

_RESULTS = ".results"

T = TypeVar("T")
R = TypeVar("R")


class BeamEngine:
    """Writes the shards of a build in one pipeline per config.

    Args:
        options: The options of Beam's command line, as ``["--runner=FlinkRunner"]``, or as Beam parses them.
        runner: Used instead of the runner in the options.

    Raises:
        OptionError: Beam has no such runner, or the runner needs a package that is not installed.
    """

    def __init__(self, options: Sequence[str] | PipelineOptions = (), runner: str | None = None) -> None:
        self._options = options if isinstance(options, PipelineOptions) else PipelineOptions(list(options))
        self._runner = runner
        name = runner or self._options.view_as(StandardOptions).runner
        try:
            if isinstance(name, str):
                create_runner(name)
        except (ValueError, TypeError, ImportError, AttributeError) as error:
            problem = " ".join(str(error).split())
            raise OptionError("beam_options", f"the runner {name!r} cannot be used", got=problem) from error

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
        """
        results = stage / _RESULTS
        results.mkdir(exist_ok=True)
        with beam.Pipeline(self._runner, options=self._options) as pipeline:
            elements = pipeline | "Shards" >> beam.Create(list(enumerate(shards))) | "Spread" >> beam.Reshuffle()
            _ = elements | "Write" >> beam.Map(_ShardWriter(layout, str(stage)))
        for number, shard in enumerate(shards):
            # written by a worker of this build
            written = pickle.loads((results / str(number)).read_bytes())  # noqa: S301
            if isinstance(written, LungNoduleCTError):
                raise written
            progress.advance(shard.config.name, shard.packed_bytes)
            yield written
        shutil.rmtree(results)

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """Yield the results of a function for some items, in their order, on this machine."""
        yield from map(function, items)


@dataclass(frozen=True)
class _ShardWriter:
    """What a worker does. An error of this package is stored and not raised, since Beam would retry and wrap it."""

    layout: ShardLayout
    stage: str

    def __call__(self, element: tuple[int, Shard]) -> int:
        number, shard = element
        result: WrittenShard | LungNoduleCTError
        try:
            result = write_shard(self.layout, shard, Path(self.stage), prefetch=0)
        except LungNoduleCTError as error:
            result = error
        write_atomically(Path(self.stage, _RESULTS, str(number)), pickle.dumps(result))
        return number
