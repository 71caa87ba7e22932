"""An archive on a filesystem that fsspec opens by URL (``s3://``, ``gs://``, ``hdfs://`` …)."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

import fsspec

from lung_nodule_ct.errors import ArchiveError

_BLOCK_BYTES: Final = 4 << 20


class FilesystemFile:
    """The bytes of an archive there. A :class:`~lung_nodule_ct.source.bytes.ByteSource`.

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
        while length > 0 and (block := self.read_at(offset, min(length, _BLOCK_BYTES))):
            yield block
            offset, length = offset + len(block), length - len(block)

    def close(self) -> None:
        """Nothing is held open: fsspec keeps its own connections."""
