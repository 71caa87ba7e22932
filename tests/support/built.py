"""Rows and findings of a finished Parquet build."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq


class Built:
    """A folder with a finished Parquet build."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def rows(self, config: str, split: str | None = None) -> list[dict[str, Any]]:
        """Return the stored rows of one split, or of all splits."""
        files = sorted((self.folder / "data" / config).glob(f"{split or ''}*.parquet"))
        return [row for file in files for row in pq.read_table(file).to_pylist()]

    def by_name(self, config: str) -> dict[str, dict[str, Any]]:
        """Return the rows of a config by source name."""
        return {row["source_name"]: row for row in self.rows(config)}

    @property
    def report(self) -> dict[str, Any]:
        """The content of ``findings.json``."""
        return json.loads((self.folder / "findings.json").read_text("utf-8"))

    def findings(self, code: str) -> list[dict[str, Any]]:
        """Return the findings with a code."""
        return [finding for finding in self.report["findings"] if finding["code"] == code]
