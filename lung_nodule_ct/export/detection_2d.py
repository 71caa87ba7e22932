"""COCO: ``<split>/*`` and ``annotations/instances_<split>.json`` (https://cocodataset.org/#format-data, object detection).

YOLO as Ultralytics reads it: ``images/<split>``, ``labels/<split>``, ``data.yaml`` (https://docs.ultralytics.com/datasets/detect/).

Pascal VOC: ``JPEGImages``, ``Annotations``, ``ImageSets/Main`` (VOC2012 development kit, "Annotation").
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import yaml

from lung_nodule_ct.declaration.labels import TEST, TRAIN, VALIDATION
from lung_nodule_ct.declaration.published import HOMEPAGE
from lung_nodule_ct.export.boxed_pictures import CATEGORIES, boxed_pictures
from lung_nodule_ct.export.written import Counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from lung_nodule_ct.export.boxed_pictures import Box, BoxedPicture
    from lung_nodule_ct.read.rows import IndexedRow


def write_coco(rows: Iterable[IndexedRow], folder: Path) -> Counted:
    """Write pictures and one annotation file a split.

    Ids are hashes of names, so that an image keeps its id whatever else is exported. ``bbox`` is x, y, width, height from 0 at
    the image's corner; images carry ``patient_id`` and ``fold`` (where known), which readers of COCO pass over.
    """
    images: dict[str, list[dict[str, Any]]] = {}
    annotations: dict[str, list[dict[str, Any]]] = {}
    for picture in boxed_pictures(rows):
        own = images.setdefault(picture.split, [])
        boxes = annotations.setdefault(picture.split, [])
        path = folder / picture.split / picture.file_name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(picture.data)
        key = _id(picture.name)
        size = {"width": picture.width, "height": picture.height}
        own.append({"id": key, "file_name": picture.file_name, **size, **picture.facts})
        boxes += [
            {
                "id": _id(f"{picture.name}/{number}"),
                "image_id": key,
                "category_id": 1,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": (x1 - x0) * (y1 - y0),
                "iscrowd": 0,
            }
            for number, (x0, y0, x1, y1) in enumerate(picture.boxes)
        ]
    (folder / "annotations").mkdir()
    for split, own in images.items():
        document = {
            "info": {"description": "Cross spatio-temporal pathology-based lung nodule CT", "url": HOMEPAGE},
            "licenses": [],
            "categories": [{"id": number, "name": name} for number, name in enumerate(CATEGORIES, 1)],
            "images": own,
            "annotations": annotations[split],
        }
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(document), encoding="utf-8")
    return Counted(sum(map(len, images.values())), sum(map(len, annotations.values())))


def _id(name: str) -> int:
    """A number that every reader of JSON holds exactly: 52 bits, never 0, which COCOeval takes for no match."""
    return 1 + int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % ((1 << 52) - 1)


_KEYS = {TRAIN: "train", VALIDATION: "val", TEST: "test"}


def write_yolo(rows: Iterable[IndexedRow], folder: Path) -> Counted:
    """Write pictures, a label file each (empty without nodules) and ``data.yaml``, which finds them wherever it is moved.

    A line is ``class cx cy w h`` in parts of the image; boxes are clipped to it, since Ultralytics drops images with numbers
    over 1. Splits that YOLO has no name for stand in their folders and not in ``data.yaml``.
    """
    images = nodules = left_out = 0
    splits: dict[str, None] = {}
    for picture in boxed_pictures(rows):
        splits[picture.split] = None
        lines = [line for box in picture.boxes if (line := _line(box, picture.width, picture.height))]
        for kind, name, data in (
            ("images", picture.file_name, picture.data),
            ("labels", f"{picture.name}.txt", "".join(lines).encode()),
        ):
            path = folder / kind / picture.split / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        images += 1
        nodules += len(lines)
        left_out += len(picture.boxes) - len(lines)
    document = {_KEYS[split]: f"images/{split}" for split in splits if split in _KEYS}
    document_text = yaml.safe_dump(
        {**document, "names": dict(enumerate(CATEGORIES))}, sort_keys=False, allow_unicode=True
    )
    (folder / "data.yaml").write_text(document_text, encoding="utf-8")
    notes = tuple(f"data.yaml does not name the split {split!r}" for split in splits if split not in _KEYS)
    if VALIDATION not in splits:
        notes += (
            "there is no validation split, which Ultralytics asks for: build with --split-by patient, or name one",
        )
    return Counted(images, nodules, left_out, notes)


def _line(box: Box, width: int, height: int) -> str | None:
    x0, x1 = (min(max(value, 0), width) / width for value in (box[0], box[2]))
    y0, y1 = (min(max(value, 0), height) / height for value in (box[1], box[3]))
    if x1 <= x0 or y1 <= y0:
        return None
    return "0 " + " ".join(f"{value:.8f}" for value in ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0)) + "\n"


def write_voc(rows: Iterable[IndexedRow], folder: Path) -> Counted:
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
