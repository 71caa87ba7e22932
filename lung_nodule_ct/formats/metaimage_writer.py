"""MetaImage headers and volumes, written as ITK writes them."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from lung_nodule_ct.geometry.frame import Frame

_ELEMENT_TYPES: Final = {"int16": "MET_SHORT", "uint8": "MET_UCHAR"}
_FASTEST: Final = 1


def header_fields(shape: Sequence[int], frame: Frame, data_file: str, dtype: str = "int16") -> dict[str, str | None]:
    """Return the keys of a header and their values, in the order in which they are written; ``None`` is not written.

    Args:
        shape: z, y, x in voxels.
        frame: Where the voxels are.
        data_file: Name of the file of the voxels.
        dtype: ``int16`` or ``uint8``.
    """
    return {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "TransformMatrix": _numbers(frame.matrix.T.ravel()),  # written axis by axis
        "Offset": _numbers(frame.origin),
        "CenterOfRotation": None,
        "ElementSpacing": _numbers(frame.spacing),
        "DimSize": _numbers(reversed(shape)),
        "ElementType": _ELEMENT_TYPES[dtype],
        "CompressedData": "False",
        "CompressedDataSize": None,
        "ElementDataFile": data_file,
    }


def header_text(fields: Mapping[str, str | None]) -> bytes:
    """Return a header. A key without a value is left out, and ``ElementDataFile`` is the last, as the format requires."""
    last = "ElementDataFile"
    ordered = {**{key: value for key, value in fields.items() if key != last}, last: fields[last]}
    return "".join(f"{key} = {value}\n" for key, value in ordered.items() if value is not None).encode()


def save_metaimage(path: Path, voxels: NDArray[Any], frame: Frame, *, compressed: bool = False) -> None:
    """Write one volume as a header and a file of voxels next to it. The folder is created.

    Args:
        path: The header; ends in ``.mhd``.
        voxels: int16 or uint8, axes (z, y, x).
        frame: Its frame.
        compressed: Deflate the voxels, as ``.zraw``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    data_file = path.with_suffix(".zraw" if compressed else ".raw")
    fields = header_fields(voxels.shape, frame, data_file.name, voxels.dtype.name)
    plain = voxels.astype(voxels.dtype.newbyteorder("<"), order="C", copy=False)
    if compressed:
        data = zlib.compress(plain.tobytes(), _FASTEST)
        data_file.write_bytes(data)
        fields |= {"CompressedData": "True", "CompressedDataSize": str(len(data))}
    else:
        data_file.write_bytes(plain.data)
    path.write_bytes(header_text(fields))


def _numbers(values: Iterable[float]) -> str:
    """Numbers as ITK writes them: exact, and without ``.0``."""
    return " ".join(repr(float(value)).removesuffix(".0") for value in values)
