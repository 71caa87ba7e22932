"""Where the files of a job are: in a folder that all machines share, or at a URL that all machines can write.

In both cases a file appears at once, complete, so that two machines can write the same one.
"""

from __future__ import annotations

import shutil
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Protocol
from uuid import uuid4

from lung_nodule_ct.system.files import file_hash

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from lung_nodule_ct.system.object_store import ObjectFolder


class JobFiles(Protocol):
    """The files of a job."""

    def workplace(self) -> AbstractContextManager[Path]:
        """A new folder of this machine, in which a file is written before it is published. It is removed at the end."""

    def publish(self, path: Path, name: str) -> None:
        """Move a file from a workplace to the job. One of the same name is replaced."""

    def read(self, name: str, start: int = 0, end: int | None = None) -> bytes:
        """Read a file, or a part of it.

        Raises:
            FileNotFoundError: The file does not exist.
            OSError: It cannot be read.
        """

    def size(self, name: str) -> int | None:
        """The size of a file, ``None`` if it does not exist."""

    def sha256(self, name: str) -> str:
        """The SHA-256 of a file in hexadecimal."""

    def collect(self, name: str, target: Path) -> str | None:
        """Add a file of the job to a build on this machine, as ``target``; or return the URL under which it stays."""

    def remove_unless(self, suffix: str) -> bool:
        """Remove all files if none has this suffix, and return whether one has."""


@dataclass(frozen=True)
class SharedFiles:
    """The files of a job in a folder.

    Attributes:
        folder: The folder, under the same path on every machine.
    """

    folder: Path

    @contextmanager
    def workplace(self) -> Iterator[Path]:
        """Next to the files of the job, so that a file is published by renaming it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        place = self.folder / f"attempt-{uuid4().hex}"
        place.mkdir()
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def publish(self, path: Path, name: str) -> None:
        path.replace(self.folder / name)

    def read(self, name: str, start: int = 0, end: int | None = None) -> bytes:
        with (self.folder / name).open("rb") as file:
            file.seek(start)
            return file.read() if end is None else file.read(end - start)

    def size(self, name: str) -> int | None:
        try:
            return (self.folder / name).stat().st_size
        except OSError:
            return None

    def sha256(self, name: str) -> str:
        return file_hash(self.folder / name, "sha256")

    def collect(self, name: str, target: Path) -> None:
        """The file also stays in the folder, where the file system has hard links."""
        file = self.folder / name
        try:
            target.hardlink_to(file)
        except OSError:
            file.replace(target)

    def remove_unless(self, suffix: str) -> bool:
        """A folder of jobs that becomes empty is removed as well."""
        if any(self.folder.glob(f"*{suffix}")):
            return True
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):
            self.folder.parent.rmdir()  # only if it is empty
        return False


@dataclass(frozen=True)
class StoredFiles:
    """The files of a job at a URL.

    Attributes:
        folder: The folder at the URL.
    """

    folder: ObjectFolder

    @contextmanager
    def workplace(self) -> Iterator[Path]:
        """In the folder of this machine for temporary files, which needs space for a shard."""
        with TemporaryDirectory(prefix="lung-nodule-ct-") as place:
            yield Path(place)

    def publish(self, path: Path, name: str) -> None:
        self.folder.upload(path, name)

    def read(self, name: str, start: int = 0, end: int | None = None) -> bytes:
        return self.folder.read(name, start, end)

    def size(self, name: str) -> int | None:
        return self.folder.size(name)

    def sha256(self, name: str) -> str:
        return self.folder.sha256(name)

    def collect(self, name: str, target: Path) -> str:  # noqa: ARG002 -- the bytes stay where they are
        return f"{self.folder}/{name}"

    def remove_unless(self, suffix: str) -> bool:
        names = self.folder.files()
        if any(name.endswith(suffix) for name in names):
            return True
        self.folder.remove(names)
        return False
