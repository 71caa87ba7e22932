r"""Strategies for Hypothesis: frames, MetaImage headers, tables, split lists, zip archives and complete sets of archives.

Strategies of files draw what a file says together with the file, in one of the spellings that occur in this field. A test
reads the file and compares::

    @given(nodule_tables())
    def test_my_reader(case):
        assert my_reader(case.data) == case.content

This module needs Hypothesis: ``pip install "lung_nodule_ct[testing]"``.
"""

from __future__ import annotations

import codecs
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import numpy as np

from lung_nodule_ct.geometry.display import Triple
from lung_nodule_ct.geometry.frame import Frame
from lung_nodule_ct.system.imports import optional_imports
from lung_nodule_ct.testing.archives import (
    BOX_COLUMNS,
    NODULE_COLUMNS,
    SPLIT_BOX_COLUMNS,
    Members,
    metaimage_header,
    zip_archive,
)
from lung_nodule_ct.testing.synthetic_archives import TinyArchives

with optional_imports("testing", "lung_nodule_ct.testing.strategies"):
    from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Sequence


ContentT = TypeVar("ContentT")


@dataclass(frozen=True)
class FileCase(Generic[ContentT]):
    """A file and what a reader must find in it."""

    data: bytes
    content: ContentT


HeaderContent = tuple[tuple[int, int, int], np.dtype[np.generic], Frame]
"""Shape z, y, x, type and byte order of the elements, and frame of a volume."""
NoduleRows = tuple[tuple[str, Triple, float], ...]
"""Name of the scan, centre x, y, z in LPS mm, diameter in mm."""
BoxRows = tuple[tuple[str, tuple[int, ...], tuple[int, ...], float | None], ...]
"""Case, lowest and highest voxel x, y, z (both inclusive), diameter or ``None``."""
SplitEntries = tuple[tuple[str, tuple[tuple[float, ...], ...]], ...]
"""Stem of the image or case, boxes xmin, ymin, xmax, ymax in pixels."""

_ELEMENT_TYPES: Final = {"MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_FLOAT": "f4"}
_LITTER: Final = ("__MACOSX/._a.mhd", ".DS_Store", "scans/._a.raw", "scans/Thumbs.db", "scans/desktop.ini")
_NAMED_HEADERS: Final = (NODULE_COLUMNS, NODULE_COLUMNS.upper(), "scan name,x,y,z,diameter")
_ORDERED_HEADERS: Final = ("", "名称,坐标X,坐标Y,坐标Z,直径")
"""Headers of a nodule table: with names that allow any order of the columns, and without."""


def points() -> st.SearchStrategy[Triple]:
    """Return a strategy for world positions x, y, z, each within 500 mm of the origin."""
    coordinate = st.floats(-500, 500, allow_subnormal=False)
    return st.tuples(coordinate, coordinate, coordinate)


def spacings() -> st.SearchStrategy[Triple]:
    """Return a strategy for spacings x, y, z from 0.1 to 10 mm."""
    step = st.floats(0.1, 10)
    return st.tuples(step, step, step)


@st.composite
def directions(draw: st.DrawFn) -> tuple[float, ...]:
    """Draw a direction matrix, row by row: any rotation, half of them mirrored.

    Example:
        >>> from hypothesis import given
        >>> @given(directions())
        ... def test_is_orthonormal(direction):
        ...     assert Frame(direction=direction).is_orthonormal
        >>> test_is_orthonormal()
    """
    numbers = draw(st.lists(st.floats(-1, 1), min_size=9, max_size=9))
    matrix = np.array(numbers).reshape(3, 3) + 3 * np.eye(3)[draw(st.permutations(range(3)))]
    orthonormal, _ = np.linalg.qr(matrix)
    orthonormal[np.abs(orthonormal) < 1e-300] = 0.0  # ITK's parser has no subnormal numbers
    return tuple((orthonormal.ravel() * draw(st.sampled_from([1.0, -1.0]))).tolist())


