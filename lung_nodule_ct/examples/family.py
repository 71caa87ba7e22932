"""What every kind of config is made of: units of work, examples, and the family that plans and makes them.

A :class:`Family` holds the two steps of one kind: ``plan`` turns a config and its archives into units, reading directories and tables
only; ``make`` turns one unit into examples. A unit is small, picklable and complete: a worker process needs a unit, its family and the
archives, but not the plan. The same unit always gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from lung_nodule_ct.declaration.configs import Config
    from lung_nodule_ct.declaration.findings import Finding
    from lung_nodule_ct.sources.source import ArchivePool, Source
    from lung_nodule_ct.sources.zip_directory import Member
    from lung_nodule_ct.system.memory import BufferPool


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
