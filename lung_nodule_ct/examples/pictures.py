"""A picture of an archive: its bytes as published, and its pixels as the proof that they are one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lung_nodule_ct.formats.pictures import MAX_PICTURE_BYTES, decode_picture
from lung_nodule_ct.source.member import read_member

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lung_nodule_ct.source.archive import Member
    from lung_nodule_ct.source.opened import Opened


def read_picture(member: Member, opened: Opened) -> tuple[bytes, NDArray[np.uint8]]:
    """A picture's bytes, and its pixels, axes (y, x) or (y, x, colour).

    Raises:
        MemberError: It is damaged.
    """
    data = read_member(member, opened, limit=MAX_PICTURE_BYTES)
    try:
        return data, decode_picture(data)
    except ValueError as error:
        remedy = "if it is whole, report this image"
        raise member.error("is damaged", expected="a JPEG, BMP or PNG picture", got=error, remedy=remedy) from error
