"""What Orbax logs where a checkpoint cannot be written: dozens of tracebacks. Our error has the first of them as one line."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_LOGGERS: Final = ("absl", "asyncio")


def drop_write_errors(folder: Path) -> None:
    """Drop the log of failed writes to a folder, from now on, because some of it comes when memory is collected.

    Args:
        folder: The absolute path of the folder.
    """
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_NotOfOrbax(str(folder)))


@dataclass(frozen=True)
class _NotOfOrbax:
    """A filter of log records. Equal filters are added to a logger once."""

    folder: str

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is not an error of Orbax, or of a write to the folder."""
        of_orbax = "orbax" in Path(record.pathname).parts or self.folder in record.getMessage()
        return record.levelno < logging.ERROR or not of_orbax
