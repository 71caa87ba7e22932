"""Writers of members and archives in the published layout: MetaImage, pictures, Pascal VOC, tables, workbooks, zip.

The same arguments give the same bytes: no clock and no name of a machine gets into an archive.
"""

from __future__ import annotations

import io
import struct
import zipfile
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lung_nodule_ct.declaration.archives import ARCHIVES, archives_of
from lung_nodule_ct.formats.metaimage_writer import header_fields, header_text
from lung_nodule_ct.geometry.frame import Frame

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from lung_nodule_ct.declaration.archives import Role

Members = dict[str, bytes]
"""The content of an archive by the names of its members, in their order."""

(
    CLS,
    DET2D,
    CT0,
    CT1,
    MASKS,
    NODULES,
    THICK0,
    THICK1,
    THICK2,
    THICK_NODULES,
    BMP0,
    BMP1,
    BMP2,
    BMP_TABLES,
) = (spec.name for spec in ARCHIVES)
"""The file names of the archives, in their published order."""

SHAPE: Final = (6, 10, 12)
"""Shape of the 1.25 mm volumes of :class:`~lung_nodule_ct.testing.synthetic_archives.TinyArchives`, z, y, x."""
FRAME: Final = Frame(origin=(-10.0, -20.0, 30.0), spacing=(0.8, 0.7, 1.25))
"""Frame of the 1.25 mm volumes of :class:`~lung_nodule_ct.testing.synthetic_archives.TinyArchives`."""
THICK_SHAPE: Final = (2, 10, 12)
THICK_FRAME: Final = Frame(FRAME.origin, spacing=(0.8, 0.7, 5.0))
"""Shape and frame of the 5 mm volumes of :class:`~lung_nodule_ct.testing.synthetic_archives.TinyArchives`."""

NODULE_COLUMNS: Final = "seriesuid,coordX,coordY,coordZ,diameter_mm"
"""Header of ``annotations.csv``; the centre is x, y, z in LPS mm."""
BOX_COLUMNS: Final = "pid,zmin,zmax,ymin,ymax,xmin,xmax,diameter"
"""Header of ``image_annotation_augment_diameter.csv``; the ends are voxel numbers, both inclusive."""
SPLIT_BOX_COLUMNS: Final = "pid,z_min,z_max,y_min,y_max,x_min,x_max"
"""Header of ``train_anno.csv`` and ``val_anno.csv``, where the same columns are spelled another way."""

_PROPERTIES: Final = "docProps/core.xml"
"""The part of a workbook that holds its times."""

_ZIP_FIELDS: Final = {
    "flags": ("<H", 6, 8),
    "method": ("<H", 8, 10),
    "crc": ("<I", 14, 16),
    "packed_size": ("<I", 18, 20),
    "size": ("<I", 22, 24),
}
"""Format of a field, and its offset in a member's local header and in its entry of the directory."""


def noise_volume(seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> NDArray[np.int16]:
    """Return a volume of noise from -1000 to 999 HU, axes (z, y, x)."""
    return np.random.default_rng(seed).integers(-1000, 1000, shape, dtype=np.int16)


def noise_picture(seed: int = 0, size: tuple[int, int] = (20, 16), kind: str = "BMP") -> bytes:
    """Return an encoded grey picture of noise.

    Args:
        seed: Seed of the noise.
        size: Width and height in pixels.
        kind: A format of Pillow: ``BMP``, ``JPEG``, ``PNG``.
    """
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0]), dtype=np.uint8)
    return encode_picture(pixels, kind)


