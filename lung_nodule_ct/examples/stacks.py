"""``det3d_bmp_1.25mm``: one stack of 8-bit slices with its boxes."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Any

import numpy as np

from lung_nodule_ct.declaration.findings import Code, Finding
from lung_nodule_ct.declaration.identity import image_id
from lung_nodule_ct.examples.example import Example, pixels_key
from lung_nodule_ct.formats.pictures import as_grey, read_picture
from lung_nodule_ct.geometry.boxes import clip_box

if TYPE_CHECKING:
    from lung_nodule_ct.geometry.types import GreyVolume
    from lung_nodule_ct.plan.units import StackBox, StackUnit
    from lung_nodule_ct.sources.source import Opened
    from lung_nodule_ct.sources.zip_directory import Member
    from lung_nodule_ct.system.memory import Scratch


def build_stack(unit: StackUnit, opened: Opened, scratch: Scratch) -> Example:
    """The slices as one volume, in the order of their numbers, and the boxes.

    Raises:
        MemberError: A slice is damaged, no grey picture, or of another size than the first.
    """
    volume = _read_volume([member for _, member in unit.slices], opened, scratch)
    numbers = [number for number, _ in unit.slices]
    findings: list[Finding] = []
    row = {
        "case_id": image_id(unit.source_name),
        "volume": volume,
        "nodules": [nodule for box in unit.boxes if (nodule := _nodule(box, numbers, volume.shape, findings))],
        "augmented": unit.augmented,
        "fold": unit.fold,
        "source_name": unit.source_name,
    }
    return Example(row, pixels_key(volume), tuple(findings))


def _read_volume(members: list[Member], opened: Opened, scratch: Scratch) -> GreyVolume:
    volume: GreyVolume | None = None
    for index, member in enumerate(members):
        _, pixels = read_picture(member, opened)
        try:
            grey = as_grey(pixels)
        except ValueError as error:
            raise member.error("is no slice", expected="8-bit grey values", got=error) from error
        if volume is None:
            volume = scratch.take("volume", (len(members), *grey.shape), np.uint8)
        if grey.shape != volume.shape[1:]:
            raise member.error(
                "has another size than the first slice of its case",
                expected=f"{volume.shape[2]} x {volume.shape[1]} pixels",
                got=f"{grey.shape[1]} x {grey.shape[0]}",
                remedy="if it is whole, report this case",
            )
        volume[index] = grey
    assert volume is not None, "a case has at least one slice"  # noqa: S101 -- the plan makes a case from its slices
    return volume


def _nodule(
    box: StackBox, numbers: list[int], shape: tuple[int, ...], findings: list[Finding]
) -> dict[str, Any] | None:
    """One box, from inclusive slice and pixel numbers to half-open voxel indices."""
    where = (*box.table, box.row)
    if any(high < low for low, high in zip(box.low, box.high, strict=True)):
        findings.append(Finding(Code.BOX_INVERTED, "left out", *where, "expected min <= max on each axis"))
        return None
    low_z, high_z = _index_range(box.low[2], box.high[2], numbers)
    whole = (box.low[0], box.low[1], low_z, box.high[0] + 1, box.high[1] + 1, high_z)
    clipped = clip_box(whole, shape)
    size = f"the volume has {' x '.join(map(str, shape[::-1]))} voxels"
    if clipped is None:
        findings.append(Finding(Code.NODULE_OUTSIDE_VOLUME, "its centre is kept, its box is null", *where, size))
    elif clipped != whole:
        findings.append(Finding(Code.BOX_PARTLY_OUTSIDE, "clipped to the volume", *where, size))
    center = [(low + high - 1) / 2 for low, high in zip(whole[:3], whole[3:], strict=True)]
    return {"box_voxel": clipped, "center_voxel": center, "diameter": box.diameter}


def _index_range(low: int, high: int, numbers: list[int]) -> tuple[int, int]:
    """Slice numbers low to high, inclusive, as half-open places in the stack; outside of it one number is one place."""
    first, last = numbers[0], numbers[-1]
    start = low - first if low < first else bisect_left(numbers, low) + max(0, low - last - 1)
    stop = high - first + 1 if high < first else bisect_right(numbers, high) + max(0, high - last)
    return start, stop
