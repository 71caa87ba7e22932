"""Change the rows of a finished build, as if it had been built with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def alter(folder: Path, config: str, change: Callable[[list[dict[str, Any]]], object]) -> Path:
    """Apply ``change`` to the rows of each shard of a config, write them back as valid Parquet, and return the folder."""
    manifest = json.loads((folder / "build.json").read_text())
    for entry in manifest["configs"][config]["files"]:
        path = folder / entry["path"]
        table = pq.read_table(path)
        rows = table.to_pylist()
        change(rows)
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path, row_group_size=1)
        entry["bytes"] = path.stat().st_size
    (folder / "build.json").write_text(json.dumps(manifest))
    return folder
