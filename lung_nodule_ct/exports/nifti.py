"""NIfTI: ``images``, ``lung_masks``, and tables of scans and nodules."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

from lung_nodule_ct.declaration.labels import PATHOLOGY_NAMES
from lung_nodule_ct.exports.cases import case_of
from lung_nodule_ct.exports.counted import Counted
from lung_nodule_ct.exports.nifti_file import SUFFIX, write_nifti

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from lung_nodule_ct.read.rows import Placed

_OF_SCAN = (
    "scan_id", "patient_id", "timepoint", "num_timepoints", "days_since_first", "fold", "slice_thickness_mm",
)  # fmt: skip
_XYZ = ("x", "y", "z")


def write(rows: Iterable[Placed], folder: Path) -> Counted:
    """Write a CT a scan, its lung mask where there is one, ``scans.csv``, and ``nodules.csv`` with centres in both spaces.

    World centres in ``nodules.csv`` are LPS, as in the build; NIfTI's own world is RAS (x and y change their sign).
    """
    scans: list[dict[str, Any]] = []
    nodules: list[dict[str, Any]] = []
    for placed in rows:
        row, case, frame = placed.row, case_of(placed), placed.frame
        write_nifti(folder / "images" / f"{case}{SUFFIX}", row["volume"], frame)
        if row["lung_mask"] is not None:
            write_nifti(folder / "lung_masks" / f"{case}{SUFFIX}", row["lung_mask"], frame)
        scans.append({"case": case, "split": placed.split, **{name: row[name] for name in _OF_SCAN}})
        nodules += [_nodule(case, nodule) for nodule in row["nodules"]]
    _write_table(folder / "scans.csv", ("case", "split", *_OF_SCAN), scans)
    columns = [f"{kind}_{axis}" for kind in ("lps_mm", "voxel") for axis in _XYZ]
    _write_table(folder / "nodules.csv", ("case", "nodule_id", *columns, "diameter_mm", "pathology"), nodules)
    return Counted(len(scans), len(nodules))


def _nodule(case: str, nodule: dict[str, Any]) -> dict[str, Any]:
    pathology = nodule["pathology"]
    return {
        "case": case,
        "nodule_id": nodule["nodule_id"],
        **{f"lps_mm_{axis}": value for axis, value in zip(_XYZ, nodule["center_world"], strict=True)},
        **{f"voxel_{axis}": value for axis, value in zip(_XYZ, nodule["center_voxel"], strict=True)},
        "diameter_mm": nodule["diameter_mm"],
        "pathology": None if pathology is None else PATHOLOGY_NAMES[pathology],
    }


def _write_table(path: Path, columns: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
