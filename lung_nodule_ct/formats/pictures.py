"""Encoded pictures, decoded within limits.

What pictures carry beside their pixels, told apart and cut out without touching a byte of the rest.

Neither Pillow nor another dependency of ours takes a segment away without encoding the pixels again. Formats:
JPEG: ITU-T T.81, annex B (markers, in the header and between scans); PNG: https://www.w3.org/TR/png-3/, 5 and 11.3;
BMP: https://learn.microsoft.com/windows/win32/gdi/bitmap-storage. What decides how pixels look (JFIF, Adobe and ICC of
JPEG; all but text, eXIf and tIME of PNG) is never taken for metadata. An orientation in EXIF goes with it: our pixels, and
the boxes on them, never followed one.

Only a picture that decodes is given to these: a malformed one is walked to no purpose, but to no harm.

A picture of an archive: its bytes as published, without the dates beside them, and its pixels as the proof that it is one.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from lung_nodule_ct.declaration.dates import count_dates
from lung_nodule_ct.declaration.findings import Code, Finding
from lung_nodule_ct.sources.zip_member import read_member

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from lung_nodule_ct.sources.source import ArchivePool
    from lung_nodule_ct.sources.zip_directory import Member


MAX_PICTURE_BYTES: Final = 256 << 20
_MAX_PIXELS = 64 << 20
_FORMATS = ("JPEG", "BMP", "PNG")
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
SUFFIXES: Final = (".jpg", ".jpeg", ".bmp", ".png")


def decode_picture(data: bytes) -> NDArray[np.uint8]:
    """The pixels of an encoded picture, axes (y, x); (y, x, colour) where its colours differ.

    Raises:
        ValueError: It does not decode, or is too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
                if picture.width * picture.height > _MAX_PIXELS:
                    raise ValueError(f"expected at most {_MAX_PIXELS:,} pixels, got {picture.width} x {picture.height}")
                plain = picture if picture.mode in ("L", "RGB") else picture.convert("RGB")
                pixels = np.asarray(plain)
    except UnidentifiedImageError as error:  # whose own words are the address of an object
        raise ValueError(f"a file of no such format, which begins with {data[:8]!r}") from error
    except (OSError, SyntaxError, EOFError, struct.error, *_BOMBS) as error:
        raise ValueError(f"no picture that decodes ({error})") from error
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        return np.ascontiguousarray(pixels[..., 0])  # grey stored as colour
    return pixels


def as_grey(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The grey values of decoded pixels, axes (y, x).

    Raises:
        ValueError: It is a colour picture.
    """
    if pixels.ndim == 3:
        raise ValueError("a colour picture")
    return pixels


_PNG = b"\x89PNG\r\n\x1a\n"
#: A marker of JPEG; in the pixels' own bytes only 00 and restart markers (D0 to D7) follow an FF.
_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")
_EOI, _COM, _ALONE = 0xD9, 0xFE, (0x01, 0xD8)
_OF_THE_PIXELS = {0xE0: b"JFIF\0", 0xE2: b"ICC_PROFILE\0", 0xEE: b"Adobe"}
_APP_NAMES = {b"Exif\0": " (EXIF)", b"http://ns.adobe.com/x": " (XMP)", b"Photoshop": " (Photoshop)"}
_INFO_BYTES, _V5_BYTES, _RUN_LENGTHS = 40, 124, (1, 2)
_MAX_TEXT_BYTES = 1 << 20  # Pillow refuses a picture that inflates more text than that


class _Part(NamedTuple):
    """A stretch of a file that the pixels do not need, and the text in it."""

    kind: str
    start: int
    end: int
    content: bytes


def without_dated_metadata(data: bytes) -> tuple[bytes, tuple[str, ...]]:
    """A picture without the parts of its metadata that spell a calendar date, and of what kinds those were.

    Args:
        data: A JPEG, PNG or BMP that decodes.

    Returns:
        The very same object where no part spells one.
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
            yield from _behind(data, at)
            return
        if code in _ALONE:
            continue
        begin = at + 2
        at += max(2, int.from_bytes(data[at:begin], "big"))
        if code == _COM:
            yield _Part("COM", marker.start(), at, data[begin:at])
        elif 0xE0 <= code <= 0xEF and not ((sign := _OF_THE_PIXELS.get(code)) and data.startswith(sign, begin)):
            name = next((name for of_it, name in _APP_NAMES.items() if data.startswith(of_it, begin)), "")
            yield _Part(f"APP{code - 0xE0}{name}", marker.start(), at, data[begin:at])


def _parts_of_png(data: bytes) -> Iterator[_Part]:
    at = len(_PNG)
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        start, begin, at = at, at + 8, at + 12 + length
        if kind == b"IEND":
            yield from _behind(data, at)
            return
        if kind in (b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"tIME"):
            content = data[begin : begin + length]
            yield _Part(kind.decode(), start, at, _readable(kind, content))


def _readable(kind: bytes, content: bytes) -> bytes:
    """The content of a chunk, with what stands in it packed or as numbers also as text."""
    if kind == b"tIME" and len(content) == 7:
        return b"%04d-%02d-%02d" % struct.unpack_from(">HBB", content)
    rest = content.partition(b"\0")[2]
    if kind == b"zTXt":
        return content + b"\n" + _inflated(rest[1:])
    if kind == b"iTXt" and rest.startswith(b"\1"):
        return content + b"\n" + _inflated(rest[2:].split(b"\0", 2)[-1])
    return content


def _inflated(packed: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(packed, _MAX_TEXT_BYTES)
    except zlib.error:
        return b""


def _parts_of_bmp(data: bytes) -> Iterator[_Part]:
    """What stands behind the pixels, unless a colour profile may."""
    if len(data) < 14 + _INFO_BYTES:
        return
    offset, header, width, height, _, bits, packing, stored = struct.unpack_from("<IIiiHHII", data, 10)
    if header < _INFO_BYTES or (header >= _V5_BYTES and any(data[126:130])):
        return
    size = stored if packing in _RUN_LENGTHS else (abs(width) * bits + 31) // 32 * 4 * abs(height)
    if size:
        yield from _behind(data, offset + size)


def _behind(data: bytes, end: int) -> Iterator[_Part]:
    if end < len(data):
        yield _Part("data behind the picture", end, len(data), data[end:])


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
