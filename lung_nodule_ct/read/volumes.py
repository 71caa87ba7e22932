"""The volumes of a dataset as arrays. Of a loaded dataset they are views of the memory-mapped Arrow cells, without a copy.

Reading a patch then costs only its memory pages, whereas ``row["volume"]["bytes"]`` copies the complete cell each time. From a build
folder of Parquet a volume is decoded once and a few are kept; from a stream each volume is taken as it arrives.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Final, overload

import numpy as np

from lung_nodule_ct.geometry.frame import FRAME_COLUMNS, Frame
from lung_nodule_ct.read.build_folder import open_build
from lung_nodule_ct.read.voxel_columns import VoxelColumn, decode_cell
from lung_nodule_ct.system.memory import prefetch_pages

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import datasets
    from numpy.typing import NDArray

_PADDING: Final = {"int16": -1024, "uint8": 0}
"""The value outside a volume: the HU of air in CT, black in 8-bit stacks and masks."""


@dataclass(frozen=True, eq=False)
class Volume:
    """One volume of a dataset.

    Attributes:
        array: A read-only view of the stored voxels, axes (z, y, x); int16 in Hounsfield units, or uint8. If they are stored as
            b2nd, a ``blosc2.NDArray``, which decodes only what a slice of it touches.
        frame: Origin, spacing and direction; ``None`` if the config has no world coordinates, as ``det3d_bmp_1.25mm``.
    """

    array: Any
    frame: Frame | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along z, y, x."""
        z, y, x = self.array.shape
        return z, y, x

    def numpy(self) -> NDArray[Any]:
        """Return a writable copy of the complete volume."""
        return np.array(self.array[...])

    def slice(self, index: int) -> NDArray[Any]:
        """Return the axial slice ``index`` as a view, axes (y, x)."""
        view: NDArray[Any] = self.array[index]
        prefetch_pages(view[None])
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
        """Return a box of voxels around a centre as a copy, axes (z, y, x), without resampling.

        Args:
            center_voxel: Centre as continuous voxel index x, y, z.
            center_world: Centre in LPS millimetres x, y, z, instead of ``center_voxel``.
            size: Number of voxels along x, y, z.
            size_mm: Size in millimetres along the stored axes x, y, z, rounded to voxels, instead of ``size``.
            outside: The value where the patch extends beyond the volume; by default -1024 HU in CT, 0 in uint8.

        Raises:
            ValueError: Not exactly one centre and one size are given, or millimetres for a volume without a frame.
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
        voxels = self.array[inside]
        prefetch_pages(voxels)
        if voxels.shape == tuple(extent):
            copy: NDArray[Any] = voxels.copy()
            return copy
        patch = np.full(extent, _PADDING[self.array.dtype.name] if outside is None else outside, self.array.dtype)
        if voxels.size:
            patch[tuple(slice(s.start - start, s.stop - start) for s, start in zip(inside, starts, strict=True))] = (
                voxels
            )
        return patch


class Volumes(Sequence[Volume]):
    """The volumes of a split, by index. Returned by :func:`volumes`."""

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
            return [self[number] for number in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"volume {index} of {len(self)}")
        return self._read(index % len(self))


class StreamedVolumes(Iterable[Volume]):
    """The volumes of a stream, in its order. Returned by :func:`volumes`."""

    def __init__(self, rows: Iterable[Mapping[str, Any]], column: str) -> None:
        self._rows, self._column = rows, column

    def __iter__(self) -> Iterator[Volume]:
        for number, row in enumerate(self._rows):
            cell = row[self._column]
            if cell is None:
                raise ValueError(f"row {number} has no such volume (null)")
            yield Volume(decode_cell(memoryview(cell["bytes"]), cell["shape"]), Frame.from_row(row))


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
    """Return the volumes of a split.

    Args:
        dataset: A ``datasets.Dataset`` of a volume config: a sequence of views without copies, in the order of selections and shuffles.
            Or a ``datasets.IterableDataset``: an iterable. Or the path of a folder that ``lung-nodule-ct build`` wrote.
        column: ``volume`` or ``lung_mask``. Accessing the mask of a scan without one raises ``ValueError``.
        config: The config of a folder; required if the folder has several with volumes.
        split: The split of a folder; required if the config has several.
        kept: Number of decoded volumes of a Parquet folder that are kept, the most recently used ones.

    Raises:
        ValueError: ``dataset`` has no such column, or is of another type.
        BuildFolderError: The folder does not contain a build, or not this config or split.

    Example:
        >>> import lung_nodule_ct
        >>> scans = lung_nodule_ct.load("det3d_1.25mm", source="dummy_data", split="train")
        >>> scan = lung_nodule_ct.volumes(scans)[0]
        >>> scan.shape
        (16, 60, 84)
        >>> scan.patch(center_world=scans[0]["nodules"][0]["center_world"], size=(8, 8, 4)).shape
        (4, 8, 8)
    """
    if isinstance(dataset, str | os.PathLike):
        return _of_folder(dataset, column, config, split, kept)
    if config is not None or split is not None:
        raise ValueError("config and split: expected only with the path of a build folder")
    import datasets  # noqa: PLC0415 -- imported already by the caller who has a dataset

    if not isinstance(dataset, datasets.Dataset | datasets.IterableDataset):
        raise ValueError(f"dataset: expected a split of datasets or a build folder, got {type(dataset).__name__}")  # noqa: TRY004
    names = dataset.column_names or []
    if column not in names or column not in ("volume", "lung_mask"):
        raise ValueError(f"dataset: it has no volumes in {column!r}; its columns are {', '.join(names)}")
    if isinstance(dataset, datasets.IterableDataset):
        frame_columns = [name for name in FRAME_COLUMNS if name in names]
        return StreamedVolumes(dataset.select_columns([column, *frame_columns]), column)
    return _of_table(dataset, column)


def _of_table(dataset: Any, column: str) -> Volumes:
    table = dataset.data
    cells = VoxelColumn(table.column(column))
    geometry = {name: table.column(name).to_pylist() for name in FRAME_COLUMNS if name in dataset.column_names}
    indices = dataset._indices  # the rows of a selected or shuffled dataset

    @cache
    def read(index: int) -> Volume:
        row = index if indices is None else indices.column(0)[index].as_py()
        return Volume(cells[row], Frame.from_row({name: values[row] for name, values in geometry.items()}))

    return Volumes(len(dataset), read)


def _of_folder(
    folder: str | os.PathLike[str], column: str, config: str | None, split: str | None, kept: int
) -> Volumes:
    build = open_build(folder)
    with_volumes = [name for name in build.configs if build.config(name).schema.has_voxels]
    config = _only("config", with_volumes, config)
    split = _only("split", list(build.splits(config)), split)
    names = [known.name for known in build.columns(config)]
    if column not in names or column not in ("volume", "lung_mask"):
        raise ValueError(f"{config} has no volumes in {column!r}")

    @lru_cache(maxsize=max(1, kept))
    def read(index: int) -> Volume:
        wanted = [column, *(name for name in FRAME_COLUMNS if name in names)]
        row = next(build.rows(config, split, wanted, [index]))
        if row[column] is None:
            raise ValueError(f"row {index} has no such volume (null)")
        return Volume(row[column], Frame.from_row(row))

    return Volumes(build.count(config, split), read)


def _only(what: str, names: Sequence[str], chosen: str | None) -> str:
    if chosen is None and len(names) != 1:
        raise ValueError(f"{what}: expected one of {', '.join(names) or 'none'}, got none")
    return names[0] if chosen is None else chosen
