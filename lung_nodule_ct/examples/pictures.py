"""A picture of an archive: its bytes as published, without the dates beside them, and its pixels as the proof that it is one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lung_nodule_ct.declaration.findings import Code, Finding
from lung_nodule_ct.formats.picture_metadata import without_dated_metadata
from lung_nodule_ct.formats.pictures import MAX_PICTURE_BYTES, decode_picture
from lung_nodule_ct.sources.zip_member import read_member

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lung_nodule_ct.sources.source import Opened
    from lung_nodule_ct.sources.zip_directory import Member


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


def read_published(
    member: Member, opened: Opened, *, keep_metadata: bool
) -> tuple[bytes, NDArray[np.uint8], list[Finding]]:
    """A picture's bytes as they may leave the builder, its pixels, and what had to be left out of the bytes.

    Args:
        member: The picture.
        opened: The archives that are open.
        keep_metadata: Whether metadata stay although they spell a calendar date.

    Raises:
        MemberError: It is damaged.
    """
    data, pixels = read_picture(member, opened)
    if keep_metadata:
        return data, pixels, []
    clean, removed = without_dated_metadata(data)
    if not removed:
        return data, pixels, []
    detail, action = ", ".join(removed), "left out; the pixels and all other bytes are as published"
    return clean, pixels, [Finding(Code.PICTURE_METADATA_REMOVED, action, member.archive, member.name, detail=detail)]
