"""The ``datasets`` builder: the same plan and examples, straight from the archives, prepared or streamed.

``datasets`` patches this module for streaming, so all reading of archives is done elsewhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets

from lung_nodule_ct.declaration.configs import CONFIGS, DEFAULT_CONFIG, get_config
from lung_nodule_ct.declaration.findings import Code, Finding, Grade
from lung_nodule_ct.declaration.labels import SplitBy
from lung_nodule_ct.declaration.manifest import FINDINGS, GENERATOR, to_json
from lung_nodule_ct.declaration.published import CITATION, HOMEPAGE
from lung_nodule_ct.errors import LungNoduleCTError, SourceError
from lung_nodule_ct.examples.plan import make_plan
from lung_nodule_ct.examples.report import Pixels, report_document, same_pixels
from lung_nodule_ct.sources.resolve import RECORDS, open_source, requested_folder
from lung_nodule_ct.sources.source import ArchivePool
from lung_nodule_ct.system.disk_writes import WriteBackThrottle
from lung_nodule_ct.system.memory import BufferPool, NoReuse
from lung_nodule_ct.system.progress import DownloadProgressBar
from lung_nodule_ct.targets.batches import batches_of
from lung_nodule_ct.targets.hub_features import built_schema, to_features

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

    from lung_nodule_ct.declaration.configs import Config
    from lung_nodule_ct.examples.family import Unit
    from lung_nodule_ct.sources.source import Source

DATASET_NAME = "lung_nodule_ct"
_NOT_HASHED = frozenset({"cli", "train", "preview", "publish"})
"""Rooms that do not decide what is built; a change in any other makes prepared caches stale."""

logger = datasets.utils.logging.get_logger(__name__)


@dataclass
class LungNoduleCTConfig(datasets.BuilderConfig):
    """A config of the builder.

    Attributes:
        split_by: ``published`` or ``patient``.
        keep_source_names: Add the column ``source_name``, and keep what pictures say beside their pixels; both may spell calendar dates.
    """

    split_by: str = str(SplitBy.PUBLISHED)
    keep_source_names: bool = False


class HuggingFaceBuilder(datasets.ArrowBasedBuilder):
    """Builds the six configs from the archives.

    Args:
        archives: A folder of them or its URL, where it shall not become a part of the config's id (see :func:`prepare`). Else
            ``data_dir`` names it, or the environment variable ``LUNG_NODULE_CT_SOURCE``. Where nothing does, what was
            prepared before by the same code is used, else the archives come from the cache of downloads and from Zenodo.
        **kwargs: As of ``datasets.DatasetBuilder``.
    """

    BUILDER_CONFIG_CLASS = LungNoduleCTConfig
    BUILDER_CONFIGS = tuple(
        LungNoduleCTConfig(name=config.name, version=datasets.Version("1.0.0"), description=config.summary)
        for config in CONFIGS.values()
    )
    DEFAULT_CONFIG_NAME = DEFAULT_CONFIG.name
    _cache_dir: str
    found: tuple[Finding, ...] | None
    """What was found in the archives as they are, ``None`` where the cache was there before."""

    def __init__(self, *, archives: str | os.PathLike[str] | None = None, **kwargs: Any) -> None:
        self._archives = requested_folder(archives or kwargs.get("data_dir") or None)
        self._source: Source | None = None
        self.found: tuple[Finding, ...] | None = None
        self._report_folder: str | None = None
        self._settling: WriteBackThrottle | None = None
        config = get_config(kwargs.get("config_name") or self.DEFAULT_CONFIG_NAME)
        if self._archives is not None:
            self._source = open_source(self._archives, [config])
        # datasets' own hash says nothing of the source; ours follows the code and what the archives hold
        kwargs["hash"] = f"{code_hash()}-{_hash_of(self._source, config) if self._source else 'none'}"
        if config.schema.has_voxels:
            kwargs["writer_batch_size"] = 1
        super().__init__(**kwargs)
        if self._archives is None:
            self._adopt_prepared()

    def _adopt_prepared(self) -> None:
        """Without a source, take the latest cache of the same code."""
        prepared = sorted(
            Path(self._cache_dir).parent.glob(f"{code_hash()}-*/dataset_info.json"),
            key=lambda path: path.stat().st_mtime,
        )
        if prepared:
            self._move_to(prepared[-1].parent.name)
            self.info = datasets.DatasetInfo.from_directory(self._cache_dir)
            origin = _origin(Path(self._cache_dir))
            if origin is not None and not origin.startswith(RECORDS):
                logger.warning(f"{self.config.name}: taken from the cache, as it was prepared before from {origin}")

    def _move_to(self, hash_: str) -> None:
        """Take the cache of that hash for ours."""
        self.hash = hash_
        self._cache_dir = self._output_dir = self._build_cache_dir()

    @property
    def _is_prepared(self) -> bool:
        return Path(self._cache_dir, "dataset_info.json").is_file()

    def download_and_prepare(self, *args: Any, **kwargs: Any) -> None:
        """As of ``datasets``; without a folder and a cache, the archives are downloaded from Zenodo first."""
        if self._source is None and not self._is_prepared:
            config = get_config(self.config.name)
            self._source = self._from_zenodo(remote=False)
            self._move_to(f"{code_hash()}-{_hash_of(self._source, config)}")
        super().download_and_prepare(*args, **kwargs)

    def _from_zenodo(self, *, remote: bool) -> Source:
        config = get_config(self.config.name)
        if not datasets.utils.is_progress_bar_enabled():
            return open_source(None, [config], remote=remote)
        with DownloadProgressBar() as progress:
            return open_source(None, [config], remote=remote, progress=progress)

    def as_streaming_dataset(self, split: str | None = None, base_path: str | None = None) -> Any:
        """Stream from the archives, on the server where there is no folder; from the cache if one was prepared before."""
        if self._archives is not None or not self._is_prepared:
            return super().as_streaming_dataset(split, base_path)
        self.download_and_prepare()
        prepared = self.as_dataset(split)
        if isinstance(prepared, datasets.DatasetDict):
            return datasets.IterableDatasetDict({name: own.to_iterable_dataset() for name, own in prepared.items()})
        return prepared.to_iterable_dataset()

    def _info(self) -> datasets.DatasetInfo:
        config = get_config(self.config.name)
        schema = built_schema(config, keep_source_names=self.config.keep_source_names)
        return datasets.DatasetInfo(
            description=config.summary, features=to_features(schema), homepage=HOMEPAGE, citation=CITATION
        )

    def _use_legacy_cache_dir_if_possible(self, dataset_module: Any) -> None:
        """There never was another cache layout; what datasets does here would undo :meth:`_adopt_prepared`."""

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        source = self._source or self._from_zenodo(remote=dl_manager.is_streaming)
        plan = make_plan(get_config(self.config.name), source, self.config.split_by)
        if not plan.units:
            raise SourceError(
                f"{self.config.name} has no example in {source.name} with split_by={self.config.split_by!r}"
            )
        self._report(0, plan.findings, [])
        numbered, splits = count(1), plan.splits.items()
        return [
            datasets.SplitGenerator(name=split, gen_kwargs={"units": list(zip(numbered, own, strict=False))})
            for split, own in splits
        ]

    def _generate_tables(self, units: Sequence[tuple[int, Unit]]) -> Iterator[tuple[str, pa.Table]]:
        """One table a volume, or a hundred pictures, of units with their place in the plan."""
        schema = built_schema(get_config(self.config.name), keep_source_names=self.config.keep_source_names)
        # what is prepared is written before the next is read; what is streamed belongs to who takes it
        buffers = BufferPool if self._report_folder is not None else NoReuse
        places, done = [place for place, _ in units], 0
        with ArchivePool() as archives:
            for batch in batches_of(
                [unit for _, unit in units], schema, self.info.features.arrow_schema, archives, buffers=buffers
            ):
                self._report(places[done], batch.findings, batch.pixels)
                yield str(places[done]), batch.table
                self._settle()
                done += batch.table.num_rows

    def _report(self, place: int, findings: Sequence[Finding], pixels: Sequence[Pixels]) -> None:
        """Keep what was found: beside the data where they are prepared, in the log where they are streamed.

        Args:
            place: In the plan, from 1, of the first unit that it is of; 0 for the plan itself.
            findings: What was found.
            pixels: Where pixels stand.
        """
        if self._report_folder is None:
            _log(findings)
        else:
            save_findings(Path(self._report_folder), place, findings, pixels)

    def _download_and_prepare(self, dl_manager: Any, verification_mode: Any, **prepare_split_kwargs: Any) -> None:
        here = "://" not in self._output_dir  # not Path.is_dir, which datasets makes look in buckets, too
        with contextlib.ExitStack() as stack:
            folder = self._output_dir if here else stack.enter_context(tempfile.TemporaryDirectory())
            self._report_folder = folder
            try:
                super()._download_and_prepare(dl_manager, verification_mode, **prepare_split_kwargs)
            finally:
                self._report_folder = None
            self.found = collect_findings(Path(folder))
        if here:
            self._write_report(Path(self._output_dir), self.found)
        else:
            _log(self.found)

    def _prepare_split_single(
        self, gen_kwargs: Any, fpath: str, *args: Any, job_id: int, **kwargs: Any
    ) -> Iterator[Any]:
        """As of ``datasets``, but what it writes settles, and an error of ours arrives as it is.

        The latter here, since it would not cross processes as a cause.
        """
        self._shards, self._shard = fpath.replace("JJJJJ", f"{job_id:05d}"), 0
        try:
            with WriteBackThrottle() as settling:
                self._settling = settling if "://" not in fpath else None
                yield from super()._prepare_split_single(gen_kwargs, fpath, *args, job_id=job_id, **kwargs)
        except datasets.exceptions.DatasetGenerationError as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, LungNoduleCTError):
                cause = cause.__cause__
            if cause is None:
                raise
            raise cause from None
        finally:
            self._settling = None

    def _settle(self) -> None:
        """Some examples were written, unless they are streamed or go to a bucket."""
        if self._settling is not None:
            self._shard += self._path_of(self._shard + 1).exists()
            self._settling.more(self._path_of(self._shard))

    def _path_of(self, shard: int) -> Path:
        return Path(self._shards.replace("SSSSS", f"{shard:05d}"))

    def _write_report(self, output: Path, findings: Sequence[Finding]) -> None:
        """What was found, as ``findings.json``."""
        document = report_document(
            {self.config.name: findings},
            generator=GENERATOR,
            verbatim=self.config.keep_source_names,
            extra={"source": self._source.name} if self._source else None,
        )
        (output / FINDINGS).write_text(to_json(document), encoding="utf-8")
        counts = {grade: sum(f.count for f in findings if f.grade is grade) for grade in (Grade.ERROR, Grade.WARNING)}
        if any(counts.values()):
            logger.warning(
                f"{self.config.name}: {counts[Grade.ERROR]} findings of error grade and {counts[Grade.WARNING]} warnings "
                f"in the data; see {Path(self._cache_dir, FINDINGS)}"
            )


_PART = "findings-{}.part"


def save_findings(folder: Path, place: int, findings: Sequence[Finding], pixels: Sequence[Pixels]) -> None:
    """Leave what was found.

    Args:
        folder: Where.
        place: In the plan, from 1, of the first unit that it is of; 0 for the plan itself.
        findings: What was found.
        pixels: Where pixels stand.
    """
    part = {"findings": [asdict(finding) for finding in findings], "pixels": list(pixels)}
    (folder / _PART.format(f"{place:09d}")).write_text(json.dumps(part), encoding="utf-8")


def collect_findings(folder: Path) -> tuple[Finding, ...]:
    """All that was found, in the order of the plan, and which pixels stand more than once; the parts are taken away."""
    findings: list[Finding] = []
    pixels: list[Pixels] = []
    for path in sorted(folder.glob(_PART.format("*"))):
        part = json.loads(path.read_text(encoding="utf-8"))
        findings += [Finding(**{**entry, "code": Code(entry["code"])}) for entry in part["findings"]]
        pixels += [Pixels(*entry) for entry in part["pixels"]]
        path.unlink()
    return (*findings, *same_pixels(pixels))


def _log(findings: Sequence[Finding]) -> None:
    for finding in findings:
        logger.log(20 if finding.grade is Grade.NOTE else 30, str(finding))


def _origin(cache: Path) -> str | None:
    """Where the archives of a prepared cache came from, ``None`` where it does not say."""
    try:
        origin: str | None = json.loads((cache / FINDINGS).read_text(encoding="utf-8")).get("source")
    except (OSError, ValueError):
        return None
    return origin


def _hash_of(source: Source, config: Config) -> str:
    """A hash of what the archives of a config hold, wherever they are."""
    prints = source.fingerprints(config.roles)
    return hashlib.sha256(json.dumps(prints, sort_keys=True).encode()).hexdigest()[:16]


@cache
def code_hash() -> str:
    """A hash of the code that decides what is built: 16 hexadecimal digits."""
    return hash_of_code(Path(str(files("lung_nodule_ct"))))


def hash_of_code(package: Path) -> str:
    """A hash of the names and contents of all Python files of a package, in sub-folders too, but for ``_NOT_HASHED``.

    Args:
        package: The folder of the package.

    Returns:
        16 hexadecimal digits, the same wherever the package is installed.
    """
    digest = hashlib.sha256()
    names = sorted(path.relative_to(package).as_posix() for path in package.rglob("*.py"))
    for name in names:
        if name.partition("/")[0] not in _NOT_HASHED:
            digest.update(f"{name}\0".encode() + (package / name).read_bytes())
    return digest.hexdigest()[:16]
