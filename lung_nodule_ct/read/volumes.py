"""The volumes of a dataset as arrays. Of a loaded dataset they are views of the memory-mapped Arrow cells, without a copy.

Reading a patch then costs only its memory pages, whereas ``row["volume"]["bytes"]`` copies the complete cell each time. From a build
folder of Parquet a volume is decoded once and a few are kept; from a stream each volume is taken as it arrives.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Final, Protocol, overload

import numpy as np

from lung_nodule_ct.geometry.frame import FRAME_COLUMNS, Frame
from lung_nodule_ct.read import conversions
from lung_nodule_ct.read.build_folder import open_build
from lung_nodule_ct.read.planes import summary_html
from lung_nodule_ct.read.voxel_columns import VoxelColumn, decode_cell
from lung_nodule_ct.system.memory import copy_part, prefetch_pages

if TYPE_CHECKING:
    from collections.abc import Mapping

    import datasets
    from numpy.typing import NDArray

    from lung_nodule_ct.read.build_folder import BuildFolder

PADDING: Final = {"int16": -1024, "uint8": 0}
"""The value outside a volume: the HU of air in CT, black in 8-bit stacks and masks."""


@dataclass(frozen=True, eq=False, repr=False)
class Volume:
    """One volume of a dataset.

    Attributes:
        array: A read-only view of the stored voxels, axes (z, y, x); int16 in Hounsfield units, or uint8. If they are stored as
            b2nd, a ``blosc2.NDArray``, which decodes only what a slice of it touches.
        frame: Origin, spacing and direction; ``None`` if the config has no world coordinates, as ``det3d_bmp_1.25mm``.
    """

    array: Any
    frame: Frame | None = None

    def __repr__(self) -> str:
        spacing = "no frame" if self.frame is None else f"{_times(self.frame.spacing)} mm"
        return f"{type(self).__name__}({_times(self.shape)} {self.array.dtype}, axes z y x; {spacing}, axes x y z)"

    def _repr_html_(self) -> str:
        """The volume in a notebook."""
        return summary_html(repr(self), self.array[...], self.frame)

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
            outside: The value where the patch extends beyond the volume; by default -1024 HU in CT, 0 in uint8. If it is given, the patch
                may be completely outside.

        Raises:
            ValueError: Not exactly one centre and one size are given, they are not three numbers, or millimetres are given for a volume
                without a frame. Or the patch has no voxel of the volume, as with a centre in another world or order of axes.
        """
        if (center_voxel is None) == (center_world is None) or (size is None) == (size_mm is None):
            raise ValueError("expected one of center_voxel and center_world, and one of size and size_mm")
        if self.frame is None and (center_world is not None or size_mm is not None):
            raise ValueError("this volume has no frame: give center_voxel and size in voxels")
        if center_world is not None and self.frame is not None:
            center: Sequence[float] = self.frame.to_voxel(_three("center_world", center_world)).tolist()
        else:
            center = _three("center_voxel", center_voxel)
        if size_mm is not None and self.frame is not None:
            mm = _three("size_mm", size_mm, positive=True)
            extent: Sequence[int] = [max(1, round(a / step)) for a, step in zip(mm, self.frame.spacing, strict=True)]
        else:
            extent = _three("size", size, positive=True)
        starts = [math.floor(c - n / 2 + 1) for c, n in zip(center, extent, strict=True)][::-1]
        extent = extent[::-1]
        limits = self.array.shape
        inside = overlaps = True
        for start, count, limit in zip(starts, extent, limits, strict=True):
            inside = inside and 0 <= start <= limit - count
            overlaps = overlaps and -count < start < limit
        if inside:
            (z, y, x), (depth, height, width) = starts, extent
            return copy_part(self.array[z : z + depth, y : y + height, x : x + width])
        if outside is None and not overlaps:
            where = "" if center_world is None else f" (center_world {_listed(center_world)}, LPS mm)"
            raise ValueError(
                f"the patch around voxel {_listed(center)}{where} has no voxel of the volume, which has "
                f"{_times(limits[::-1])} voxels along x, y, z. Check the order of the axes and the world (LPS, not RAS), or give "
                "outside= for a patch of padding"
            )
        return self._padded(starts, extent, outside)

    def to_monai(self) -> Any:
        """Return the volume as a ``monai.data.MetaTensor`` of shape (1, x, y, z), with its affine (RAS mm).

        An array that can be written, as :func:`lung_nodule_ct.imaging.resample` returns it, shares its memory with the tensor. The
        read-only view of a dataset is copied, because PyTorch has no read-only tensors.

        Raises:
            ValueError: The volume has no frame.
            MissingExtraError: The extra ``monai`` is not installed.
        """
        return conversions.to_monai(*self._voxels_and_frame("to_monai"))

    def to_torchio(self, *, label: bool = False) -> Any:
        """Return the volume as a ``torchio.ScalarImage`` of shape (1, x, y, z), with its affine (RAS mm). Memory is as in :meth:`to_monai`.

        Args:
            label: Return a ``torchio.LabelMap``, for lung masks.

        Raises:
            ValueError: The volume has no frame.
            MissingExtraError: The extra ``torchio`` is not installed.
        """
        return conversions.to_torchio(*self._voxels_and_frame("to_torchio"), label=label)

    def to_sitk(self) -> Any:
        """Return the volume as a ``SimpleITK.Image`` with origin, spacing and direction (LPS mm). SimpleITK copies the voxels.

        Raises:
            ValueError: The volume has no frame.
            MissingExtraError: The extra ``imaging`` is not installed.
        """
        return conversions.to_sitk(*self._voxels_and_frame("to_sitk"))

    def to_nibabel(self) -> Any:
        """Return the volume as a ``nibabel.Nifti1Image`` with the axes (x, y, z) and its affine (RAS mm), without a copy.

        Raises:
            ValueError: The volume has no frame.
            MissingExtraError: The extra ``export`` is not installed.
        """
        return conversions.to_nibabel(*self._voxels_and_frame("to_nibabel"))

    def _voxels_and_frame(self, method: str) -> tuple[NDArray[Any], Frame]:
        if self.frame is None:
            raise ValueError(f"{method}: this volume has no frame, so its size in mm is unknown; use numpy() instead")
        return self.array[...], self.frame

    def _padded(self, starts: Sequence[int], extent: Sequence[int], outside: float | None) -> NDArray[Any]:
        inside = tuple(
            slice(min(max(0, start), limit), max(0, min(limit, start + count)))
            for start, count, limit in zip(starts, extent, self.array.shape, strict=True)
        )
        patch = np.full(extent, PADDING[self.array.dtype.name] if outside is None else outside, self.array.dtype)
        voxels = self.array[inside]
        if voxels.size:
            prefetch_pages(voxels)
            target = tuple(slice(s.start - start, s.stop - start) for s, start in zip(inside, starts, strict=True))
            patch[target] = voxels
        return patch


