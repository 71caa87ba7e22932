"""Encoded pictures: decoded within limits, and read from an archive without their metadata.

Metadata are everything in the file that is not needed for the same pixels: comments, EXIF, XMP, colour profiles, text, previews, data
behind or between the parts. They are removed without encoding the pixels again: no dependency of this package can do that. The result
is decoded again and compared with the pixels as published.

Pillow applies neither colour profiles nor an orientation in EXIF to the pixels, and the boxes refer to the pixels as stored. Other readers
(``datasets``, for one) do apply an orientation, so it is removed in any case and reported.
"""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from lung_nodule_ct.declaration.findings import Code, Finding
from lung_nodule_ct.formats.jpeg_scans import find_scan_tails
from lung_nodule_ct.formats.picture_parts import (
    PNG_SIGNATURE,
    parts_of_bmp,
    parts_of_jpeg,
    parts_of_png,
    require_few_parts,
)
from lung_nodule_ct.formats.plain_jpeg import plain_head
from lung_nodule_ct.sources.zip_member import read_member
from lung_nodule_ct.system import inflate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from lung_nodule_ct.formats.picture_parts import Part
    from lung_nodule_ct.sources.source import ArchivePool
    from lung_nodule_ct.sources.zip_directory import Member


MAX_PICTURE_BYTES: Final = 256 << 20
SUFFIXES: Final = (".jpg", ".jpeg", ".bmp", ".png")

_MAX_PIXELS = 64 << 20
_KEY_SAMPLE_SIZE = 1 << 16
_KEY_END_BYTES = 1 << 12
_FORMATS = ("JPEG", "BMP", "PNG")
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
_EXACT_MODES = ("1", "L", "P", "RGB")
_PNG_DEPTH = 24  # the position of the bit depth, which Pillow reduces to 8 for pictures with colour or transparency
_TURNED = range(2, 9)  # orientations of EXIF other than the normal one
_MAX_KINDS = 5
_MAX_HEADS = 64
"""Heads of plain JPEGs that are remembered: pictures of one encoder and size have the same."""


@dataclass(frozen=True, slots=True)
class DecodedPicture:
    """A decoded picture.

    Attributes:
        pixels: Grey values with axes (y, x), or colours with axes (y, x, colour).
        channels: All values that are stored. They differ from ``pixels`` for CMYK (y, x, 4) and where not all pixels are opaque: then
            the opacity follows the colours (y, x, 2 or 4).
        mode: The mode in which Pillow opens it.
        orientation: How viewers are asked to turn it, as EXIF numbers it; 1 if they are not.
    """

    pixels: NDArray[np.uint8]
    channels: NDArray[np.uint8]
    mode: str
    orientation: int

    @property
    def key(self) -> str:
        """A key that is equal for equal stored values, see :func:`pixels_key`."""
        return pixels_key(self.channels)

    @property
    def is_exact(self) -> bool:
        """Whether ``pixels`` are all that is stored."""
        return self.channels is self.pixels

    def equals(self, other: DecodedPicture) -> bool:
        """Whether all stored values are equal."""
        return np.array_equal(self.channels, other.channels) and np.array_equal(self.pixels, other.pixels)


