"""The archives that one piece of work has open."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

from lung_nodule_ct.errors import ArchiveError
from lung_nodule_ct.source.archive import Archive, read_directory
from lung_nodule_ct.source.bytes import ByteSource, LocalFile


class Opened:
    """Archives by location, each opened once: ``with Opened() as opened: opened[location].read_at(…)``.

    Args:
        sources: Archives that are open already; they are closed with the rest.
    """

    def __init__(self, sources: Mapping[str, ByteSource] | None = None) -> None:
        self._sources: dict[str, ByteSource] = dict(sources or {})
        self._directories: dict[str, Archive] = {}
        self._lock = threading.Lock()

    def __getitem__(self, location: str) -> ByteSource:
        """The bytes at a location.

        Raises:
            ArchiveError: Nothing can be read there.
        """
        with self._lock:
            if location not in self._sources:
                self._sources[location] = _open(location)
            return self._sources[location]

    def directory(self, location: str) -> Archive:
        """The checked directory of the archive at a location, read once.

        Raises:
            ArchiveError: It is no zip archive, or breaks a limit.
            MemberError: One of its members must not be read.
        """
        if location not in self._directories:
            self._directories[location] = read_directory(self[location], location, _name_of(location))
        return self._directories[location]

    def close(self) -> None:
        """Close all of them."""
        with self._lock:
            while self._sources:
                self._sources.popitem()[1].close()

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _is_remote(location: str) -> bool:
    return location.startswith(("https://", "http://"))


def _open(location: str) -> ByteSource:
    if _is_remote(location):
        from lung_nodule_ct.source.remote import RemoteFile, RemoteLocation  # noqa: PLC0415 -- a folder needs no HTTP

        return RemoteFile(RemoteLocation.parse(location))
    if "://" in location:
        from lung_nodule_ct.source.filesystem import FilesystemFile  # noqa: PLC0415 -- nor fsspec

        return FilesystemFile(location)
    path = Path(location)
    try:
        return LocalFile(path)
    except OSError as error:
        raise ArchiveError(f"could not be opened: {error}", archive=path.name) from error


def _name_of(location: str) -> str:
    """The archive's file name."""
    if _is_remote(location):
        from lung_nodule_ct.source.remote import RemoteLocation  # noqa: PLC0415 -- as above

        return RemoteLocation.parse(location).name
    return location.rpartition("/")[2] if "://" in location else Path(location).name
