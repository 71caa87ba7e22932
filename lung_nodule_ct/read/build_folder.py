"""A finished build, opened to be read: what previews, audits, cards, exports and training have in common.

It needs no loading step and no cache: rows come straight from the Parquet or Arrow shards, with voxels as arrays that view
the decoded buffers.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from lung_nodule_ct.declaration.configs import CONFIGS, SOURCE_NAME
from lung_nodule_ct.declaration.manifest import FINDINGS, FORMAT_VERSION, MANIFEST
from lung_nodule_ct.declaration.schema import Picture, Voxels
from lung_nodule_ct.errors import BuildFolderError
from lung_nodule_ct.read.voxel_columns import table_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lung_nodule_ct.declaration.schema import Column

_REBUILD = "build it again: lung-nodule-ct build CONFIG... --out {folder}"


@dataclass(frozen=True)
class BuildFolder:
    """A folder that ``lung-nodule-ct build`` wrote as Parquet or Arrow. Made by :func:`open_build`.

    Attributes:
        folder: Where it is.
        manifest: Its ``build.json``.
    """

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def configs(self) -> dict[str, dict[str, int]]:
        """The number of rows by config and split, in the order of the build."""
        return {name: dict(entry["rows"]) for name, entry in self.manifest["configs"].items()}

    @property
    def form(self) -> str:
        """``parquet`` or ``arrow``."""
        return str(self.manifest["format"])

    @property
    def report(self) -> dict[str, Any]:
        """Its ``findings.json``.

        Raises:
            BuildFolderError: It is missing or no JSON.
        """
        return _read_json(self.folder / FINDINGS)

    def splits(self, config: str) -> tuple[str, ...]:
        """The splits of a config.

        Raises:
            BuildFolderError: The build does not hold that config.
        """
        if config not in self.configs:
            raise BuildFolderError(
                f"{self.folder} has no {config}",
                expected=f"one of {', '.join(self.configs) or 'no config at all'}",
                remedy=_REBUILD.format(folder=self.folder).replace("CONFIG...", config),
            )
        return tuple(self.configs[config])

    def count(self, config: str, split: str) -> int:
        """The number of rows of a split.

        Raises:
            BuildFolderError: The build does not hold that config or split.
        """
        if split not in self.splits(config):
            raise BuildFolderError(f"{config} has no split {split!r}", expected=", ".join(self.splits(config)))
        return self.configs[config][split]

    def columns(self, config: str) -> tuple[Column, ...]:
        """The columns of a config as they were declared."""
        self.splits(config)
        own = CONFIGS[config].schema.columns
        return (*own, SOURCE_NAME) if self.manifest["keep_source_names"] else own

    def metadata_columns(self, config: str) -> tuple[str, ...]:
        """The names of the columns that hold neither voxels nor pictures."""
        return tuple(column.name for column in self.columns(config) if not isinstance(column.type, (Picture, Voxels)))

    def rows(
        self,
        config: str,
        split: str,
        columns: Sequence[str] | None = None,
        indices: Sequence[int] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Rows, one at a time; at most a row group is in memory.

        Args:
            config: The config.
            split: One of its splits.
            columns: What to read, all columns by default. Only these are read from the disk.
            indices: Which rows, ascending; all by default. Row groups without any are skipped.

        Yields:
            Values as declared: voxels as a read-only array (z, y, x) that keeps its row group in memory, pictures as their
            encoded ``bytes``, categories as their index, null as ``None``.

        Raises:
            BuildFolderError: There is no such config, split, column or row, or a shard is missing or damaged.
        """
        known = {column.name: column for column in self.columns(config)}
        names = list(known if columns is None else columns)
        if unknown := [name for name in names if name not in known]:
            raise BuildFolderError(f"{config} has no column {unknown[0]!r}", expected=f"one of {', '.join(known)}")
        total = self.count(config, split)
        if indices is not None and (
            list(indices) != sorted(set(indices)) or (indices and not 0 <= indices[0] <= indices[-1] < total)
        ):
            raise BuildFolderError(f"{config}, {split}: rows must be ascending and among {total}", got=list(indices))
        for start, table in self._tables(config, split, names, indices):
            end = start + table.num_rows
            places = None if indices is None else [row - start for row in indices if start <= row < end]
            yield from table_rows(table, [known[name] for name in names], places)
            del table  # before the next one is read

    def _tables(
        self, config: str, split: str, names: list[str], indices: Sequence[int] | None
    ) -> Iterator[tuple[int, pa.Table]]:
        """The row groups of a split of which something is wanted, each with the number of its first row."""
        start = 0
        for entry in self.manifest["configs"][config]["files"]:
            if entry["split"] != split:
                continue
            path = self.folder / entry["path"]
            try:
                if self.form == "arrow":
                    with pa.memory_map(str(path)) as mapped, pa.ipc.open_stream(mapped) as stream:
                        for batch in stream:
                            if _wants(indices, start, batch.num_rows):
                                yield start, pa.Table.from_batches([batch]).select(names)
                            start += batch.num_rows
                    continue
                with pq.ParquetFile(path, page_checksum_verification=True) as file:
                    for group in range(file.num_row_groups):
                        count = file.metadata.row_group(group).num_rows
                        if _wants(indices, start, count):
                            yield start, file.read_row_group(group, columns=names).select(names)
                        start += count
            except (OSError, pa.ArrowException) as error:
                raise BuildFolderError(
                    f"{entry['path']} cannot be read: {error}", remedy=_REBUILD.format(folder=self.folder)
                ) from error


