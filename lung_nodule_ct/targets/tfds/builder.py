"""The TFDS builder: the same plan and examples as shards of TFRecord or ArrayRecord, in this process or on Beam.

Shards and their order follow from the plan alone, so a build on a cluster gives what a build on one machine gives. Without
TensorFlow, ``file_format="array_record"`` builds and reads.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import tensorflow_datasets as tfds
from etils import epath
from filelock import FileLock

from lung_nodule_ct.declaration.configs import CONFIGS, DEFAULT_CONFIG, get_config
from lung_nodule_ct.declaration.published import HOMEPAGE
from lung_nodule_ct.errors import OutputError, SourceError
from lung_nodule_ct.sources.source import Source
from lung_nodule_ct.targets.tfds.features import to_features_dict
from lung_nodule_ct.targets.tfds.folder import DATASET, RELEASE, TfdsLayout

if TYPE_CHECKING:
    from lung_nodule_ct.declaration.findings import Finding
    from lung_nodule_ct.targets.engine import Engine, Written

_INCOMPLETE = "incomplete.*"


class LungNoduleCT(tfds.core.dataset_builder.FileReaderBuilder):
    """Builds the six configs: ``tfds.load("lung_nodule_ct/det2d_1.25mm")``.

    Args:
        source: A folder of archives or its URL, or an opened source; else as everywhere: ``LUNG_NODULE_CT_SOURCE``, the cache of downloads, Zenodo.
        **kwargs: As of ``tfds.core.DatasetBuilder``. ``file_format`` is ``tfrecord`` or ``array_record``.

    Raises:
        OutputError: ``file_format`` is ``parquet``, with which TFDS loses examples.
    """

    name = DATASET
    pkg_dir_path = epath.Path(__file__).parent / "pages"
    VERSION = tfds.core.Version(RELEASE)
    RELEASE_NOTES: ClassVar[Mapping[str, str]] = {RELEASE: "The first."}
    BUILDER_CONFIGS: ClassVar[list[tfds.core.BuilderConfig]] = [
        tfds.core.BuilderConfig(name=config.name, description=config.summary) for config in CONFIGS.values()
    ]
    DEFAULT_BUILDER_CONFIG_NAME = DEFAULT_CONFIG.name

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
        self.found: tuple[Finding, ...] | None = None
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
        """As of TFDS. Of two builds of the same at once the second waits; what a killed one left is taken away."""
        with self._alone():
            super().download_and_prepare(**kwargs)
            if not self.info.splits:  # TFDS reads what another build wrote only when a builder is made
                self.info.read_from_directory(self.data_path)

    def _alone(self) -> Any:
        folder = Path(os.fspath(self.data_path))
        if "://" in os.fspath(self.data_path) or (folder / "dataset_info.json").is_file():
            return nullcontext()
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder} cannot be written: {error}") from error
        return _Alone(folder.parent)

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:  # noqa: ARG002 -- TFDS's own
        # what builds is imported by those who build, not by everybody who imports TFDS
        from lung_nodule_ct.declaration.manifest import FINDINGS, GENERATOR, to_json  # noqa: PLC0415
        from lung_nodule_ct.examples.plan import make_plan  # noqa: PLC0415
        from lung_nodule_ct.examples.report import report_document  # noqa: PLC0415
        from lung_nodule_ct.sources.resolve import open_source  # noqa: PLC0415
        from lung_nodule_ct.system.progress import BuildProgressBar  # noqa: PLC0415
        from lung_nodule_ct.targets.build import build_config  # noqa: PLC0415
        from lung_nodule_ct.targets.engine import publish_names  # noqa: PLC0415

        config, folder = get_config(self.builder_config.name), Path(os.fspath(self.data_path))
        source = self._source if isinstance(self._source, Source) else open_source(self._source, [config])
        plan = make_plan(config, source)
        if not plan.units:
            raise SourceError(f"{config.name} has no example in {source.name}")
        layout = TfdsLayout(self.info.file_format.value, nested=False)
        with BuildProgressBar() as progress, _engine(download_config) as engine:
            built = build_config(plan, layout, folder, engine, progress)
        publish_names(folder, built.files)
        self.found = built.findings
        document = report_document({config.name: built.findings}, generator=GENERATOR, verbatim=False)
        (folder / FINDINGS).write_text(to_json(document), encoding="utf-8")
        self.note_splits(built.files)

    def note_splits(self, files: Sequence[Written]) -> None:
        """Tell TFDS of the shards that a build of this config wrote, in their order."""
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


def _engine(download_config: Any) -> Engine:
    """This machine, or Beam where TFDS was given its options or a runner."""
    options = getattr(download_config, "beam_options", None)
    runner = getattr(download_config, "beam_runner", None)
    if options is None and runner is None:
        from lung_nodule_ct.targets.engine import LocalEngine  # noqa: PLC0415 -- as above

        return LocalEngine()
    from lung_nodule_ct.targets.beam import BeamEngine  # noqa: PLC0415 -- an extra

    return BeamEngine(options or (), runner)


class _Alone:
    """One build of a config at a time in a folder; when it begins, what a killed one left is taken away.

    The lock's file stays: to remove it would let two of three builds run.
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
