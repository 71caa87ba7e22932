"""The rows of a build: iteration over all rows, and random access to the rows of a split."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from lung_nodule_ct.declaration.labels import SPLIT_OF_FOLD, SplitBy
from lung_nodule_ct.declaration.manifest import Format, shard_files
from lung_nodule_ct.declaration.schema import Schema
from lung_nodule_ct.errors import BuildFolderError, TrainingError
from lung_nodule_ct.geometry.frame import Frame
from lung_nodule_ct.read.verification import require_unchanged
from lung_nodule_ct.read.voxel_columns import VoxelColumn
from lung_nodule_ct.system.files import cache_folder, require_free_space
from lung_nodule_ct.system.progress import BuildProgress, notice
from lung_nodule_ct.system.staging import staged_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from lung_nodule_ct.read.build_folder import BuildFolder


@dataclass(frozen=True)
class IndexedRow:
    """A row and its position in a build.

    Attributes:
        config: Its config.
        split: Its split.
        number: Its position in the split, from 0.
        row: Its values as :meth:`.BuildFolder.rows` yields them; emptied when the next row is taken.
    """

    config: str
    split: str
    number: int
    row: dict[str, Any]

    @property
    def frame(self) -> Frame:
        """The frame of a scan.

        Raises:
            BuildFolderError: The row has no valid origin, spacing and direction.
        """
        try:
            frame = Frame.from_row(self.row)
        except ValueError as error:
            raise BuildFolderError(f"{self} has no frame: {error}") from error
        if frame is None:
            raise BuildFolderError(f"{self} has no frame", expected="columns origin, spacing and direction")
        return frame

    def __str__(self) -> str:
        return f"{self.config}, {self.split}, row {self.number:,}"


def iterate_rows(
    build: BuildFolder, configs: Sequence[str], progress: BuildProgress | None = None, *, patient: str | None = None
) -> Iterator[IndexedRow]:
    """Iterate over every row of some configs, in the order of the build; at most one row group is in memory.

    Args:
        build: The build.
        configs: Names of configs that it contains.
        progress: Receives the progress, in bytes of the shards.
        patient: Only the rows whose ``patient_id`` this is; none of a config without this column.

    Raises:
        BuildFolderError: The build does not contain a config, or a shard is damaged.
    """
    progress = progress or BuildProgress()
    for config in configs:
        rows = {split: build.configs[config][split] for split in build.splits(config)}
        size = {split: sum(file["bytes"] for file in build.files(config, split)) for split in rows}
        progress.begin(config, sum(size.values()), sum(rows.values()))
        for split, count in rows.items():
            numbers = range(count) if patient is None else _rows_of(build, config, split, patient)
            found = build.rows(config, split, indices=None if patient is None else numbers)
            for number, row in zip(numbers, found, strict=True):
                yield IndexedRow(config, split, number, row)
                row.clear()  # so that nothing keeps its volumes in memory while the next ones are read
                progress.advance(config, size[split] // count)
        progress.end(config)


def _rows_of(build: BuildFolder, config: str, split: str, patient: str) -> list[int]:
    """The numbers of the rows of a patient."""
    if "patient_id" not in build.metadata_columns(config):
        return []
    values = (row["patient_id"] for row in build.rows(config, split, ("patient_id",)))
    return [number for number, value in enumerate(values) if value == patient]


@dataclass(frozen=True)
class Rows:
    """Some rows of a config, with random access to their voxels. Made by :func:`split_rows`.

    The Arrow files are mapped into memory, so that a patch of a volume costs only the memory pages that it touches. A
    copy in another process is cheap: it holds paths and numbers, and maps the files again.

    Attributes:
        schema: The columns of the config.
        paths: Arrow stream files, which hold all rows of the config.
        indices: Index of each row in these files, counted through all of them.
        metadata: Each row's values of the columns that hold neither voxels nor pictures.
    """

    schema: Schema
    paths: tuple[Path, ...]
    indices: tuple[int, ...]
    metadata: tuple[dict[str, Any], ...]

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def patients(self) -> tuple[str | None, ...]:
        """``patient_id`` of each row, ``None`` where it is unknown or the config has no such column."""
        return tuple(row.get("patient_id") for row in self.metadata)

    def ids(self, *columns: str) -> tuple[str, ...]:
        """A name for each row: its value of the first of these columns that is not null, otherwise its index."""
        return tuple(
            next((str(row[name]) for name in columns if row.get(name) is not None), f"row {index}")
            for row, index in zip(self.metadata, self.indices, strict=True)
        )

    @cached_property
    def _table(self) -> pa.Table:
        return pa.concat_tables([pa.ipc.open_stream(pa.memory_map(str(path))).read_all() for path in self.paths])

    @cached_property
    def _voxel_columns(self) -> dict[str, VoxelColumn]:
        return {}

    def __getstate__(self) -> dict[str, Any]:
        """The declared fields, without the mapped table."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def picture(self, row: int) -> bytes:
        """The encoded image of a row."""
        encoded: bytes = self._table.column("image")[self.indices[row]]["bytes"].as_py()
        return encoded

    def voxels(self, row: int, column: str = "volume") -> NDArray[Any] | None:
        """The voxels of a row as a view, axes (z, y, x); ``None`` where the cell is null."""
        if column not in self._voxel_columns:
            self._voxel_columns[column] = VoxelColumn(self._table.column(column))
        voxels: NDArray[Any] | None = self._voxel_columns[column].find(self.indices[row])
        return voxels


