"""YOLO as Ultralytics reads it: ``images/<split>``, ``labels/<split>``, ``data.yaml`` (https://docs.ultralytics.com/datasets/detect/)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from lung_nodule_ct.declaration.labels import TEST, TRAIN, VALIDATION
from lung_nodule_ct.exports.boxed import CATEGORIES, boxed_pictures
from lung_nodule_ct.exports.counted import Counted

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from lung_nodule_ct.exports.boxed import Box
    from lung_nodule_ct.read.rows import Placed

_KEYS = {TRAIN: "train", VALIDATION: "val", TEST: "test"}


def write(rows: Iterable[Placed], folder: Path) -> Counted:
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
