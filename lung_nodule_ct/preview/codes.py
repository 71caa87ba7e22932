"""Hounsfield units as 8-bit codes fine enough for every window of the page, and pictures of them.

One picture a slice serves all windows: the page turns codes into greys on a canvas. The codes are spent where windows look,
7.9 HU a code in lung and 3.4 HU in soft tissue. Measured on four slices of real chest CT, as PSNR in the lung and the
mediastinal window: one WebP of codes 15.1 kB a slice, 39.2 and 34.2 dB; a WebP a window 24.1 kB, 38.1 and 36.6 dB; a JPEG a
window 33.7 kB, 38.9 and 35.2 dB.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

KNOTS: Final = ((-1350, 0), (-1024, 20), (-160, 130), (240, 247), (1300, 255))
"""Hounsfield units and their codes; linear in between, clipped outside."""

_QUALITY = 80
_METHOD = 2  # of 6: a third of the time of the default 4 for 3 % more bytes


def to_codes(voxels: NDArray[Any]) -> NDArray[np.uint8]:
    """Hounsfield units as codes; 8-bit greys stay as they are. Any shape."""
    if voxels.dtype == np.uint8:
        return voxels
    hu, codes = zip(*KNOTS, strict=True)
    coded: NDArray[np.uint8] = np.rint(np.interp(voxels, hu, codes)).astype(np.uint8)
    return coded


def shrink(plane: NDArray[Any], longest: int) -> NDArray[Any]:
    """A slice with at most ``longest`` pixels along its longer side, by averaging over areas; axes (y, x).

    It is averaged before it is coded, as codes are not linear in density.
    """
    scale = longest / max(plane.shape)
    if scale >= 1:
        return plane
    picture = Image.fromarray(np.ascontiguousarray(plane, plane.dtype if plane.dtype == np.uint8 else np.float32))
    size = (max(1, round(plane.shape[1] * scale)), max(1, round(plane.shape[0] * scale)))
    return np.asarray(picture.resize(size, Image.Resampling.BOX))


def encode(grey: NDArray[np.uint8]) -> bytes:
    """8-bit pixels, axes (y, x), as WebP."""
    return _webp(grey, quality=_QUALITY, method=_METHOD)


def encode_exactly(grey: NDArray[np.uint8]) -> bytes:
    """8-bit pixels, axes (y, x), as WebP without loss: labels, and crops of few pixels."""
    return _webp(grey, lossless=True, quality=50, method=_METHOD)


def _webp(grey: NDArray[np.uint8], **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(grey)).save(buffer, "WEBP", **options)
    return buffer.getvalue()
