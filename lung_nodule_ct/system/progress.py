"""Progress of builds and downloads, and notices to the user.

A long operation reports to an object with callbacks. The base classes do nothing; the ``...Bar`` classes show bars on a
terminal, with bytes, rate and remaining time: one per downloaded file, one per built config.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

from rich.console import Console

if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import TaskID

LONG_BYTES: Final = 1_000_000_000
LONG_S: Final = 60
"""Downloads, files and builds from this size or duration on are announced with an estimate."""
_LONG_WAIT_S = 10
"""A wait of this many seconds is reported although its reason was reported before."""
_MAX_STEPS = 500
"""How often a bar of a config moves, at most."""


class BuildProgress:
    """Callbacks of a build, or of reading a finished build. Does nothing."""

    def announce(self, text: str) -> None:
        """Work begins that takes long; ``text`` is a line about how long."""

    def begin(self, config: str, packed_bytes: int, units: int) -> None:
        """A config begins.

        Args:
            config: Its name.
            packed_bytes: How many bytes are to be read for it.
            units: Into how many units of work it is divided.
        """

    def advance(self, config: str, packed_bytes: int) -> None:
        """One unit of work is finished, for which ``packed_bytes`` were read."""

    def end(self, config: str) -> None:
        """A config is finished."""


class DownloadProgress:
    """Callbacks of downloads. Does nothing."""

    def announce(self, text: str) -> None:
        """Downloads begin that take long; ``text`` is a line about how long."""

    def begin(self, name: str, size: int) -> None:
        """The download of a file of ``size`` bytes begins."""

    def reach(self, name: str, done: int) -> None:
        """The first ``done`` bytes of the file have been downloaded. May decrease, if a download has to start again."""

    def wait(self, name: str, reason: str, seconds: float) -> None:
        """The download waits for ``seconds`` before it continues, or for an unknown time if ``seconds`` is 0."""

    def end(self, name: str) -> None:
        """The file is complete and verified."""


class _Bars:
    def __init__(self, console: Console | None = None) -> None:
        from rich.progress import (  # noqa: PLC0415 -- takes a tenth of a second, which only bars need
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

    def announce(self, text: str) -> None:
        self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _add(self, name: str, description: str, total: int) -> None:
        self._tasks[name] = self._bars.add_task(description, total=total)

    def end(self, name: str) -> None:
        if name in self._tasks:
            task = self._tasks[name]
            self._bars.update(task, completed=self._bars.tasks[task].total or 0)


class BuildProgressBar(_Bars, BuildProgress):
    """Shows a build: ``with BuildProgressBar() as progress: build_folder(..., progress)``.

    Args:
        noun: What the units of work are, in the plural.
    """

    def __init__(self, noun: str = "examples", console: Console | None = None) -> None:
        super().__init__(console)
        self._noun = noun
        self._done = self._step = 0

    def begin(self, config: str, packed_bytes: int, units: int) -> None:
        self._add(config, f"{config} ({units:,} {self._noun})", packed_bytes)
        self._done, self._step = 0, packed_bytes // _MAX_STEPS

    def advance(self, config: str, packed_bytes: int) -> None:
        self._done += packed_bytes
        if self._done >= self._step:
            self._bars.advance(self._tasks[config], self._done)
            self._done = 0


class DownloadProgressBar(_Bars, DownloadProgress):
    """Shows downloads: ``with DownloadProgressBar() as progress: open_source(..., progress=progress)``.

    Short waits for the same reason are reported once per file.
    """

    def __init__(self, console: Console | None = None) -> None:
        super().__init__(console)
        self._reported: set[tuple[str, str]] = set()

    def begin(self, name: str, size: int) -> None:
        self._add(name, name, size)

    def reach(self, name: str, done: int) -> None:
        self._bars.update(self._tasks[name], completed=done)

    def wait(self, name: str, reason: str, seconds: float) -> None:
        if (name, reason) in self._reported and seconds < _LONG_WAIT_S:
            return
        self._reported.add((name, reason))
        waits = f"; waiting {seconds:,.0f} s" if seconds else ""
        self._bars.console.print(f"{name}: {reason}{waits}", markup=False, highlight=False)


def notice(message: str) -> None:
    """Print a message to standard error, unchanged."""
    Console(stderr=True).print(message, markup=False, highlight=False, soft_wrap=True)


def readable_size(count: float) -> str:
    """Return a number of bytes for a person.

    Example:
        >>> readable_size(481_470_967), readable_size(2_500)
        ('481 MB', '2.5 kB')
    """
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def readable_time(seconds: float) -> str:
    """Return a duration for a person.

    Example:
        >>> readable_time(40), readable_time(250), readable_time(9000)
        ('1 minute', '4 minutes', '2.5 hours')
    """
    minutes = max(1, round(seconds / 60))
    if minutes < 90:
        return "1 minute" if minutes == 1 else f"{minutes} minutes"
    return f"{seconds / 3600:.2g} hours"
