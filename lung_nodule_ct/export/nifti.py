"""Volumes as NIfTI-1 files in their frame: with tables of scans and nodules, or with the datalist of MONAI.

World coordinates are RAS+ millimetres in NIfTI and LPS millimetres in a build: x and y have the opposite sign.
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lung_nodule_ct.declaration.labels import PATHOLOGY_NAMES, TEST, TRAIN, VALIDATION
from lung_nodule_ct.declaration.manifest import to_json
from lung_nodule_ct.declaration.schema import Category, Flag, Integer, Real, Text, Voxels
from lung_nodule_ct.export.formats import ExportSummary, column_names, records_of, scan_stem, shortened_list
from lung_nodule_ct.read.conversions import to_nibabel

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

    from lung_nodule_ct.declaration.schema import Column, Schema
    from lung_nodule_ct.geometry.frame import Frame
    from lung_nodule_ct.read.rows import IndexedRow


SUFFIX: Final = ".nii.gz"
_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
_XYZ = ("x", "y", "z")
_CENTERS: Final = tuple(f"{space}_{axis}" for space in ("lps_mm", "voxel") for axis in _XYZ)
NODULE_COLUMNS: Final = ("case", "nodule_id", *_CENTERS, "diameter_mm", "pathology")
_NODULE = 0
_ITK_OR_NIBABEL = "SimpleITK cannot read them, nibabel can"
_MONAI_SPLITS = {TRAIN: "training", VALIDATION: "validation", TEST: "test"}


def to_ras(world: ArrayLike) -> NDArray[np.float64]:
    """Return world points in RAS millimetres from points in LPS millimetres, shape (3,) or (n, 3), both x, y, z."""
    points: NDArray[np.float64] = np.asarray(world, np.float64) * _LPS_TO_RAS
    return points


def save_nifti(path: Path, voxels: NDArray[Any], frame: Frame) -> None:
    """Write one volume. The folder is created.

    Args:
        path: Ends in ``.nii.gz``.
        voxels: int16, uint8 or uint16, axes (z, y, x).
        frame: Its frame.

    Raises:
        MissingExtraError: nibabel is not installed.
    """
    image = to_nibabel(voxels, frame)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.to_filename(path)


def sheared_note(cases: Sequence[str], readers: str) -> tuple[str, ...]:
    """The note that ITK refuses volumes with a sheared frame; none if there are no such volumes.

    Args:
        cases: The cases with such a frame.
        readers: Who reads with ITK, and who does not.
    """
    if not cases:
        return ()
    return (
        f"{len(cases):,} scans have a direction matrix that is not a rotation, which ITK refuses to open. {readers}: {shortened_list(cases)}",
    )


def save_volumes(schema: Schema, indexed: IndexedRow, folder: Path) -> dict[str, str]:
    """Write the volume of a row into ``images``, and other voxel columns into folders of their names (``lung_masks``).

    Returns:
        The path of each file relative to ``folder``, by key: ``image``, or the name of the other column. Null cells are
        left out.
    """
    volume, *others = column_names(schema, Voxels)
    keys = {volume: "image", **{name: name for name in others}}
    files = {}
    for column, key in keys.items():
        if indexed.row[column] is not None:
            files[key] = f"{key}s/{scan_stem(indexed)}{SUFFIX}"
            save_nifti(folder / files[key], indexed.row[column], indexed.frame)
    return files


def write_nifti(schema: Schema, rows: Iterable[IndexedRow], folder: Path) -> ExportSummary:
    """Write the volumes, ``scans.csv``, and ``nodules.csv`` with centres in world and voxel coordinates.

    World centres in ``nodules.csv`` are LPS millimetres, as in the build. The world of the NIfTI files is RAS (x and y
    change their sign).
    """
    scans: list[dict[str, Any]] = []
    nodules: list[dict[str, Any]] = []
    sheared: list[str] = []
    for indexed in rows:
        save_volumes(schema, indexed, folder)
        case = scan_stem(indexed)
        sheared += [] if indexed.frame.is_orthonormal else [case]
        scans.append({"case": case, "split": indexed.split, **plain_values(schema, indexed.row)})
        nodules += [
            nodule_row(case, nodule) for nodule in records_of(schema, indexed.row, "center_world", "center_voxel")
        ]
    write_table(folder / "scans.csv", ["case", "split", *(column.name for column in plain_columns(schema))], scans)
    write_table(folder / "nodules.csv", NODULE_COLUMNS, nodules)
    return ExportSummary(len(scans), len(nodules), notes=sheared_note(sheared, _ITK_OR_NIBABEL))


def plain_values(schema: Schema, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a row that are flags, numbers or texts, by column; categories by name."""
    return {
        column.name: column.type.names[value] if isinstance(column.type, Category) and value is not None else value
        for column in plain_columns(schema)
        for value in (row[column.name],)
    }


