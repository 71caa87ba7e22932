"""Files of records, TFRecord and ArrayRecord, written from pieces. Neither needs TensorFlow."""

from __future__ import annotations

import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from lung_nodule_ct.system.disk_writes import DirectFile, Settling
from lung_nodule_ct.system.imports import needing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from lung_nodule_ct.targets.tfds.example import Piece

RecordForm = Literal["tfrecord", "array_record"]

_ARRAY_RECORD_OPTIONS = "group_size:1,zstd:1,max_parallelism:1"
"""A record a chunk, as TFDS has it for random access; zstd 1 writes 4 times as fast as TFDS's default (brotli) and every reader
reads it; one chunk in flight bounds the memory."""


@contextmanager
def open_records(path: Path, form: RecordForm) -> Iterator[Callable[[Sequence[Piece]], None]]:
    """A file that takes records, each as the pieces it consists of.

    Args:
        path: The file, which is replaced.
        form: ``tfrecord`` or ``array_record``.

    Raises:
        OSError: It cannot be written.
        MissingExtraError: The extra ``tfds`` is not installed.
    """
    with (_tfrecord if form == "tfrecord" else _array_record)(path) as write:
        yield write


@contextmanager
def _tfrecord(path: Path) -> Iterator[Callable[[Sequence[Piece]], None]]:
    """Length, its checksum, the data, its checksum (tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details)."""
    with needing("tfds", "writing TFRecord"):
        import google_crc32c  # noqa: PLC0415

    with DirectFile(path) as file:

        def write(pieces: Sequence[Piece]) -> None:
            length = struct.pack("<Q", sum(len(piece) for piece in pieces))
            file.write(length + _masked(google_crc32c.value(length)))
            crc = 0
            for piece in pieces:
                crc = google_crc32c.extend(crc, piece)
                file.write(piece)
            file.write(_masked(crc))

        yield write


def _masked(crc: int) -> bytes:
    """As TFRecord stores a CRC-32C: rotated by 15 bits, plus a constant."""
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


@contextmanager
def _array_record(path: Path) -> Iterator[Callable[[Sequence[Piece]], None]]:
    with needing("tfds", "writing ArrayRecord"):
        from array_record.python.array_record_module import ArrayRecordWriter  # noqa: PLC0415

    with Settling() as settling:
        writer = ArrayRecordWriter(str(path), _ARRAY_RECORD_OPTIONS)

        def write(pieces: Sequence[Piece]) -> None:
            writer.write(b"".join(pieces))
            settling.more(path)

        try:
            yield write
        finally:
            try:
                writer.close()
            except RuntimeError as error:
                raise OSError(str(error)) from error
