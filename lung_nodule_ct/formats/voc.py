"""Pascal VOC annotations (http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html), one XML file per image.

Entities and document types are refused. Encodings that the XML parser does not support (GBK, GB2312) are decoded here. Numbers are kept
as published, including floats, padded integers and invalid boxes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from xml.etree.ElementTree import ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from lung_nodule_ct.formats.text import decode_text, read_numbers

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

MAX_XML_BYTES: Final = 4 << 20

_DECLARATION = re.compile(r"^\s*<\?xml[^>]*\?>")
_ENCODING = re.compile(rb"""^\s*<\?xml[^>]*encoding\s*=\s*["']([A-Za-z0-9._-]+)["']""")


@dataclass(frozen=True, slots=True)
class VocObject:
    """One annotated object.

    Attributes:
        name: Its class, as published.
        box: xmin, ymin, xmax, ymax in pixels; ``None`` if a number is missing or cannot be read.
        text: The four numbers as they are written.
    """

    name: str
    box: tuple[float, float, float, float] | None
    text: str


@dataclass(frozen=True, slots=True)
class VocAnnotation:
    """One XML file.

    Attributes:
        filename: Name of the image, empty if it is missing.
        width: Width of the image in pixels, ``None`` if it is missing or zero.
        height: Height of the image in pixels, likewise.
        objects: The objects, in order.
    """

    filename: str
    width: int | None
    height: int | None
    objects: tuple[VocObject, ...]


def parse_voc(data: bytes) -> VocAnnotation:
    """Parse the annotation in one XML file.

    Raises:
        ValueError: The file is not well-formed XML, or uses a document type or entities.
    """
    try:
        root = fromstring(_decoded(data), forbid_dtd=True, forbid_entities=True, forbid_external=True)
    except DefusedXmlException as error:
        raise ValueError(f"it uses a document type or entities, which are refused ({type(error).__name__})") from error
    except ParseError as error:
        raise ValueError(f"it is not well-formed XML ({error})") from error
    return VocAnnotation(
        filename=_text(root, "filename"),
        width=_size(root, "width"),
        height=_size(root, "height"),
        objects=tuple(_object(element) for element in root.iter("object")),
    )


def _decoded(data: bytes) -> str:
    declared = _ENCODING.match(data)
    text = decode_text(data)
    if declared and not data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        name = declared[1].decode().lower()
        # gb18030 includes the older two, and files declared as "gb2312" often use characters of all three
        encoding = "gb18030" if name in ("gbk", "gb2312", "gb18030") else name
        try:
            text = data.decode(encoding)
        except (LookupError, UnicodeDecodeError):
            text = decode_text(data)
    return _DECLARATION.sub("", text, count=1)


def _object(element: Element) -> VocObject:
    box = element.find("bndbox")
    written = tuple(_text(box, name) if box is not None else "" for name in ("xmin", "ymin", "xmax", "ymax"))
    numbers = read_numbers(written)
    return VocObject(
        _text(element, "name"),
        None if numbers is None else (numbers[0], numbers[1], numbers[2], numbers[3]),
        " ".join(text or "-" for text in written),
    )


def _text(parent: Element, name: str) -> str:
    return (parent.findtext(name) or "").strip()


def _size(root: Element, name: str) -> int | None:
    try:
        value = int(float(_text(root, f"size/{name}") or 0))
    except (ValueError, OverflowError):
        return None
    return value if value > 0 else None
