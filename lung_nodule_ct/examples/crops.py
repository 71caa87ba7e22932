"""The kind ``crop``: nodule crops with their pathology class (``cls_1.25mm``).

The classification archive has one folder per split and class, and a READ_ME with the counts.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lung_nodule_ct.declaration.archives import Role
from lung_nodule_ct.declaration.findings import Code, Finding
from lung_nodule_ct.declaration.identity import parse_image_name
from lung_nodule_ct.declaration.labels import PATHOLOGY, PATHOLOGY_NAMES, TEST, TRAIN, VALIDATION
from lung_nodule_ct.declaration.names import name_key
from lung_nodule_ct.declaration.published import CountedExample
from lung_nodule_ct.declaration.rows import CropRow
from lung_nodule_ct.errors import Place
from lung_nodule_ct.examples.family import (
    Example,
    Family,
    ImageUnit,
    Planned,
    Reading,
    empty_archive,
    leave_out_unused,
    number_images,
    number_scans,
    parse_member,
    unique_images,
)
from lung_nodule_ct.examples.uses import PlanReport
from lung_nodule_ct.formats.pictures import SUFFIXES, read_published
from lung_nodule_ct.formats.text import lines_of
from lung_nodule_ct.sources.source import ArchivePool

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lung_nodule_ct.declaration.configs import Config
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
_MAX_COUNT = 100_000
"""A larger number is not a count of images, but perhaps a date."""
_COUNT = re.compile(r"\s*(?:class\s*)?([1-6])\b\D*?(\d{1,3}(?:[,.'’]\d{3})+|\d{1,9})\s*$", re.IGNORECASE)  # noqa: RUF001
_LIST_SEPARATOR = re.compile(r"[;；]|[,，、](?=\s*\d)")  # noqa: RUF001
_CLASS_NAME = re.compile(r"\W*(?:class |folder )?([1-6])\W+([a-z][a-z, ]+?)\W*")


@dataclass(frozen=True, slots=True, kw_only=True)
class CropUnit(ImageUnit):
    """One crop.

    Attributes:
        label: Index of its pathology class.
    """

    label: int

    @property
    def members(self) -> tuple[Member, ...]:
        """The image."""
        return (self.image,)

    def counted(self) -> CountedExample:
        """Its split and class."""
        return CountedExample(self.split, self.patient_id, label=self.label)


def plan_crops(config: Config, source: Source) -> Planned[CropUnit]:
    """Plan one unit per image in ``train/1`` … ``validate/6``."""
    del config  # one archive, one layout
    report = PlanReport()
    units: list[CropUnit] = []
    for archive in source.archives(Role.CLASSIFICATION):
        crops, other = list_crops(archive)
        if not crops:
            report.extend([empty_archive(archive, "images in train/1 … validate/6")])
        readme = next(filter(_is_readme, other), None)
        if readme is not None:
            report.extend(_compare_readme(readme, crops))
            report.ignores(readme)
        leave_out_unused(archive, [member for member in other if member is not readme], report)
        units += crops
    numbering = number_scans(source)
    report.extend(numbering.findings)
    units = number_images(unique_images(units, report), numbering.numbers)
    return Planned(units, report.findings, report.uses)


def list_crops(archive: Archive) -> tuple[list[CropUnit], list[Member]]:
    """The crops of an archive, without ids, and its other members."""
    crops, other = [], []
    for member in archive.members:
        parts = member.name.split("/")
        split = _SPLITS.get(name_key(parts[-3])) if len(parts) >= 3 else None
        label = _LABELS.get(name_key(parts[-2])) if len(parts) >= 3 else None
        if split is None or label is None or member.suffix not in SUFFIXES:
            other.append(member)
            continue
        name = parse_image_name(member.stem)
        crops.append(
            CropUnit(
                split=split,
                source_name=f"{parts[-3]}/{parts[-2]}/{member.stem}",
                patient_id=name.patient,
                fold=name.fold,
                image=member,
                label=label,
            )
        )
    return crops, other


def make_crop(unit: CropUnit, reading: Reading) -> list[Example]:
    """Make the example of a crop: the image as :func:`~.pictures.read_published` returns it, and its class."""
    picture = read_published(unit.image, reading.archives, keep_metadata=reading.keep_metadata)
    row = CropRow(
        image=picture.data,
        label=unit.label,
        malignant=PATHOLOGY[unit.label].malignant,
        image_id=unit.image_id,
        patient_id=unit.patient_id,
        scan_id=unit.scan_id,
        fold=unit.fold,
        source_name=unit.source_name,
    )
    return [Example(row, picture.key, picture.findings)]


CROPS: Final = Family(plan_crops, make_crop)


def _is_readme(member: Member) -> bool:
    return member.suffix in (".txt", ".md") and "read" in name_key(member.stem)


def _compare_readme(readme: Member, crops: Sequence[CropUnit]) -> list[Finding]:
    """Compare the names and counts of the READ_ME with the classes and the folders."""
    with ArchivePool() as archives:
        _, lines = parse_member(readme, archives, lines_of)
    return [*_compare_names(readme, lines), *_compare_counts(readme, lines, crops)]


def _compare_names(readme: Member, lines: Sequence[str]) -> Iterator[Finding]:
    """Compare the names of the classes. Names other than those of the six classes are not compared."""
    for number, line in enumerate(lines, 1):
        for part in _LIST_SEPARATOR.split(line):
            named = _CLASS_NAME.fullmatch(" ".join(part.lower().split()))
            if named is None:
                continue
            name, expected = named[2].replace(",", ""), PATHOLOGY[_LABELS[named[1]]].name
            if name in PATHOLOGY_NAMES and name != expected:
                place = Place(readme.archive, readme.name, f"line {number}")
                detail = f"expected class {named[1]} to be {expected}, got {name}"
                yield Finding(Code.CLASS_NAME_MISMATCH, "the classes of the paper are used", place, detail)


def _compare_counts(readme: Member, lines: Sequence[str], crops: Sequence[CropUnit]) -> list[Finding]:
    """Compare the counts of the READ_ME with the folders."""
    counts = Counter((crop.split, crop.label) for crop in crops)
    findings, split, compared = [], None, 0
    for number, line in enumerate(lines, 1):
        word = re.match(r"\W*([A-Za-z]+)", line)
        split = _SPLITS.get(word[1].lower(), split) if word else split
        count = _COUNT.match(line)
        if split is None or count is None:
            continue
        if split == TEST and not any(crop.split == TEST for crop in crops):
            split = VALIDATION  # the READ_ME may name the folder "validate" like this
        label, published = _LABELS[count[1]], int(re.sub(r"\D", "", count[2]))
        if published > _MAX_COUNT:
            continue
        compared += 1
        if published != counts[split, label]:
            place = Place(readme.archive, readme.name, f"line {number}: {line.strip()}")
            detail = f"expected {published:,} images in {split}, class {count[1]}, got {counts[split, label]:,}"
            findings.append(Finding(Code.COUNT_MISMATCH, "the images are used as they are", place, detail))
    if not compared:
        findings.append(Finding(Code.CROSS_CHECK_IMPOSSIBLE, "the counts are not checked", readme.place))
    return findings
