"""What a file has besides the members of a zip archive: the signs of another format or of a split archive, and bytes that no entry owns.

A zip archive is read from its directory at the end. A file with an archive appended to something else, with entries that the directory
does not list, or with data behind its end is therefore read without an error, and its other bytes would never be seen.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lung_nodule_ct.errors import ArchiveError
from lung_nodule_ct.sources.byte_sources import LocalFile, MemoryFile

if TYPE_CHECKING:
    import zipfile
    from collections.abc import Iterable, Iterator, Sequence

    from lung_nodule_ct.sources.byte_sources import ByteSource

LOCAL_HEADER_BYTES: Final = 30
_OTHER_FORMATS: Final = {
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"\x1f\x8b": "a gzip file",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ": "an xz file",
}
_TAR_MAGIC_AT: Final = 257
_END_RECORD: Final = b"PK\x05\x06"
_END_RECORD_BYTES: Final = 22
_MAX_COMMENT_BYTES: Final = 0xFFFF
_HAS_DESCRIPTOR: Final = 0x8
_DESCRIPTORS: Final = tuple((prefix, width) for prefix in (b"PK\x07\x08", b"") for width in (4, 8))
"""The forms of a data descriptor: with or without a signature, and the number of bytes of its sizes."""
_MAX_DESCRIPTOR_BYTES: Final = 24
_MAX_REQUESTS: Final = 100
"""Positions that are examined in an archive on a server, where each takes a request."""
_FEW_BYTES: Final = 64
"""The size of the extra fields of most archives. On a server, only larger gaps are examined."""
_MAX_PADDING_BYTES: Final = 1 << 20
"""The size of a gap that is read to find out whether it is padding."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Bytes of an archive that neither its directory nor one of its entries owns.

    Attributes:
        start: The position of the first one.
        end: The position after the last one.

    Raises:
        ValueError: There are none.
    """

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ValueError(f"expected a start before the end, got {self.start} and {self.end}")

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self.end - self.start


def refuse_other_formats(source: ByteSource, name: str) -> None:
    """Check that the first bytes of a file are not those of another format.

    Raises:
        ArchiveError: They are; the error says what the file is.
    """
    head = source.read_at(0, 1024)
    remedy = "download it again"
    if not head:
        got = "an empty file"
    elif pointer := lfs_pointer(head):
        got = pointer
        remedy = "fetch the file itself, with `git lfs pull` or from the record"
    elif re.match(rb"\s*(?:<!doctype\s+html|<html|<\?xml)", head, re.IGNORECASE):
        got = "an HTML or XML page, which a server sends instead of a file that it refuses"
    else:
        other = [format_ for magic, format_ in _OTHER_FORMATS.items() if head.startswith(magic)]
        other += ["a tar archive"] * (head[_TAR_MAGIC_AT:].startswith(b"ustar"))
        if not other:
            return
        got = other[0]
        remedy = "pack its content as a zip archive, or download the published one"
    raise ArchiveError("is not a zip archive", archive=name, expected="a zip archive", got=got, remedy=remedy)


def refuse_last_part(source: ByteSource, name: str) -> None:
    """Check that a file is not the last part of a split archive.

    Raises:
        ArchiveError: It is; the error says how to join the parts.
    """
    _, record = _end_record(source)
    part = int.from_bytes(record[4:6], "little")
    if part not in (0, 0xFFFF):  # the latter refers to a record of Zip64
        stem = name.rpartition(".")[0]
        raise ArchiveError(
            "is the last part of a split archive",
            archive=name,
            expected="a zip archive in one file",
            got=f"part {part + 1} of {part + 1}, which needs {stem}.z01"
            + (f" to {stem}.z{part:02d}" if part > 1 else ""),
            remedy=f"put all parts into one folder, join them there with `zip -s 0 {name} --out joined.zip`, "
            f"and use joined.zip under the name {name}",
        )


def lfs_pointer(head: bytes) -> str | None:
    """Return a description of a Git LFS pointer if a file begins as one, ``None`` otherwise."""
    if not head.startswith(b"version https://git-lfs"):
        return None
    size = re.search(rb"^size (\d{1,19})", head, re.MULTILINE)
    return "a Git LFS pointer" + (f" to a file of {int(size[1]):,} bytes" if size else "")


def find_gaps(source: ByteSource, entries: Iterable[zipfile.ZipInfo], directory_start: int) -> tuple[Gap, ...]:
    """Find the bytes before, between and behind the entries of an archive, in their order.

    Extra fields, data descriptors, the comment at the end and padding with zeros are not gaps. On a server, at most a hundred positions
    are examined, the largest first, and what is as small as an extra field is taken for one.

    Args:
        source: The bytes of the archive.
        entries: All entries of its directory.
        directory_start: The position of the directory.
    """
    is_local = isinstance(source, LocalFile | MemoryFile)
    possible = list(_possible_gaps(sorted(entries, key=lambda entry: entry.header_offset), directory_start))
    if not is_local:
        possible = [(entry, gap) for entry, gap in possible if gap.size > _FEW_BYTES]
        possible = sorted(possible, key=lambda each: -each[1].size)[:_MAX_REQUESTS]
    start, record = _end_record(source)
    end = start + _END_RECORD_BYTES + int.from_bytes(record[20:22], "little")
    if record and end < source.size:
        possible.append((None, Gap(end, source.size)))
    exact = (_without_fields(source, entry, gap) for entry, gap in possible)
    return tuple(sorted((gap for gap in exact if gap and not _is_padding(source, gap)), key=lambda gap: gap.start))


def describe_gaps(gaps: Sequence[Gap]) -> str:
    """Return number and position of the bytes in gaps, as text."""
    total = sum(gap.size for gap in gaps)
    where = f"in {len(gaps):,} places, the first " if len(gaps) > 1 else ""
    return f"{total:,} bytes {where}at byte {gaps[0].start:,}"


def _possible_gaps(
    entries: Sequence[zipfile.ZipInfo], directory_start: int
) -> Iterator[tuple[zipfile.ZipInfo | None, Gap]]:
    """What lies between the shortest possible extents of the entries, each with the entry before it."""
    position, before = 0, None
    for entry in entries:
        if entry.header_offset > position:
            yield before, Gap(position, entry.header_offset)
        is_utf8 = entry.flag_bits & 0x800
        name = len(entry.orig_filename.encode("utf-8" if is_utf8 else "cp437", "replace"))
        end = entry.header_offset + LOCAL_HEADER_BYTES + name + entry.compress_size
        if end >= position:
            position, before = end, entry
    if directory_start > position:
        yield before, Gap(position, directory_start)


def _without_fields(source: ByteSource, entry: zipfile.ZipInfo | None, gap: Gap) -> Gap | None:
    """What is left of a gap after the extra field and the data descriptor of the entry before it."""
    if entry is None:
        return gap
    header = source.read_at(entry.header_offset, LOCAL_HEADER_BYTES)
    lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    start = entry.header_offset + LOCAL_HEADER_BYTES + lengths + entry.compress_size
    if entry.flag_bits & _HAS_DESCRIPTOR:
        start += _descriptor_bytes(source.read_at(start, _MAX_DESCRIPTOR_BYTES), entry)
    return Gap(start, gap.end) if start < gap.end else None


def _descriptor_bytes(data: bytes, entry: zipfile.ZipInfo) -> int:
    """The length of a data descriptor; 0 if there is none."""
    largest = max(entry.compress_size, entry.file_size)
    for prefix, width in _DESCRIPTORS:
        if largest >> 8 * width:
            continue
        sizes = b"".join(value.to_bytes(width, "little") for value in (entry.compress_size, entry.file_size))
        descriptor = prefix + entry.CRC.to_bytes(4, "little") + sizes
        if data.startswith(descriptor):
            return len(descriptor)
    return 0


def _is_padding(source: ByteSource, gap: Gap) -> bool:
    return gap.size <= _MAX_PADDING_BYTES and not any(source.read_at(gap.start, gap.size))


def _end_record(source: ByteSource) -> tuple[int, bytes]:
    """Position and content of the record at the end of an archive, as :mod:`zipfile` finds it; both empty if there is none."""
    start = max(0, source.size - _END_RECORD_BYTES)
    record = source.read_at(start, _END_RECORD_BYTES)
    if record.startswith(_END_RECORD) and record.endswith(b"\0\0"):
        return start, record
    start = max(0, source.size - _END_RECORD_BYTES - _MAX_COMMENT_BYTES)
    tail = source.read_at(start, source.size - start)
    at = tail.rfind(_END_RECORD)
    return (start + at, tail[at : at + _END_RECORD_BYTES]) if at >= 0 else (0, b"")
