"""zlib's face, by ISA-L where the processor has it (3 times as fast to inflate, 5 to check), else by the standard library.

What is inflated as a whole goes through libdeflate where the extra ``fast`` brought it (imagecodecs).
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, Final

_zlib: Any
try:
    from isal import isal_zlib as _zlib
except ImportError:  # pragma: no cover - on processors without it
    _zlib = zlib

_deflate_decode: Any
try:
    from imagecodecs import deflate_decode as _deflate_decode
except ImportError:
    _deflate_decode = None

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ERRORS: Final[tuple[type[Exception], ...]] = (zlib.error, _zlib.error)
"""What either raises at damaged data."""

RAW: Final = -zlib.MAX_WBITS
"""Window bits of a raw deflate stream, as zip archives hold it."""

ZLIB_OR_GZIP: Final = zlib.MAX_WBITS | 32
"""Window bits by which the header tells zlib from gzip."""

INFLATES_WHOLE: Final = _deflate_decode is not None
"""Whether :func:`inflate_into` can do anything."""


def decompressobj(wbits: int) -> Any:
    """A decompressor with the methods of :func:`zlib.decompressobj`."""
    return _zlib.decompressobj(wbits)


def inflate_into(packed: memoryview, out: NDArray[np.uint8]) -> bool:
    """Inflate a raw deflate stream as a whole into an array of the length that it should have.

    Returns:
        Whether that was done; ``False`` where the stream is damaged or of another length.
    """
    try:
        return len(_deflate_decode(packed, raw=True, out=out)) == len(out)
    except RuntimeError:  # of which imagecodecs' own errors are
        return False


def crc32(data: bytes | memoryview | NDArray[Any], value: int = 0) -> int:
    """The CRC-32 of ``data``, going on from ``value``."""
    crc: int = _zlib.crc32(data, value)
    return crc
