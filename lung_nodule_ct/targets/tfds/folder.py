"""Files of records, TFRecord and ArrayRecord, written from pieces. Neither needs TensorFlow.

The TFDS folder: TFRecord or ArrayRecord shards, and beside them what TFDS reads of a dataset. A ``data_dir`` of TFDS.
"""

from __future__ import annotations

import struct
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import tensorflow_datasets as tfds
from tensorflow_datasets.core.dataset_builder import _save_default_config_name  # there is no public way

from lung_nodule_ct.declaration.configs import DEFAULT_CONFIG
from lung_nodule_ct.read.voxel_columns import table_rows
from lung_nodule_ct.system.disk_writes import DirectFile, WriteBackThrottle
from lung_nodule_ct.system.imports import needing
from lung_nodule_ct.targets.tfds.features import ExamplePieces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa

    from lung_nodule_ct.declaration.schema import Schema
    from lung_nodule_ct.targets.build import Build
    from lung_nodule_ct.targets.engine import Shard
    from lung_nodule_ct.targets.tfds.features import Piece


RecordForm = Literal["tfrecord", "array_record"]

_ARRAY_RECORD_OPTIONS = "group_size:1,zstd:1,max_parallelism:1"
"""A record a chunk, as TFDS has it for random access; zstd 1 writes 4 times as fast as TFDS's default (brotli) and every reader
reads it; one chunk in flight bounds the memory."""


@contextmanager
def open_records(path: Path, form: RecordForm) -> Iterator[Callable[[Sequence[Piece]], None]]:
    """A file that takes records, each as the pieces it consists of.

    Args:
        path: The file, which is replaced.
        form: ``tfrecord`` or ``array_record``.

    Raises:
        OSError: It cannot be written.
        MissingExtraError: The extra ``tfds`` is not installed.
    """
    with (_tfrecord if form == "tfrecord" else _array_record)(path) as write:
        yield write


@contextmanager
def _tfrecord(path: Path) -> Iterator[Callable[[Sequence[Piece]], None]]:
    """Length, its checksum, the data, its checksum (tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details)."""
    with needing("tfds", "writing TFRecord"):
        import google_crc32c  # noqa: PLC0415

    with DirectFile(path) as file:

        def write(pieces: Sequence[Piece]) -> None:
            length = struct.pack("<Q", sum(len(piece) for piece in pieces))
            file.write(length + _masked(google_crc32c.value(length)))
            crc = 0
            for piece in pieces:
                crc = google_crc32c.extend(crc, piece)
                file.write(piece)
            file.write(_masked(crc))

        yield write


def _masked(crc: int) -> bytes:
    """As TFRecord stores a CRC-32C: rotated by 15 bits, plus a constant."""
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


@contextmanager
def _array_record(path: Path) -> Iterator[Callable[[Sequence[Piece]], None]]:
    with needing("tfds", "writing ArrayRecord"):
        from array_record.python.array_record_module import ArrayRecordWriter  # noqa: PLC0415

    with WriteBackThrottle() as settling:
        writer = ArrayRecordWriter(str(path), _ARRAY_RECORD_OPTIONS)

        def write(pieces: Sequence[Piece]) -> None:
            writer.write(b"".join(pieces))
            settling.more(path)

        try:
            yield write
        finally:
            try:
                writer.close()
            except RuntimeError as error:
                raise OSError(str(error)) from error


DATASET = "lung_nodule_ct"
RELEASE = "1.0.0"


@dataclass(frozen=True)
class TfdsLayout:
    """``lung_nodule_ct/<config>/<version>/lung_nodule_ct-<split>.<form>-00000-of-0000N`` and TFDS's own JSON.

    Attributes:
        name: ``tfrecord`` or ``array_record``.
        nested: Whether the shards stand in the folders by config that a ``data_dir`` has.
    """

    name: RecordForm
    nested: bool = True
    shard_bytes: int = 256_000_000  # about twice as much in the file: TFDS advises 100 MB to 1 GB
    hash_shards: bool = False

    @property
    def manifest_extra(self) -> dict[str, str]:
        """Nothing."""
        return {}

    def path_of(self, shard: Shard) -> str:
        """Where a shard stands."""
        folder = f"{DATASET}/{shard.config}/{RELEASE}/" if self.nested else ""
        return f"{folder}{DATASET}-{shard.split}.{self.name}-{shard.place}"

    @property
    def cpu_bound(self) -> bool:
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
                for row in table_rows(table, schema.columns):
                    write(pieces.of(row))

            yield write_table

    def finish(self, folder: Path, build: Build) -> None:
        """Write what TFDS reads of the configs."""
        for name, config in build.configs.items():
            builder = tfds.builder(f"{DATASET}/{name}", data_dir=folder, file_format=self.name)
            builder.note_splits(config.files)
            builder.info.write_to_directory(builder.data_path)
        _save_default_config_name(folder / DATASET, default_config_name=DEFAULT_CONFIG.name)
