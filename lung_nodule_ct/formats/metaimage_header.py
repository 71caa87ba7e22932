"""MetaImage headers (``.mhd``, and the head of ``.mha``): the geometry that ITK reports for them.

Format: https://itk.org/Wiki/ITK/MetaIO/Documentation. Where that page gives no rule, this module does what SimpleITK 2.5 does, which the
tests compare it with: the header ends at ``ElementDataFile``; ``Origin`` takes precedence over ``Offset``, and ``Offset`` over
``Position``; ``TransformMatrix`` over ``Rotation``, and ``Rotation`` over ``Orientation``; a negative spacing reverses its axis. The
matrix lists the axes one after the other, so the direction matrix of ITK is its transpose.

Unlike ITK, this module reports every value that is missing, repaired, contradicted or not applied, and never reads fewer or more bytes
than the header states. A header of any content takes time in proportion to its length.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from lung_nodule_ct.declaration.findings import Code
from lung_nodule_ct.declaration.identity import quoted
from lung_nodule_ct.formats.metaimage_meaning import Issue, meaning_issues
from lung_nodule_ct.formats.text import LARGEST, decode_text, read_numbers
from lung_nodule_ct.geometry.frame import IDENTITY, Frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

MAX_HEADER_BYTES: Final = 1 << 20
_MAX_NAME = 4096
"""The maximum length of the value of ElementDataFile, which is a path."""
_MAX_FILES = 1 << 16
"""The maximum number of data files of a volume, which is one per slice."""
_MAX_SHOWN = 20
"""Keys that an irregularity lists."""

#: The element types of MetaIO; MET_LONG has four bytes on every machine (metaTypes.h).
_DTYPES: Final = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_KNOWN = {
    name.lower(): name
    for name in [
        "ObjectType",
        "ObjectSubType",
        "NDims",
        "Name",
        "ID",
        "ParentID",
        "Comment",
        "Color",
        "AcquisitionDate",
        "TransformType",
        "BinaryData",
        "BinaryDataByteOrderMSB",
        "ElementByteOrderMSB",
        "CompressedData",
        "CompressedDataSize",
        "CompressionLevel",
        "TransformMatrix",
        "Rotation",
        "Orientation",
        "Offset",
        "Position",
        "Origin",
        "CenterOfRotation",
        "AnatomicalOrientation",
        "DistanceUnits",
        "ElementSpacing",
        "ElementSize",
        "DimSize",
        "ElementType",
        "ElementNumberOfChannels",
        "ElementMin",
        "ElementMax",
        "ElementDataFile",
        "HeaderSize",
        "HeaderSizePerSlice",
        "Modality",
        "SequenceID",
        "ElementToIntensityFunctionSlope",
        "ElementToIntensityFunctionOffset",
    ]
}
_FREE_TEXTS: Final = {"Comment", "Name", "ID", "ParentID", "ObjectSubType", "AcquisitionDate", "Color", "SequenceID"}
"""Keys that say nothing about the voxels, so that it does not matter if they occur twice."""
_LIST = r"LIST(?:\s+\d+)?D?"
#: A location of elements other than a file name, followed by a comment. A file name may contain #.
_COMMENTED = re.compile(rf"(LOCAL|{_LIST}|[^%#]*%\d*d[^%#]*(?:\s\d+){{2,3}})\s*#.*", re.IGNORECASE)
_PATTERN = re.compile(
    r"(?P<name>[^%]*%0?\d{0,2}d[^%]*?)(?:\s+(?P<first>\d{1,9})\s+(?P<last>\d{1,9})(?:\s+(?P<step>\d{1,9}))?)?$"
)


class HeaderError(ValueError):
    """A header that cannot be read; ``expected`` and ``got`` give the reason."""

    def __init__(self, problem: str, expected: str, got: str) -> None:
        super().__init__(problem)
        self.problem, self.expected, self.got = problem, expected, got


@dataclass(frozen=True, slots=True)
class Header:
    """The content of a MetaImage header.

    Attributes:
        shape: Shape of the volume, (z, y, x).
        dtype: Type of the stored elements, with their byte order.
        frame: Origin, spacing and direction.
        data_files: Names of the files with the elements, in z order; empty if the elements follow the header.
        data_offset: Offset of the elements in a file that starts with the header.
        compressed: Whether the elements of each file are a zlib stream.
        text: Whether they are written as text.
        skip: Bytes to skip at the start of a data file; -1 if the elements are its last bytes.
        issues: Irregularities, as (code, what the header contains, what was done).
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[np.generic]
    frame: Frame
    data_files: tuple[str, ...]
    data_offset: int = 0
    compressed: bool = False
    text: bool = False
    skip: int = 0
    issues: tuple[Issue, ...] = ()

    @property
    def data_bytes(self) -> int:
        """Size of the uncompressed elements in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def parse_header(data: bytes) -> Header:
    """Parse the header at the start of ``data``, which may continue with elements (``.mha``).

    Raises:
        HeaderError: A key is missing, contradictory or not supported.
    """
    fields, rest, data_offset, issues = _split(data)

    def get(*names: str) -> str | None:
        """The first of some synonyms that is present, in the order of preference of ITK."""
        given = [name for name in names if name in fields]
        if len({tuple(fields[name].split()) for name in given}) > 1:
            listed = ", ".join(f"{name} = {quoted(fields[name][:80])}" for name in given)
            issues.append((Code.HEADER_CONFLICT, listed, f"{given[0]} is used, as ITK does"))
        return fields[given[0]] if given else None

    def need(name: str) -> str:
        value = get(name)
        if value is None:
            raise HeaderError(f"the header has no {name}", f"a line '{name} = …'", "none")
        return value

    if fields.get("ObjectType", "Image") != "Image":
        raise HeaderError("the header does not describe an image", "ObjectType = Image", fields["ObjectType"])
    dimensions = _integers(need("NDims"), "NDims", 1)[0]
    if dimensions != 3:
        raise HeaderError("the image is not a volume", "NDims = 3", str(dimensions))
    channels = _integers(get("ElementNumberOfChannels") or "1", "ElementNumberOfChannels", 1)[0]
    if channels != 1:
        raise HeaderError("the volume has more than one channel", "ElementNumberOfChannels = 1", str(channels))
    size = _integers(need("DimSize"), "DimSize", 3)
    if min(size) < 1:
        raise HeaderError("the volume has no extent", "three positive numbers in DimSize", str(list(size)))
    kind = need("ElementType")
    if kind not in _DTYPES:
        raise HeaderError("the element type is not supported", f"one of {', '.join(_DTYPES)}", kind)
    big_endian = _truth(get("BinaryDataByteOrderMSB", "ElementByteOrderMSB"))
    named = rest if rest is not None else need("ElementDataFile")
    files = _data_files(named, data, data_offset, size[2], issues)
    frame = _frame(get, issues)
    issues += meaning_issues(fields, frame)
    return Header(
        shape=(size[2], size[1], size[0]),
        dtype=np.dtype(_DTYPES[kind]).newbyteorder(">" if big_endian else "<"),
        frame=frame,
        data_files=files,
        data_offset=data_offset,
        compressed=_truth(get("CompressedData")),
        text=get("BinaryData") is not None and not _truth(get("BinaryData")),
        skip=_integers(get("HeaderSize") or "0", "HeaderSize", 1)[0],
        issues=tuple(issues),
    )


def _split(data: bytes) -> tuple[dict[str, str], str | None, int, list[Issue]]:
    """The fields up to ElementDataFile, its value, the end of the header, and irregularities."""
    issues: list[Issue] = []
    given: defaultdict[str, list[str]] = defaultdict(list)
    spelled: dict[str, str] = {}
    keyless: list[str] = []
    named = None
    position = 3 if data.startswith(b"\xef\xbb\xbf") else 0
    limit = min(len(data), MAX_HEADER_BYTES)
    while position < limit and named is None:
        end = data.find(b"\n", position, limit)
        end = limit if end < 0 else end
        line, position = decode_text(data[position:end]).strip(), end + 1
        if not line or line.startswith("#"):
            continue
        key, separator, value = _key_and_value(line)
        if not separator:
            keyless.append(line)
            continue
        known = _KNOWN.get(key.lower(), key)
        if known != key:
            spelled.setdefault(known, key)
        if known == "ElementDataFile":
            named = _location(value, data[position:limit], issues)
        elif known != "Comment" and "#" in value:
            if comment_after(known) not in issues:
                issues.append(comment_after(known))
            value = value.partition("#")[0].strip()
        given[known].append(value)
    issues += [(Code.HEADER_REPAIRED, f"key {quoted(key)}", f"read as {known}") for known, key in spelled.items()]
    if keyless:
        more = f", and {len(keyless) - 1:,} more" if len(keyless) > 1 else ""
        issues.append((Code.HEADER_REPAIRED, f"a line without a key: {quoted(keyless[0][:80])}{more}", "left out"))
    issues += _contradictions(given)
    return {key: values[-1] for key, values in given.items()}, named, position, issues


def _location(value: str, rest: bytes, issues: list[Issue]) -> str:
    """The value of ElementDataFile without a comment. Keys that follow it are reported."""
    if len(value) > _MAX_NAME:
        raise HeaderError(
            "ElementDataFile cannot be read", f"a name of at most {_MAX_NAME:,} characters", f"{len(value):,}"
        )
    if commented := _COMMENTED.fullmatch(value):
        issues.append(comment_after("ElementDataFile"))
        value = commented[1]
    if value.upper() != "LOCAL":
        issues += _keys_after(rest, value)
    return value


def _contradictions(given: dict[str, list[str]]) -> list[Issue]:
    """Irregularities for keys that occur more than once with different values; the last one is used, as in ITK."""
    issues = []
    for key, values in given.items():
        if len(values) < 2 or key not in _KNOWN.values() or key in _FREE_TEXTS:
            continue
        other = [value for value in values if _normalized(value) != _normalized(values[-1])]
        if other:
            listed = f"{key} = {quoted(other[0][:80])}, and again {key} = {quoted(values[-1][:80])}"
            issues.append((Code.HEADER_CONFLICT, listed, "the last one is used, as ITK does"))
    return issues


def _normalized(value: str) -> Sequence[object]:
    """Equal for two spellings of the same value: ``1 1 5`` and ``1.0 1.0 5.0``, ``True`` and ``true``."""
    words = value.lower().split()
    return read_numbers(words) or words


def comment_after(key: str) -> Issue:
    """The irregularity of a value that is followed by a comment."""
    return Code.HEADER_REPAIRED, f"a comment after {key}", "left out"


def _key_and_value(line: str) -> tuple[str, str, str]:
    """Key, separator and value of a line; the separator is the first ``=`` or ``:``, and empty if there is none."""
    separator = min("=:", key=lambda char: line.find(char) % (len(line) + 1))
    key, separator, value = line.partition(separator)
    return key.strip(), separator, value.strip()


def _keys_after(rest: bytes, value: str) -> list[Issue]:
    """Irregularities for keys after ElementDataFile, which ITK does not read."""
    if value.upper().startswith("LIST"):
        return []
    return _ignored(
        key for line in decode_text(rest).splitlines() if (key := _key_and_value(line)[0]).lower() in _KNOWN
    )


def _ignored(keys: Iterable[str]) -> list[Issue]:
    distinct = list(dict.fromkeys(keys))
    listed = ", ".join(quoted(key[:80]) for key in distinct[:_MAX_SHOWN]) + (
        ", …" if len(distinct) > _MAX_SHOWN else ""
    )
    return [(Code.HEADER_KEY_IGNORED, listed, "ignored, as ITK does")] if listed else []


def _names_and_keys(text: str, slices: int) -> tuple[tuple[str, ...], list[str]]:
    """The file names of a list, up to the first line that is a key, and the keys from there on."""
    lines = [line for raw in text.splitlines() if (line := raw.strip())]
    keys = [_key_and_value(line)[0] for line in lines]
    end = next(
        # if every slice has a file, a line with = is not a file name
        (at for at, key in enumerate(keys) if key.lower() in _KNOWN or (at >= slices and "=" in lines[at])),
        len(lines),
    )
    return tuple(lines[:end]), keys[end:]


def _data_files(value: str, data: bytes, offset: int, slices: int, issues: list[Issue]) -> tuple[str, ...]:
    if value.upper() == "LOCAL":
        return ()
    if re.fullmatch(_LIST, value, re.IGNORECASE):
        names, keys = _names_and_keys(decode_text(data[offset:MAX_HEADER_BYTES]), slices)
        issues += _ignored(keys)
        if not names or slices % len(names):
            raise HeaderError(
                "the list of data files does not fit",
                f"a number of files that divides {slices} slices",
                str(len(names)),
            )
        return names
    if found := _PATTERN.fullmatch(value):
        if slices > _MAX_FILES:
            raise HeaderError(
                "the volume has too many slices for one file each", f"at most {_MAX_FILES:,}", f"{slices:,}"
            )
        first, last = int(found["first"] or 1), int(found["last"] or slices)
        step = int(found["step"] or 1) or 1
        if found["first"] is None:
            last = first + slices - 1
        names = tuple(found["name"] % number for number in range(first, last + 1, step)[: slices + 1])
        if len(names) != slices:
            raise HeaderError("the pattern of data files does not fit", f"{slices} files", str(len(names)))
        return names
    if not value:
        raise HeaderError("the header names no data file", "ElementDataFile = <name>", "nothing")
    return (value,)


def _frame(get: Callable[..., str | None], issues: list[Issue]) -> Frame:
    offset = get("Origin", "Offset", "Position")
    spacing_text = get("ElementSpacing") or get("ElementSize")
    matrix_text = get("TransformMatrix", "Rotation", "Orientation")
    absent = [name for name, text in (("Offset", offset), ("ElementSpacing", spacing_text)) if text is None]
    if absent:
        issues.append(
            (Code.GEOMETRY_MISSING, f"no {' and no '.join(absent)}", "the format's default is used (0 and 1)")
        )
    origin = _reals(offset or "0 0 0", "Offset", 3)
    spacing = list(_reals(spacing_text or "1 1 1", "ElementSpacing", 3))
    if min(map(abs, spacing)) < 1 / LARGEST:
        raise HeaderError("the spacing is zero", "three numbers other than zero in ElementSpacing", spacing_text or "")
    axes = np.array(_reals(matrix_text, "TransformMatrix", 9) if matrix_text else IDENTITY).reshape(3, 3)
    for axis in range(3):
        if spacing[axis] < 0:
            spacing[axis], axes[axis] = -spacing[axis], -axes[axis]
            issues.append(
                (
                    Code.NEGATIVE_SPACING,
                    f"spacing {quoted(spacing_text)}",
                    "made positive and its axis reversed, as ITK does",
                )
            )
    direction = tuple(float(value) + 0.0 for value in axes.T.ravel())
    try:
        frame = Frame((origin[0], origin[1], origin[2]), (spacing[0], spacing[1], spacing[2]), direction)
    except ValueError as error:
        raise HeaderError(
            "the geometry is impossible", "finite numbers and an invertible matrix", str(error)
        ) from error
    if not frame.is_orthonormal:
        issues.append((Code.DIRECTION_NOT_ORTHONORMAL, f"TransformMatrix = {quoted(matrix_text)}", "used as it is"))
    return frame


def _reals(text: str, key: str, count: int) -> tuple[float, ...]:
    values = read_numbers(text.replace(",", " ").split())
    if values is None or len(values) != count:
        raise HeaderError(f"{key} cannot be read", f"{count} finite number{'s' * (count > 1)}", repr(text))
    return values


def _integers(text: str, key: str, count: int) -> tuple[int, ...]:
    values = _reals(text, key, count)
    if any(value != int(value) for value in values):
        raise HeaderError(f"{key} cannot be read", f"{count} integer{'s' * (count > 1)}", repr(text))
    return tuple(map(int, values))


def _truth(text: str | None) -> bool:
    return (text or "").strip().lower() in ("true", "t", "1", "yes")
