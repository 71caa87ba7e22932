"""A small file that appears whole or not at all.

Hashes of files.

Room on a disk, asked for before it is filled.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lung_nodule_ct.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Collection


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file, UTF-8 where it is text, under a hidden name and give it its own at the end. Its folder is made.

    Raises:
        OSError: It cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def hash_of(path: Path, kind: str) -> str:
    """A hash of a file (``sha256``, ``md5``), in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()


CACHE_VARIABLE: Final = "LUNG_NODULE_CT_CACHE"

_SPARE_BYTES: Final = 16 << 20


def require_free_space(what: str, need: int, folders: Collection[Path]) -> None:
    """See that so many bytes find room in some folders of the cache, which need not be there yet.

    Raises:
        OutputError: They do not.
    """
    free = min(shutil.disk_usage(_existing(folder)).free for folder in folders)
    if need and free < need + _SPARE_BYTES:
        raise OutputError(
            f"there is no room for {what} in {', '.join(map(str, folders))}",
            expected=f"{need + _SPARE_BYTES:,} bytes free",
            got=f"{free:,}",
            remedy="make room, or name another folder with LUNG_NODULE_CT_CACHE",
        )


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def cache_folder(cache: str | os.PathLike[str] | None = None) -> Path:
    """The cache's folder: ``cache``, else the variable ``LUNG_NODULE_CT_CACHE``, else the user's own."""
    chosen = cache or os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute()
    import pooch  # noqa: PLC0415 -- only where the user's own folder is asked for

    return Path(pooch.os_cache("lung_nodule_ct"))
