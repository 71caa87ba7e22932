"""Instance masks from spheres: a centre and a diameter become the voxels whose centres lie inside.

nnDetection: ``raw_splitted`` with instance masks from spheres (https://github.com/MIC-DKFZ/nnDetection, "Adding New Data Sets").
"""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lung_nodule_ct.declaration.labels import TEST
from lung_nodule_ct.declaration.manifest import to_json
from lung_nodule_ct.export.nifti import SUFFIX, write_nifti
from lung_nodule_ct.export.written import Counted, case_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from lung_nodule_ct.geometry.frame import Frame
    from lung_nodule_ct.read.rows import IndexedRow


_SURFACE = 1e-6  # mm; a voxel's centre on the surface belongs to the sphere


def draw_spheres(
    shape: tuple[int, int, int], frame: Frame, spheres: Sequence[tuple[Sequence[float], float]]
) -> tuple[NDArray[Any], list[int]]:
    """Draw spheres as instances, the large ones first, so that a small one on a large one stays.

    A sphere too small to hold a voxel's centre marks the voxel that its own centre lies in.

    Args:
        shape: z, y, x.
        frame: Where the volume is.
        spheres: World centre x, y, z in LPS mm, and diameter in mm.

    Returns:
        The labels, uint8 or uint16, axes (z, y, x): 0 outside, then 1, 2, … without a gap; and which sphere each of those is.
        A sphere without a voxel in the volume, or wholly under others, has none.
    """
    if len(spheres) >= 1 << 16:
        raise ValueError(f"a mask holds at most 65,535 instances, got {len(spheres):,}")
    labels = np.zeros(shape, np.uint8 if len(spheres) < 1 << 8 else np.uint16)
    for number in sorted(range(len(spheres)), key=lambda number: -spheres[number][1]):
        z, y, x = _inside(shape, frame, *spheres[number])
        labels[z, y, x] = number + 1
    drawn = [int(label) - 1 for label in np.unique(labels) if label]
    for new, old in enumerate(drawn, 1):
        if new != old + 1:
            labels[labels == old + 1] = new  # ascending, so no new label is taken by an old one
    return labels, drawn


def _inside(
    shape: tuple[int, int, int], frame: Frame, center_world: Sequence[float], diameter_mm: float
) -> NDArray[np.int64]:
    """Indices z, y, x of the voxels of a sphere, shape (3, n)."""
    size = np.array(shape[::-1])
    center = frame.to_voxel(center_world)
    radius = diameter_mm / 2 + _SURFACE
    # the half extent of a ball along a voxel axis is its radius times the length of that row of the inverse matrix
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


def write(rows: Iterable[IndexedRow], folder: Path) -> Counted:
    """Write the task's folder, to be found through ``det_data=<folder>``.

    Every split but ``test`` is nnDetection's training data. ``preprocessed/splits_final.pkl`` holds cross-validation by the
    build's patient folds, since a split by scan would put scans of one patient on both sides.
    """
    task = folder / TASK
    folds: dict[int, list[str]] = {}
    images = nodules = left_out = nameless = 0
    tested = False
    for placed in rows:
        row, case, frame = placed.row, case_of(placed), placed.frame
        tested |= placed.split == TEST
        where = "Ts" if placed.split == TEST else "Tr"
        own = [nodule for nodule in row["nodules"] if nodule["diameter_mm"] > 0]
        spheres = [(nodule["center_world"], nodule["diameter_mm"]) for nodule in own]
        labels, drawn = draw_spheres(row["volume"].shape, frame, spheres)
        raw = task / "raw_splitted"
        write_nifti(raw / f"images{where}" / f"{case}_0000{SUFFIX}", row["volume"], frame)
        write_nifti(raw / f"labels{where}" / f"{case}{SUFFIX}", labels, frame)
        instances: dict[str, Any] = {
            "instances": {str(number): _NODULE for number in range(1, len(drawn) + 1)},
            "nodule_ids": {str(number): own[place]["nodule_id"] for number, place in enumerate(drawn, 1)},
        }
        (raw / f"labels{where}" / f"{case}.json").write_text(to_json(instances), encoding="utf-8")
        if where == "Tr":
            if row["fold"] is None:
                nameless += 1
            else:
                folds.setdefault(row["fold"], []).append(case)
        images, nodules, left_out = images + 1, nodules + len(drawn), left_out + len(row["nodules"]) - len(drawn)
    _write_splits(task / "preprocessed", folds)
    document = {
        "task": TASK,
        "name": "lung_nodule_ct",
        "dim": 3,
        "target_class": None,
        "test_labels": tested,
        "labels": {str(_NODULE): "nodule"},
        "modalities": {"0": "CT"},
        "annotation_style": "seg",
    }
    (task / "dataset.json").write_text(to_json(document), encoding="utf-8")
    notes = (f"{nameless:,} scans have no fold and stand in no split of splits_final.pkl",) if nameless else ()
    return Counted(images, nodules, left_out, notes)


def _write_splits(folder: Path, folds: dict[int, list[str]]) -> None:
    """One split a fold that has scans; none where all scans are of one fold."""
    splits = [
        {"train": sorted(case for other in folds if other != fold for case in folds[other]), "val": sorted(folds[fold])}
        for fold in sorted(folds)
    ]
    if len(splits) > 1:
        folder.mkdir()
        (folder / "splits_final.pkl").write_bytes(pickle.dumps(splits))
        (folder / "splits_final.json").write_text(json.dumps(splits, indent=2), encoding="utf-8")
