"""The parts of a JPEG or PNG that are not needed for its pixels (ITU-T T.81, annex B; https://www.w3.org/TR/png-3/).

What remains is, of a JPEG, the tables, the headers of the frame and the scans, the data of the scans, and the two segments that select
the colour space (JFIF, Adobe), reduced to their fixed part, which has no thumbnail; of a PNG, the header, the palette, the transparency
and the image data.

The functions expect a picture that decodes. For other data the result is meaningless, but they do not fail.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

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
