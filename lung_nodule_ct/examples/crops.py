"""The classification archive: one folder a split and class, and a READ_ME with counts.

``cls_1.25mm``: one crop with its class.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from lung_nodule_ct.declaration.archives import Role
from lung_nodule_ct.declaration.findings import Code, Finding
from lung_nodule_ct.declaration.identity import image_id, parse_image_name
from lung_nodule_ct.declaration.labels import PATHOLOGY, TEST, TRAIN, VALIDATION
from lung_nodule_ct.examples.family import CropUnit, Example, pixels_key
from lung_nodule_ct.examples.plan_findings import unique_images, unused_members
from lung_nodule_ct.formats.pictures import SUFFIXES, read_published
from lung_nodule_ct.formats.tables import MAX_TABLE_BYTES
from lung_nodule_ct.formats.text import lines_of
from lung_nodule_ct.sources.source import ArchivePool
from lung_nodule_ct.sources.zip_member import read_member

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lung_nodule_ct.sources.source import Source
    from lung_nodule_ct.sources.zip_directory import Archive, Member


_SPLITS = {
    "train": TRAIN,
    "validate": VALIDATION,
    "validation": VALIDATION,
    "val": VALIDATION,
    "valid": VALIDATION,
    "test": TEST,
}
_LABELS = {str(entry.folder): entry.index for entry in PATHOLOGY}
_COUNT = re.compile(r"\s*(?:class\s*)?([1-6])\b\D*?(\d{1,9})\s*$", re.IGNORECASE)


def plan_crops(source: Source) -> tuple[list[CropUnit], list[Finding]]:
    """The units of ``cls_1.25mm``."""
    units: list[CropUnit] = []
    findings: list[Finding] = []
    for archive in source.archives(Role.CLASSIFICATION):
        own, other = list_crops(archive)
        if not own:
            findings.append(
                Finding(
                    Code.ARCHIVE_EMPTY,
                    "nothing is taken from it",
                    archive.name,
                    detail="no images in train/1 … validate/6",
                )
            )
        readme = next(
            (member for member in other if member.suffix in (".txt", ".md") and "read" in member.stem.lower()), None
        )
        if readme is not None:
            findings += _check_counts(archive, readme, own)
        findings += unused_members(archive, [member.name for member in other if member is not readme])
        units += own
    return unique_images(units, findings), findings


def list_crops(archive: Archive) -> tuple[list[CropUnit], list[Member]]:
    """The crops of the archive, and the members that are none."""
    crops, other = [], []
    for member in archive.members:
        parts = member.name.split("/")
        split = _SPLITS.get(parts[-3].lower()) if len(parts) >= 3 else None
        label = _LABELS.get(parts[-2]) if len(parts) >= 3 else None
        if split is None or label is None or member.suffix not in SUFFIXES:
            other.append(member)
            continue
        name = parse_image_name(member.stem)
        crops.append(
            CropUnit(
                split=split,
                source_name=f"{parts[-3]}/{parts[-2]}/{member.stem}",
                patient_id=name.patient,
                scan_id=name.scan_id,
                fold=name.fold,
                image=member,
                label=label,
            )
        )
    return crops, other


def _check_counts(archive: Archive, readme: Member, crops: Sequence[CropUnit]) -> list[Finding]:
    """Hold the counts of the READ_ME against the folders."""
    with ArchivePool() as archives:
        lines = lines_of(read_member(readme, archives, limit=MAX_TABLE_BYTES))
    own = Counter((crop.split, crop.label) for crop in crops)
    findings, split, read = [], None, 0
    for number, line in enumerate(lines, 1):
        named = re.match(r"\W*([A-Za-z]+)", line)
        split = _SPLITS.get(named[1].lower(), split) if named else split
        count = _COUNT.match(line)
        if split is None or count is None:
            continue
        if split == TEST and not any(crop.split == TEST for crop in crops):
            split = VALIDATION  # the READ_ME may call the folder "validate" so
        read += 1
        label = _LABELS[count[1]]
        if int(count[2]) != own[split, label]:
            findings.append(
                Finding(
                    Code.COUNT_MISMATCH,
                    "the images are used as they are",
                    archive.name,
                    readme.name,
                    f"line {number}: {line.strip()}",
                    f"expected {int(count[2]):,} images in {split}, class {count[1]}, got {own[split, label]:,}",
                )
            )
    if not read:
        findings.append(Finding(Code.CROSS_CHECK_IMPOSSIBLE, "the counts are not checked", archive.name, readme.name))
    return findings


def build_crop(unit: CropUnit, archives: ArchivePool, *, keep_metadata: bool) -> Example:
    """The crop, as :func:`~lung_nodule_ct.formats.pictures.read_published` gives it, and its class.

    Args:
        unit: What to read.
        archives: The open archives.
        keep_metadata: Whether metadata of the picture stay although they spell a calendar date.

    Raises:
        MemberError: The image is damaged.
    """
    data, pixels, findings = read_published(unit.image, archives, keep_metadata=keep_metadata)
    row = {
        "image": data,
        "label": unit.label,
        "malignant": PATHOLOGY[unit.label].malignant,
        "image_id": image_id(unit.source_name),
        "patient_id": unit.patient_id,
        "scan_id": unit.scan_id,
        "fold": unit.fold,
        "source_name": unit.source_name,
    }
    return Example(row, pixels_key(pixels), tuple(findings))
