"""The errors that this package raises on purpose, and the place in the archives that errors and findings name.

All errors derive from :class:`LungNoduleCTError`. Each class also derives from the built-in exception that users would catch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


def printable(text: str) -> str:
    r"""Return ``text`` with every character that does not print written as an escape sequence.

    Line ends, terminal escape sequences, direction marks and lone surrogates are escaped, so that a name from an archive
    fits on one line of a terminal.

    Example:
        >>> printable("a\nb")
        'a\\nb'
    """
    return text if text.isprintable() else "".join(char if char.isprintable() else _escaped(char) for char in text)


def closest(word: str, known: Iterable[str]) -> str | None:
    """Return a question for the known word that is most similar to a mistyped one, ``None`` if none is similar.

    Example:
        >>> closest("det2d_1.25", ["cls_1.25mm", "det2d_1.25mm"])
        'did you mean det2d_1.25mm?'
    """
    from difflib import get_close_matches  # noqa: PLC0415 -- only needed after a mistake

    found = get_close_matches(word, list(known), n=1)
    return f"did you mean {found[0]}?" if found else None


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the archives.

    Attributes:
        archive: File name of the archive.
        member: Name of the member inside the archive.
        row: Line number and text of a table row, as ``line 3: 80,1,2``; or another part of the member.

    Example:
        >>> print(Place("class_dataset.zip", "train/1/a.bmp"))
        class_dataset.zip > train/1/a.bmp
    """

    archive: str | None = None
    member: str | None = None
    row: str | None = None

    def __str__(self) -> str:
        return " > ".join(part for part in (self.archive, self.member, self.row) if part)


NOWHERE = Place()
"""The place of what concerns no archive."""


class LungNoduleCTError(Exception):
    """The base class of all errors that this package raises on purpose.

    Args:
        problem: What is wrong, in one sentence.
        archive: File name of the archive.
        member: Name of the member inside the archive.
        row: Line of a table, as ``line 7``.
        expected: What was expected.
        got: What was read instead.
        remedy: What the user can do about it.

    Attributes:
        problem: What is wrong, without the rest.
        place: Where the problem is: archive, member and row.

    Example:
        >>> error = LungNoduleCTError("is damaged", archive="a.zip", expected="10 bytes", got="9", remedy="download it again")
        >>> print(error)
        a.zip: is damaged; expected 10 bytes, got 9. Download it again
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
        self.problem = printable(problem)
        self.place = Place(archive, member, row)
        self.expected, self.got, self.remedy = expected, got, remedy
        text = f"{self.place}: {problem}" if str(self.place) else problem
        if expected is not None:
            text += f"; expected {expected}"
        if got is not None:
            text += f", got {got}" if expected is not None else f"; got {got}"
        if remedy:
            text += f". {remedy[0].upper()}{remedy[1:]}"
        super().__init__(printable(text))

    @property
    def archive(self) -> str | None:
        """File name of the archive, if the error concerns one."""
        return self.place.archive

    @property
    def member(self) -> str | None:
        """Name of the member inside the archive, if the error concerns one."""
        return self.place.member

    @property
    def row(self) -> str | None:
        """Line of a table, if the error concerns one."""
        return self.place.row

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep message and fields when the error crosses a process border."""
        return (type(self), self.args, self.__dict__)


class SourceError(LungNoduleCTError, FileNotFoundError):
    """There is no source of archives, or the named folder does not exist."""


class ArchiveNotFoundError(LungNoduleCTError, FileNotFoundError):
    """An archive that a config reads is missing, or more than one file matches its name."""


class ArchiveError(LungNoduleCTError, ValueError):
    """A file is not a readable zip archive, or exceeds a limit that keeps a build safe."""


class MemberError(LungNoduleCTError, ValueError):
    """A member of an archive is damaged, unsafe, or not what its name suggests."""


class DownloadError(LungNoduleCTError, ConnectionError):
    """A server did not deliver what the record promises: it failed, refused, or sent something else."""


class UnknownConfigError(LungNoduleCTError, ValueError):
    """No config has this name."""


class OptionError(LungNoduleCTError, ValueError):
    """An option of a build that is out of range or does not go with another.

    Attributes:
        option: Name of the option.
        message: What is wrong, without the name of the option.
    """

    def __init__(self, option: str, problem: str, **details: Any) -> None:
        self.option = option
        super().__init__(problem, **details)
        self.message = str(self)
        self.args = (f"{option}: {self.message}",)

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep option, message and fields when the error crosses a process border."""
        return (type(self), (self.option, ""), {**self.__dict__, "args": self.args})


class OutputError(LungNoduleCTError, OSError):
    """The output folder cannot be written, or holds files that a build must not replace."""


class ExportError(LungNoduleCTError, ValueError):
    """An export format does not exist, or does not apply to a config."""


class BuildFolderError(LungNoduleCTError, FileNotFoundError):
    """A folder does not hold a complete build, or the build lacks what was requested."""


class ExampleError(LungNoduleCTError, ValueError):
    """An object is not an example of a config, or lacks what was requested."""


class StrictError(LungNoduleCTError, ValueError):
    """A strict build met a finding of error grade."""


class MissingExtraError(LungNoduleCTError, ImportError):
    """A feature needs a package that is installed only with an extra."""


class PublishError(LungNoduleCTError, ConnectionError):
    """A build was not uploaded: a check or the Hub refused it."""


class TrainingError(LungNoduleCTError, ValueError):
    """A training run cannot start, continue or be evaluated: its data, checkpoint, devices or losses do not allow it."""
