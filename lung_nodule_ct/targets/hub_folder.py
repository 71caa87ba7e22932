"""The Hub-ready folder: Parquet shards, and a card with the YAML that the Hub reads."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from lung_nodule_ct.beside import record_beside
from lung_nodule_ct.built import read_build
from lung_nodule_ct.spec.schema import Picture, Voxels
from lung_nodule_ct.targets.card import CARD, card_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lung_nodule_ct.spec.schema import Schema
    from lung_nodule_ct.targets.build import Build
    from lung_nodule_ct.targets.shards import Shard

_ZSTD_LEVEL = 1


@dataclass(frozen=True)
class HubFolder:
    """``data/<config>/<split>-00000-of-0000N.parquet`` and ``README.md``."""

    name: str = "parquet"
    pinned: bool = True

    def path_of(self, shard: Shard) -> str:
        """Where a shard stands."""
        return f"data/{shard.config}/{shard.split}-{shard.place}.parquet"

    def builders(self, workers: int) -> int:
        """To compress takes as long as to inflate, so who writes is one of the workers."""
        return workers - 1

    @contextmanager
    def open_writer(self, path: Path, schema: Schema, arrow_schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
        """A Parquet file: zstd, a page index, page checksums, and a row group a table."""
        heavy = {column.name for column in schema.columns if isinstance(column.kind, (Picture, Voxels))}
        light = [name for name in _leaf_paths(arrow_schema) if name.split(".")[0] not in heavy]
        with pq.ParquetWriter(
            path,
            arrow_schema,
            compression="zstd",
            compression_level=_ZSTD_LEVEL,
            use_dictionary=light,
            write_statistics=light,
            write_page_index=True,
            write_page_checksum=True,
            data_page_version="2.0",  # compressed straight from the values: one copy of a volume less in memory
        ) as writer:
            yield lambda table: writer.write_table(table, row_group_size=table.num_rows)

    def finish(self, folder: Path, build: Build) -> None:  # noqa: ARG002 -- the folder says it all
        """Write the card, without pictures or preview; ``lung-nodule-ct card`` adds them."""
        (folder / CARD).write_text(card_text(read_build(folder)), encoding="utf-8")
        record_beside(folder, CARD, by="card")


def _leaf_paths(schema: pa.Schema) -> list[str]:
    """The dotted names of the Parquet columns that an Arrow schema has."""

    def leaves(prefix: str, kind: pa.DataType) -> Iterator[str]:
        if pa.types.is_struct(kind):
            for field in kind:
                yield from leaves(f"{prefix}.{field.name}", field.type)
        elif pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
            yield from leaves(f"{prefix}.list.element", kind.value_type)
        else:
            yield prefix

    return [path for field in schema for path in leaves(field.name, field.type)]
