"""Pictures with 2D boxes, as COCO, YOLO and VOC want them: published slices, or the slices of a stack."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from PIL import Image

from lung_nodule_ct.errors import BuildFolderError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from lung_nodule_ct.read.rows import IndexedRow

CATEGORIES: Final = ("nodule",)
"""The one class of boxes in every config."""

_SUFFIXES: Final[Mapping[str | None, str]] = {"JPEG": ".jpg", "BMP": ".bmp", "PNG": ".png"}

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class BoxedPicture:
    """One picture.

    Attributes:
        split: Its split in the build.
        name: A stable name, fit for a file, without suffix.
        suffix: Of a file that holds ``data``, with its dot.
        data: The encoded picture.
        width: In pixels.
        height: In pixels.
        channels: 1 or 3.
        boxes: x0, y0, x1, y1 in pixels, 0 at the left or upper edge; the width is ``x1 - x0``.
        voc_boxes: The same as Pascal VOC has them: xmin, ymin, xmax, ymax.
        facts: What else is known of it: the patient, the fold, the case.
    """

    split: str
    name: str
    suffix: str
    data: bytes
    width: int
    height: int
    channels: int
    boxes: tuple[Box, ...]
    voc_boxes: tuple[Box, ...]
    facts: Mapping[str, str | int | None]

    @property
    def file_name(self) -> str:
        """Name and suffix."""
        return self.name + self.suffix


def boxed_pictures(rows: Iterable[IndexedRow]) -> Iterator[BoxedPicture]:
    """The pictures of ``det2d_1.25mm``, or every slice of ``det3d_bmp_1.25mm``.

    Published slices are copied byte for byte, and their numbers were published as VOC, so VOC gets them back unchanged. Whether
    they count from 0 or 1, and whether their high corners are inside, is nowhere published: the other forms take the width
    as the build's ``area`` does, ``xmax - xmin``. Slices of stacks become PNG, and their boxes are exact: half-open from 0,
    in VOC inclusive from 1 (VOC2012 development kit, "Annotation": the top-left pixel is (1, 1)).

    Raises:
        BuildFolderError: A picture does not decode.
    """
    for placed in rows:
        if "volume" in placed.row:
            yield from _of_stack(placed)
        else:
            yield _of_slice(placed)


def _of_slice(placed: IndexedRow) -> BoxedPicture:
    row = placed.row
    try:
        with Image.open(io.BytesIO(row["image"])) as picture:
            suffix, channels = _SUFFIXES[picture.format], 1 if picture.mode == "L" else 3
    except (OSError, KeyError) as error:
        raise BuildFolderError(f"{placed}: its picture cannot be read: {error}") from error
    boxes = tuple((box[0], box[1], box[2], box[3]) for box in (entry["bbox"] for entry in row["objects"]))
    facts = {name: row[name] for name in ("patient_id", "scan_id", "fold")}
    size = row["width"], row["height"], channels
    return BoxedPicture(placed.split, row["image_id"], suffix, row["image"], *size, boxes, boxes, facts)


def _of_stack(placed: IndexedRow) -> Iterator[BoxedPicture]:
    row = placed.row
    boxes = [nodule["box_voxel"] for nodule in row["nodules"] if nodule["box_voxel"] is not None]
    for number, plane in enumerate(row["volume"]):
        buffer = io.BytesIO()
        Image.fromarray(plane).save(buffer, "PNG")
        here = tuple(
            (float(x0), float(y0), float(x1), float(y1)) for x0, y0, z0, x1, y1, z1 in boxes if z0 <= number < z1
        )
        yield BoxedPicture(
            split=placed.split,
            name=f"{row['case_id']}_{number:04d}",
            suffix=".png",
            data=buffer.getvalue(),
            width=plane.shape[1],
            height=plane.shape[0],
            channels=1,
            boxes=here,
            voc_boxes=tuple((x0 + 1, y0 + 1, x1, y1) for x0, y0, x1, y1 in here),
            facts={"case_id": row["case_id"], "slice": number, "fold": row["fold"]},
        )
