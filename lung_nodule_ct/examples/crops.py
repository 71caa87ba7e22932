"""``cls_1.25mm``: one crop with its class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lung_nodule_ct.errors import MemberError
from lung_nodule_ct.examples.example import Example, pixels_key
from lung_nodule_ct.formats.pictures import MAX_PICTURE_BYTES, decode_picture
from lung_nodule_ct.identity import image_id
from lung_nodule_ct.source.member import read_member
from lung_nodule_ct.spec.pathology import PATHOLOGY

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lung_nodule_ct.plan.units import CropUnit
    from lung_nodule_ct.source.archive import Member
    from lung_nodule_ct.source.opened import Opened


def build_crop(unit: CropUnit, opened: Opened) -> Example:
    """The crop, byte for byte, and its class.

    Raises:
        MemberError: The image is damaged.
    """
    data, pixels = read_picture(unit.image, opened)
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
    return Example(row, pixels_key(pixels))


def read_picture(member: Member, opened: Opened) -> tuple[bytes, NDArray[Any]]:
    """A picture's bytes, and its pixels (y, x) or (y, x, colour) as the proof that it decodes.

    Raises:
        MemberError: It is damaged.
    """
    data = read_member(member, opened, limit=MAX_PICTURE_BYTES)
    try:
        return data, decode_picture(data)
    except ValueError as error:
        raise MemberError(
            "is damaged",
            archive=member.archive,
            member=member.name,
            expected="a JPEG, BMP or PNG picture",
            got=str(error),
            remedy="download the archive again; if it is whole, report this image",
        ) from error
