"""A finished build, opened for reading: the common base of previews, audits, cards, exports and training.

No loading step and no cache are needed. Rows come straight from the Parquet or Arrow shards, with voxels as arrays that view the decoded
buffers. What readers need of a config (kind, columns, texts) is stored in the build.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lung_nodule_ct.declaration.configs import CONFIGS, Config
from lung_nodule_ct.declaration.manifest import FINDINGS, MANIFEST, READABLE_VERSIONS, Format, config_from_json
from lung_nodule_ct.declaration.schema import Picture, Voxels
from lung_nodule_ct.errors import BuildFolderError, closest
from lung_nodule_ct.read.row_groups import RowGroups
from lung_nodule_ct.read.voxel_columns import table_rows
from lung_nodule_ct.system.object_store import is_url
from lung_nodule_ct.system.staging import real_path, sweep

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lung_nodule_ct.declaration.schema import Column

_REBUILD = "build it again: lung-nodule-ct build CONFIG... --out {folder}"
_READABLE_FORMATS = (Format.PARQUET, Format.ARROW)


@dataclass(frozen=True)
class BuildFolder:
    """A folder that ``lung-nodule-ct build`` wrote as Parquet or Arrow. Returned by :func:`open_build`.

    Attributes:
        folder: Its path.
        manifest: The content of ``build.json``.
    """

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def configs(self) -> dict[str, dict[str, int]]:
        """Number of rows by config and split, in the order of the build."""
        return {name: dict(entry["rows"]) for name, entry in self.manifest["configs"].items()}

    @property
    def format(self) -> Format:
        """The file format: Parquet or Arrow."""
        return Format(self.manifest["format"])

    @property
    def limit(self) -> int | None:
        """The ``--limit`` that the build was made with, ``None`` if it is complete. Builds of earlier versions are."""
        limit: int | None = self.manifest.get("limit")
        return limit

    @property
    def limit_note(self) -> str | None:
        """The statement that the build is not complete, ``None`` if it is."""
        return None if self.limit is None else f"the build is not complete: it was made with --limit {self.limit}"

    @property
    def report(self) -> dict[str, Any]:
        """The content of ``findings.json``.

        Raises:
            BuildFolderError: The file is missing or is not JSON.
        """
        return _read_json(self.folder / FINDINGS)

    @cached_property
    def _declared(self) -> dict[str, Config]:
        if self.manifest["format_version"] == 2:  # which does not store the declaration
            return {name: CONFIGS[name] for name in self.manifest["configs"]}
        return {name: config_from_json(name, entry) for name, entry in self.manifest["configs"].items()}

    def config(self, name: str) -> Config:
        """Return the declaration of a config as it was when it was built.

        Raises:
            BuildFolderError: The build does not contain the config.
        """
        if name not in self._declared:
            raise BuildFolderError(
                f"{self.folder} has no {name}",
                expected=f"one of {', '.join(self._declared) or 'no config at all'}",
                remedy=_REBUILD.format(folder=self.folder).replace("CONFIG...", name)
                if name in CONFIGS
                else closest(name, self._declared),
            )
        return self._declared[name]

    def splits(self, config: str) -> tuple[str, ...]:
        """Return the splits of a config.

        Raises:
            BuildFolderError: The build does not contain the config.
        """
        self.config(config)
        return tuple(self.configs[config])

    def count(self, config: str, split: str) -> int:
        """Return the number of rows of a split.

        Raises:
            BuildFolderError: The build does not contain the config or the split.
        """
        if split not in self.splits(config):
            raise BuildFolderError(
                f"{config} has no split {split!r}",
                expected=f"one of {', '.join(self.splits(config))}",
                remedy=closest(split, self.splits(config)),
            )
        return self.configs[config][split]

    def files(self, config: str, split: str | None = None) -> list[Mapping[str, Any]]:
        """Return the manifest's entries of the shards of a config, or of one of its splits, in order."""
        entries = self.manifest["configs"][config]["files"]
        return [entry for entry in entries if split is None or entry["split"] == split]

    def columns(self, config: str) -> tuple[Column, ...]:
        """Return the columns of a config, ``source_name`` included if it was kept."""
        return self.config(config).built_schema(keep_source_names=self.manifest["keep_source_names"]).columns

    def metadata_columns(self, config: str) -> tuple[str, ...]:
        """Return the names of the columns that hold neither voxels nor pictures."""
        return tuple(column.name for column in self.columns(config) if not isinstance(column.type, Picture | Voxels))

    def rows(
        self,
        config: str,
        split: str,
        columns: Sequence[str] | None = None,
        indices: Sequence[int] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Iterate over rows; at most one row group is in memory.

        Args:
            config: The config.
            split: One of its splits.
            columns: The columns to read, by default all. Only these are read from the disk.
            indices: The rows to read, ascending, by default all. Row groups without any of them are skipped.

        Yields:
            Values by column name: voxels as a read-only array (z, y, x) that keeps its row group in memory, pictures as their encoded
            ``bytes``, categories as their index, null as ``None``.

        Raises:
            BuildFolderError: The config, split, column or row does not exist, or a shard is missing or damaged.
        """
        known = {column.name: column for column in self.columns(config)}
        names = list(known if columns is None else columns)
        if unknown := [name for name in names if name not in known]:
            raise BuildFolderError(f"{config} has no column {unknown[0]!r}", expected=f"one of {', '.join(known)}")
        total = self.count(config, split)
        if indices is not None and (
            list(indices) != sorted(set(indices)) or (indices and not 0 <= indices[0] <= indices[-1] < total)
        ):
            raise BuildFolderError(f"{config}, {split}: expected ascending rows below {total}", got=list(indices))
        groups, picked = self._row_groups(config, split), [known[name] for name in names]
        if indices is None:
            for table in groups.iterate(names):
                yield from table_rows(table, picked)
                del table  # before the next one is read
        else:
            for table, wanted in groups.select(names, indices):
                yield from table_rows(table, picked, wanted)
                del table

    def _row_groups(self, config: str, split: str) -> RowGroups:
        """The row groups of a split, which are listed once."""
        if (config, split) not in self._listed:
            paths = [self.folder / entry["path"] for entry in self.files(config, split)]
            self._listed[config, split] = RowGroups(paths, self.format, _REBUILD.format(folder=self.folder))
        return self._listed[config, split]

    @cached_property
    def _listed(self) -> dict[tuple[str, str], RowGroups]:
        return {}


def open_build(folder: str | os.PathLike[str]) -> BuildFolder:
    """Open a folder that ``lung-nodule-ct build`` wrote as Parquet or Arrow.

    Args:
        folder: The folder, the ``--out`` of the build.

    Raises:
        BuildFolderError: The folder is missing, empty, incomplete, or has another format or version.
    """
    build = read_build(folder)
    for config in build.configs:
        for file in build.files(config):
            shard = build.folder / file["path"]
            size = shard.stat().st_size if shard.is_file() else None
            if size != file["bytes"]:
                raise BuildFolderError(
                    f"{shard} is {'missing' if size is None else 'not as it was built'}",
                    expected=f"{file['bytes']:,} bytes",
                    got="nothing" if size is None else f"{size:,} bytes",
                    remedy=_REBUILD.format(folder=build.folder),
                )
    return build


def read_build(folder: str | os.PathLike[str]) -> BuildFolder:
    """Open a build by its manifest alone; the shards need not exist yet.

    Raises:
        BuildFolderError: The folder is missing or empty, or its manifest is missing, damaged, or of another format or version.
    """
    if is_url(folder):
        raise BuildFolderError(
            f"{folder} is a URL, and a build is read from a folder",
            remedy="copy it to this machine; or read its shards with load_dataset, and compare its files with: lung-nodule-ct verify URL",
        )
    path = Path(folder).expanduser()
    remedy = f"build one: lung-nodule-ct build CONFIG... --out {path}"
    if not path.is_dir():
        sweep(real_path(path))  # a build that was killed may have moved an earlier one away
    if not path.is_dir():
        raise BuildFolderError(f"there is no folder {path}", remedy=remedy)
    if not (path / MANIFEST).is_file():
        if not any(path.iterdir()):
            raise BuildFolderError(f"{path} is empty", remedy=remedy)
        raise BuildFolderError(
            f"{path} has no {MANIFEST}: it is not a build, or an incomplete one",
            remedy="build it again into another folder: lung-nodule-ct build CONFIG... --out FOLDER",
        )
    manifest = _read_json(path / MANIFEST)
    version = manifest.get("format_version")
    if version not in READABLE_VERSIONS or manifest.get("format") not in _READABLE_FORMATS:
        raise BuildFolderError(
            f"{path} is a build that this version cannot read",
            expected=f"version {' or '.join(map(str, READABLE_VERSIONS))}, parquet or arrow",
            got=f"version {version}, {manifest.get('format')}",
            remedy="name another build, or read this one with what it was built for",
        )
    build = BuildFolder(path, manifest)
    try:
        for name in build.configs:
            build.config(name)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise BuildFolderError(f"{path / MANIFEST} does not describe its configs: {error!r}") from error
    return build


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BuildFolderError(f"{path} cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise BuildFolderError(f"{path} is not a file of a build", expected="a JSON object")
    return document
