"""The directory of one zip archive, read once and checked: the name, position and size of each member.

The standard library parses the directory. What it does not check is checked here, before anything is inflated: names that
lead out of the archive, members that overlap, encryption, unknown compression methods, sizes beyond the limits. Names are
repaired: GBK without the UTF-8 flag, and backslashes. Files that macOS and Windows add are left out.
"""

from __future__ import annotations

import hashlib
import io
import re
import struct
import zipfile
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Final

from lung_nodule_ct.declaration.findings import Code, Finding
from lung_nodule_ct.declaration.identity import redact_name
from lung_nodule_ct.errors import ArchiveError, MemberError, Place
from lung_nodule_ct.sources.zip_layout import (
    LOCAL_HEADER_BYTES,
    describe_gaps,
    find_gaps,
    refuse_last_part,
    refuse_other_formats,
)

if TYPE_CHECKING:
    from lung_nodule_ct.sources.byte_sources import ByteSource

STORED: Final = 0
DEFLATED: Final = 8
DEFLATE64: Final = 9

MAX_LFS_POINTER_BYTES: Final = 1024
"""The maximum length of a Git LFS pointer (https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md)."""
MAX_MEMBER_BYTES: Final = (2 << 30) - 1
"""The maximum size of a member that is read, which is also the limit of a Parquet page and of a protobuf message."""

