"""COCO: ``<split>/*`` and ``annotations/instances_<split>.json`` (https://cocodataset.org/#format-data, object detection)."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from lung_nodule_ct.declaration.published import HOMEPAGE
from lung_nodule_ct.exports.boxed import CATEGORIES, boxed_pictures
from lung_nodule_ct.exports.counted import Counted

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from lung_nodule_ct.read.rows import Placed


def write(rows: Iterable[Placed], folder: Path) -> Counted:
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