@st.composite
def axis_aligned_directions(draw: st.DrawFn) -> tuple[float, ...]:
    """Draw one of the 48 direction matrices that only exchange and reverse axes, row by row.

    Example:
        >>> from hypothesis import given
        >>> from lung_nodule_ct.testing.phantoms import make_chest
        >>> @given(axis_aligned_directions())
        ... def test_no_voxel_is_lost(direction):
        ...     chest = make_chest((2, 3, 4), (1.0, 2.0, 5.0))
        ...     assert sorted(chest.reoriented(direction).volume.ravel()) == sorted(chest.volume.ravel())
        >>> test_no_voxel_is_lost()
    """
    matrix = np.eye(3)[draw(st.permutations(range(3)))]
    signs = draw(st.tuples(*[st.sampled_from([1.0, -1.0])] * 3))
    return tuple((matrix * signs + 0.0).ravel().tolist())


def frames() -> st.SearchStrategy[Frame]:
    """Return a strategy for frames with any origin, spacing and orthonormal direction.

    Example:
        >>> from hypothesis import given
        >>> @given(frames(), points())
        ... def test_world_and_voxel_are_inverse(frame, point):
        ...     np.testing.assert_allclose(frame.to_world(frame.to_voxel(point)), point, atol=1e-6)
        >>> test_world_and_voxel_are_inverse()
    """
    return st.builds(Frame, points(), spacings(), directions())


