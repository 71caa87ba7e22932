"""The TFDS builder: the same plan and examples as shards of TFRecord or ArrayRecord, in this process or on Beam.

Shards and their order follow from the plan alone, so a build on a cluster gives what a build on one machine gives. Without
TensorFlow, ``file_format="array_record"`` builds and reads.
"""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds
from etils import epath
from filelock import FileLock

from lung_nodule_ct.errors import LungNoduleCTError, OutputError, SourceError
from lung_nodule_ct.examples.scratch import Scratch
from lung_nodule_ct.findings import Finding
from lung_nodule_ct.listeners import BuildListener
from lung_nodule_ct.plan import make_plan
from lung_nodule_ct.plan.units import Unit
from lung_nodule_ct.report import FINDINGS, GENERATOR, Pixels, report_document, to_json
from lung_nodule_ct.source.choose import open_source
from lung_nodule_ct.source.opened import Opened
from lung_nodule_ct.source.source import Source
from lung_nodule_ct.spec.configs import CONFIGS, DEFAULT_CONFIG, get_config
from lung_nodule_ct.spec.published import CITATION, HOMEPAGE
from lung_nodule_ct.targets.ahead import examples_ahead
from lung_nodule_ct.targets.parts import gather_parts, leave_part
from lung_nodule_ct.targets.shards import plan_shards
from lung_nodule_ct.targets.tfds_features import to_features_dict, to_tfds_example

SHARD_BYTES = 256_000_000
_INCOMPLETE = "incomplete.*"
_ERROR = "error-{}.part"


class LungNoduleCT(tfds.core.ShardBasedBuilder):
    """Builds the six configs: ``tfds.load("lung_nodule_ct/det2d_1.25mm")``.

    Args:
        source: A folder of archives, or an opened source; else as everywhere: ``LUNG_NODULE_CT_SOURCE``, the cache of downloads, Zenodo.
        listener: Is told how far a build in this process is.
        **kwargs: As of ``tfds.core.DatasetBuilder``. ``file_format`` is ``tfrecord`` or ``array_record``.

    Raises:
        OutputError: ``file_format`` is ``parquet``, with which TFDS loses examples.
    """

    name = "lung_nodule_ct"
    pkg_dir_path = epath.Path(__file__).parent / "tfds_pages"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[Mapping[str, str]] = {"1.0.0": "The first."}
    BUILDER_CONFIGS: ClassVar[list[tfds.core.BuilderConfig]] = [
        tfds.core.BuilderConfig(name=config.name, description=config.summary) for config in CONFIGS.values()
    ]
    DEFAULT_BUILDER_CONFIG_NAME = DEFAULT_CONFIG.name

    def __init__(
        self,
        *,
        source: Source | str | os.PathLike[str] | None = None,
        listener: BuildListener | None = None,
        **kwargs: Any,
    ) -> None:
        if "parquet" in str(kwargs.get("file_format")).lower():
            raise OutputError(
                "TFDS keeps at most 100 examples of a Parquet shard",
                expected="file_format tfrecord or array_record",
                got="parquet",
                remedy="build Parquet with `lung-nodule-ct build`",
            )
        self._source, self._listener = source, listener or BuildListener()
        self.found: tuple[Finding, ...] | None = None
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        config = get_config(self.builder_config.name)
        return self.dataset_info_from_configs(
            description=config.summary,
            features=to_features_dict(config.schema),
            supervised_keys=("image", "label") if "label" in config.schema.names else None,
            homepage=HOMEPAGE,
            citation=CITATION,
            disable_shuffling=True,
        )

    def download_and_prepare(self, **kwargs: Any) -> None:
        """As of TFDS. Of two builds of the same at once the second waits; what a killed one left is taken away."""
        with self._alone():
            super().download_and_prepare(**kwargs)

    def _alone(self) -> Any:
        folder = Path(os.fspath(self.data_path))
        if "://" in os.fspath(self.data_path) or (folder / "dataset_info.json").is_file():
            return nullcontext()
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder} cannot be written: {error}") from error
        return _Alone(folder.parent)

    def _shard_iterators_per_split(self, _dl_manager: Any) -> dict[str, list[Callable[[], Iterator[Any]]]]:
        config = get_config(self.builder_config.name)
        source = self._source if isinstance(self._source, Source) else open_source(self._source, [config])
        plan = make_plan(config, source)
        if not plan.units:
            raise SourceError(f"{config.name} has no example in {source.name}")
        folder = os.fspath(self.data_path)
        leave_part(Path(folder), 0, plan.findings, [])
        self._listener.begin(config.name, sum(unit.packed_bytes for unit in plan.units), len(plan.units))
        shards: dict[str, list[Callable[[], Iterator[Any]]]] = {}
        place = 1
        for shard in plan_shards(plan, keep_source_names=False, shard_bytes=SHARD_BYTES):
            made = ShardExamples(config.name, shard.units, place, folder)
            shards.setdefault(shard.split, []).append(self._told(made))
            place += len(shard.units)
        return shards

    def _told(self, shard: ShardExamples) -> Callable[[], Iterator[Any]]:
        """The shard itself where it goes to Beam, else one that tells how far it is."""
        if type(self._listener) is BuildListener:
            return shard
        return lambda: shard.examples(lambda unit: self._listener.advance(shard.config, unit.packed_bytes))

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        folder, name = Path(os.fspath(self.data_path)), self.builder_config.name
        try:
            super()._download_and_prepare(dl_manager, download_config)
        except Exception:
            for path in sorted(folder.glob(_ERROR.format("*"))):  # Beam wraps what its workers raise
                raise pickle.loads(path.read_bytes()) from None  # noqa: S301 -- ours, of this very build
            raise
        self.found = gather_parts(folder)
        document = report_document({name: self.found}, generator=GENERATOR, verbatim=False)
        (folder / FINDINGS).write_text(to_json(document), encoding="utf-8")
        self._listener.end(name)


