"""Names from archives as one line of a terminal can show them.

What can stop a build. Every error names the archive, the member and the row, what was expected, what came, and what to do.

One root, :class:`LungNoduleCTError`; beside it each class is also the builtin that people would catch.
"""

from __future__ import annotations

from typing import Any


def printable(text: str) -> str:
    r"""``text`` with what does not print (line ends, escape sequences, marks of direction, lone surrogates) as ``\x1b``."""
    return text if text.isprintable() else "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


class LungNoduleCTError(Exception):
    """The root of all errors that this package raises on purpose.

    Args:
        problem: One sentence: what is wrong.
        archive: The archive's file name.
        member: The member's name inside the archive.
        row: The line of a table, as ``line 7``.
        expected: What was expected there.
        got: What was found instead.
        remedy: What the reader can do about it.
    """

    def __init__(
        self,
        problem: str,
        *,
        archive: str | None = None,
        member: str | None = None,
        row: str | None = None,
        expected: object = None,
        got: object = None,
        remedy: str | None = None,
    ) -> None:
        self.archive, self.member, self.row = archive, member, row
        self.expected, self.got, self.remedy = expected, got, remedy
        place = " > ".join(part for part in (archive, member, row) if part)
        text = f"{place}: {problem}" if place else problem
        if expected is not None:
            text += f"; expected {expected}"
        if got is not None:
            text += f", got {got}" if expected is not None else f"; got {got}"
        if remedy:
            text += f". {remedy[0].upper()}{remedy[1:]}"
        super().__init__(printable(text))

    def __reduce__(self) -> tuple[Any, ...]:
        """Cross process borders whole: the message as it stands, the fields beside it."""
        return (type(self), self.args, self.__dict__)


class SourceError(LungNoduleCTError, FileNotFoundError):
    """There is no source, or no folder where one was named."""


class ArchiveNotFoundError(LungNoduleCTError, FileNotFoundError):
    """An archive that a config reads is missing, or two files claim to be it."""


class ArchiveError(LungNoduleCTError, ValueError):
    """A file is no readable zip archive, or breaks the limits that keep a build safe."""


class MemberError(LungNoduleCTError, ValueError):
    """A member of an archive is damaged, unsafe, or not what its name says."""


class DownloadError(LungNoduleCTError, ConnectionError):
    """A server did not give what the record promises: it failed, was refused, or gave something else."""


class UnknownConfigError(LungNoduleCTError, ValueError):
    """No config has that name."""


class OutputError(LungNoduleCTError, OSError):
    """The output folder cannot be written, or holds something that is not ours to replace."""


class ExportError(LungNoduleCTError, ValueError):
    """A form of export that does not exist, or does not apply to a config."""


class BuildFolderError(LungNoduleCTError, FileNotFoundError):
    """A folder that should hold a build does not, or not a whole one, or lacks what was asked for."""


class ExampleError(LungNoduleCTError, ValueError):
    """What should be an example of a config is none, or has not what was asked for."""


class StrictError(LungNoduleCTError, ValueError):
    """A strict build met a finding of error grade."""


class MissingExtraError(LungNoduleCTError, ImportError):
    """What was asked for needs a package that is installed only with an extra."""


class PublishError(LungNoduleCTError, ConnectionError):
    """A build was not uploaded: a check refuses it, or the Hub does."""


class TrainingError(LungNoduleCTError, ValueError):
    """A training run cannot begin, go on or be judged: its data, its checkpoint, its devices or its losses are not as needed."""
