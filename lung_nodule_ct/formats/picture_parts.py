"""The parts of a JPEG, PNG or BMP that are not needed for its pixels.

The formats are those of ITU-T T.81, annex B, https://www.w3.org/TR/png-3/, and https://learn.microsoft.com/windows/win32/gdi/bitmap-storage.

What remains is, of a JPEG, the tables, the headers of the frame and the scans, the data of the scans, and the two segments that select
the colour space (JFIF, Adobe), reduced to their fixed part, which has no thumbnail; of a PNG, the header, the palette, the transparency
and the image data. The functions expect a picture that decodes. For other data the result is meaningless, but they do not fail.

Of a BMP, the headers, the colour table and the pixels remain. Fields that do not affect the pixels, padding and colour profiles are set to zero.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

JPEG_START: Final = b"\xff\xd8"
PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
#: A JPEG marker. In the data of the pixels, FF is only followed by 00 and by restart markers (D0 to D7).
MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")
_EOI, _COM, _SOS, _APP0, _APP14, _ALONE = 0xD9, 0xFE, 0xDA, 0xE0, 0xEE, (0x01, 0xD8)
#: Frame headers, Huffman tables, arithmetic conditioning, quantization tables, restart interval.
_NEEDED = frozenset({*range(0xC0, 0xD0), 0xDB, 0xDD})
_JFIF, _ADOBE = b"JFIF\0", b"Adobe"
_APP_NAMES = {
    b"Exif\0": " (EXIF)",
    b"http://ns.adobe.com/x": " (XMP)",
    b"ICC_PROFILE\0": " (ICC)",
    b"Photoshop": " (Photoshop)",
}

#: The chunks that are named in findings. The names of others are up to who wrote the file.
_CHUNKS = re.compile(
    "IHDR|PLTE|tRNS|tEXt|zTXt|iTXt|eXIf|tIME|iCCP|gAMA|cHRM|sRGB|pHYs|bKGD|sBIT|hIST|sPLT|acTL|fcTL|fdAT"
)
_PALETTE = 3
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_MAX_LINES_BYTES = 1 << 30  # more than those of the largest picture that is decoded
_MAX_TEXT_BYTES = 1 << 20  # Pillow refuses a picture with more compressed text


_MAX_PARTS = 10_000
"""No picture needs more segments or chunks; each costs the decoder about ten microseconds and half a kilobyte."""


def require_few_parts(data: bytes) -> None:
    """Check that a JPEG or PNG has no more parts than a picture needs, before it is decoded.

    Raises:
        ValueError: It has more than 10,000 segments or chunks, or more fill bytes in one place.
    """
    at = 2
    if data.startswith(b"\xff\xd8") and b"\xff" * _MAX_PARTS in data:
        raise ValueError(f"more than {_MAX_PARTS:,} fill bytes")
    for _ in range(_MAX_PARTS):
        if data.startswith(PNG_SIGNATURE):
            at = at + 12 + int.from_bytes(data[at : at + 4], "big") if at > 2 else len(PNG_SIGNATURE)
        elif data.startswith(b"\xff\xd8") and (marker := MARKER.search(data, at)):
            at = (
                marker.end()
                if marker[1][0] in _ALONE
                else marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
            )
        else:
            return
        if at >= len(data):
            return
    raise ValueError(f"more than {_MAX_PARTS:,} parts")


class Part(NamedTuple):
    """A part of a file that is not needed for its pixels.

    Attributes:
        kind: What it is. It never contains bytes of the file.
        start: Its first byte.
        end: The byte after its last one.
        content: Its bytes, and what they contain compressed or as numbers.
        replacement: The bytes that take its place.
    """

    kind: str
    start: int
    end: int
    content: bytes
    replacement: bytes = b""


def parts_of_jpeg(data: bytes) -> Iterator[Part]:
    """Yield the parts of a JPEG that are not needed for its pixels, but for the ends of its scans (:mod:`.jpeg_scans`)."""
    at, in_scan, scans, jfif = 2, False, 0, False
    while marker := MARKER.search(data, at):
        if not in_scan and data[at : marker.start()].strip(b"\xff"):
            yield Part("data between segments", at, marker.start(), data[at : marker.start()])
        code, start, at, in_scan = marker[1][0], marker.start(), marker.end(), False
        if code == _EOI:
            yield from trailing_part(data, at)
            return
        if code in _ALONE:
            yield Part("data between segments", start, at, b"")
            continue
        begin = at + 2
        at = min(len(data), at + max(2, int.from_bytes(data[at:begin], "big")))
        content = data[begin:at]
        if code == _SOS:
            in_scan, scans = True, scans + 1
        elif code not in _NEEDED:
            reduced = b"" if scans else _reduced(code, content)
            if code == _APP0 and jfif:
                reduced = b""
            jfif = jfif or (code == _APP0 and bool(reduced))
            if reduced != content:
                segment = struct.pack(">BBH", 0xFF, code, len(reduced) + 2) + reduced if reduced else b""
                yield Part(_segment_kind(code, content), start, at, content, segment)
    if not in_scan:
        yield from trailing_part(data, at)


def _reduced(code: int, content: bytes) -> bytes:
    """The part of a segment that selects the colour space, with nothing else in it; empty for other segments."""
    if code == _APP0 and content.startswith(_JFIF) and len(content) >= 14:
        is_plain = content[5] == 1 and content[6] <= 2 and content[7] <= 2
        return (content[:12] if is_plain else _JFIF + b"\1\1\0\0\1\0\1") + b"\0\0"
    if code == _APP14 and content.startswith(_ADOBE) and len(content) >= 12:
        return _ADOBE + b"\0\x64\0\0\0\0" + content[11:12]
    return b""


def _segment_kind(code: int, content: bytes) -> str:
    if code == _COM:
        return "COM"
    if not 0xE0 <= code <= 0xEF:
        return f"segment FF{code:02X}"
    name = next((name for signature, name in _APP_NAMES.items() if content.startswith(signature)), "")
    return f"APP{code - _APP0}{name}"


def parts_of_png(data: bytes) -> Iterator[Part]:
    """Yield the parts of a PNG that are not needed for its pixels. Those of the image data come last."""
    at, colour, header = len(PNG_SIGNATURE), 0, b""
    pixels: list[tuple[int, int]] = []
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        start, begin, at = at, at + 8, at + 12 + length
        content = data[begin : begin + length]
        needed = b""
        if kind == b"IHDR" and not header:
            header = needed = content[:13]
            colour = content[9] if len(header) == 13 else 0
        elif kind == b"PLTE" and colour == _PALETTE:
            needed = content[: 3 << header[8]]
        elif kind == b"tRNS":
            needed = content[: {0: 2, 2: 6, _PALETTE: 256}.get(colour, 0)]
        elif kind == b"IDAT":
            pixels.append((start, at))
            continue
        if kind == b"IEND":
            if content:
                yield Part("IEND", start, min(at, len(data)), content, _chunk(kind, b""))
            yield from trailing_part(data, at)
            break
        if needed != content or not needed:
            yield Part(
                _chunk_kind(kind),
                start,
                min(at, len(data)),
                _readable(kind, content),
                _chunk(kind, needed) if needed else b"",
            )
    if pixels and len(header) == 13:
        yield from _behind_the_pixels(data, pixels, header)


def _chunk_kind(kind: bytes) -> str:
    name = kind.decode("latin-1")
    return name if _CHUNKS.fullmatch(name) else "an unknown chunk"


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _behind_the_pixels(data: bytes, chunks: Sequence[tuple[int, int]], header: bytes) -> Iterator[Part]:
    """What the image data hold behind the last line: in the compressed stream, or after it."""
    stream = b"".join(data[start + 8 : end - 4] for start, end in chunks)
    size = _filtered_size(*struct.unpack(">IIBB2xB", header))
    if size > _MAX_LINES_BYTES:
        return
    inflater = zlib.decompressobj()
    try:
        lines = inflater.decompress(stream, size + 1)
    except zlib.error:
        return
    if len(lines) > size:
        needed = zlib.compress(lines[:size])
    elif inflater.unused_data:
        needed = stream[: -len(inflater.unused_data)]
    else:
        return
    start, end = chunks[0][0], chunks[-1][1]
    yield Part("data behind the lines", start, end, inflater.unused_data, _chunk(b"IDAT", needed))


def _filtered_size(width: int, height: int, depth: int, colour: int, interlaced: int) -> int:
    """The size of all lines of a PNG, each with the byte that names its filter."""
    bits = depth * _SAMPLES.get(colour, 1)
    size = 0
    for x, y, step_x, step_y in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, lines = -(-(width - x) // step_x), -(-(height - y) // step_y)
        if columns > 0 and lines > 0:
            size += lines * (1 + (columns * bits + 7) // 8)
    return size


def _readable(kind: bytes, content: bytes) -> bytes:
    """The content of a chunk, and as text what it contains compressed or as numbers."""
    if kind == b"tIME" and len(content) == 7:
        return b"%04d-%02d-%02d" % struct.unpack_from(">HBB", content)
    rest = content.partition(b"\0")[2]
    if kind in (b"zTXt", b"iCCP"):
        return content + b"\n" + _inflated(rest[1:])
    if kind == b"iTXt" and rest.startswith(b"\1"):
        return content + b"\n" + _inflated(rest[2:].split(b"\0", 2)[-1])
    return content


def _inflated(compressed: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(compressed, _MAX_TEXT_BYTES)
    except zlib.error:
        return b""


def trailing_part(data: bytes, end: int) -> Iterator[Part]:
    """Yield what follows the last byte of a picture, unless it is padding with zeros."""
    if data[end:].strip(b"\0"):
        yield Part("data behind the picture", end, len(data), data[end:])


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
