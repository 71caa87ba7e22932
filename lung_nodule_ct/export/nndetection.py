"""Scans for nnDetection: ``raw_splitted`` with instance masks that are drawn from spheres.

The layout is described in https://github.com/MIC-DKFZ/nnDetection, "Adding New Data Sets".
"""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lung_nodule_ct.declaration.labels import TEST
from lung_nodule_ct.declaration.manifest import to_json
from lung_nodule_ct.declaration.schema import Voxels
from lung_nodule_ct.export.formats import ExportSummary, column_names, patient_splits, records_of, scan_stem
from lung_nodule_ct.export.nifti import SUFFIX, save_nifti, sheared_note

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from lung_nodule_ct.declaration.schema import Schema
    from lung_nodule_ct.geometry.frame import Frame
    from lung_nodule_ct.read.rows import IndexedRow


_SURFACE = 1e-6  # mm; a voxel whose centre lies on the surface belongs to the sphere


def draw_spheres(
    shape: tuple[int, int, int], frame: Frame, spheres: Sequence[tuple[Sequence[float], float]]
) -> tuple[NDArray[Any], list[int]]:
    """Draw spheres as instances, large ones first, so that a small sphere on top of a large one remains visible.

    A sphere that contains no voxel centre marks the voxel that contains the centre of the sphere.

    Args:
        shape: Shape of the volume (z, y, x).
        frame: Frame of the volume.
        spheres: World centre x, y, z in LPS mm, and diameter in mm.

    Returns:
        The labels, uint8 or uint16, axes (z, y, x): 0 outside, then 1, 2, … without gaps; and the index of the sphere
        of each label. A sphere without a voxel in the volume, or completely under others, has no label.
    """
    if len(spheres) >= 1 << 16:
        raise ValueError(f"a mask holds at most 65,535 instances, got {len(spheres):,}")
    labels = np.zeros(shape, np.uint8 if len(spheres) < 1 << 8 else np.uint16)
    for number in sorted(range(len(spheres)), key=lambda number: -spheres[number][1]):
        z, y, x = _voxels_inside(shape, frame, *spheres[number])
        labels[z, y, x] = number + 1
    drawn = [int(label) - 1 for label in np.unique(labels) if label]
    for new, old in enumerate(drawn, 1):
        if new != old + 1:
            labels[labels == old + 1] = new  # in ascending order, so a new label is never still in use
    return labels, drawn


def _voxels_inside(
    shape: tuple[int, int, int], frame: Frame, center_world: Sequence[float], diameter_mm: float
) -> NDArray[np.int64]:
    """Return the indices z, y, x of the voxels of a sphere, shape (3, n)."""
    size = np.array(shape[::-1])
    center = frame.to_voxel(center_world)
    radius = diameter_mm / 2 + _SURFACE
    # half the extent of a ball along a voxel axis is its radius times the norm of that row of the inverse matrix
    rows = (frame.to_voxel(np.eye(3)) - frame.to_voxel(np.zeros(3))).T
    reach = radius * np.linalg.norm(rows, axis=1)
    low = np.maximum(np.ceil(center - reach), 0).astype(int)
    high = np.minimum(np.floor(center + reach) + 1, size).astype(int)
    if (low < high).all():
        grid = np.stack(np.meshgrid(*map(np.arange, low, high), indexing="ij"), axis=-1).reshape(-1, 3)
        near = np.linalg.norm(frame.to_world(grid) - np.asarray(center_world), axis=1) <= radius
        if near.any():
            voxels: NDArray[np.int64] = grid[near].T[::-1]
            return voxels
    nearest = np.floor(center + 0.5).astype(np.int64)
    inside = bool(((nearest >= 0) & (nearest < size)).all())
    return nearest[::-1, None] if inside else np.zeros((3, 0), np.int64)


TASK: Final = "Task100_LungNoduleCT"
_NODULE = 0


def write_nndetection(schema: Schema, rows: Iterable[IndexedRow], folder: Path) -> ExportSummary:
    """Write the folder of the task, for ``det_data=<folder>``.

    Every split except ``test`` is training data of nnDetection. ``preprocessed/splits_final.pkl`` contains
    cross-validation by the patient folds of the build, because a split by scan would put scans of one patient on both
    sides.
    """
    volume = column_names(schema, Voxels)[0]
    task = folder / TASK
    raw = task / "raw_splitted"
    folds: dict[int, list[str]] = {}
    images = num_instances = left_out = without_fold = 0
    has_test = False
    sheared: list[str] = []
    for indexed in rows:
        row, case, frame = indexed.row, scan_stem(indexed), indexed.frame
        sheared += [] if frame.is_orthonormal else [case]
        is_test = indexed.split == TEST
        has_test |= is_test
        part = "Ts" if is_test else "Tr"
        annotated = records_of(schema, row, "center_world", "diameter_mm")
        nodules = [nodule for nodule in annotated if (nodule["diameter_mm"] or 0) > 0]
        spheres = [(nodule["center_world"], nodule["diameter_mm"]) for nodule in nodules]
        labels, drawn = draw_spheres(row[volume].shape, frame, spheres)
        save_nifti(raw / f"images{part}" / f"{case}_0000{SUFFIX}", row[volume], frame)
        save_nifti(raw / f"labels{part}" / f"{case}{SUFFIX}", labels, frame)
        instances: dict[str, Any] = {
            "instances": {str(number): _NODULE for number in range(1, len(drawn) + 1)},
            "nodule_ids": {str(number): nodules[index].get("nodule_id") for number, index in enumerate(drawn, 1)},
        }
        (raw / f"labels{part}" / f"{case}.json").write_text(to_json(instances), encoding="utf-8")
        if not is_test:
            if row.get("fold") is None:
                without_fold += 1
            else:
                folds.setdefault(row["fold"], []).append(case)
        images += 1
        num_instances += len(drawn)
        left_out += len(annotated) - len(drawn)
    if splits := patient_splits(folds):
        (task / "preprocessed").mkdir()
        (task / "preprocessed" / "splits_final.pkl").write_bytes(pickle.dumps(splits))
        (task / "preprocessed" / "splits_final.json").write_text(json.dumps(splits, indent=2), encoding="utf-8")
    document = {
        "task": TASK,
        "name": "lung_nodule_ct",
        "dim": 3,
        "target_class": None,
        "test_labels": has_test,
        "labels": {str(_NODULE): "nodule"},
        "modalities": {"0": "CT"},
        "annotation_style": "seg",
    }
    (task / "dataset.json").write_text(to_json(document), encoding="utf-8")
    notes = sheared_note(sheared, "nnDetection reads with SimpleITK and cannot use them")
    if without_fold:
        notes += (f"{without_fold:,} scans have no fold and are in no split of splits_final.pkl",)
    return ExportSummary(images, num_instances, left_out, notes)