class _VolumeSource(Protocol):
    """Where the volumes of a split are. A pickled copy opens the files again."""

    def __len__(self) -> int: ...

    def __str__(self) -> str: ...

    def read(self, index: int) -> Volume:
        """The volume of a row."""


class Volumes(Sequence[Volume]):
    """The volumes of a split, by index. Returned by :func:`volumes`.

    It can be pickled, and the copy opens the files again. So it is a dataset for the workers of a PyTorch ``DataLoader`` or of grain, also
    of those that are spawned.
    """

    def __init__(self, source: _VolumeSource) -> None:
        self._source = source

    def __repr__(self) -> str:
        return f"Volumes({len(self)} of {self._source})"

    def __len__(self) -> int:
        return len(self._source)

    @overload
    def __getitem__(self, index: int) -> Volume: ...
    @overload
    def __getitem__(self, index: slice) -> list[Volume]: ...
    def __getitem__(self, index: int | slice) -> Volume | list[Volume]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"volume {index} of {len(self)}")
        return self._source.read(index % len(self))


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

    if isinstance(dataset, dict):
        raise ValueError(  # noqa: TRY004 -- a dictionary of splits is a value of the wrong kind, as below
            f"dataset: expected one split, got the splits {', '.join(map(str, dataset))}; use dataset[{next(iter(dataset), '')!r}]"
        )
    if not isinstance(dataset, datasets.Dataset | datasets.IterableDataset):
        raise ValueError(f"dataset: expected a split of datasets or a build folder, got {type(dataset).__name__}")  # noqa: TRY004
    names = dataset.column_names or []
    if column not in names or column not in ("volume", "lung_mask"):
        raise ValueError(f"dataset: it has no volumes in {column!r}; its columns are {', '.join(names)}")
    if isinstance(dataset, datasets.IterableDataset):
        frame_columns = [name for name in FRAME_COLUMNS if name in names]
        return StreamedVolumes(dataset.select_columns([column, *frame_columns]), column)
    return Volumes(_LoadedVolumes(dataset, column))


