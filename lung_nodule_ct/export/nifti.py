"""One volume as a NIfTI-1 file with the frame that it has.

NIfTI's world is RAS+ millimetres, ours LPS: x and y change their sign. The sform holds the whole affine; the qform, which
can only turn and mirror, holds it where the direction matrix does no more.

NIfTI: ``images``, ``lung_masks``, and tables of scans and nodules.
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lung_nodule_ct.declaration.labels import PATHOLOGY_NAMES
from lung_nodule_ct.export.written import Counted, case_of
from lung_nodule_ct.system.imports import optional_imports

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

    from lung_nodule_ct.geometry.frame import Frame
    from lung_nodule_ct.read.rows import IndexedRow


SUFFIX: Final = ".nii.gz"
_SCANNER = 1  # NIFTI_XFORM_SCANNER_ANAT
_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])


def to_ras(world: ArrayLike) -> NDArray[np.float64]:
    """World points in RAS millimetres, of points in LPS; shape (3,) or (n, 3), both x, y, z."""
    points: NDArray[np.float64] = np.asarray(world, np.float64) * _LPS_TO_RAS
    return points


def ras_affine(frame: Frame) -> NDArray[np.float64]:
    """The affine from voxel indices x, y, z to RAS millimetres, shape (4, 4)."""
    affine = np.eye(4)
    corners = to_ras(frame.to_world(np.vstack([np.zeros(3), np.eye(3)])))
    affine[:3, 3] = corners[0]
    affine[:3, :3] = (corners[1:] - corners[0]).T
    return affine


def write_nifti(path: Path, voxels: NDArray[Any], frame: Frame) -> None:
    """Write a volume, slice by slice.

    Args:
        path: Ends in ``.nii.gz``; its folder is made.
        voxels: int16, uint8 or uint16, axes (z, y, x).
        frame: Where it is.

    Raises:
        MissingExtraError: nibabel is not installed.
    """
    with optional_imports("export", "writing NIfTI"):
        import nibabel  # noqa: PLC0415
    affine = ras_affine(frame)
    image = nibabel.Nifti1Image(voxels.T, affine)
    image.set_sform(affine, code=_SCANNER)
    if frame.is_orthonormal:
        image.set_qform(affine, code=_SCANNER)
    else:
        image.set_qform(None, code=0)
    image.header.set_xyzt_units("mm")
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)


_OF_SCAN = (
    "scan_id", "patient_id", "timepoint", "num_timepoints", "days_since_first", "fold", "slice_thickness_mm",
)  # fmt: skip
_XYZ = ("x", "y", "z")


def write(rows: Iterable[IndexedRow], folder: Path) -> Counted:
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
