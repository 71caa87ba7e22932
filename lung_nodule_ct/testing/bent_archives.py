"""Archives that were bent at random, as a Hypothesis strategy: members renamed, moved, repeated, lost, added or rewritten.

What is left is still a set of zip archives that can be opened, so that a test can ask what became of each of its files. This module
needs Hypothesis: ``pip install "lung_nodule_ct[testing]"``.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

from lung_nodule_ct.declaration.archives import archives_of
from lung_nodule_ct.declaration.configs import CONFIGS
from lung_nodule_ct.system.imports import optional_imports
from lung_nodule_ct.testing.archives import zip_archive
from lung_nodule_ct.testing.synthetic_archives import TinyArchives

with optional_imports("testing", "lung_nodule_ct.testing.bent_archives"):
    from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Entries = list[tuple[str, bytes]]
"""Names and contents of the entries of an archive; a name may occur more than once."""

_LITTER: Final = (
    "__MACOSX/._7_20180102.mhd",
    "__MACOSX/._a.raw",
    ".DS_Store",
    "a/Thumbs.db",
    "desktop.ini",
    "._annotations.csv",
    "empty folder/",
)
_FOREIGN: Final = (
    "READ_ME.txt",
    "notes.pdf",
    "again.zip",
    "__MACOSX/7_20180102.mhd",
    "orphan.raw",
    "orphan.mhd.bak",
    "a/orphan.zraw",
    "JPEGImages/alone.jpg",
    "Annotations/alone.xml",
    "train.txt",
    "annotations.csv",
    "no suffix",
    "imgs/7.bmp",
    "imgs/00001/x.bmp",
)
_SUFFIXES: Final = (".raw", ".zraw", ".mhd", ".mha", ".RAW", ".bmp", ".jpg", ".xml", ".csv", ".txt", ".xlsx", "")
_LINES: Final = (
    "",
    "  ",
    ",,,,",
    "# a comment",
    "unknown,1,2,3,4",
    "7_20180102,x,y,z,1",
    "7_20180102,-6,-17,33,3",
    "x",
)
_KINDS: Final = (
    "litter",
    "foreign",
    "lose",
    "repeat",
    "rename",
    "suffix",
    "folder",
    "move",
    "copy",
    "lines",
    "data file",
    "empty",
)


@dataclass(frozen=True, repr=False)
class BentArchives:
    """The archives that a config reads, bent.

    Attributes:
        config: The name of the config.
        entries: The entries of each archive by its file name.
    """

    config: str
    entries: Mapping[str, Entries]

    def __repr__(self) -> str:
        names = {archive: [name for name, _ in entries] for archive, entries in self.entries.items()}
        return f"<BentArchives of {self.config}: {names}>"

    def write(self, folder: Path) -> Path:
        """Write the archives into a folder, and return the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, entries in self.entries.items():
            with warnings.catch_warnings(), zipfile.ZipFile(folder / name, "w") as archive:
                warnings.simplefilter("ignore")  # of zipfile about a name that occurs twice
                for member, data in entries:
                    archive.writestr(zipfile.ZipInfo(member), data)
        return folder

    def num_files(self, archive: str) -> int:
        """Return the number of entries of an archive, other than empty ones of folders."""
        return sum(bool(data) or not name.endswith("/") for name, data in self.entries[archive])


@st.composite
def bent_archives(draw: st.DrawFn, config: str | None = None, max_bends: int = 8) -> BentArchives:
    """Draw the archives that a config reads, with up to ``max_bends`` changes.

    Args:
        draw: Draws the changes.
        config: The config; by default any of the package.
        max_bends: The maximum number of changes.

    Example:
        >>> from hypothesis import given, settings
        >>> @settings(max_examples=5)
        ... @given(bent_archives("cls_1.25mm"))
        ... def test_the_archive_is_there(case):
        ...     assert list(case.entries) == ["class_dataset.zip"]
        >>> test_the_archive_is_there()
    """
    config = draw(st.sampled_from(list(CONFIGS))) if config is None else config
    names = [spec.name for spec in archives_of(*CONFIGS[config].reads)]
    entries = {name: list(_tiny()[name].items()) for name in names}
    for _ in range(draw(st.integers(1, max_bends))):
        _bend(draw, entries, draw(st.sampled_from(names)), draw(st.sampled_from(_KINDS)))
    return BentArchives(config, entries)


@cache
def _tiny() -> TinyArchives:
    return TinyArchives()


def _bend(draw: st.DrawFn, entries: dict[str, Entries], archive: str, kind: str) -> None:
    """Change one archive in one way."""
    own = entries[archive]
    if kind == "litter":
        own.append((draw(st.sampled_from(_LITTER)), b""))
        return
    if kind == "foreign" or not own:
        own.append((draw(st.sampled_from(_FOREIGN)), draw(st.sampled_from([b"", b"x", zip_archive({"a": b"1"})]))))
        return
    if kind == "empty":
        own.clear()
        return
    at = draw(st.integers(0, len(own) - 1))
    name, data = own[at]
    bare, dot, suffix = name.rpartition(".")
    if kind == "lose":
        del own[at]
    elif kind == "repeat":
        own.append((name, draw(st.sampled_from([data, b"x"]))))
    elif kind == "rename":
        digits = draw(st.sampled_from(["0", "7", "_x", "0007", " (1)"]))
        own[at] = (f"{bare}{digits}{dot}{suffix}", data)
    elif kind == "suffix":
        own[at] = (f"{bare}{draw(st.sampled_from(_SUFFIXES))}", data)
    elif kind == "folder":
        own[at] = (f"{draw(st.sampled_from(['a/', 'A b/', 'train/1/', 'imgs/00009/']))}{name}", data)
    elif kind == "move":
        del own[at]
        entries[draw(st.sampled_from(list(entries)))].append((name, data))
    elif kind == "copy":
        entries[draw(st.sampled_from(list(entries)))].append((f"copy/{name}", data))
    else:
        _rewrite(draw, own, kind)


def _rewrite(draw: st.DrawFn, own: Entries, kind: str) -> None:
    """Add lines to a table, or let a header name another data file."""
    suffixes = (".csv", ".txt") if kind == "lines" else (".mhd",)
    places = [at for at, (name, _) in enumerate(own) if name.endswith(suffixes)]
    if not places:
        return
    at = draw(st.sampled_from(places))
    name, data = own[at]
    if kind == "lines":
        lines = data.decode(errors="replace").splitlines()
        for line in draw(st.lists(st.sampled_from(_LINES), min_size=1, max_size=4)):
            lines.insert(draw(st.integers(0, len(lines))), line)
        own[at] = (name, "\n".join(lines).encode())
        return
    others = sorted({other.rpartition("/")[2] for other, _ in own if other.endswith(("raw", "RAW"))})
    named = draw(st.sampled_from([*others, "nowhere.raw", "LOCAL"]))
    own[at] = (name, re.sub(rb"ElementDataFile = .*", f"ElementDataFile = {named}".encode(), data))
