"""Random access to the bytes of an archive on this machine, on a filesystem of fsspec, or on an HTTP server.

An archive is identified by its location, a string that can be passed to other processes: a path, a URL as fsspec takes it
(``s3://bucket/a.zip``), or the string form of a :class:`RemoteLocation`.
"""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urldefrag, urlencode

from lung_nodule_ct.errors import ArchiveError


@dataclass(frozen=True, slots=True)
class RemoteLocation:
    """The location of an archive on an HTTP server. Its string form holds all of it.

    Attributes:
        url: The address of its content.
        name: Its file name.
        size: Its length in bytes, from the record.
    """

    url: str
    name: str
    size: int

    def __str__(self) -> str:
        return f"{self.url}#{urlencode({'name': self.name, 'size': self.size})}"

    @classmethod
    def parse(cls, location: str) -> RemoteLocation | None:
        """Parse the string form; return ``None`` if ``location`` is another kind of location."""
        url, fragment = urldefrag(location)
        fields = parse_qs(fragment)
        if not url.startswith(("https://", "http://")) or fields.keys() != {"name", "size"}:
            return None
        return cls(url, fields["name"][0], int(fields["size"][0]))


class ByteSource(ABC):
    """The bytes of one archive, for reading by several threads at the same time.

    Attributes:
        size: The length of the archive in bytes.
    """

    size: int
    _block_bytes: ClassVar[int] = 1 << 20

    @abstractmethod
    def read_at(self, offset: int, length: int) -> bytes:
        """Return exactly ``length`` bytes from ``offset`` on, or fewer if the archive ends before.

        Raises:
            ArchiveError: The archive cannot be read, or changed while it was read.
            DownloadError: A server does not send the bytes.
        """

    def stream(self, offset: int, length: int) -> Generator[bytes, None, None]:
        """Yield the same bytes as :meth:`read_at` in blocks of a suitable size, in their order.

        Raises:
            ArchiveError: The archive cannot be read, or changed while it was read.
            DownloadError: A server does not send the bytes.
        """
        while length > 0 and (block := self.read_at(offset, min(length, self._block_bytes))):
            yield block
            offset, length = offset + len(block), length - len(block)

    def prefetch(self, ranges: Iterable[tuple[int, int]]) -> None:  # noqa: B027 -- most sources need no requests
        """Fetch some ranges, each from a first byte to the byte after its last, that will be read soon: at most what is kept until then.

        Raises:
            ArchiveError: The archive was changed while it was read.
            DownloadError: A server does not send the bytes.
        """

    def close(self) -> None:  # noqa: B027 -- most sources have nothing to close
        """Close the file or the connections."""


class MemoryFile(ByteSource):
    """An archive in memory.

    Args:
        content: The bytes of the archive.
    """

    def __init__(self, content: bytes) -> None:
        self._content, self.size = content, len(content)

    def read_at(self, offset: int, length: int) -> bytes:
        return self._content[offset : offset + length]


class LocalFile(ByteSource):
    """An archive on this machine.

    Args:
        path: The path of the archive.

    Raises:
        ArchiveError: The file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._name = path.name
        self._lock = threading.Lock()
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise ArchiveError(f"could not be opened: {error}", archive=self._name) from error
        self.size = os.fstat(self._file.fileno()).st_size

    def read_at(self, offset: int, length: int) -> bytes:
        block = bytearray(max(0, min(length, self.size - offset)))
        return bytes(block[: self.read_into(offset, memoryview(block))])

    def read_into(self, offset: int, out: memoryview) -> int:
        """Read the bytes from ``offset`` on into ``out``.

        Returns:
            How many bytes were read: fewer than the length of ``out`` only if the file ends before.

        Raises:
            ArchiveError: The file cannot be read.
        """
        done = 0
        try:
            while done < len(out) and (more := self._read(offset + done, out[done:])):
                done += more
        except OSError as error:
            raise ArchiveError(f"could not be read: {error}", archive=self._name) from error
        return done

    def close(self) -> None:
        self._file.close()

    def _read(self, offset: int, out: memoryview) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._file.fileno(), [out], offset)
        with self._lock:  # on Windows all threads share the position in the file
            self._file.seek(offset)
            return self._file.readinto(out)


class FsspecFile(ByteSource):
    """An archive on a filesystem that fsspec opens by URL.

    Args:
        url: The URL of the archive. Credentials are found as the filesystem finds them.

    Raises:
        ArchiveError: The archive cannot be opened.
    """

    _block_bytes = 4 << 20  # every block is a request

    def __init__(self, url: str) -> None:
        import fsspec  # noqa: PLC0415 -- takes a tenth of a second, which only URLs need

        self._name = url.rpartition("/")[2]
        try:
            self._filesystem, self._path = fsspec.core.url_to_fs(url)
            self.size = self._filesystem.size(self._path)
        except (OSError, ValueError, ImportError) as error:
            raise ArchiveError(f"could not be opened: {error}", archive=self._name) from error

    def read_at(self, offset: int, length: int) -> bytes:
        end = min(offset + length, self.size)
        if end <= offset:
            return b""
        try:
            content: Any = self._filesystem.cat_file(self._path, start=offset, end=end)
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


def file_name_of(location: str) -> str:
    """Return the file name of the archive at a location."""
    if remote := RemoteLocation.parse(location):
        return remote.name
    return location.rpartition("/")[2] if "://" in location else Path(location).name
