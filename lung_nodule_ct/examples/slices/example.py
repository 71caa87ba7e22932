"""The example of a slice: the image as published, and the boxes of its XML file that can be used."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from lung_nodule_ct.declaration.findings import Code, Finding, FindingCollector
from lung_nodule_ct.declaration.identity import quoted
from lung_nodule_ct.declaration.names import bare_name, name_key
from lung_nodule_ct.declaration.rows import ObjectRecord, SliceRow
from lung_nodule_ct.errors import Place
from lung_nodule_ct.examples.family import Example, LeftOut, Reading
from lung_nodule_ct.formats.pictures import read_published
from lung_nodule_ct.formats.voc import MAX_XML_BYTES, VocAnnotation, parse_voc
from lung_nodule_ct.sources.zip_member import read_member

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lung_nodule_ct.examples.slices.plan import Box2D, SliceUnit
    from lung_nodule_ct.sources.zip_directory import Member


_LARGEST_SHARE = 0.5
"""Of the image. There is no least size: a slice near the end of a nodule shows a pixel or two of it."""


def make_slice(unit: SliceUnit, reading: Reading) -> list[Example | LeftOut]:
    """Make the example of a slice. An image whose XML file cannot be read is left out: it is unknown whether it has boxes.

    Raises:
        MemberError: The image or its XML file is damaged.
    """
    annotation = VocAnnotation("", None, None, ())
    if unit.annotation is not None:
        size = unit.annotation.size
        xml = read_member(unit.annotation, reading.archives, limit=MAX_XML_BYTES) if size <= MAX_XML_BYTES else None
        try:
            if xml is None:
                raise ValueError(f"it has {size:,} bytes, more than {MAX_XML_BYTES:,}")
            annotation = parse_voc(xml)
        except ValueError as error:
            detail = f"expected a Pascal VOC annotation, got: {error}; mend the file, or remove it to keep the image without boxes"
            resolution = f"{quoted(unit.image.name)} is left out"
            return [LeftOut((Finding(Code.ANNOTATION_UNREADABLE, resolution, unit.annotation.place, detail),))]
    picture = read_published(unit.image, reading.archives, keep_metadata=reading.keep_metadata)
    height, width = picture.height, picture.width
    report = FindingCollector()
    report.extend(picture.findings)
    objects: list[ObjectRecord] = []
    if unit.annotation is not None:
        objects = _objects(annotation, unit.annotation, width, height, report)
        report.extend(_other_faults(annotation, unit.annotation, unit.image, width, height))
    report.extend(_compare_tables(unit, annotation))
    row = SliceRow(
        image=picture.data,
        image_id=unit.image_id,
        width=width,
        height=height,
        objects=objects,
        patient_id=unit.patient_id,
        scan_id=unit.scan_id,
        fold=unit.fold,
        source_name=unit.source_name,
    )
    return [Example(row, picture.key, report.findings)]


def _objects(
    annotation: VocAnnotation, xml: Member, width: int, height: int, report: FindingCollector
) -> list[ObjectRecord]:
    """The boxes that have an extent and touch the image, as published."""
    objects = []
    seen: set[Box2D] = set()
    for number, entry in enumerate(annotation.objects, 1):
        place = Place(xml.archive, xml.name, f"object {number}: {entry.name or '-'}, {entry.text}")
        if entry.name.lower() != "nodule":
            report.add(Code.OBJECT_UNKNOWN, "left out", place, f"expected 'nodule', got {quoted(entry.name)}")
            continue
        if entry.box is None:
            report.add(Code.BAD_ROW, "left out", place, "expected four numbers")
            continue
        xmin, ymin, xmax, ymax = entry.box
        size = f"the image has {width} x {height} pixels"
        if xmax <= xmin or ymax <= ymin:
            report.add(Code.BOX_INVERTED, "left out", place, "expected xmin < xmax and ymin < ymax")
            continue
        if xmin >= width or ymin >= height or xmax <= 0 or ymax <= 0:
            report.add(Code.BOX_OUTSIDE, "left out", place, size)
            continue
        if xmin < 0 or ymin < 0 or xmax > width or ymax > height:
            report.add(Code.BOX_PARTLY_OUTSIDE, "kept as published", place, size)
        if (xmax - xmin) * (ymax - ymin) > _LARGEST_SHARE * width * height:
            detail = f"expected at most {_LARGEST_SHARE:.0%} of the image; {size}"
            report.add(Code.BOX_IMPLAUSIBLE, "kept as published", place, detail)
        if entry.box in seen:
            report.add(Code.DUPLICATE_ANNOTATION, "kept", place)
        seen.add(entry.box)
        box = np.array(entry.box, dtype=np.float32)
        area = float((box[2] - box[0]) * (box[3] - box[1]))
        objects.append(ObjectRecord(bbox=box.tolist(), category=0, area=area))
    return objects


def _other_faults(annotation: VocAnnotation, xml: Member, image: Member, width: int, height: int) -> Iterator[Finding]:
    for content, resolution in annotation.unusual:
        yield Finding(Code.ANNOTATION_UNUSUAL, resolution, xml.place, content)
    if (annotation.width or width, annotation.height or height) != (width, height):
        detail = f"expected {width} x {height}, got {annotation.width} x {annotation.height}"
        yield Finding(Code.IMAGE_SIZE_MISMATCH, "the size of the image is used", xml.place, detail)
    named = {name_key(annotation.filename), name_key(annotation.filename.rpartition(".")[0])}
    if annotation.filename and name_key(image.stem) not in named:
        detail = f"it names {quoted(bare_name(annotation.filename))}"
        yield Finding(Code.STALE_FILE_NAME, "paired by the name of the XML file", xml.place, detail)


def _compare_tables(unit: SliceUnit, annotation: VocAnnotation) -> Iterator[Finding]:
    """Compare the boxes of the XML file with those of the workbook and the lists."""
    in_xml = _multiset(entry.box for entry in annotation.objects if entry.box is not None)
    for check in unit.cross_checks:
        in_table = _multiset(check.boxes)
        if in_table != in_xml:
            detail = (
                f"for {quoted(unit.image.file_name)} the XML has {_joined(in_xml - in_table)} more, "
                f"this table {_joined(in_table - in_xml)} more"
            )
            resolution = "the XML is used" if unit.annotation else "without XML there are no boxes"
            place = Place(unit.image.archive, check.table, check.row or None)
            yield Finding(Code.TABLES_DISAGREE, resolution, place, detail)


def _multiset(boxes: Iterable[Box2D]) -> Counter[Box2D]:
    return Counter((float(xmin), float(ymin), float(xmax), float(ymax)) for xmin, ymin, xmax, ymax in boxes)


def _joined(boxes: Counter[Box2D]) -> str:
    return ", ".join("(" + ", ".join(f"{end:g}" for end in box) + ")" for box in sorted(boxes.elements())) or "none"
