"""A folder of an object store, or of another filesystem that fsspec opens by URL: its files are written as a whole, and copied where they are.

An object store has no folders, no renaming and no locks. A file appears when all its bytes have arrived, replaces one of the same name, and is
read by everybody from then on. An operation that fails is tried again, unless its result would be the same.
"""

from __future__ import annotations

import hashlib
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from lung_nodule_ct.errors import OptionError, OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""The beginning of a URL, also of one that :class:`pathlib.Path` has read. The drive of a Windows path has one letter."""
_ATTEMPTS: Final = 3
_FINAL: Final = (FileNotFoundError, PermissionError, NotImplementedError, ImportError)
_BLOCK_BYTES: Final = 16 << 20
_COPIES: Final = 32
"""At a time. The bytes stay in the store, so that a copy only takes a request of this machine, and patience."""

T = TypeVar("T")


def is_url(folder: object) -> bool:
    """Whether the name of a folder is a URL.

    Example:
        >>> is_url("s3://bucket/folder"), is_url("C:/builds"), is_url("builds/a")
        (True, False, False)
    """
    return _URL.match(str(folder)) is not None


@dataclass(frozen=True)
class ObjectFolder:
    """A folder at a URL. It can be sent to other processes, which find credentials as the filesystem finds them.

    Attributes:
        url: The URL as fsspec takes it, as ``s3://bucket/folder``.

    Raises:
        OptionError: The URL names no folder or one of this machine, or has characters that readers take for a pattern.
    """

    url: str

    def __post_init__(self) -> None:
        url = re.sub(r":/(?!/)", "://", self.url, count=1)  # as a path spells it
        object.__setattr__(self, "url", url.rstrip("/"))
        if self.url.startswith("file:"):
            raise OptionError("out", "a folder of this machine is given by its path", got=self.url)
        if not self.url.partition("://")[2]:
            raise OptionError("out", "expected a folder in the URL, as s3://bucket/folder", got=self.url)
        if found := re.search(r"[*?\[\]]", self.url):
            raise OptionError("out", f"readers take {found[0]} in a URL for a pattern", got=self.url)

    def __truediv__(self, name: str) -> ObjectFolder:
        """The folder with a name in this one."""
        return ObjectFolder(f"{self.url}/{name}")

    def __str__(self) -> str:
        return self.url

    def files(self) -> dict[str, int]:
        """The size of every file in the folder and below, by its name relative to the folder.

        Raises:
            OutputError: The folder cannot be listed. One that does not exist is empty.
        """
        try:
            found = self._tried(lambda files, root: (root, files.find(root, detail=True)))
        except FileNotFoundError:
            return {}
        root, entries = found
        prefix = f"{root.rstrip('/')}/"
        return {
            path.removeprefix(prefix): int(entry["size"]) for path, entry in entries.items() if path.startswith(prefix)
        }

    def size(self, name: str) -> int | None:
        """The size of a file, ``None`` if it does not exist.

        Raises:
            OutputError: The store does not answer.
        """
        try:
            return int(self._tried(lambda files, root: files.info(f"{root}/{name}"))["size"])
        except FileNotFoundError:
            return None

    def read(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        """Read a file, or a part of it.

        Raises:
            FileNotFoundError: The file does not exist.
            OutputError: It cannot be read.
        """
        return bytes(self._tried(lambda files, root: files.cat_file(f"{root}/{name}", start=start, end=end)))

    def sha256(self, name: str) -> str:
        """The SHA-256 of a file in hexadecimal. The file is read in blocks.

        Raises:
            FileNotFoundError: The file does not exist.
            OutputError: It cannot be read.
        """
        hashed = hashlib.sha256()
        for start in range(0, self.size(name) or 0, _BLOCK_BYTES):
            hashed.update(self.read(name, start, start + _BLOCK_BYTES))
        return hashed.hexdigest()

    def write(self, name: str, content: bytes) -> None:
        """Write a small file.

        Raises:
            OutputError: It cannot be written.
        """
        self._changed(lambda files, root: files.pipe_file(f"{root}/{name}", content))

    def upload(self, path: Path, name: str) -> None:
        """Copy a file of this machine.

        Raises:
            OutputError: It cannot be written.
        """
        self._changed(lambda files, root: files.put_file(str(path), f"{root}/{name}"))

    def copy(self, names: Mapping[str, str]) -> None:
        """Copy files within the store. Their bytes do not pass this machine, where the store can do that.

        Args:
            names: The new name by the present name.

        Raises:
            OutputError: A file cannot be copied.
        """

        def copy(item: tuple[str, str]) -> None:
            old, new = item
            self._changed(lambda files, root: files.cp_file(f"{root}/{old}", f"{root}/{new}"))

        with ThreadPoolExecutor(_COPIES) as pool:
            list(pool.map(copy, names.items()))

    def remove(self, names: Collection[str]) -> None:
        """Remove files that exist.

        Raises:
            OutputError: A file cannot be removed.
        """
        if names:
            self._changed(lambda files, root: files.rm([f"{root}/{name}" for name in sorted(names)]))

    def _changed(self, action: Callable[[Any, str], object]) -> None:
        """Change the store. What is missing then, as the bucket, is not an answer but an error."""
        try:
            self._tried(action)
        except FileNotFoundError as error:
            raise OutputError(f"{self.url} cannot be written: {error}") from error

    def _tried(self, action: Callable[[Any, str], T]) -> T:
        """Return the result of an action with the filesystem and the path of the folder in it.

        Raises:
            FileNotFoundError: What the action reads does not exist.
            OutputError: The filesystem cannot be opened, or the action failed each time.
        """
        import fsspec  # noqa: PLC0415 -- takes a tenth of a second, which only URLs need

        attempt = 1
        while True:
            try:
                # a listing that is kept would not show what other machines have written since
                return action(*fsspec.core.url_to_fs(self.url, use_listings_cache=False))
            except FileNotFoundError:
                raise
            except Exception as error:
                if attempt == _ATTEMPTS or isinstance(error, _FINAL):
                    raise _store_error(self.url, error) from error
            time.sleep(attempt)
            attempt += 1


def _store_error(url: str, error: Exception) -> OutputError:
    """The error of a filesystem, whose classes differ from one to the other."""
    text = " ".join(str(error).split())[:500]
    if isinstance(error, ImportError):
        extra = 'pip install "lung_nodule_ct[s3]"' if url.startswith(("s3:", "s3a:")) else "pip install it"
        return OutputError(f"{url} cannot be opened: {text}", remedy=f"on all machines of the build: {extra}")
    return OutputError(
        f"{url} cannot be read or written: {text or type(error).__name__}",
        remedy="check the URL, the credentials and the endpoint; then run the same command again",
    )
