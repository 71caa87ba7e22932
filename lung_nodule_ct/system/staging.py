"""Folders that appear at once: written under a hidden temporary name next to their final path, and exchanged with it at the end.

A process that is killed leaves its temporary folder behind; the next process that writes the same path removes it. Whether a temporary
folder is still in use is decided by a lock file next to it. Where the system can exchange two folders, an earlier folder is replaced in one
step. Elsewhere it is renamed first, and put back by the next process if this one is killed before the second step.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import sys
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lung_nodule_ct.errors import OutputError
from lung_nodule_ct.system.processes import LockFile, locked, remove_unused
from lung_nodule_ct.system.progress import notice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_OLD: Final = ".old"
_LOCK: Final = ".lock"
_AT_FDCWD: Final = -100
_EXCHANGE: Final = 2
"""``RENAME_EXCHANGE`` of Linux and ``RENAME_SWAP`` of macOS."""
_NO_EXCHANGE: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})


@contextmanager
def staged_folder(
    target: Path, *, find_foreign: Callable[[Path], str | None], kind: str, remedy: str = "choose another --out"
) -> Iterator[Path]:
    """Yield a new folder that replaces ``target`` if the block ends without an error, and is removed otherwise.

    Args:
        target: The final folder. If it is a link, the folder that it leads to is replaced.
        find_foreign: Returns the name of something in a folder that this package did not write, ``None`` if there is
            nothing like that. Only a folder for which it returns ``None`` is replaced.
        kind: What the folder contains, for messages.
        remedy: What to do if ``target`` contains something else.

    Raises:
        OutputError: ``target`` contains something that this package did not write, or cannot be written.
    """
    with exclusive(target) as folder:
        if folder.exists() and (foreign := find_foreign(folder) if folder.is_dir() else folder.name) is not None:
            raise OutputError(
                f"the output {target} exists and is not the result of a previous {kind}",
                expected=f"a new or empty folder, or one that contains a previous {kind} and nothing else",
                got=foreign,
                remedy=remedy,
            )
        with temporary_folder(folder) as stage:
            yield stage
            replace_folder(stage, folder)


@contextmanager
def exclusive(target: Path) -> Iterator[Path]:
    """Run the block in one process at a time for a folder that is to be written, and yield its real path. Others wait.

    What killed processes left next to it is removed first.

    Raises:
        OutputError: The parent of the folder cannot be written.
    """
    folder = real_path(target)
    with _errors_of(target):
        folder.parent.mkdir(parents=True, exist_ok=True)
    lock = LockFile(_write_lock(folder))
    with lock:
        with _errors_of(target):
            lock.acquire(lambda: notice(f"another process is writing {target}; waiting until it has ended"))
        sweep(folder)
        yield folder


@contextmanager
def changing(folder: Path) -> Iterator[None]:
    """Run the block while no other process adds files to a folder or replaces it. Meant for short blocks.

    Raises:
        OSError: The lock file cannot be created.
    """
    with locked(_change_lock(folder)):
        yield


@contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """Yield a new hidden folder next to ``target`` that is removed when the block ends, with or without an error.

    Raises:
        OutputError: The folder cannot be created.
    """
    with _errors_of(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target)
        stage, lock = _locked_stage(target)
        stage.chmod(0o777 & ~_umask())
    with lock:
        try:
            yield stage
        finally:
            shutil.rmtree(stage, ignore_errors=True)


def replace_folder(stage: Path, target: Path) -> None:
    """Move a finished temporary folder to ``target``. An earlier folder there becomes the temporary one, or is removed.

    Raises:
        OutputError: ``target`` cannot be replaced; then it is as it was.
    """
    with _errors_of(target):
        if target.exists():
            shutil.copymode(target, stage)
        if not target.exists():
            stage.rename(target)
        elif not _exchange(stage, target):
            _replace_in_two_steps(stage, target)


def sweep(target: Path) -> None:
    """Remove what killed processes left next to ``target``, and put back an earlier folder that they had only moved away.

    Nothing is removed that a running process holds, and nothing with another name than this module creates.
    """
    pattern = re.compile(rf"({re.escape(_prefix(target))}[a-z0-9_]{{8}})(?:{re.escape(_OLD)}|{re.escape(_LOCK)})?")
    try:
        matches = [match for path in target.parent.iterdir() if (match := pattern.fullmatch(path.name))]
    except OSError:
        return
    for name in sorted({match[1] for match in matches}):
        stage = target.with_name(name)
        with suppress(OSError), LockFile(_lock_of(stage)) as lock:
            if not lock.try_acquire():
                continue  # the process that owns it is still running
            old = _old_of(stage)
            if old.is_dir() and not os.path.lexists(target):
                old.rename(target)
            shutil.rmtree(stage, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)
    remove_unused(_change_lock(target))
    remove_unused(_write_lock(target))


def jobs_folder(target: Path) -> Path:
    """Return the hidden folder next to ``target`` that keeps what jobs on other machines finished, until the folder is complete."""
    return target.with_name(f".{target.name}.jobs")


def real_path(target: Path) -> Path:
    """Return the absolute path of a folder, with all links followed. The folder need not exist."""
    return Path(os.path.realpath(target))


@contextmanager
def _errors_of(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"the output {target} cannot be written: {error}") from error


def _locked_stage(target: Path) -> tuple[Path, LockFile]:
    """Create a folder and lock it. Another process may take it for abandoned before it is locked; then create another."""
    while True:
        stage = Path(tempfile.mkdtemp(prefix=_prefix(target), dir=target.parent))
        lock = LockFile(_lock_of(stage))
        lock.acquire()
        if stage.exists():
            return stage, lock
        lock.release()


def _prefix(target: Path) -> str:
    return f".{target.name}.building-"


def _lock_of(stage: Path) -> Path:
    """The lock file of a temporary folder. It is next to the folder, so that it is held while the folder is renamed."""
    return stage.with_name(stage.name + _LOCK)


def _old_of(stage: Path) -> Path:
    """Where an earlier folder is while a temporary folder takes its place."""
    return stage.with_name(stage.name + _OLD)


def _write_lock(target: Path) -> Path:
    return target.with_name(f".{target.name}.build{_LOCK}")


def _change_lock(target: Path) -> Path:
    return target.with_name(f".{target.name}.sidecars{_LOCK}")


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two folders in one step, and return whether the system and the file system can do that.

    Raises:
        OSError: They can, but these folders cannot be exchanged.
    """
    names = os.fsencode(first), os.fsencode(second)
    if sys.platform == "linux":
        call, arguments = "renameat2", (_AT_FDCWD, names[0], _AT_FDCWD, names[1], _EXCHANGE)
    elif sys.platform == "darwin":
        call, arguments = "renamex_np", (*names, _EXCHANGE)
    else:
        return False
    function = getattr(ctypes.CDLL(None, use_errno=True), call, None)
    if function is None:
        return False
    sys.audit("os.rename", str(first), str(second), -1, -1)  # as Python's own calls do
    if function(*arguments) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(first), None, str(second))


def _replace_in_two_steps(stage: Path, target: Path) -> None:
    """Rename an earlier folder, then the new one. What was there before is only removed once that has succeeded."""
    old = _old_of(stage)
    target.rename(old)
    try:
        stage.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
