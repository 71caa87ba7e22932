"""Walking through the rows of a build, once, while somebody is told how far it is.

Rows of a build by number, from any process: Arrow mapped into memory, so that a patch costs what its pages cost.

An Arrow build is read where it stands. Parquet is decoded once, into an Arrow copy in the user's cache folder.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lung_nodule_ct.declaration.labels import SPLIT_OF_FOLD, SplitBy
from lung_nodule_ct.declaration.manifest import Format
from lung_nodule_ct.errors import BuildFolderError, TrainingError
from lung_nodule_ct.geometry.frame import Frame
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
    build: BuildFolder, configs: Sequence[str], progress: BuildProgress | None = None
) -> Iterator[IndexedRow]:
    """Iterate over every row of some configs, in the order of the build; at most one row group is in memory.

    Args:
        build: The build.
        configs: Names of configs that it contains.
        progress: Receives the progress, in bytes of the shards.

    Raises:
        BuildFolderError: The build does not contain a config, or a shard is damaged.
    """
    progress = progress or BuildProgress()
    for config in configs:
        rows = {split: build.configs[config][split] for split in build.splits(config)}
        size = {split: sum(file["bytes"] for file in build.files(config, split)) for split in rows}
        progress.begin(config, sum(size.values()), sum(rows.values()))
        for split, count in rows.items():
            for number, row in enumerate(build.rows(config, split)):
                yield IndexedRow(config, split, number, row)
                row.clear()  # so that nothing keeps its volumes in memory while the next ones are read
                progress.advance(config, size[split] // count)
        progress.end(config)


@dataclass(frozen=True)
class Rows:
    """Some rows of a config. Made by :func:`rows_of`; crosses process borders as paths and numbers.

    Attributes:
        paths: Arrow streams.
        places: Which rows of them, counted through all streams.
        light: The columns without voxels and pictures, a dict a row of ``places``.
        heavy: The columns with them.
    """

    paths: tuple[Path, ...]
    places: tuple[int, ...]
    light: tuple[dict[str, Any], ...]

    def __len__(self) -> int:
        return len(self.places)

    @property
    def patients(self) -> tuple[str | None, ...]:
        """``patient_id`` of each row, ``None`` where it is unknown or the config has no such column."""
        return tuple(row.get("patient_id") for row in self.light)

    @cached_property
    def _table(self) -> pa.Table:
        return pa.concat_tables([pa.ipc.open_stream(pa.memory_map(str(path))).read_all() for path in self.paths])

    def __getstate__(self) -> dict[str, Any]:
        """Without the mapped table: each process maps for itself."""
        return {"paths": self.paths, "places": self.places, "light": self.light}

    def picture(self, row: int) -> bytes:
        """The encoded image of a row."""
        encoded: bytes = self._table.column("image")[self.places[row]]["bytes"].as_py()
        return encoded

    def voxels(self, row: int, column: str = "volume") -> NDArray[Any] | None:
        """The voxels of a row as a view, axes (z, y, x); ``None`` where the cell is null."""
        voxels: NDArray[Any] | None = VoxelColumn(self._table.column(column)).find(self.places[row])
        return voxels


def split_rows(build: BuildFolder, config: str, split: str, split_by: SplitBy) -> Rows:
    """The rows of a split of a build.

    Args:
        build: The build.
        config: One of its configs.
        split: ``train``, ``validation`` or ``test``.
        split_by: As the build was split, or by patient from the column ``fold``; then rows of no known patient are left out.

    Raises:
        BuildFolderError: The build has no such config.
        TrainingError: The split has no rows, or the build was split by patient and the published split is asked for.
        OutputError: There is no room in the cache folder for an Arrow copy.
    """
    built_by = SplitBy(build.manifest["split_by"])
    if built_by is not split_by and built_by is SplitBy.PATIENT:
        raise TrainingError(
            f"{build.folder} was split by patient", remedy="build it as published, or say --split-by patient"
        )
    light = [
        (name, row) for name in build.splits(config) for row in build.rows(config, name, build.metadata_columns(config))
    ]
    if split_by is SplitBy.PUBLISHED:
        places = [place for place, (name, _) in enumerate(light) if name == split]
    else:
        folds = [row["fold"] for _, row in light]
        places = [place for place, fold in enumerate(folds) if fold is not None and SPLIT_OF_FOLD[fold] == split]
    if not places:
        raise TrainingError(
            f"{config} has no rows in the split {split!r} ({split_by})",
            expected=f"one of {', '.join(build.splits(config))}" if split_by is SplitBy.PUBLISHED else None,
            remedy="name another --split" if split_by is SplitBy.PATIENT else "name another, or say --split-by patient",
        )
    return Rows(_arrow_files(build, config), tuple(places), tuple(light[place][1] for place in places))


def _arrow_files(build: BuildFolder, config: str) -> tuple[Path, ...]:
    files = build.manifest["configs"][config]["files"]
    ordered = [file for split in build.splits(config) for file in files if file["split"] == split]
    if build.format is Format.ARROW:
        return tuple(build.folder / file["path"] for file in ordered)
    key = hashlib.sha256(json.dumps(ordered, sort_keys=True).encode()).hexdigest()[:16]
    folder = cache_folder() / "training" / f"{config}-{key}"
    if not folder.is_dir():
        size = sum(_decoded_bytes(build.folder / file["path"]) for file in ordered)
        require_free_space(f"the Arrow copy of {config}", size, [folder.parent])
        notice(
            f"{config}: decoding Parquet once, {size / 1e6:,.0f} MB into {folder}; a build of --format arrow needs no such copy"
        )
        with staged_folder(folder, find_foreign=lambda _: None) as stage:
            for number, file in enumerate(ordered):
                _decode(build.folder / file["path"], stage / f"{number:05}.arrow")
    return tuple(folder / f"{number:05}.arrow" for number in range(len(ordered)))


def _decoded_bytes(source: Path) -> int:
    """What a Parquet file takes decoded, by its footer."""
    meta = pq.read_metadata(source)
    return sum(meta.row_group(group).total_byte_size for group in range(meta.num_row_groups))


def _decode(source: Path, target: Path) -> None:
    with (
        pq.ParquetFile(source) as file,
        pa.OSFile(str(target), "wb") as sink,
        pa.ipc.new_stream(sink, file.schema_arrow) as writer,
    ):
        for group in range(file.num_row_groups):
            writer.write_table(file.read_row_group(group))


def ids_of(rows: Rows, *columns: str) -> tuple[str, ...]:
    """What to call each row by: the first of some columns that is known, else its number."""
    return tuple(
        next((str(row[name]) for name in columns if row.get(name) is not None), f"row {place}")
        for row, place in zip(rows.light, rows.places, strict=True)
    )


def padded(values: NDArray[Any], count: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """``values`` (n, k) with zeros below up to ``count`` rows, and which rows are real; what is too many is cut off."""
    kept = values[:count]
    full = np.zeros((count, *values.shape[1:]), np.float32)
    full[: len(kept)] = kept
    return full, np.arange(count) < len(kept)
