"""The config ``preview``: a few 8-bit pictures of every config with their boxes, which the viewer of the Hub can show.

Its shard has PNG pictures with their boxes as data, in row groups that a viewer can read quickly.
"""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pyarrow as pa
from PIL import Image

from lung_nodule_ct.declaration.labels import PATHOLOGY_NAMES
from lung_nodule_ct.declaration.schema import Category, Column, Integer, Picture, Real, Records, Schema, Text, Vector
from lung_nodule_ct.targets.columns import to_hub_schema
from lung_nodule_ct.targets.parquet import ParquetLayout

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from lung_nodule_ct.preview.samples import Sample


PREVIEW: Final = "preview"
PREVIEW_SPLIT: Final = "preview"
PREVIEW_SUMMARY: Final = "A few 8-bit pictures of every config with their boxes, to look at the data."

PREVIEW_SCHEMA: Final = Schema(
    (
        Column(
            "image", Picture(), "PNG: a CT slice in the lung window (-600, width 1500 HU), or the picture as published"
        ),
        Column("config", Text(), "config of the picture"),
        Column("split", Text(), "split of the picture in that config"),
        Column("row", Integer(64), "row of the picture in that split, from 0"),
        Column(
            "objects",
            Records(
                (
                    Column(
                        "bbox",
                        Vector(Real(32), 4),
                        "xmin, ymin, xmax, ymax in pixels; as published for pictures, half-open for slices of volumes",
                    ),
                    Column("diameter", Real(), "diameter of the nodule as published (in mm for scans)", nullable=True),
                    Column("pathology", Category(PATHOLOGY_NAMES), "pathology class of the nodule", nullable=True),
                )
            ),
            "nodules that the picture shows",
        ),
        Column("pathology", Category(PATHOLOGY_NAMES), "pathology class of a crop", nullable=True),
        Column("patient_id", Text(), "patient number in the archives", nullable=True),
        Column("scan_id", Text(), "stable key of the scan, the same in every config", nullable=True),
        Column(
            "fold", Integer(), "cross-validation fold of the patient, 0 to 4, the same in every config", nullable=True
        ),
        Column("timepoint", Integer(), "rank of the scan's date among the patient's dates, from 0", nullable=True),
        Column("days_since_first", Integer(), "days since the patient's first scan", nullable=True),
        Column("slice_index", Integer(), "axial slice of the volume, from 0", nullable=True),
        Column("num_slices", Integer(), "number of slices of the volume", nullable=True),
    )
)


class PreviewShard(NamedTuple):
    """The written shard of the config ``preview``: path in the build, rows, size in Arrow and on disk, hash."""

    path: str
    rows: int
    arrow_bytes: int
    file_bytes: int
    sha256: str


#: Largest size of a row group, uncompressed. The viewer of the Hub reads at most 300 MB per request of 100 rows.
ROW_GROUP_BYTES: Final = 8_000_000
_NAME = f"data/{PREVIEW}/{PREVIEW_SPLIT}-00000-of-00001.parquet"


def write_preview_shard(
    folder: Path, samples: Iterable[Sample], pathology_columns: Mapping[str, str] | None = None
) -> PreviewShard:
    """Write the shard of the config ``preview``, at its path relative to a build.

    Args:
        folder: The folder in which it is written.
        samples: The pictures, in their order.
        pathology_columns: The column with the pathology class of an example, by config.
    """
    pathology = pathology_columns or {}
    path = folder / _NAME
    path.parent.mkdir(parents=True)
    schema = to_hub_schema(PREVIEW_SCHEMA)
    rows = arrow_bytes = 0
    hashed = hashlib.sha256()
    with ParquetLayout().open_writer(path, PREVIEW_SCHEMA, hashed.update) as write:
        for group in _groups(_row(sample, pathology.get(sample.config)) for sample in samples):
            part = pa.Table.from_pylist(group, schema=schema)
            write(part)
            rows += part.num_rows
            arrow_bytes += part.nbytes
    return PreviewShard(_NAME, rows, arrow_bytes, path.stat().st_size, hashed.hexdigest())


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """Return 8-bit pixels as PNG, without metadata."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
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


def _row(sample: Sample, pathology: str | None) -> dict[str, Any]:
    shared = {name: sample.row.get(name) for name in ("patient_id", "scan_id", "fold", "timepoint", "days_since_first")}
    return {
        **shared,
        "image": {"bytes": _png(sample.pixels), "path": None},
        "config": sample.config,
        "split": sample.split,
        "row": sample.index,
        "objects": [
            {"bbox": entry.box, "diameter": entry.diameter, "pathology": entry.pathology} for entry in sample.marked
        ],
        "pathology": None if pathology is None else sample.row[pathology],
        "slice_index": sample.slice_index,
        "num_slices": None if sample.volume is None else len(sample.volume),
    }
