"""Encoded pictures: decoded within limits, and read from an archive without the dates in their metadata.

Metadata are removed without changing any other byte. No dependency of this package removes a segment without encoding the pixels again.
The formats are described in: JPEG: ITU-T T.81, annex B (markers in the
header and between scans); PNG: https://www.w3.org/TR/png-3/, sections 5 and 11.3; BMP:
https://learn.microsoft.com/windows/win32/gdi/bitmap-storage. Segments that affect the pixels (JFIF, Adobe and ICC of JPEG; all chunks of
PNG except text, eXIf and tIME) are not metadata. An orientation in EXIF is removed with it: neither the pixels nor the boxes ever
followed one.

Metadata are only searched in pictures that decode. For others the result is meaningless, but the functions do not fail.
"""

from __future__ import annotations

import hashlib
import io
import re
import struct
import warnings
import zlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from lung_nodule_ct.declaration.dates import count_dates
from lung_nodule_ct.declaration.findings import Code, Finding
from lung_nodule_ct.sources.zip_member import read_member
from lung_nodule_ct.system import inflate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from lung_nodule_ct.sources.source import ArchivePool
    from lung_nodule_ct.sources.zip_directory import Member


MAX_PICTURE_BYTES: Final = 256 << 20
_MAX_PIXELS = 64 << 20
_KEY_SAMPLE_SIZE = 1 << 16
_FORMATS = ("JPEG", "BMP", "PNG")
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
SUFFIXES: Final = (".jpg", ".jpeg", ".bmp", ".png")
_PNG = b"\x89PNG\r\n\x1a\n"
#: A JPEG marker. In the data of the pixels, FF is only followed by 00 and by restart markers (D0 to D7).
_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")
_EOI, _COM, _ALONE = 0xD9, 0xFE, (0x01, 0xD8)
_PIXEL_SEGMENTS = {0xE0: b"JFIF\0", 0xE2: b"ICC_PROFILE\0", 0xEE: b"Adobe"}
_APP_NAMES = {b"Exif\0": " (EXIF)", b"http://ns.adobe.com/x": " (XMP)", b"Photoshop": " (Photoshop)"}
_INFO_BYTES, _V5_BYTES, _RUN_LENGTHS = 40, 124, (1, 2)
_MAX_TEXT_BYTES = 1 << 20  # Pillow refuses a picture with more compressed text


def decode_picture(data: bytes) -> NDArray[np.uint8]:
    """Decode a picture to its pixels, axes (y, x); (y, x, colour) if it is not grey.

    Raises:
        ValueError: It cannot be decoded, or is too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
                if picture.width * picture.height > _MAX_PIXELS:
                    raise ValueError(f"expected at most {_MAX_PIXELS:,} pixels, got {picture.width} x {picture.height}")
                plain = picture if picture.mode in ("L", "RGB") else picture.convert("RGB")
                pixels = np.asarray(plain)
    except UnidentifiedImageError as error:  # whose message is the address of an object
        raise ValueError(f"a file of another format, which starts with {data[:8]!r}") from error
    except (OSError, SyntaxError, EOFError, struct.error, *_BOMBS) as error:
        raise ValueError(f"it cannot be decoded ({error})") from error
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        return np.ascontiguousarray(pixels[..., 0])  # grey stored as colour
    return pixels


def as_grey(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the grey values of decoded pixels, axes (y, x).

    Raises:
        ValueError: The picture has colours.
    """
    if pixels.ndim == 3:
        raise ValueError("a colour picture")
    return pixels


