"""The choice of the source of archives, the same for Python, the command line, ``datasets`` and TFDS.

The order is: the argument; the variable ``LUNG_NODULE_CT_SOURCE``; the cache of downloads; Zenodo. The first two name a
folder of archives, as a path or as a URL of a filesystem that fsspec opens, which the workers of a cluster can read too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lung_nodule_ct.declaration.archives import archives_of, specs_of_file
from lung_nodule_ct.errors import SourceError
from lung_nodule_ct.sources.byte_sources import file_name_of
from lung_nodule_ct.sources.source import Locations, Source
from lung_nodule_ct.sources.unrecognised import describe_unrecognised

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
    records = zenodo.known_records(reads)
    names = [file.key for record in records for file in record.files if not specs_of_file(file.key)]
    return Source(locations, str(zenodo), records, describe_unrecognised(names))


def open_folder(folder: str | os.PathLike[str]) -> Source:
    """Open the archives in a folder, at any depth: flat, or in ``part_a/`` and ``part_b/`` as the records have them.

    Links to files and folders are followed on this machine.

    Args:
        folder: A path, or a URL as fsspec takes it (``s3://bucket/folder``). Credentials are found as the filesystem finds
            them.

    Raises:
        SourceError: The folder does not exist or cannot be read, or the package of the filesystem is not installed.
    """
    name = os.fspath(folder)
    files = list(_ArchiveFolder(name).files())
    others = [file.path for file in files if not file.broken and not specs_of_file(file_name_of(file.location))]
    broken = [file.path for file in files if file.broken]
    return Source(
        Locations.matching(file.location for file in files if not file.broken),
        name,
        unrecognised=describe_unrecognised(others, broken),
    )


@dataclass(frozen=True, slots=True)
class _SourceFile:
    """A file in a folder of archives.

    Attributes:
        path: Its path in the folder, with forward slashes.
        location: Its location, as other processes open it.
        broken: Whether it is a link to something that does not exist.
    """

    path: str
    location: str
    broken: bool


class _ArchiveFolder:
    """A folder of archives, on this machine or on a filesystem of fsspec.

    Args:
        name: The path or the URL of the folder.

    Raises:
        SourceError: The folder does not exist or cannot be read, or the package of the filesystem is not installed.
    """

    def __init__(self, name: str) -> None:
        self._root, self._listing, self._location_of = _open_url(name) if "://" in name else _open_path(name)

    def files(self) -> Iterator[_SourceFile]:
        """Yield each file, sorted by folder and name. Hidden folders and ``__MACOSX`` are skipped."""
        for parent, folders, names in self._listing:
            folders[:] = sorted(folder for folder in folders if not folder.startswith(".") and folder != "__MACOSX")
            inside = parent.replace(os.sep, "/").removeprefix(self._root).strip("/")
            for name in sorted(names):
                path = f"{parent}/{name}"
                location = self._location_of(path)
                is_local = "://" not in location or location.startswith("file://")
                broken = is_local and Path(path).is_symlink() and not Path(path).exists()
                yield _SourceFile(f"{inside}/{name}".lstrip("/"), location, broken)


_Listing = Iterator[tuple[str, list[str], list[str]]]


def _open_path(name: str) -> tuple[str, _Listing, Callable[[str], str]]:
    """Return the folder, a listing as :func:`os.walk` gives it, and a function that turns its paths into locations."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise _not_a_folder(name, exists=folder.exists())
    return folder.as_posix(), _walk_with_links(folder), lambda path: str(Path(path).absolute())


def _walk_with_links(folder: Path) -> _Listing:
    """Walk through a folder and the folders that are linked there, each once, whatever the links refer to."""
    seen: set[tuple[int, int]] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        state = Path(parent).stat()
        if (state.st_dev, state.st_ino) in seen:
            folders.clear()
            continue
        seen.add((state.st_dev, state.st_ino))
        yield parent, folders, names


def _open_url(url: str) -> tuple[str, _Listing, Callable[[str], str]]:
    """Return the same for a URL."""
    import fsspec  # noqa: PLC0415 -- takes a tenth of a second, which only URLs need
    from fsspec.implementations.local import LocalFileSystem  # noqa: PLC0415

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
    if isinstance(filesystem, LocalFileSystem):
        return root, _walk_with_links(Path(root)), filesystem.unstrip_protocol
    return root, filesystem.walk(root), filesystem.unstrip_protocol


def _not_a_folder(name: str, *, exists: bool) -> SourceError:
    problem = "is not a folder" if exists else "does not exist"
    return SourceError(f"the source {name!r} {problem}", expected="a folder that contains the dataset's zip archives")
