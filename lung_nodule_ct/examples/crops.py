"""``cls_1.25mm``: one crop with its class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lung_nodule_ct.declaration.identity import image_id
from lung_nodule_ct.declaration.labels import PATHOLOGY
from lung_nodule_ct.examples.example import Example, pixels_key
from lung_nodule_ct.formats.pictures import read_published

if TYPE_CHECKING:
    from lung_nodule_ct.plan.units import CropUnit
    from lung_nodule_ct.sources.source import Opened


def build_crop(unit: CropUnit, opened: Opened, *, keep_metadata: bool) -> Example:
    """The crop, as :func:`~lung_nodule_ct.formats.pictures.read_published` gives it, and its class.

    Args:
        unit: What to read.
        opened: The archives that are open.
        keep_metadata: Whether metadata of the picture stay although they spell a calendar date.

    Raises:
        MemberError: The image is damaged.
    """
    data, pixels, findings = read_published(unit.image, opened, keep_metadata=keep_metadata)
    row = {
        "image": data,
        "label": unit.label,
        "malignant": PATHOLOGY[unit.label].malignant,
        "image_id": image_id(unit.source_name),
        "patient_id": unit.patient_id,
        "scan_id": unit.scan_id,
        "fold": unit.fold,
        "source_name": unit.source_name,
    }
    return Example(row, pixels_key(pixels), tuple(findings))
