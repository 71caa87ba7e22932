"""Volumes as blosc2 b2nd cells, an opt-in of published shards: smaller than zstd, and a patch decodes only what it touches.

Format: a contiguous frame (cframe) of C-Blosc2 with its n-dimensional layer, github.com/Blosc/c-blosc2, README_B2ND_METALAYER.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lung_nodule_ct.system.imports import needing

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CHUNKS: Final = (32, 128, 128)
_BLOCKS: Final = (8, 64, 64)
_MAGIC: Final = b"b2frame\0"


def to_b2nd(volume: NDArray[Any]) -> bytes:
    """A volume, axes (z, y, x), as one frame: byte-shuffled and zstd 1, without loss.

    Raises:
        MissingExtraError: blosc2 is not installed.
    """
    blosc2 = _blosc2()
    chunks = tuple(min(chunk, size) for chunk, size in zip(_CHUNKS, volume.shape, strict=True))
    blocks = tuple(min(block, size) for block, size in zip(_BLOCKS, volume.shape, strict=True))
    params = {"codec": blosc2.Codec.ZSTD, "clevel": 1, "filters": [blosc2.Filter.SHUFFLE], "nthreads": 1}
    frame: bytes = blosc2.asarray(volume, chunks=chunks, blocks=blocks, cparams=params).to_cframe()
    return frame


def is_b2nd(cell: memoryview) -> bool:
    """Whether a cell holds a frame."""
    return bytes(cell[2:10]) == _MAGIC


def open_b2nd(cell: memoryview) -> Any:
    """The volume in a cell, as a ``blosc2.NDArray``: to slice it decodes the blocks that the slice touches.

    Raises:
        MissingExtraError: blosc2 is not installed.
    """
    return _blosc2().ndarray_from_cframe(cell)


def _blosc2() -> Any:
    with needing("b2nd", "a volume stored as b2nd"):
        import blosc2  # noqa: PLC0415

    return blosc2
