"""The ``data_dir`` of TFDS: TFRecord or ArrayRecord shards, and the JSON that TFDS reads. Written without TensorFlow."""

from __future__ import annotations

import struct
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import tensorflow_datasets as tfds
from tensorflow_datasets.core.dataset_builder import _save_default_config_name  # there is no public function

from lung_nodule_ct.declaration.configs import DEFAULT_CONFIG
from lung_nodule_ct.declaration.manifest import DATASET_VERSION, Format
from lung_nodule_ct.read.voxel_columns import table_rows
from lung_nodule_ct.system.disk_writes import DirectFile, WriteBackThrottle
from lung_nodule_ct.system.imports import optional_imports
from lung_nodule_ct.targets.tfds.features import ExamplePieces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa

    from lung_nodule_ct.declaration.schema import Schema
    from lung_nodule_ct.targets.shards import Build, Shard
    from lung_nodule_ct.targets.tfds.features import Piece


DATASET: Final = "lung_nodule_ct"
RecordFormat = Literal["tfrecord", "array_record"]

_ARRAY_RECORD_OPTIONS = "group_size:1,zstd:1,max_parallelism:1"
"""One record per chunk, as TFDS uses it for random access. zstd 1 writes 4 times as fast as TFDS's default (brotli), and every reader
supports it. One chunk in flight bounds the memory."""


@dataclass(frozen=True)
class TfdsLayout:
    """``lung_nodule_ct/<config>/<version>/lung_nodule_ct-<split>.<format>-00000-of-0000N``, and the JSON of TFDS.

    Attributes:
        records: The record format.
        nested: Whether shards are stored in folders by config, as in a ``data_dir``.
    """

    records: RecordFormat
    nested: bool = True
    shard_bytes: int = 256_000_000  # about twice as much in the file; TFDS recommends 100 MB to 1 GB

    @property
    def format(self) -> Format:
        """The file format."""
        return Format(self.records)

    @property
    def manifest_extra(self) -> dict[str, str]:
        """No further entries."""
        return {}

    def path_of(self, shard: Shard) -> str:
        """The path of a shard."""
        folder = f"{DATASET}/{shard.config.name}/{DATASET_VERSION}/" if self.nested else ""
        return f"{folder}{DATASET}-{shard.split}.{self.records}-{shard.number}"

    @property
    def cpu_bound(self) -> bool:
        """ArrayRecord compresses; TFRecord does not."""
        return self.records == "array_record"

    @property
    def max_threads(self) -> int:
        """ArrayRecord holds the interpreter lock while it compresses: two threads take 1.4 times as long as two processes."""
        return 1 if self.cpu_bound else 4

    @contextmanager
    def open_writer(
        self, path: Path, schema: Schema, hashed: Callable[[Any], object]
    ) -> Iterator[Callable[[pa.Table], None]]:
        """Open a file of records, one record per example."""
        pieces = ExamplePieces(schema)
        with open_records(path, self.records, hashed) as write:

            def write_table(table: pa.Table) -> None:
                for row in table_rows(table, schema.columns):
                    write(pieces.of(row))

            yield write_table

    def finish(self, folder: Path, build: Build) -> None:
        """Write what TFDS reads of the configs."""
        for name, config in build.configs.items():
            builder = tfds.builder(f"{DATASET}/{name}", data_dir=folder, file_format=self.records)
            builder.set_splits(config.files)
            builder.info.write_to_directory(builder.data_path)
        _save_default_config_name(folder / DATASET, default_config_name=DEFAULT_CONFIG.name)


@contextmanager
def open_records(
    path: Path, format_: RecordFormat, hashed: Callable[[Any], object]
) -> Iterator[Callable[[Sequence[Piece]], None]]:
    """Open a file that takes records, each as the pieces that it consists of.

    Args:
        path: The file, which is replaced.
        format_: ``tfrecord`` or ``array_record``.
        hashed: Is called with all bytes of the file in their order.

    Raises:
        OSError: The file cannot be written.
        MissingExtraError: The extra ``tfds`` is not installed.
    """
    with (_tfrecord if format_ == "tfrecord" else _array_record)(path, hashed) as write:
        yield write


@contextmanager
def _tfrecord(path: Path, hashed: Callable[[Any], object]) -> Iterator[Callable[[Sequence[Piece]], None]]:
    """Length, its checksum, the data, its checksum (tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details)."""
    with optional_imports("tfds", "writing TFRecord"):
        import google_crc32c  # noqa: PLC0415

    with DirectFile(path, hashed) as file:

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
def _array_record(path: Path, hashed: Callable[[Any], object]) -> Iterator[Callable[[Sequence[Piece]], None]]:
    with optional_imports("tfds", "writing ArrayRecord"):
        from array_record.python.array_record_module import ArrayRecordWriter  # noqa: PLC0415

    with WriteBackThrottle(lambda _, piece: hashed(piece)) as throttle:
        writer = ArrayRecordWriter(str(path), _ARRAY_RECORD_OPTIONS)

        def write(pieces: Sequence[Piece]) -> None:
            writer.write(b"".join(pieces))
            throttle.more(path)

        try:
            yield write
        finally:
            try:
                writer.close()
            except RuntimeError as error:
                raise OSError(str(error)) from error
        throttle.more(path)  # also if there is no record
