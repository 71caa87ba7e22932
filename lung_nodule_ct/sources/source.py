"""The archives of the dataset, independent of whether they are in a folder, in the cache or on a server."""

from __future__ import annotations

import hmac
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from lung_nodule_ct.declaration.archives import ArchiveSpec, Role, archives_of, specs_of_file
from lung_nodule_ct.errors import ArchiveNotFoundError, LungNoduleCTError
from lung_nodule_ct.sources.byte_sources import ByteSource, FsspecFile, LocalFile, RemoteLocation, file_name_of
from lung_nodule_ct.sources.unrecognised import near_misses
from lung_nodule_ct.sources.zip_directory import Archive, read_directory

if TYPE_CHECKING:
    from lung_nodule_ct.sources.records import Record
    from lung_nodule_ct.sources.unrecognised import UnrecognisedFile
    from lung_nodule_ct.sources.zip_directory import Member

_MAX_NEAR = 5
"""Files that an error lists because they may be an archive that is missing."""


@dataclass(frozen=True)
class Locations:
    """Where the archives of the dataset are. An archive that is missing occurs in neither mapping.

    Attributes:
        single: The location of each archive for which there is one file.
        several: The files that match the name of an archive, where there is more than one.
    """

    single: Mapping[ArchiveSpec, str]
    several: Mapping[ArchiveSpec, tuple[str, ...]]

    @classmethod
    def matching(cls, locations: Iterable[str]) -> Self:
        """Assign files to archives by their names. A file that matches no archive is left out."""
        candidates: dict[ArchiveSpec, tuple[str, ...]] = {}
        for location in locations:
            for spec in specs_of_file(file_name_of(location)):
                candidates[spec] = (*candidates.get(spec, ()), location)
        return cls(
            {spec: files[0] for spec, files in candidates.items() if len(files) == 1},
            {spec: files for spec, files in candidates.items() if len(files) > 1},
        )


class Source:
    """The archives of the dataset, by role. Directories are read once and kept; nothing is unpacked to the disk.

    Args:
        locations: Where the archives are.
        name: Where they come from, for messages.
        records: The records that the archives were published in. Empty where that is not known, as for a folder.
        unrecognised: The files that are no archive of the dataset.

    Attributes:
        name: Where the archives come from, for messages.
        records: The records that the archives were published in.
        unrecognised: The files that are no archive of the dataset, and are not read.
    """

    def __init__(
        self,
        locations: Locations,
        name: str,
        records: Iterable[Record] = (),
        unrecognised: Iterable[UnrecognisedFile] = (),
    ) -> None:
        self.name = name
        self.records = tuple(records)
        self.unrecognised = tuple(unrecognised)
        self._locations = locations
        self._directories: dict[ArchiveSpec, Archive] = {}

    def has(self, spec: ArchiveSpec) -> bool:
        """Whether there is a file for an archive, whatever its content."""
        return spec in self._locations.single or spec in self._locations.several

    def location(self, spec: ArchiveSpec) -> str | None:
        """Return the location of an archive, ``None`` if it is missing or ambiguous."""
        return self._locations.single.get(spec)

    def missing(self, *roles: Role) -> tuple[ArchiveSpec, ...]:
        """Return the archives of some roles for which there is no file."""
        return tuple(spec for spec in archives_of(*roles) if not self.has(spec))

    def archive(self, spec: ArchiveSpec) -> Archive:
        """Return the checked directory of an archive.

        Raises:
            ArchiveNotFoundError: The archive is missing, or more than one file matches its name.
            ArchiveError: The file is not a zip archive, or exceeds a limit.
            MemberError: A member of the archive is unsafe or cannot be read.
        """
        if files := self._locations.several.get(spec):
            raise ArchiveNotFoundError(
                "more than one file matches this archive",
                archive=spec.name,
                expected="one file",
                got=", ".join(files),
                remedy="keep one of them in the source folder, and move the others to another folder",
            )
        location = self.location(spec)
        if location is None:
            raise ArchiveNotFoundError(
                f"this archive ({spec.holds}) is not in {self.name}",
                archive=spec.name,
                got=self._near_misses(spec),
                remedy="list the archives with `lung-nodule-ct inspect`",
            )
        if spec not in self._directories:
            with ArchivePool() as archives:
                self._directories[spec] = archives.directory(location)
        return self._directories[spec]

    def archives(self, role: Role) -> tuple[Archive, ...]:
        """Return the checked directories of the archives of a role, in their published order.

        Raises:
            ArchiveNotFoundError: An archive is missing or ambiguous. The message names all that are missing.
            ArchiveError: A file is not a zip archive, or exceeds a limit.
            MemberError: A member of an archive is unsafe or cannot be read.
        """
        if missing := self.missing(role):
            raise ArchiveNotFoundError(
                f"archives are missing from {self.name}: {', '.join(spec.name for spec in missing)}",
                expected=f"all archives of the role {role}",
                got=self._near_misses(*missing),
                remedy="add them, in any folder below; `lung-nodule-ct inspect` lists the archives",
            )
        return tuple(self.archive(spec) for spec in archives_of(role))

    def _near_misses(self, *specs: ArchiveSpec) -> str | None:
        """The files that may be some archives, and what to do with them."""
        return "; ".join(map(str, near_misses(self.unrecognised, specs)[:_MAX_NEAR])) or None

    def fingerprints(self, roles: Iterable[Role], key: bytes | None = None) -> dict[str, str | None]:
        """Return a hash of each archive of some roles, by name; ``None`` if it is missing or unreadable.

        Args:
            roles: The roles.
            key: A secret of this machine. With it, the hash covers all names and contents, and must not be published.
        """
        fingerprints: dict[str, str | None] = {}
        for spec in archives_of(*roles):
            try:
                archive = self.archive(spec)
                fingerprints[spec.name] = archive.fingerprint if key is None else _keyed_fingerprint(archive, key)
            except LungNoduleCTError:
                fingerprints[spec.name] = None
        return fingerprints


