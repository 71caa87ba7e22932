"""Random access to the bytes of one archive, wherever it is: here a local file, in :mod:`.remote` one on a server.

An archive on a filesystem that fsspec opens by URL (``s3://``, ``gs://``, ``hdfs://`` …).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final, Protocol

import fsspec

from lung_nodule_ct.errors import ArchiveError

_BLOCK_BYTES: Final = 1 << 20


class ByteSource(Protocol):
    """Something that can be read at any offset, from several threads."""

    @property
    def size(self) -> int:
        """Length in bytes."""

    def read_at(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``offset``, fewer only where the source ends."""

    def stream(self, offset: int, length: int) -> Generator[bytes, None, None]:
        """The same bytes in blocks of a fit size, to be read once and in their order."""

    def close(self) -> None:
        """Give back what is held open."""


class LocalFile:
    """A file on this machine."""

    def __init__(self, path: Path) -> None:
        self._name = path.name
        self._lock = threading.Lock()
        self._file = path.open("rb", buffering=0)
        self.size = os.fstat(self._file.fileno()).st_size

    def read_at(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``offset``, fewer only where the file ends.

        Raises:
            ArchiveError: The operating system could not read them.
        """
        block = bytearray(max(0, min(length, self.size - offset)))
        return bytes(block[: self.read_into(offset, memoryview(block))])

    def read_into(self, offset: int, out: memoryview) -> int:
        """The bytes from ``offset``, written over ``out``.

        Returns:
            How many: fewer than ``out`` has only where the file ends.

        Raises:
            ArchiveError: The operating system could not read them.
        """
        done = 0
        try:
            while done < len(out) and (more := self._read(offset + done, out[done:])):
                done += more
        except OSError as error:
            raise ArchiveError(f"could not be read: {error}", archive=self._name) from error
        return done

    def _read(self, offset: int, out: memoryview) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._file.fileno(), [out], offset)
        with self._lock:  # Windows: one file position for all threads
            self._file.seek(offset)
            return self._file.readinto(out)

    def stream(self, offset: int, length: int) -> Generator[bytes, None, None]:
        """The same bytes, in blocks of a mebibyte.

        Raises:
            ArchiveError: The operating system could not read them.
        """
        while length > 0 and (block := self.read_at(offset, min(length, _BLOCK_BYTES))):
            yield block
            offset, length = offset + len(block), length - len(block)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


_FSSPEC_BLOCK_BYTES: Final = 4 << 20


class FilesystemFile:
    """The bytes of an archive there. A :class:`~lung_nodule_ct.sources.byte_sources.ByteSource`.

    Args:
        url: Where it is.

    Raises:
        ArchiveError: It cannot be opened.
    """

    def __init__(self, url: str) -> None:
        self._name = url.rpartition("/")[2]
        try:
            self._files, self._path = fsspec.core.url_to_fs(url)
            self.size: int = self._files.size(self._path)
        except (OSError, ValueError, ImportError) as error:
            raise ArchiveError(f"could not be opened: {error}", archive=self._name) from error

    def read_at(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``offset``, fewer only where the file ends.

        Raises:
            ArchiveError: They could not be read.
        """
        end = min(offset + length, self.size)
        if end <= offset:
            return b""
        try:
            content: Any = self._files.cat_file(self._path, start=offset, end=end)
        except (OSError, ValueError) as error:
            raise ArchiveError(f"could not be read: {error}", archive=self._name) from error
        if len(content) != end - offset:
            raise ArchiveError(
                "could not be read",
                archive=self._name,
                expected=f"{end - offset:,} bytes at {offset:,}",
                got=len(content),
            )
        return bytes(content)

    def stream(self, offset: int, length: int) -> Generator[bytes, None, None]:
        """The same bytes, in blocks of four mebibytes.

        Raises:
            ArchiveError: They could not be read.
        """
        while length > 0 and (block := self.read_at(offset, min(length, _FSSPEC_BLOCK_BYTES))):
            yield block
            offset, length = offset + len(block), length - len(block)

    def close(self) -> None:
        """Nothing is held open: fsspec keeps its own connections."""
