"""Parquet shards for the Hub and for ``load_dataset``."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from lung_nodule_ct.declaration.manifest import Format, VolumeCodec
from lung_nodule_ct.declaration.schema import Picture, Voxels
from lung_nodule_ct.formats.picture_parts import JPEG_START, PNG_SIGNATURE
from lung_nodule_ct.system.disk_writes import DirectFile
from lung_nodule_ct.targets.columns import to_hub_schema, with_b2nd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Set
    from pathlib import Path

    from lung_nodule_ct.declaration.schema import Schema
    from lung_nodule_ct.targets.shards import Build, Shard

_ZSTD_LEVEL = 1


@dataclass(frozen=True)
class ParquetLayout:
    """Parquet for the Hub: ``data/<config>/<split>-00000-of-0000N.parquet``.

    Attributes:
        volume_codec: How voxels are stored.
    """

    volume_codec: VolumeCodec = VolumeCodec.RAW
    format: Format = Format.PARQUET
    shard_bytes: int = 500_000_000
    cpu_bound: bool = True
    max_threads: int = 2
    """One inflates while the other compresses: 32 scans take as long as with two processes, and 0.7 GB instead of 1.0."""

    @property
    def manifest_extra(self) -> dict[str, str]:
        """How to read a volume."""
        return {"volume_codec": str(self.volume_codec)}

    def path_of(self, shard: Shard) -> str:
        """The path of a shard."""
        return f"data/{shard.config.name}/{shard.split}-{shard.number}.parquet"

    @contextmanager
    def open_writer(
        self, path: Path, schema: Schema, hashed: Callable[[Any], object]
    ) -> Iterator[Callable[[pa.Table], None]]:
        """Open a Parquet file: zstd, a page index, page checksums, and one row group per table.

        Pictures are stored as they are if the first one is a JPEG or PNG, which zstd makes no smaller.
        """
        voxels = [column.name for column in schema.columns if isinstance(column.type, Voxels)]
        packed = {f"{name}.bytes" for name in voxels} if self.volume_codec is VolumeCodec.B2ND else set()
        pictures = [column.name for column in schema.columns if isinstance(column.type, Picture)]
        arrow_schema = to_hub_schema(schema)
        writers: list[pq.ParquetWriter] = []

        def write(table: pa.Table) -> None:
            if not writers:
                as_they_are = packed | {f"{name}.bytes" for name in pictures if _has_coded_pictures(table.column(name))}
                writers.append(stack.enter_context(_open_writer(file, schema, arrow_schema, as_they_are)))
            writers[0].write_table(with_b2nd(table, voxels) if packed else table, row_group_size=table.num_rows)

        with DirectFile(path, hashed) as file, ExitStack() as stack:
            yield write
            if not writers:
                stack.enter_context(_open_writer(file, schema, arrow_schema, packed))

    def finish(self, folder: Path, build: Build) -> None:
        """Parquet needs no further files."""


def _open_writer(file: DirectFile, schema: Schema, arrow_schema: pa.Schema, as_they_are: Set[str]) -> pq.ParquetWriter:
    """Open a writer that compresses all columns but some."""
    large = {column.name for column in schema.columns if isinstance(column.type, (Picture, Voxels))}
    paths = _leaf_paths(arrow_schema)
    small = [name for name in paths if name.split(".")[0] not in large]
    return pq.ParquetWriter(
        file,
        arrow_schema,
        compression={name: "none" if name in as_they_are else "zstd" for name in paths},
        compression_level={name: _ZSTD_LEVEL for name in paths if name not in as_they_are},
        use_dictionary=small,
        write_statistics=small,
        write_page_index=True,
        write_page_checksum=True,
        data_page_version="2.0",  # compressed directly from the values, which saves one copy of a volume in memory
    )


def _has_coded_pictures(column: pa.ChunkedArray) -> bool:
    first = column.chunk(0).field("bytes")[0].as_buffer()
    return first is not None and bytes(first[:8]).startswith((JPEG_START, PNG_SIGNATURE))


def _leaf_paths(schema: pa.Schema) -> list[str]:
    """The dotted names of the Parquet columns of an Arrow schema."""

    def leaves(prefix: str, kind: pa.DataType) -> Iterator[str]:
        if pa.types.is_struct(kind):
            for field in kind:
                yield from leaves(f"{prefix}.{field.name}", field.type)
        elif pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
            yield from leaves(f"{prefix}.list.element", kind.value_type)
        else:
            yield prefix

    return [path for field in schema for path in leaves(field.name, field.type)]
