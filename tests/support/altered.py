"""Change the rows of a finished build, as if it had been built with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lung_nodule_ct.declaration.manifest import manifest_text
from lung_nodule_ct.read.sidecars import record_file


def alter(folder: Path, config: str, change: Callable[[list[dict[str, Any]]], object]) -> Path:
    """Apply ``change`` to the rows of each shard of a config, write them back as valid Parquet, and return the folder."""
    manifest = json.loads((folder / "build.json").read_text())
    for entry in manifest["configs"][config]["files"]:
        path = folder / entry["path"]
        table = pq.read_table(path)
        rows = table.to_pylist()
        change(rows)
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path, row_group_size=1)
        entry.update(record_file(folder, entry["path"]).to_dict())
    (folder / "build.json").write_text(manifest_text(manifest))
    return folder


def alter_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Apply ``change`` to the manifest of a build, as if the build had written it, and return the folder."""
    manifest = json.loads((folder / "build.json").read_text())
    change(manifest)
    (folder / "build.json").write_text(manifest_text(manifest))
    return folder
