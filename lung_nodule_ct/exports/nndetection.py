"""nnDetection: ``raw_splitted`` with instance masks from spheres (https://github.com/MIC-DKFZ/nnDetection, "Adding New Data Sets")."""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING, Any, Final

from lung_nodule_ct.declaration.labels import TEST
from lung_nodule_ct.declaration.manifest import to_json
from lung_nodule_ct.exports.cases import case_of
from lung_nodule_ct.exports.counted import Counted
from lung_nodule_ct.exports.nifti_file import SUFFIX, write_nifti
from lung_nodule_ct.exports.spheres import draw_spheres

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from lung_nodule_ct.read.rows import Placed

TASK: Final = "Task100_LungNoduleCT"
_NODULE = 0


def write(rows: Iterable[Placed], folder: Path) -> Counted:
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
