"""Who is told how far long work is. These tell nobody; :mod:`.progress` shows it on a terminal."""

from __future__ import annotations


class BuildListener:
    """Is told how far a build is, or the reading of a finished one."""

    def begin(self, config: str, packed_bytes: int, units: int) -> None:
        """A config begins: so much is to be read."""

    def advance(self, config: str, packed_bytes: int) -> None:
        """One unit is done."""

    def end(self, config: str) -> None:
        """A config is done."""


class DownloadListener:
    """Is told how far downloads are."""

    def begin(self, name: str, size: int) -> None:
        """A file of so many bytes begins."""

    def reach(self, name: str, done: int) -> None:
        """So many bytes of it are here."""

    def wait(self, name: str, reason: str, seconds: float) -> None:
        """Nothing comes for a while, and why."""

    def end(self, name: str) -> None:
        """The file is here, whole and proven."""
