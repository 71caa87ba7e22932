"""Pascal VOC: ``JPEGImages``, ``Annotations``, ``ImageSets/Main`` (VOC2012 development kit, "Annotation")."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from lung_nodule_ct.declaration.labels import VALIDATION
from lung_nodule_ct.exports.boxed import CATEGORIES, boxed_pictures
from lung_nodule_ct.exports.counted import Counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from lung_nodule_ct.exports.boxed import BoxedPicture
    from lung_nodule_ct.read.rows import Placed


def write(rows: Iterable[Placed], folder: Path) -> Counted:
    """Write pictures (in their published encoding, which need not be JPEG), an XML each, and a list a split."""
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    listed: dict[str, list[str]] = {}
    nodules = 0
    for picture in boxed_pictures(rows):
        (folder / "JPEGImages" / picture.file_name).write_bytes(picture.data)
        (folder / "Annotations" / f"{picture.name}.xml").write_bytes(_annotation(picture))
        listed.setdefault(picture.split, []).append(picture.name)
        nodules += len(picture.boxes)
    for split, names in listed.items():
        file_name = "val" if split == VALIDATION else split  # as VOC spells it
        text = "".join(f"{name}\n" for name in names)
        (folder / "ImageSets" / "Main" / f"{file_name}.txt").write_text(text, encoding="utf-8")
    return Counted(sum(map(len, listed.values())), nodules)


def _annotation(picture: BoxedPicture) -> bytes:
    root = ET.Element("annotation")
    _texts(root, {"folder": "JPEGImages", "filename": picture.file_name})
    size = {"width": picture.width, "height": picture.height, "depth": picture.channels}
    _texts(ET.SubElement(root, "size"), size)
    _texts(root, {"segmented": 0})
    for box, voc in zip(picture.boxes, picture.voc_boxes, strict=True):
        truncated = box[0] < 0 or box[1] < 0 or box[2] > picture.width or box[3] > picture.height
        entry = ET.SubElement(root, "object")
        _texts(entry, {"name": CATEGORIES[0], "pose": "Unspecified", "truncated": int(truncated), "difficult": 0})
        corners = dict(zip(("xmin", "ymin", "xmax", "ymax"), (f"{value:.10g}" for value in voc), strict=True))
        _texts(ET.SubElement(entry, "bndbox"), corners)
    ET.indent(root)
    data: bytes = ET.tostring(root, encoding="utf-8")
    return data


def _texts(parent: ET.Element, values: Mapping[str, object]) -> None:
    for name, value in values.items():
        ET.SubElement(parent, name).text = str(value)
