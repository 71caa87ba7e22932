"""The directory of one zip archive, read once and checked: who is in it, where, how large, under which name.

The standard library parses the directory; what it does not check is checked here, before a byte is inflated: names that
leave the archive, entries that overlap, encryption, unknown compression, sizes past the limits. Names are mended: GBK
without the UTF-8 flag, backslashes, and the litter that macOS and Windows leave.
"""

from __future__ import annotations

import hashlib
import io
import re
import struct
import zipfile
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Final

from lung_nodule_ct.declaration.findings import Code, Finding
from lung_nodule_ct.errors import ArchiveError, MemberError, Place

if TYPE_CHECKING:
    from lung_nodule_ct.sources.byte_sources import ByteSource

STORED: Final = 0
DEFLATED: Final = 8
DEFLATE64: Final = 9

_MAX_MEMBERS = 2_000_000
_MAX_DIRECTORY_BYTES = 512 << 20
MAX_LFS_POINTER_BYTES: Final = 1024
"""No Git LFS pointer is longer (https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md)."""
MAX_MEMBER_BYTES: Final = (2 << 30) - 1
"""The largest member that is read. A Parquet page and a protobuf message end there too."""

_UTF8_FLAG = 0x800
_ENCRYPTED_FLAGS = 0x1 | 0x40
LOCAL_HEADER_BYTES: Final = 30
_LITTER = re.compile(r"(?:^|/)(?:__MACOSX/|\._|\.DS_Store$|Thumbs\.db$|desktop\.ini$)", re.IGNORECASE)
_OTHER_FORMATS = {b"Rar!": "a RAR archive", b"7z\xbc\xaf": "a 7-Zip archive", b"\x1f\x8b": "a gzip file"}


@dataclass(frozen=True, slots=True)
class Member:
    """One file inside an archive: small, picklable, and enough to read it without the directory.

    Attributes:
        location: Where the archive is.
        archive: The archive's file name, for messages.
        name: The member's mended name, with forward slashes.
        offset: Where its local header begins.
        span: Bytes from there to what follows it in the archive: the most that need be read of it.
        packed: Its size in the archive.
        size: Its size in full.
        crc: CRC-32 of its content.
        method: The zip compression method.
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
        """An error that names this member; ``remedy`` stands behind the advice to download the archive again."""
        again = "download the archive again and compare its md5 with the record"
        return MemberError(
            problem,
            archive=self.archive,
            member=self.name,
            expected=expected,
            got=got,
            remedy=f"{again}; {remedy}" if remedy else again,
        )

    @property
    def place(self) -> Place:
        """Archive and member, for findings and errors."""
        return Place(self.archive, self.name)

    @property
    def folder(self) -> str:
        """The folder it lies in, without a slash at its end; empty at the top."""
        return self.name.rpartition("/")[0]

    @property
    def file_name(self) -> str:
        """The name without its folder."""
        return self.name.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The file's name without folder and extension."""
        return self.file_name.rpartition(".")[0] or self.file_name

    @property
    def suffix(self) -> str:
        """The extension in lower case, with its dot; empty where there is none."""
        bare, dot, extension = self.file_name.rpartition(".")
        return f".{extension.lower()}" if bare and dot else ""


@dataclass(frozen=True)
class Archive:
    """The checked directory of one archive.

    Attributes:
        location: Where it is.
        name: Its file name.
        size: Its length in bytes.
        members: Its files, in the order in which they lie in it; folders and litter are left out.
        findings: What was odd about the directory.
    """

    location: str
    name: str
    size: int
    members: tuple[Member, ...]
    findings: tuple[Finding, ...] = ()

    @property
    def place(self) -> Place:
        """The archive as a place, for findings and errors."""
        return Place(self.name)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all names, sizes and checksums: the same content gives the same, however it is packed."""
        digest = hashlib.sha256()
        for member in sorted(self.members, key=lambda member: member.name):
            digest.update(f"{member.name}\0{member.size}\0{member.crc}\0".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def read_directory(source: ByteSource, location: str, name: str) -> Archive:
    """The directory of the archive ``name``.

    Raises:
        ArchiveError: It is no zip archive, is cut short, or breaks a limit.
        MemberError: A member's name leaves the archive, or it is encrypted, overlaps another or cannot be inflated.
    """
    _refuse_impostors(source, name)
    try:
        with zipfile.ZipFile(io.BufferedReader(_AsFile(source), 1 << 16)) as parsed:
            infos, end_of_data = parsed.infolist(), parsed.start_dir
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, struct.error, EOFError) as error:
        raise ArchiveError(
            f"cannot be read as a zip archive ({error})",
            archive=name,
            expected="a whole zip archive",
            got=f"{source.size:,} bytes that have no valid directory, as after a download that broke off",
            remedy="download it again and compare its size and md5 with the record",
        ) from error
    if len(infos) > _MAX_MEMBERS or source.size - end_of_data > _MAX_DIRECTORY_BYTES:
        raise ArchiveError(
            "has a directory that is too large to be this dataset's",
            archive=name,
            expected=f"at most {_MAX_MEMBERS:,} members",
            got=f"{len(infos):,}",
        )
    members = sorted(
        (
            Member(
                location,
                name,
                mended,
                info.header_offset,
                0,
                info.compress_size,
                info.file_size,
                info.CRC,
                info.compress_type,
            )
            for info in infos
            if not (mended := _checked_name(info, name)).endswith("/") and not _LITTER.search(mended)
            if _is_readable(info, name, mended)
        ),
        key=lambda member: member.offset,
    )
    unique, findings = _first_of_each_name(_with_spans(members, end_of_data))
    return Archive(location, name, source.size, unique, findings)


class _AsFile(io.RawIOBase):
    """A byte source as the seekable file that :mod:`zipfile` wants."""

    def __init__(self, source: ByteSource) -> None:
        self._source, self._position = source, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._source.size}[whence]
        if base + offset < 0:
            raise OSError("negative seek position")  # what zipfile expects of a short file
        self._position = base + offset
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._source.read_at(self._position, min(len(buffer), max(0, self._source.size - self._position)))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def lfs_pointer(head: bytes) -> str | None:
    """What stands in a file's place if it begins as a Git LFS pointer does; ``None`` where it does not."""
    if not head.startswith(b"version https://git-lfs"):
        return None
    size = re.search(rb"^size (\d{1,19})", head, re.MULTILINE)
    return "a Git LFS pointer" + (f" to a file of {int(size[1]):,} bytes" if size else "")


