"""What every example function returns, and the key by which equal pixels are told."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lung_nodule_ct.system import inflate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lung_nodule_ct.declaration.findings import Finding

_SAMPLED = 1 << 16


@dataclass(frozen=True, slots=True)
class Example:
    """One example.

    Attributes:
        row: Its values by column name, ``source_name`` included. Voxels are arrays (z, y, x), pictures their bytes.
        pixels_key: Equal for equal pixels or voxels, however they were encoded.
        findings: What was wrong with what was read.
    """

    row: dict[str, Any]
    pixels_key: str
    findings: tuple[Finding, ...] = ()


def pixels_key(pixels: NDArray[Any], crc: int | None = None) -> str:
    """Equal for arrays of equal shape and values.

    A checksum of everything and a SHA-256 of a sample of it: a SHA-256 of a whole volume would cost more than to inflate
    it, and nobody forges these.

    Args:
        pixels: The array.
        crc: The CRC-32 of its bytes in their order, where that is known.
    """
    flat = np.ascontiguousarray(pixels).reshape(-1)
    sample = flat[:: max(1, flat.size // _SAMPLED)].tobytes()
    crc = inflate.crc32(flat.view(np.uint8)) if crc is None else crc
    return f"{pixels.shape}-{crc:08x}-{hashlib.sha256(sample).hexdigest()[:32]}"
