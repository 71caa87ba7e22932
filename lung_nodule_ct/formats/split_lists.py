"""Split lists as they stand in this dataset: stems, paths, or paths with boxes behind them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lung_nodule_ct.formats.numbers import read_numbers
from lung_nodule_ct.formats.text import lines_of

_IMAGE_PATH = re.compile(r"^(.*?\.(?:jpe?g|bmp|png|tiff?|xml))(?=$|[\s,;])", re.IGNORECASE)
_BOX = re.compile(r"(-?\d+(?:\.\d+)?),(-?\d+(?:\.\d+)?),(-?\d+(?:\.\d+)?),(-?\d+(?:\.\d+)?)(?:,\S*)?(?=\s|$)")


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of a split list.

    Attributes:
        line: Its number in the file, from 1.
        text: As it stands there.
        stem: The name of the image or case without folder and extension.
        boxes: The boxes behind it (xmin, ymin, xmax, ymax).
    """

    line: int
    text: str
    stem: str
    boxes: tuple[tuple[float, float, float, float], ...]

    @property
    def place(self) -> str:
        """For a finding: ``line 7: 80_20190314_003``."""
        return f"line {self.line}: {self.text[:200]}"


def parse_split_list(data: bytes) -> tuple[Listed, ...]:
    """The entries of a split list. A path may have blanks in it, backslashes, or an extension that is not the image's."""
    entries = []
    for number, line in enumerate(lines_of(data), 1):
        text = line.strip().lstrip("\ufeff").strip()
        if not text or text.startswith("#"):
            continue
        path = _IMAGE_PATH.match(text)
        name = path[1] if path else text.split()[0]
        rest = text[len(name) :]
        boxes = tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in _BOX.findall(rest)) or _bare_box(rest)
        file_name = name.replace("\\", "/").rpartition("/")[2]
        stem = file_name.rpartition(".")[0] if path else file_name
        entries.append(Listed(number, text, stem, boxes))
    return tuple(entries)


def _bare_box(rest: str) -> tuple[tuple[float, float, float, float], ...]:
    """One box with blanks between its numbers, and perhaps the number of its class behind them."""
    numbers = read_numbers(rest.split())
    return ((numbers[0], numbers[1], numbers[2], numbers[3]),) if numbers and len(numbers) in (4, 5) else ()
