"""What ``datasets`` wants to know of a config: its features and the size of its splits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import datasets

from lung_nodule_ct.targets.features import to_features

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lung_nodule_ct.spec.schema import Schema


def dataset_info(
    schema: Schema, rows: Mapping[str, int], files: Sequence[tuple[str, int, int]]
) -> datasets.DatasetInfo:
    """The ``DatasetInfo`` of a config.

    Args:
        schema: Its columns.
        rows: Examples by split.
        files: Of each shard its split, its bytes in Arrow and its bytes on disk.
    """
    splits = datasets.SplitDict()
    for split, count in rows.items():
        size = sum(arrow_bytes for own, arrow_bytes, _ in files if own == split)
        splits.add(datasets.SplitInfo(split, num_bytes=size, num_examples=count))
    return datasets.DatasetInfo(
        features=to_features(schema),
        splits=splits,
        download_size=sum(file_bytes for *_, file_bytes in files),
        dataset_size=sum(arrow_bytes for _, arrow_bytes, _ in files),
    )
