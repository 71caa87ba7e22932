"""Encoded pictures: decoded within limits, and read from an archive without the dates in their metadata."""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image, UnidentifiedImageError

from lung_nodule_ct.declaration.findings import Code, Finding
from lung_nodule_ct.formats.picture_metadata import without_dated_metadata
from lung_nodule_ct.sources.zip_member import read_member
from lung_nodule_ct.system import inflate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lung_nodule_ct.sources.source import ArchivePool
    from lung_nodule_ct.sources.zip_directory import Member


MAX_PICTURE_BYTES: Final = 256 << 20
_MAX_PIXELS = 64 << 20
_KEY_SAMPLE_SIZE = 1 << 16
_FORMATS = ("JPEG", "BMP", "PNG")
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
SUFFIXES: Final = (".jpg", ".jpeg", ".bmp", ".png")


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
