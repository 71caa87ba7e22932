"""Examples as Arrow tables. The voxels of a volume are not copied: the table holds the array that was read.

Threads make examples in advance: they inflate while another thread compresses or writes, outside the interpreter lock. The number
of voxel buffers is fixed, one per thread and one for the examples that are being written. This bounds the memory for any number of
volumes.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from lung_nodule_ct.declaration.configs import SOURCE_NAME
from lung_nodule_ct.declaration.findings import FindingCollector
from lung_nodule_ct.declaration.schema import Picture, Voxels
from lung_nodule_ct.examples.family import LeftOut, Reading
from lung_nodule_ct.examples.report import Pixels
from lung_nodule_ct.targets.columns import to_column

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from lung_nodule_ct.declaration.findings import Finding
    from lung_nodule_ct.declaration.schema import Column, Schema
    from lung_nodule_ct.examples.family import Example, Family, Unit
    from lung_nodule_ct.sources.source import ArchivePool
    from lung_nodule_ct.sources.zip_directory import Member
    from lung_nodule_ct.system.memory import BufferPool

PICTURES_PER_BATCH: Final = 100


@dataclass(frozen=True)
class Batch:
    """Some examples.

    Attributes:
        table: Their rows, as one chunk. Voxels are valid until the next batch is taken. It is empty if all were left out.
        findings: Findings of these examples, and of those that were left out.
        pixels: The keys of their pixels.
        read: Members that they were read from, for examples that state it.
        left_out: The main member of each unit of which every example was left out.
        unit: Index of the first unit that they come from.
    """

    table: pa.Table
    findings: tuple[Finding, ...]
    pixels: tuple[Pixels, ...]
    read: tuple[Member, ...]
    left_out: tuple[Member, ...]
    unit: int


def make_batches(
    units: Sequence[Unit],
    family: Family[Any],
    schema: Schema,
    arrow_schema: pa.Schema,
    archives: ArchivePool,
    *,
    new_buffers: Callable[[], BufferPool],
    prefetch: int = 0,
    on_unit: Callable[[Unit], None] = lambda _: None,
) -> Generator[Batch, None, None]:
    """Make the examples of some units: one volume per batch, or a hundred pictures.

    Args:
        units: The units.
        family: Makes their examples.
        schema: The columns. If the source name is among them, metadata of pictures are kept, too: both may identify patients.
        arrow_schema: The result of :func:`~lung_nodule_ct.targets.columns.to_arrow_schema`, with any metadata.
        archives: The open archives.
        new_buffers: Returns memory for voxels; called ``prefetch + 1`` times.
        prefetch: Number of threads that make examples in advance; with 0 each is made when it is requested.
        on_unit: Called after every unit.

    Raises:
        MemberError: A member is damaged.
    """
    size = 1 if schema.has_voxels else PICTURES_PER_BATCH
    keep_metadata = SOURCE_NAME.name in schema.names
    rows: list[Mapping[str, Any]] = []
    report = FindingCollector()
    pixels: list[Pixels] = []
    read: list[Member] = []
    left_out: list[Member] = []
    first: int | None = None

    def batch() -> Batch:
        table = pa.Table.from_batches([_to_record_batch(rows, schema, arrow_schema)])
        nonlocal report, first
        made = Batch(table, report.findings, tuple(pixels), tuple(read), tuple(left_out), first or 0)
        for collected in (rows, pixels, read, left_out):
            collected.clear()
        report, first = FindingCollector(), None
        return made

    with closing(_prefetch(units, family, archives, new_buffers, prefetch, keep_metadata)) as made:
        for number, (unit, examples) in enumerate(made):
            for example in examples:
                first = number if first is None else first
                report.extend(example.findings)
                if isinstance(example, LeftOut):
                    continue
                rows.append(example.row)
                pixels.append(Pixels.of(unit, example))
                read += example.read
                if len(rows) == size:
                    yield batch()
            if examples and all(isinstance(example, LeftOut) for example in examples):
                left_out.append(unit.members[0])
            on_unit(unit)
        if first is not None:
            yield batch()


def _prefetch(
    units: Sequence[Unit],
    family: Family[Any],
    archives: ArchivePool,
    new_buffers: Callable[[], BufferPool],
    prefetch: int,
    keep_metadata: bool,
) -> Generator[tuple[Unit, Sequence[Example | LeftOut]], None, None]:
    """The examples of some units in order. The voxels of one unit are valid until the next unit is taken."""
    if not prefetch:
        reading = Reading(archives, new_buffers(), keep_metadata)
        for unit in units:
            yield unit, family.make(unit, reading)
        return
    remaining = iter(units)
    pending: deque[tuple[Unit, Reading, Future[Sequence[Example | LeftOut]]]] = deque()
    with ThreadPoolExecutor(prefetch) as pool:
        try:
            for unit in islice(remaining, prefetch + 1):
                reading = Reading(archives, new_buffers(), keep_metadata)
                pending.append((unit, reading, pool.submit(family.make, unit, reading)))
            while pending:
                unit, reading, future = pending.popleft()
                yield unit, future.result()
                for following in islice(remaining, 1):
                    pending.append((following, reading, pool.submit(family.make, following, reading)))
        finally:
            for _, _, future in pending:
                future.cancel()


def _to_record_batch(rows: Sequence[Mapping[str, Any]], schema: Schema, arrow_schema: pa.Schema) -> pa.RecordBatch:
    """Rows by column name as Arrow. Values of columns that the schema does not have are left out."""
    columns = [_column(column, rows, arrow_schema.field(column.name).type) for column in schema.columns]
    return pa.RecordBatch.from_arrays(columns, schema=arrow_schema)


def _column(column: Column, rows: Sequence[Mapping[str, Any]], type_: pa.DataType) -> pa.Array:
    values = [row[column.name] for row in rows]
    if isinstance(column.type, Picture):
        values = [{"bytes": value, "path": None} for value in values]
    elif isinstance(column.type, Voxels):
        values = [None if value is None else _cell(value, column.type) for value in values]
    return to_column(values, type_)


def _cell(voxels: Any, type_: Voxels) -> dict[str, Any]:
    stored = np.dtype(type_.dtype).newbyteorder("<")
    if voxels.dtype != stored or voxels.ndim != 3 or not voxels.flags.c_contiguous:
        raise TypeError(f"expected a contiguous 3D array of {stored}, got {voxels.dtype} of shape {voxels.shape}")
    return {"bytes": voxels.reshape(-1).view(np.uint8), "shape": voxels.shape}
