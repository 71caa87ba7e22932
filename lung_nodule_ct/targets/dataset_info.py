"""What ``datasets`` wants to know of a config: its features and the size of its splits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lung_nodule_ct.targets.features import features_json, features_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lung_nodule_ct.declaration.schema import Column


@dataclass(frozen=True)
class InfoOfConfig:
    """What ``datasets.DatasetInfo`` holds of a config, in the forms in which it stands in files.

    Attributes:
        columns: Its columns.
        rows: Examples by split.
        files: Of each shard its split, its bytes in Arrow and its bytes on disk.
    """

    columns: Sequence[Column]
    rows: Mapping[str, int]
    files: Sequence[tuple[str, int, int]]

    def to_json(self) -> dict[str, Any]:
        """The content of ``dataset_info.json``."""
        splits = {split["name"]: {**split, "dataset_name": None} for split in self._splits()}
        words = dict.fromkeys(("description", "citation", "homepage", "license"), "")
        return {**words, "features": features_json(self.columns), "splits": splits, **self._sizes()}

    def to_yaml(self) -> dict[str, Any]:
        """An entry of ``dataset_info`` in a card, but for the config's name."""
        return {"features": features_yaml(self.columns), "splits": self._splits(), **self._sizes()}

    def _splits(self) -> list[dict[str, Any]]:
        sizes = {split: sum(size for own, size, _ in self.files if own == split) for split in self.rows}
        return [{"name": split, "num_bytes": sizes[split], "num_examples": count} for split, count in self.rows.items()]

    def _sizes(self) -> dict[str, int]:
        return {
            "download_size": sum(file_bytes for *_, file_bytes in self.files),
            "dataset_size": sum(arrow_bytes for _, arrow_bytes, _ in self.files),
        }
