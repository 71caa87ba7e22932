"""The content of one member, inflated in small pieces and proven: its length and CRC-32 are those of the directory.

Pieces of 32 KiB in and 128 KiB out stay in the processor's cache; that, and ISA-L in place of zlib, is what makes it
fast, and nothing larger than the result is ever held.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import inflate64
import numpy as np

from lung_nodule_ct.sources.byte_sources import LocalFile
from lung_nodule_ct.sources.zip_directory import (
    DEFLATED,
    LOCAL_HEADER_BYTES,
    MAX_LFS_POINTER_BYTES,
    MAX_MEMBER_BYTES,
    STORED,
    lfs_pointer,
)
from lung_nodule_ct.system import inflate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from lung_nodule_ct.sources.byte_sources import ByteSource
    from lung_nodule_ct.sources.source import ArchivePool
    from lung_nodule_ct.sources.zip_directory import Member

    Allocator = Callable[[int], NDArray[np.uint8]]

_PIECE_IN = 1 << 15
_PIECE_OUT = 1 << 17
_WHOLE_BYTES = 1 << 28
"""The most that is held of a member as it is packed."""


def read_member(member: Member, archives: ArchivePool, *, limit: int = MAX_MEMBER_BYTES) -> bytes:
    """The whole content of a member.

    Args:
        member: What to read.
        archives: The open archives.
        limit: The most bytes that this kind of member may have.

    Raises:
        MemberError: It is damaged, larger than ``limit``, or a Git LFS pointer.
    """
    if member.size > limit:
        raise member.error(
            "is too large for what it should be", expected=f"at most {limit:,} bytes", got=f"{member.size:,}"
        )
    return b"".join(iterate_member(member, archives))


def allocate(size: int) -> NDArray[np.uint8]:
    """New memory, in large pages where it is much: unlike that of ``bytes`` little of it need be touched to be had."""
    return np.empty(size, np.uint8)


def read_member_into(member: Member, archives: ArchivePool, out: NDArray[np.uint8], room: Allocator = allocate) -> None:
    """The whole content of a member, written over ``out``.

    Args:
        member: What to read.
        archives: The open archives.
        out: A flat array of the member's size.
        room: Gives memory for the member as it is packed, where that is wanted.

    Raises:
        MemberError: It is damaged or a Git LFS pointer; ``out`` then holds anything.
    """
    source = archives[member.location]
    if (
        inflate.INFLATES_WHOLE
        and isinstance(source, LocalFile)  # what comes from elsewhere is inflated while it comes
        and member.method == DEFLATED
        and member.packed <= _WHOLE_BYTES
        and member.size > MAX_LFS_POINTER_BYTES  # else it could be one
    ):
        block = room(member.span).data
        block = block[: source.read_into(member.offset, block)]
        start = _end_of_header(member, bytes(block[:LOCAL_HEADER_BYTES]))
        packed = block[start : start + member.packed]
        if inflate.inflate_into(packed, out) and inflate.crc32(out) == member.crc:
            return
    view, position = out.data, 0
    for piece in iterate_member(member, archives):  # which also says what is wrong with a damaged one
        view[position : position + len(piece)] = piece
        position += len(piece)


def iterate_member(member: Member, archives: ArchivePool) -> Iterator[bytes]:
    """The content of a member in pieces. Only when the last has been taken is it proven whole.

    Raises:
        MemberError: It is damaged, and what was taken before must then not be used; or it is a Git LFS pointer.
    """
    pieces = _iterate(member, archives)
    if member.size > MAX_LFS_POINTER_BYTES:
        yield from pieces
        return
    data = b"".join(pieces)
    if pointer := lfs_pointer(data):
        raise member.error(
            "is a Git LFS pointer and not the data",
            expected="the file itself",
            got=pointer,
            remedy="or fetch the file itself with `git lfs pull`, and pack the archive anew",
        )
    yield data


def _iterate(member: Member, archives: ArchivePool) -> Iterator[bytes]:
    raw = _raw_blocks(member, archives[member.location])
    if member.method == STORED:
        pieces: Iterator[bytes] = raw
    elif member.method == DEFLATED:
        pieces = _inflated(member, raw)
    else:
        pieces = _inflated64(member, raw)
    length, crc = 0, 0
    for piece in pieces:
        length += len(piece)
        if length > member.size:
            raise member.error(
                "inflates to more than the directory says", expected=f"{member.size:,} bytes", got="more"
            )
        crc = inflate.crc32(piece, crc)
        yield piece
    if length != member.size:
        raise member.error("is cut short", expected=f"{member.size:,} bytes", got=f"{length:,}")
    if crc != member.crc:
        raise member.error("is damaged: its checksum is wrong", expected=f"CRC-32 {member.crc:08x}", got=f"{crc:08x}")


def _raw_blocks(member: Member, source: ByteSource) -> Iterator[bytes]:
    """The member's bytes as they lie in the archive."""
    head, data_at, left = b"", LOCAL_HEADER_BYTES, member.packed
    with closing(source.stream(member.offset, member.span)) as blocks:
        for block in blocks:
            if data_at:  # not yet past the local header
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
        raise member.error("runs past the end of the archive", expected=f"{left:,} more bytes", got="none")


def _end_of_header(member: Member, head: bytes) -> int:
    """The length of the local header that a member begins with."""
    if len(head) < LOCAL_HEADER_BYTES or not head.startswith(b"PK\x03\x04"):
        raise member.error("does not begin where the directory says", expected="a local header", got=repr(head[:4]))
    return LOCAL_HEADER_BYTES + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")


def _inflated(member: Member, blocks: Iterator[bytes]) -> Iterator[bytes]:
    inflater: Any = inflate.decompressobj(inflate.RAW)
    for block in blocks:
        view = memoryview(block)
        for start in range(0, len(view), _PIECE_IN):
            piece_in: Any = view[start : start + _PIECE_IN]
            while True:
                try:
                    piece = inflater.decompress(piece_in, _PIECE_OUT)
                except inflate.ERRORS as error:
                    raise member.error(f"is damaged: {error}", expected="a deflate stream", got="garbage") from error
                if piece:
                    yield piece
                piece_in = inflater.unconsumed_tail
                if inflater.eof:
                    return
                if not piece_in and len(piece) < _PIECE_OUT:
                    break
    raise member.error("breaks off", expected="the end of a deflate stream", got="nothing more")


def _inflated64(member: Member, blocks: Iterator[bytes]) -> Iterator[bytes]:
    inflater = inflate64.Inflater()
    for block in blocks:
        for start in range(0, len(block), _PIECE_IN):
            try:
                yield inflater.inflate(block[start : start + _PIECE_IN])
            except (ValueError, RuntimeError, EOFError) as error:
                raise member.error(f"is damaged: {error}", expected="a deflate64 stream", got="garbage") from error
    if not inflater.eof:
        raise member.error("breaks off", expected="the end of a deflate64 stream", got="nothing more")
