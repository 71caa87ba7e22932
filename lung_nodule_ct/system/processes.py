"""Locks between processes, as files, worker processes that end with the process that started them, and Ctrl-C.

The operating system releases a lock when the process that holds it ends, however it ends. The file is removed when the lock is released;
the file of a killed process stays until the next process has taken and released the lock.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, Final, Self

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType


_POLL_SECONDS: Final = 0.05
_HELD: Final = frozenset({errno.EAGAIN, errno.EACCES})
_UNSUPPORTED: Final = frozenset({errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP})


class LockFile:
    """A lock that one process, and in it one thread, holds.

    Args:
        path: The file. Its folder must exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._release: Callable[[], None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def try_acquire(self) -> bool:
        """Take the lock, and return whether that succeeded.

        Raises:
            OSError: The file cannot be created.
        """
        self._release = _lock(self.path)
        return self._release is not None

    def acquire(self, on_wait: Callable[[], None] = lambda: None) -> None:
        """Take the lock, and wait while another holds it.

        Args:
            on_wait: Called once if there is a wait.

        Raises:
            OSError: The file cannot be created.
        """
        if not self.try_acquire():
            on_wait()
            while not self.try_acquire():
                time.sleep(_POLL_SECONDS)

    def release(self) -> None:
        """Remove the file and release the lock. Does nothing if the lock is not held."""
        if self._release is not None:
            with suppress(OSError):
                self.path.unlink(missing_ok=True)
            self._release()
            self._release = None


@contextmanager
def locked(path: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Run the block in one process at a time.

    Args:
        path: The lock file, which exists only during the block.
        on_wait: Called once if the block has to wait for another process.

    Raises:
        OSError: The file cannot be created.
    """
    with LockFile(path) as lock:
        lock.acquire(on_wait)
        yield


def remove_unused(path: Path) -> None:
    """Remove a lock file that a killed process has left. Does nothing if there is none, or if it is held or cannot be removed."""
    if path.exists():
        with suppress(OSError), LockFile(path) as lock:
            lock.try_acquire()


def _lock(path: Path) -> Callable[[], None] | None:
    """Lock a file that is created if needed, and return what releases it; ``None`` if another holds it."""
    if sys.platform == "win32":  # where an open file cannot be removed
        return _portable_lock(path)
    import fcntl  # noqa: PLC0415 -- does not exist on Windows

    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)

        def release(descriptor: int = descriptor) -> None:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # also for forked processes, which share the descriptor
            os.close(descriptor)

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno in _HELD:
                return None
            if error.errno in _UNSUPPORTED:  # as on some file systems of clusters
                return _portable_lock(path)
            raise
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return release
        release()  # the process that held it removed this file, and another may have created the one at the path


def _portable_lock(path: Path) -> Callable[[], None] | None:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock.release


@contextmanager
def remembered_interrupts() -> Iterator[Callable[[], None]]:
    """Remember Ctrl-C during the block, and yield a function that raises the :class:`KeyboardInterrupt` again.

    Python drops an exception in a destructor or in a callback of garbage collection, and code of another package may catch it. A
    long loop that calls the function ends all the same. Where Ctrl-C does not raise anyway, as in another thread, the function
    does nothing.
    """
    received: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.default_int_handler(number, frame)

    def raise_again() -> None:
        if received:
            raise KeyboardInterrupt

    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield raise_again
        return
    signal.signal(signal.SIGINT, remember)
    try:
        yield raise_again
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def start_worker(parent_process: Callable[[], Any] = multiprocessing.parent_process) -> None:
    """Leave Ctrl-C to the process that started this worker, and end as soon as that has ended, even if it was killed.

    A worker that waits for work would otherwise wait forever. Does nothing in a process that is not a worker, and nothing when called
    again.

    Args:
        parent_process: Returns the parent, as :func:`multiprocessing.parent_process` does. Libraries with their own copy of
            :mod:`multiprocessing` have their own.
    """
    parent = parent_process()
    if parent is not None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        _watch(os.getpid(), parent.sentinel)


@cache  # by process: a forked process inherits the cache, but not the thread
def _watch(_process: int, sentinel: Any) -> None:
    threading.Thread(target=_end_after, args=(sentinel,), name="end-with-parent", daemon=True).start()


def _end_after(sentinel: Any) -> None:
    wait([sentinel])
    os._exit(1)  # what is being written is in a temporary folder, which the next command removes
