"""The parts of a BMP that are not needed for its pixels (https://learn.microsoft.com/windows/win32/gdi/bitmap-storage).

The headers, the colour table and the pixels remain. Fields that do not affect the pixels, padding and colour profiles are set to zero.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from lung_nodule_ct.formats.picture_parts import Part, trailing_part

_FILE_HEADER = 14
_CORE, _INFO, _OS2, _V4 = 12, 40, 64, 108
_HEADER_SIZES, _BITS = (_CORE, _INFO, 52, 56, _OS2, _V4, 124), (1, 4, 8, 16, 24, 32)
_RUN_LENGTHS, _BITFIELDS = {1: 8, 2: 4}, 3
_SRGB = b"BGRs"  # "sRGB" as a little-endian number
_MAX_RESOLUTION = 1 << 20  # pixels per metre; larger numbers are text


class _Bmp(NamedTuple):
    """Where the parts of a BMP are: headers and masks, colour table, (gap,) pixels."""

    size: int  # of the second header, whose versions differ in it
    compression: int
    bits: int
    table: int
    table_end: int
    first: int
    end: int
    used: int  # bytes of a line that hold pixels
    stride: int


def parts_of_bmp(data: bytes) -> Iterator[Part]:
    """Yield the parts of a BMP that are not needed for its pixels, in the order of the file."""
    bmp = _read_bmp(data)
    if bmp is None or not bmp.table_end <= bmp.first <= bmp.end <= len(data):
        return
    pixels = data[bmp.first : bmp.end]
    plain = pixels if bmp.compression in _RUN_LENGTHS else _without_padding(pixels, bmp.used, bmp.stride)
    behind = list(trailing_part(data, bmp.end))
    head = bytearray(data[: bmp.table_end])
    head[6:10] = bytes(4)  # reserved
    if bmp.size != _CORE:
        _clear_unused_fields(head, bmp, len(pixels))
    if bmp.table_end < bmp.first:
        struct.pack_into("<I", head, 10, bmp.table_end)
    if bmp.table_end < bmp.first or behind:
        struct.pack_into("<I", head, 2, bmp.table_end + len(pixels))
    if head != data[: bmp.table_end]:
        yield Part("fields of the header", 0, bmp.table_end, data[: bmp.table_end], bytes(head))
    if bmp.table_end < bmp.first:
        yield Part("data before the pixels", bmp.table_end, bmp.first, data[bmp.table_end : bmp.first])
    if plain != pixels:
        yield Part("padding of the lines", bmp.first, bmp.end, b"", plain)
    yield from behind


def _read_bmp(data: bytes) -> _Bmp | None:
    if len(data) < _FILE_HEADER + _INFO:
        return None
    offset, size = struct.unpack_from("<II", data, 10)
    if size == _CORE:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = colours = 0
    else:
        width, height, _, bits, compression, _, _, _, colours = struct.unpack_from("<IiHHIIIII", data, 18)
    if size not in _HEADER_SIZES or bits not in _BITS:
        return None
    table = table_end = _FILE_HEADER + size + (12 if size == _INFO and compression == _BITFIELDS else 0)
    if bits <= 8:
        table_end += (3 if size == _CORE else 4) * min(colours or 1 << bits, 1 << bits)
    first = table_end if offset in (0, _FILE_HEADER + size) else offset
    used, stride = (width * bits + 7) // 8, (width * bits + 31) // 32 * 4
    if compression in _RUN_LENGTHS:
        end = _end_of_runs(data, first, width * abs(height), width, _RUN_LENGTHS[compression])
    else:
        end = first + stride * abs(height)
    return _Bmp(size, compression, bits, table, table_end, first, end, used, stride)


def _clear_unused_fields(head: bytearray, bmp: _Bmp, pixel_bytes: int) -> None:
    """Clear the fields of a BMP header that do not affect the pixels, where they contain more than encoders write there."""
    stored, across, down, colours, important = struct.unpack_from("<IIIII", head, 34)
    most_colours = 1 << bmp.bits if bmp.bits <= 8 else 0
    spare = 0 if bmp.compression in _RUN_LENGTHS else 3  # some encoders count an end of up to three zeros
    if stored and not 0 <= stored - pixel_bytes <= spare:
        struct.pack_into("<I", head, 34, pixel_bytes)
    if max(across, down) >= _MAX_RESOLUTION:
        head[38:46] = bytes(8)
    if colours > most_colours:
        struct.pack_into("<I", head, 46, most_colours)
    if important > most_colours:
        head[50:54] = bytes(4)
    head[bmp.table + 3 : bmp.table_end : 4] = bytes(len(head[bmp.table + 3 : bmp.table_end : 4]))
    if bmp.compression != _BITFIELDS:  # colour masks, or all that a header of OS/2 has in addition
        masks = slice(
            _FILE_HEADER + _INFO, _FILE_HEADER + (bmp.size if bmp.size == _OS2 else min(bmp.size, _INFO + 16))
        )
        head[masks] = bytes(len(head[masks]))
    if bmp.size >= _V4:  # the colour space, which Pillow does not apply
        head[_FILE_HEADER + 56 : _FILE_HEADER + bmp.size] = _SRGB + bytes(bmp.size - 60)


def _without_padding(pixels: bytes, used: int, stride: int) -> bytes:
    """Lines of pixels with their padding set to zero."""
    if used == stride:
        return pixels
    plain = bytearray(pixels)
    for byte in range(used, stride):
        plain[byte::stride] = bytes(len(plain[byte::stride]))
    return bytes(plain)


def _end_of_runs(data: bytes, at: int, num_pixels: int, width: int, bits: int) -> int:
    """The byte after the last run-length code of a BMP, as Pillow decodes them."""
    done = x = 0
    while done < num_pixels and at + 2 <= len(data):
        count, value = data[at], data[at + 1]
        at += 2
        if count:
            count = min(count, max(0, width - x))
            done, x = done + count, x + count
        elif value == 0:  # end of the line
            done, x = -(-done // width) * width, 0
        elif value == 1:  # end of the picture
            return at
        elif value == 2:
            done += sum(count * step for count, step in zip(data[at : at + 2], (1, width), strict=False))
            x, at = done % width, at + 2
        else:
            length = value // 2 if bits == 4 else value
            done, x = done + length * (8 // bits), x + value
            at += length
            at += at % 2
    for ending in (b"\0\0\0\1", b"\0\1"):
        if data.startswith(ending, at):
            return at + len(ending)
    return at