def plain_columns(schema: Schema) -> list[Column]:
    """Return the columns that are flags, numbers or texts."""
    return [column for column in schema.columns if isinstance(column.type, Text | Flag | Integer | Real | Category)]


def nodule_row(case: str, nodule: Mapping[str, Any]) -> dict[str, Any]:
    """Return a nodule as a row of a table with :data:`NODULE_COLUMNS`."""
    pathology = nodule.get("pathology")
    return {
        "case": case,
        "nodule_id": nodule.get("nodule_id"),
        **{f"lps_mm_{axis}": value for axis, value in zip(_XYZ, nodule["center_world"], strict=True)},
        **{f"voxel_{axis}": value for axis, value in zip(_XYZ, nodule["center_voxel"], strict=True)},
        "diameter_mm": nodule.get("diameter_mm"),
        "pathology": None if pathology is None else PATHOLOGY_NAMES[pathology],
    }


def write_table(path: Path, columns: Sequence[str], rows: list[dict[str, Any]]) -> None:
    """Write rows as CSV."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_monai(schema: Schema, rows: Iterable[IndexedRow], folder: Path) -> ExportSummary:
    """Write the volumes, and ``datalist.json`` as ``load_decathlon_datalist(…, is_segmentation=False)`` reads it.

    ``box`` is ``cccwhd`` in world coordinates: the centre, and the diameter three times, in RAS millimetres, the world
    that MONAI assigns to a NIfTI image. Therefore ``AffineBoxToImageCoordinated`` takes its default
    ``affine_lps_to_ras=False``; the ``True`` of the LUNA16 tutorial is for MetaImage and LPS boxes. ``label`` is 0,
    nodule. ``fold`` is for ``select_cross_validation_folds``.
    """
    listed: dict[str, list[dict[str, Any]]] = {}
    images = num_nodules = left_out = 0
    sheared: list[str] = []
    for indexed in rows:
        row = indexed.row
        sheared += [] if indexed.frame.is_orthonormal else [scan_stem(indexed)]
        nodules = records_of(schema, row, "center_world", "diameter_mm")
        spheres = [nodule for nodule in nodules if (nodule["diameter_mm"] or 0) > 0]
        files = save_volumes(schema, indexed, folder)
        entry = {
            "image": files.pop("image"),
            "box": [[*to_ras(nodule["center_world"]).tolist(), *[nodule["diameter_mm"]] * 3] for nodule in spheres],
            "label": [_NODULE] * len(spheres),
            "nodule_id": [nodule.get("nodule_id") for nodule in spheres],
            "patient_id": row.get("patient_id"),
            "fold": row.get("fold"),
            **files,
        }
        listed.setdefault(_MONAI_SPLITS.get(indexed.split, indexed.split), []).append(entry)
        images += 1
        num_nodules += len(spheres)
        left_out += len(nodules) - len(spheres)
    head = {
        "name": "lung_nodule_ct",
        "modality": {"0": "CT"},
        "labels": {str(_NODULE): "nodule"},
        "box_mode": "cccwhd",
        "box_space": "world, RAS millimetres",
        "numTraining": len(listed.get(_MONAI_SPLITS[TRAIN], ())),
        "numTest": len(listed.get(_MONAI_SPLITS[TEST], ())),
    }
    (folder / "datalist.json").write_text(to_json({**head, **listed}), encoding="utf-8")
    notes = sheared_note(sheared, f'{_ITK_OR_NIBABEL}: choose reader="NibabelReader" in MONAI')
    return ExportSummary(images, num_nodules, left_out, notes)
