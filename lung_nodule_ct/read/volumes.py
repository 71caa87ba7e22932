"""The volumes of a dataset as arrays: of a loaded one views of the memory-mapped Arrow cells, which cost nothing.

A patch then costs what its memory pages cost. (``row["volume"]["bytes"]`` copies the whole cell each time.) From a built folder
of Parquet a volume is decoded once and a few are kept; of a stream each is taken as it comes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from lung_nodule_ct.declaration.configs import CONFIGS
from lung_nodule_ct.geometry.frame import Frame
from lung_nodule_ct.read.build_folder import open_build
from lung_nodule_ct.read.voxel_columns import VoxelColumn, decode_cell
from lung_nodule_ct.system.memory import read_ahead

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import datasets
    from numpy.typing import NDArray

_GEOMETRY = ("origin", "spacing", "direction")

#: What stands outside a volume: the HU of air in CT, black in 8-bit stacks and masks.
_OUTSIDE = {"int16": -1024, "uint8": 0}


@dataclass(frozen=True, eq=False)
class Volume:
    """One volume of a loaded dataset.

    Attributes:
        array: A read-only view of the stored voxels, axes (z, y, x); int16 in Hounsfield units, or uint8. Where they are
            stored as b2nd, a ``blosc2.NDArray``, which decodes only what a slice of it touches.
        frame: Where they are; ``None`` in ``det3d_bmp_1.25mm``, which has no world.
    """

    array: Any
    frame: Frame | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """z, y, x."""
        z, y, x = self.array.shape
        return z, y, x

    def numpy(self) -> NDArray[Any]:
        """A copy of the whole volume, to be written to."""
        return np.array(self.array[...])

    def slice(self, index: int) -> NDArray[Any]:
        """The axial slice ``index`` as a view, axes (y, x)."""
        view: NDArray[Any] = self.array[index]
        read_ahead(view[None])
        return view

    def patch(
        self,
        *,
        center_voxel: Sequence[float] | None = None,
        center_world: Sequence[float] | None = None,
        size: Sequence[int] | None = None,
        size_mm: Sequence[float] | None = None,
        outside: float | None = None,
    ) -> NDArray[Any]:
        """A box of voxels around a centre, as a copy, axes (z, y, x). No resampling.

        Args:
            center_voxel: Continuous voxel index x, y, z.
            center_world: Instead of it, LPS millimetres x, y, z.
            size: Voxels along x, y, z.
            size_mm: Instead of it, millimetres along the stored axes x, y, z, rounded to whole voxels.
            outside: What stands where the patch reaches over the volume's border; -1024 HU in CT, 0 in uint8.

        Raises:
            ValueError: Not exactly one centre and one size, or millimetres without a frame.
        """
        if (center_voxel is None) == (center_world is None) or (size is None) == (size_mm is None):
            raise ValueError("expected one of center_voxel and center_world, and one of size and size_mm")
        if self.frame is None and (center_world is not None or size_mm is not None):
            raise ValueError("this volume has no frame: give center_voxel and size in voxels")
        center = center_voxel
        if self.frame is not None and center_world is not None:
            center = self.frame.to_voxel(center_world).tolist()
        extent = size
        if self.frame is not None and size_mm is not None:
            extent = [max(1, round(mm / step)) for mm, step in zip(size_mm, self.frame.spacing, strict=True)]
        assert center is not None  # noqa: S101 -- one of the two was given
        assert extent is not None  # noqa: S101
        starts = [math.floor(c - n / 2 + 1) for c, n in zip(center, extent, strict=True)][::-1]
        return self._cut(starts, list(extent)[::-1], outside)

    def _cut(self, starts: Sequence[int], extent: Sequence[int], outside: float | None) -> NDArray[Any]:
        inside = tuple(
            slice(min(max(0, start), limit), max(0, min(limit, start + count)))
            for start, count, limit in zip(starts, extent, self.array.shape, strict=True)
        )
        taken = self.array[inside]
        read_ahead(taken)
        if taken.shape == tuple(extent):
            whole: NDArray[Any] = taken.copy()
            return whole
        patch = np.full(extent, _OUTSIDE[self.array.dtype.name] if outside is None else outside, self.array.dtype)
        if taken.size:
            place = tuple(slice(own.start - start, own.stop - start) for own, start in zip(inside, starts, strict=True))
            patch[place] = taken
        return patch


class Volumes(Sequence[Volume]):
    """The volumes of a split, to be indexed. Made by :func:`volumes`."""

    def __init__(self, count: int, read: Callable[[int], Volume]) -> None:
        self._count, self._read = count, read

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Volume: ...
    @overload
    def __getitem__(self, index: slice) -> list[Volume]: ...
    def __getitem__(self, index: int | slice) -> Volume | list[Volume]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"volume {index} of {len(self)}")
        return self._read(index % len(self))


class StreamedVolumes(Iterable[Volume]):
    """The volumes of a stream, in its order. Made by :func:`volumes`."""

    def __init__(self, rows: Iterable[Mapping[str, Any]], column: str, dtype: str) -> None:
        self._rows, self._column, self._dtype = rows, column, dtype

    def __iter__(self) -> Iterator[Volume]:
        for number, row in enumerate(self._rows):
            cell = row[self._column]
            if cell is None:
                raise ValueError(f"row {number} has no such volume (null)")
            yield _volume(decode_cell(memoryview(cell["bytes"]), self._dtype, cell["shape"]), row)


@overload
def volumes(dataset: datasets.IterableDataset, column: str = "volume") -> StreamedVolumes: ...
@overload
def volumes(
    dataset: datasets.Dataset | str | os.PathLike[str],
    column: str = "volume",
    *,
    config: str | None = None,
    split: str | None = None,
    kept: int = 2,
) -> Volumes: ...
def volumes(
    dataset: Any, column: str = "volume", *, config: str | None = None, split: str | None = None, kept: int = 2
) -> Volumes | StreamedVolumes:
    """The volumes of a split.

    Args:
        dataset: A ``datasets.Dataset`` of a volume config, prepared or loaded from a built folder: a sequence of zero-copy
            views; selections and shuffles are followed. Or a stream (``datasets.IterableDataset``): an iterable. Or the
            path of a folder that ``lung-nodule-ct build`` wrote, read without loading it first.
        column: ``volume`` or ``lung_mask``. A scan without a mask raises ``ValueError`` when it is asked for.
        config: Of a folder, the config; needed where it holds more than one with volumes.
        split: Of a folder, the split; needed where the config has more than one.
        kept: Of a folder of Parquet, how many decoded volumes are kept at most, those used last.

    Raises:
        ValueError: ``dataset`` has no such column, or is none of these.
        BuildFolderError: The folder holds no build, or not that config or split.
    """
    if isinstance(dataset, (str, os.PathLike)):
        return _of_folder(dataset, column, config, split, kept)
    if config is not None or split is not None:
        raise ValueError("config and split: expected only with the path of a built folder")
    import datasets  # noqa: PLC0415 -- whoever has one of its splits has it imported

    if not isinstance(dataset, (datasets.Dataset, datasets.IterableDataset)):
        raise ValueError(f"dataset: expected a split of datasets or a built folder, got {type(dataset).__name__}")  # noqa: TRY004
    names = dataset.column_names or []
    if column not in names or column not in ("volume", "lung_mask"):
        raise ValueError(f"dataset: it has no volumes in {column!r}; its columns are {', '.join(names)}")
    dtype = "<i2" if "direction" in names and column == "volume" else "u1"
    if isinstance(dataset, datasets.IterableDataset):
        geometry = [name for name in _GEOMETRY if name in names]
        return StreamedVolumes(dataset.select_columns([column, *geometry]), column, dtype)
    return _of_table(dataset, column, dtype)


def _of_table(dataset: Any, column: str, dtype: str) -> Volumes:
    table = dataset.data
    cells = VoxelColumn(table.column(column), dtype)
    geometry = {name: table.column(name).to_pylist() for name in _GEOMETRY if name in dataset.column_names}
    indices = dataset._indices  # which rows a selected or shuffled dataset shows

    @cache
    def read(index: int) -> Volume:
        row = index if indices is None else indices.column(0)[index].as_py()
        return _volume(cells[row], {name: values[row] for name, values in geometry.items()})

    return Volumes(len(dataset), read)


def _of_folder(
    folder: str | os.PathLike[str], column: str, config: str | None, split: str | None, kept: int
) -> Volumes:
    build = open_build(folder)
    with_volumes = [name for name in build.configs if CONFIGS[name].schema.has_voxels]
    config = _only("config", with_volumes, config)
    split = _only("split", list(build.splits(config)), split)
    names = [known.name for known in build.columns(config)]
    if column not in names or column not in ("volume", "lung_mask"):
        raise ValueError(f"{config} has no volumes in {column!r}")

    @lru_cache(maxsize=max(1, kept))
    def read(index: int) -> Volume:
        wanted = [column, *(name for name in _GEOMETRY if name in names)]
        row = next(build.rows(config, split, wanted, [index]))
        if row[column] is None:
            raise ValueError(f"row {index} has no such volume (null)")
        return _volume(row[column], row)

    return Volumes(build.count(config, split), read)


def _only(what: str, names: Sequence[str], chosen: str | None) -> str:
    if chosen is None and len(names) != 1:
        raise ValueError(f"{what}: expected one of {', '.join(names) or 'none'}, got none")
    return names[0] if chosen is None else chosen


def _volume(array: Any, row: Mapping[str, Any]) -> Volume:
    if "direction" not in row:
        return Volume(array)
    return Volume(array, Frame(*(tuple(row[name]) for name in _GEOMETRY)))
