"""The TFDS builder: the same plan and examples as shards of TFRecord or ArrayRecord, in this process or on Beam.

Shards and their order follow from the plan alone, so a build on a cluster equals a build on one machine. With
``file_format="array_record"``, building and reading work without TensorFlow.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from copy import copy
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import tensorflow_datasets as tfds
from etils import epath
from filelock import FileLock

from lung_nodule_ct.declaration.configs import CONFIGS, DEFAULT_CONFIG, get_config
from lung_nodule_ct.declaration.manifest import DATASET_VERSION, RELEASE_NOTES
from lung_nodule_ct.declaration.published import HOMEPAGE
from lung_nodule_ct.errors import OutputError, SourceError
from lung_nodule_ct.sources.source import Source
from lung_nodule_ct.targets.tfds.features import to_features_dict
from lung_nodule_ct.targets.tfds.folder import DATASET, TfdsLayout

if TYPE_CHECKING:
    from lung_nodule_ct.declaration.findings import Finding
    from lung_nodule_ct.targets.engine import Engine
    from lung_nodule_ct.targets.shards import WrittenShard

_INCOMPLETE = "incomplete.*"


class _DeclaredConfigs:
    """The declared configs, read at each use, so that a config that is added later is known. TFDS would keep the first answer."""

    def __init__(self, form: Callable[[dict[str, tfds.core.BuilderConfig]], Any]) -> None:
        self._form = form

    def __get__(self, _instance: object, _owner: type | None = None) -> Any:
        return self._form({name: _builder_config(name) for name in CONFIGS})


class TfdsBuilder(tfds.core.dataset_builder.FileReaderBuilder):
    """Builds the configs for TFDS: ``tfds.load("lung_nodule_ct/det2d_1.25mm")``.

    Args:
        source: A folder of archives or its URL, or an open source. Without it the ``manual_dir`` of the download config of TFDS or
            the environment variable ``LUNG_NODULE_CT_SOURCE`` names one, in this order; without these, the archives come from the
            cache of downloads and from Zenodo.
        **kwargs: The arguments of ``tfds.core.DatasetBuilder``. ``file_format`` is ``tfrecord`` or ``array_record``.

    Raises:
        OutputError: ``file_format`` is ``parquet``, with which TFDS loses examples.
    """

    name = DATASET
    pkg_dir_path = epath.Path(__file__).parent / "pages"
    VERSION = tfds.core.Version(DATASET_VERSION)
    RELEASE_NOTES: ClassVar[Mapping[str, str]] = RELEASE_NOTES
    DEFAULT_BUILDER_CONFIG_NAME = DEFAULT_CONFIG.name

    BUILDER_CONFIGS = _DeclaredConfigs(lambda configs: list(configs.values()))
    builder_configs = _DeclaredConfigs(lambda configs: configs)

    def __init__(
        self,
        *,
        source: Source | str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> None:
        if "parquet" in str(kwargs.get("file_format")).lower():
            raise OutputError(
                "TFDS keeps at most 100 examples of a Parquet shard",
                expected="file_format tfrecord or array_record",
                got="parquet",
                remedy="build Parquet with `lung-nodule-ct build`",
            )
        self._source = source
        self.findings: tuple[Finding, ...] | None = None
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        config = get_config(self.builder_config.name)
        return self.dataset_info_from_configs(
            description=config.summary,
            features=to_features_dict(config.schema),
            supervised_keys=("image", "label") if "label" in config.schema.names else None,
            homepage=HOMEPAGE,
            disable_shuffling=True,
        )

    def download_and_prepare(self, **kwargs: Any) -> None:
        """Build like TFDS does. A second build of the same config waits for the first; leftovers of a killed build are removed."""
        with self._lock():
            super().download_and_prepare(**kwargs)
            if not self.info.splits:  # TFDS reads what another build wrote only when a builder is created
                self.info.read_from_directory(self.data_path)

    def _lock(self) -> Any:
        folder = Path(os.fspath(self.data_path))
        if "://" in os.fspath(self.data_path) or (folder / "dataset_info.json").is_file():
            return nullcontext()
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder} cannot be written: {error}") from error
        return _BuildLock(folder.parent)

    def as_dataset(
        self, split: Any = None, *, shuffle_files: bool = False, read_config: Any = None, **kwargs: Any
    ) -> Any:
        """Read like TFDS does. It would refuse to shuffle the files of a dataset whose examples are stored in an order."""
        if shuffle_files:
            read_config = tfds.ReadConfig() if read_config is None else copy(read_config)
            read_config.enable_ordering_guard = False
        return super().as_dataset(split, shuffle_files=shuffle_files, read_config=read_config, **kwargs)

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:  # noqa: ARG002 -- the signature of TFDS
        # imported for a build only, and not whenever TFDS is imported
        from lung_nodule_ct.declaration.manifest import FINDINGS, GENERATOR, to_json  # noqa: PLC0415
        from lung_nodule_ct.examples.plan import make_plan  # noqa: PLC0415
        from lung_nodule_ct.examples.report import report_document  # noqa: PLC0415
        from lung_nodule_ct.sources.resolve import open_source  # noqa: PLC0415
        from lung_nodule_ct.system.progress import BuildProgressBar  # noqa: PLC0415
        from lung_nodule_ct.targets.build import build_config  # noqa: PLC0415
        from lung_nodule_ct.targets.shards import publish_names  # noqa: PLC0415

        config, folder = get_config(self.builder_config.name), Path(os.fspath(self.data_path))
        chosen = self._source if self._source is not None else getattr(download_config, "manual_dir", None)
        source = chosen if isinstance(chosen, Source) else open_source(chosen, [config])
        plan = make_plan(config, source)
        if not plan.units:
            raise SourceError(f"{config.name} has no example in {source.name}")
        limit = getattr(download_config, "max_examples_per_split", None)
        if limit == 0:  # TFDS then writes the info only
            return
        if limit is not None:
            plan = plan.limited_to(limit)
        layout = TfdsLayout(self.info.file_format.value, nested=False)
        with BuildProgressBar() as progress, _engine(download_config) as engine:
            built = build_config(plan, layout, folder, engine, progress)
        publish_names(folder, built.files)
        self.findings = built.findings
        document = report_document({config.name: built.findings}, generator=GENERATOR, verbatim=False)
        (folder / FINDINGS).write_text(to_json(document), encoding="utf-8")
        self.set_splits(built.files)

    def set_splits(self, files: Sequence[WrittenShard]) -> None:
        """Register the shards that a build of this config wrote with TFDS, in order."""
        splits = []
        for split in dict.fromkeys(written.shard.split for written in files):
            own = [written for written in files if written.shard.split == split]
            template = tfds.core.ShardedFileTemplate(
                data_dir=self.data_path,
                dataset_name=self.name,
                split=split,
                filetype_suffix=self.info.file_format.file_suffix,
            )
            splits.append(
                tfds.core.SplitInfo(
                    name=split,
                    shard_lengths=[written.rows for written in own],
                    num_bytes=sum(written.file_bytes for written in own),
                    filename_template=template,
                )
            )
        self.info.set_splits(tfds.core.splits.SplitDict(splits))


@cache
def _builder_config(name: str) -> tfds.core.BuilderConfig:
    return tfds.core.BuilderConfig(name=name, description=get_config(name).summary)


def _engine(download_config: Any) -> Engine:
    """This machine, or Beam if TFDS was given Beam options or a runner."""
    options = getattr(download_config, "beam_options", None)
    runner = getattr(download_config, "beam_runner", None)
    if options is None and runner is None:
        from lung_nodule_ct.targets.engine import LocalEngine  # noqa: PLC0415 -- see above

        return LocalEngine()
    from lung_nodule_ct.targets.beam import BeamEngine  # noqa: PLC0415 -- an extra

    return BeamEngine(options or (), runner)


class _BuildLock:
    """Allows one build of a config at a time in a folder, and removes leftovers of a killed build when it starts.

    The lock file stays: removing it would let two of three builds run.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = FileLock(folder / ".build.lock")

    def __enter__(self) -> None:
        self._lock.acquire()
        for left in self._folder.glob(_INCOMPLETE):
            shutil.rmtree(left, ignore_errors=True)

    def __exit__(self, *_: object) -> None:
        self._lock.release()
