"""Who is told how far long work is. These tell nobody; :mod:`.progress` shows it on a terminal.

Progress on a terminal: a bar a file that is downloaded, a bar a config that is built, with bytes, rate and time left.

A line to the person at the terminal, beside what a command prints as its answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from rich.console import Console

if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import TaskID


class BuildProgress:
    """Is told how far a build is, or the reading of a finished one."""

    def begin(self, config: str, packed_bytes: int, units: int) -> None:
        """A config begins: so much is to be read."""

    def advance(self, config: str, packed_bytes: int) -> None:
        """One unit is done."""

    def end(self, config: str) -> None:
        """A config is done."""


class DownloadProgress:
    """Is told how far downloads are."""

    def begin(self, name: str, size: int) -> None:
        """A file of so many bytes begins."""

    def reach(self, name: str, done: int) -> None:
        """So many bytes of it are here."""

    def wait(self, name: str, reason: str, seconds: float) -> None:
        """Nothing comes for a while, and why."""

    def end(self, name: str) -> None:
        """The file is here, whole and proven."""


class _Bars:
    def __init__(self, console: Console | None = None) -> None:
        # a tenth of a second, for those only who show bars
        from rich.console import Console  # noqa: PLC0415
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

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


class BuildProgressBar(_Bars, BuildProgress):
    """Shows what a build tells: ``with BuildProgressBar() as progress: build_folder(…, progress)``."""

    def begin(self, config: str, packed_bytes: int, units: int) -> None:
        """A bar appears."""
        self._add(config, f"{config} ({units:,} examples)", packed_bytes)

    def advance(self, config: str, packed_bytes: int) -> None:
        """It grows."""
        self._bars.advance(self._tasks[config], packed_bytes)


class DownloadProgressBar(_Bars, DownloadProgress):
    """Shows what downloads tell: ``with DownloadProgressBar() as progress: open_source(…, listener=progress)``."""

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


def notice(message: str) -> None:
    """Say something on standard error, as it stands."""
    Console(stderr=True).print(message, markup=False, highlight=False, soft_wrap=True)
