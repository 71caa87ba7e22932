"""Pictures with 2D boxes as COCO, YOLO and Pascal VOC.

- COCO: ``<split>/*`` and ``annotations/instances_<split>.json`` (https://cocodataset.org/#format-data, object
  detection).
- YOLO as Ultralytics reads it: ``images/<split>``, ``labels/<split>``, ``data.yaml``
  (https://docs.ultralytics.com/datasets/detect/).
- Pascal VOC: ``JPEGImages``, ``Annotations``, ``ImageSets/Main`` (VOC2012 development kit, "Annotation").
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree as ET

import yaml
from PIL import Image

from lung_nodule_ct.declaration.labels import TEST, TRAIN, VALIDATION
from lung_nodule_ct.declaration.published import HOMEPAGE
from lung_nodule_ct.declaration.schema import Picture, Voxels
from lung_nodule_ct.errors import BuildFolderError
from lung_nodule_ct.export.formats import ExportSummary, column_names, picture_stem, records_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from lung_nodule_ct.declaration.schema import Schema
    from lung_nodule_ct.read.rows import IndexedRow

CATEGORIES: Final = ("nodule",)
"""The names of the classes of boxes: there is only one."""

_SUFFIXES: Final[Mapping[str | None, str]] = {"JPEG": ".jpg", "BMP": ".bmp", "PNG": ".png"}
_MAX_COCO_ID: Final = (1 << 31) - 1
_IDENTITY: Final = ("case_id", "patient_id", "scan_id", "slice", "fold")

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class BoxedPicture:
    """One picture with its boxes.

    Attributes:
        split: Its split in the build.
        stem: File name without suffix; the same for each export of the build.
        suffix: Suffix of the file name, with its dot.
        data: The encoded picture.
        width: Width in pixels.
        height: Height in pixels.
        channels: 1 or 3.
        boxes: x0, y0, x1, y1 in pixels, 0 at the left and at the upper edge; the width is ``x1 - x0``.
        voc_boxes: The same boxes as xmin, ymin, xmax, ymax of Pascal VOC.
        identity: Values that identify the picture and its patient, by column name.
    """

    split: str
    stem: str
    suffix: str
    data: bytes
    width: int
    height: int
    channels: int
    boxes: tuple[Box, ...]
    voc_boxes: tuple[Box, ...]
    identity: Mapping[str, str | int | None]

    @property
    def file_name(self) -> str:
        """The file name: stem and suffix."""
        return self.stem + self.suffix


def boxed_pictures(schema: Schema, rows: Iterable[IndexedRow]) -> Iterator[BoxedPicture]:
    """Iterate over the pictures of a config, or over the slices of its 8-bit volumes.

    Published pictures are copied byte for byte. Their numbers were published as VOC, so VOC gets them unchanged. It is
    not published whether they count from 0 or 1, and whether the high corners are inclusive; the other formats use the
    width of the column ``area``, ``xmax - xmin``. Slices of volumes are written as PNG, and their boxes are exact:
    half-open from 0, and in VOC inclusive from 1 (VOC2012 development kit, "Annotation": the top-left pixel is (1, 1)).

    Args:
        schema: The columns of the config.
        rows: Its rows.

    Raises:
        BuildFolderError: A picture cannot be decoded.
    """
    pictures, volumes = column_names(schema, Picture), column_names(schema, Voxels)
    for indexed in rows:
        if pictures:
            yield _published_picture(indexed, indexed.row[pictures[0]], records_of(schema, indexed.row, "bbox"))
        else:
            yield from _slices(indexed, indexed.row[volumes[0]], records_of(schema, indexed.row, "box_voxel"))


def _published_picture(indexed: IndexedRow, data: bytes, objects: Sequence[Mapping[str, Any]]) -> BoxedPicture:
    try:
        with Image.open(io.BytesIO(data)) as picture:
            suffix, channels, size = _SUFFIXES[picture.format], 1 if picture.mode == "L" else 3, picture.size
    except (OSError, KeyError) as error:
        raise BuildFolderError(f"{indexed}: its picture cannot be read: {error}") from error
    boxes = tuple((box[0], box[1], box[2], box[3]) for box in (entry["bbox"] for entry in objects))
    return BoxedPicture(
        indexed.split, picture_stem(indexed), suffix, data, *size, channels, boxes, boxes, _identity(indexed.row)
    )


def _slices(indexed: IndexedRow, volume: NDArray[Any], nodules: Sequence[Mapping[str, Any]]) -> Iterator[BoxedPicture]:
    all_boxes = [nodule["box_voxel"] for nodule in nodules if nodule["box_voxel"] is not None]
    stem = picture_stem(indexed)
    for z, plane in enumerate(volume):
        buffer = io.BytesIO()
        Image.fromarray(plane).save(buffer, "PNG")
        boxes = tuple(
            (float(x0), float(y0), float(x1), float(y1)) for x0, y0, z0, x1, y1, z1 in all_boxes if z0 <= z < z1
        )
        yield BoxedPicture(
            split=indexed.split,
            stem=f"{stem}_{z:04d}",
            suffix=".png",
            data=buffer.getvalue(),
            width=plane.shape[1],
            height=plane.shape[0],
            channels=1,
            boxes=boxes,
            voc_boxes=tuple((x0 + 1, y0 + 1, x1, y1) for x0, y0, x1, y1 in boxes),
            identity=_identity({**indexed.row, "slice": z}),
        )


def _identity(row: Mapping[str, Any]) -> dict[str, str | int | None]:
    return {name: row[name] for name in _IDENTITY if name in row}


def write_coco(schema: Schema, rows: Iterable[IndexedRow], folder: Path) -> ExportSummary:
    """Write pictures, and one annotation file per split.

    Ids are hashes of names, so that an image keeps its id whatever else is exported; only where two names have the same
    hash does the second one depend on the first. ``bbox`` is x, y, width, height from 0 at the corner of the image. Images
    carry ``patient_id`` and ``fold`` if the config has them; readers of COCO ignore them.
    """
    taken: set[int] = set()
    images: dict[str, list[dict[str, Any]]] = {}
    annotations: dict[str, list[dict[str, Any]]] = {}
    for picture in boxed_pictures(schema, rows):
        path = folder / picture.split / picture.file_name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(picture.data)
        image_id = _coco_id(picture.stem, taken)
        size = {"width": picture.width, "height": picture.height}
        images.setdefault(picture.split, []).append(
            {"id": image_id, "file_name": picture.file_name, **size, **picture.identity}
        )
        annotations.setdefault(picture.split, []).extend(
            {
                "id": _coco_id(f"{picture.stem}/{number}", taken),
                "image_id": image_id,
                "category_id": 1,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": (x1 - x0) * (y1 - y0),
                "iscrowd": 0,
            }
            for number, (x0, y0, x1, y1) in enumerate(picture.boxes)
        )
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
    return ExportSummary(sum(map(len, images.values())), sum(map(len, annotations.values())))


def _coco_id(name: str, taken: set[int]) -> int:
    """Return a hash of a name that is not taken, and take it.

    It has 31 bits, because many readers keep ids as int32. Among 100,000 names a pair with the same hash is likely, so
    the next hash is tried. Never 0: COCOeval reads it as "no match".
    """
    for attempt in itertools.count():
        text = f"{name}#{attempt}" if attempt else name
        found = 1 + int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % _MAX_COCO_ID
        if found not in taken:
            taken.add(found)
            return found
    raise AssertionError


_YOLO_SPLITS = {TRAIN: "train", VALIDATION: "val", TEST: "test"}


def write_yolo(schema: Schema, rows: Iterable[IndexedRow], folder: Path) -> ExportSummary:
    """Write pictures, one label file per picture (empty without nodules), and ``data.yaml`` with relative paths.

    A line is ``class cx cy w h`` as fractions of the image. Boxes are clipped to the image, because Ultralytics drops
    images with values above 1. A split for which YOLO has no name has its folders, but is not in ``data.yaml``.
    """
    images = nodules = left_out = 0
    splits: dict[str, None] = {}
    for picture in boxed_pictures(schema, rows):
        splits[picture.split] = None
        lines = [line for box in picture.boxes if (line := _yolo_line(box, picture.width, picture.height))]
        for kind, name, data in (
            ("images", picture.file_name, picture.data),
            ("labels", f"{picture.stem}.txt", "".join(lines).encode()),
        ):
            path = folder / kind / picture.split / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        images += 1
        nodules += len(lines)
        left_out += len(picture.boxes) - len(lines)
    document = {_YOLO_SPLITS[split]: f"images/{split}" for split in splits if split in _YOLO_SPLITS}
    text = yaml.safe_dump({**document, "names": dict(enumerate(CATEGORIES))}, sort_keys=False, allow_unicode=True)
    (folder / "data.yaml").write_text(text, encoding="utf-8")
    notes = tuple(f"data.yaml does not list the split {split!r}" for split in splits if split not in _YOLO_SPLITS)
    if VALIDATION not in splits:
        notes += (
            "there is no validation split, which Ultralytics requires: build with --split-by patient, or choose one",
        )
    return ExportSummary(images, nodules, left_out, notes)


def _yolo_line(box: Box, width: int, height: int) -> str | None:
    """Return the line of a box, ``None`` if nothing of the box is inside the image."""
    x0, x1 = (min(max(value, 0), width) / width for value in (box[0], box[2]))
    y0, y1 = (min(max(value, 0), height) / height for value in (box[1], box[3]))
    if x1 <= x0 or y1 <= y0:
        return None
    return "0 " + " ".join(f"{value:.8f}" for value in ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0)) + "\n"


def write_voc(schema: Schema, rows: Iterable[IndexedRow], folder: Path) -> ExportSummary:
    """Write pictures, one XML file per picture, and one list per split. The encoding is as published, not always JPEG."""
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    listed: dict[str, list[str]] = {}
    nodules = 0
    for picture in boxed_pictures(schema, rows):
        (folder / "JPEGImages" / picture.file_name).write_bytes(picture.data)
        (folder / "Annotations" / f"{picture.stem}.xml").write_bytes(_voc_annotation(picture))
        listed.setdefault(picture.split, []).append(picture.stem)
        nodules += len(picture.boxes)
    for split, stems in listed.items():
        name = "val" if split == VALIDATION else split  # the name that VOC uses
        text = "".join(f"{stem}\n" for stem in stems)
        (folder / "ImageSets" / "Main" / f"{name}.txt").write_text(text, encoding="utf-8")
    return ExportSummary(sum(map(len, listed.values())), nodules)


def _voc_annotation(picture: BoxedPicture) -> bytes:
    root = ET.Element("annotation")
    _add_texts(root, {"folder": "JPEGImages", "filename": picture.file_name})
    size = {"width": picture.width, "height": picture.height, "depth": picture.channels}
    _add_texts(ET.SubElement(root, "size"), size)
    _add_texts(root, {"segmented": 0})
    for box, voc in zip(picture.boxes, picture.voc_boxes, strict=True):
        truncated = box[0] < 0 or box[1] < 0 or box[2] > picture.width or box[3] > picture.height
        entry = ET.SubElement(root, "object")
        _add_texts(entry, {"name": CATEGORIES[0], "pose": "Unspecified", "truncated": int(truncated), "difficult": 0})
        corners = dict(zip(("xmin", "ymin", "xmax", "ymax"), (f"{value:.10g}" for value in voc), strict=True))
        _add_texts(ET.SubElement(entry, "bndbox"), corners)
    ET.indent(root)
    data: bytes = ET.tostring(root, encoding="utf-8")
    return data


def _add_texts(parent: ET.Element, values: Mapping[str, object]) -> None:
    for name, value in values.items():
        ET.SubElement(parent, name).text = str(value)