_MAX_MEMBERS = 2_000_000
_MAX_DIRECTORY_BYTES = 512 << 20
_UTF8_FLAG = 0x800
_ENCRYPTED_FLAGS = 0x1 | 0x40
_SYSTEM_FILES = re.compile(r"(?:^|/)(?:\._[^/]*|\.DS_Store|Thumbs\.db|desktop\.ini)$", re.IGNORECASE)
_SYSTEM_FOLDER = re.compile(r"(?:^|/)__MACOSX/", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Member:
    """One file in an archive. It is small, can be pickled, and is read without the directory.

    Attributes:
        location: The location of the archive.
        archive: The file name of the archive, for messages.
        name: The repaired name of the member, with forward slashes.
        offset: The position of its local header in the archive.
        span: The number of bytes from there to what follows it in the archive, an upper limit for what has to be read.
        packed: Its compressed size in bytes.
        size: Its uncompressed size in bytes.
        crc: The CRC-32 of its content.
        method: The compression method of the zip format.
    """

    location: str
    archive: str
    name: str
    offset: int
    span: int
    packed: int
    size: int
    crc: int
    method: int

    def error(
        self, problem: str, *, expected: object = None, got: object = None, remedy: str | None = None
    ) -> MemberError:
        """Return an error about the content of this member, which may be as it was packed; the default advice is to report it."""
        return MemberError(
            problem,
            archive=self.archive,
            member=self.name,
            expected=expected,
            got=got,
            remedy=remedy or "if the file is as published, report it",
        )

    def damage(self, problem: str, *, expected: object, got: object) -> MemberError:
        """Return an error about bytes that are not those that were packed; its advice is to download the archive again."""
        remedy = "download the archive again and compare its md5 with the record"
        return self.error(problem, expected=expected, got=got, remedy=remedy)

    @property
    def place(self) -> Place:
        """Archive and member, for findings and errors."""
        return Place(self.archive, self.name)

    @property
    def folder(self) -> str:
        """The name of the folder that contains it, without a slash at the end; empty at the top level."""
        return self.name.rpartition("/")[0]

    @property
    def file_name(self) -> str:
        """The name without its folder."""
        return self.name.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The name without folder and extension."""
        return self.file_name.rpartition(".")[0] or self.file_name

    @property
    def suffix(self) -> str:
        """The extension in lower case with its dot; empty if there is none."""
        bare, dot, extension = self.file_name.rpartition(".")
        return f".{extension.lower()}" if bare and dot else ""


@dataclass(frozen=True)
class Archive:
    """The checked directory of one archive.

    Attributes:
        location: The location of the archive.
        name: Its file name.
        size: Its length in bytes.
        members: Its files in the order of their positions, without folders and files that an operating system added.
        findings: Irregularities of the directory.
        ignored: Names of the files that an operating system added.
        left_out: Names of the files that are not read because of an irregularity of the directory.
        num_files: Number of files that the directory lists.
    """

    location: str
    name: str
    size: int
    members: tuple[Member, ...]
    findings: tuple[Finding, ...] = ()
    ignored: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    num_files: int = 0

    @property
    def place(self) -> Place:
        """The archive as a place, for findings and errors."""
        return Place(self.name)

    def find(self, name: str) -> Member | None:
        """Return the member of a name, or the only one whose name differs from it in upper and lower case alone."""
        if name in self._by_name:
            return self._by_name[name]
        in_any_case = self._by_lower.get(name.lower(), ())
        return in_any_case[0] if len(in_any_case) == 1 else None

    @cached_property
    def _by_name(self) -> dict[str, Member]:
        return {member.name: member for member in self.members}

    @cached_property
    def _by_lower(self) -> dict[str, list[Member]]:
        by_lower: defaultdict[str, list[Member]] = defaultdict(list)
        for member in self.members:
            by_lower[member.name.lower()].append(member)
        return dict(by_lower)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the sizes, of the checksums of raw voxels, and of the names without private parts, in the archive's order.

        It does not depend on the compression. Manifests list it, so it must not depend on a date: from the checksum of a header, the
        file name in it can be found within seconds, because a row has all of its other lines.
        """
        digest = hashlib.sha256()
        for member in self.members:
            crc = member.crc if member.suffix == ".raw" else 0
            digest.update(f"{redact_name(member.name)}\0{member.size}\0{crc}\0".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def read_directory(source: ByteSource, location: str, name: str) -> Archive:
    """Read and check the directory of an archive.

    Args:
        source: The bytes of the archive.
        location: The location of the archive, which its members refer to.
        name: The file name of the archive.

    Raises:
        ArchiveError: The file is not a zip archive, is incomplete, or exceeds a limit.
        MemberError: The name of a member leads out of the archive, or a member is encrypted, overlaps another one or has an
            unknown compression method.
    """
    refuse_other_formats(source, name)
    refuse_last_part(source, name)
    try:
        with zipfile.ZipFile(io.BufferedReader(_SeekableFile(source), 1 << 16)) as parsed:
            infos, end_of_data = parsed.infolist(), parsed.start_dir
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, struct.error, EOFError) as error:
        raise ArchiveError(
            f"cannot be read as a zip archive ({error})",
            archive=name,
            expected="a complete zip archive",
            got=f"{source.size:,} bytes without a valid directory, as after a download that broke off",
            remedy="download it again and compare its size and md5 with the record",
        ) from error
    if len(infos) > _MAX_MEMBERS or source.size - end_of_data > _MAX_DIRECTORY_BYTES:
        raise ArchiveError(
            "has a directory that is too large for an archive of this dataset",
            archive=name,
            expected=f"at most {_MAX_MEMBERS:,} members",
            got=f"{len(infos):,}",
        )
    if before := [info for info in infos if info.header_offset < 0]:
        raise ArchiveError(
            "has a directory at another position than its end states",
            archive=name,
            expected="entries that start within the file",
            got=f"{before[0].filename!r} at byte {before[0].header_offset}",
            remedy="download it again and compare its size and md5 with the record",
        )
    names = [_checked_name(info, name) for info in infos]
    entries = [(info, own) for info, own in zip(infos, names, strict=True) if info.file_size or not own.endswith("/")]
    ignored = tuple(own for _, own in entries if _SYSTEM_FILES.search(own))
    members = [_to_member(info, own, location, name) for info, own in entries if not _SYSTEM_FILES.search(own)]
    unique, left_out, findings = _first_of_each_name(_with_spans(members, end_of_data))
    if gaps := find_gaps(source, infos, end_of_data):
        expected = "expected nothing besides the entries of the directory"
        detail = f"{expected}, got {describe_gaps(gaps)}"
        findings = (*findings, Finding(Code.ARCHIVE_BYTES_UNLISTED, "not read", Place(name), detail))
    return Archive(location, name, source.size, unique, findings, ignored, left_out, len(entries))


class _SeekableFile(io.RawIOBase):
    """A byte source with the interface of a file that :mod:`zipfile` needs."""

    def __init__(self, source: ByteSource) -> None:
        self._source, self._position = source, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, relative_to: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._source.size}[relative_to]
        if base + offset < 0:
            raise OSError("negative seek position")  # which zipfile expects for a short file
        self._position = base + offset
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._source.read_at(self._position, min(len(buffer), max(0, self._source.size - self._position)))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def _to_member(info: zipfile.ZipInfo, name: str, location: str, archive: str) -> Member:
    """Return a member without its span."""
    _refuse_unreadable(info, archive, name)
    return Member(
        location,
        archive,
        name,
        offset=info.header_offset,
        span=0,
        packed=info.compress_size,
        size=info.file_size,
        crc=info.CRC,
        method=info.compress_type,
    )


