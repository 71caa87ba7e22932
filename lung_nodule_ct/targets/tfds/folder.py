"""The TFDS folder: TFRecord or ArrayRecord shards, and beside them what TFDS reads of a dataset. A ``data_dir`` of TFDS."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core.dataset_builder import _save_default_config_name  # there is no public way

from lung_nodule_ct.declaration.configs import DEFAULT_CONFIG
from lung_nodule_ct.read.voxel_columns import rows_of
from lung_nodule_ct.targets.tfds.example import ExamplePieces
from lung_nodule_ct.targets.tfds.records import RecordForm, open_records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pyarrow as pa

    from lung_nodule_ct.declaration.schema import Schema
    from lung_nodule_ct.targets.build import Build
    from lung_nodule_ct.targets.shards import Shard


DATASET = "lung_nodule_ct"
RELEASE = "1.0.0"


@dataclass(frozen=True)
class TfdsFolder:
    """``lung_nodule_ct/<config>/<version>/lung_nodule_ct-<split>.<form>-00000-of-0000N`` and TFDS's own JSON.

    Attributes:
        name: ``tfrecord`` or ``array_record``.
        nested: Whether the shards stand in the folders by config that a ``data_dir`` has.
    """

    name: RecordForm
    nested: bool = True
    shard_bytes: int = 256_000_000  # about twice as much in the file: TFDS advises 100 MB to 1 GB
    pinned: bool = False

    @property
    def noted(self) -> dict[str, str]:
        """Nothing."""
        return {}

    def path_of(self, shard: Shard) -> str:
        """Where a shard stands."""
        folder = f"{DATASET}/{shard.config}/{RELEASE}/" if self.nested else ""
        return f"{folder}{DATASET}-{shard.split}.{self.name}-{shard.place}"

    @property
    def compresses(self) -> bool:
        """A TFRecord is only written."""
        return self.name == "array_record"

    @contextmanager
    def open_writer(
        self,
        path: Path,
        schema: Schema,
        hashed: Callable[[Any], object] | None = None,  # noqa: ARG002 -- nothing is pinned
    ) -> Iterator[Callable[[pa.Table], None]]:
        """A file of records, an example each."""
        pieces = ExamplePieces(schema)
        with open_records(path, self.name) as write:

            def write_table(table: pa.Table) -> None:
                for row in rows_of(table, schema.columns):
                    write(pieces.of(row))

            yield write_table

    def finish(self, folder: Path, build: Build) -> None:
        """Write what TFDS reads of the configs."""
        for name, config in build.configs.items():
            builder = tfds.builder(f"{DATASET}/{name}", data_dir=folder, file_format=self.name)
            builder.note_splits(config.files)
            builder.info.write_to_directory(builder.data_path)
        _save_default_config_name(folder / DATASET, default_config_name=DEFAULT_CONFIG.name)
