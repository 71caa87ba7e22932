"""Shards made by Apache Beam: each is an element, on whatever runner the options name.

Workers must be able to read the archives and to write the output at the same places as this machine does.
"""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from lung_nodule_ct.errors import LungNoduleCTError
from lung_nodule_ct.system.files import write_whole
from lung_nodule_ct.targets.engine import write_shard

if TYPE_CHECKING:
    from lung_nodule_ct.system.progress import BuildProgress
    from lung_nodule_ct.targets.engine import Shard, ShardLayout, Written

_NOTES = ".notes"


class BeamEngine:
    """Writes the shards of a build in one pipeline a config.

    Args:
        options: As on Beam's command line: ``["--runner=FlinkRunner", …]``, or as Beam reads them.
        runner: In place of the one that the options name.
    """

    def __init__(self, options: Sequence[str] | PipelineOptions = (), runner: str | None = None) -> None:
        self._options = options if isinstance(options, PipelineOptions) else PipelineOptions(list(options))
        self._runner = runner

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is held between configs."""

    def write(
        self, layout: ShardLayout, shards: Sequence[Shard], stage: Path, progress: BuildProgress
    ) -> Iterator[Written]:
        """Write shards into a stage.

        Raises:
            LungNoduleCTError: As of the shard that failed first in the order of the shards.
        """
        notes = stage / _NOTES
        notes.mkdir(exist_ok=True)
        with beam.Pipeline(self._runner, options=self._options) as pipeline:
            elements = pipeline | "Shards" >> beam.Create(list(enumerate(shards))) | "Spread" >> beam.Reshuffle()
            _ = elements | "Write" >> beam.Map(_WriteShard(layout, str(stage)))
        for number, shard in enumerate(shards):
            # ours, written a moment ago by a worker of this build
            written = pickle.loads((notes / str(number)).read_bytes())  # noqa: S301
            if isinstance(written, LungNoduleCTError):
                raise written
            progress.advance(shard.config, sum(unit.packed_bytes for unit in shard.units))
            yield written
        shutil.rmtree(notes)


@dataclass(frozen=True)
class _WriteShard:
    """What a worker does. An error of ours is noted, not raised: Beam would try again, and wrap it."""

    layout: ShardLayout
    stage: str

    def __call__(self, element: tuple[int, Shard]) -> int:
        number, shard = element
        result: Written | LungNoduleCTError
        try:
            result = write_shard(self.layout, shard, Path(self.stage), prefetch=0)
        except LungNoduleCTError as error:
            result = error
        write_whole(Path(self.stage, _NOTES, str(number)), pickle.dumps(result))
        return number
