"""Bytes that identify a patient, and pictures that contain such bytes in every place besides their pixels.

``ENCODINGS`` has one picture for each way to encode pixels that Pillow decodes, ``PLACES`` a function for each place of each format:
``PLACES["JPEG"]["COM"](data, text)`` returns the picture with the text in that place. It decodes to the same pixels.
"""

from __future__ import annotations

import base64
import io
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

_NAMES = (
    "PATIENT NAME: DOE^JANE",
    "Patientenname Müller, Jürgen",
    "患者姓名 王小明",
    "姓名 李秀英 女 63岁",
    "氏名 山田太郎",
)
_NUMBERS = (
    "MRN 00471199",
    "ID: 371202195403120023",
    "Accession 2017-AX-99812",
    "住院号 0082731",
    "SSN 078-05-1120",
    "tel +86 531 8587 5035",
)
_DATES = (
    "20170203", "2017-02-03", "2017/02/03", "2017.02.03", "2017_02_03", "03 Feb 2017", "3 February 2017", "Feb 3, 2017", "February 3rd 2017",
    "03Feb2017", "2017Feb03", "03-02-2017", "03.02.2017", "02/03/2017", "03-02-17", "17/02/03", "2017年2月3日", "2017:02:03 10:11:12",
    "2017-02-03T10:11:12Z", "Fri, 03 Feb 2017", "3. Februar 2017", "1486116672",
)  # fmt: skip
_OTHER = (
    "1.2.840.113619.2.55.3.604688119.971.1486116672.467", "2.25.329800735698586629295641978511506172918", "SECOND HOSPITAL OF SHANDONG",
    "Dr. Wang Lei", "N36.6683 E117.0204", "<x:xmpmeta><dc:creator>Doe, Jane</dc:creator></x:xmpmeta>", "Canon EOS SN 0123456789",
    "C:\\Users\\wanglei\\CT\\7_20170203.jpg", "born 12.03.1954", "AET CT99WORKSTATION", "wang.lei@hospital.example",
)  # fmt: skip


def _gps() -> bytes:
    """The EXIF of a place: latitude and longitude as rationals."""
    exif = Image.Exif()
    exif[0x8825] = {1: "N", 2: (36.0, 40.0, 5.88), 3: "E", 4: (117.0, 1.0, 13.44)}
    return exif.tobytes()[6:]


def _profile() -> bytes:
    """A colour profile with a description."""
    text = b"desc\0\0\0\0\0\0\0\x15Display of Dr. Wang\0"
    return struct.pack(">I", 132 + len(text)) + b"ADBE" + bytes(92) + text


TEXTS = (*_NAMES, *_NUMBERS, *_DATES, *_OTHER)
"""What identifies a patient, as text."""

CORPUS = tuple(
    dict.fromkeys(
        [text.encode() for text in (*_NAMES, *_NUMBERS, *_DATES, *_OTHER)]
        + [text.encode("gbk") for text in (_NAMES[2], _NAMES[3], _NUMBERS[3], _DATES[16])]
        + [text.encode(encoding) for text in (*_NAMES[:3], _DATES[5], _NUMBERS[1]) for encoding in ("utf-16-le", "utf-16-be")]
        + [_NAMES[1].encode("latin-1"), _NAMES[4].encode("shift-jis"), _NAMES[2].encode("big5", "replace"), _gps(), _profile()]
    )
)  # fmt: skip
"""At least 60 spellings."""

PIXELS = np.random.default_rng(0).integers(0, 256, (21, 34), dtype=np.uint8)
GREY = Image.fromarray(PIXELS)
COLOUR = Image.fromarray(np.random.default_rng(1).integers(0, 256, (21, 34, 3), dtype=np.uint8))


