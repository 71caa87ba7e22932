"""A build to look at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq


class Built:
    """Its rows by config, and its report."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def rows(self, config: str, split: str | None = None) -> list[dict[str, Any]]:
        """The rows as stored, of one split or all in their order."""
        files = sorted((self.folder / "data" / config).glob(f"{split or ''}*.parquet"))
        return [row for file in files for row in pq.read_table(file).to_pylist()]

    def by_name(self, config: str) -> dict[str, dict[str, Any]]:
        """The rows by source name."""
        return {row["source_name"]: row for row in self.rows(config)}

    @property
    def report(self) -> dict[str, Any]:
        """``findings.json``."""
        return json.loads((self.folder / "findings.json").read_text("utf-8"))

    def findings(self, code: str) -> list[dict[str, Any]]:
        """The findings of a code."""
        return [finding for finding in self.report["findings"] if finding["code"] == code]
