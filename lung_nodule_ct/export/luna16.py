"""Scans in the layout of LUNA16: MetaImage volumes, and the tables that its evaluation reads.

World coordinates are LPS millimetres, as in a build. The layout is described in https://luna16.grand-challenge.org/Data/.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lung_nodule_ct.declaration.schema import Voxels
from lung_nodule_ct.export.formats import ExportSummary, column_names, records_of, scan_stem
from lung_nodule_ct.export.nifti import sheared_note, write_table
from lung_nodule_ct.formats.metaimage_writer import save_metaimage

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from lung_nodule_ct.declaration.schema import Schema
    from lung_nodule_ct.read.rows import IndexedRow

ANNOTATION_COLUMNS: Final = ("seriesuid", "coordX", "coordY", "coordZ", "diameter_mm")
MASK_FOLDER: Final = "seg-lungs-LUNA16"
_NO_DIAMETER: Final = -1
"""What ``annotations_excluded.csv`` of LUNA16 has in place of an unknown diameter."""


def write_luna16(schema: Schema, rows: Iterable[IndexedRow], folder: Path) -> ExportSummary:
    """Write ``subset<fold>/<case>.mhd``, lung masks, ``annotations.csv``, ``annotations_excluded.csv`` and ``seriesuids.csv``.

    ``seriesuid`` is the name of the scan in this build; LUNA16 has DICOM UIDs there. The subsets are the folds of the
    patients, and ``seriesuids_<split>.csv`` has the splits of the build. A nodule without a positive diameter is in
    ``annotations_excluded.csv`` with the diameter -1: the evaluation counts a mark there neither as hit nor as false.
    """
    volume, *masks = column_names(schema, Voxels)
    series: dict[str, list[str]] = {}
    annotated: list[dict[str, Any]] = []
    excluded: list[dict[str, Any]] = []
    sheared: list[str] = []
    without_fold = 0
    for indexed in rows:
        row, case, frame = indexed.row, scan_stem(indexed), indexed.frame
        fold = row.get("fold")
        without_fold += fold is None
        sheared += [] if frame.is_orthonormal else [case]
        subset = "subset_unassigned" if fold is None else f"subset{fold}"
        save_metaimage(folder / subset / f"{case}.mhd", row[volume], frame)
        for column in masks:
            if row[column] is not None:
                save_metaimage(folder / MASK_FOLDER / f"{case}.mhd", row[column], frame, compressed=True)
        series.setdefault(indexed.split, []).append(case)
        for nodule in records_of(schema, row, "center_world", "diameter_mm"):
            diameter = nodule["diameter_mm"] or 0
            values = (case, *nodule["center_world"], diameter if diameter > 0 else _NO_DIAMETER)
            (annotated if diameter > 0 else excluded).append(dict(zip(ANNOTATION_COLUMNS, values, strict=True)))
    write_table(folder / "annotations.csv", ANNOTATION_COLUMNS, annotated)
    write_table(folder / "annotations_excluded.csv", ANNOTATION_COLUMNS, excluded)
    cases = [case for names in series.values() for case in names]
    for name, listed in {"seriesuids": cases, **{f"seriesuids_{split}": own for split, own in series.items()}}.items():
        (folder / f"{name}.csv").write_text("".join(f"{case}\n" for case in listed), encoding="utf-8")
    notes = sheared_note(sheared, "Readers of LUNA16 use SimpleITK and cannot open them")
    if excluded:
        notes += (f"{len(excluded):,} nodules without a positive diameter are in annotations_excluded.csv",)
    if without_fold:
        notes += (f"{without_fold:,} scans have no fold and are in subset_unassigned",)
    return ExportSummary(len(cases), len(annotated), len(excluded), notes)