def saved(kind: str, image: Image.Image = GREY, **options: object) -> bytes:
    """Return an image in a format, as Pillow writes it."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def segment(code: int, content: bytes) -> bytes:
    """Return a segment of a JPEG."""
    return struct.pack(">BBH", 0xFF, code, len(content) + 2) + content


def chunk(kind: bytes, content: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def insert_after_start(data: bytes, inserted: bytes) -> bytes:
    """Insert bytes after the first marker of a JPEG, or after the header of a PNG."""
    at = 2 if data.startswith(b"\xff\xd8") else 33
    return data[:at] + inserted + data[at:]


def insert_before_last(data: bytes, mark: bytes, inserted: bytes) -> bytes:
    """Insert bytes before the last occurrence of a marker or of the name of a chunk."""
    at = data.rindex(mark) - (0 if mark.startswith(b"\xff") else 4)
    return data[:at] + inserted + data[at:]


def interlaced() -> bytes:
    """Return a PNG with seven passes (Adam7), which Pillow does not write."""
    lines = b""
    for x, y, step_x, step_y in (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ):
        lines += b"".join(b"\0" + line.tobytes() for line in PIXELS[y::step_y, x::step_x] if line.size)
    height, width = PIXELS.shape
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 1))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def bitmap(
    bits: int,
    *,
    header: int = 40,
    compression: int = 0,
    top_down: bool = False,
    body: bytes | None = None,
    gap: bytes = b"",
) -> bytes:
    """Return a BMP of 34 x 21 pixels with a random colour table and body."""
    height, width = PIXELS.shape
    random = np.random.default_rng(bits)
    stride = (width * bits + 31) // 32 * 4
    body = random.bytes(stride * height) if body is None else body
    if body and not compression and (width * bits + 7) // 8 < stride:
        lines = np.frombuffer(body, np.uint8).reshape(height, stride).copy()
        lines[:, (width * bits + 7) // 8 :] = 0
        body = lines.tobytes()
    entry = 3 if header == 12 else 4
    colours = (
        np.frombuffer(random.bytes(entry << bits), np.uint8).reshape(-1, entry).copy()
        if bits <= 8
        else np.zeros((0, 4), np.uint8)
    )
    colours[:, 3:] = 0
    masks = {16: (0xF800, 0x7E0, 0x1F, 0), 32: (0xFF0000, 0xFF00, 0xFF, 0xFF000000 if header >= 56 else 0)}.get(
        bits, (0, 0, 0, 0)
    )
    if header == 12:
        second = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        fields = (width, -height if top_down else height, 1, bits, compression, len(body), 2835, 2835, 0, 0)
        second = struct.pack("<IiiHHIIiiII", header, *fields) + (
            struct.pack("<4I", *masks) if compression == 3 else bytes(16)
        )
        second = second[: max(header, 52 if compression == 3 else 40)].ljust(header, b"\0")
        if header >= 108:
            second = second[:56] + b"BGRs" + second[60:]
    offset = 14 + len(second) + colours.nbytes + len(gap)
    return struct.pack("<2sIII", b"BM", offset + len(body), 0, offset) + second + colours.tobytes() + gap + body


def runs(bits: int) -> bytes:
    """Return the run-length codes of 34 x 21 pixels: runs, literal pixels of odd length, a run beyond the line, a move, ends of lines."""
    literal = b"\0\x07abcdefg\0" if bits == 8 else b"\0\x06abc\0"
    line = b"\x0a\x12" + literal + b"\x30\x34" + b"\0\0"
    return line * 10 + b"\x05\x21\0\x02\x03\x01" + b"\x06\x43" + b"\0\0" + line * 9 + b"\0\1"


def _ycck() -> bytes:
    data = bytearray(saved("JPEG", COLOUR.convert("CMYK")))
    data[data.index(b"Adobe") + 11] = 2  # the colours are luminance and chrominance
    return bytes(data)


_PALETTE = COLOUR.quantize(13)
_TRANSPARENT = Image.merge("RGBA", (*COLOUR.split(), GREY))
_RGB_TRANSPARENT, _GREY_TRANSPARENT = {"transparency": (1, 2, 3)}, {"transparency": int(PIXELS[0, 0])}
ENCODINGS: dict[str, bytes] = {
    "JPEG grey": saved("JPEG"),
    "JPEG colour": saved("JPEG", COLOUR),
    "JPEG without subsampling": saved("JPEG", COLOUR, subsampling=0, quality=97),
    "JPEG RGB": saved("JPEG", COLOUR, keep_rgb=True),
    "JPEG progressive": saved("JPEG", COLOUR, progressive=True),
    "JPEG grey progressive": saved("JPEG", progressive=True),
    "JPEG optimized": saved("JPEG", optimize=True),
    "JPEG restarting": saved("JPEG", COLOUR, restart_marker_blocks=1),
    "JPEG CMYK": saved("JPEG", COLOUR.convert("CMYK")),
    "JPEG YCCK": _ycck(),
    "JPEG mid-grey": saved("JPEG", Image.new("L", (34, 21), 128)),
    "JPEG black": saved("JPEG", Image.new("L", (34, 21), 0), optimize=True),
    "PNG grey": saved("PNG"),
    "PNG 1 bit": saved("PNG", GREY.convert("1")),
    "PNG colour": saved("PNG", COLOUR),
    "PNG palette": saved("PNG", _PALETTE),
    "PNG palette of 4 bits": saved("PNG", _PALETTE, bits=4),
    "PNG palette with transparency": saved("PNG", _PALETTE, transparency=bytes([0, 100, 200])),
    "PNG grey and opacity": saved("PNG", Image.merge("LA", (GREY, GREY))),
    "PNG colour and opacity": saved("PNG", _TRANSPARENT),
    "PNG one transparent colour": saved("PNG", COLOUR, **_RGB_TRANSPARENT),
    "PNG one transparent grey": saved("PNG", GREY, **_GREY_TRANSPARENT),
    "PNG interlaced": interlaced(),
    "PNG not compressed": saved("PNG", compress_level=0),
    "BMP grey": saved("BMP"),
    "BMP 1 bit grey": saved("BMP", GREY.convert("1")),
    "BMP palette": saved("BMP", _PALETTE),
    "BMP colour": saved("BMP", COLOUR),
    "BMP opacity": saved("BMP", _TRANSPARENT),
    **{f"BMP {bits} bits": bitmap(bits) for bits in (1, 4, 8, 16, 24, 32)},
    **{f"BMP {bits} bits top-down": bitmap(bits, top_down=True) for bits in (1, 4, 8, 24, 32)},
    **{f"BMP {bits} bits of OS/2": bitmap(bits, header=12) for bits in (1, 4, 8, 24)},
    **{f"BMP header of {header}": bitmap(24, header=header) for header in (52, 56, 64, 108, 124)},
    **{f"BMP masks, header of {header}": bitmap(bits, header=header, compression=3) for header in (40, 56, 108, 124) for bits in (16, 32)},
    "BMP RLE8": bitmap(8, compression=1, body=runs(8)),
    "BMP RLE4": bitmap(4, compression=2, body=runs(4)),
    "BMP RLE8 top-down": bitmap(8, compression=1, body=runs(8), top_down=True),
}  # fmt: skip

Insert = Callable[[bytes, bytes], bytes]


def _app(code: int, signature: bytes = b"") -> Insert:
    return lambda data, text: insert_after_start(data, segment(code, signature + text))


def _png(kind: bytes, before: bytes = b"", *, compressed: bool = False) -> Insert:
    return lambda data, text: insert_before_last(data, b"IDAT", chunk(kind, before + (zlib.compress(text) if compressed else text))) if data.count(b"IDAT") == 1 else data  # fmt: skip


def _thumbnail(data: bytes, text: bytes) -> bytes:
    """Give the JFIF segment of a JPEG a thumbnail, or add such a segment. Colours are those without one only if it is there."""
    if b"JFIF" not in data:
        return data
    side = struct.pack("BB", 1, -(-len(text) // 3))
    return data[:2] + segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1" + side + text.ljust(3 * side[1], b"\0")) + data[20:]


def _field_of_jfif(data: bytes, text: bytes) -> bytes:
    """Store a text in the version and the resolution of a JPEG."""
    return data[:11] + text[:7] + data[18:] if data[6:10] == b"JFIF" else data


def _second_header(data: bytes, text: bytes) -> bytes:
    """Store a text as the resolution of a further JFIF segment, before the last scan."""
    if b"JFIF" not in data:
        return data
    return insert_before_last(data, b"\xff\xda", segment(0xE0, b"JFIF\0\1\1\0" + text[:4] + b"\0\0"))


def _palette(data: bytes, text: bytes) -> bytes:
    """Store a text behind the colours that the palette of a PNG can have."""
    depth = data[24]
    if data[25] != 3 or depth == 8:
        return data
    at = data.index(b"PLTE") - 4
    length = struct.unpack_from(">I", data, at)[0]
    colours = data[at + 8 : at + 8 + length].ljust(3 << depth, b"\0") + text + bytes(-len(text) % 3)
    return data[:at] + chunk(b"PLTE", colours) + data[at + 12 + length :]


def _counted(data: bytes, text: bytes) -> bytes:
    """Store a text behind a BMP, and count it in the size of the file and of the pixels."""
    return data[:2] + struct.pack("<I", len(data) + len(text)) + data[6:] + text


def _adobe(data: bytes, text: bytes) -> bytes:
    if b"Adobe" not in data:
        return data
    at = data.index(b"Adobe") - 4
    return data[:at] + segment(0xEE, data[at + 4 : at + 16] + text) + data[at + 16 :]


def _field(data: bytes, at: int, text: bytes, length: int, smallest: int = 40) -> bytes:
    """Write as much of a text into a field of a BMP header as it takes, if there is such a field."""
    if struct.unpack_from("<I", data, 14)[0] < smallest:
        return data
    return data[:at] + text[:length].ljust(length, b"\0") + data[at + length :]


def _gap(data: bytes, text: bytes) -> bytes:
    """Move the pixels of a BMP back to make room before them."""
    offset = struct.unpack_from("<I", data, 10)[0]
    text += bytes(len(text) % 2)
    return data[:10] + struct.pack("<I", offset + len(text)) + data[14:offset] + text + data[offset:]


def _line_ends(data: bytes, text: bytes) -> bytes:
    """Write a text into the padding of the lines of a BMP."""
    offset, header = struct.unpack_from("<II", data, 10)
    bits, compression = (
        (struct.unpack_from("<H", data, 24)[0], 0) if header == 12 else struct.unpack_from("<HI", data, 28)
    )
    used, stride = (34 * bits + 7) // 8, (34 * bits + 31) // 32 * 4
    if compression in (1, 2) or used == stride:
        return data
    lines = np.frombuffer(data, np.uint8, 21 * stride, offset).reshape(21, stride).copy()
    free = lines[:, used:].size
    lines[:, used:] = np.frombuffer(text[:free].ljust(free, b"\0"), np.uint8).reshape(21, -1)
    return data[:offset] + lines.tobytes() + data[offset + lines.size :]


def _profile_behind(data: bytes, text: bytes) -> bytes:
    """Store a text as the colour profile of a BMP of version 5."""
    if struct.unpack_from("<I", data, 14)[0] != 124:
        return data
    where = struct.pack("<II", len(data) - 14, len(text))
    return data[:70] + b"DEBM" + data[74:126] + where + data[134:] + text


PLACES: dict[str, dict[str, Insert]] = {
    "JPEG": {
        "COM": _app(0xFE),
        "EXIF": _app(0xE1, b"Exif\0\0"),
        "EXIF of a camera": lambda data, text: insert_after_start(data, segment(0xE1, b"Exif\0\0" + _exif(text))),
        "XMP": _app(0xE1, b"http://ns.adobe.com/xap/1.0/\0"),
        "ICC": _app(0xE2, b"ICC_PROFILE\0\1\1"),
        "FlashPix": _app(0xE2, b"FPXR\0"),
        "Photoshop": _app(0xED, b"Photoshop 3.0\x008BIM\x04\x04\0\0"),
        "JFIF extension": _app(0xE0, b"JFXX\0\x10"),
        "thumbnail": _thumbnail,
        "Adobe": _adobe,
        **{f"APP{number}": _app(0xE0 + number) for number in range(1, 16)},
        "before the frame": lambda data, text: insert_before_last(data, b"\xff\xdb", text.replace(b"\xff", b"x")),
        "before the last scan": lambda data, text: insert_before_last(data, b"\xff\xda", segment(0xFE, text)),
        "version and resolution": _field_of_jfif,
        "a second JFIF segment": _second_header,
        "behind the last scan": lambda data, text: insert_before_last(data, b"\xff\xd9", segment(0xFE, text)),
        "behind the data of the last scan": lambda data, text: insert_before_last(data, b"\xff\xd9", text.replace(b"\xff", b"x")),
        "behind the picture": lambda data, text: data + text,
        "a second picture": lambda data, text: data + insert_after_start(data, segment(0xFE, text)),
    },
    "PNG": {
        "tEXt": _png(b"tEXt", b"Comment\0"),
        "zTXt": _png(b"zTXt", b"Comment\0\0", compressed=True),
        "iTXt": _png(b"iTXt", b"Comment\0\0\0\0\0"),
        "compressed iTXt": _png(b"iTXt", b"Comment\0\1\0\0\0", compressed=True),
        "XMP": _png(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0"),
        "eXIf": _png(b"eXIf", b"MM\0\x2a\0\0\0\x08\0\0"),
        "iCCP": _png(b"iCCP", b"Doe, Jane\0\0", compressed=True),
        "palette": _palette,
        "sPLT": _png(b"sPLT"),
        "a private chunk": _png(b"prVt"),
        "before the end": lambda data, text: insert_before_last(data, b"IEND", chunk(b"tEXt", b"Comment\0" + text)),
        "in the end": lambda data, text: data[:-12] + chunk(b"IEND", text),
        "behind the picture": lambda data, text: data + text,
        "behind the image data": lambda data, text: _idat(data, lambda stream: stream + text),
        "behind the lines": lambda data, text: _idat(data, lambda stream: zlib.compress(zlib.decompress(stream) + text, 0)),
    },
    "BMP": {
        "behind the picture": lambda data, text: data + text,
        "behind the picture, in its size": _counted,
        "size of the pixels": lambda data, text: _field(data, 34, text, 4),
        "before the pixels": _gap,
        "reserved fields": lambda data, text: _field(data, 6, text, 4, 12),
        "resolution": lambda data, text: _field(data, 38, text, 8),
        "number of colours": lambda data, text: _field(data, 46, text, 4) if data[28] > 8 else data,
        "important colours": lambda data, text: _field(data, 50, text, 4),
        "fields of two numbers": lambda data, text: _field(data, 38, text, 8 if data[28] <= 8 else 16),
        "fields of OS/2": lambda data, text: _field(data, 54, text, 24, 64) if data[14] == 64 else data,
        "colour space": lambda data, text: _field(data, 74, text, 48, 108),
        "rendering": lambda data, text: _field(data, 122, text, 16, 124),
        "padding": _line_ends,
        "profile": _profile_behind,
    },
}  # fmt: skip
"""Functions that insert a text, by format and place. They return the same data if the picture has no such place."""


def _exif(text: bytes) -> bytes:
    exif = Image.Exif()
    exif[0x010E] = text.decode("latin-1")
    return exif.tobytes()[6:]


def _idat(data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Change the compressed stream of a PNG that has one chunk of it."""
    at = data.index(b"IDAT") - 4
    length = struct.unpack_from(">I", data, at)[0]
    return data[:at] + chunk(b"IDAT", change(data[at + 8 : at + 8 + length])) + data[at + 12 + length :]


def searched(text: bytes) -> tuple[bytes, ...]:
    """Return what is searched for a text: its beginning and its end."""
    return text[:8], text[-8:]


def contents(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a file, and what it contains compressed or encoded."""
    raw = path.read_bytes()
    yield raw
    if path.suffix == ".parquet":
        for column in pq.read_table(path).columns:
            yield from values_of(column)
    elif path.suffix in (".html", ".md"):
        yield from (base64.b64decode(text) for text in re.findall(rb"base64,([0-9A-Za-z+/=]+)", raw))
    elif ".array_record" in path.name:
        from array_record.python.array_record_module import ArrayRecordReader

        yield from ArrayRecordReader(str(path)).read_all()


def values_of(column: pa.ChunkedArray | pa.Array) -> Iterator[bytes]:
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    for chunk in chunks:
        yield from (buffer.to_pybytes() for buffer in chunk.buffers() if buffer is not None)


def check_files(folder: Path, needles: Sequence[bytes]) -> int:
    """Fail if one of some byte strings is in a file of the folder; return the number of files."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        for content in contents(path):
            found = [needle for needle in needles if needle in content]
            assert not found, f"{path.relative_to(folder)}: {found[:3]}"
    return len(files)
