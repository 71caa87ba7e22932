"""The neutral schema as a TFDS ``FeaturesDict``, of built-in features only, and rows as the examples that it encodes.

TFDS has no null that reads alike with and without TensorFlow, so what is not known is a sentinel: an empty string, -1 (for
integers, categories and flags, which are then int8), NaN, an array of shape (1, 1, 3).

Rows as serialised ``tf.train.Example``, in pieces: what is small by TFDS's own serializer, voxels where they lie.

TFDS's serializer copies a volume four times on its way into a record. Here the bytes that stand before it are worked out,
and the array itself is the next piece. Format: Protocol Buffers encoding (protobuf.dev/programming-guides/encoding) of
``tensorflow/core/example/{example,feature}.proto``; keys and types are those of ``Tensor(encoding="bytes")`` of TFDS.
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
"""Of a volume that is not there: the path without TensorFlow cannot read arrays of fewer than three bytes."""
NORMALIZED_BOX = "bbox_normalized"
"""A field beside ``bbox``: ymin, xmin, ymax, xmax in parts of the image, clipped to it, as TFDS draws boxes."""


def to_features_dict(schema: Schema) -> tfds.features.FeaturesDict:
    """The schema as features, in its order."""
    return tfds.features.FeaturesDict({column.name: _feature(column) for column in schema.columns})


def to_tfds_example(schema: Schema, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as an example. Voxels are handed on as they are, not copied."""
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
            # the only encoding that is neither slow (zlib) nor turns every voxel into a number of its own (none)
            voxel = np.dtype(dtype).type
            return features.Tensor(shape=(None, None, None), dtype=voxel, encoding="bytes", doc=column.doc)
        case Records(fields):
            inner = {field.name: _feature(field) for field in fields}
            if _has_boxes(column):
                inner[NORMALIZED_BOX] = features.BBoxFeature()
            return features.Sequence(inner, doc=column.doc)


def _numbers(shape: tuple[int, ...], item: Integer | Real, doc: str) -> Any:
    """Numbers, exactly: as its own list of floats TFDS would keep a float64 in 32 bits."""
    dtype = np.dtype(f"{'int' if isinstance(item, Integer) else 'float'}{item.bits}").type
    encoding = "bytes" if dtype is np.float64 else "none"
    return tfds.features.Tensor(shape=shape, dtype=dtype, encoding=encoding, doc=doc)


def _has_boxes(column: Column) -> bool:
    """Whether these are boxes in an image."""
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
    """The image as it is if TFDS can read it as RGB by both its paths (it cannot read grey BMP), else as PNG, without loss."""
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
"""``bytes``, or a flat array of uint8 (which NumPy's types for Python 3.11 do not call a buffer)."""

_FIRST, _SECOND = b"\x0a", b"\x12"
"""Tags of fields 1 and 2 where they hold a message, text or bytes."""


class ExamplePieces:
    """Makes the pieces of a config's examples.

    Args:
        schema: The columns.
    """

    def __init__(self, schema: Schema) -> None:
        self._light = Schema(tuple(column for column in schema.columns if not isinstance(column.type, Voxels)))
        self._heavy = {column.name: column.type for column in schema.columns if isinstance(column.type, Voxels)}
        self._features = to_features_dict(self._light)
        self._serializer = ExampleSerializer(self._features.get_serialized_info())

    def of(self, row: Mapping[str, Any]) -> list[Piece]:
        """The pieces that, one after the other, are the example of a row.

        Args:
            row: As :func:`lung_nodule_ct.read.voxel_columns.rows_of` gives it: voxels as arrays (z, y, x), ``None`` where there are none.
        """
        example = self._serializer.get_tf_example(self._features.encode_example(to_tfds_example(self._light, row)))
        pieces: list[Piece] = []
        for name, voxels in self._heavy.items():
            array = np.zeros(ABSENT_SHAPE, voxels.dtype) if row[name] is None else row[name]
            example.features.feature[f"{name}/shape"].int64_list.value.extend(array.shape)
            pieces += [_before(f"{name}/value".encode(), array.nbytes), array.reshape(-1).view(np.uint8)]
        light = example.features.SerializeToString(deterministic=True)
        size = len(light) + sum(len(piece) for piece in pieces)
        return [_FIRST + _varint(size) + light, *pieces]


def _before(key: bytes, size: int) -> bytes:
    """What stands before ``size`` bytes that are the one value of a feature: an entry of the map ``Features.feature``."""
    value = _FIRST + _varint(size)  # BytesList.value
    feature = _FIRST + _varint(len(value) + size) + value  # Feature.bytes_list
    entry = _FIRST + _varint(len(key)) + key + _SECOND + _varint(len(feature) + size) + feature
    return _FIRST + _varint(len(entry) + size) + entry


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the highest bit says that more follow."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
