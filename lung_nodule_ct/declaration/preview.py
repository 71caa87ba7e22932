"""The ``preview`` config: a few 8-bit pictures of every config with their boxes, which a dataset viewer can show."""

from __future__ import annotations

from typing import Final

from lung_nodule_ct.declaration.labels import PATHOLOGY_NAMES
from lung_nodule_ct.declaration.schema import Category, Column, Integer, Picture, Real, Records, Schema, Text, Vector

PREVIEW: Final = "preview"
PREVIEW_SPLIT: Final = "preview"
PREVIEW_SUMMARY: Final = "A few 8-bit pictures of every config with their boxes, for a look at the data."

PREVIEW_SCHEMA: Final = Schema(
    (
        Column(
            "image", Picture(), "PNG: a CT slice in the lung window (-600, width 1500 HU), or the picture as published"
        ),
        Column("config", Text(), "the config that the picture is of"),
        Column("split", Text(), "its split there"),
        Column("row", Integer(64), "its row in that split, from 0"),
        Column(
            "objects",
            Records(
                (
                    Column(
                        "bbox",
                        Vector(Real(32), 4),
                        "xmin, ymin, xmax, ymax in pixels; as published in det2d, half-open in volumes",
                    ),
                    Column("diameter", Real(), "the nodule's diameter as published (mm in volumes)", nullable=True),
                    Column("pathology", Category(PATHOLOGY_NAMES), "the nodule's pathology", nullable=True),
                )
            ),
            "the nodules that the picture shows",
        ),
        Column("pathology", Category(PATHOLOGY_NAMES), "the class of a crop", nullable=True),
        Column("patient_id", Text(), "the patient, as the archives number them", nullable=True),
        Column("scan_id", Text(), "stable key of the scan, the same in every config", nullable=True),
        Column("fold", Integer(), "0 to 4, by a fixed hash of the patient", nullable=True),
        Column("timepoint", Integer(), "rank of the scan's date among the patient's dates, from 0", nullable=True),
        Column("days_since_first", Integer(), "days since the patient's first scan", nullable=True),
        Column("slice_index", Integer(), "the axial slice of the volume, from 0", nullable=True),
        Column("num_slices", Integer(), "slices of the volume", nullable=True),
    )
)