def _wants(indices: Sequence[int] | None, start: int, count: int) -> bool:
    return indices is None or any(start <= row < start + count for row in indices)


def open_build(folder: str | os.PathLike[str]) -> BuildFolder:
    """Open a folder that ``lung-nodule-ct build`` wrote as Parquet or Arrow.

    Args:
        folder: The ``--out`` of the build.

    Raises:
        BuildFolderError: It is missing, empty, of another format or version, or not whole.
    """
    build = read_build(folder)
    for entry in build.manifest["configs"].values():
        for file in entry["files"]:
            shard = build.folder / file["path"]
            size = shard.stat().st_size if shard.is_file() else None
            if size != file["bytes"]:
                raise BuildFolderError(
                    f"{shard} is {'missing' if size is None else 'not as it was built'}",
                    expected=f"{file['bytes']:,} bytes",
                    got="nothing" if size is None else f"{size:,} bytes",
                    remedy=_REBUILD.format(folder=build.folder),
                )
    return build


def read_build(folder: str | os.PathLike[str]) -> BuildFolder:
    """What :func:`open_build` gives, from the manifest alone: the shards need not be there yet.

    Raises:
        BuildFolderError: As :func:`open_build`, but for shards.
    """
    path = Path(folder)
    remedy = _REBUILD.format(folder=path)
    if not path.is_dir():
        raise BuildFolderError(f"there is no folder {path}", remedy=remedy)
    if not (path / MANIFEST).is_file():
        state = "is empty" if not any(path.iterdir()) else f"has no {MANIFEST}: it is no build, or a half-built one"
        raise BuildFolderError(f"{path} {state}", remedy=remedy)
    manifest = _read_json(path / MANIFEST)
    version = manifest.get("format_version")
    if version != FORMAT_VERSION or manifest.get("format") not in ("parquet", "arrow"):
        raise BuildFolderError(
            f"{path} is a build that this version cannot read",
            expected=f"version {FORMAT_VERSION}, parquet or arrow",
            got=f"version {version}, {manifest.get('format')}",
            remedy=remedy,
        )
    for name in manifest["configs"]:
        if name not in CONFIGS:
            raise BuildFolderError(f"{path}: there is no config {name!r}", remedy=remedy)
    return BuildFolder(path, manifest)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BuildFolderError(f"{path} cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise BuildFolderError(f"{path} is not what a build writes", expected="a JSON object")
    return document
