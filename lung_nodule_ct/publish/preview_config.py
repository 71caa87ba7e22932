"""The ``preview`` config: a few 8-bit pictures of every config with their boxes, which a dataset viewer can show.

The shard of the ``preview`` config: PNG pictures with boxes beside them, in row groups that a viewer scans in a moment.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
from PIL import Image

from lung_nodule_ct.declaration.labels import PATHOLOGY_NAMES
from lung_nodule_ct.declaration.schema import Category, Column, Integer, Picture, Real, Records, Schema, Text, Vector
from lung_nodule_ct.system.files import file_hash
from lung_nodule_ct.targets.hub_features import to_hub_schema
from lung_nodule_ct.targets.parquet import ParquetLayout

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from lung_nodule_ct.preview.samples import Sample


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


@dataclass(frozen=True)
class PreviewShard:
    """The shard of the ``preview`` config, as it was written.

    Attributes:
        path: Where it stands in the build.
        rows: Its examples.
        arrow_bytes: Their size in Arrow.
        file_bytes: Its size on disk.
        sha256: Its hash.
    """

    path: str
    rows: int
    arrow_bytes: int
    file_bytes: int
    sha256: str


#: What a row group holds at most, uncompressed. The Hub's viewer scans 300 MB a request, and 100 rows are a request.
ROW_GROUP_BYTES: Final = 8_000_000
_NAME = f"data/{PREVIEW}/{PREVIEW_SPLIT}-00000-of-00001.parquet"


def write_preview(folder: Path, samples: Iterable[Sample]) -> PreviewShard:
    """Write the shard into a folder, under the name that it has in a build.

    Args:
        folder: Where to write.
        samples: What it shows, in their order.
    """
    path = folder / _NAME
    path.parent.mkdir(parents=True)
    schema = to_hub_schema(PREVIEW_SCHEMA)
    rows = arrow_bytes = 0
    with ParquetLayout().open_writer(path, PREVIEW_SCHEMA) as write:
        for group in _groups(map(_row, samples)):
            part = pa.Table.from_pylist(group, schema=schema)
            write(part)
            rows += part.num_rows
            arrow_bytes += part.nbytes
    return PreviewShard(_NAME, rows, arrow_bytes, path.stat().st_size, file_hash(path, "sha256"))


def as_png(pixels: Any) -> bytes:
    """8-bit pixels as PNG, without metadata."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", optimize=True)
    return out.getvalue()


def _groups(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        group.append(row)
        size += len(row["image"]["bytes"])
        if size >= ROW_GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _row(sample: Sample) -> dict[str, Any]:
    known = {name: sample.row.get(name) for name in ("patient_id", "scan_id", "fold", "timepoint", "days_since_first")}
    return {
        **known,
        "image": {"bytes": as_png(sample.pixels), "path": None},
        "config": sample.config,
        "split": sample.split,
        "row": sample.index,
        "objects": [
            {"bbox": entry.box, "diameter": entry.diameter, "pathology": entry.pathology} for entry in sample.marked
        ],
        "pathology": sample.row.get("label"),
        "slice_index": sample.slice_index,
        "num_slices": None if sample.volume is None else len(sample.volume),
    }
