"""Archives on a filesystem that fsspec opens by URL (``s3://``, ``gs://``, ``hdfs://`` …), which workers of a cluster can read."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

import fsspec

from lung_nodule_ct.errors import ArchiveError, SourceError
from lung_nodule_ct.source.source import Source
from lung_nodule_ct.spec.archives import ARCHIVES, ArchiveSpec

_BLOCK_BYTES: Final = 4 << 20


def open_filesystem(url: str) -> Source:
    """The archives below a URL, at any depth.

    Args:
        url: As fsspec takes it: ``s3://bucket/folder``. Credentials are found as its implementation finds them.

    Raises:
        SourceError: There is nothing, the filesystem's package is not installed, or it cannot be reached.
    """
    try:
        files, root = fsspec.core.url_to_fs(url)
        paths = sorted(files.find(root))
    except ImportError as error:
        raise SourceError(f"{url} cannot be opened: {error}", remedy="install that package") from error
    except (OSError, ValueError) as error:
        raise SourceError(f"{url} cannot be read: {error}") from error
    if not paths:
        raise SourceError(
            f"the source {url!r} does not exist", expected="a folder that holds the dataset's zip archives"
        )
    found: dict[ArchiveSpec, tuple[str, ...]] = {}
    for path in paths:
        for spec in ARCHIVES:
            if spec.matches(path.rpartition("/")[2]):
                found[spec] = (*found.get(spec, ()), files.unstrip_protocol(path))
    single = {spec: places[0] for spec, places in found.items() if len(places) == 1}
    return Source(single, url, {spec: places for spec, places in found.items() if len(places) > 1})


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
