"""Pascal VOC annotations (http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html), one XML file per image.

Entities and document types are refused. Encodings that the XML parser does not support (GBK, GB2312) are decoded here. Numbers are kept
as published, including floats, padded integers and invalid boxes. Namespaces and capitals of tags make no difference. Whatever has no
meaning here is listed in :attr:`VocAnnotation.unusual`, so that nothing in a file is passed over.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final
from xml.etree.ElementTree import ParseError
from xml.etree.ElementTree import fromstring as parse_without_entities

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from lung_nodule_ct.declaration.identity import quoted
from lung_nodule_ct.formats.text import decode_text, read_numbers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from xml.etree.ElementTree import Element

MAX_XML_BYTES: Final = 4 << 20
MAX_OBJECTS: Final = 1000
"""The maximum number of boxes of an image."""
_MAX_UNUSUAL = 20
_MAX_TEXT = 200

_DECLARATION = re.compile(r"^\s*<\?xml[^>]*\?>")
_BOX = ("xmin", "ymin", "xmax", "ymax")
_KNOWN: Final = {
    "annotation": frozenset({"folder", "filename", "path", "source", "owner", "size", "segmented", "object"}),
    "size": frozenset({"width", "height", "depth"}),
    "object": frozenset({"name", "pose", "truncated", "difficult", "diffcult", "occluded", "bndbox"}),
    "bndbox": frozenset(_BOX),
}
"""The elements that have a meaning, or that are known to have none for a box, by the element that contains them."""
_OPEN = frozenset({"source", "owner"})
"""Elements whose content describes where a picture comes from."""
_REPEATABLE = frozenset({"object", "bndbox"})
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
        objects: The objects, in order. An object with several boxes occurs once per box.
        unusual: What the file has that Pascal VOC does not define, and what was done with it, at most twenty entries.
    """

    filename: str
    width: int | None
    height: int | None
    objects: tuple[VocObject, ...]
    unusual: tuple[tuple[str, str], ...] = ()


def parse_voc(data: bytes) -> VocAnnotation:
    """Parse the annotation in one XML file.

    Raises:
        ValueError: The file is not well-formed XML, uses a document type or entities, or has too many objects.

    Example:
        >>> box = "<bndbox><xmin>5</xmin><ymin>6</ymin><xmax>15</xmax><ymax>16</ymax></bndbox>"
        >>> data = f"<annotation><object><name>nodule</name>{box}<polygon/></object></annotation>".encode()
        >>> annotation = parse_voc(data)
        >>> annotation.objects[0].box, annotation.unusual
        ((5.0, 6.0, 15.0, 16.0), (('an element “polygon” in <object>', 'not read'),))
    """
    try:
        root = _parsed(_decoded(data))
    except DefusedXmlException as error:
        raise ValueError(f"it uses a document type or entities, which are refused ({type(error).__name__})") from error
    except ParseError as error:
        raise ValueError(f"it is not well-formed XML ({error})") from error
    objects = tuple(islice(_objects(root), MAX_OBJECTS + 1))
    if len(objects) > MAX_OBJECTS:
        raise ValueError(f"it has more than {MAX_OBJECTS:,} boxes")
    size = _children(root, "size")
    return VocAnnotation(
        filename=_text(root, "filename"),
        width=_size(size[0], "width") if size else None,
        height=_size(size[0], "height") if size else None,
        objects=objects,
        unusual=tuple(islice(_unusual(root), _MAX_UNUSUAL)),
    )


def _parsed(text: str) -> Element:
    """The root. Only a document type can declare entities; without one, the parser in C takes half of the time of the one that refuses them."""
    if "<!DOCTYPE" in text:
        root: Element = fromstring(text, forbid_dtd=True, forbid_entities=True, forbid_external=True)
        return root
    return parse_without_entities(text)  # noqa: S314 -- there is no document type


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


def _objects(root: Element) -> Iterator[VocObject]:
    """All objects, wherever they are. An object with several boxes is yielded once per box."""
    for element in root.iter():
        if _tag(element) == "object":
            name = _text(element, "name")[:_MAX_TEXT]
            for box in _children(element, "bndbox") or [element]:  # an object without a box has no numbers either
                written = tuple(_text(box, end) for end in _BOX)
                numbers = read_numbers(written)
                yield VocObject(
                    name,
                    None if numbers is None else (numbers[0], numbers[1], numbers[2], numbers[3]),
                    ", ".join(text or "-" for text in written)[:_MAX_TEXT],
                )


def _unusual(root: Element) -> Iterator[tuple[str, str]]:
    """What has no meaning in Pascal VOC, and what occurs more than once although it may not."""
    if _tag(root) != "annotation":
        yield f"the root is {quoted(_shown(root))} and not <annotation>", "its objects are used"
    pending = [(root, "annotation")]
    while pending:
        parent, kind = pending.pop()
        counts = Counter(map(_tag, parent))
        for tag, count in counts.items():
            if count > 1 and tag in _KNOWN[kind] and tag not in _REPEATABLE:
                yield f"<{tag}> occurs {count} times in <{kind}>", "the first is used"
        if kind == "object" and counts["bndbox"] > 1:
            yield f"an object has {counts['bndbox']} boxes", "each is used as a box of its own"
        for tag in ("width", "height") if kind == "size" else ():
            text = _text(parent, tag)
            numbers = read_numbers([text or "0"])
            if numbers is None or numbers[0] != int(numbers[0]):
                yield f"<{tag}> of <size> is {quoted(text[:_MAX_TEXT])}", "not compared with the image"
        unknown: dict[str, str] = {}
        for child in parent:
            tag = _tag(child)
            if tag in _KNOWN[kind] and tag in _KNOWN:
                pending.append((child, tag))
            elif tag not in _KNOWN[kind] or (len(child) and tag not in _OPEN):
                has_object = any(_tag(element) == "object" for element in child.iter())
                unknown.setdefault(_shown(child), "its objects are used" if has_object else "not read")
        for tag, resolution in unknown.items():
            yield f"an element {quoted(tag)} in <{kind}>", resolution


def _tag(element: Element) -> str:
    """The tag in lower case, without its namespace."""
    return element.tag.rpartition("}")[2].lower()


def _shown(element: Element) -> str:
    return element.tag.rpartition("}")[2][:_MAX_TEXT]


def _children(parent: Element, tag: str) -> list[Element]:
    return [child for child in parent if _tag(child) == tag]


def _text(parent: Element, tag: str) -> str:
    return next(((child.text or "").strip() for child in parent if _tag(child) == tag), "")


def _size(size: Element, tag: str) -> int | None:
    numbers = read_numbers([_text(size, tag) or "0"])
    return int(numbers[0]) if numbers and numbers[0] > 0 and numbers[0] == int(numbers[0]) else None
