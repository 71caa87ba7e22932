"""A detector that learns nothing: smoothing, a threshold, connected components. What is trained must beat it.

A component's score is the diameter of a ball of its volume times the share of its bounding box that it fills. Nodules are
large and round, vessels are long, and walls belong to components that fill little of their box.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeGuard

import numpy as np
from scipy import ndimage

from lung_nodule_ct.train.box_prediction import volume_prediction
from lung_nodule_ct.train.data.volumes import Patches
from lung_nodule_ct.train.lung_regions import closed_lungs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from lung_nodule_ct.train.data import DataSource
    from lung_nodule_ct.train.tasks import Prediction

THRESHOLD_HU: Final = -300.0
_SMOOTHING_MM: Final = 0.8
_SMALLEST_MM3: Final = 15.0


def is_learning_free_possible(source: DataSource) -> TypeGuard[Patches]:
    """Whether the examples are scans in Hounsfield units whose nodules are to be detected."""
    return isinstance(source, Patches) and source.rows.schema.has_frame


def predict_by_threshold(source: Patches, threshold_hu: float = THRESHOLD_HU) -> Iterator[Prediction]:
    """Yield the prediction for each scan, as the task of detection does.

    Args:
        source: The scans. If they have lung masks, only components in the lungs count.
        threshold_hu: What is denser may be a nodule.
    """
    has_masks = "lung_mask" in source.rows.schema.names
    for index in range(len(source)):
        mask = source.rows.voxels(index, "lung_mask") if has_masks else None
        boxes, scores = dense_components(source.volume(index), source.spacing(index), mask, threshold_hu)
        yield volume_prediction(source, index, boxes, scores)


def dense_components(
    volume: NDArray[Any], spacing: NDArray[np.float64], lung_mask: NDArray[Any] | None, threshold_hu: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The dense components of a volume, the highest score first.

    Args:
        volume: Hounsfield units, axes (z, y, x).
        spacing: z, y, x in mm.
        lung_mask: Not 0 in the lungs. Holes and gaps of a few millimetres are closed.
        threshold_hu: What is denser may be a nodule.

    Returns:
        Cubes of the components' volumes around their centres, shape (n, 6), in voxels; and their scores, shape (n,).
    """
    dense = ndimage.gaussian_filter(volume.astype(np.float32), _SMOOTHING_MM / spacing) > threshold_hu
    if lung_mask is not None and lung_mask.any():
        dense &= closed_lungs(lung_mask, spacing)
    labels, count = ndimage.label(dense)
    if not count:
        return np.zeros((0, 6)), np.zeros(0)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:] * spacing.prod()
    bounds = np.array([[[axis.start, axis.stop] for axis in box] for box in ndimage.find_objects(labels)], float)
    sides = np.cbrt(sizes)
    fill = sizes / ((bounds[..., 1] - bounds[..., 0]) * spacing).prod(1)
    kept = np.flatnonzero(sizes > _SMALLEST_MM3)
    kept = kept[np.argsort(-(sides * fill)[kept], kind="mergesort")]
    centers = np.array(ndimage.center_of_mass(dense, labels, kept + 1)).reshape(-1, 3) + 0.5
    half = sides[kept, None] / 2 / spacing
    return np.concatenate([centers - half, centers + half], 1), (sides * fill)[kept]
