"""Encoded pictures: decoded within limits, and read from an archive without the dates in their metadata."""

from __future__ import annotations

import io
import struct
import warnings
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image, UnidentifiedImageError

from lung_nodule_ct.declaration.findings import Code, Finding
from lung_nodule_ct.formats.picture_metadata import without_dated_metadata
from lung_nodule_ct.sources.zip_member import read_member

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lung_nodule_ct.sources.source import ArchivePool
    from lung_nodule_ct.sources.zip_directory import Member


MAX_PICTURE_BYTES: Final = 256 << 20
_MAX_PIXELS = 64 << 20
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