def encode_picture(pixels: NDArray[np.uint8], kind: str, **options: Any) -> bytes:
    """Return pixels as a file.

    Args:
        pixels: Shape (height, width), or (height, width, 3) for a colour picture.
        kind: A format of Pillow.
        options: Options of the format, such as ``quality``.

    Example:
        >>> encode_picture(np.zeros((2, 3), np.uint8), "BMP")[:2]
        b'BM'
    """
    from PIL import Image  # noqa: PLC0415 -- volumes and tables need no Pillow

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def metaimage_header(name: str, shape: Sequence[int] = SHAPE, frame: Frame = FRAME, **fields: str | None) -> bytes:
    """Return a MetaImage header.

    Args:
        name: Name of the scan. The header refers to ``<name>.raw``.
        shape: z, y, x in voxels.
        frame: Where the voxels are.
        fields: Values by key, which replace or add a line; ``None`` removes the line.

    Example:
        >>> print(metaimage_header("9", (2, 3, 4), Frame(), CompressedData=None).decode(), end="")
        ObjectType = Image
        NDims = 3
        BinaryData = True
        BinaryDataByteOrderMSB = False
        TransformMatrix = 1 0 0 0 1 0 0 0 1
        Offset = 0 0 0
        ElementSpacing = 1 1 1
        DimSize = 4 3 2
        ElementType = MET_SHORT
        ElementDataFile = 9.raw
    """
    return header_text({**header_fields(shape, frame, f"{name}.raw"), **fields})


def metaimage(
    name: str, volume: NDArray[np.int16] | None = None, frame: Frame = FRAME, **fields: str | None
) -> Members:
    """Return a volume as ``<name>.mhd`` and ``<name>.raw``.

    Args:
        name: Name of the scan.
        volume: Axes (z, y, x). By default :func:`noise_volume`.
        frame: Where the voxels are.
        fields: Keys of the header, as in :func:`metaimage_header`.

    Example:
        >>> list(metaimage("7_20180102", noise_volume(1)))
        ['7_20180102.mhd', '7_20180102.raw']
    """
    volume = noise_volume() if volume is None else volume
    return {
        f"{name}.mhd": metaimage_header(name, volume.shape, frame, **fields),
        f"{name}.raw": volume.astype("<i2").tobytes(),
    }


def voc_annotation(
    *boxes: Sequence[object], filename: str = "", size: tuple[int, int] = (20, 16), name: str = "nodule"
) -> bytes:
    """Return a Pascal VOC annotation.

    Args:
        boxes: xmin, ymin, xmax, ymax in pixels, written as they are given.
        filename: Name of the picture.
        size: Its width and height in pixels.
        name: What the boxes mark.

    Example:
        >>> voc_annotation((2, 3, 9, 11), filename="9_004.jpg").decode()[:43]
        '<annotation><filename>9_004.jpg</filename><'
    """
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax>"
        "</bndbox></object>"
        for xmin, ymin, xmax, ymax in boxes
    )
    extent = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    return f"<annotation><filename>{filename}</filename>{extent}{objects}</annotation>".encode()


def table(*lines: str) -> bytes:
    r"""Return a text file of some lines: a CSV table or a split list.

    Example:
        >>> table(NODULE_COLUMNS, "9,-6.0,-17.0,33.0,3.5")
        b'seriesuid,coordX,coordY,coordZ,diameter_mm\n9,-6.0,-17.0,33.0,3.5\n'
    """
    return "".join(f"{line}\n" for line in lines).encode()


def split_files(train: Iterable[str], val: Iterable[str], folder: str = "") -> Members:
    r"""Return two split lists, ``train.txt`` and ``val.txt``.

    Args:
        train: The lines of the one.
        val: The lines of the other.
        folder: Their folder, with a slash at its end.

    Example:
        >>> split_files(["7_20180102_002", "9_004"], ["7_20190304_003"], "ImageSets/Main/")["ImageSets/Main/val.txt"]
        b'7_20190304_003\n'
    """
    return {f"{folder}train.txt": table(*train), f"{folder}val.txt": table(*val)}


def stack_tables(boxes: Mapping[str, Sequence[int]], diameters: Mapping[str, float], val: Sequence[str]) -> Members:
    """Return the tables and split lists of 8-bit stacks, with one box per case.

    Args:
        boxes: zmin, zmax, ymin, ymax, xmin, xmax by case; the ends are voxel numbers, both inclusive.
        diameters: Diameters by case.
        val: The cases for validation; all others are for training.

    Example:
        >>> files = stack_tables({"00001": (2, 4, 3, 8, 5, 9)}, {"00001": 7.5}, val=[])
        >>> print(files["image_annotation_augment_diameter.csv"].decode(), end="")
        pid,zmin,zmax,ymin,ymax,xmin,xmax,diameter
        00001,2,4,3,8,5,9,7.5
    """
    rows = {pid: ",".join(map(str, (pid, *box))) for pid, box in boxes.items()}
    train = [pid for pid in rows if pid not in val]
    return {
        "image_annotation_augment_diameter.csv": table(
            BOX_COLUMNS, *(f"{row},{diameters[pid]}" for pid, row in rows.items())
        ),
        "train_anno.csv": table(SPLIT_BOX_COLUMNS, *(rows[pid] for pid in train)),
        "val_anno.csv": table(SPLIT_BOX_COLUMNS, *(row for pid, row in rows.items() if pid in val)),
        **split_files(train, val),
    }


