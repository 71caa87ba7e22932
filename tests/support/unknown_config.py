"""A copy of a build with one config under a name, a kind and column names that the package does not know."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from lung_nodule_ct.read.build_folder import BuildFolder, open_build


def as_unknown_config(
    build: Path, out: Path, config: str, name: str, columns: Mapping[str, str | None], **entry: Any
) -> BuildFolder:
    """Write the copy and open it.

    Args:
        build: A build in Parquet format.
        out: The folder to write.
        config: The config to keep.
        name: Its name in the copy.
        columns: New names by column; ``None`` removes the column.
        entry: Other values of its entry in ``build.json``, as ``kind``.
    """
    shutil.copytree(build, out)
    manifest = json.loads((out / "build.json").read_text("utf-8"))
    described = manifest["configs"][config] | entry
    names = {column["name"]: columns.get(column["name"], column["name"]) for column in described["columns"]}
    kept = [old for old, new in names.items() if new is not None]
    described["columns"] = [
        column | {"name": names[column["name"]]} for column in described["columns"] if names[column["name"]]
    ]
    for file in described["files"]:
        table = pq.read_table(out / file["path"]).select(kept)
        pq.write_table(table.rename_columns([names[column] for column in kept]), out / file["path"], row_group_size=1)
        file["bytes"] = (out / file["path"]).stat().st_size
    manifest |= {"configs": {name: described}, "keep_source_names": False}
    (out / "build.json").write_text(json.dumps(manifest), "utf-8")
    return open_build(out)