def split_rows(build: BuildFolder, config: str, split: str, split_by: SplitBy) -> Rows:
    """Return the rows of one split of a build.

    An Arrow build is read in place. A Parquet build is compared with its manifest and decoded once, into Arrow files in the
    user's cache folder.

    Args:
        build: The build.
        config: One of its configs.
        split: ``train``, ``validation`` or ``test``.
        split_by: How to split: as the build is split, or by patient, from the column ``fold``. Splits by patient leave
            out the rows whose patient is unknown.

    Raises:
        BuildFolderError: The build does not hold the config, or a shard of Parquet that is to be decoded was changed.
        TrainingError: The split has no rows, or the published split is requested and the build was split by patient.
        OutputError: The cache folder has too little free space for the Arrow files.
    """
    built_by = SplitBy(build.manifest["split_by"])
    if built_by is not split_by and built_by is SplitBy.PATIENT:
        raise TrainingError(
            f"{build.folder} was split by patient", remedy="build it as published, or split the rows by patient"
        )
    names = build.metadata_columns(config)
    metadata = [(name, row) for name in build.splits(config) for row in build.rows(config, name, names)]
    if split_by is SplitBy.PUBLISHED:
        indices = [index for index, (name, _) in enumerate(metadata) if name == split]
    else:
        folds = [row["fold"] for _, row in metadata]
        indices = [index for index, fold in enumerate(folds) if fold is not None and SPLIT_OF_FOLD[fold] == split]
    if not indices:
        raise TrainingError(
            f"{config} has no rows in the split {split!r} ({split_by})",
            expected=f"one of {', '.join(build.splits(config))}" if split_by is SplitBy.PUBLISHED else None,
            remedy="use a build with more patients, because folds hold whole patients"
            if split_by is SplitBy.PATIENT
            else "choose another split, or split the rows by patient",
        )
    return Rows(
        Schema(build.columns(config)),
        _arrow_files(build, config),
        tuple(indices),
        tuple(metadata[index][1] for index in indices),
    )


def _arrow_files(build: BuildFolder, config: str) -> tuple[Path, ...]:
    """The shards of an Arrow build, or decoded copies of the shards of a Parquet build. Missing copies are made."""
    ordered = [file for split in build.splits(config) for file in build.files(config, split)]
    if build.format is Format.ARROW:
        return tuple(build.folder / file["path"] for file in ordered)
    key = hashlib.sha256(json.dumps(ordered, sort_keys=True).encode()).hexdigest()[:16]
    folder = cache_folder() / "training" / f"{config}-{key}"
    if not folder.is_dir():
        # the copy is used for as long as the manifest is the same, so a damaged shard must not get into it
        recorded = shard_files(build.manifest)
        require_unchanged(build.folder, {file["path"]: recorded[file["path"]] for file in ordered})
        size = sum(_decoded_bytes(build.folder / file["path"]) for file in ordered)
        require_free_space(f"the Arrow copy of {config}", size, [folder.parent])
        notice(
            f"{config}: decoding Parquet once, {size / 1e6:,.0f} MB into {folder}; "
            "a build with --format arrow does not need this"
        )
        with staged_folder(folder, find_foreign=lambda _: None, kind="copy") as stage:
            for number, file in enumerate(ordered):
                _decode(build, file["path"], stage / f"{number:05}.arrow")
    return tuple(folder / f"{number:05}.arrow" for number in range(len(ordered)))


def _decoded_bytes(source: Path) -> int:
    """The decoded size of a Parquet file, as its footer states it."""
    meta = pq.read_metadata(source)
    return sum(meta.row_group(group).total_byte_size for group in range(meta.num_row_groups))


def _decode(build: BuildFolder, name: str, target: Path) -> None:
    try:
        with (
            pq.ParquetFile(build.folder / name, page_checksum_verification=True) as file,
            pa.OSFile(str(target), "wb") as sink,
            pa.ipc.new_stream(sink, file.schema_arrow) as writer,
        ):
            for group in range(file.num_row_groups):
                writer.write_table(file.read_row_group(group))
    except pa.ArrowException as error:
        raise BuildFolderError(
            f"{name} cannot be read: {error}", remedy=f"verify the build: lung-nodule-ct verify {build.folder}"
        ) from error