def pixels_key(pixels: NDArray[Any], crc: int | None = None) -> str:
    """Return a key that is equal for arrays of equal shape and values.

    It joins a CRC-32 of all values and a SHA-256 of a sample of them. A SHA-256 of a complete volume would take longer than
    inflating it, and nobody has a reason to forge these keys.

    Args:
        pixels: The array.
        crc: The CRC-32 of its bytes in C order, if that is known.
    """
    flat = np.ascontiguousarray(pixels).reshape(-1)
    sample = flat[:: max(1, flat.size // _KEY_SAMPLE_SIZE)].tobytes()
    crc = inflate.crc32(flat.view(np.uint8)) if crc is None else crc
    return f"{pixels.shape}-{crc:08x}-{hashlib.sha256(sample).hexdigest()[:32]}"


def read_picture(member: Member, archives: ArchivePool) -> tuple[bytes, NDArray[np.uint8]]:
    """Return the bytes of a picture, and its pixels with axes (y, x) or (y, x, colour).

    Raises:
        MemberError: The picture is damaged.
    """
    data = read_member(member, archives, limit=MAX_PICTURE_BYTES)
    try:
        return data, decode_picture(data)
    except ValueError as error:
        remedy = "if the archive is intact, report this image"
        raise member.error("is damaged", expected="a JPEG, BMP or PNG picture", got=error, remedy=remedy) from error


def read_published(
    member: Member, archives: ArchivePool, *, keep_metadata: bool
) -> tuple[bytes, NDArray[np.uint8], list[Finding]]:
    """Return the bytes of a picture as they may leave the builder, its pixels, and findings about removed metadata.

    Args:
        member: The picture.
        archives: The open archives.
        keep_metadata: Keep metadata that contain a calendar date.

    Raises:
        MemberError: The picture is damaged.
    """
    data, pixels = read_picture(member, archives)
    clean, removed = (data, ()) if keep_metadata else without_dated_metadata(data)
    if not removed:
        return data, pixels, []
    resolution = "removed; the pixels and all other bytes are as published"
    return clean, pixels, [Finding(Code.PICTURE_METADATA_REMOVED, resolution, member.place, ", ".join(removed))]


class _Part(NamedTuple):
    """A part of a file that is not needed for the pixels, and its text."""

    kind: str
    start: int
    end: int
    content: bytes


def without_dated_metadata(data: bytes) -> tuple[bytes, tuple[str, ...]]:
    """Remove the parts of the metadata of a picture that contain a calendar date.

    Args:
        data: A JPEG, PNG or BMP that decodes.

    Returns:
        The picture, the same object if no part contains a date, and the kinds of the removed parts.
    """
    dated = [part for part in _parts_of(data) if count_dates(part.content.decode("latin-1"))]
    if not dated:
        return data, ()
    return _cut(data, dated), tuple(part.kind for part in dated)


def _parts_of(data: bytes) -> Iterable[_Part]:
    if data.startswith(b"\xff\xd8"):
        return _parts_of_jpeg(data)
    if data.startswith(_PNG):
        return _parts_of_png(data)
    return _parts_of_bmp(data) if data.startswith(b"BM") else ()


def _cut(data: bytes, parts: Iterable[_Part]) -> bytes:
    kept, at = [], 0
    for part in parts:
        kept.append(data[at : part.start])
        at = part.end
    return b"".join([*kept, data[at:]])


def _parts_of_jpeg(data: bytes) -> Iterator[_Part]:
    at = 2
    while marker := _MARKER.search(data, at):
        code, at = marker[1][0], marker.end()
        if code == _EOI:
            yield from _trailing(data, at)
            return
        if code in _ALONE:
            continue
        begin = at + 2
        at += max(2, int.from_bytes(data[at:begin], "big"))
        if code == _COM:
            yield _Part("COM", marker.start(), at, data[begin:at])
        elif 0xE0 <= code <= 0xEF and not (
            (signature := _PIXEL_SEGMENTS.get(code)) and data.startswith(signature, begin)
        ):
            name = next((name for signature, name in _APP_NAMES.items() if data.startswith(signature, begin)), "")
            yield _Part(f"APP{code - 0xE0}{name}", marker.start(), at, data[begin:at])


def _parts_of_png(data: bytes) -> Iterator[_Part]:
    at = len(_PNG)
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        start, begin, at = at, at + 8, at + 12 + length
        if kind == b"IEND":
            yield from _trailing(data, at)
            return
        if kind in (b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"tIME"):
            content = data[begin : begin + length]
            yield _Part(kind.decode(), start, at, _readable(kind, content))


def _readable(kind: bytes, content: bytes) -> bytes:
    """The content of a chunk, and as text what it contains compressed or as numbers."""
    if kind == b"tIME" and len(content) == 7:
        return b"%04d-%02d-%02d" % struct.unpack_from(">HBB", content)
    rest = content.partition(b"\0")[2]
    if kind == b"zTXt":
        return content + b"\n" + _inflated(rest[1:])
    if kind == b"iTXt" and rest.startswith(b"\1"):
        return content + b"\n" + _inflated(rest[2:].split(b"\0", 2)[-1])
    return content


def _inflated(compressed: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(compressed, _MAX_TEXT_BYTES)
    except zlib.error:
        return b""


def _parts_of_bmp(data: bytes) -> Iterator[_Part]:
    """The data after the pixels, unless they may be a colour profile."""
    if len(data) < 14 + _INFO_BYTES:
        return
    offset, header, width, height, _, bits, compression, stored = struct.unpack_from("<IIiiHHII", data, 10)
    if header < _INFO_BYTES or (header >= _V5_BYTES and any(data[126:130])):
        return
    size = stored if compression in _RUN_LENGTHS else (abs(width) * bits + 31) // 32 * 4 * abs(height)
    if size:
        yield from _trailing(data, offset + size)


def _trailing(data: bytes, end: int) -> Iterator[_Part]:
    if end < len(data):
        yield _Part("data behind the picture", end, len(data), data[end:])
