"""Progress on a terminal: a bar a file that is downloaded, a bar a config that is built, with bytes, rate and time left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from lung_nodule_ct.listeners import BuildListener, DownloadListener

if TYPE_CHECKING:
    from types import TracebackType


class _Bars:
    def __init__(self, console: Console | None = None) -> None:
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console or Console(stderr=True),
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def _add(self, name: str, description: str, total: int) -> None:
        self._tasks[name] = self._bars.add_task(description, total=total)

    def end(self, name: str) -> None:
        """A bar is full."""
        if name in self._tasks:
            task = self._tasks[name]
            self._bars.update(task, completed=self._bars.tasks[task].total or 0)


class BuildProgress(_Bars, BuildListener):
    """Shows what a build tells: ``with BuildProgress() as progress: build_folder(…, progress)``."""

    def begin(self, config: str, packed_bytes: int, units: int) -> None:
        """A bar appears."""
        self._add(config, f"{config} ({units:,} examples)", packed_bytes)

    def advance(self, config: str, packed_bytes: int) -> None:
        """It grows."""
        self._bars.advance(self._tasks[config], packed_bytes)


class DownloadProgress(_Bars, DownloadListener):
    """Shows what downloads tell: ``with DownloadProgress() as progress: open_source(…, listener=progress)``."""

    def begin(self, name: str, size: int) -> None:
        """A bar appears."""
        self._add(name, name, size)

    def reach(self, name: str, done: int) -> None:
        """It grows, or begins anew."""
        self._bars.update(self._tasks[name], completed=done)

    def wait(self, name: str, reason: str, seconds: float) -> None:
        """Say why nothing comes."""
        waits = f"; waiting {seconds:,.0f} s" if seconds else ""
        self._bars.console.print(f"{name}: {reason}{waits}", markup=False, highlight=False)
