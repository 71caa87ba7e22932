"""JPEG pictures that hold nothing but one scan of baseline coding: whether a decoder accepts them is known without decoding the scan.

Decoders fill up what a damaged scan lacks, and report nothing. What they do report is decided by the head, which is all bytes before the
data of the scan, and by a missing end. Pictures of one encoder and size have the same head, so it has to be decoded only once.

Data behind the last code of a scan would be published with it (:mod:`.jpeg_scans`). Where the last code is, is only known after decoding all
of them, but in most pictures the last blocks are flat, and the bits of their codes are known. A scan that ends with these bits is taken to
end there. No text ends with them but one that ends with a zero byte; of other data, one in four thousand does. Where the last byte is zero, and
no byte before it is a control character, the scan is decoded without a marker of the end: decoders read some bytes ahead, so they only reach the
last pixel if more bytes follow its code.
All other pictures have to be decoded as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from lung_nodule_ct.formats.jpeg_scans import flat_ending
from lung_nodule_ct.formats.picture_parts import JPEG_START, MARKER

_END = b"\xff\xd9"
_SOS, _FIRST_CODE = 0xDA, 0xC0
_ENDING_BITS = 12
_MAX_HEADS = 64
_MAX_HEAD_BYTES = 1 << 13
"""Ten times what the tables of a baseline JPEG take."""
_CONTROL = re.compile(rb"[\x01-\x08\x0b\x0c\x0e-\x1f]")


def plain_head(data: bytes, decodes: Callable[[bytes], bool]) -> bytes | None:
    """Return the head of a JPEG that has one scan, no data behind its pixels and none behind its end; ``None`` for any other data.

    Whether the head itself is sound, and free of metadata, is for the caller to find out.

    Args:
        data: A picture.
        decodes: Whether a JPEG that may be cut short decodes to its last pixel. It is called for one of twenty pictures.
    """
    length = _length_of_head(data)
    marker = MARKER.search(data, length) if length else None
    if marker is None or data[marker.start() :] != _END:
        return None
    head = data[:length]
    ending = _ending(head)
    if ending is None or not _ends_with(data[length:-2][-4:], ending):
        return None
    could_be_text = data[-3] == 0 and not _CONTROL.search(data[-11:-3])
    return None if could_be_text and decodes(data[: -len(_END)]) else head


def _length_of_head(data: bytes) -> int:
    """The position behind the header of the first scan, 0 if the segments before it do not follow each other."""
    at = len(JPEG_START) if data.startswith(JPEG_START) else len(data)
    while at + 4 <= min(len(data), _MAX_HEAD_BYTES) and data[at] == 0xFF and data[at + 1] >= _FIRST_CODE:
        code, at = data[at + 1], at + 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
        if code == _SOS:
            return at if at <= min(len(data), _MAX_HEAD_BYTES) else 0
    return 0


@lru_cache(_MAX_HEADS)
def _ending(head: bytes) -> int | None:
    try:
        return flat_ending(head, _ENDING_BITS)
    except (LookupError, ValueError):
        return None


def _ends_with(last: bytes, ending: int) -> bool:
    """Whether the last four bytes of a scan are the ending and up to seven ones, with which encoders fill up the last byte."""
    if len(last) < 4:
        return False
    bits = int.from_bytes(last, "big")
    ones = (~bits & (bits + 1)).bit_length() - 1
    return ones < 8 and bits >> ones & ((1 << _ENDING_BITS) - 1) == ending
