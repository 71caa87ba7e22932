"""The archives of the dataset, wherever they are: a folder, a download and a server look alike from here on.

The archives that one piece of work has open.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lung_nodule_ct.declaration.archives import ArchiveSpec, Role, archives_of
from lung_nodule_ct.errors import ArchiveError, ArchiveNotFoundError, LungNoduleCTError
from lung_nodule_ct.sources.byte_sources import ByteSource, LocalFile
from lung_nodule_ct.sources.zip_directory import Archive, read_directory

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lung_nodule_ct.sources.records import Record


class Source:
    """The archives of the dataset, by role. Directories are read once and kept; content is never unpacked to disk.

    Args:
        locations: Where each archive is; an archive that is not there is left out.
        name: Where they come from, for messages.
        ambiguous: Archives for which more than one file was found.
        records: The records that they are of, where that is known: their licence and DOI go into the card.
    """

    def __init__(
        self,
        locations: Mapping[ArchiveSpec, str],
        name: str,
        ambiguous: Mapping[ArchiveSpec, tuple[str, ...]] | None = None,
        records: Iterable[Record] = (),
    ) -> None:
        self.name = name
        self.records = tuple(records)
        self._locations = dict(locations)
        self._ambiguous = dict(ambiguous or {})
        self._directories: dict[ArchiveSpec, Archive] = {}

    def has(self, spec: ArchiveSpec) -> bool:
        """Whether there is a file, of whatever content, for this archive."""
        return spec in self._locations or spec in self._ambiguous

    def location(self, spec: ArchiveSpec) -> str | None:
        """Where an archive is, ``None`` where it is missing."""
        return self._locations.get(spec)

    def missing(self, *roles: Role) -> tuple[ArchiveSpec, ...]:
        """The archives of some roles that are not there."""
        return tuple(spec for spec in archives_of(*roles) if not self.has(spec))

    def archive(self, spec: ArchiveSpec) -> Archive:
        """The checked directory of one archive.

        Raises:
            ArchiveNotFoundError: It is missing, or more than one file claims to be it.
            ArchiveError: It is no zip archive, or breaks a limit.
            MemberError: One of its members must not be read.
        """
        if spec in self._ambiguous:
            raise ArchiveNotFoundError(
                "more than one file claims to be this archive",
                archive=spec.name,
                expected="one file",
                got=", ".join(self._ambiguous[spec]),
                remedy="leave one of them in the source folder",
            )
        if spec not in self._locations:
            raise ArchiveNotFoundError(
                f"this archive ({spec.holds}) is not in {self.name}",
                archive=spec.name,
                remedy="see what is there with `lung-nodule-ct inspect`",
            )
        if spec not in self._directories:
            location = self._locations[spec]
            with ArchivePool() as archives:
                self._directories[spec] = archives.directory(location)
        return self._directories[spec]

    def archives(self, role: Role) -> tuple[Archive, ...]:
        """The archives of a role, in their published order.

        Raises:
            ArchiveNotFoundError: One of them is missing; all that are missing are named.
            ArchiveError: One of them is no zip archive, or breaks a limit.
            MemberError: A member of one of them must not be read.
        """
        if missing := self.missing(role):
            raise ArchiveNotFoundError(
                f"archives are missing from {self.name}: {', '.join(spec.name for spec in missing)}",
                expected=f"all archives of the role {role}",
                remedy="put them there (any depth of folders will do); `lung-nodule-ct inspect` shows what is found",
            )
        return tuple(self.archive(spec) for spec in archives_of(role))

    def fingerprints(self, roles: Iterable[Role]) -> dict[str, str | None]:
        """A hash of the content of each archive of some roles, by name; ``None`` where it is missing or unreadable."""
        prints: dict[str, str | None] = {}
        for spec in archives_of(*roles):
            try:
                prints[spec.name] = self.archive(spec).fingerprint
            except LungNoduleCTError:
                prints[spec.name] = None
        return prints


class ArchivePool:
    """Archives by location, each opened once: ``with ArchivePool() as opened: opened[location].read_at(…)``.

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

    def __enter__(self) -> ArchivePool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _is_remote(location: str) -> bool:
    return location.startswith(("https://", "http://"))


def _open(location: str) -> ByteSource:
    if _is_remote(location):
        from lung_nodule_ct.sources.remote_archive import RemoteFile, RemoteLocation  # noqa: PLC0415 -- a folder needs no HTTP

        return RemoteFile(RemoteLocation.parse(location))
    if "://" in location:
        from lung_nodule_ct.sources.byte_sources import FilesystemFile  # noqa: PLC0415 -- nor fsspec

        return FilesystemFile(location)
    path = Path(location)
    try:
        return LocalFile(path)
    except OSError as error:
        raise ArchiveError(f"could not be opened: {error}", archive=path.name) from error


def _name_of(location: str) -> str:
    """The archive's file name."""
    if _is_remote(location):
        from lung_nodule_ct.sources.remote_archive import RemoteLocation  # noqa: PLC0415 -- as above

        return RemoteLocation.parse(location).name
    return location.rpartition("/")[2] if "://" in location else Path(location).name