def decode_picture(data: bytes) -> DecodedPicture:
    """Decode a picture.

    Raises:
        ValueError: It cannot be decoded, is too large, has too many parts, or has more than 8 bits per channel.
    """
    require_few_parts(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # metadata that cannot be read
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
                if picture.width * picture.height > _MAX_PIXELS:
                    raise ValueError(f"expected at most {_MAX_PIXELS:,} pixels, got {picture.width} x {picture.height}")
                if picture.format == "PNG" and data[_PNG_DEPTH] > 8:
                    raise ValueError(f"{data[_PNG_DEPTH]} bits per channel, which do not fit 8 bits")
                return _decoded(picture)
    except UnidentifiedImageError as error:  # whose message is the address of an object
        raise ValueError(f"a file of another format, which starts with {data[:8]!r}") from error
    except (OSError, SyntaxError, EOFError, struct.error, *_BOMBS) as error:
        raise ValueError(f"it cannot be decoded ({error})") from error


def _decoded(picture: Image.Image) -> DecodedPicture:
    mode = picture.mode
    pixels = _without_equal_colours(picture if mode in ("L", "RGB") else picture.convert("RGB"))
    channels = pixels
    if mode == "CMYK":
        channels = np.asarray(picture)
    elif mode not in _EXACT_MODES or "transparency" in picture.info:
        opacity = np.asarray(picture.convert("RGBA").getchannel("A"))
        if (opacity != 255).any():
            channels = np.dstack((pixels, opacity))
    return DecodedPicture(pixels, channels, mode, _orientation(picture))


def _without_equal_colours(picture: Image.Image) -> NDArray[np.uint8]:
    """The grey values of a grey picture, also if it is stored as colour; other pixels as they are."""
    if picture.mode == "L":
        return np.asarray(picture)
    red = picture.getchannel(0).tobytes()  # comparing bytes takes a tenth of the time of comparing arrays of colours
    if any(picture.getchannel(channel).tobytes() != red for channel in (1, 2)):
        return np.asarray(picture)
    return np.frombuffer(red, np.uint8).reshape(picture.height, picture.width)


def _orientation(picture: Image.Image) -> int:
    try:
        value = picture.getexif().get(ExifTags.Base.Orientation, 1)
    except (OSError, SyntaxError, ValueError, TypeError, struct.error):  # EXIF that cannot be read has no effect
        return 1
    return value if value in _TURNED else 1


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


@dataclass(frozen=True, slots=True)
class PublishedPicture:
    """A picture as it may leave the builder.

    Attributes:
        data: The encoded picture.
        height: Lines of pixels.
        width: Pixels of a line.
        key: Equal for equal pixels. Two JPEGs of equal pixels that were coded in two ways may have two keys.
        findings: Findings about pixels that are not used as they are stored, and about what was removed.
    """

    data: bytes
    height: int
    width: int
    key: str
    findings: tuple[Finding, ...] = ()


def read_picture(member: Member, archives: ArchivePool) -> tuple[bytes, DecodedPicture, list[Finding]]:
    """Return the bytes of a picture, what they decode to, and findings about pixels that are not used as they are stored.

    Raises:
        MemberError: The picture is damaged, or has more than 8 bits per channel.
    """
    data = read_member(member, archives, limit=MAX_PICTURE_BYTES)
    return data, *_decoded_member(member, data)


def _decoded_member(member: Member, data: bytes) -> tuple[DecodedPicture, list[Finding]]:
    try:
        picture = decode_picture(data)
    except ValueError as error:
        problem = "cannot be used" if "bits per channel" in str(error) else "is damaged"
        expected, remedy = (
            "a JPEG, BMP or PNG picture of 8 bits per channel",
            "if the archive is intact, report this image",
        )
        raise member.error(problem, expected=expected, got=error, remedy=remedy) from error
    findings = []
    if not picture.is_exact:
        detail = f"expected grey or RGB, got {picture.mode}" + ("" if picture.mode == "CMYK" else " with transparency")
        resolution = "grey values and previews are those of its conversion to RGB, without transparency"
        findings.append(Finding(Code.PICTURE_CONVERTED, resolution, member.place, detail))
    if picture.orientation in _TURNED:
        detail = f"expected orientation 1, got {picture.orientation}"
        resolution = "removed; the pixels and boxes are used as stored"
        findings.append(Finding(Code.PICTURE_ORIENTATION, resolution, member.place, detail))
    return picture, findings


def read_published(member: Member, archives: ArchivePool, *, keep_metadata: bool) -> PublishedPicture:
    """Return a picture as it may leave the builder. A plain JPEG (:mod:`.plain_jpeg`) is not decoded.

    Args:
        member: The picture.
        archives: The open archives.
        keep_metadata: Keep all metadata but an orientation.

    Raises:
        MemberError: As :func:`read_picture`, or the picture does not decode to the same pixels without its metadata.
    """
    data = read_member(member, archives, limit=MAX_PICTURE_BYTES)
    size = _size_of_plain(data)
    if size is not None:
        return PublishedPicture(data, *size, _key_of_plain(data))
    picture, findings = _decoded_member(member, data)
    try:
        published, kinds = (without_orientation if keep_metadata else without_metadata)(data, picture)
    except ValueError as error:
        remedy = "report this image; or build with --keep-source-names, which keeps metadata"
        problem = "cannot be published without its metadata"
        raise member.error(problem, expected="the same pixels", got=error, remedy=remedy) from error
    if kinds and not keep_metadata:
        resolution = "removed; the pixels are as published, and were not encoded again"
        findings.append(Finding(Code.PICTURE_METADATA_REMOVED, resolution, member.place, kinds))
    clean = published
    if keep_metadata:
        with suppress(ValueError):
            clean, _ = without_metadata(data, picture)
    key = picture.key if _size_of_plain(clean) is None else _key_of_plain(clean)
    height, width = picture.pixels.shape[:2]
    return PublishedPicture(published, height, width, key, tuple(findings))


def _size_of_plain(data: bytes) -> tuple[int, int] | None:
    """Height and width of a plain JPEG without metadata, ``None`` for pictures that have to be decoded."""
    head = plain_head(data, _decodes)
    return None if head is None else _size_of_head(head)


@lru_cache(_MAX_HEADS)
def _size_of_head(head: bytes) -> tuple[int, int] | None:
    empty = head + b"\xff\xd9"
    try:
        picture = decode_picture(empty)
    except ValueError:
        return None
    if find_metadata(empty) or not picture.is_exact:
        return None
    height, width = picture.pixels.shape[:2]
    return height, width


def _decodes(data: bytes) -> bool:
    """Whether a JPEG that may be cut short decodes to its last pixel. One pixel of a block of 8 x 8 is decoded, which is faster."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
            picture.draft("L", (picture.width // 8, picture.height // 8))
            picture.load()
    except OSError:
        return False
    return True


def _key_of_plain(data: bytes) -> str:
    end = hashlib.sha256(data[-_KEY_END_BYTES:]).hexdigest()
    return f"{len(data)}-{inflate.crc32(data):08x}-{end[:32]}"


def without_metadata(data: bytes, picture: DecodedPicture) -> tuple[bytes, str]:
    """Remove everything from a picture that is not needed for its pixels.

    Args:
        data: The encoded picture.
        picture: What it decodes to.

    Returns:
        The picture, the same object if there is nothing to remove; and the kinds of the removed parts, without their content.

    Raises:
        ValueError: The result does not decode to the same pixels.
    """
    parts = find_metadata(data)
    clean = _replaced(data, parts)
    tails = find_scan_tails(clean, lambda altered: _has_pixels(altered, picture))
    return _checked(data, _replaced(clean, tails), picture), _listed([*parts, *tails])


def without_orientation(data: bytes, picture: DecodedPicture) -> tuple[bytes, str]:
    """Remove those metadata of a picture that contain an orientation, if it has one; see :func:`without_metadata`."""
    if picture.orientation not in _TURNED:
        return data, ""
    parts = [part for part in find_metadata(data) if _may_turn(part)]
    return _checked(data, _replaced(data, parts), picture), _listed(parts)


def find_metadata(data: bytes) -> list[Part]:
    """Return the parts of a picture that are not needed for its pixels, in the order of the file."""
    if data.startswith(b"\xff\xd8"):
        return list(parts_of_jpeg(data))
    if data.startswith(PNG_SIGNATURE):
        return sorted(parts_of_png(data), key=lambda part: part.start)
    return list(parts_of_bmp(data)) if data.startswith(b"BM") else []


def _may_turn(part: Part) -> bool:
    is_exif = part.kind in ("APP1 (EXIF)", "eXIf") or part.content.startswith(b"Raw profile type")
    return is_exif or b"tiff:Orientation" in part.content


def _replaced(data: bytes, parts: Iterable[Part]) -> bytes:
    """The picture with its parts replaced, the same object if there are none. ``parts`` are in the order of the file."""
    kept: list[bytes] = []
    at = 0
    for part in parts:
        kept += (data[at : part.start], part.replacement)
        at = part.end
    return b"".join([*kept, data[at:]]) if kept else data


def _checked(data: bytes, clean: bytes, picture: DecodedPicture) -> bytes:
    if clean is not data:
        again = decode_picture(clean)
        if not again.equals(picture):
            raise ValueError("other pixels")
        if again.orientation in _TURNED:
            raise ValueError(f"orientation {again.orientation}")
    return clean


def _has_pixels(data: bytes, picture: DecodedPicture) -> bool:
    """Whether a JPEG has the same pixels as a picture. If its brightness differs, which is decoded faster, so do its colours."""
    is_grey = picture.mode == "RGB" and picture.pixels.ndim == 2  # so that the brightness is every colour
    try:
        return (not is_grey or np.array_equal(_brightness(data), picture.pixels)) and decode_picture(data).equals(
            picture
        )
    except (ValueError, OSError):
        return False


def _brightness(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
        picture.draft("L", None)
        return np.asarray(picture.convert("L"))


def _listed(parts: Iterable[Part]) -> str:
    counts = Counter(part.kind for part in parts)
    shown = [kind if count == 1 else f"{kind} ({count} times)" for kind, count in counts.items()]
    return ", ".join(shown[:_MAX_KINDS]) + (", …" if len(shown) > _MAX_KINDS else "")
