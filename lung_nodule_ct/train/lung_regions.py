"""The lungs of a scan, to which predictions are cropped. Boxes are z0 y0 x0 z1 y1 x1 in stored voxels, on the scale of edges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lung_nodule_ct.train.data.volumes import Patches
    from lung_nodule_ct.train.tasks import Prediction

CLOSING_MM: Final = 6.0
"""Half of the width of the gaps and holes of a mask that are closed."""


def closed_lungs(mask: NDArray[Any], spacing: NDArray[np.float64]) -> NDArray[np.bool_]:
    """A lung mask with the nodules at its border. Published masks often leave them out.

    Args:
        mask: Not 0 in the lungs, axes (z, y, x).
        spacing: z, y, x in mm.
    """
    lung = mask > 0
    radius = np.maximum(np.round(CLOSING_MM / spacing), 1).astype(int)
    size = tuple((2 * radius + 1).tolist())
    padded = np.pad(lung, [(n, n) for n in radius])
    closed: NDArray[np.bool_] = ndimage.minimum_filter(ndimage.maximum_filter(padded, size), size)
    inner = tuple(slice(n, n + length) for n, length in zip(radius, lung.shape, strict=True))
    return closed[inner] | lung


def lungs_of(source: Patches, index: int) -> NDArray[np.bool_] | None:
    """The closed lungs of a scan; ``None`` if it has no mask of its shape, or an empty one."""
    if "lung_mask" not in source.rows.schema.names:
        return None
    mask = source.rows.voxels(index, "lung_mask")
    if mask is None or mask.shape != source.volume(index).shape or not mask.any():
        return None
    return closed_lungs(mask, source.spacing(index))


def touches(lungs: NDArray[np.bool_], low: NDArray[np.float64], high: NDArray[np.float64]) -> bool:
    """Whether a part of a scan, from ``low`` to ``high``, has a voxel of the lungs."""
    first, end = np.maximum(np.floor(low), 0).astype(int), np.maximum(np.ceil(high), 0).astype(int)
    return bool(lungs[tuple(slice(a, b) for a, b in zip(first, end, strict=True))].any())


def are_inside(lungs: NDArray[np.bool_], boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether the centre of each box is in a voxel of the lungs, shape (k,)."""
    voxels = np.floor((boxes[:, :3] + boxes[:, 3:]) / 2).astype(int)
    inside = np.asarray(((voxels >= 0) & (voxels < np.array(lungs.shape))).all(1), bool)
    inside[inside] = lungs[tuple(voxels[inside].T)]
    return inside


def lung_crop_counts(predictions: Sequence[Prediction]) -> dict[str, int] | None:
    """What the crop to the lungs did: ``cropped`` scans, scans predicted ``whole``, and ``nodules_outside`` of the lungs.

    ``None`` if predictions are not cropped.
    """
    if not predictions or "nodules_outside_lungs" not in predictions[0]:
        return None
    outside = [row["nodules_outside_lungs"] for row in predictions]
    cropped = [count for count in outside if count is not None]
    return {"cropped": len(cropped), "whole": outside.count(None), "nodules_outside": sum(cropped)}


def describe_lung_crop(counts: dict[str, int]) -> str:
    """The sentence that is printed with the scores of cropped predictions."""
    text = f"Cropped to the lungs: {counts['cropped']:,} scans"
    text += f", of which {counts['nodules_outside']:,} nodules are outside of the lung masks and cannot be found. "
    return text + f"Predicted whole, without a lung mask: {counts['whole']:,} scans."
