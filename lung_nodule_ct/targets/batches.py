"""Examples made ahead of who writes them: threads inflate while another compresses or writes (all of it outside the GIL).

The number of voxel buffers is fixed, one a thread and one for the example that is being written; that bounds the memory,
whatever the number of volumes.

Examples as Arrow tables. A volume's voxels are not copied: the table holds the array that was read.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from lung_nodule_ct.declaration.configs import SOURCE_NAME
from lung_nodule_ct.declaration.schema import Picture, Schema, Voxels
from lung_nodule_ct.examples.plan import build_example
from lung_nodule_ct.examples.report import Pixels
from lung_nodule_ct.targets.arrow_columns import to_column

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from lung_nodule_ct.declaration.findings import Finding
    from lung_nodule_ct.declaration.schema import Column
    from lung_nodule_ct.examples.family import Example, Unit
    from lung_nodule_ct.sources.source import ArchivePool
    from lung_nodule_ct.system.memory import BufferPool


def prefetch_examples(
    units: Sequence[Unit],
    archives: ArchivePool,
    buffers: Callable[[], BufferPool],
    prefetch: int,
    *,
    keep_metadata: bool,
) -> Generator[tuple[Unit, Example], None, None]:
    """The examples of some units in their order. The voxels of one are valid until the next is taken.

    Args:
        units: What to make.
        archives: The open archives.
        buffers: Gives one place for voxels after the other, as many as there are examples at once.
        prefetch: Threads that make examples ahead; 0: each is made when it is asked for.
        keep_metadata: Whether metadata of pictures stay although they spell a calendar date.

    Raises:
        MemberError: A member is damaged.
    """
    make = partial(build_example, keep_metadata=keep_metadata)
    if not prefetch:
        own = buffers()
        for unit in units:
            yield unit, make(unit, archives, own)
        return
    coming = iter(units)
    pending: deque[tuple[Unit, BufferPool, Future[Example]]] = deque()
    with ThreadPoolExecutor(prefetch) as pool:
        try:
            for unit in islice(coming, prefetch + 1):
                own = buffers()
                pending.append((unit, own, pool.submit(make, unit, archives, own)))
            while pending:
                unit, own, future = pending.popleft()
                yield unit, future.result()
                for following in islice(coming, 1):
                    pending.append((following, own, pool.submit(make, following, archives, own)))
        finally:
            for _, _, future in pending:
                future.cancel()


PICTURES_A_BATCH = 100


@dataclass(frozen=True)
class Batch:
    """Some examples.

    Attributes:
        table: Their rows, as one chunk. Voxels are valid until the next batch is taken.
        findings: What was found in making them.
        pixels: Where their pixels stand.
    """

    table: pa.Table
    findings: tuple[Finding, ...]
    pixels: tuple[Pixels, ...]


def batches_of(
    units: Sequence[Unit],
    schema: Schema,
    arrow_schema: pa.Schema,
    archives: ArchivePool,
    *,
    buffers: Callable[[], BufferPool],
    prefetch: int = 0,
    on_unit: Callable[[Unit], None] = lambda _: None,
) -> Generator[Batch, None, None]:
    """The examples of some units: a volume a batch, or a hundred pictures.

    Args:
        units: What to make.
        schema: The columns. Where the source's names are among them, which spell dates, metadata of pictures that do stay, too.
        arrow_schema: What :func:`~lung_nodule_ct.targets.arrow_columns.to_arrow_schema` makes of them, with any metadata.
        archives: The open archives.
        buffers: Gives one place for voxels after the other, as many as there are examples at once.
        prefetch: Threads that make examples ahead.
        on_unit: Called after every unit.

    Raises:
        MemberError: A member is damaged.
    """
    size = 1 if schema.has_voxels else PICTURES_A_BATCH
    examples_of = prefetch_examples(
        units,
        archives,
        buffers,
        prefetch,
        keep_metadata=any(column.name == SOURCE_NAME.name for column in schema.columns),
    )
    with closing(examples_of) as examples:
        rows: list[dict[str, Any]] = []
        findings: list[Finding] = []
        pixels: list[Pixels] = []
        for number, (unit, example) in enumerate(examples, 1):
            rows.append(example.row)
            findings += example.findings
            pixels.append(Pixels.of(unit, example))
            on_unit(unit)
            if len(rows) == size or number == len(units):
                table = pa.Table.from_batches([_to_record_batch(rows, schema, arrow_schema)])
                yield Batch(table, tuple(findings), tuple(pixels))
                rows, findings, pixels = [], [], []


def _to_record_batch(rows: Sequence[dict[str, Any]], schema: Schema, arrow_schema: pa.Schema) -> pa.RecordBatch:
    """Some rows by column name; columns that the schema does not have are left out."""
    columns = [_column(column, rows, arrow_schema.field(column.name).type) for column in schema.columns]
    return pa.RecordBatch.from_arrays(columns, schema=arrow_schema)


def _column(column: Column, rows: Sequence[dict[str, Any]], kind: pa.DataType) -> pa.Array:
    values = [row[column.name] for row in rows]
    if isinstance(column.type, Picture):
        values = [{"bytes": value, "path": None} for value in values]
    elif isinstance(column.type, Voxels):
        values = [None if value is None else _cell(value, column.type) for value in values]
    return to_column(values, kind)


def _cell(voxels: Any, kind: Voxels) -> dict[str, Any]:
    stored = np.dtype(kind.dtype).newbyteorder("<")
    if voxels.dtype != stored or voxels.ndim != 3 or not voxels.flags.c_contiguous:
        raise TypeError(f"expected a contiguous 3D array of {stored}, got {voxels.dtype} of shape {voxels.shape}")
    return {"bytes": voxels.reshape(-1).view(np.uint8), "shape": voxels.shape}
