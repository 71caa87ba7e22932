"""Scans for nnU-Net 2: images, label maps, ``dataset.json``, and splits by patient.

There is no published segmentation of a nodule, so what a label map shows is one of two things, and the name of the dataset,
``dataset.json`` and the output say which: spheres of the published diameter, or the lungs. The layout is described in
https://github.com/MIC-DKFZ/nnUNet, "nnU-Net dataset format".
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lung_nodule_ct.declaration.labels import TEST
from lung_nodule_ct.declaration.manifest import to_json
from lung_nodule_ct.declaration.published import HOMEPAGE
from lung_nodule_ct.declaration.schema import Voxels
from lung_nodule_ct.errors import ExportError
from lung_nodule_ct.export.formats import (
    ExportSummary,
    column_names,
    patient_splits,
    records_of,
    scan_stem,
    shortened_list,
)
from lung_nodule_ct.export.nifti import SUFFIX, save_nifti, sheared_note
from lung_nodule_ct.export.nndetection import draw_spheres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from lung_nodule_ct.declaration.schema import Schema
    from lung_nodule_ct.read.rows import IndexedRow


@dataclass(frozen=True, slots=True)
class _Labels:
    """The label map of a scan.

    Attributes:
        voxels: uint8, axes (z, y, x): 0 and 1; ``None`` if the scan has none.
        annotations: Number of annotations in it.
        left_out: Number of annotations that are not.
    """

    voxels: NDArray[np.uint8] | None
    annotations: int
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class _Task:
    """A dataset of nnU-Net.

    Attributes:
        name: Name of its folder.
        label: Name of the label 1.
        meaning: What the label is, in one sentence.
        labels_of: Makes the label map of a row.
    """

    name: str
    label: str
    meaning: str
    labels_of: Callable[[Schema, IndexedRow], _Labels]


def _sphere_labels(schema: Schema, indexed: IndexedRow) -> _Labels:
    row = indexed.row
    annotated = records_of(schema, row, "center_world", "diameter_mm")
    spheres = [
        (nodule["center_world"], nodule["diameter_mm"]) for nodule in annotated if (nodule["diameter_mm"] or 0) > 0
    ]
    instances, drawn = draw_spheres(row[column_names(schema, Voxels)[0]].shape, indexed.frame, spheres)
    return _Labels((instances > 0).astype(np.uint8), len(drawn), len(annotated) - len(drawn))


def _lung_labels(schema: Schema, indexed: IndexedRow) -> _Labels:
    mask = indexed.row[column_names(schema, Voxels)[1]]
    return _Labels(None, 0) if mask is None else _Labels((mask > 0).astype(np.uint8), 1)


SPHERES: Final = _Task(
    "Dataset100_LungNoduleSpheres",
    "sphere_of_published_diameter",
    "The label is a sphere of the published diameter around the published centre of each nodule. It is not a segmentation: "
    "nobody drew the outline of a nodule",
    _sphere_labels,
)
LUNGS: Final = _Task(
    "Dataset101_Lungs",
    "lung",
    "The label is the lung mask of the build, both lungs as one label. No nodule is marked",
    _lung_labels,
)


def write_nnunet(schema: Schema, rows: Iterable[IndexedRow], folder: Path) -> ExportSummary:
    """Write scans whose label is a sphere for each nodule. A sphere without a voxel in the volume is left out."""
    return _write(SPHERES, schema, rows, folder)


def write_nnunet_lungs(schema: Schema, rows: Iterable[IndexedRow], folder: Path) -> ExportSummary:
    """Write scans whose label is their lung mask. Scans without a mask are left out and named."""
    return _write(LUNGS, schema, rows, folder)


def _write(task: _Task, schema: Schema, rows: Iterable[IndexedRow], folder: Path) -> ExportSummary:
    """Write ``nnUNet_raw``, and ``nnUNet_preprocessed`` with ``splits_final.json``.

    Every split except ``test`` is training data of nnU-Net. Its own cross-validation would put scans of one patient on
    both sides, so the splits are those of the patient folds.
    """
    volume = column_names(schema, Voxels)[0]
    raw = folder / "nnUNet_raw" / task.name
    folds: dict[int, list[str]] = {}
    counts = {"Tr": 0, "Ts": 0}
    annotations = left_out = without_fold = 0
    sheared: list[str] = []
    without_labels: list[str] = []
    for indexed in rows:
        row, case, frame = indexed.row, scan_stem(indexed), indexed.frame
        labels = task.labels_of(schema, indexed)
        if labels.voxels is None:
            without_labels.append(case)
            continue
        sheared += [] if frame.is_orthonormal else [case]
        part = "Ts" if indexed.split == TEST else "Tr"
        save_nifti(raw / f"images{part}" / f"{case}_0000{SUFFIX}", row[volume], frame)
        save_nifti(raw / f"labels{part}" / f"{case}{SUFFIX}", labels.voxels, frame)
        if part == "Tr":
            fold = row.get("fold")
            without_fold += fold is None
            if fold is not None:
                folds.setdefault(fold, []).append(case)
        counts[part] += 1
        annotations += labels.annotations
        left_out += labels.left_out
    if without_labels and not sum(counts.values()):
        raise ExportError(
            "no scan has a lung mask",
            got=f"{len(without_labels):,} scans without one",
            remedy="build with --make-lung-masks, or export another config",
        )
    raw.mkdir(parents=True, exist_ok=True)
    (raw / "dataset.json").write_text(to_json(_document(task, counts["Tr"], sheared)), encoding="utf-8")
    if splits := patient_splits(folds):
        preprocessed = folder / "nnUNet_preprocessed" / task.name
        preprocessed.mkdir(parents=True)
        (preprocessed / "splits_final.json").write_text(json.dumps(splits, indent=2), encoding="utf-8")
    notes = (task.meaning, *sheared_note(sheared, "dataset.json therefore chooses NibabelIO"))
    if without_labels:
        notes += (
            f"{len(without_labels):,} scans have no lung mask and are left out: {shortened_list(without_labels)}",
        )
    if without_fold:
        notes += (f"{without_fold:,} scans have no fold and are in no split of splits_final.json",)
    if not splits and sum(counts.values()) > 1:
        notes += (
            "there is no splits_final.json, because the scans do not have several folds: nnU-Net will split at random, and "
            "scans of one patient may be on both sides",
        )
    return ExportSummary(sum(counts.values()), annotations, left_out, notes)


def _document(task: _Task, num_training: int, sheared: list[str]) -> dict[str, Any]:
    document: dict[str, Any] = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, task.label: 1},
        "numTraining": num_training,
        "file_ending": SUFFIX,
        "name": task.name,
        "description": f"{task.meaning}.",
        "reference": HOMEPAGE,
    }
    return document | ({"overwrite_image_reader_writer": "NibabelIO"} if sheared else {})
