"""The numbers of the scans of a source: which archives they come from, and the ids that they give.

A scan has the same id in every config because all archives whose names state patient and date are counted, whichever the config reads.
Only their directories are read.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from lung_nodule_ct.declaration.archives import NAMING_ROLES, Role, archives_of
from lung_nodule_ct.declaration.findings import Code, Finding
from lung_nodule_ct.declaration.identity import Name, ScanNumbers, parse_image_name, parse_volume_name
from lung_nodule_ct.errors import ArchiveError, ArchiveNotFoundError, MemberError, Place
from lung_nodule_ct.formats.pictures import SUFFIXES

if TYPE_CHECKING:
    from lung_nodule_ct.sources.source import Source
    from lung_nodule_ct.sources.zip_directory import Archive, Member

HEADER_SUFFIXES: Final = (".mhd", ".mha")
_OF_IMAGES: Final = (Role.CLASSIFICATION, Role.DETECTION_2D)


@dataclass(frozen=True)
class Numbering:
    """The numbers of the scans of a source.

    Attributes:
        numbers: The numbers.
        archives: Published names of the archives that they come from.
        sha256: A hash of the numbers and of the members that have them. It contains no name.
        findings: Archives that are missing or cannot be read, so that their scans are not counted.
    """

    numbers: ScanNumbers
    archives: tuple[str, ...]
    sha256: str
    findings: tuple[Finding, ...]


_NUMBERINGS: WeakKeyDictionary[Source, Numbering] = WeakKeyDictionary()


def number_scans(source: Source) -> Numbering:
    """Return the numbers of the scans of a source. The directories are read once per source.

    Raises:
        DownloadError: A server does not send a directory. The scans are not numbered without it, because they would have other numbers.
    """
    if source not in _NUMBERINGS:
        _NUMBERINGS[source] = _number(source)
    return _NUMBERINGS[source]


def _number(source: Source) -> Numbering:
    named: list[tuple[str, Member, Name]] = []
    archives, findings, missing = [], [], []
    for role in NAMING_ROLES:
        for spec in archives_of(role):
            if not source.has(spec):
                missing.append(spec.name)
                continue
            try:
                archive = source.archive(spec)
            except (ArchiveNotFoundError, ArchiveError, MemberError):
                findings.append(_not_counted(Place(spec.name), "it cannot be read", 1))
                continue
            archives.append(spec.name)
            named += [(spec.name, member, name) for member, name in _names_of(archive, role)]
    if missing:
        findings.append(_not_counted(Place(", ".join(missing)), "missing", len(missing)))
    numbers = ScanNumbers(name for _, _, name in named)
    digest = hashlib.sha256()
    for archive_name, member, name in named:
        digest.update(f"{archive_name}\0{member.size}\0{member.crc}\0{numbers.scan_id(name)}\0".encode())
    return Numbering(numbers, tuple(archives), digest.hexdigest(), tuple(findings))


def _names_of(archive: Archive, role: Role) -> list[tuple[Member, Name]]:
    suffixes, parse = (SUFFIXES, parse_image_name) if role in _OF_IMAGES else (HEADER_SUFFIXES, parse_volume_name)
    return [(member, parse(member.stem)) for member in archive.members if member.suffix in suffixes]


def _not_counted(place: Place, detail: str, count: int) -> Finding:
    return Finding(Code.CONTEXT_MISSING, "the numbers in scan_id are counted without it", place, detail, count)