def _checked_name(info: zipfile.ZipInfo, archive: str) -> str:
    raw = info.orig_filename
    if not info.flag_bits & _UTF8_FLAG and not raw.isascii():
        raw = _decode(raw.encode("cp437"))
    name = raw.replace("\\", "/")
    if name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in name.split("/") or "\0" in name:
        raise MemberError(
            "the name of a member leads out of the archive",
            archive=archive,
            member=name.replace("\0", "\\0"),
            expected="a relative path without '..'",
            got=repr(raw),
            remedy="this archive was manipulated or badly packed: compare its md5 with the record, or pack its content again",
        )
    return re.sub(r"(?:^|(?<=/))(?:\./)+|/(?=/)", "", name)


def _decode(raw: bytes) -> str:
    """Decode a name without the UTF-8 flag: as UTF-8 or GBK if that is possible, else as the zip format demands."""
    for encoding in ("utf-8", "gb18030"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return raw.decode("cp437")


def _refuse_unreadable(info: zipfile.ZipInfo, archive: str, name: str) -> None:
    """Raise an error for a member that cannot be inflated, or is too large."""
    if info.flag_bits & _ENCRYPTED_FLAGS:
        raise MemberError(
            "is encrypted",
            archive=archive,
            member=name,
            remedy="unpack it with its password and pack it again without one",
        )
    if info.compress_type not in (STORED, DEFLATED, DEFLATE64):
        raise MemberError(
            "is compressed by a method that is not supported",
            archive=archive,
            member=name,
            expected="stored (0), deflate (8) or deflate64 (9)",
            got=f"method {info.compress_type}",
            remedy="unpack the archive and pack it again with deflate",
        )
    if info.file_size > MAX_MEMBER_BYTES:
        raise MemberError(
            "is too large",
            archive=archive,
            member=name,
            expected=f"at most {MAX_MEMBER_BYTES:,} bytes",
            got=f"{info.file_size:,}",
        )


def _with_spans(members: list[Member], end_of_data: int) -> list[Member]:
    """Sort members by position and set their spans. A member that overlaps what follows it is an error."""
    members = sorted(members, key=lambda member: member.offset)
    ends = [member.offset for member in members[1:]] + [end_of_data]
    spanned = []
    for member, end in zip(members, ends, strict=False):  # without members there is still one end
        if member.offset + LOCAL_HEADER_BYTES + member.packed > end:
            raise member.damage(
                "overlaps what follows it in the archive, as in a damaged archive or a zip bomb",
                expected=f"an end before byte {end:,}",
                got=f"byte {member.offset + LOCAL_HEADER_BYTES + member.packed:,}",
            )
        longest = LOCAL_HEADER_BYTES + 2 * 0xFFFF + member.packed  # with the longest possible name and extra field
        spanned.append(replace(member, span=min(end - member.offset, longest)))
    return spanned


def _first_of_each_name(members: list[Member]) -> tuple[tuple[Member, ...], tuple[str, ...], tuple[Finding, ...]]:
    """Return the first member of each name, the names of the others, and a finding for each of these."""
    first: dict[str, Member] = {}
    left_out, findings = [], []
    for member in members:
        if member.name.endswith("/"):
            left_out.append(member.name)
            detail = f"a folder with a content of {member.size:,} bytes"
            findings.append(Finding(Code.MEMBER_UNUSED, "left out", member.place, detail))
        elif _SYSTEM_FOLDER.search(member.name):
            left_out.append(member.name)
            detail = "expected files named ._* in this folder, which macOS adds; if it belongs to the data, move it out of the folder"
            findings.append(Finding(Code.MEMBER_UNUSED, "left out", member.place, detail))
        elif first.setdefault(member.name, member) is not member:
            left_out.append(member.name)
            relation = "equal" if member.crc == first[member.name].crc else "different"
            detail = f"the archive holds two members of this name, of {relation} content"
            findings.append(Finding(Code.DUPLICATE_ID, "the first is used", member.place, detail))
    return tuple(first.values()), tuple(left_out), tuple(findings)
