"""The voxels of a MetaImage, read from the members of a zip archive into one array.

Nothing is unpacked to disk, and no path of an archive reaches the file system: a data file is another member of the same archive,
otherwise the header is refused. Elements are read in slabs, so that a conversion to int16 or to labels needs no second array of the size
of the volume.
"""

from __future__ import annotations

import math
import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lung_nodule_ct.declaration.findings import Code
from lung_nodule_ct.declaration.identity import quoted
from lung_nodule_ct.formats.metaimage_header import MAX_HEADER_BYTES, Header, HeaderError, comment_after, parse_header
from lung_nodule_ct.formats.metaimage_meaning import Issue
from lung_nodule_ct.sources.zip_directory import MAX_LFS_POINTER_BYTES, MAX_MEMBER_BYTES
from lung_nodule_ct.sources.zip_member import allocate, iterate_member, read_member, read_member_into
from lung_nodule_ct.system import inflate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from lung_nodule_ct.errors import MemberError
    from lung_nodule_ct.sources.source import ArchivePool
    from lung_nodule_ct.sources.zip_directory import Member
    from lung_nodule_ct.sources.zip_member import Allocator

_SLAB_BYTES = 1 << 20  # fits into the cache of the processor while it is converted
_DATA_SUFFIXES = (".raw", ".zraw", ".img")
_MAX_NUMBER_BYTES = 64
"""The maximum length of a number that is written as text, with the blanks around it."""
_REPORT = "if the archive is intact, report this scan"
_DATA_FILE_LINE = re.compile(rb"^[ \t]*ElementDataFile\s*[=:][^\n]*\n", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True)
class MetaImage:
    """A volume with its header and the members of its data files; its elements are not read yet.

    Attributes:
        header: The content of the header.
        member: The member of the header.
        data_members: The members with the elements, in z order; empty if the elements follow the header.
        issues: Irregularities, as (code, what the header contains, what was done).
    """

    header: Header
    member: Member
    data_members: tuple[Member, ...]
    issues: tuple[Issue, ...]
    _rest: Iterator[bytes]
    _archives: ArchivePool
    _packed: Allocator

    def slabs(self, buffer: NDArray[np.uint8] | None = None) -> Iterator[NDArray[Any]]:
        """Iterate over the elements in order, as flat arrays of about a megabyte in the type of the header. Possible once.

        A slab is valid until the next one is taken. The volume is verified when the last one has been taken.

        Args:
            buffer: Memory that may be overwritten. If the complete volume fits, it is inflated at once, which is faster.

        Raises:
            MemberError: A data file is damaged or of the wrong length.
        """
        if self.header.text:
            yield from self._from_text()
            return
        if buffer is not None and self._is_one_member and len(buffer) >= self.header.data_bytes:
            content = buffer[: self.header.data_bytes]
            read_member_into(self.data_members[0], self._archives, content, self._packed)
            elements = content.view(self.header.dtype)
            step = _SLAB_BYTES // self.header.dtype.itemsize
            yield from (elements[start : start + step] for start in range(0, elements.size, step))
            return
        slab = bytearray(min(_SLAB_BYTES, self.header.data_bytes))
        filled = 0
        for piece in self._pieces():
            view = memoryview(piece)
            while view:
                taken = min(len(view), len(slab) - filled)
                slab[filled : filled + taken] = view[:taken]
                filled, view = filled + taken, view[taken:]
                if filled == len(slab):
                    yield np.frombuffer(slab, self.header.dtype)
                    filled = 0
        if filled:
            yield np.frombuffer(slab, self.header.dtype, filled // self.header.dtype.itemsize)

    def read_into(self, out: NDArray[Any]) -> None:
        """Read the elements into ``out``, which is contiguous and has the shape and type of the header.

        Raises:
            MemberError: A data file is damaged or of the wrong length.
        """
        if self.header.text:
            elements, position = out.reshape(-1), 0
            for slab in self._from_text():
                elements[position : position + slab.size] = slab
                position += slab.size
            return
        flat = out.reshape(-1).view(np.uint8)
        if self._is_one_member:
            read_member_into(self.data_members[0], self._archives, flat, self._packed)
            return
        view, position = flat.data, 0
        for piece in self._pieces():
            view[position : position + len(piece)] = piece
            position += len(piece)

    @property
    def crc(self) -> int | None:
        """The CRC-32 of the elements as they are stored in the archive; ``None`` if the archive has none for them alone."""
        return self.data_members[0].crc if self._is_one_member else None

    @property
    def _is_one_member(self) -> bool:
        """Whether one member consists of the elements and nothing else."""
        plain = not self.header.compressed and not self.header.text
        return plain and [member.size for member in self.data_members] == [self.header.data_bytes]

    def _pieces(self) -> Iterator[bytes]:
        """The uncompressed bytes of the elements: all bytes of a text, otherwise exactly the required number."""
        if not self.data_members:
            yield from self._elements(self._rest, self.member, self.header.data_bytes)
        for member in self.data_members:
            each = self.header.data_bytes // len(self.data_members)
            yield from self._elements(self._stored(member, each), member, each)

    def _elements(self, raw: Iterator[bytes], holder: Member, length: int) -> Iterator[bytes]:
        """The elements of one file; the checksum of the bytes after them is verified, too."""
        pieces = self._inflated(raw) if self.header.compressed else raw
        if self.header.text:
            yield from pieces
            yield b"\n"  # the last number of a file ends with the file
            return
        left = length
        for piece in pieces:
            if len(piece) > left and self.header.compressed:
                raise self._wrong_length(holder, length, "more")
            if left:
                yield piece[:left]
            left = max(0, left - len(piece))
        if left:
            raise self._wrong_length(holder, length, f"{length - left:,} bytes")

    def _stored(self, member: Member, length: int) -> Iterator[bytes]:
        """A data file without the bytes before its elements."""
        skip = self.header.skip if self.header.skip >= 0 else max(0, member.size - length)
        for piece in iterate_member(member, self._archives):
            if skip < len(piece):
                yield piece[skip:]
            skip = max(0, skip - len(piece))

    def _inflated(self, raw: Iterator[bytes]) -> Iterator[bytes]:
        inflater = inflate.decompressobj(inflate.ZLIB_OR_GZIP)  # as ITK reads both
        for piece in raw:
            data: Any = piece
            while data and not inflater.eof:
                try:
                    yield inflater.decompress(data, _SLAB_BYTES)
                except inflate.ERRORS as error:
                    raise self._refused(
                        f"its compressed data are damaged ({error})", "a zlib stream", "garbage"
                    ) from error
                data = inflater.unconsumed_tail
        while not inflater.eof:
            rest = inflater.decompress(b"", _SLAB_BYTES)
            if not rest:
                break
            yield rest

    def _from_text(self) -> Iterator[NDArray[Any]]:
        """The elements of a text in pieces. Nothing is read beyond what a volume of this size can take."""
        holder, count = (*self.data_members, self.member)[0], math.prod(self.header.shape)
        length, done, begun = 0, 0, b""
        for piece in self._pieces():
            length += len(piece)
            words = (begun + piece).split()
            begun = words.pop() if words and not piece[-1:].isspace() else b""
            if length > _SLAB_BYTES + count * _MAX_NUMBER_BYTES or done + len(words) > count:
                raise self._wrong_length(holder, self.header.data_bytes, f"more than {count:,} numbers")
            if len(begun) > _MAX_NUMBER_BYTES:
                raise self._refused("its elements cannot be read as text", "numbers", repr(begun[:_MAX_NUMBER_BYTES]))
            done += len(words)
            if words:
                yield self._converted(words)
        if done != count:
            raise self._wrong_length(holder, self.header.data_bytes, f"{done:,} numbers")

    def _converted(self, words: Sequence[bytes]) -> NDArray[Any]:
        """Numbers as elements of the type of the header. A number that does not fit the type is never cast."""
        try:
            values = np.array(words, dtype=np.float64)
        except (ValueError, OverflowError) as error:
            raise self._refused("its elements cannot be read as text", "numbers", str(error)) from error
        with np.errstate(invalid="ignore", over="ignore"):
            elements = values.astype(self.header.dtype)
        if self.header.dtype.kind != "f" and not (elements == values).all():
            wrong = words[int(np.flatnonzero(elements != values)[0])].decode("ascii", "replace")
            raise self._refused("its elements do not fit their type", f"integers of {self.header.dtype}", wrong)
        return elements

    def _wrong_length(self, holder: Member, length: int, got: str) -> MemberError:
        problem = f"the data have the wrong length (data file {holder.name})"
        return self.member.error(problem, expected=_promised(self.header, length), got=got, remedy=_REPORT)

    def _refused(self, problem: str, expected: str, got: str) -> MemberError:
        data = ", ".join(member.name for member in self.data_members[:3]) or self.member.name
        return self.member.error(f"{problem} (data file {data})", expected=expected, got=got, remedy=_REPORT)


def open_metaimage(
    member: Member, siblings: Iterable[Member], archives: ArchivePool, packed: Allocator = allocate
) -> MetaImage:
    """Read the header ``member`` and find its data files.

    Args:
        member: The header, ``.mhd`` or ``.mha``.
        siblings: Members that are likely to contain its elements. If they do not, the directory of the archive is read.
        archives: The open archives.
        packed: Allocates memory for a data file as it is compressed.

    Raises:
        MemberError: The header cannot be read or points outside its archive, or a data file is missing or has the
            wrong length.
    """
    stream = iterate_member(member, archives)
    head = b""
    for piece in stream:
        head += piece
        # a separate header is read to its end, which verifies its checksum; a header before elements ends at their line
        if len(head) >= MAX_HEADER_BYTES or (member.suffix == ".mha" and _DATA_FILE_LINE.search(head)):
            break
    try:
        header = parse_header(head)
    except HeaderError as error:
        raise member.error(error.problem, expected=error.expected, got=error.got, remedy=_REPORT) from error
    if header.data_bytes > MAX_MEMBER_BYTES:
        raise member.error(
            "the volume is too large",
            expected=f"at most {MAX_MEMBER_BYTES:,} bytes",
            got=f"{header.data_bytes:,} (DimSize {header.shape[::-1]})",
        )
    issues = list(header.issues)
    near = [sibling for sibling in siblings if sibling.folder == member.folder]
    if len(header.data_files) > 1:
        near = []  # a file of the header's name is not one of several slices
    found = [_find(name, member, near, archives, issues) for name in header.data_files]
    if len(found) == 1:
        issues += _other_name(header.data_files[0], found[0], member, near, archives)
    issues += _length_issues(header, member, found, archives)
    return MetaImage(
        header, member, tuple(found), tuple(issues), _chain(head[header.data_offset :], stream), archives, packed
    )


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _length_issues(header: Header, member: Member, data: Sequence[Member], archives: ArchivePool) -> list[Issue]:
    """Irregularities of the length of the data. Data that cannot be used are refused before they are inflated."""
    if header.compressed or header.text:
        return []
    each = header.data_bytes // max(1, len(data))
    skip = header.skip if data else 0
    issues = []
    for holder, size in [(own, own.size) for own in data] or [(member, member.size - header.data_offset)]:
        exact = max(skip, 0) + each
        if size == exact or (skip < 0 and size > each):
            continue
        # Data of twice the length belong to another volume or have another element type: their first bytes would be a guess.
        if skip == 0 and len(data) <= 1 and exact < size < 2 * exact:
            found = f"{holder.file_name}: expected {_promised(header, exact)}, got {size:,}"
            issues.append((Code.DATA_FILE_TOO_LONG, found, f"its first {exact:,} bytes are used, as ITK does"))
            continue
        if size <= MAX_LFS_POINTER_BYTES:
            read_member(holder, archives)  # which names a Git LFS pointer
        raise member.error(
            f"its data file {holder.name} has the wrong length",
            expected=_promised(header, exact),
            got=f"{size:,}",
            remedy=_REPORT,
        )
    return issues


def _promised(header: Header, length: int) -> str:
    """A number of bytes, and the header fields that it follows from."""
    shape = " x ".join(map(str, reversed(header.shape)))
    return f"{length:,} bytes (DimSize {shape}, {header.dtype.itemsize} bytes per element)"


def _find(name: str, header: Member, near: Sequence[Member], archives: ArchivePool, issues: list[Issue]) -> Member:
    """Return the member that a header names as its data file; ``near`` are members in the folder of the header."""
    wanted = name.replace("\\", "/")
    joined = posixpath.normpath(posixpath.join(header.folder, wanted))
    if wanted.startswith("/") or re.match(r"[A-Za-z]:", wanted) or joined.split("/")[0] == "..":
        raise header.error(
            "the header points outside its archive",
            expected="ElementDataFile = a file in the folder of the header",
            got=repr(name),
            remedy="nothing outside the archive is ever read",
        )
    bare = re.split(r"\s#", joined, maxsplit=1)[0].rstrip()  # other readers treat a comment as part of the name
    in_any_case = [member for member in near if member.name.lower() == joined.lower()]
    match = in_any_case[0] if len(in_any_case) == 1 else None
    if match is None:
        directory = archives.directory(header.location)
        match = directory.find(joined) or directory.find(bare)
    if match is not None:
        if match.name.lower() != joined.lower() and comment_after("ElementDataFile") not in issues:
            issues.append(comment_after("ElementDataFile"))
        return match
    own = _own_data(header, near)
    if len(own) == 1:
        issues.append(
            (Code.DATA_FILE_RENAMED, f"ElementDataFile = {quoted(name)}", f"{quoted(own[0].file_name)} is used")
        )
        return own[0]
    raise header.error(
        "the header names a data file that is not in its archive", expected=joined, got="no such member", remedy=_REPORT
    )


def _own_data(header: Member, near: Iterable[Member]) -> list[Member]:
    """The data files with the name of a header."""
    return [member for member in near if member.stem == header.stem and member.suffix in _DATA_SUFFIXES]


def _other_name(name: str, data: Member, header: Member, near: Sequence[Member], archives: ArchivePool) -> list[Issue]:
    """An irregularity if a data file has the name of another header, or one with the name of the header is not used."""
    if data.stem.lower() == header.stem.lower():
        return []
    unused = ", ".join(member.file_name for member in _own_data(header, near))
    directory = archives.directory(header.location)
    stem = data.name[: len(data.name) - len(data.suffix)]
    other = directory.find(f"{stem}.mhd") or directory.find(f"{stem}.mha")
    if not unused and other is None:
        return []
    detail = f"ElementDataFile = {name}" + (f", as in {other.file_name}" if other else "")
    resolution = f"{data.file_name} is used, as ITK does" + (f", and {unused} is not" if unused else "")
    return [(Code.DATA_FILE_OF_ANOTHER_NAME, detail, resolution)]
