"""Split lists: one image or case per line, by its name or a path, with or without boxes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from lung_nodule_ct.declaration.identity import quoted
from lung_nodule_ct.declaration.names import NameIndex, bare_name
from lung_nodule_ct.formats.tables import COMMENTS, MAX_LINE, MAX_ROWS
from lung_nodule_ct.formats.text import open_text, read_numbers

MAX_LIST_BYTES: Final = 16 << 20

Boxes = tuple[tuple[float, float, float, float], ...]

_PLAIN = re.compile(r"[0-9A-Za-z_-]+")
_END_OF_PATH = re.compile(r"\.(?:jpe?g|bmp|png|tiff?|xml)(?=$|[\s,;])", re.IGNORECASE)
_BOX = re.compile(r"(?<!\S)(-?\d+(?:\.\d+)?),(-?\d+(?:\.\d+)?),(-?\d+(?:\.\d+)?),(-?\d+(?:\.\d+)?)(?:,\S*)?(?=\s|$)")
_SLASH = re.compile(r"[\\/]")
_WORD = re.compile(r"\S+")
_CLASS = re.compile(r"-?\d")
_COMMENT = re.compile(r"(?<=\S)\s+(?:#|//).*$")
_MAX_NUMBERS = 64
"""The maximum number of words after a name without an extension that can be boxes or a class."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of a split list.

    Attributes:
        line: Line number in the file, from 1.
        text: The line.
        stem: Name of the image or case without folder and extension.
        boxes: The boxes after the name (xmin, ymin, xmax, ymax).
        unread: What follows the name and is neither a box nor a class, like a second name.
    """

    line: int
    text: str
    stem: str
    boxes: Boxes
    unread: str = ""

    @property
    def reference(self) -> str:
        """Line number and text, for findings: ``line 7: 80_20190314_003``."""
        return f"line {self.line}: {self.text[:200]}"

    @property
    def names(self) -> tuple[str, ...]:
        """What the line may name, in the order to try: the complete line, in case the name ends with a number, and the stem."""
        is_one = self.boxes or self.stem == self.text or _SLASH.search(self.unread)
        return (self.stem,) if is_one else (self.text, self.stem)

    def problem(self, index: NameIndex) -> str | None:
        """Why the line is not read to its end, ``None`` if it is, or if the complete line is a name of the archives."""
        if not self.unread or any(index.find(name).name is not None for name in self.names if name != self.stem):
            return None
        return f"expected one name per line, optionally with boxes, got also {quoted(self.unread[:80])}; write one line for each name"


def parse_split_list(data: bytes) -> Iterator[Listed]:
    r"""Yield the entries of a split list: names, paths, or paths with boxes. A path may contain blanks and backslashes.

    Raises:
        ValueError: The list has too many lines.

    Example:
        >>> [entry.stem for entry in parse_split_list(b"7_20200101 (1)\nJPEGImages/80_003.jpg 1,2,3,4\n\n# seen twice\nimgs/00001/\n")]
        ['7_20200101 (1)', '80_003', '00001']
    """
    for number, line in enumerate(open_text(data), 1):
        text = line.strip()
        if not text or text.startswith(COMMENTS):
            continue
        if number > MAX_ROWS:
            raise ValueError(f"it has more than {MAX_ROWS:,} lines")
        if _PLAIN.fullmatch(text):
            yield Listed(number, text, text, ())
        elif len(text) > MAX_LINE:
            yield Listed(number, text[:200], text[:200], ())
        else:
            yield Listed(number, text, *_name_and_boxes(text))


@lru_cache(maxsize=1 << 10)
def _name_and_boxes(text: str) -> tuple[str, Boxes, str]:
    path = _END_OF_PATH.search(text) or _several_paths(text)
    uncommented = _COMMENT.sub("", text) if "#" in text or "//" in text else text
    name = text[: path.end()] if path else _without_numbers(uncommented)
    rest = uncommented[len(name) :]
    if not rest:
        return bare_name(name), (), ""
    boxes = tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in _BOX.findall(rest))
    if not boxes and (box := _bare_box(rest)):
        return bare_name(name), box, ""
    unread = " ".join(_BOX.sub("", rest).split()).strip(",; ")
    is_class = _CLASS.fullmatch(unread) is not None and not name.isdecimal()
    return bare_name(name), boxes, "" if is_class else unread


def _several_paths(text: str) -> re.Match[str] | None:
    """The first of several paths in the same folder, ``imgs/1 imgs/2``. In ``D:/my data/imgs/1``, the folders differ."""
    words = text.replace("\\", "/").split()
    folders = {word.rstrip("/").rpartition("/")[0] for word in words}
    return _WORD.match(text) if len(words) > 1 and len(folders) == 1 and folders != {""} else None


def _without_numbers(text: str) -> str:
    """A line without the numbers at its end, which are boxes or a class."""
    words = text.rsplit(None, _MAX_NUMBERS)
    numbers = 0
    while numbers < len(words) - 1 and read_numbers(words[-1 - numbers].split(",")) is not None:
        numbers += 1
    return text.rsplit(None, numbers)[0] if numbers else text


def _bare_box(rest: str) -> Boxes:
    """One box with blanks between its numbers, optionally followed by the number of its class."""
    numbers = read_numbers(rest.split())
    return ((numbers[0], numbers[1], numbers[2], numbers[3]),) if numbers and len(numbers) in (4, 5) else ()
