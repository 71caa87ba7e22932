"""The archives of the dataset, wherever they are: a folder, a download and a server look alike from here on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lung_nodule_ct.declaration.archives import ArchiveSpec, Role, archives_of
from lung_nodule_ct.errors import ArchiveNotFoundError, LungNoduleCTError
from lung_nodule_ct.source.archive import Archive
from lung_nodule_ct.source.opened import Opened

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lung_nodule_ct.source.record import Record


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
            with Opened() as opened:
                self._directories[spec] = opened.directory(location)
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
