"""Folders that are written atomically: under a hidden temporary name next to the target, and renamed at the end.

A process that is killed leaves its temporary folder behind; the next process that writes the same target removes it. Whether
a temporary folder is still in use is decided by a lock file next to it: the operating system releases the lock of a process
that has ended.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from lung_nodule_ct.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_OLD = ".old"


@contextlib.contextmanager
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


@contextlib.contextmanager
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


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Run the block in one process at a time. The lock file ``file`` exists only during the block."""
    lock = FileLock(file)
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
            with contextlib.suppress(FileNotFoundError):
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
