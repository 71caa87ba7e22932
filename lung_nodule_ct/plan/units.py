"""The units of work: each is one example to be, small, picklable, and complete. Workers need a unit and the archives, no plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lung_nodule_ct.sources.zip_directory import Member

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
        told_again: The same boxes as other tables tell them: (table, where in it, boxes).
    """

    image: Member
    annotation: Member | None
    told_again: tuple[tuple[str, str, tuple[Box2D, ...]], ...] = ()

    @property
    def members(self) -> tuple[Member, ...]:
        """The image and its XML."""
        return (self.image, self.annotation) if self.annotation else (self.image,)


@dataclass(frozen=True, slots=True)
class Sphere:
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
    nodules: tuple[Sphere, ...]
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