@dataclass(frozen=True)
class ShardExamples:
    """The examples of one shard, as TFDS calls for them: small and picklable, so that it is also what goes to a cluster.

    Attributes:
        config: The config's name.
        units: What goes into the shard.
        place: The place in the plan, from 1, of the first of them.
        folder: Where what is found is left.
    """

    config: str
    units: Sequence[Unit]
    place: int
    folder: str

    def __call__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Key and example, one by one; voxels are valid until the next is taken."""
        return self.examples(lambda _: None)

    def examples(self, on_unit: Callable[[Unit], None]) -> Iterator[tuple[str, dict[str, Any]]]:
        """The same; ``on_unit`` is called after every unit."""
        try:
            yield from self._examples(on_unit)
        except LungNoduleCTError as error:
            Path(self.folder, _ERROR.format(f"{self.place:09d}")).write_bytes(pickle.dumps(error))
            raise

    def _examples(self, on_unit: Callable[[Unit], None]) -> Iterator[tuple[str, dict[str, Any]]]:
        schema = get_config(self.config).schema
        findings: list[Finding] = []
        pixels: list[Pixels] = []
        with Opened() as opened, closing(examples_ahead(self.units, opened, Scratch, builders=0)) as made:
            for place, (unit, example) in enumerate(made, self.place):
                findings += example.findings
                pixels.append(Pixels.of(unit, example))
                yield f"{place:09d}", to_tfds_example(schema, example.row)
                on_unit(unit)
        leave_part(Path(self.folder), self.place, findings, pixels)


class _Alone:
    """One build of a config at a time in a folder; when it begins, what a killed one left is taken away."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = FileLock(folder / ".build.lock")

    def __enter__(self) -> None:
        self._lock.acquire()
        for left in self._folder.glob(_INCOMPLETE):
            shutil.rmtree(left, ignore_errors=True)

    def __exit__(self, *_: object) -> None:
        Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()
