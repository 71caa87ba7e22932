"""The volumes of a loaded dataset as arrays that cost nothing: views of the memory-mapped Arrow cells, no copy.

A patch then costs what its memory pages cost. (``row["volume"]["bytes"]`` copies the whole cell each time.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from lung_nodule_ct.cells import Cells
from lung_nodule_ct.geometry import Frame

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: What stands outside a volume: the HU of air in CT, black in 8-bit stacks and masks.
_OUTSIDE = {"int16": -1024, "uint8": 0}


@dataclass(frozen=True, eq=False)
class Volume:
    """One volume of a loaded dataset.

    Attributes:
        array: A read-only view of the stored voxels, axes (z, y, x); int16 in Hounsfield units, or uint8.
        frame: Where they are; ``None`` in ``det3d_bmp_1.25mm``, which has no world.
    """

    array: NDArray[Any]
    frame: Frame | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """z, y, x."""
        z, y, x = self.array.shape
        return z, y, x

    def numpy(self) -> NDArray[Any]:
        """A copy of the whole volume, to be written to."""
        return self.array.copy()

    def slice(self, index: int) -> NDArray[Any]:
        """The axial slice ``index`` as a view, axes (y, x)."""
        view: NDArray[Any] = self.array[index]
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
        if taken.shape == tuple(extent):
            return taken.copy()
        patch = np.full(extent, _OUTSIDE[self.array.dtype.name] if outside is None else outside, self.array.dtype)
        if taken.size:
            place = tuple(slice(own.start - start, own.stop - start) for own, start in zip(inside, starts, strict=True))
            patch[place] = taken
        return patch


class Volumes(Sequence[Volume]):
    """The volumes of a loaded dataset, as a sequence of views. Made by :func:`volumes`."""

    def __init__(self, dataset: Any, column: str) -> None:
        framed = "direction" in dataset.column_names
        table = dataset.data
        self._cells = Cells(table.column(column), "<i2" if framed and column == "volume" else "u1")
        self._geometry = (
            [table.column(name).to_pylist() for name in ("origin", "spacing", "direction")] if framed else []
        )
        self._indices = dataset._indices  # which rows a selected or shuffled dataset shows
        self._count = len(dataset)

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
        row = index % len(self)
        if self._indices is not None:
            row = self._indices.column(0)[row].as_py()
        array = self._cells[row]
        if not self._geometry:
            return Volume(array)
        origin, spacing, direction = (values[row] for values in self._geometry)
        return Volume(array, Frame(tuple(origin), tuple(spacing), tuple(direction)))


def volumes(dataset: Any, column: str = "volume") -> Volumes:
    """The volumes of a loaded split, as a sequence of zero-copy views.

    Args:
        dataset: A ``datasets.Dataset`` of a volume config, prepared or loaded from a built folder; selections and
            shuffles are followed.
        column: ``volume`` or ``lung_mask``. A scan without a mask raises ``ValueError`` when it is asked for.

    Raises:
        ValueError: ``dataset`` has no such column, or is no memory-mapped dataset.
    """
    if not hasattr(dataset, "data") or not hasattr(dataset, "_indices"):
        raise ValueError(f"dataset: expected a loaded split (datasets.Dataset), got {type(dataset).__name__}")
    if column not in dataset.column_names or column not in ("volume", "lung_mask"):
        raise ValueError(f"dataset: it has no volumes in {column!r}; its columns are {', '.join(dataset.column_names)}")
    return Volumes(dataset, column)
