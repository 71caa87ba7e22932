"""A scan as one value: voxels, frame, lung mask and nodules, which stay together when the grid changes.

The world positions and the diameters of the nodules are what is known. Their positions and boxes in voxels follow from the frame, by the
same rules as in a build, so that they fit every grid exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lung_nodule_ct.geometry.boxes import sphere_box
from lung_nodule_ct.geometry.display import LUNG, Window
from lung_nodule_ct.geometry.frame import Frame
from lung_nodule_ct.read.planes import summary_html
from lung_nodule_ct.read.volumes import Volume
from lung_nodule_ct.read.voxel_columns import decode_cell

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from lung_nodule_ct.geometry.frame import Boxes


@dataclass(frozen=True, eq=False, repr=False)
class Scan(Volume):
    """A volume with its frame, and what belongs to it.

    Attributes:
        lung_mask: Labels, axes (z, y, x), the shape of the volume; ``None`` if there is no mask.
        nodules: Entries of the column ``nodules``: ``center_world`` in LPS mm, ``diameter_mm``, and what else is known. Their
            ``center_voxel`` and ``box_voxel`` are computed from these and the frame; a box is ``None`` if there is no positive diameter, or
            if it contains no voxel of the volume.

    Raises:
        ValueError: There is no frame, the volume does not have three axes, or the mask has another shape.

    Example:
        >>> frame = Frame(origin=(0.0, 0.0, 0.0), spacing=(1.0, 1.0, 2.0))
        >>> nodule = {"center_world": (5.0, 6.0, 8.0), "diameter_mm": 4.0}
        >>> scan = Scan(np.zeros((10, 12, 12), np.int16), frame, nodules=(nodule,))
        >>> scan.nodules[0]["center_voxel"], scan.nodules[0]["box_voxel"]
        ((5.0, 6.0, 4.0), (3, 4, 3, 8, 9, 6))
    """

    lung_mask: NDArray[np.uint8] | None = None
    nodules: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if self.frame is None:
            raise ValueError("frame: a scan needs one; a stack of slices without spacing has no world positions")
        if len(self.array.shape) != 3:
            raise ValueError(f"array: expected the axes z, y, x, got the shape {tuple(self.array.shape)}")
        if self.lung_mask is not None and tuple(self.lung_mask.shape) != self.shape:
            raise ValueError(f"lung_mask: expected the shape {self.shape}, got {tuple(self.lung_mask.shape)}")
        placed = tuple(_placed(nodule, self.frame, self.shape) for nodule in self.nodules)
        object.__setattr__(self, "nodules", placed)

    def __repr__(self) -> str:
        mask = "no lung mask" if self.lung_mask is None else "lung mask"
        nodules = "1 nodule" if len(self.nodules) == 1 else f"{len(self.nodules)} nodules"
        return f"{super().__repr__()[:-1]}; {mask}, {nodules})"

    def _repr_html_(self) -> str:
        """The scan in a notebook, with its nodules."""
        return summary_html(repr(self), self.array[...], self.frame, self.nodules)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Scan:
        """Return the scan of a row of ``det3d_1.25mm``, ``det3d_5mm`` or ``longitudinal``.

        Args:
            row: A row of :func:`lung_nodule_ct.load`, or of a build folder.

        Raises:
            ValueError: The row has no volume or no frame.
        """
        if row.get("volume") is None:
            raise ValueError(f"row: expected a volume, got the columns {', '.join(row)}")
        mask = row.get("lung_mask")
        return cls(
            _voxels(row["volume"]),
            Frame.from_row(row),
            None if mask is None else np.asarray(_voxels(mask)[...]),
            tuple(row.get("nodules") or ()),
        )

    @classmethod
    def from_volume(cls, volume: Volume) -> Scan:
        """Return a volume as a scan; a scan is returned itself.

        Raises:
            ValueError: The volume has no frame.
        """
        return volume if isinstance(volume, Scan) else cls(volume.array, volume.frame)

    @property
    def grid(self) -> tuple[Frame, tuple[int, int, int]]:
        """Frame and shape (z, y, x)."""
        assert self.frame is not None  # noqa: S101 -- checked when the scan was made
        return self.frame, self.shape


def map_boxes(boxes: ArrayLike, source: Frame, target: Frame) -> Boxes:
    """Move boxes from one grid to another, for example the boxes that a detector found on a resampled scan.

    Args:
        boxes: Half-open ``x0 y0 z0 x1 y1 z1`` in voxels of ``source``, shape (n, 6) or (6,).
        source: The frame of the boxes.
        target: The frame to move them to.

    Returns:
        The smallest boxes in voxels of ``target`` that contain them, not rounded, on the same scale of voxel faces.

    Raises:
        ValueError: A box does not have six numbers.

    Example:
        >>> fine, thick = Frame(spacing=(1.0, 1.0, 1.0)), Frame(origin=(0.0, 0.0, 0.5), spacing=(1.0, 1.0, 2.0))
        >>> map_boxes([2, 3, 4, 6, 7, 8], fine, thick).tolist()
        [2.0, 3.0, 2.0, 6.0, 7.0, 4.0]
    """
    array = np.asarray(boxes, np.float64)
    if array.shape[-1:] != (6,) or array.ndim not in (1, 2):
        raise ValueError(f"boxes: expected shape (n, 6) or (6,), got {array.shape}")
    corners = np.stack(np.meshgrid([0, 3], [1, 4], [2, 5], indexing="ij"), -1).reshape(-1, 3)
    world = source.to_world(array.reshape(-1, 6)[:, corners].reshape(-1, 3) - 0.5)
    voxel = target.to_voxel(world).reshape(-1, len(corners), 3) + 0.5
    moved: Boxes = np.concatenate([voxel.min(axis=1), voxel.max(axis=1)], axis=1)
    return moved.reshape(array.shape)


def window(volume: Volume, window: Window = LUNG) -> NDArray[np.uint8]:
    """Return the volume as greys, axes (z, y, x).

    Args:
        volume: In HU.
        window: The range of HU that is displayed; black below, white above.

    Example:
        >>> window(Volume(np.array([[[-1350, -600, 150]]], np.int16))).tolist()
        [[[0, 128, 255]]]
    """
    grey = np.empty(volume.shape, np.uint8)
    for index in range(len(grey)):
        grey[index] = window.to_grey(volume.array[index])
    return grey


def _voxels(cell: Any) -> Any:
    """The voxels of a cell, which is a dictionary in a loaded dataset and an array in a row of a build folder."""
    return decode_cell(memoryview(cell["bytes"]), cell["shape"]) if isinstance(cell, Mapping) else cell


def _placed(nodule: Mapping[str, Any], frame: Frame, shape: tuple[int, int, int]) -> dict[str, Any]:
    """An entry with its position and box in the voxels of a grid."""
    if nodule.get("center_world") is None:
        raise ValueError(f"nodules: expected center_world in LPS mm, got the entries {', '.join(nodule)}")
    center = tuple(frame.to_voxel(nodule["center_world"]).tolist())
    diameter = nodule.get("diameter_mm")
    box = None
    if diameter is not None and diameter > 0:
        box = sphere_box(center, diameter, frame.spacing, shape).clipped
    return {**nodule, "center_voxel": center, "box_voxel": box}
