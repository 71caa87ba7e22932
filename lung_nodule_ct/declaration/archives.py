"""The two releases on Zenodo and their archives: a name pattern and a role for each.

Names differ between the preprint and the published version (digits with and without an underscore), and a browser may add " (1)".
Therefore archives are recognised by patterns.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Role(StrEnum):
    """The purpose of an archive."""

    CLASSIFICATION = "classification"
    DETECTION_2D = "detection_2d"
    CT_1_25MM = "ct_1.25mm"
    LUNG_MASKS = "lung_masks_1.25mm"
    NODULES_1_25MM = "nodules_1.25mm"
    CT_5MM = "ct_5mm"
    NODULES_5MM = "nodules_5mm"
    BMP_SLICES = "bmp_slices"
    BMP_TABLES = "bmp_tables"


NAMING_ROLES: Final = (Role.CLASSIFICATION, Role.DETECTION_2D, Role.CT_1_25MM, Role.LUNG_MASKS, Role.CT_5MM)
"""Roles of the archives whose names state patient and date. The numbers of scans come from their directories."""


@dataclass(frozen=True, slots=True)
class ArchiveSpec:
    """One archive of the dataset.

    Attributes:
        name: File name in the published release.
        role: Its purpose.
        part: The record that contains it, ``A`` or ``B``.
        stem_pattern: A regular expression for its stem in every release, case-insensitive.
        holds: Its content.
    """

    name: str
    role: Role
    part: str
    stem_pattern: str
    holds: str

    def __post_init__(self) -> None:
        if self.part not in ("A", "B"):
            raise ValueError(f"part: expected A or B for {self.name}, got {self.part!r}")
        if not self.matches(self.name):
            raise ValueError(f"stem_pattern: {self.stem_pattern!r} does not match {self.name}")

    def matches(self, file_name: str) -> bool:
        """Return whether a file name belongs to this archive."""
        return re.fullmatch(rf"{self.stem_pattern}(?:[ _]?\(\d+\))?\.zip", file_name, re.IGNORECASE) is not None


@dataclass(frozen=True, slots=True)
class Release:
    """One version of the dataset on Zenodo.

    Attributes:
        name: ``published`` or ``preprint``.
        part_a: Number of the Zenodo record with the classification, 2D and MHD archives.
        part_b: Number of the Zenodo record with the 3D BMP archives.
    """

    name: str
    part_a: int
    part_b: int

    def __post_init__(self) -> None:
        if self.part_a == self.part_b or min(self.part_a, self.part_b) < 1:
            raise ValueError(
                f"part_a, part_b: release {self.name} needs two records, got {self.part_a} and {self.part_b}"
            )

    def record(self, part: str) -> int:
        """Return the number of the record of part ``A`` or ``B``."""
        return {"A": self.part_a, "B": self.part_b}[part]

    def url(self, part: str) -> str:
        """Return the page of the record of a part."""
        return f"https://zenodo.org/records/{self.record(part)}"


# slices and stacks exist in one thickness only; the preprint prints "5mm" for 1.25 mm
_ONE_THICKNESS = r"(?:1\.25|5)mm"


def _mhd(thickness: str, number: int, role: Role, holds: str) -> ArchiveSpec:
    separator = "_" if thickness == "1.25mm" else ""
    return ArchiveSpec(
        name=f"{thickness}_3D_detection_mhd{separator}{number}.zip",
        role=role,
        part="A",
        stem_pattern=rf"{re.escape(thickness)}[ _-]3D[ _-]detection[ _-]mhd[ _-]?{number}",
        holds=holds,
    )


def _bmp(suffix: str, role: Role, holds: str) -> ArchiveSpec:
    word, number = suffix[:-1], suffix[-1]
    return ArchiveSpec(
        name=f"1.25mm_3D_detection_bmp{word}{number}.zip",
        role=role,
        part="B",
        stem_pattern=rf"{_ONE_THICKNESS}[ _-]3D[ _-]detection[ _-]bmp{word}[ _-]?{number}",
        holds=holds,
    )


ARCHIVES: Final = (
    ArchiveSpec(
        name="class_dataset.zip",
        role=Role.CLASSIFICATION,
        part="A",
        stem_pattern=r"class[ _-]dataset",
        holds="nodule crops as BMP, one folder per split and class",
    ),
    ArchiveSpec(
        name="1.25mm_2D_detection.zip",
        role=Role.DETECTION_2D,
        part="A",
        stem_pattern=rf"{_ONE_THICKNESS}[ _-]2D[ _-]detection",
        holds="slices with nodule boxes as Pascal VOC",
    ),
    _mhd("1.25mm", 0, Role.CT_1_25MM, "1.25 mm CT volumes, first half"),
    _mhd("1.25mm", 1, Role.CT_1_25MM, "1.25 mm CT volumes, second half"),
    _mhd("1.25mm", 2, Role.LUNG_MASKS, "lung segmentations of the 1.25 mm volumes"),
    _mhd("1.25mm", 3, Role.NODULES_1_25MM, "nodule centres and diameters of the 1.25 mm volumes"),
    _mhd("5mm", 0, Role.CT_5MM, "5 mm CT volumes, first third"),
    _mhd("5mm", 1, Role.CT_5MM, "5 mm CT volumes, second third"),
    _mhd("5mm", 2, Role.CT_5MM, "5 mm CT volumes, last third"),
    _mhd("5mm", 3, Role.NODULES_5MM, "nodule centres and diameters of the 5 mm volumes"),
    _bmp("_imgs0", Role.BMP_SLICES, "8-bit slices, one folder per case, first third"),
    _bmp("_imgs1", Role.BMP_SLICES, "8-bit slices, one folder per case, second third"),
    _bmp("_imgs2", Role.BMP_SLICES, "8-bit slices, one folder per case, last third"),
    _bmp("3", Role.BMP_TABLES, "nodule boxes and split lists of the 8-bit cases"),
)

RELEASES: Final = (
    Release("published", part_a=12582356, part_b=12576633),
    Release("preprint", part_a=8354947, part_b=8357533),
)
DEFAULT_RELEASE: Final = RELEASES[0]


def archives_of(*roles: Role) -> tuple[ArchiveSpec, ...]:
    """Return the archives of some roles, in published order."""
    return tuple(archive for archive in ARCHIVES if archive.role in roles)
