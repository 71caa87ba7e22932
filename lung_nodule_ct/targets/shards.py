"""Shards: which units stand in which file, and one file written whole. A shard is also the piece of work of a process.

How units fall into shards follows from the plan alone, so the number of processes never changes what is written.
"""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from lung_nodule_ct.examples import build_example
from lung_nodule_ct.examples.scratch import Scratch
from lung_nodule_ct.report import Pixels
from lung_nodule_ct.source.opened import Opened
from lung_nodule_ct.spec.configs import get_config
from lung_nodule_ct.spec.schema import Picture, Voxels
from lung_nodule_ct.targets.batches import PICTURES_A_BATCH, to_batch
from lung_nodule_ct.targets.features import built_schema, to_features

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lung_nodule_ct.examples.example import Example
    from lung_nodule_ct.findings import Finding
    from lung_nodule_ct.plan import Plan
    from lung_nodule_ct.plan.units import Unit

SHARD_BYTES = 500_000_000
PARTIAL_SUFFIX = ".partial"
_ZSTD_LEVEL = 1


@dataclass(frozen=True)
class Shard:
    """One file to be.

    Attributes:
        config: The config's name.
        split: The split.
        index: Its place among the split's files.
        count: How many files the split has.
        units: What goes into it.
        keep_source_names: Whether it has the column ``source_name``.
    """

    config: str
    split: str
    index: int
    count: int
    units: tuple[Unit, ...]
    keep_source_names: bool = False

    @property
    def path(self) -> str:
        """Its place in a Hub folder."""
        return f"data/{self.config}/{self.split}-{self.index:05d}-of-{self.count:05d}.parquet"


@dataclass(frozen=True)
class Written:
    """A file that was written.

    Attributes:
        shard: What it was to be.
        rows: Examples in it.
        arrow_bytes: Their size in Arrow, uncompressed.
        file_bytes: Size of the file.
        sha256: Of the file.
        findings: From its examples.
        pixels: Where the pixels of every example stand, and their key.
    """

    shard: Shard
    rows: int
    arrow_bytes: int
    file_bytes: int
    sha256: str
    findings: tuple[Finding, ...]
    pixels: tuple[Pixels, ...]


def plan_shards(plan: Plan, *, keep_source_names: bool, shard_bytes: int = SHARD_BYTES) -> list[Shard]:
    """Deal the units of every split into shards of about ``shard_bytes`` as packed."""
    shards = []
    for split, units in plan.splits.items():
        total = sum(unit.packed_bytes for unit in units)
        count = max(1, min(len(units), round(total / shard_bytes)))
        groups = _deal(units, count, total)
        shards += [
            Shard(plan.config.name, split, index, len(groups), tuple(group), keep_source_names)
            for index, group in enumerate(groups)
        ]
    return shards


def _deal(units: Sequence[Unit], count: int, total: int) -> list[list[Unit]]:
    """Contiguous groups of about equal size, none empty."""
    groups: list[list[Unit]] = [[] for _ in range(count)]
    done = 0
    for unit in units:
        middle = done + unit.packed_bytes / 2
        groups[min(count - 1, int(middle * count / total)) if total else 0].append(unit)
        done += unit.packed_bytes
    return [group for group in groups if group]


def write_shard(shard: Shard, folder: Path, on_unit: Callable[[Unit], None] = lambda _: None) -> Written:
    """Write one shard under ``folder``, under its name with ``.partial`` behind it.

    Args:
        shard: What to write.
        folder: The Hub folder in the making.
        on_unit: Called after every unit.

    Raises:
        MemberError: A member is damaged.
    """
    schema = built_schema(get_config(shard.config), keep_source_names=shard.keep_source_names)
    arrow_schema = to_features(schema).arrow_schema
    heavy = {column.name for column in schema.columns if isinstance(column.kind, (Picture, Voxels))}
    light = [name for name in _leaf_paths(arrow_schema) if name.split(".")[0] not in heavy]
    path = folder / f"{shard.path}{PARTIAL_SUFFIX}"
    path.parent.mkdir(parents=True, exist_ok=True)
    findings: list[Finding] = []
    pixels: list[Pixels] = []
    rows = arrow_bytes = 0
    with ExitStack() as stack:
        writer = stack.enter_context(
            pq.ParquetWriter(
                path,
                arrow_schema,
                compression="zstd",
                compression_level=_ZSTD_LEVEL,
                use_dictionary=light,
                write_statistics=light,
                write_page_index=True,
                write_page_checksum=True,
                data_page_version="2.0",
            )
        )
        size = 1 if schema.has_voxels else PICTURES_A_BATCH
        opened = stack.enter_context(Opened())
        scratch = Scratch()
        for start in range(0, len(shard.units), size):
            taken = []
            for unit in shard.units[start : start + size]:
                example = build_example(unit, opened, scratch)
                findings += example.findings
                pixels.append(pixels_of(unit, example))
                taken.append(example.row)
                on_unit(unit)
            table = pa.Table.from_batches([to_batch(taken, schema, arrow_schema)])
            writer.write_table(table, row_group_size=len(taken))
            rows += len(taken)
            arrow_bytes += table.nbytes
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Written(shard, rows, arrow_bytes, path.stat().st_size, sha256, tuple(findings), tuple(pixels))


def pixels_of(unit: Unit, example: Example) -> Pixels:
    """Where the pixels of an example stand."""
    return Pixels(unit.split, unit.members[0].archive, unit.source_name, example.pixels_key)


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
