"""What every kind of config is made of: units of work, examples, and the family that plans and makes them.

A :class:`Family` holds the two steps of one kind: ``plan`` turns a config and its archives into units, reading directories and tables
only; ``make`` turns one unit into examples. A unit is small, picklable and complete: a worker process needs a unit, its family and the
archives, but not the plan. The same unit always gives the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from lung_nodule_ct.system import inflate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lung_nodule_ct.declaration.configs import Config
    from lung_nodule_ct.declaration.findings import Finding
    from lung_nodule_ct.sources.source import ArchivePool, Source
    from lung_nodule_ct.sources.zip_directory import Member
    from lung_nodule_ct.system.memory import BufferPool

_SAMPLE_SIZE = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One unit of work. Most kinds make one example from it; ``num_examples`` is ``None`` if only reading it shows how many.

    Attributes:
        split: The split of its examples.
        source_name: Its name in the archives. A thin and a thick scan of one day share it.
        patient_id: The patient, ``None`` if the name contains none.
        scan_id: The key of the scan, ``None`` without a patient.
        fold: The fold of the patient, ``None`` without a patient.
    """

    split: str
    source_name: str
    patient_id: str | None = None
    scan_id: str | None = None
    fold: int | None = None

    @property
    def members(self) -> tuple[Member, ...]:
        """The members that are certainly read; their sizes are the cost of the unit."""
        raise NotImplementedError

    @property
    def num_examples(self) -> int | None:
        """Number of examples that it makes."""
        return 1

    @property
    def packed_bytes(self) -> int:
        """Size of the members as compressed in the archives, which is close to their size in Parquet."""
        return sum(member.packed for member in self.members)


@dataclass(frozen=True, slots=True)
class Example:
    """One example.

    Attributes:
        row: Its values by column name, ``source_name`` included. Voxels are arrays (z, y, x), pictures their encoded bytes.
        pixels_key: Equal for equal pixels or voxels, however they were encoded.
        findings: What was wrong with the data that were read for it.
    """

    row: Mapping[str, object]
    pixels_key: str
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """What a family needs to read a unit.

    Attributes:
        archives: The open archives.
        buffers: Memory for voxels. With a plain ``BufferPool`` they are valid until the next unit is made.
        keep_metadata: Keep the metadata of pictures although they contain a calendar date.
    """

    archives: ArchivePool
    buffers: BufferPool
    keep_metadata: bool = False


UnitT = TypeVar("UnitT", bound=Unit)


@dataclass(frozen=True, slots=True)
class Family(Generic[UnitT]):
    """How the examples of one kind of config are planned and made. Both functions must be importable by worker processes.

    Attributes:
        plan: ``plan(config, source)`` returns the units in the order in which they are written, and what was wrong with the archives.
            It raises ``ArchiveNotFoundError`` if an archive that the config reads is missing, and ``MemberError`` for a damaged table.
        make: ``make(unit, reading)`` returns the examples of a unit. It raises ``MemberError`` for a damaged member.
    """

    plan: Callable[[Config, Source], tuple[Sequence[UnitT], Sequence[Finding]]]
    make: Callable[[UnitT, Reading], Sequence[Example]]


def pixels_key(pixels: NDArray[Any], crc: int | None = None) -> str:
    """Return a key that is equal for arrays of equal shape and values.

    It joins a CRC-32 of all values and a SHA-256 of a sample of them. A SHA-256 of a complete volume would take longer than
    inflating it, and nobody has a reason to forge these keys.

    Args:
        pixels: The array.
        crc: The CRC-32 of its bytes in C order, if that is known.
    """
    flat = np.ascontiguousarray(pixels).reshape(-1)
    sample = flat[:: max(1, flat.size // _SAMPLE_SIZE)].tobytes()
    crc = inflate.crc32(flat.view(np.uint8)) if crc is None else crc
    return f"{pixels.shape}-{crc:08x}-{hashlib.sha256(sample).hexdigest()[:32]}"
