"""Uncompressed Arrow that ``datasets.load_from_disk`` opens at once, memory-mapped: a patch costs what its pages cost.

Of one config the folder is its ``DatasetDict``; of several it holds one such folder a config.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lung_nodule_ct.declaration.manifest import GENERATOR, to_json
from lung_nodule_ct.system.disk_writes import DirectFile
from lung_nodule_ct.targets.hub_features import InfoOfConfig, built_schema, to_hub_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from lung_nodule_ct.declaration.schema import Schema
    from lung_nodule_ct.targets.build import Build
    from lung_nodule_ct.targets.engine import Shard


@dataclass(frozen=True)
class ArrowLayout:
    """``[<config>/]<split>/data-00000-of-0000N.arrow`` and the JSON that ``load_from_disk`` reads.

    Attributes:
        nested: Whether there is a folder a config.
    """

    nested: bool
    name: str = "arrow"
    shard_bytes: int = 500_000_000
    cpu_bound: bool = False
    hash_shards: bool = (
        False  # read where it was written; a hash of what is not compressed would cost a fifth of the build
    )

    @property
    def manifest_extra(self) -> dict[str, str]:
        """Nothing."""
        return {}

    def path_of(self, shard: Shard) -> str:
        """Where a shard stands."""
        return f"{self._prefix(shard.config)}{shard.split}/data-{shard.place}.arrow"

    @contextmanager
    def open_writer(
        self, path: Path, schema: Schema, hashed: Callable[[Any], object] | None = None
    ) -> Iterator[Callable[[pa.Table], None]]:
        """An Arrow stream, a record batch a table."""
        # About half a volume: it comes at once, and much faster than a disk takes it.
        with DirectFile(path, hashed, ahead=64 << 20) as file, pa.ipc.new_stream(file, to_hub_schema(schema)) as writer:
            yield writer.write_table

    def finish(self, folder: Path, build: Build) -> None:
        """Write what ``load_from_disk`` reads of the splits."""
        for name, config in build.configs.items():
            own = folder / self._prefix(name)
            schema = built_schema(config.plan.config, keep_source_names=build.options.keep_source_names)
            sizes = [(each.shard.split, each.arrow_bytes, each.file_bytes) for each in config.files]
            info = to_json(InfoOfConfig(schema.columns, config.rows, sizes).to_json())
            (own / "dataset_dict.json").write_text(to_json({"splits": list(config.rows)}), encoding="utf-8")
            for split in config.rows:
                files = [written for written in config.files if written.shard.split == split]
                state: dict[str, Any] = {
                    "_data_files": [{"filename": written.path.rpartition("/")[2]} for written in files],
                    "_fingerprint": _fingerprint(written.shard for written in files),
                    "_format_columns": None,
                    "_format_kwargs": {},
                    "_format_type": None,
                    "_output_all_columns": False,
                    "_split": split,
                }
                (own / split / "state.json").write_text(to_json(state), encoding="utf-8")
                (own / split / "dataset_info.json").write_text(info, encoding="utf-8")

    def _prefix(self, config: str) -> str:
        return f"{config}/" if self.nested else ""


def _fingerprint(shards: Iterable[Shard]) -> str:
    """16 hex digits, as ``datasets`` has them: equal where equal members were built alike."""
    return hashlib.sha256(repr((GENERATOR, *shards)).encode()).hexdigest()[:16]
