"""One row of each kind of config, as a ``TypedDict``: what an example holds, and what readers of a build return.

The keys are the columns of the schema (see :mod:`.configs`), which documents units and axis order. ``source_name`` is only present
in a build that keeps source names. Voxels are arrays with axes (z, y, x), pictures their encoded bytes, categories their index.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NotRequired, TypedDict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class ObjectRecord(TypedDict):
    """One annotated box of a slice: ``xmin, ymin, xmax, ymax`` in pixels, as published."""

    bbox: Sequence[float]
    category: int
    area: float


class NoduleRecord(TypedDict):
    """One annotated nodule of a scan. ``longitudinal`` has the columns of its track."""

    nodule_id: str
    center_world: Sequence[float]
    center_voxel: Sequence[float]
    diameter_mm: float | None
    box_voxel: Sequence[int] | None
    pathology: int | None
    key_slice: int | None
    key_slice_basis: str | None
    track_id: NotRequired[str | None]
    track_confidence: NotRequired[float | None]
    track_event: NotRequired[str | None]
    track_parent_id: NotRequired[str | None]
    track_ended: NotRequired[bool | None]
    track_reason: NotRequired[str | None]
    track_pathology: NotRequired[int | None]


class StackNoduleRecord(TypedDict):
    """One annotated nodule of a slice stack."""

    box_voxel: Sequence[int] | None
    center_voxel: Sequence[float]
    diameter: float | None


class CropRow(TypedDict):
    """A nodule crop with its pathology class (``cls_1.25mm``)."""

    image: bytes
    label: int
    malignant: bool
    image_id: str
    patient_id: str | None
    scan_id: str | None
    fold: int | None
    source_name: NotRequired[str]


class SliceRow(TypedDict):
    """A slice with its nodule boxes (``det2d_1.25mm``)."""

    image: bytes
    image_id: str
    width: int
    height: int
    objects: Sequence[ObjectRecord]
    patient_id: str | None
    scan_id: str | None
    fold: int | None
    source_name: NotRequired[str]


class ScanRow(TypedDict):
    """A CT volume with its geometry, nodules and lung mask (``det3d_*``, ``longitudinal``)."""

    scan_id: str | None
    patient_id: str | None
    timepoint: int | None
    num_timepoints: int | None
    days_since_first: int | None
    fold: int | None
    slice_thickness_mm: float
    volume: NDArray[np.int16]
    lung_mask: NDArray[np.uint8] | None
    lung_mask_origin: str | None
    spacing: Sequence[float]
    origin: Sequence[float]
    direction: Sequence[float]
    nodules: Sequence[NoduleRecord]
    source_name: NotRequired[str]


class StackRow(TypedDict):
    """A stack of 8-bit slices with its nodules (``det3d_bmp_1.25mm``)."""

    case_id: str
    volume: NDArray[np.uint8]
    nodules: Sequence[StackNoduleRecord]
    augmented: bool | None
    fold: int | None
    source_name: NotRequired[str]