@st.composite
def metaimage_headers(draw: st.DrawFn) -> FileCase[HeaderContent]:
    """Draw a MetaImage header for ``scan.raw`` in a spelling that ITK reads: synonyms, line ends, comments, blanks.

    Example:
        >>> from hypothesis import given
        >>> from lung_nodule_ct.formats.metaimage_header import parse_header
        >>> @given(metaimage_headers())
        ... def test_spelling_does_not_matter(case):
        ...     header = parse_header(case.data)
        ...     assert (header.shape, header.dtype, header.frame) == case.content
        >>> test_spelling_does_not_matter()
    """
    frame = draw(frames())
    shape = draw(st.tuples(*[st.integers(1, 6)] * 3))
    element_type = draw(st.sampled_from(sorted(_ELEMENT_TYPES)))
    big_endian = draw(st.booleans())
    fields = {"ElementType": element_type, "BinaryDataByteOrderMSB": str(big_endian)}
    text = metaimage_header("scan", shape, frame, **fields).decode()
    for key, synonyms in (
        ("Offset", ("Offset", "Position", "Origin")),
        ("TransformMatrix", ("TransformMatrix", "Rotation", "Orientation")),
        ("BinaryDataByteOrderMSB", ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")),
    ):
        text = text.replace(f"{key} =", f"{draw(st.sampled_from(synonyms))} =")
    more = draw(st.sampled_from(["", "Comment = a = b # c\n", "Modality = MET_MOD_CT\n", "CenterOfRotation = 5 5 5\n"]))
    text = draw(st.sampled_from(["", "# a comment\n"])) + text.replace("DimSize", f"{more}DimSize")
    text = text.replace(" = ", draw(st.sampled_from([" = ", "="])))
    text = text.replace("\n", draw(st.sampled_from(["\n", "\r\n", "  \n"])))
    data = draw(st.sampled_from([b"", codecs.BOM_UTF8])) + text.encode()
    dtype = np.dtype(_ELEMENT_TYPES[element_type]).newbyteorder(">" if big_endian else "<")
    return FileCase(data, (shape, dtype, frame))


def scan_names() -> st.SearchStrategy[str]:
    """Return a strategy for names of scans and cases: digits and underscores, such as ``7_20180102`` and ``09184``."""
    return st.from_regex(r"[0-9_]{1,12}", fullmatch=True)


@st.composite
def nodule_tables(draw: st.DrawFn) -> FileCase[NoduleRows]:
    """Draw an ``annotations.csv`` in one of the spellings that occur: other header, order, delimiter, encoding, line ends.

    The numbers are any from -1000 to 1000: nothing in a file keeps a diameter from being zero or negative.

    Example:
        >>> from hypothesis import given
        >>> from lung_nodule_ct.formats.tables import parse_nodules
        >>> @given(nodule_tables())
        ... def test_every_row_is_read(case):
        ...     rows = parse_nodules(case.data).good
        ...     assert [(row.series_uid, row.center, row.diameter) for row in rows] == list(case.content)
        >>> test_every_row_is_read()
    """
    number = st.floats(-1e3, 1e3)
    rows = draw(st.lists(st.tuples(scan_names(), st.tuples(number, number, number), number), max_size=20))
    cells = [(name, *map(repr, (*center, diameter))) for name, center, diameter in rows]
    header = draw(st.sampled_from(_NAMED_HEADERS + _ORDERED_HEADERS))
    order = draw(st.permutations(range(5))) if header in _NAMED_HEADERS else range(5)
    encoding = draw(st.sampled_from(["utf-8", "gb18030"]))
    return FileCase(_csv(draw, header, cells, order, encoding), tuple(rows))


@st.composite
def box_tables(draw: st.DrawFn) -> FileCase[BoxRows]:
    """Draw a box table of 8-bit stacks: both spellings of its columns, any order, with or without diameters.

    Example:
        >>> from hypothesis import given
        >>> from lung_nodule_ct.formats.tables import parse_boxes
        >>> @given(box_tables())
        ... def test_every_row_is_read(case):
        ...     rows = parse_boxes(case.data).good
        ...     assert [(row.pid, row.low, row.high, row.diameter) for row in rows] == list(case.content)
        >>> test_every_row_is_read()
    """
    has_diameter = draw(st.booleans())
    ends = st.tuples(*[st.integers(-5, 600)] * 3)
    diameter = st.floats(0.1, 100) if has_diameter else st.none()
    rows = draw(st.lists(st.tuples(scan_names(), ends, ends, diameter), max_size=20))
    suffix = draw(st.sampled_from(["", ".0"]))  # spreadsheets may write the integer 5 as 5.0
    cells = []
    for pid, low, high, size in rows:
        written = [f"{end}{suffix}" for pair in zip(low[::-1], high[::-1], strict=True) for end in pair]
        cells.append([pid, *written, *([repr(size)] if has_diameter else [])])
    columns = draw(st.sampled_from([BOX_COLUMNS.removesuffix(",diameter"), SPLIT_BOX_COLUMNS]))
    header = columns + ",diameter" * has_diameter
    order = draw(st.permutations(range(7 + has_diameter)))
    return FileCase(_csv(draw, header, cells, order), tuple(rows))


@st.composite
def split_lists(draw: st.DrawFn) -> FileCase[SplitEntries]:
    r"""Draw a split list: stems, stems with a class, paths with slashes or backslashes, paths with boxes.

    Example:
        >>> from hypothesis import given
        >>> from lung_nodule_ct.formats.split_lists import parse_split_list
        >>> @given(split_lists())
        ... def test_every_entry_is_read(case):
        ...     assert [(entry.stem, entry.boxes) for entry in parse_split_list(case.data)] == list(case.content)
        >>> test_every_entry_is_read()
    """
    end = st.integers(0, 511).map(float)
    boxes = st.lists(st.tuples(end, end, end, end), max_size=3).map(tuple)
    lines, entries = [], []
    for stem, listed in draw(st.lists(st.tuples(scan_names(), boxes), max_size=10)):
        folder = draw(st.sampled_from(["", "JPEGImages/", "some folder/JPEGImages/", "D:\\my data\\"]))
        suffix = draw(st.sampled_from([".jpg", ".JPG", ".bmp", ".png"]))
        written = "".join(" " + ",".join(f"{value:g}" for value in box) for box in listed)
        with_boxes = (f"{folder}{stem}{suffix}{written}", listed)
        line, kept = draw(st.sampled_from([(stem, ()), (f"{stem} 1", ()), with_boxes]))
        lines.append(line)
        entries.append((stem, kept))
    return FileCase(_text(draw, lines), tuple(entries))


def _csv(
    draw: st.DrawFn, header: str, cells: Sequence[Sequence[str]], order: Sequence[int], encoding: str = "utf-8"
) -> bytes:
    """A table with its columns in some order, and blanks or quotes around its cells."""
    rows = [*([header.split(",")] if header else []), *cells]
    delimiter = draw(st.sampled_from(",;\t"))
    around = draw(st.sampled_from(["{}", '"{}"', " {} "]))
    lines = [delimiter.join(around.format(row[column]) for column in order) for row in rows]
    return _text(draw, lines + draw(st.sampled_from([[], ["", ""], [delimiter * 4]])), encoding)


def _text(draw: st.DrawFn, lines: Sequence[str], encoding: str = "utf-8") -> bytes:
    """A text file with any line ends, with or without an end of the last line, and a byte order mark in UTF-8."""
    line_end = draw(st.sampled_from(["\n", "\r\n"]))
    mark = draw(st.sampled_from([b"", codecs.BOM_UTF8])) if encoding == "utf-8" else b""
    return mark + (line_end.join(lines) + draw(st.sampled_from(["", line_end]))).encode(encoding)


@st.composite
def archive_members(draw: st.DrawFn) -> Members:
    """Draw up to five members of an archive, some with odd names: blanks, Chinese, several dots, no suffix, deep folders.

    Example:
        >>> from hypothesis import given
        >>> @given(archive_members())
        ... def test_no_name_leaves_the_archive(members):
        ...     assert not any(name.startswith("/") or ".." in name for name in members)
        >>> test_no_name_leaves_the_archive()
    """
    folder = st.sampled_from(["", "scans/", "a b/c/", "肺结节/", "x.y/"])
    stem = st.text("abcXYZ019_- 肺", min_size=1, max_size=8)
    suffix = st.sampled_from([".mhd", ".raw", ".BMP", ".tar.gz", ""])
    names = st.builds("{}{}{}".format, folder, stem, suffix)
    content = st.binary(max_size=300_000) | st.integers(0, 400_000).map(bytes)
    return draw(st.dictionaries(names, content, max_size=5))


@st.composite
def zip_archives(draw: st.DrawFn) -> FileCase[Members]:
    """Draw a zip archive as Linux, macOS or Windows writes it: entries of folders, hidden files, backslashes.

    Example:
        >>> import io, zipfile
        >>> from hypothesis import given
        >>> @given(zip_archives())
        ... def test_nothing_is_damaged(case):
        ...     assert zipfile.ZipFile(io.BytesIO(case.data)).testzip() is None
        >>> test_nothing_is_damaged()
    """
    members = draw(archive_members())
    litter = draw(st.sets(st.sampled_from(_LITTER)))
    folders = {f"{name.rpartition('/')[0]}/" for name in members if "/" in name} if draw(st.booleans()) else set()
    stored = dict.fromkeys(sorted(folders | litter), b"") | members
    separator = draw(st.sampled_from("/\\"))
    stored = {name.replace("/", separator): data for name, data in stored.items()}
    method = draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
    return FileCase(zip_archive(stored, method=method), members)


@st.composite
def tiny_archives(draw: st.DrawFn) -> TinyArchives:
    """Draw a set of all fourteen archives with the content of :class:`TinyArchives`, stored and spelled another way.

    Folders, hidden files, the order of members, line ends, byte order and compression of volumes differ. A build of the
    archives has the same rows as a build of ``TinyArchives()``, perhaps in another order.

    Example:
        >>> from hypothesis import given, settings
        >>> @settings(max_examples=5)
        ... @given(tiny_archives())
        ... def test_all_archives_are_there(archives):
        ...     assert list(archives) == list(TinyArchives())
        >>> test_all_archives_are_there()
    """
    archives = TinyArchives()
    for archive in archives:
        members: Members = {}
        for name, data in archives[archive].items():
            if name.endswith(".mhd"):
                stem = name.removesuffix(".mhd")
                members |= _stored(draw, stem, data.decode(), archives[archive][f"{stem}.raw"])
            elif name.endswith((".csv", ".txt")):
                members[name] = _text(draw, data.decode().splitlines())
            elif not name.endswith(".raw"):
                members[name] = data
        folder = draw(st.sampled_from(["", "data/", f"top/{archive.removesuffix('.zip')}/"]))
        members |= dict.fromkeys(draw(st.sets(st.sampled_from(_LITTER))), b"")
        archives[archive] = {f"{folder}{name}": members[name] for name in draw(st.permutations(list(members)))}
    return archives


def _stored(draw: st.DrawFn, stem: str, header: str, raw: bytes) -> Members:
    """A volume of 16-bit elements as two files, compressed, in one file, or with the other byte order."""
    form = draw(st.sampled_from(["raw", "zraw", "mha", "big-endian"]))
    if form == "zraw":
        header = header.replace("CompressedData = False", "CompressedData = True").replace(".raw", ".zraw")
        return {f"{stem}.mhd": header.encode(), f"{stem}.zraw": zlib.compress(raw)}
    if form == "mha":
        return {f"{stem}.mha": header.replace(f"{stem}.raw", "LOCAL").encode() + raw}
    if form == "big-endian":
        header = header.replace("BinaryDataByteOrderMSB = False", "BinaryDataByteOrderMSB = True")
        raw = np.frombuffer(raw, "<i2").astype(">i2").tobytes()
    return {f"{stem}.mhd": header.encode(), f"{stem}.raw": raw}
