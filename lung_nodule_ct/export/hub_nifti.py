"""Volumes for the volume view of the Hugging Face Hub: a folder of NIfTI files that ``datasets`` loads with the feature ``Nifti``.

A build has raw voxels, which are read much faster. This folder is for people who want to look at scans on the Hub. The layout is described in
https://huggingface.co/docs/datasets/nifti_dataset.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from lung_nodule_ct.declaration.published import HOMEPAGE
from lung_nodule_ct.declaration.schema import Flag, Integer, Real, Voxels
from lung_nodule_ct.export.formats import ExportSummary, column_names, records_of, scan_stem
from lung_nodule_ct.export.nifti import (
    NODULE_COLUMNS,
    nodule_row,
    plain_columns,
    plain_values,
    save_nifti,
    sheared_note,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from lung_nodule_ct.declaration.schema import Schema
    from lung_nodule_ct.read.rows import IndexedRow

SUFFIX: Final = ".nii"
"""Not compressed: ``datasets`` takes a file that ends in ``.gz`` for an archive."""
CONFIG: Final = "nifti"
_CARD: Final = f"""# Scans for the volume view

CT volumes of the dataset of Jian et al. (Scientific Data 2024), {HOMEPAGE}, exported by lung_nodule_ct. `export.json` says from which config, and
whether the build was complete. Not for clinical use.

The licence of the data is that of the published records. This export does not check it, nor anything else that `lung-nodule-ct publish` checks.
"""


def write_hub_nifti(schema: Schema, rows: Iterable[IndexedRow], folder: Path) -> ExportSummary:
    """Write ``<split>/images``, ``<split>/lung_masks``, ``<split>/metadata.parquet``, and ``README.md`` with the splits.

    Each row has the columns ``nifti`` and, if the config has masks, ``lung_mask``; the columns of the build that are numbers and texts; and
    the nodules with their centres in LPS mm and in voxels.
    """
    volume, *others = column_names(schema, Voxels)
    entries: dict[str, list[dict[str, Any]]] = {}
    paths = {volume: "file_name", **{name: f"{name}_file_name" for name in others}}
    annotations = 0
    sheared: list[str] = []
    for indexed in rows:
        row, case = indexed.row, scan_stem(indexed)
        sheared += [] if indexed.frame.is_orthonormal else [case]
        entry: dict[str, Any] = {"case": case}
        for column, key in paths.items():
            kind = "images" if column == volume else f"{column}s"
            entry[key] = None if row[column] is None else f"{kind}/{case}{SUFFIX}"
            if row[column] is not None:
                save_nifti(folder / indexed.split / kind / f"{case}{SUFFIX}", row[column], indexed.frame)
        nodules = [nodule_row(case, nodule) for nodule in records_of(schema, row, "center_world", "center_voxel")]
        entry |= {**plain_values(schema, row), "nodules": nodules}
        entries.setdefault(indexed.split, []).append(entry)
        annotations += len(nodules)
    # datasets does not take a column without any path for one of files
    unused = {key for key in paths.values() if all(entry[key] is None for own in entries.values() for entry in own)}
    columns = _arrow_schema(schema, [key for key in paths.values() if key not in unused])
    for split, own in entries.items():
        pq.write_table(pa.Table.from_pylist(own, columns), folder / split / "metadata.parquet", use_dictionary=False)
    files = [{"split": split, "path": f"{split}/**"} for split in entries]
    head = yaml.safe_dump({"configs": [{"config_name": CONFIG, "data_files": files}]}, sort_keys=False)
    (folder / "README.md").write_text(f"---\n{head}---\n\n{_CARD}", encoding="utf-8")
    notes = sheared_note(sheared, "nibabel, which datasets uses, can read them")
    return ExportSummary(sum(map(len, entries.values())), annotations, notes=notes)


def _arrow_schema(schema: Schema, paths: Sequence[str]) -> pa.Schema:
    """The types of the metadata, the same in every split, whatever is null there."""
    kinds = {Flag: pa.bool_(), Integer: pa.int64(), Real: pa.float64()}
    plain = [(column.name, kinds.get(type(column.type), pa.string())) for column in plain_columns(schema)]
    texts = ("case", "nodule_id", "pathology")
    nodule = pa.struct([(name, pa.string() if name in texts else pa.float64()) for name in NODULE_COLUMNS])
    return pa.schema(
        [("case", pa.string()), *((path, pa.string()) for path in paths), *plain, ("nodules", pa.list_(nodule))]
    )
