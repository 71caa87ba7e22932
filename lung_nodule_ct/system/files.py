"""Files on this machine: atomic writes, cached checksums, free space, and the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import zlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import platformdirs

from lung_nodule_ct.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping


PARTIAL: Final = ".partial"
CACHE_VARIABLE: Final = "LUNG_NODULE_CT_CACHE"

_SPARE_BYTES: Final = 16 << 20
_PARTIAL: Final = re.compile(r"\..+\.(?:[0-9a-f]{8}-)?\d+\.partial")


def cache_folder(cache: str | os.PathLike[str] | None = None) -> Path:
    """Return the cache folder: ``cache``, else the variable ``LUNG_NODULE_CT_CACHE``, else a folder of the user's cache."""
    chosen = cache or os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser().absolute() if chosen else platformdirs.user_cache_path("lung_nodule_ct")


def machine_key() -> bytes:
    """Return a random key of this machine and user, for hashes that name caches. It is created in the cache folder when it is first needed.

    Where the folder cannot be written, every process has another key.
    """
    path = cache_folder() / "machine.key"
    key = os.urandom(32)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = partial_of(path)
        try:
            partial.touch(mode=0o600)
            partial.write_bytes(key)
            os.link(partial, path)  # the first of several processes wins
        finally:
            partial.unlink(missing_ok=True)
    with suppress(OSError):
        return path.read_bytes()
    return key


def partial_of(path: Path) -> Path:
    """Return the hidden file next to ``path`` in which this process writes it, to be renamed when it is complete."""
    return path.with_name(f".{path.name}.{_host()}-{os.getpid()}{PARTIAL}")


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that readers see the old content or the new content, and never a part of it.

    The content is written to a hidden file in the same folder, which is then renamed. The folder is created if needed. Hidden files that
    killed processes of this machine left of the same file are removed.

    Args:
        path: The file, which is replaced.
        content: Bytes, or text to be encoded as UTF-8.

    Raises:
        OSError: The file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_of(path)
    _remove_partials(path)
    try:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def remove_partial_files(path: Path) -> None:
    """Remove what processes left behind that were killed while they wrote a file with :func:`write_atomically` or a copy of it.

    The caller has to make sure that no other process writes the file.
    """
    pattern = re.compile(rf"\.{re.escape(path.name)}\..+{re.escape(PARTIAL)}")
    for other in path.parent.iterdir():
        if pattern.fullmatch(other.name):
            other.unlink(missing_ok=True)


def is_partial(name: str) -> bool:
    """Whether a file has the name of a hidden file of :func:`write_atomically`, as a killed process leaves it."""
    return _PARTIAL.fullmatch(name) is not None


def _remove_partials(path: Path) -> None:
    """Remove the hidden files of the same file whose process has ended."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.{_host()}-(\d+){re.escape(PARTIAL)}")
    for other in path.parent.iterdir():
        match = pattern.fullmatch(other.name)
        if match and not _is_running(int(match[1])):
            other.unlink(missing_ok=True)


def _host() -> str:
    """The name of this machine as eight hexadecimal digits: only processes of this machine can be asked for."""
    return f"{zlib.crc32(platform.node().encode()):08x}"


def _is_running(process: int) -> bool:
    """Whether a process may be running; always on Windows, where asking would end it."""
    if os.name == "nt":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def file_hash(path: Path, algorithm: str) -> str:
    """Return the hash of a file in hexadecimal.

    Args:
        path: The file.
        algorithm: A name that :mod:`hashlib` knows: ``sha256``, ``md5``.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def cached_hashes(path: Path, algorithms: Iterable[str], *, rehash: bool = False) -> dict[str, str]:
    """Return hashes of a file, and compute only those that its checksum cache does not hold.

    The checksum cache is the sidecar file ``<name>.proof``. It is valid while the file has the size and the modification
    time that it had when it was hashed.

    Args:
        path: The file.
        algorithms: Which hashes are needed.
        rehash: Compute them all, whatever the checksum cache holds.

    Returns:
        The hash of each of ``algorithms`` in hexadecimal, and any others that are cached.

    Raises:
        OSError: The file cannot be read.
    """
    cached = {} if rehash else _read_hashes(path)
    computed = {algorithm: file_hash(path, algorithm) for algorithm in algorithms if algorithm not in cached}
    hashes = {**cached, **computed}
    if computed:
        cache_hashes(path, hashes)
    return hashes


def cache_hashes(path: Path, hashes: Mapping[str, str]) -> None:
    """Write the checksum cache of a file; do nothing where the folder cannot be written.

    Args:
        path: The file, as it was hashed.
        hashes: Its hashes in hexadecimal, by algorithm.
    """
    with suppress(OSError):
        write_atomically(hash_cache_of(path), json.dumps({**_state(path), "hashes": dict(hashes)}))


def hash_cache_of(path: Path) -> Path:
    """Return the path of a file's checksum cache."""
    return path.with_name(f"{path.name}.proof")


_OTHER_CACHE: Final = "free some space, or name another folder with LUNG_NODULE_CT_CACHE"


def require_free_space(content: str, size: int, folders: Collection[Path], remedy: str = _OTHER_CACHE) -> None:
    """Check that some folders have enough free space for ``size`` bytes.

    Args:
        content: What is to be written, for the message.
        size: How many bytes are to be written. Nothing is checked for zero bytes.
        folders: Where they are to be written. A folder need not exist yet.
        remedy: What the user can do.

    Raises:
        OutputError: There is not enough free space.
    """
    free = min(shutil.disk_usage(_nearest_existing(folder)).free for folder in folders)
    if size and free < size + _SPARE_BYTES:
        raise OutputError(
            f"there is not enough free space for {content} in {', '.join(map(str, folders))}",
            expected=f"{size + _SPARE_BYTES:,} bytes free",
            got=f"{free:,}",
            remedy=remedy,
        )


def _nearest_existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def _read_hashes(path: Path) -> dict[str, str]:
    """Return the cached hashes of a file, none if the file has changed or the cache cannot be read."""
    with suppress(OSError, ValueError, TypeError, AttributeError):
        document = json.loads(hash_cache_of(path).read_text(encoding="utf-8"))
        if {key: document.get(key) for key in ("size", "mtime_ns")} == _state(path):
            return dict(document["hashes"])
    return {}


def _state(path: Path) -> dict[str, Any]:
    stat = path.stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
