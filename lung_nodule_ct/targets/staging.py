"""A folder that appears whole or not at all: written beside its place under a hidden name, and renamed at the end.

A build that is killed leaves its hidden folder behind; the next build of the same folder takes it away. A lock, which the
operating system lets go of when a process dies, tells the dead from the living.
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
    from collections.abc import Iterator

_LOCK = "lock"


@contextlib.contextmanager
def staged_folder(target: Path, *, marker: str) -> Iterator[Path]:
    """A new folder that takes ``target``'s place when the block ends well, and vanishes when it does not.

    Args:
        target: Where it shall stand. A folder that holds ``marker`` is replaced; another only if it is empty.
        marker: The file by which a folder of ours is known.

    Raises:
        OutputError: ``target`` holds something that is not ours, or cannot be written.
    """
    target = target.absolute()
    if target.exists() and not _is_replaceable(target, marker):
        raise OutputError(
            f"the output {target} exists and is no build of ours",
            expected=f"a new or empty folder, or one with a {marker}",
            remedy="choose another --out, or remove it",
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(target)
        stage, lock = _locked_stage(target)
    except OSError as error:
        raise OutputError(f"the output {target} cannot be written: {error}") from error
    try:
        stage.chmod(0o777 & ~_umask())
        yield stage
        lock.release()
        (stage / _LOCK).unlink(missing_ok=True)
        _replace(stage, target)
    finally:
        lock.release()
        shutil.rmtree(stage, ignore_errors=True)


def _locked_stage(target: Path) -> tuple[Path, FileLock]:
    """A new folder that we hold the lock of. One that another build took for abandoned before we locked it is given up."""
    while True:
        stage = Path(tempfile.mkdtemp(prefix=_prefix(target), dir=target.parent))
        lock = FileLock(stage / _LOCK)
        with contextlib.suppress(FileNotFoundError):
            lock.acquire()
            if (stage / _LOCK).exists():
                return stage, lock
        lock.release()


def _is_replaceable(target: Path, marker: str) -> bool:
    return target.is_dir() and ((target / marker).is_file() or not any(target.iterdir()))


def _prefix(target: Path) -> str:
    return f".{target.name}.building-"


def _remove_abandoned(target: Path) -> None:
    for left in target.parent.glob(f"{_prefix(target)}*"):
        try:
            with FileLock(left / _LOCK, timeout=0):
                shutil.rmtree(left, ignore_errors=True)
        except (Timeout, OSError):
            continue  # somebody is at work in it


def _replace(stage: Path, target: Path) -> None:
    """Put the finished folder in its place. What stood there is only taken away when the new one stands."""
    old = Path(tempfile.mkdtemp(prefix=_prefix(target), dir=target.parent)) / "old"
    try:
        if target.exists():
            target.rename(old)
        try:
            stage.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
    finally:
        shutil.rmtree(old.parent, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
