"""Uncompressed Arrow that ``datasets.load_from_disk`` opens memory-mapped: reading a patch costs only its memory pages.

The folder of one config is its ``DatasetDict``; the folder of several configs holds one such folder per config.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lung_nodule_ct.declaration.manifest import GENERATOR, Format, VolumeCodec, to_json
from lung_nodule_ct.declaration.schema import Voxels
from lung_nodule_ct.system.disk_writes import DirectFile
from lung_nodule_ct.targets.columns import InfoOfConfig, to_hub_schema, with_b2nd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from lung_nodule_ct.declaration.schema import Schema
    from lung_nodule_ct.targets.shards import Build, Shard, WrittenShard


@dataclass(frozen=True)
class ArrowLayout:
    """``[<config>/]<split>/data-00000-of-0000N.arrow``, and the JSON that ``load_from_disk`` reads.

    Attributes:
        nested: Whether each config has a folder.
        volume_codec: How voxels are stored.
        cpu_bound: Whether writing takes as long as inflating, as it does with b2nd.
    """

    nested: bool
    volume_codec: VolumeCodec = VolumeCodec.RAW
    cpu_bound: bool = False
    format: Format = Format.ARROW
    shard_bytes: int = 500_000_000
    max_threads: int = 4

    @property
    def manifest_extra(self) -> dict[str, str]:
        """How to read a volume, where it is not raw."""
        return {} if self.volume_codec is VolumeCodec.RAW else {"volume_codec": str(self.volume_codec)}

    def path_of(self, shard: Shard) -> str:
        """The path of a shard."""
        return f"{self._prefix(shard.config.name)}{shard.split}/data-{shard.number}.arrow"

    @contextmanager
    def open_writer(
        self, path: Path, schema: Schema, hashed: Callable[[Any], object]
    ) -> Iterator[Callable[[pa.Table], None]]:
        """Open an Arrow stream; each table becomes one record batch."""
        # about half a volume: it arrives at once, much faster than a disk can write it
        with DirectFile(path, hashed, ahead=64 << 20) as file, pa.ipc.new_stream(file, to_hub_schema(schema)) as writer:
            if self.volume_codec is VolumeCodec.RAW:
                yield writer.write_table
            else:
                voxels = [column.name for column in schema.columns if isinstance(column.type, Voxels)]
                yield lambda table: writer.write_table(with_b2nd(table, voxels))

    def finish(self, folder: Path, build: Build) -> None:
        """Write what ``load_from_disk`` reads of the splits."""
        for name, config in build.configs.items():
            config_folder = folder / self._prefix(name)
            schema = config.plan.config.built_schema(keep_source_names=build.keep_source_names)
            sizes = [(each.shard.split, each.arrow_bytes, each.file_bytes) for each in config.files]
            info = to_json(InfoOfConfig(schema.columns, config.rows, sizes).to_json())
            (config_folder / "dataset_dict.json").write_text(to_json({"splits": list(config.rows)}), encoding="utf-8")
            for split in config.rows:
                files = [written for written in config.files if written.shard.split == split]
                (config_folder / split / "state.json").write_text(to_json(_state(split, files)), encoding="utf-8")
                (config_folder / split / "dataset_info.json").write_text(info, encoding="utf-8")

    def _prefix(self, config: str) -> str:
        return f"{config}/" if self.nested else ""


def _state(split: str, files: Sequence[WrittenShard]) -> dict[str, Any]:
    """The content of ``state.json``."""
    return {
        "_data_files": [{"filename": written.path.rpartition("/")[2]} for written in files],
        "_fingerprint": _fingerprint(files),
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": split,
    }


def _fingerprint(files: Sequence[WrittenShard]) -> str:
    """16 hexadecimal digits, as ``datasets`` uses them: equal for equal shards, in any folder."""
    return hashlib.sha256("\0".join([GENERATOR, *(written.sha256 for written in files)]).encode()).hexdigest()[:16]
