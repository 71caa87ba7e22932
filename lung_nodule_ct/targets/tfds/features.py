"""The schema as a TFDS ``FeaturesDict`` of built-in features, and rows as serialised ``tf.train.Example``.

TFDS has no null that reads alike with and without TensorFlow, so unknown values are sentinels: an empty string; -1 for integers,
categories and flags, which are then int8; NaN; and an array of shape (1, 1, 3).

The serialiser of TFDS copies a volume four times. :class:`ExamplePieces` serialises everything except voxels with it, computes the bytes
before the voxels, and passes the array itself on as the next piece. Format: Protocol Buffers encoding
(protobuf.dev/programming-guides/encoding) of ``tensorflow/core/example/{example,feature}.proto``; keys and types are those of
``Tensor(encoding="bytes")`` of TFDS.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from lung_nodule_ct.declaration.schema import (
    Category,
    Flag,
    Integer,
    Picture,
    Real,
    Records,
    Schema,
    Text,
    Vector,
    Voxels,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lung_nodule_ct.declaration.schema import Column, ColumnType


ABSENT_SHAPE = (1, 1, 3)
"""Shape of a volume that is missing: without TensorFlow, TFDS cannot read arrays of fewer than three bytes."""
NORMALIZED_BOX = "bbox_normalized"
"""A field next to ``bbox``: ymin, xmin, ymax, xmax as fractions of the image, clipped to it, as TFDS draws boxes."""


def to_features_dict(schema: Schema) -> tfds.features.FeaturesDict:
    """Return the schema as features, in order."""
    return tfds.features.FeaturesDict({column.name: _feature(column) for column in schema.columns})


def to_tfds_example(schema: Schema, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row as an example. Voxels are not copied."""
    example = {column.name: _value(column.type, row[column.name]) for column in schema.columns}
    for column in schema.columns:
        if _has_boxes(column):
            for entry in example[column.name]:
                entry[NORMALIZED_BOX] = _normalized(entry["bbox"], row["width"], row["height"])
    return example


def _feature(column: Column) -> Any:
    features = tfds.features
    match column.type:
        case Text():
            return features.Text(doc=column.doc)
        case Flag():
            return features.Scalar(np.int8 if column.nullable else np.bool_, doc=column.doc)
        case Integer(bits):
            return features.Scalar(np.dtype(f"int{bits}").type, doc=column.doc)
        case Real():
            return _numbers((), column.type, column.doc)
        case Category(names):
            return features.ClassLabel(names=list(names), doc=column.doc)
        case Vector(item, length):
            return _numbers((length,), item, column.doc)
        case Picture():
            return features.Image(shape=(None, None, 3), doc=column.doc)
        case Voxels(dtype):
            # the only encoding that is neither slow (zlib) nor stores every voxel as a separate number (none)
            voxel = np.dtype(dtype).type
            return features.Tensor(shape=(None, None, None), dtype=voxel, encoding="bytes", doc=column.doc)
        case Records(fields):
            inner = {field.name: _feature(field) for field in fields}
            if _has_boxes(column):
                inner[NORMALIZED_BOX] = features.BBoxFeature()
            return features.Sequence(inner, doc=column.doc)


def _numbers(shape: tuple[int, ...], item: Integer | Real, doc: str) -> Any:
    """A feature that keeps numbers exactly: TFDS would store a list of float64 in 32 bits."""
    dtype = np.dtype(f"{'int' if isinstance(item, Integer) else 'float'}{item.bits}").type
    encoding = "bytes" if dtype is np.float64 else "none"
    return tfds.features.Tensor(shape=shape, dtype=dtype, encoding=encoding, doc=doc)


def _has_boxes(column: Column) -> bool:
    """Whether a column holds boxes in an image."""
    return isinstance(column.type, Records) and any(field.name == "bbox" for field in column.type.fields)


def _value(kind: ColumnType, value: Any) -> Any:
    match kind:
        case Text():
            return value or ""
        case Real(bits):
            return np.asarray(np.nan if value is None else value, f"float{bits}")
        case Flag() | Integer() | Category():
            return -1 if value is None else value
        case Vector(item, length):
            unknown = -1 if isinstance(item, Integer) else np.nan
            dtype = f"int{item.bits}" if isinstance(item, Integer) else f"float{item.bits}"
            return np.asarray([unknown] * length if value is None else value, dtype)
        case Picture():
            return io.BytesIO(_readable(value))
        case Voxels(dtype):
            return np.zeros(ABSENT_SHAPE, dtype) if value is None else value
        case Records(fields):
            return [{field.name: _value(field.type, entry[field.name]) for field in fields} for entry in value]


def _readable(encoded: bytes) -> bytes:
    """The image itself if TFDS can read it as RGB with and without TensorFlow, otherwise a lossless PNG. TFDS cannot read grey BMP."""
    with Image.open(io.BytesIO(encoded), formats=("BMP", "JPEG", "PNG")) as image:
        if image.format in ("JPEG", "PNG") and image.mode == "RGB":
            return encoded
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()


def _normalized(box: Any, width: int, height: int) -> tfds.features.BBox:
    xmin, ymin, xmax, ymax = (float(end) for end in box)
    return tfds.features.BBox(
        ymin=_part(ymin, height), xmin=_part(xmin, width), ymax=_part(ymax, height), xmax=_part(xmax, width)
    )


def _part(end: float, size: int) -> float:
    return min(1.0, max(0.0, end / size))


Piece = Any
"""``bytes``, or a flat array of uint8, which is not a buffer in the types of NumPy for Python 3.11."""

_FIRST, _SECOND = b"\x0a", b"\x12"
"""Tags of fields 1 and 2 with a message, a string or bytes."""


class ExamplePieces:
    """Serialises the examples of a config as pieces.

    Args:
        schema: The columns.
    """

    def __init__(self, schema: Schema) -> None:
        self._small = Schema(tuple(column for column in schema.columns if not isinstance(column.type, Voxels)))
        self._voxels = {column.name: column.type for column in schema.columns if isinstance(column.type, Voxels)}
        self._features = to_features_dict(self._small)
        self._serializer = ExampleSerializer(self._features.get_serialized_info())

    def of(self, row: Mapping[str, Any]) -> list[Piece]:
        """Return the pieces that together are the serialised example of a row.

        Args:
            row: Voxels as arrays (z, y, x), ``None`` where there are none.
        """
        example = self._serializer.get_tf_example(self._features.encode_example(to_tfds_example(self._small, row)))
        pieces: list[Piece] = []
        for name, voxels in self._voxels.items():
            array = np.zeros(ABSENT_SHAPE, voxels.dtype) if row[name] is None else row[name]
            example.features.feature[f"{name}/shape"].int64_list.value.extend(array.shape)
            pieces += [_prefix(f"{name}/value".encode(), array.nbytes), array.reshape(-1).view(np.uint8)]
        head = example.features.SerializeToString(deterministic=True)
        size = len(head) + sum(len(piece) for piece in pieces)
        return [_FIRST + _varint(size) + head, *pieces]


def _prefix(key: bytes, size: int) -> bytes:
    """The bytes before the ``size`` bytes of the only value of a feature: an entry of the map ``Features.feature``."""
    value = _FIRST + _varint(size)  # BytesList.value
    feature = _FIRST + _varint(len(value) + size) + value  # Feature.bytes_list
    entry = _FIRST + _varint(len(key)) + key + _SECOND + _varint(len(feature) + size) + feature
    return _FIRST + _varint(len(entry) + size) + entry


def _varint(number: int) -> bytes:
    """A number as protobuf varint: seven bits per byte, the lowest first; the highest bit marks that more bytes follow."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
