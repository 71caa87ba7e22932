"""The builder of Hugging Face ``datasets``: the same plan and examples, straight from the archives, prepared or streamed.

``datasets`` patches this module for streaming, so archives are read in other modules only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import multiprocess

from lung_nodule_ct.declaration.computed import Computed, KeySlices
from lung_nodule_ct.declaration.configs import CONFIGS, DEFAULT_CONFIG, get_config
from lung_nodule_ct.declaration.findings import Grade
from lung_nodule_ct.declaration.labels import SplitBy
from lung_nodule_ct.declaration.manifest import DATASET_VERSION, FINDINGS, GENERATOR, to_json
from lung_nodule_ct.declaration.published import CITATION, HOMEPAGE
from lung_nodule_ct.errors import LungNoduleCTError, SourceError
from lung_nodule_ct.examples.family import number_scans
from lung_nodule_ct.examples.plan import family_of, make_plan
from lung_nodule_ct.examples.report import report_document
from lung_nodule_ct.examples.scans.computed import with_computed
from lung_nodule_ct.sources.resolve import open_source, requested_folder
from lung_nodule_ct.sources.source import ArchivePool
from lung_nodule_ct.system.files import machine_key
from lung_nodule_ct.system.memory import BufferPool, NoReuse
from lung_nodule_ct.system.processes import start_worker
from lung_nodule_ct.system.progress import DownloadProgressBar, notice
from lung_nodule_ct.targets.batches import make_batches
from lung_nodule_ct.targets.columns import to_features
from lung_nodule_ct.targets.estimate import CACHE, estimate
from lung_nodule_ct.targets.prepared_cache import (
    DirectFileSystem,
    code_hash,
    collect_findings,
    collect_hashes,
    latest_cache,
    new_cache,
    save_findings,
    source_of_cache,
    write_cache_manifest,
)
from lung_nodule_ct.targets.streaming import NumberedUnits, SharedArchives, deal_units, require_streaming

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pyarrow as pa

    from lung_nodule_ct.declaration.configs import Config
    from lung_nodule_ct.declaration.findings import Finding
    from lung_nodule_ct.declaration.schema import Schema
    from lung_nodule_ct.examples.report import Pixels
    from lung_nodule_ct.sources.source import Source

DATASET_NAME = "lung_nodule_ct"

logger = datasets.utils.logging.get_logger(__name__)


@dataclass
class LungNoduleCTConfig(datasets.BuilderConfig):
    """A config of the builder.

    Attributes:
        split_by: ``published`` or ``patient``.
        keep_source_names: Add the column ``source_name``, and keep the metadata of pictures. Both may identify patients.
        make_lung_masks: Make a lung mask for each scan without a published one that can be used.
        key_slices: ``centre``, or ``evidence`` in the voxels.
        track: Follow the nodules over the scans of each patient.
    """

    split_by: str = str(SplitBy.PUBLISHED)
    keep_source_names: bool = False
    make_lung_masks: bool = False
    key_slices: str = str(KeySlices.CENTRE)
    track: bool = False

    @property
    def computed(self) -> Computed:
        """What is computed from the voxels of scans."""
        return Computed(self.make_lung_masks, KeySlices(self.key_slices), self.track)


class _DeclaredConfigs:
    """The declared configs, read at each use, so that a config that is added later is known. ``datasets`` keeps the first answer."""

    def __init__(self, form: Callable[[dict[str, datasets.BuilderConfig]], Any]) -> None:
        self._form = form

    def __get__(self, _instance: object, _owner: type | None = None) -> Any:
        version = datasets.Version(DATASET_VERSION)
        configs = {
            config.name: LungNoduleCTConfig(name=config.name, version=version, description=config.summary)
            for config in CONFIGS.values()
        }
        return self._form(configs)


class HuggingFaceBuilder(datasets.ArrowBasedBuilder):
    """Builds the configs from the archives.

    Args:
        archives: A folder of archives or its URL, if it must not become a part of the config's id (see :func:`.loading.prepare`).
            Without it ``data_dir`` or the environment variable ``LUNG_NODULE_CT_SOURCE`` names one. Without those, the latest cache
            that the same code prepared is used; if there is none, the archives come from the cache of downloads and from Zenodo.
        **kwargs: The arguments of ``datasets.DatasetBuilder``.

    Attributes:
        findings: Findings about the archives; ``None`` if the cache existed already.
    """

    BUILDER_CONFIG_CLASS = LungNoduleCTConfig
    BUILDER_CONFIGS = _DeclaredConfigs(lambda configs: list(configs.values()))
    builder_configs = _DeclaredConfigs(lambda configs: configs)
    DEFAULT_CONFIG_NAME = DEFAULT_CONFIG.name
    _cache_dir: str
    config_id: str
    findings: tuple[Finding, ...] | None

    def __init__(self, *, archives: str | os.PathLike[str] | None = None, **kwargs: Any) -> None:
        self._archives = requested_folder(archives or kwargs.get("data_dir") or None)
        self._source: Source | None = None
        self.findings = None
        self._report_folder: str | None = None
        self._streamed = SharedArchives()
        self._shard_hashes: dict[int, str] = {}
        config = get_config(kwargs.get("config_name") or self.DEFAULT_CONFIG_NAME)
        if self._archives is not None:
            self._source = open_source(self._archives, [config])
        # the hash of datasets does not depend on the source; this one depends on the code and on the content of the archives
        kwargs["hash"] = f"{code_hash()}-{_source_hash(self._source, config) if self._source else 'none'}"
        if config.schema.has_voxels:
            kwargs["writer_batch_size"] = 1
        super().__init__(**kwargs)
        if self._archives is None:
            self._use_prepared()
        elif not self._is_prepared:
            self._use_equal()

    def __setstate__(self, state: Any) -> None:
        """Also called where a worker process of ``datasets`` receives its copy."""
        super().__setstate__(state)
        start_worker(multiprocess.parent_process)

    def _use_prepared(self) -> None:
        """Without a source, use the latest cache of the same code."""
        prepared = latest_cache(Path(self._cache_dir).parent, code_hash())
        if prepared is not None:
            self._set_hash(prepared.name)
            self.info = datasets.DatasetInfo.from_directory(self._cache_dir)
            folder = source_of_cache(prepared)
            if folder is not None:
                logger.warning(f"{self.config.name}: using the cache that was prepared from {folder}")

    def _create_builder_config(self, *args: Any, **kwargs: Any) -> tuple[datasets.BuilderConfig, str]:
        """Also keep the id of the config without ``data_dir``, under which :func:`.loading.prepare` writes."""
        create = super()._create_builder_config
        _, self._plain_id = create(*args, **{**kwargs, "data_dir": None})
        return create(*args, **kwargs)  # type: ignore[no-any-return]  # datasets has no types

    def _use_equal(self) -> None:
        """With a source, use what :func:`.loading.prepare` wrote if it is of the same code and of equal archives: the hash says so."""
        own, self.config_id = self.config_id, self._plain_id
        self._set_hash(self.hash)
        if self._is_prepared:
            self.info = datasets.DatasetInfo.from_directory(self._cache_dir)
        else:
            self.config_id = own
            self._set_hash(self.hash)

    def _set_hash(self, hash_: str) -> None:
        """Use the cache with this hash."""
        self.hash = hash_
        self._cache_dir = self._output_dir = self._build_cache_dir()

    @property
    def _is_prepared(self) -> bool:
        return Path(self._cache_dir, "dataset_info.json").is_file()

    @property
    def _schema(self) -> Schema:
        return get_config(self.config.name).built_schema(keep_source_names=self.config.keep_source_names)

    def download_and_prepare(
        self, output_dir: str | None = None, *args: Any, download_mode: Any = None, **kwargs: Any
    ) -> None:
        """Prepare like ``datasets`` does. Without a folder and a cache, the archives are downloaded from Zenodo first.

        The cache appears when it is complete. Until then ``load_dataset`` in another process does not see it.
        """
        if self._source is None and not self._is_prepared:
            config = get_config(self.config.name)
            self._source = self._from_zenodo(remote=False)
            self._set_hash(f"{code_hash()}-{_source_hash(self._source, config)}")
        target = os.fspath(output_dir or self._cache_dir)
        if "://" in target:
            super().download_and_prepare(target, *args, download_mode=download_mode, **kwargs)
            return
        if_exists = datasets.DownloadMode.REUSE_DATASET_IF_EXISTS
        reuse = datasets.DownloadMode(download_mode or if_exists) is if_exists
        with new_cache(Path(target), reuse=reuse) as stage:
            if stage is not None:
                super().download_and_prepare(str(stage), *args, download_mode=download_mode, **kwargs)
        self._output_dir = target
        self.info = datasets.DatasetInfo.from_directory(target)

    def _from_zenodo(self, *, remote: bool) -> Source:
        config = get_config(self.config.name)
        if not datasets.utils.is_progress_bar_enabled():
            return open_source(None, [config], remote=remote)
        with DownloadProgressBar() as progress:
            return open_source(None, [config], remote=remote, progress=progress)

    def as_streaming_dataset(self, split: str | None = None, base_path: str | None = None) -> Any:
        """Stream from the archives, or from the server if there is no folder; from the cache if one was prepared before."""
        require_streaming()
        if self._archives is not None or not self._is_prepared:
            return super().as_streaming_dataset(split, base_path)
        self.download_and_prepare()
        prepared = self.as_dataset(split)
        if isinstance(prepared, datasets.DatasetDict):
            return datasets.IterableDatasetDict(
                {name: dataset.to_iterable_dataset() for name, dataset in prepared.items()}
            )
        return prepared.to_iterable_dataset()

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            description=get_config(self.config.name).summary,
            features=to_features(self._schema),
            homepage=HOMEPAGE,
            citation=CITATION,
        )

    def _use_legacy_cache_dir_if_possible(self, dataset_module: Any) -> None:
        """There is no legacy cache layout; what datasets does here would undo :meth:`_use_prepared`."""

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        source = self._source or self._from_zenodo(remote=dl_manager.is_streaming)
        plan = make_plan(get_config(self.config.name), source, self.config.split_by)
        if not plan.units:
            raise SourceError(
                f"{self.config.name} has no example in {source.name} with split_by={self.config.split_by!r}"
            )
        if self._report_folder is not None and datasets.utils.is_progress_bar_enabled():
            expected = estimate([plan], CACHE, computes=self.config.computed.needs_imaging)
            if expected.is_long:
                notice(f"{plan.config.name}: {expected}")
        plan = with_computed(plan, self.config.computed)
        self._report(0, 0, plan.findings, [])
        numbers = count(1)
        return [
            datasets.SplitGenerator(
                name=split, gen_kwargs={"units": deal_units(list(zip(numbers, units, strict=False)))}
            )
            for split, units in plan.splits.items()
        ]

    def _generate_tables(self, units: Sequence[NumberedUnits]) -> Iterator[tuple[str, pa.Table]]:
        """One table per volume, or per hundred pictures, of units that are numbered by their position in the plan."""
        if self._report_folder is None:
            for shard in units:  # what is streamed is kept by its consumer
                archives = self._streamed.pool()
                archives.prefetch(member for _, unit in shard for member in unit.members)
                yield from self._tables(shard, archives, NoReuse)
        else:  # what is prepared is written before the next example is made
            with ArchivePool() as archives:
                yield from self._tables(tuple(chain.from_iterable(units)), archives, BufferPool)

    def _tables(
        self, units: NumberedUnits, archives: ArchivePool, new_buffers: type[BufferPool]
    ) -> Iterator[tuple[str, pa.Table]]:
        batches = make_batches(
            [unit for _, unit in units],
            family_of(get_config(self.config.name)),
            self._schema,
            self.info.features.arrow_schema,
            archives,
            new_buffers=new_buffers,
        )
        for number, batch in enumerate(batches):
            position = units[batch.unit][0]
            self._report(position, number, batch.findings, batch.pixels)
            if batch.table.num_rows:
                yield f"{position}-{number}", batch.table

    def _report(self, position: int, batch: int, findings: Sequence[Finding], pixels: Sequence[Pixels]) -> None:
        """Save findings next to the data that are prepared, or log those of a stream; see :func:`save_findings`."""
        if self._report_folder is None:
            _log(findings)
        else:
            save_findings(Path(self._report_folder), position, batch, findings, pixels)

    def _download_and_prepare(self, dl_manager: Any, verification_mode: Any, **prepare_split_kwargs: Any) -> None:
        is_local = "://" not in self._output_dir  # not Path.is_dir, which datasets extends to buckets
        with contextlib.ExitStack() as stack:
            folder = self._output_dir if is_local else stack.enter_context(tempfile.TemporaryDirectory())
            self._report_folder = folder
            try:
                super()._download_and_prepare(dl_manager, verification_mode, **prepare_split_kwargs)
                for split in [name for name, info in self.info.splits.items() if not info.num_examples]:
                    del self.info.splits[split]  # every example was left out, and datasets does not load an empty split
            finally:
                self._report_folder = None
            self.findings = collect_findings(Path(folder))
            self._shard_hashes = collect_hashes(Path(folder))
        if is_local:
            self._write_report(Path(self._output_dir), self.findings)
        else:
            _log(self.findings)

    def _save_info(self) -> None:
        """Write ``dataset_info.json``, the last file of ``datasets``, and the manifest."""
        super()._save_info()
        if "://" not in self._output_dir:
            write_cache_manifest(Path(self._output_dir), self._shard_hashes)

    def _prepare_split_single(
        self, gen_kwargs: Any, fpath: str, *args: Any, job_id: int, **kwargs: Any
    ) -> Iterator[Any]:
        """Write the shards of one job like ``datasets`` does, but past the page cache.

        An error of this package is raised as it is, and here, because it would not cross processes as a cause.
        """
        try:
            if "://" in fpath:
                yield from super()._prepare_split_single(gen_kwargs, fpath, *args, job_id=job_id, **kwargs)
                return
            with DirectFileSystem.job(fpath) as (url, hashes):
                yield from super()._prepare_split_single(gen_kwargs, url, *args, job_id=job_id, **kwargs)
            hashes.save(Path(fpath).parent)
        except datasets.exceptions.DatasetGenerationError as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, LungNoduleCTError | OSError):
                cause = cause.__cause__
            if cause is None:
                raise
            raise cause from None

    def _write_report(self, output: Path, findings: Sequence[Finding]) -> None:
        """Write ``findings.json``, and warn about errors and warnings."""
        document = report_document(
            {self.config.name: findings},
            generator=GENERATOR,
            verbatim=self.config.keep_source_names,
            extra=_origin(self._source) if self._source else None,
        )
        (output / FINDINGS).write_text(to_json(document), encoding="utf-8")
        counts = {grade: sum(f.count for f in findings if f.grade is grade) for grade in (Grade.ERROR, Grade.WARNING)}
        if any(counts.values()):
            logger.warning(
                f"{self.config.name}: {counts[Grade.ERROR]} findings of error grade and {counts[Grade.WARNING]} warnings "
                f"in the data; see {Path(self._cache_dir, FINDINGS)}"
            )


def _log(findings: Sequence[Finding]) -> None:
    for finding in findings:
        logger.log(20 if finding.grade is Grade.NOTE else 30, str(finding))


def _origin(source: Source) -> dict[str, Any]:
    """What a report states about the source: its name, and the numbers of the records that it comes from."""
    return {"source": source.name, "records": [record.number for record in source.records]}


def _source_hash(source: Source, config: Config) -> str:
    """A hash of the content of the archives of a config, wherever they are stored."""
    prints = {**source.fingerprints(config.roles, machine_key()), "scan_numbers": number_scans(source).sha256}
    return hashlib.sha256(json.dumps(prints, sort_keys=True).encode()).hexdigest()[:16]
