"""MONAI: NIfTI volumes and a datalist in the Decathlon's style, as ``load_decathlon_datalist(…, is_segmentation=False)`` reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lung_nodule_ct.declaration.labels import TEST, TRAIN, VALIDATION
from lung_nodule_ct.declaration.manifest import to_json
from lung_nodule_ct.export.nifti import SUFFIX, to_ras, write_nifti
from lung_nodule_ct.export.written import Counted, case_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from lung_nodule_ct.read.rows import IndexedRow

_KEYS = {TRAIN: "training", VALIDATION: "validation", TEST: "test"}
_NODULE = 0


def write(rows: Iterable[IndexedRow], folder: Path) -> Counted:
    """Write ``images``, ``lung_masks`` and ``datalist.json``.

    ``box`` is world ``cccwhd``: the centre and three times the diameter, in millimetres, in RAS, the world that MONAI gives to a
    NIfTI image it reads. So ``AffineBoxToImageCoordinated`` takes its default ``affine_lps_to_ras=False``; the LUNA16 tutorial's
    ``True`` is for MetaImage and LPS boxes. ``label`` is 0, nodule; ``fold`` is for ``select_cross_validation_folds``.
    """
    listed: dict[str, list[dict[str, Any]]] = {}
    images = nodules = left_out = 0
    for placed in rows:
        row, case, frame = placed.row, case_of(placed), placed.frame
        own = [nodule for nodule in row["nodules"] if nodule["diameter_mm"] > 0]
        entry = {
            "image": f"images/{case}{SUFFIX}",
            "box": [[*to_ras(nodule["center_world"]).tolist(), *[nodule["diameter_mm"]] * 3] for nodule in own],
            "label": [_NODULE] * len(own),
            "nodule_id": [nodule["nodule_id"] for nodule in own],
            "patient_id": row["patient_id"],
            "fold": row["fold"],
        }
        write_nifti(folder / entry["image"], row["volume"], frame)
        if row["lung_mask"] is not None:
            entry["lung_mask"] = f"lung_masks/{case}{SUFFIX}"
            write_nifti(folder / entry["lung_mask"], row["lung_mask"], frame)
        listed.setdefault(_KEYS.get(placed.split, placed.split), []).append(entry)
        images, nodules, left_out = images + 1, nodules + len(own), left_out + len(row["nodules"]) - len(own)
    head = {
        "name": "lung_nodule_ct",
        "modality": {"0": "CT"},
        "labels": {str(_NODULE): "nodule"},
        "box_mode": "cccwhd",
        "box_space": "world, RAS millimetres",
        "numTraining": len(listed.get(_KEYS[TRAIN], ())),
        "numTest": len(listed.get(_KEYS[TEST], ())),
    }
    (folder / "datalist.json").write_text(to_json({**head, **listed}), encoding="utf-8")
    return Counted(images, nodules, left_out)
