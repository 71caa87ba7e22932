"""How the names of files, folders, scans and cases are compared: the one definition that every kind of config uses.

A table, a list or an annotation file writes a name as its author, the operating system and a spreadsheet left it: with a folder, another
extension, capitals, blanks around it, another Unicode form, or as a decimal number without leading zeros. :func:`name_key` removes what
does not distinguish two names, and :class:`NameIndex` finds the one name of the archives that is meant. It never guesses between two.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from lung_nodule_ct.declaration.identity import quoted

if TYPE_CHECKING:
    from collections.abc import Iterable

_FILE_SUFFIX: Final = re.compile(r"\.(?:jpe?g|bmp|png|tiff?|xml|mhd|mha|z?raw)$", re.IGNORECASE)
FULL_WIDTH: Final = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: " ", 0xA0: " "}
"""For :meth:`str.translate`: what each character of full width is in ASCII."""
_PLAIN: Final = re.compile(r"[0-9a-z_-]*")
"""Names that are their own key, as most are."""
_DECIMALS: Final = re.compile(r"(?<=\d)\.0+$")
_LEADING_ZEROS: Final = re.compile(r"^0+(?=\d)")
_NUMBERS: Final = re.compile(r"\d+(?:[_-]\d+)+")
_DAY: Final = re.compile(r"(?<!\d)((?:19|20)\d\d)_(\d\d)_(\d\d)(?!\d)")
_QUOTED: Final = re.compile(r"""^=?(["'])(.*)\1$|^'""")
"""A cell that a spreadsheet must not take for a number: ``="001"``, ``"001"``, ``'001``."""


def bare_name(name: str) -> str:
    r"""Return a name as it is written, without folder, extension, quotes and surrounding blanks.

    Example:
        >>> bare_name(" D:\\data\\4_20200101.MHD "), bare_name("imgs/Case 1/")
        ('4_20200101', 'Case 1')
    """
    unquoted = _QUOTED.sub(r"\2", name.strip())
    return _FILE_SUFFIX.sub("", unquoted.replace("\\", "/").rstrip("/ ").rpartition("/")[2]).strip()


def name_key(name: str) -> str:
    r"""Return the form in which two names are compared.

    Folders, trailing slashes, the extension of a picture, volume or XML file, quotes, blanks around the name, capitals and Unicode
    forms (composed or not, full width or not) make no difference. Zeros, dashes and underscores do.

    Example:
        >>> name_key(" D:\\data\\Scan_7.MHD "), name_key("imgs/00001/"), name_key("\uff23\uff34 (1).bmp")
        ('scan_7', '00001', 'ct (1)')
    """
    return name if _PLAIN.fullmatch(name) else _folded(name)


@lru_cache(maxsize=1 << 14)
def _folded(name: str) -> str:
    if not name.isascii():
        # not NFKC, which would turn "0²" into "02"; composed again after folding, which may decompose a letter
        composed = unicodedata.normalize("NFC", name.translate(FULL_WIDTH))
        name = unicodedata.normalize("NFC", composed.casefold())
    return " ".join(bare_name(name).lower().split())


@dataclass(frozen=True, slots=True)
class Match:
    """What a written name refers to.

    Attributes:
        name: The name in the archives, ``None`` if there is none or if more than one fits.
        repaired: Whether zeros or decimals were added or removed to find it.
        candidates: The names that fit equally well, if there are several.
    """

    name: str | None = None
    repaired: bool = False
    candidates: tuple[str, ...] = ()

    @property
    def detail(self) -> str | None:
        """Why nothing was chosen, for findings; ``None`` if nothing fits or one name was chosen."""
        if not self.candidates:
            return None
        return f"expected one name that fits, got {quoted(', '.join(self.candidates[:5]))}; write it as it is in the archive"


_NO_MATCH = Match()


class NameIndex:
    """Names of the archives, found as a table, a list or a file name writes them.

    A name that occurs exactly is found first, then the only one that is equal by :func:`name_key`, then the only one of the same numbers
    (``7-20180102`` and ``7_2018-01-02`` are ``7_20180102``, as in names of files), then the only one of the same number: spreadsheets turn
    ``00001`` into ``1`` or ``1.0``.

    Args:
        names: The names.
        left_out: Names that the archives have, too, and that are not used. What is equal to one of them means none of the others.

    Example:
        >>> index = NameIndex(["3", "001", "0001", "80_20190314"])
        >>> index.find("imgs/80_20190314.MHD").name, index.find("3.0").name, index.find("001").name
        ('80_20190314', '3', '001')
        >>> index.find("1")
        Match(name=None, repaired=False, candidates=('001', '0001'))
    """

    def __init__(self, names: Iterable[str], left_out: Iterable[str] = ()) -> None:
        self._names = dict.fromkeys(names)
        self._left_out = {name_key(name) for name in left_out if name not in self._names}
        self._by_key: defaultdict[str, list[str]] = defaultdict(list)
        self._by_parts: defaultdict[str, list[str]] = defaultdict(list)
        self._by_number: defaultdict[str, list[str]] = defaultdict(list)
        for name in self._names:
            key = name_key(name)
            self._by_key[key].append(name)
            if _NUMBERS.fullmatch(key):
                self._by_parts[_parts_key(key)].append(name)
            self._by_number[_number_key(key)].append(name)

    def __contains__(self, name: object) -> bool:
        """Whether the archives have exactly this name."""
        return name in self._names

    def find(self, written: str) -> Match:
        """Return the name that is meant."""
        if written in self._names:
            return Match(written)
        key = name_key(written)
        if key != written and (bare := bare_name(written)) in self._names:
            return Match(bare)
        if fitting := self._by_key.get(key):
            return Match(fitting[0]) if len(fitting) == 1 else Match(candidates=tuple(fitting))
        if key in self._left_out:
            return _NO_MATCH
        if _NUMBERS.fullmatch(key) and (fitting := self._by_parts.get(_parts_key(key))):
            return Match(fitting[0]) if len(fitting) == 1 else Match(candidates=tuple(fitting))
        fitting = self._by_number.get(_number_key(key), [])
        if len(fitting) == 1:
            return Match(fitting[0], repaired=True)
        return Match(candidates=tuple(fitting)) if fitting else _NO_MATCH

    def find_first(self, written: Iterable[str]) -> Match:
        """Return the name that is meant by the first of some written names that means one."""
        match = _NO_MATCH
        for name in written:
            match = self.find(name)
            if match.name is not None:
                break
        return match

    def find_file(self, stem: str) -> str | None:
        """Return the name that belongs to a file of this stem. File names are not changed by spreadsheets, so no number is repaired."""
        match = self.find(stem)
        return None if match.repaired else match.name


def _parts_key(key: str) -> str:
    """The key of a name of several numbers, in the form in which they are published: ``80_20190314_003``."""
    return _DAY.sub(r"\1\2\3", key.replace("-", "_"))


def _number_key(key: str) -> str:
    """The key of a name whose number may have lost its leading zeros or become a decimal number; other keys as they are."""
    if key.endswith("0") and "." in key:
        key = _DECIMALS.sub("", key)
    return _LEADING_ZEROS.sub("", key) if key.startswith("0") else key