def workbook(
    rows: Iterable[Sequence[object]], more: Mapping[str, Iterable[Sequence[object]]] = MappingProxyType({})
) -> bytes:
    """Return an ``.xlsx``, without the times at which it was made.

    Args:
        rows: The rows of the first sheet.
        more: The rows of further sheets, by their names.

    Example:
        >>> rows = [["image", "xmin", "ymin", "xmax", "ymax"], ["9_004.jpg", 2, 3, 9, 11]]
        >>> workbook(rows) == workbook(rows)
        True
    """
    from openpyxl import Workbook  # noqa: PLC0415 -- slow to import, for one member of one archive

    book = Workbook()
    for row in rows:
        book.worksheets[0].append(list(row))
    for title, others in more.items():
        sheet = book.create_sheet(title)
        for row in others:
            sheet.append(list(row))
    buffer = io.BytesIO()
    book.save(buffer)
    with zipfile.ZipFile(buffer) as parts:
        return zip_archive(
            {
                name: _without_reference(parts.read(name), _PROPERTIES)
                for name in parts.namelist()
                if name != _PROPERTIES
            }
        )


def zip_archive(members: Mapping[str, bytes], *, method: int = zipfile.ZIP_DEFLATED, level: int | None = None) -> bytes:
    """Return a zip archive.

    Args:
        members: Content by name, in the order in which it is written.
        method: The compression method of :mod:`zipfile`.
        level: The compression level, 1 to 9.

    Example:
        >>> zip_archive({"a.txt": b"text"}) == zip_archive({"a.txt": b"text"})
        True
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            entry = zipfile.ZipInfo(name)  # dated 1980
            entry.create_system = 3  # Unix, whatever the machine
            archive.writestr(entry, data, method, level)
    return buffer.getvalue()


def overwrite_zip_field(archive: bytes, field: str, value: int) -> bytes:
    """Return a copy of a zip archive with one header field of its first member overwritten, to test how damage is reported.

    Args:
        archive: The archive.
        field: ``flags``, ``method``, ``crc``, ``packed_size`` or ``size``; both the local header and the directory change.
        value: The new value.

    Example:
        >>> damaged = overwrite_zip_field(zip_archive({"a.txt": b"text"}), "crc", 0)
        >>> zipfile.ZipFile(io.BytesIO(damaged)).testzip()
        'a.txt'
    """
    kind, local, central = _ZIP_FIELDS[field]
    changed = bytearray(archive)
    (directory,) = struct.unpack_from("<I", archive, archive.rindex(b"PK\5\6") + 16)
    struct.pack_into(kind, changed, local, value)
    struct.pack_into(kind, changed, directory + central, value)
    return bytes(changed)


def archives_by_name(by_role: Mapping[Role, Members]) -> dict[str, Members]:
    """Return the members of every archive: those of a role are in its first archive, and its other ones are empty."""
    archives: dict[str, Members] = {}
    for role, members in by_role.items():
        first, *others = archives_of(role)
        archives |= {first.name: members} | {other.name: {} for other in others}
    return archives


def write_archives(
    folder: Path,
    archives: Mapping[str, Mapping[str, bytes]],
    *,
    method: int = zipfile.ZIP_DEFLATED,
    level: int | None = None,
) -> Path:
    """Write zip archives, by file name, into a folder and return the folder. It is made if it does not exist."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, members in archives.items():
        (folder / name).write_bytes(zip_archive(members, method=method, level=level))
    return folder


def _without_reference(part: bytes, target: str) -> bytes:
    """A part of a workbook without the XML element that refers to another part."""
    start = part.find(target.encode())
    return part if start < 0 else part[: part.rfind(b"<", 0, start)] + part[part.find(b">", start) + 1 :]
