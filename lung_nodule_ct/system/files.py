"""Files on this machine: atomic writes, cached checksums, free space, and the user's cache folder.

Files and folders are written under a hidden temporary name next to the target, and renamed at the end. A process that is killed leaves its
temporary folder behind; the next process that writes the same target removes it. Whether a temporary folder is still in use is decided
by a lock file next to it: the operating system releases the lock of a process that has ended.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import platformdirs
from filelock import FileLock, Timeout

from lung_nodule_ct.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping


PARTIAL: Final = ".partial"
CACHE_VARIABLE: Final = "LUNG_NODULE_CT_CACHE"

_SPARE_BYTES: Final = 16 << 20
_OLD = ".old"


def cache_folder(cache: str | os.PathLike[str] | None = None) -> Path:
    """Return the cache folder: ``cache``, else the variable ``LUNG_NODULE_CT_CACHE``, else a folder of the user's cache."""
    chosen = cache or os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser().absolute() if chosen else platformdirs.user_cache_path("lung_nodule_ct")


def partial_of(path: Path) -> Path:
    """Return the hidden file next to ``path`` in which this process writes it, to be renamed when it is complete."""
    return path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that readers see the old content or the new content, and never a part of it.

    The content is written to a hidden file in the same folder, which is then renamed. The folder is created if needed.

    Args:
        path: The file, which is replaced.
        content: Bytes, or text to be encoded as UTF-8.

    Raises:
        OSError: The file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_of(path)
    try:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def remove_partial_files(path: Path) -> None:
    """Remove what processes left behind that were killed while they wrote a file with :func:`write_atomically` or a copy of it.

    The caller has to make sure that no other process writes the file.
    """
    for partial in path.parent.glob(f".{glob.escape(path.name)}.*{PARTIAL}"):
        partial.unlink(missing_ok=True)


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


def require_free_space(content: str, size: int, folders: Collection[Path]) -> None:
    """Check that some folders have enough free space for ``size`` bytes.

    Args:
        content: What is to be written, for the message.
        size: How many bytes are to be written. Nothing is checked for zero bytes.
        folders: Where they are to be written. A folder need not exist yet.

    Raises:
        OutputError: There is not enough free space.
    """
    free = min(shutil.disk_usage(_nearest_existing(folder)).free for folder in folders)
    if size and free < size + _SPARE_BYTES:
        raise OutputError(
            f"there is not enough free space for {content} in {', '.join(map(str, folders))}",
            expected=f"{size + _SPARE_BYTES:,} bytes free",
            got=f"{free:,}",
            remedy="free some space, or name another folder with LUNG_NODULE_CT_CACHE",
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


@contextmanager
def staged_folder(target: Path, *, find_foreign: Callable[[Path], str | None], kind: str = "build") -> Iterator[Path]:
    """Yield a new folder that replaces ``target`` if the block ends without an error, and is removed otherwise.

    Args:
        target: The final folder.
        find_foreign: Returns the name of something in a folder that this package did not write, ``None`` if there is
            nothing like that. Only a folder for which it returns ``None`` is replaced.
        kind: What the folder contains, for messages.

    Raises:
        OutputError: ``target`` contains something that this package did not write, or cannot be written.
    """
    target = target.absolute()
    if target.exists() and (foreign := find_foreign(target) if target.is_dir() else target.name) is not None:
        raise OutputError(
            f"the output {target} exists and is not the result of a previous {kind}",
            expected=f"a new or empty folder, or one that contains a previous {kind} and nothing else",
            got=foreign,
            remedy="choose another --out, or remove it",
        )
    with temporary_folder(target) as stage:
        yield stage
        _replace(stage, target)


@contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """Yield a new hidden folder next to ``target`` that is removed when the block ends, with or without an error.

    Temporary folders of the same target that killed processes left behind are removed first.

    Raises:
        OutputError: The folder cannot be created.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(target)
        stage, lock = _locked_stage(target)
    except OSError as error:
        raise OutputError(f"the output {target} cannot be written: {error}") from error
    try:
        stage.chmod(0o777 & ~_umask())
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


@contextmanager
def locked(file: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Run the block in one process at a time. The lock file ``file`` exists only during the block.

    Args:
        file: The lock file.
        on_wait: Is called if another process runs the block.
    """
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        on_wait()
        lock.acquire()
    while not file.exists():  # the previous owner removed it while this process waited
        lock.release()
        lock.acquire()
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        lock.release()


def _locked_stage(target: Path) -> tuple[Path, FileLock]:
    """Create a folder and lock it. Another process may take it for abandoned before it is locked; then create another."""
    while True:
        stage = Path(tempfile.mkdtemp(prefix=_prefix(target), dir=target.parent))
        lock = _lock_of(stage)
        lock.acquire()
        if stage.exists() and Path(lock.lock_file).exists():
            return stage, lock
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _lock_of(stage: Path) -> FileLock:
    """Return the lock of a temporary folder. It is next to the folder, so that it is held while the folder is renamed."""
    return FileLock(stage.with_name(stage.name.removesuffix(_OLD) + ".lock"))


def _prefix(target: Path) -> str:
    return f".{target.name}.building-"


def _remove_abandoned(target: Path) -> None:
    for left in target.parent.glob(f"{_prefix(target)}*"):
        if not left.is_dir():
            continue
        lock = _lock_of(left)
        try:
            lock.acquire(timeout=0)
        except (Timeout, OSError):
            continue  # the process that owns it is still running
        shutil.rmtree(left, ignore_errors=True)
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _replace(stage: Path, target: Path) -> None:
    """Rename the finished folder to ``target``. What was there before is only removed once that has succeeded."""
    old = stage.with_name(stage.name + _OLD)
    try:
        for last in (False, False, True):
            with suppress(FileNotFoundError):
                target.rename(old)
            try:
                stage.rename(target)
            except OSError:
                if target.exists() and not last:
                    shutil.rmtree(old, ignore_errors=True)
                    continue  # another process was faster; the last one wins
                if old.exists() and not target.exists():
                    old.rename(target)
                raise
            return
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
