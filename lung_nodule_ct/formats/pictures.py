"""Encoded pictures, decoded within limits."""

from __future__ import annotations

import io
import struct
import warnings
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image, UnidentifiedImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
