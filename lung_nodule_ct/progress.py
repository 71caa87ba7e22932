"""A build's progress on a terminal: a bar a config, with bytes, rate and time left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from lung_nodule_ct.targets.build import Progress as BuildListener

if TYPE_CHECKING:
    from rich.console import Console


class BuildProgress(BuildListener):
    """Shows what a build tells: ``with BuildProgress(console) as progress: build_folder(…, progress)``."""

    def __init__(self, console: Console) -> None:
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> BuildProgress:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def begin(self, config: str, packed_bytes: int, units: int) -> None:
        """A bar appears."""
        self._tasks[config] = self._bars.add_task(f"{config} ({units:,} examples)", total=packed_bytes)

    def advance(self, config: str, packed_bytes: int) -> None:
        """It grows."""
        self._bars.advance(self._tasks[config], packed_bytes)

    def end(self, config: str) -> None:
        """It is full."""
        task = self._tasks[config]
        self._bars.update(task, completed=self._bars.tasks[task].total or 0)
