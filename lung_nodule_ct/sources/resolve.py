"""The choice of the source of archives, the same for Python, the command line, ``datasets`` and TFDS.

The order is: the argument; the variable ``LUNG_NODULE_CT_SOURCE``; the cache of downloads; Zenodo. The first two name a
folder of archives, as a path or as a URL of a filesystem that fsspec opens, which the workers of a cluster can read too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lung_nodule_ct.declaration.archives import archives_of
from lung_nodule_ct.errors import SourceError
from lung_nodule_ct.sources.source import Locations, Source

if TYPE_CHECKING:
    from lung_nodule_ct.declaration.configs import Config
    from lung_nodule_ct.sources.zenodo import Zenodo
    from lung_nodule_ct.system.progress import DownloadProgress

SOURCE_VARIABLE: Final = "LUNG_NODULE_CT_SOURCE"


def requested_folder(source: str | os.PathLike[str] | None) -> str | None:
    """Return the folder of archives that the argument names, or the environment if there is no argument; else ``None``."""
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
    """Open the archives of some configs.

    Args:
        source: A folder of archives, or its URL as fsspec takes it. If it is ``None``, the variable
            ``LUNG_NODULE_CT_SOURCE`` names the folder; if that is not set, the archives come from the cache of downloads and
            from Zenodo.
        configs: What the archives are for. Only what these configs read is downloaded. Of archives that only give context
            (timepoints, pathology) and are not in the cache, only the directories are read, by range requests; offline they
            are missing.
        remote: Download nothing, and read what is not in the cache by range requests.
        offline: Send no requests.
        progress: Is called while downloads make progress.

    Raises:
        SourceError: The folder does not exist or cannot be opened, or an archive is not in the cache in offline mode.
        ArchiveNotFoundError: A record has no file for an archive, or more than one.
        DownloadError: A server does not send a record or one of its files.
        OutputError: There is not enough free space for a download.
    """
    folder = requested_folder(source)
    if folder is not None:
        return open_folder(folder)
    from lung_nodule_ct.sources.zenodo import Zenodo  # noqa: PLC0415 -- requests is only needed here

    return open_zenodo(Zenodo(offline=offline, progress=progress), configs, remote=remote)


def open_zenodo(zenodo: Zenodo, configs: Sequence[Config], *, remote: bool) -> Source:
    """Open the archives of some configs from the cache and from Zenodo. See :func:`open_source`."""
    reads = archives_of(*{role for config in configs for role in config.reads})
    context = [
        spec for spec in archives_of(*{role for config in configs for role in config.context}) if spec not in reads
    ]
    downloaded = {} if remote else {spec: str(path) for spec, path in zenodo.download(reads).items()}
    others = zenodo.locate([spec for spec in (*reads, *context) if spec not in downloaded])
    locations = Locations({**downloaded, **others.single}, others.several)
    return Source(locations, str(zenodo), zenodo.known_records(reads))


def open_folder(folder: str | os.PathLike[str]) -> Source:
    """Open the archives in a folder, at any depth: flat, or in ``part_a/`` and ``part_b/`` as the records have them.

    Args:
        folder: A path, or a URL as fsspec takes it (``s3://bucket/folder``). Credentials are found as the filesystem finds
            them.

    Raises:
        SourceError: The folder does not exist or cannot be read, or the package of the filesystem is not installed.
    """
    name = os.fspath(folder)
    return Source(Locations.matching(_ArchiveFolder(name).files()), name)


class _ArchiveFolder:
    """A folder of archives, on this machine or on a filesystem of fsspec.

    Args:
        name: The path or the URL of the folder.

    Raises:
        SourceError: The folder does not exist or cannot be read, or the package of the filesystem is not installed.
    """

    def __init__(self, name: str) -> None:
        self._listing, self._location_of = _open_url(name) if "://" in name else _open_path(name)

    def files(self) -> Iterator[str]:
        """Yield the location of each file, sorted by folder and name.

        Hidden folders and ``__MACOSX`` are skipped. On this machine, links to folders are not followed.
        """
        for parent, folders, names in self._listing:
            folders[:] = sorted(folder for folder in folders if not folder.startswith(".") and folder != "__MACOSX")
            for name in sorted(names):
                yield self._location_of(f"{parent}/{name}")


_Listing = Iterator[tuple[str, list[str], list[str]]]


def _open_path(name: str) -> tuple[_Listing, Callable[[str], str]]:
    """Return a listing as :func:`os.walk` gives it, and a function that turns its paths into locations."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise _not_a_folder(name, exists=folder.exists())
    return os.walk(folder), lambda path: str(Path(path).absolute())


def _open_url(url: str) -> tuple[_Listing, Callable[[str], str]]:
    """Return a listing of the same form, and a function that turns its paths into locations."""
    import fsspec  # noqa: PLC0415 -- takes a tenth of a second, which only URLs need

    try:
        filesystem, root = fsspec.core.url_to_fs(url)
        entries = filesystem.ls(root, detail=False)  # raises errors, which walk() ignores
    except ImportError as error:
        raise SourceError(f"{url} cannot be opened: {error}", remedy="install that package") from error
    except FileNotFoundError as error:
        raise _not_a_folder(url, exists=False) from error
    except (OSError, ValueError) as error:
        raise SourceError(f"{url} cannot be read: {error}") from error
    if not entries or entries == [root]:  # object stores have no empty folders
        raise _not_a_folder(url, exists=bool(entries))
    return filesystem.walk(root), filesystem.unstrip_protocol


def _not_a_folder(name: str, *, exists: bool) -> SourceError:
    problem = "is not a folder" if exists else "does not exist"
    return SourceError(f"the source {name!r} {problem}", expected="a folder that contains the dataset's zip archives")
