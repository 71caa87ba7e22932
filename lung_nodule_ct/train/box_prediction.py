"""Predicted boxes of slices and volumes, from the candidates that a detector finds in slices or in overlapping patches.

Boxes are low and high corners in array order, shape (…, 2 n) for n axes, unless stated otherwise.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Final

import numpy as np

from lung_nodule_ct.train.batches import evaluation_batches, load_ahead, stack_examples
from lung_nodule_ct.train.boxes import fuse, suppress
from lung_nodule_ct.train.lung_regions import are_inside, lungs_of, touches
from lung_nodule_ct.train.models import detector_module

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from lung_nodule_ct.train.data import Arrays
    from lung_nodule_ct.train.data.images import Slices
    from lung_nodule_ct.train.data.volumes import Patches
    from lung_nodule_ct.train.recipes import Recipe
    from lung_nodule_ct.train.tasks import Apply, Prediction

_MAX_BOXES: Final = 100
"""Predicted boxes per slice or volume."""
_MIN_SCORE: Final = 0.01
_MAX_IOU: Final = 0.3
"""The largest IoU of two predicted boxes."""


def predict_slices(source: Slices, apply: Apply, recipe: Recipe) -> Iterator[Prediction]:
    """Predict each slice. ``boxes`` are x0 y0 x1 y1."""
    for indices, batch in evaluation_batches(source, recipe):
        output = apply(batch)
        for index, candidates, candidate_scores in zip(indices, output["boxes"], output["scores"], strict=False):
            boxes, scores = _select_boxes(candidates, candidate_scores, recipe)
            yield {
                "id": source.ids[index],
                "patient_id": source.patients[index],
                "number": index,
                "boxes": boxes[:, [1, 0, 3, 2]].tolist(),
                "scores": scores.tolist(),
                "truth_boxes": source.published_boxes(index).tolist(),
            }


def predict_volumes(source: Patches, apply: Apply, recipe: Recipe) -> Iterator[Prediction]:
    """Predict each volume by overlapping patches. ``boxes`` are x0 y0 z0 x1 y1 z1 on the scale of voxel edges.

    If the recipe crops to the lungs, rows have ``nodules_outside_lungs``, the number of nodules that cannot be found, or ``None``
    if the scan has no lung mask and was predicted whole.
    """
    for index in range(len(source)):
        lungs = lungs_of(source, index) if recipe.inference.lungs else None
        boxes, scores = _volume_candidates(source, index, apply, recipe, lungs)
        if recipe.inference.fusion == "weighted":
            boxes, scores = fuse(boxes, scores, _MAX_IOU, len(_views(recipe)))
            boxes, scores = boxes[:_MAX_BOXES], scores[:_MAX_BOXES]
        else:
            boxes, scores = _select_boxes(boxes, scores, recipe)
        row = volume_prediction(source, index, boxes, scores)
        if recipe.inference.lungs:
            outside = None if lungs is None else int((~are_inside(lungs, source.nodule_boxes(index))).sum())
            row["nodules_outside_lungs"] = outside
        yield row


def volume_prediction(
    source: Patches, index: int, boxes: NDArray[np.float64], scores: NDArray[np.float64]
) -> Prediction:
    """The prediction for a volume together with the truth.

    Args:
        source: The volumes.
        index: The volume.
        boxes: z0 y0 x0 z1 y1 x1 on the scale of voxel edges, shape (k, 6).
        scores: Shape (k,).
    """
    centers = _voxel_centers(boxes)
    truth = source.nodule_boxes(index)
    frame = source.frame(index)
    if frame is None:
        true_centers = _voxel_centers(truth)
        diameters = (truth[:, 3:] - truth[:, :3]).mean(1)
    else:
        nodules = source.sized_nodules(index)
        centers = frame.to_world(centers)
        true_centers = np.array([nodule["center_world"] for nodule in nodules]).reshape(-1, 3)
        diameters = np.array([nodule["diameter_mm"] for nodule in nodules])
    return {
        "id": source.ids[index],
        "patient_id": source.patients[index],
        "number": index,
        "boxes": boxes[:, [2, 1, 0, 5, 4, 3]].tolist(),
        "scores": scores.tolist(),
        "centers": centers.tolist(),
        "truth_centers": true_centers.tolist(),
        "truth_diameters": diameters.tolist(),
        "truth_boxes": truth[:, [2, 1, 0, 5, 4, 3]].tolist(),
    }


def _voxel_centers(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """The centres of boxes z0 y0 x0 z1 y1 x1 as continuous voxel indices x, y, z."""
    return ((boxes[:, :3] + boxes[:, 3:]) / 2)[:, ::-1] - 0.5


def _volume_candidates(
    source: Patches, index: int, apply: Apply, recipe: Recipe, lungs: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The candidates of all patches of a volume, or of those in the lungs, in stored voxels: boxes (k, 6) and scores (k,)."""
    first_voxels = source.grid(index, recipe.inference.overlap)
    boxes, scores = [np.zeros((0, 6))], [np.zeros(0)]
    target = recipe.input.spacing_mm
    scale = (
        np.ones(3) if target is None else np.array(target) / source.spacing(index)
    )  # resampled voxels to stored ones
    shift = (np.array(source.extent) - scale * recipe.input.size) / 2
    if lungs is not None:
        side = scale * recipe.input.size
        first_voxels = [first for first in first_voxels if touches(lungs, first + shift, first + shift + side)]
    parts = [
        first_voxels[start : start + recipe.batch_size] for start in range(0, len(first_voxels), recipe.batch_size)
    ]

    def load(part: list[NDArray[np.int64]]) -> Arrays:
        return stack_examples((source.patch(index, first) for first in part), recipe.batch_size)

    for part, batch in zip(parts, load_ahead(load, parts, recipe.threads), strict=True):
        for view in _views(recipe):
            output = apply(batch | {"image": np.flip(batch["image"], tuple(axis + 1 for axis in view))})
            for first, patch_boxes, patch_scores in zip(part, output["boxes"], output["scores"], strict=False):
                seen = patch_boxes
                for axis in view:
                    seen = seen.copy()
                    seen[:, [axis, axis + 3]] = recipe.input.size[axis] - seen[:, [axis + 3, axis]]
                found = patch_scores
                if recipe.inference.fusion == "weighted":
                    seen, found = _select_boxes(seen, found, recipe)
                boxes.append(seen * np.tile(scale, 2) + np.tile(shift + first, 2))
                scores.append(found)
    found_boxes, found_scores = np.concatenate(boxes), np.concatenate(scores)
    if lungs is None:
        return found_boxes, found_scores
    inside = are_inside(lungs, found_boxes)
    return found_boxes[inside], found_scores[inside]


def _views(recipe: Recipe) -> list[tuple[int, ...]]:
    """The axes along which a patch is mirrored, for each view of it."""
    most = 3 if recipe.inference.mirrors else 0
    return [axes for count in range(most + 1) for axes in combinations(range(3), count)]


def _select_boxes(
    boxes: np.ndarray, scores: np.ndarray, recipe: Recipe
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The boxes that remain after suppression, and their scores, the highest first."""
    if recipe.model.network is None:
        lowest, max_iou, most = _MIN_SCORE, _MAX_IOU, _MAX_BOXES
    else:
        module = detector_module(recipe.model.network)
        lowest, max_iou, most = module.MIN_SCORE, module.MAX_IOU, module.MAX_BOXES
    boxes, scores = boxes[scores >= lowest].astype(np.float64), scores[scores >= lowest].astype(np.float64)
    kept = suppress(boxes, scores, max_iou)[:most]
    return boxes[kept], scores[kept]
