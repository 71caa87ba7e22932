"""A folder of archives on this machine, at any depth: flat, or ``part_a/`` and ``part_b/`` as the records have them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lung_nodule_ct.declaration.archives import ARCHIVES, ArchiveSpec
from lung_nodule_ct.errors import SourceError
from lung_nodule_ct.source.source import Source


def open_folder(source: str | os.PathLike[str]) -> Source:
    """The archives in a folder, at any depth.

    Raises:
        SourceError: It does not exist.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise SourceError(
            f"the source {os.fspath(source)!r} does not exist"
            if not folder.exists()
            else f"the source {os.fspath(source)!r} is no folder",
            expected="a folder that holds the dataset's zip archives",
        )
    found = _Found.in_folder(folder)
    return Source(found.single, os.fspath(source), found.several)


@dataclass(frozen=True)
class _Found:
    paths: dict[ArchiveSpec, tuple[str, ...]]

    @classmethod
    def in_folder(cls, folder: Path) -> _Found:
        paths: dict[ArchiveSpec, tuple[str, ...]] = {}
        for root, folders, files in os.walk(folder, followlinks=False):
            folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
            for name in sorted(files):
                for spec in ARCHIVES:
                    if spec.matches(name):
                        paths[spec] = (*paths.get(spec, ()), str(Path(root, name).absolute()))
        return cls(paths)

    @cached_property
    def single(self) -> dict[ArchiveSpec, str]:
        return {spec: paths[0] for spec, paths in self.paths.items() if len(paths) == 1}

    @cached_property
    def several(self) -> dict[ArchiveSpec, tuple[str, ...]]:
        return {spec: paths for spec, paths in self.paths.items() if len(paths) > 1}
