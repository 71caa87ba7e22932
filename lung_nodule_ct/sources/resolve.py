"""Where the archives are taken from, in one order for Python, the command line, ``datasets`` and TFDS alike.

The argument; ``LUNG_NODULE_CT_SOURCE``; the cache of downloads; Zenodo.

A folder of archives on this machine, at any depth: flat, or ``part_a/`` and ``part_b/`` as the records have them.

A folder of archives by URL, on whatever filesystem fsspec opens: what the workers of a cluster can read.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

import fsspec

from lung_nodule_ct.declaration.archives import ARCHIVES, ArchiveSpec, archives_of
from lung_nodule_ct.errors import SourceError
from lung_nodule_ct.sources.source import Source

if TYPE_CHECKING:
    from lung_nodule_ct.declaration.configs import Config
    from lung_nodule_ct.sources.zenodo import Zenodo
    from lung_nodule_ct.system.progress import DownloadProgress


SOURCE_VARIABLE: Final = "LUNG_NODULE_CT_SOURCE"
RECORDS: Final = "records "
"""What the name of a source begins with that is no folder."""


def requested_folder(source: str | os.PathLike[str] | None) -> str | None:
    """The folder of archives that the argument or the environment names, if one does."""
    chosen = source if source is not None else os.environ.get(SOURCE_VARIABLE)
    return os.fspath(chosen) if chosen else None


def open_source(
    source: str | os.PathLike[str] | None,
    configs: Sequence[Config],
    *,
    remote: bool = False,
    offline: bool = False,
    progress: DownloadProgress | None = None,
) -> Source:
    """The archives of some configs.

    Args:
        source: A folder of archives, or the URL of one as fsspec takes it. Without it ``LUNG_NODULE_CT_SOURCE`` names one; without that they come from the cache
            of downloads and from Zenodo.
        configs: What they are for: only what these read is downloaded. Archives that only give context (timepoints,
            pathology) and are not in the cache are read by ranges of their directories; offline they are missing.
        remote: Download nothing: read by ranges what is not in the cache.
        offline: Never ask a server.
        progress: Is told how far downloads are.

    Raises:
        SourceError: The folder does not exist, or cannot be opened; or offline, and something is not in the cache.
        ArchiveNotFoundError: A record has no file for an archive, or more than one.
        DownloadError: A server does not give what the record promises.
        OutputError: There is no room for a download.
    """
    folder = requested_folder(source)
    if folder is not None and "://" in folder:
        from lung_nodule_ct.sources.resolve import open_url_folder  # noqa: PLC0415 -- a folder here needs no fsspec

        return open_url_folder(folder)
    if folder is not None:
        return open_folder(folder)
    from lung_nodule_ct.sources.zenodo import Zenodo  # noqa: PLC0415 -- who has a folder needs no HTTP

    return open_zenodo(Zenodo(offline=offline, progress=progress), configs, remote=remote)


def open_zenodo(zenodo: Zenodo, configs: Sequence[Config], *, remote: bool) -> Source:
    """The archives of some configs from the cache and from Zenodo. See :func:`open_source`."""
    from lung_nodule_ct.sources.source import Source  # noqa: PLC0415 -- as above
    from lung_nodule_ct.sources.zenodo import locate  # noqa: PLC0415

    reads = archives_of(*{role for config in configs for role in config.reads})
    context = [
        spec for spec in archives_of(*{role for config in configs for role in config.context}) if spec not in reads
    ]
    downloaded = {} if remote else {spec: str(path) for spec, path in zenodo.download(reads).items()}
    found = locate(zenodo, [spec for spec in (*reads, *context) if spec not in downloaded])
    return Source({**downloaded, **found.single}, str(zenodo), found.several, records=zenodo.known_records(reads))


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


def open_url_folder(url: str) -> Source:
    """The archives below a URL, at any depth.

    Args:
        url: As fsspec takes it: ``s3://bucket/folder``. Credentials are found as its implementation finds them.

    Raises:
        SourceError: There is nothing, the filesystem's package is not installed, or it cannot be reached.
    """
    try:
        files, root = fsspec.core.url_to_fs(url)
        paths = sorted(files.find(root))
    except ImportError as error:
        raise SourceError(f"{url} cannot be opened: {error}", remedy="install that package") from error
    except (OSError, ValueError) as error:
        raise SourceError(f"{url} cannot be read: {error}") from error
    if not paths:
        raise SourceError(
            f"the source {url!r} does not exist", expected="a folder that holds the dataset's zip archives"
        )
    found: dict[ArchiveSpec, tuple[str, ...]] = {}
    for path in paths:
        for spec in ARCHIVES:
            if spec.matches(path.rpartition("/")[2]):
                found[spec] = (*found.get(spec, ()), files.unstrip_protocol(path))
    single = {spec: places[0] for spec, places in found.items() if len(places) == 1}
    return Source(single, url, {spec: places for spec, places in found.items() if len(places) > 1})