def _refuse_impostors(source: ByteSource, name: str) -> None:
    """Name what stands in the archive's place, where it can be told by its first bytes."""
    head = source.read_at(0, 1024)
    remedy = "download it again"
    if not head:
        found = "an empty file"
    elif pointer := lfs_pointer(head):
        found = pointer
        remedy = "fetch the file itself, with `git lfs pull` or from the record"
    elif re.match(rb"\s*(?:<!doctype\s+html|<html|<\?xml)", head, re.IGNORECASE):
        found = "an HTML or XML page, as a server sends in place of a file it will not give"
    else:
        other = [format_ for magic, format_ in _OTHER_FORMATS.items() if head.startswith(magic)]
        if not other:
            return
        found = other[0]
        remedy = "pack its content as a zip archive, or download the published one"
    raise ArchiveError("is no zip archive", archive=name, expected="a zip archive", got=found, remedy=remedy)


def _checked_name(info: zipfile.ZipInfo, archive: str) -> str:
    raw = info.orig_filename
    if not info.flag_bits & _UTF8_FLAG and not raw.isascii():
        raw = _decoded(raw.encode("cp437"))
    mended = raw.replace("\\", "/")
    if mended.startswith("/") or re.match(r"[A-Za-z]:", mended) or ".." in mended.split("/") or "\0" in mended:
        raise MemberError(
            "a member's name leaves the archive",
            archive=archive,
            member=mended.replace("\0", "\\0"),
            expected="a relative path without '..'",
            got=repr(raw),
            remedy="this archive was tampered with or badly packed: download it again, or pack its content anew",
        )
    return re.sub(r"(?:^|(?<=/))(?:\./)+|/(?=/)", "", mended)


def _decoded(raw: bytes) -> str:
    """A name without the UTF-8 flag: UTF-8 after all, or GBK, or what the zip standard says it is."""
    for encoding in ("utf-8", "gb18030"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return raw.decode("cp437")


def _is_readable(info: zipfile.ZipInfo, archive: str, member: str) -> bool:
    """Refuse what cannot be inflated, or must not be."""
    if info.flag_bits & _ENCRYPTED_FLAGS:
        raise MemberError(
            "is encrypted",
            archive=archive,
            member=member,
            remedy="unpack it with its password and pack it anew without",
        )
    if info.compress_type not in (STORED, DEFLATED, DEFLATE64):
        raise MemberError(
            "is compressed by a method that is not supported",
            archive=archive,
            member=member,
            expected="stored (0), deflate (8) or deflate64 (9)",
            got=f"method {info.compress_type}",
            remedy="unpack the archive and pack it anew with deflate",
        )
    if info.file_size > MAX_MEMBER_BYTES:
        raise MemberError(
            "is too large",
            archive=archive,
            member=member,
            expected=f"at most {MAX_MEMBER_BYTES:,} bytes",
            got=f"{info.file_size:,}",
        )
    return True


def _with_spans(members: list[Member], end_of_data: int) -> list[Member]:
    """The members, each with its span; one that overlaps what follows it is refused."""
    ends = [member.offset for member in members[1:]] + [end_of_data]
    spanned = []
    for member, end in zip(members, ends, strict=False):  # an archive without members has an end all the same
        if member.offset + LOCAL_HEADER_BYTES + member.packed > end:
            raise member.error(
                "overlaps what follows it in the archive, as only a damaged archive or a zip bomb does",
                expected=f"an end before byte {end:,}",
                got=f"byte {member.offset + LOCAL_HEADER_BYTES + member.packed:,}",
            )
        longest = LOCAL_HEADER_BYTES + 2 * 0xFFFF + member.packed  # with the longest name and extra field there can be
        spanned.append(replace(member, span=min(end - member.offset, longest)))
    return spanned


def _first_of_each_name(members: list[Member]) -> tuple[tuple[Member, ...], tuple[Finding, ...]]:
    first: dict[str, Member] = {}
    findings = []
    for member in members:
        if first.setdefault(member.name, member) is not member:
            same = "equal" if member.crc == first[member.name].crc else "different"
            findings.append(
                Finding(
                    Code.DUPLICATE_ID,
                    "the first is used",
                    member.place,
                    f"the archive holds two members of this name, of {same} content",
                )
            )
    return tuple(first.values()), tuple(findings)
