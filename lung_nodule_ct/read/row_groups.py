"""The row groups of the shards of a split: which file holds which rows.

All row groups are listed once per split, so that reading a row opens one file and reads one row group, whatever the size of the split.
Of Parquet a few footers are kept; Arrow files stay mapped into memory.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from lung_nodule_ct.declaration.manifest import Format
from lung_nodule_ct.errors import BuildFolderError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_KEPT_FOOTERS: Final = 8


class _ShardReader(Protocol):
    """Reads the row groups of files of one format."""

    def counts(self, path: Path) -> list[int]:
        """The number of rows of each row group of a file."""

    def read(self, path: Path, group: int, names: list[str]) -> pa.Table:
        """Some columns of a row group of a file."""

    def iterate(self, path: Path, names: list[str]) -> Iterator[pa.Table]:
        """Some columns of all row groups of a file, one after the other."""


class _RowGroup(NamedTuple):
    path: Path
    number: int


class RowGroups:
    """The row groups of the shards of a split, in order.

    Args:
        paths: The shards.
        format_: Parquet or Arrow.
        remedy: What to do if a shard is damaged, for messages.
    """

    def __init__(self, paths: Sequence[Path], format_: Format, remedy: str) -> None:
        self._paths, self._format, self._remedy = tuple(paths), format_, remedy
        self._reader: _ShardReader = _ArrowReader() if format_ is Format.ARROW else _ParquetReader()

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy in another process lists the row groups again."""
        return RowGroups, (self._paths, self._format, self._remedy)

    def iterate(self, names: list[str]) -> Iterator[pa.Table]:
        """Iterate over all row groups; one is in memory.

        Raises:
            BuildFolderError: A shard is missing or damaged.
        """
        for path in self._paths:
            tables = self._reader.iterate(path, names)
            while True:
                with self._damage(path):
                    table = next(tables, None)
                if table is None:
                    break
                yield table
                del table  # before the next one is read

    def select(self, names: list[str], rows: Sequence[int]) -> Iterator[tuple[pa.Table, list[int]]]:
        """Iterate over the row groups that hold some rows, which are ascending, with the positions of these rows in each.

        Raises:
            BuildFolderError: A shard is missing or damaged, or the shards have fewer rows.
        """
        groups, starts = self._index
        done = 0
        while done < len(rows):
            number = bisect_right(starts, rows[done]) - 1
            if number == len(groups):
                raise BuildFolderError(f"the shards have {starts[-1]:,} rows", got=rows[done], remedy=self._remedy)
            start, end = starts[number], starts[number + 1]
            stop = bisect_left(rows, end, done)
            with self._damage(groups[number].path):
                table = self._reader.read(*groups[number], names)
            yield table, [row - start for row in rows[done:stop]]
            del table  # before the next one is read
            done = stop

    @cached_property
    def _index(self) -> tuple[list[_RowGroup], list[int]]:
        """All row groups, and the number of the first row of each; the last number is that of all rows."""
        groups: list[_RowGroup] = []
        counts: list[int] = []
        for path in self._paths:
            with self._damage(path):
                in_file = self._reader.counts(path)
            groups += [_RowGroup(path, number) for number in range(len(in_file))]
            counts += in_file
        return groups, list(accumulate(counts, initial=0))

    @contextmanager
    def _damage(self, path: Path) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:  # a damaged footer may name other columns
            raise BuildFolderError(f"{path} cannot be read: {error}", remedy=self._remedy) from error


class _ParquetReader:
    def __init__(self) -> None:
        self._footer = lru_cache(_KEPT_FOOTERS)(pq.read_metadata)

    def counts(self, path: Path) -> list[int]:
        footer = self._footer(path)
        return [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]

    def read(self, path: Path, group: int, names: list[str]) -> pa.Table:
        with pq.ParquetFile(path, metadata=self._footer(path), page_checksum_verification=True) as file:
            return file.read_row_group(group, columns=names).select(names)

    def iterate(self, path: Path, names: list[str]) -> Iterator[pa.Table]:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, columns=names).select(names)


class _ArrowReader:
    def __init__(self) -> None:
        self._batches: dict[Path, list[pa.RecordBatch]] = {}

    def counts(self, path: Path) -> list[int]:
        return [batch.num_rows for batch in self._mapped(path)]

    def read(self, path: Path, group: int, names: list[str]) -> pa.Table:
        return pa.Table.from_batches([self._mapped(path)[group]]).select(names)

    def iterate(self, path: Path, names: list[str]) -> Iterator[pa.Table]:
        with pa.memory_map(str(path)) as mapped, pa.ipc.open_stream(mapped) as stream:
            for batch in stream:
                yield pa.Table.from_batches([batch]).select(names)

    def _mapped(self, path: Path) -> list[pa.RecordBatch]:
        """The batches of a file as views of the mapped file."""
        if path not in self._batches:
            with pa.memory_map(str(path)) as mapped, pa.ipc.open_stream(mapped) as stream:
                self._batches[path] = list(stream)
        return self._batches[path]
