"""The kind ``stack``: stacks of 8-bit slices with nodule boxes in voxels (``det3d_bmp_1.25mm``).

The archives hold one folder of numbered slices per case, a table of boxes, tables of boxes per split, and split lists of case numbers.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

import numpy as np

from lung_nodule_ct.declaration.archives import Role
from lung_nodule_ct.declaration.findings import Code, FindingCollector
from lung_nodule_ct.declaration.identity import is_published_number, natural_key, quoted
from lung_nodule_ct.declaration.labels import UNASSIGNED
from lung_nodule_ct.declaration.names import NameIndex, name_key
from lung_nodule_ct.declaration.rows import StackNoduleRecord, StackRow
from lung_nodule_ct.errors import Place
from lung_nodule_ct.examples.family import (
    Example,
    Family,
    Planned,
    Reading,
    Unit,
    empty_archive,
    leave_out_unused,
    shortened,
)
from lung_nodule_ct.examples.stack_tables import read_stack_tables
from lung_nodule_ct.examples.uses import PlanReport
from lung_nodule_ct.formats.pictures import SUFFIXES, as_grey, pixels_key, read_picture
from lung_nodule_ct.geometry.boxes import clip_box, slice_range

if TYPE_CHECKING:
    from lung_nodule_ct.declaration.configs import Config
    from lung_nodule_ct.geometry.frame import GreyVolume
    from lung_nodule_ct.sources.source import Source
    from lung_nodule_ct.sources.zip_directory import Archive, Member

_SLICE_NUMBER = re.compile(r"(?<!\d)(\d{1,5})$")
_NO_SLICE_NUMBER = re.compile(r"-\d+|\d+\.\d+")
_BRACKETED_NUMBER = re.compile(r"[(\[{【]\s*(\d{1,5})\s*[)\]}】]$")


@dataclass(frozen=True, slots=True)
class StackBox:
    """One annotated box of a stack.

    Attributes:
        low: First voxel of the box, x, y and slice number, as published.
        high: Last voxel of the box, inclusive, likewise.
        diameter: As published, ``None`` if it is missing.
        place: The row of its table.
    """

    low: tuple[int, int, int]
    high: tuple[int, int, int]
    diameter: float | None
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class StackUnit(Unit):
    """One stack of slices.

    Attributes:
        case_id: Its number as published; of a case whose folder has another name, its rank in natural order, as ``case-3``.
        slices: Number and member of each slice, in numeric order, which is z order.
        boxes: In the order of their table.
        augmented: Whether the archive marks it as a flipped or rotated copy; ``None`` if it does not say.
    """

    case_id: str
    slices: tuple[tuple[int, Member], ...]
    boxes: tuple[StackBox, ...]
    augmented: bool | None

    @property
    def members(self) -> tuple[Member, ...]:
        """The slices."""
        return tuple(member for _, member in self.slices)

    @property
    def rows(self) -> tuple[Place, ...]:
        """The rows of its boxes."""
        return tuple(box.place for box in self.boxes)


CaseSlices = Mapping[str, Sequence[tuple[int, "Member"]]]
"""Number and member of the slices of every case."""


def plan_stacks(config: Config, source: Source) -> Planned[StackUnit]:
    """Plan one unit per case."""
    del config  # one set of archives, one layout
    report = PlanReport()
    cases = _cases(source.archives(Role.BMP_SLICES), report)
    tables = read_stack_tables(source.archives(Role.BMP_TABLES), NameIndex(cases), report)
    boxes: defaultdict[str, list[StackBox]] = defaultdict(list)
    augmented: defaultdict[str, set[bool]] = defaultdict(set)
    seen: Counter[tuple[object, ...]] = Counter()
    for case, place, row in tables.boxes:
        seen[key := (case, row.low, row.high, row.diameter)] += 1
        if seen[key] > 1:
            report.add(Code.DUPLICATE_ANNOTATION, "kept", place)
        if row.is_diameter_unreadable:
            report.add(Code.DIAMETER_UNREADABLE, "diameter is null", place)
        if row.diameter is not None and row.diameter <= 0:
            report.add(Code.DIAMETER_NOT_POSITIVE, "kept", place, f"got {row.diameter:g}")
        boxes[case].append(StackBox(row.low, row.high, row.diameter, place))
        if row.augmented is not None:
            augmented[case].add(row.augmented)
    unlisted = sorted(set(cases) - set(tables.splits))
    if unlisted:
        place = Place(cases[unlisted[0]][0][1].archive, shortened(unlisted))
        report.add(Code.NOT_LISTED, f"they go to the split {UNASSIGNED!r}", place, count=len(unlisted))
    ranks = {case: rank for rank, case in enumerate(sorted(cases, key=natural_key), 1)}
    units = []
    for case, slices in cases.items():
        number = name_key(case)
        if not is_published_number(number):
            report.add(Code.NO_PATIENT, f"case_id is case-{ranks[case]}", _folder(slices))
        if case not in boxes:
            report.add(Code.IMAGE_WITHOUT_ANNOTATION, "kept, with no nodules", _folder(slices))
        units.append(
            StackUnit(
                split=tables.splits.get(case, UNASSIGNED),
                source_name=case,
                case_id=number if is_published_number(number) else f"case-{ranks[case]}",
                slices=tuple(slices),
                boxes=tuple(boxes[case]),
                augmented=next(iter(augmented[case])) if len(augmented[case]) == 1 else None,
            )
        )
    return Planned(units, report.findings, report.uses)


def make_stack(unit: StackUnit, reading: Reading) -> list[Example]:
    """Make the example of a stack: the slices as one volume, in the order of their numbers, and the boxes.

    Raises:
        MemberError: A slice is damaged, is not a grey picture, or has another size than the first slice.
    """
    report = FindingCollector()
    volume = _read_volume([member for _, member in unit.slices], reading, report)
    numbers = [number for number, _ in unit.slices]
    row = StackRow(
        case_id=unit.case_id,
        volume=volume,
        nodules=[nodule for box in unit.boxes if (nodule := _nodule(box, numbers, volume.shape, report))],
        augmented=unit.augmented,
        fold=unit.fold,
        source_name=unit.source_name,
    )
    return [Example(row, pixels_key(volume), report.findings)]


STACKS: Final = Family(plan_stacks, make_stack)


def _folder(slices: Sequence[tuple[int, Member]]) -> Place:
    first = slices[0][1]
    return Place(first.archive, f"{first.folder}/")


def _cases(archives: Sequence[Archive], report: PlanReport) -> CaseSlices:
    """The slices of every case in numeric order. A case may extend over several archives."""
    folders: dict[str, str] = {}  # the first spelling of the name of each case
    numbered: defaultdict[str, dict[int, Member]] = defaultdict(dict)
    for archive in archives:
        pictures: defaultdict[str, list[Member]] = defaultdict(list)
        parents: dict[str, str] = {}  # the folder of each case in this archive
        unused: list[Member] = []
        for member in archive.members:
            parent, folder = _case_folder(member.folder)
            if member.suffix not in SUFFIXES or not folder:
                unused.append(member)
            elif (usual := parents.setdefault(name_key(folder), parent)) != parent:
                detail = f"another folder of the same case is {quoted(f'{usual}/')}"
                report.add(Code.DUPLICATE_ID, "left out, the first folder is used", member.place, detail)
                report.reports(member)
            else:
                pictures[folders.setdefault(name_key(folder), folder)].append(member)
        count = 0
        for case, members in pictures.items():
            slices, other = _slice_numbers(members)
            unused += other
            count += len(slices)
            for number, member in slices:
                kept = numbered[case].setdefault(number, member)
                if kept is not member:
                    detail = f"the same case and slice as {quoted(kept.name)} of {kept.archive}"
                    report.add(Code.DUPLICATE_ID, "left out, the first is used", member.place, detail)
                    report.reports(member)
        if not count:
            report.extend([empty_archive(archive, "imgs/<case>/<slice>.bmp")])
        leave_out_unused(archive, unused, report)
    cases = {case: sorted(slices.items()) for case, slices in numbered.items()}
    for slices in cases.values():
        first, last = slices[0][0], slices[-1][0]
        if last - first + 1 != len(slices):
            present = {number for number, _ in slices}
            absent = islice((number for number in range(first, last + 1) if number not in present), len(slices))
            detail = f"expected slices {first} to {last}, got none of number {shortened(list(map(str, absent)))}"
            count = last - first + 1 - len(slices)
            report.add(Code.SLICE_GAP, "the available slices are stacked", _folder(slices), detail, count)
    return cases


def _case_folder(folder: str) -> tuple[str, str]:
    """The path of the folder of a case, and its name: the last folder that is a number, otherwise the last one."""
    parts = folder.split("/")
    numbers = [index for index, part in enumerate(parts) if is_published_number(name_key(part))]
    last = numbers[-1] if numbers else len(parts) - 1
    return "/".join(parts[: last + 1]), parts[last]


def _slice_numbers(members: Sequence[Member]) -> tuple[list[tuple[int, Member]], list[Member]]:
    """The numbers of the pictures of a case, and the pictures without one.

    A number in brackets, as in ``img (3)``, counts only if no picture of the case ends with a plain number: ``3 (1)`` next to ``3`` is a
    copy of slice 3.
    """
    keys = [(key, member) for member in members if not _NO_SLICE_NUMBER.fullmatch(key := name_key(member.stem))]
    plain = [(int(number[1]), member) for key, member in keys if (number := _SLICE_NUMBER.search(key))]
    numbered = plain or [(int(number[1]), member) for key, member in keys if (number := _BRACKETED_NUMBER.search(key))]
    used = {member for _, member in numbered}
    return numbered, [member for member in members if member not in used]


def _read_volume(members: Sequence[Member], reading: Reading, report: FindingCollector) -> GreyVolume:
    volume: GreyVolume | None = None
    for index, member in enumerate(members):
        _, picture, findings = read_picture(member, reading.archives)
        report.extend(findings)
        try:
            grey = as_grey(picture.pixels)
        except ValueError as error:
            raise member.error("is not a slice", expected="8-bit grey values", got=error) from error
        if volume is None:
            volume = reading.buffers.take("volume", (len(members), *grey.shape), np.uint8)
        if grey.shape != volume.shape[1:]:
            raise member.error(
                "has another size than the first slice of its case",
                expected=f"{volume.shape[2]} x {volume.shape[1]} pixels",
                got=f"{grey.shape[1]} x {grey.shape[0]}",
                remedy="if the archive is intact, report this case",
            )
        volume[index] = grey
    assert volume is not None, "a case has at least one slice"  # noqa: S101 -- the plan makes a case from its slices
    return volume


def _nodule(
    box: StackBox, numbers: Sequence[int], shape: tuple[int, ...], report: FindingCollector
) -> StackNoduleRecord | None:
    """One box, converted from inclusive slice and pixel numbers to half-open voxel indices."""
    if any(high < low for low, high in zip(box.low, box.high, strict=True)):
        report.add(Code.BOX_INVERTED, "left out", box.place, "expected min <= max on each axis")
        return None
    low_z, high_z = slice_range(box.low[2], box.high[2], numbers)
    unclipped = (box.low[0], box.low[1], low_z, box.high[0] + 1, box.high[1] + 1, high_z)
    clipped = clip_box(unclipped, shape)
    size = f"the volume has {' x '.join(map(str, shape[::-1]))} voxels"
    if clipped is None:
        report.add(Code.NODULE_OUTSIDE_VOLUME, "its centre is kept, its box is null", box.place, size)
    elif clipped != unclipped:
        report.add(Code.BOX_PARTLY_OUTSIDE, "clipped to the volume", box.place, size)
    center = [(low + high - 1) / 2 for low, high in zip(unclipped[:3], unclipped[3:], strict=True)]
    return StackNoduleRecord(box_voxel=clipped, center_voxel=center, diameter=box.diameter)
