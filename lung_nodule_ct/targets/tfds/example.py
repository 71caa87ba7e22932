"""Rows as serialised ``tf.train.Example``, in pieces: what is small by TFDS's own serializer, voxels where they lie.

TFDS's serializer copies a volume four times on its way into a record. Here the bytes that stand before it are worked out,
and the array itself is the next piece. Format: Protocol Buffers encoding (protobuf.dev/programming-guides/encoding) of
``tensorflow/core/example/{example,feature}.proto``; keys and types are those of ``Tensor(encoding="bytes")`` of TFDS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from lung_nodule_ct.declaration.schema import Schema, Voxels
from lung_nodule_ct.targets.tfds.features import ABSENT_SHAPE, to_features_dict, to_tfds_example

if TYPE_CHECKING:
    from collections.abc import Mapping

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
        self._light = Schema(tuple(column for column in schema.columns if not isinstance(column.kind, Voxels)))
        self._heavy = {column.name: column.kind for column in schema.columns if isinstance(column.kind, Voxels)}
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
