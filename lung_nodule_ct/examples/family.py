"""What every example function returns, and the key by which equal pixels are told.

The units of work: each is one example to be, small, picklable, and complete. Workers need a unit and the archives, no plan.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lung_nodule_ct.system import inflate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lung_nodule_ct.declaration.findings import Finding
    from lung_nodule_ct.sources.zip_directory import Member


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


Box2D = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """What every unit says.

    Attributes:
        split: The split of the example.
        source_name: Its name in the archives; two scans of one day, thin and thick, share it.
        patient_id: The patient, ``None`` where the name tells none.
        scan_id: The scan's key, ``None`` without a patient.
        fold: The patient's fold, ``None`` without a patient.
    """

    split: str
    source_name: str
    patient_id: str | None = None
    scan_id: str | None = None
    fold: int | None = None

    @property
    def members(self) -> tuple[Member, ...]:
        """The members that it is sure to read; their sizes are what it costs."""
        raise NotImplementedError

    @property
    def packed_bytes(self) -> int:
        """Size of what it reads, as packed in the archives: close to what it takes in Parquet."""
        return sum(member.packed for member in self.members)


@dataclass(frozen=True, slots=True, kw_only=True)
class CropUnit(Unit):
    """A crop with its class (``cls_1.25mm``)."""

    image: Member
    label: int

    @property
    def members(self) -> tuple[Member, ...]:
        """The image."""
        return (self.image,)


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceUnit(Unit):
    """A slice with its annotation (``det2d_1.25mm``).

    Attributes:
        image: The encoded image.
        annotation: Its XML, ``None`` where it has none.
        cross_checks: The same boxes as other tables tell them: (table, where in it, boxes).
    """

    image: Member
    annotation: Member | None
    cross_checks: tuple[tuple[str, str, tuple[Box2D, ...]], ...] = ()

    @property
    def members(self) -> tuple[Member, ...]:
        """The image and its XML."""
        return (self.image, self.annotation) if self.annotation else (self.image,)


@dataclass(frozen=True, slots=True)
class Nodule:
    """One annotated nodule of a scan.

    Attributes:
        center_world: x, y, z in LPS mm.
        diameter_mm: As published.
        table: Archive and member of the row.
        row: The row, for findings.
    """

    center_world: tuple[float, float, float]
    diameter_mm: float
    table: tuple[str, str]
    row: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanUnit(Unit):
    """A CT volume (``det3d_*``, ``longitudinal``).

    Attributes:
        header: Its ``.mhd`` or ``.mha``.
        data: Members that are likely to hold its elements.
        mask: The header of its lung mask, ``None`` where there is none.
        mask_data: Members that are likely to hold the mask's elements.
        slice_thickness_mm: The set it belongs to.
        timepoint: Rank of its date, ``None`` where that cannot be known.
        num_timepoints: Distinct dates of its patient.
        days_since_first: ``None`` without a date.
        nodules: In the order of their table.
        pathology: Class index, where the archives leave no doubt.
    """

    header: Member
    data: tuple[Member, ...]
    mask: Member | None
    mask_data: tuple[Member, ...]
    slice_thickness_mm: float
    timepoint: int | None
    num_timepoints: int | None
    days_since_first: int | None
    nodules: tuple[Nodule, ...]
    pathology: int | None

    @property
    def members(self) -> tuple[Member, ...]:
        """Header and data of volume and mask."""
        heads = (self.header, self.mask) if self.mask else (self.header,)
        return (*heads, *self.data, *self.mask_data)


@dataclass(frozen=True, slots=True)
class StackBox:
    """One annotated box of a slice stack: inclusive ends as published, x, y, z; z is a slice number."""

    low: tuple[int, int, int]
    high: tuple[int, int, int]
    diameter: float | None
    table: tuple[str, str]
    row: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StackUnit(Unit):
    """A stack of slices (``det3d_bmp_1.25mm``).

    Attributes:
        slices: Number and member of each, in numeric order, which is z order.
        boxes: In the order of their table.
        augmented: Whether the archive says that it is a flipped or rotated copy; ``None`` where it says nothing.
    """

    slices: tuple[tuple[int, Member], ...]
    boxes: tuple[StackBox, ...]
    augmented: bool | None

    @property
    def members(self) -> tuple[Member, ...]:
        """The slices."""
        return tuple(member for _, member in self.slices)
