"""Scans for 3D Slicer: volumes as NIfTI, and the nodules of each scan as a markups file, in LPS millimetres.

The format is described in https://slicer.readthedocs.io/en/latest/developer_guide/modules/markups.html, version 1.0.3 of
its schema, which Slicer 5 writes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lung_nodule_ct.declaration.labels import PATHOLOGY_NAMES
from lung_nodule_ct.declaration.manifest import to_json
from lung_nodule_ct.export.formats import ExportSummary, records_of, scan_stem
from lung_nodule_ct.export.nifti import save_volumes, sheared_note
from lung_nodule_ct.geometry.frame import IDENTITY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from lung_nodule_ct.declaration.schema import Schema
    from lung_nodule_ct.read.rows import IndexedRow

SUFFIX: Final = ".mrk.json"
"""Slicer knows a markups file by it."""
SCHEMA: Final = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)
_SPACE: Final = {"coordinateSystem": "LPS", "coordinateUnits": "mm", "locked": True}


def write_slicer(schema: Schema, rows: Iterable[IndexedRow], folder: Path) -> ExportSummary:
    """Write the volumes, and ``markups/<case>.mrk.json``.

    A file has a list of points, the centres, and a box for each nodule with a positive diameter: the cube around the
    published sphere, whose sides are along the axes of the world. All are locked, so that a click moves none.
    """
    (folder / "markups").mkdir()
    images = annotations = 0
    sheared: list[str] = []
    for indexed in rows:
        case = scan_stem(indexed)
        sheared += [] if indexed.frame.is_orthonormal else [case]
        save_volumes(schema, indexed, folder)
        nodules = records_of(schema, indexed.row, "center_world", "diameter_mm")
        document = {"@schema": SCHEMA, "markups": _markups(case, nodules)}
        (folder / "markups" / f"{case}{SUFFIX}").write_text(to_json(document), encoding="utf-8")
        images += 1
        annotations += len(nodules)
    return ExportSummary(
        images, annotations, notes=sheared_note(sheared, "3D Slicer reads with ITK and cannot use them")
    )


def _markups(case: str, nodules: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The markups of a scan: the points, then the boxes."""
    labels = [nodule.get("nodule_id") or str(number) for number, nodule in enumerate(nodules, 1)]
    points = [
        {**_point(number, nodule), "label": label, "description": _description(nodule)}
        for number, (label, nodule) in enumerate(zip(labels, nodules, strict=True), 1)
    ]
    boxes = [
        {
            "type": "ROI",
            "name": f"{label}, cube around the sphere",
            **_SPACE,
            "roiType": "Box",
            "center": [*nodule["center_world"]],
            "orientation": [*IDENTITY],
            "size": [nodule["diameter_mm"]] * 3,
            "controlPoints": [_point(1, nodule)],
        }
        for label, nodule in zip(labels, nodules, strict=True)
        if (nodule["diameter_mm"] or 0) > 0
    ]
    return [{"type": "Fiducial", "name": f"{case}, nodules", **_SPACE, "controlPoints": points}, *boxes]


def _point(number: int, nodule: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": str(number), "position": [*nodule["center_world"]], "locked": True, "positionStatus": "defined"}


def _description(nodule: Mapping[str, Any]) -> str:
    """Diameter and pathology, as far as they are known."""
    diameter, pathology = nodule["diameter_mm"], nodule.get("pathology")
    known = [] if diameter is None else [f"diameter {diameter:g} mm"]
    return ", ".join(known + ([] if pathology is None else [PATHOLOGY_NAMES[pathology]]))
