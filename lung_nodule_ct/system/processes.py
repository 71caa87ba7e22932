"""Worker processes that end with the process that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from functools import cache
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


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
