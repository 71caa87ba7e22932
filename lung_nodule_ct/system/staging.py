"""A folder that appears whole or not at all: written beside its place under a hidden name, and renamed at the end.

A build that is killed leaves its hidden folder behind; the next build of the same folder takes it away. A lock beside it, which
the operating system lets go of when a process dies, tells the dead from the living.
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
def staged_folder(target: Path, *, foreign_to: Callable[[Path], str | None], kind: str = "build") -> Iterator[Path]:
    """A new folder that takes ``target``'s place when the block ends well, and vanishes when it does not.

    Args:
        target: Where it shall stand.
        foreign_to: Names something in a folder that is not ours to remove, if there is such; only a folder without it
            is replaced.
        kind: What the folder is, for messages.

    Raises:
        OutputError: ``target`` holds something that is not ours, or cannot be written.
    """
    target = target.absolute()
    if target.exists() and (foreign := foreign_to(target) if target.is_dir() else target.name) is not None:
        raise OutputError(
            f"the output {target} exists and is no {kind} of ours",
            expected=f"a new or empty folder, or one with such a {kind} and nothing else",
            got=foreign,
            remedy="choose another --out, or remove it",
        )
    with temporary_folder(target) as stage:
        yield stage
        _replace(stage, target)


@contextlib.contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """A new hidden folder beside ``target`` that is gone when the block ends, however it ends; the dead ones go first.

    Raises:
        OutputError: It cannot be made.
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
    """One process at a time; ``file`` is only there meanwhile."""
    lock = FileLock(file)
    lock.acquire()
    while not file.exists():  # who held it before took it away while we waited
        lock.release()
        lock.acquire()
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        lock.release()


def _locked_stage(target: Path) -> tuple[Path, FileLock]:
    """A new folder that we hold the lock of. One that another build took for abandoned before we locked it is given up."""
    while True:
        stage = Path(tempfile.mkdtemp(prefix=_prefix(target), dir=target.parent))
        lock = _lock_of(stage)
        lock.acquire()
        if stage.exists() and Path(lock.lock_file).exists():
            return stage, lock
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _lock_of(stage: Path) -> FileLock:
    """Beside the folder, so that it can be held while the folder is renamed."""
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
            continue  # somebody is at work in it
        shutil.rmtree(left, ignore_errors=True)
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _replace(stage: Path, target: Path) -> None:
    """Put the finished folder in its place. What stood there is only taken away when the new one stands."""
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
                    continue  # another build was faster; the last one stands
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
