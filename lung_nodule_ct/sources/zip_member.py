"""The content of one member of a zip archive, inflated in pieces and verified by the length and CRC-32 of the directory.

Pieces of 32 KiB of input and 128 KiB of output stay in the cache of the processor. Together with ISA-L, which replaces zlib,
that makes inflating fast, and no more memory is needed than for the result.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import inflate64
import numpy as np

from lung_nodule_ct.sources.byte_sources import LocalFile
from lung_nodule_ct.sources.zip_directory import (
    DEFLATED,
    MAX_LFS_POINTER_BYTES,
    MAX_MEMBER_BYTES,
    STORED,
)
from lung_nodule_ct.sources.zip_layout import LOCAL_HEADER_BYTES, lfs_pointer
from lung_nodule_ct.system import inflate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from lung_nodule_ct.sources.byte_sources import ByteSource
    from lung_nodule_ct.sources.source import ArchivePool
    from lung_nodule_ct.sources.zip_directory import Member

    Allocator = Callable[[int], NDArray[np.uint8]]

_INPUT_BYTES = 1 << 15
_OUTPUT_BYTES = 1 << 17
_MAX_PACKED_BYTES = 1 << 28
"""The maximum compressed size of a member that is inflated in one call."""
_MAX_COPIED_BYTES = 1 << 20
"""The maximum size of a member that is copied once more after it was inflated in one call, which takes less time than inflating it in pieces."""


def read_member(member: Member, archives: ArchivePool, *, limit: int = MAX_MEMBER_BYTES) -> bytes:
    """Read a member.

    Args:
        member: What to read.
        archives: The open archives.
        limit: The maximum size, in bytes, of a member of this kind.

    Returns:
        The uncompressed content.

    Raises:
        MemberError: The member is damaged, larger than ``limit``, or a Git LFS pointer.
    """
    if member.size > limit:
        raise member.error(
            "is larger than a file of its kind can be", expected=f"at most {limit:,} bytes", got=f"{member.size:,}"
        )
    if member.size <= _MAX_COPIED_BYTES:
        content = allocate(member.size)
        if _inflated_at_once(member, archives, content, allocate):
            data = content.tobytes()
            _refuse_pointer(member, data)
            return data
    return b"".join(iterate_member(member, archives))


def allocate(size: int) -> NDArray[np.uint8]:
    """Allocate ``size`` bytes, in huge pages if they are many. Unlike ``bytes``, they are not initialized."""
    return np.empty(size, np.uint8)


def read_member_into(
    member: Member, archives: ArchivePool, out: NDArray[np.uint8], allocate_packed: Allocator = allocate
) -> None:
    """Read a member into an array.

    Args:
        member: What to read.
        archives: The open archives.
        out: A flat array of the size of the member, which is overwritten.
        allocate_packed: Allocates memory for the compressed content, if that is read completely.

    Raises:
        MemberError: The member is damaged or a Git LFS pointer. The content of ``out`` is undefined then.
    """
    # a member as small as a pointer is compared with one
    if member.size > MAX_LFS_POINTER_BYTES and _inflated_at_once(member, archives, out, allocate_packed):
        return
    view, position = out.data, 0
    for piece in iterate_member(member, archives):  # which also reports what is damaged
        view[position : position + len(piece)] = piece
        position += len(piece)


def _inflated_at_once(
    member: Member, archives: ArchivePool, out: NDArray[np.uint8], allocate_packed: Allocator
) -> bool:
    """Inflate a member in one call if it can be, and return whether ``out`` is its content."""
    source = archives[member.location]
    if not (
        inflate.HAS_LIBDEFLATE
        and isinstance(source, LocalFile)  # content from a server is inflated while it arrives
        and member.method == DEFLATED
        and member.packed <= _MAX_PACKED_BYTES
    ):
        return False
    block = allocate_packed(member.span).data
    block = block[: source.read_into(member.offset, block)]
    start = _end_of_header(member, bytes(block[:LOCAL_HEADER_BYTES]))
    packed = block[start : start + member.packed]
    return inflate.inflate_into(packed, out) and inflate.crc32(out) == member.crc


def iterate_member(member: Member, archives: ArchivePool) -> Iterator[bytes]:
    """Yield the content of a member in pieces. It is verified when the iterator is exhausted, and not before.

    Raises:
        MemberError: The member is a Git LFS pointer, or it is damaged. Pieces of a damaged member must not be used.
    """
    pieces = _iterate(member, archives)
    if member.size > MAX_LFS_POINTER_BYTES:
        yield from pieces
        return
    data = b"".join(pieces)
    _refuse_pointer(member, data)
    yield data


def _refuse_pointer(member: Member, data: bytes) -> None:
    if len(data) <= MAX_LFS_POINTER_BYTES and (pointer := lfs_pointer(data)):
        raise member.error(
            "is a Git LFS pointer and not the data",
            expected="the file itself",
            got=pointer,
            remedy="use the archive of the record, or fetch the file itself with `git lfs pull` and pack the archive again",
        )


def _iterate(member: Member, archives: ArchivePool) -> Iterator[bytes]:
    raw = _raw_blocks(member, archives[member.location])
    if member.method == STORED:
        pieces: Iterator[bytes] = raw
    elif member.method == DEFLATED:
        pieces = _inflate(member, raw)
    else:
        pieces = _inflate64(member, raw)
    length, crc = 0, 0
    for piece in pieces:
        length += len(piece)
        if length > member.size:
            raise member.damage("is longer than the directory states", expected=f"{member.size:,} bytes", got="more")
        crc = inflate.crc32(piece, crc)
        yield piece
    if length != member.size:
        raise member.damage("is cut short", expected=f"{member.size:,} bytes", got=f"{length:,}")
    if crc != member.crc:
        raise member.damage("is damaged: its checksum is wrong", expected=f"CRC-32 {member.crc:08x}", got=f"{crc:08x}")


def _raw_blocks(member: Member, source: ByteSource) -> Iterator[bytes]:
    """Yield the compressed bytes of a member."""
    head, data_at, left = b"", LOCAL_HEADER_BYTES, member.packed
    with closing(source.stream(member.offset, member.span)) as blocks:
        for block in blocks:
            if data_at:  # the local header is not complete yet
                head += block
                if len(head) >= LOCAL_HEADER_BYTES:
                    data_at = _end_of_header(member, head)
                if len(head) < data_at:
                    continue
                data, head, data_at = head[data_at:], b"", 0
            else:
                data = block
            if left > 0 and data:
                yield data[:left]
                left -= len(data)
            if left <= 0:
                return
    if data_at and len(head) < LOCAL_HEADER_BYTES:
        _end_of_header(member, head)
    if left > 0:
        raise member.damage("runs past the end of the archive", expected=f"{left:,} more bytes", got="none")


def _end_of_header(member: Member, head: bytes) -> int:
    """Return the length of the local header, which precedes the data of a member."""
    if len(head) < LOCAL_HEADER_BYTES or not head.startswith(b"PK\x03\x04"):
        raise member.damage(
            "does not begin at the position that the directory states", expected="a local header", got=repr(head[:4])
        )
    return LOCAL_HEADER_BYTES + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")


def _inflate(member: Member, blocks: Iterator[bytes]) -> Iterator[bytes]:
    inflater: Any = inflate.decompressobj(inflate.RAW)
    for block in blocks:
        view = memoryview(block)
        for start in range(0, len(view), _INPUT_BYTES):
            unread: Any = view[start : start + _INPUT_BYTES]
            while True:
                try:
                    piece = inflater.decompress(unread, _OUTPUT_BYTES)
                except inflate.ERRORS as error:
                    raise member.damage(
                        f"is damaged: {error}", expected="a deflate stream", got="other data"
                    ) from error
                if piece:
                    yield piece
                unread = inflater.unconsumed_tail
                if inflater.eof:
                    return
                if not unread and len(piece) < _OUTPUT_BYTES:
                    break
    raise member.damage("is incomplete", expected="the end of a deflate stream", got="the end of the data")


def _inflate64(member: Member, blocks: Iterator[bytes]) -> Iterator[bytes]:
    inflater = inflate64.Inflater()
    for block in blocks:
        for start in range(0, len(block), _INPUT_BYTES):
            try:
                yield inflater.inflate(block[start : start + _INPUT_BYTES])
            except (ValueError, RuntimeError, EOFError) as error:
                raise member.damage(f"is damaged: {error}", expected="a deflate64 stream", got="other data") from error
    if not inflater.eof:
        raise member.damage("is incomplete", expected="the end of a deflate64 stream", got="the end of the data")