def _keyed_fingerprint(archive: Archive, key: bytes) -> str:
    """A hash of all names, sizes and checksums of an archive, which is useless without the key."""
    digest = hmac.new(key, digestmod="sha256")
    for member in archive.members:
        digest.update(f"{member.name}\0{member.size}\0{member.crc}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


class ArchivePool:
    """Open archives by location, each opened once: ``with ArchivePool() as archives: archives[location].read_at(...)``.

    Args:
        sources: Archives that are open already. They are closed together with the others.
    """

    def __init__(self, sources: Mapping[str, ByteSource] | None = None) -> None:
        self._sources: dict[str, ByteSource] = dict(sources or {})
        self._directories: dict[str, Archive] = {}
        self._lock = threading.Lock()

    def __getitem__(self, location: str) -> ByteSource:
        """Return the bytes of the archive at a location.

        Raises:
            ArchiveError: The archive cannot be opened.
        """
        with self._lock:
            if location not in self._sources:
                self._sources[location] = _open_location(location)
            return self._sources[location]

    def directory(self, location: str) -> Archive:
        """Return the checked directory of the archive at a location, which is read once.

        Raises:
            ArchiveError: The file cannot be opened, is not a zip archive, or exceeds a limit.
            MemberError: A member of the archive is unsafe or cannot be read.
        """
        if location not in self._directories:
            self._directories[location] = read_directory(self[location], location, file_name_of(location))
        return self._directories[location]

    def prefetch(self, members: Iterable[Member]) -> None:
        """Fetch the bytes of some small members, which will be read soon, in few requests. Of archives on this machine nothing is read.

        Raises:
            ArchiveError: An archive cannot be opened or read.
            DownloadError: A server does not send the bytes.
        """
        by_location: dict[str, list[tuple[int, int]]] = {}
        for member in members:
            by_location.setdefault(member.location, []).append((member.offset, member.offset + member.span))
        for location, ranges in by_location.items():
            self[location].prefetch(ranges)

    def close(self) -> None:
        """Close all archives."""
        with self._lock:
            while self._sources:
                self._sources.popitem()[1].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _open_location(location: str) -> ByteSource:
    if remote := RemoteLocation.parse(location):
        from lung_nodule_ct.sources.remote_archive import RemoteFile  # noqa: PLC0415 -- requests is only needed here

        return RemoteFile(remote)
    return FsspecFile(location) if "://" in location else LocalFile(Path(location))
