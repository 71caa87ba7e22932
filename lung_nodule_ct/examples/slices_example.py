"""``det2d_1.25mm``: one slice with its boxes."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from lung_nodule_ct.declaration.findings import Code, Finding
from lung_nodule_ct.declaration.identity import image_id
from lung_nodule_ct.examples.family import Example, pixels_key
from lung_nodule_ct.formats.pictures import read_published
from lung_nodule_ct.formats.voc import MAX_XML_BYTES, VocAnnotation, parse_voc
from lung_nodule_ct.sources.zip_member import read_member

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lung_nodule_ct.examples.family import Box2D, SliceUnit
    from lung_nodule_ct.sources.source import ArchivePool
    from lung_nodule_ct.sources.zip_directory import Member


def build_slice(unit: SliceUnit, archives: ArchivePool, *, keep_metadata: bool) -> Example:
    """The slice, as :func:`~lung_nodule_ct.formats.pictures.read_published` gives it, and the boxes of its XML that can be used.

    Args:
        unit: What to read.
        archives: The open archives.
        keep_metadata: Whether metadata of the picture stay although they spell a calendar date.

    Raises:
        MemberError: The image or its XML is damaged.
    """
    data, pixels, findings = read_published(unit.image, archives, keep_metadata=keep_metadata)
    height, width = pixels.shape[:2]
    objects: list[dict[str, Any]] = []
    if unit.annotation is not None:
        annotation = _read_annotation(unit.annotation, archives)
        objects = _objects(annotation, unit.annotation, width, height, findings)
        findings += _other_faults(annotation, unit.annotation, unit.image, width, height)
    else:
        annotation = VocAnnotation("", None, None, ())
    findings += _compare_tables(unit, annotation)
    row = {
        "image": data,
        "image_id": image_id(unit.source_name),
        "width": width,
        "height": height,
        "objects": objects,
        "patient_id": unit.patient_id,
        "scan_id": unit.scan_id,
        "fold": unit.fold,
        "source_name": unit.source_name,
    }
    return Example(row, pixels_key(pixels), tuple(findings))


def _read_annotation(xml: Member, archives: ArchivePool) -> VocAnnotation:
    data = read_member(xml, archives, limit=MAX_XML_BYTES)
    try:
        return parse_voc(data)
    except ValueError as error:
        remedy = "if it is whole, report this file"
        raise xml.error("cannot be used", expected="a Pascal VOC annotation", got=error, remedy=remedy) from error


def _objects(
    annotation: VocAnnotation, xml: Member, width: int, height: int, findings: list[Finding]
) -> list[dict[str, Any]]:
    """The boxes that have an extent and touch the image, as published."""
    objects = []
    seen: set[tuple[float, ...]] = set()
    for number, entry in enumerate(annotation.objects, 1):
        where = (xml.archive, xml.name, f"object {number}: {entry.name or '-'} {entry.text}")
        if entry.name.lower() != "nodule":
            findings.append(Finding(Code.OBJECT_UNKNOWN, "left out", *where, f"expected 'nodule', got {entry.name!r}"))
            continue
        if entry.box is None:
            findings.append(Finding(Code.BAD_ROW, "left out", *where, "expected four numbers"))
            continue
        xmin, ymin, xmax, ymax = entry.box
        size = f"the image has {width} x {height} pixels"
        if xmax <= xmin or ymax <= ymin:
            findings.append(Finding(Code.BOX_INVERTED, "left out", *where, "expected xmin < xmax and ymin < ymax"))
            continue
        if xmin >= width or ymin >= height or xmax <= 0 or ymax <= 0:
            findings.append(Finding(Code.BOX_OUTSIDE, "left out", *where, size))
            continue
        if xmin < 0 or ymin < 0 or xmax > width or ymax > height:
            findings.append(Finding(Code.BOX_PARTLY_OUTSIDE, "kept as published", *where, size))
        if entry.box in seen:
            findings.append(Finding(Code.DUPLICATE_ANNOTATION, "kept", *where))
        seen.add(entry.box)
        box = np.array(entry.box, dtype=np.float32)
        objects.append({"bbox": box.tolist(), "category": 0, "area": float((box[2] - box[0]) * (box[3] - box[1]))})
    return objects


def _other_faults(annotation: VocAnnotation, xml: Member, image: Member, width: int, height: int) -> Iterable[Finding]:
    where = (xml.archive, xml.name)
    if (annotation.width or width, annotation.height or height) != (width, height):
        detail = f"expected {width} x {height}, got {annotation.width} x {annotation.height}"
        yield Finding(Code.IMAGE_SIZE_MISMATCH, "the image's own size is used", *where, detail=detail)
    file_name = annotation.filename.replace("\\", "/").rpartition("/")[2]
    if file_name and file_name != image.stem and (file_name.rpartition(".")[0] or file_name) != image.stem:
        yield Finding(Code.STALE_FILE_NAME, "paired by the XML's own name", *where, detail=f"it names {file_name!r}")


def _compare_tables(unit: SliceUnit, annotation: VocAnnotation) -> Iterable[Finding]:
    """Hold the boxes of the workbook and the lists against those of the XML."""
    own = _multiset(entry.box for entry in annotation.objects if entry.box is not None)
    for table, row, boxes in unit.cross_checks:
        told = _multiset(boxes)
        if told != own:
            detail = f"for {unit.image.file_name} the XML has {_shown(own - told)} more, this table {_shown(told - own)} more"
            action = "the XML is used" if unit.annotation else "without XML there are no boxes"
            yield Finding(Code.TABLES_DISAGREE, action, unit.image.archive, table, row or None, detail)


def _multiset(boxes: Iterable[Box2D]) -> Counter[Box2D]:
    return Counter(tuple(float(end) for end in box) for box in boxes)  # type: ignore[misc]  # four in, four out


def _shown(boxes: Counter[Box2D]) -> str:
    return ", ".join("(" + ", ".join(f"{end:g}" for end in box) + ")" for box in sorted(boxes.elements())) or "none"