class _LoadedVolumes:
    """The volumes of a loaded dataset, whose files are mapped into memory. In a pickled copy they are mapped again."""

    def __init__(self, dataset: datasets.Dataset, column: str) -> None:
        names = [name for name in FRAME_COLUMNS if name in dataset.column_names]
        self._dataset = dataset.with_format(None).select_columns([column, *names])
        self._column = column
        self._known: dict[int, Volume] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._dataset, self._column)

    def __len__(self) -> int:
        return len(self._dataset)

    def __str__(self) -> str:
        config = self._dataset.info.config_name
        return ", ".join(map(str, filter(None, (config, self._dataset.split, self._column))))

    @cached_property
    def _cells(self) -> VoxelColumn:
        return VoxelColumn(self._dataset.data.column(self._column))

    @cached_property
    def _geometry(self) -> dict[str, list[Any]]:
        return {
            name: self._dataset.data.column(name).to_pylist()
            for name in self._dataset.column_names
            if name != self._column
        }

    def read(self, index: int) -> Volume:
        if index not in self._known:
            indices = self._dataset._indices  # the rows of a selected or shuffled dataset
            row = index if indices is None else indices.column(0)[index].as_py()
            frame = Frame.from_row({name: values[row] for name, values in self._geometry.items()})
            self._known[index] = Volume(self._cells[row], frame)
        return self._known[index]


class _FolderVolumes:
    """The volumes of a build folder, decoded when they are read; the last ones are kept. A pickled copy has decoded none."""

    def __init__(self, build: BuildFolder, column: str, config: str, split: str, kept: int) -> None:
        self._build, self._column, self._config, self._split, self._kept = build, column, config, split, kept
        self.read = lru_cache(maxsize=max(1, kept))(self._decode)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._build, self._column, self._config, self._split, self._kept)

    def __len__(self) -> int:
        return self._build.count(self._config, self._split)

    def __str__(self) -> str:
        return f"{self._config}, {self._split}, {self._column}"

    def _decode(self, index: int) -> Volume:
        names = [known.name for known in self._build.columns(self._config)]
        wanted = [self._column, *(name for name in FRAME_COLUMNS if name in names)]
        row = next(self._build.rows(self._config, self._split, wanted, [index]))
        if row[self._column] is None:
            raise ValueError(f"row {index} has no such volume (null)")
        return Volume(row[self._column], Frame.from_row(row))


def _of_folder(
    folder: str | os.PathLike[str], column: str, config: str | None, split: str | None, kept: int
) -> Volumes:
    build = open_build(folder)
    with_volumes = [name for name in build.configs if build.config(name).schema.has_voxels]
    config = _only("config", with_volumes, config)
    split = _only("split", list(build.splits(config)), split)
    names = [known.name for known in build.columns(config)]
    if column not in names or column not in ("volume", "lung_mask"):
        raise ValueError(f"{config} has no volumes in {column!r}; its columns are {', '.join(names)}")
    build.count(config, split)  # is there such a split?
    return Volumes(_FolderVolumes(build, column, config, split, kept))


def _only(what: str, names: Sequence[str], chosen: str | None) -> str:
    if chosen is None and len(names) != 1:
        raise ValueError(f"{what}: expected one of {', '.join(names) or 'none'}, got none")
    return names[0] if chosen is None else chosen


def _three(name: str, values: Sequence[Any] | None, *, positive: bool = False) -> Sequence[Any]:
    """Check a centre or a size: three numbers, positive ones where they must be."""
    if not hasattr(values, "__len__") or values is None or len(values) != 3 or not all(map(math.isfinite, values)):
        raise ValueError(f"{name}: expected three numbers x, y, z, got {values}")
    if positive and min(values) <= 0:
        raise ValueError(f"{name}: expected positive numbers, got {tuple(values)}")
    return values


def _times(numbers: Iterable[float]) -> str:
    return " x ".join(f"{number:g}" for number in numbers)


def _listed(numbers: Iterable[float]) -> str:
    return f"({', '.join(f'{number:g}' for number in numbers)})"
