"""``audit.json``: checks and their results. The audit writes it; the preview page, the card and ``publish`` read it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from lung_nodule_ct.declaration.findings import Grade
from lung_nodule_ct.errors import BuildFolderError, printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

AUDIT: Final = "audit.json"
AUDIT_COMMAND: Final = "audit"
"""The command that writes it, by which ``beside.json`` lists its files."""
AUDIT_VERSION: Final = 1
_MAX_LISTED = 5


class Verdict(StrEnum):
    """The result of a check."""

    PASS = "pass"  # noqa: S105 -- not a password
    WARN = "warn"
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Check:
    """One check of a build, and its result.

    Attributes:
        name: Its key, which does not change between versions.
        title: What is checked, in a few words.
        verdict: ``pass``; ``warn`` if a careful reader should know the result; ``fail`` if the data contradict their
            description or are not fit for their splits; ``unknown`` if the build lacks the data for the check.
        measured: The measured value, with its unit.
        expected: The value of a sound build, ``None`` if no value is expected.
        detail: How the value was measured, and what follows from it.

    Raises:
        ValueError: Name, title or measured value is empty.
    """

    name: str
    title: str
    verdict: Verdict
    measured: str
    expected: str | None = None
    detail: str = ""

    def __post_init__(self) -> None:
        if not (self.name and self.title and self.measured):
            raise ValueError(f"a check needs a name, a title and a measured value, got {self}")

    @classmethod
    def unknown(cls, name: str, title: str, reason: str, expected: str | None = None) -> Check:
        """A check for which the build has no data, with the reason as its detail."""
        return cls(name, title, Verdict.UNKNOWN, "not measured", expected, reason)

    @classmethod
    def of_flags(cls, name: str, title: str, flags: Sequence[Flag], count: int, things: str, method: str) -> Check:
        """The check whose result is some flags.

        Args:
            name: Its key.
            title: What is checked.
            flags: What it flagged.
            count: How many things were checked.
            things: What they are, in the plural.
            method: How they were measured.
        """
        rows = len({(flag.row.config, flag.row.split, flag.row.row) for flag in flags})
        listed = [f"{flag.row}: {flag.measured}" for flag in flags[:_MAX_LISTED]]
        more = [f"and {len(flags) - _MAX_LISTED:,} more, in flags"] if len(flags) > _MAX_LISTED else []
        is_error = any(flag.grade is Grade.ERROR for flag in flags)
        verdict = Verdict.FAIL if is_error else Verdict.WARN if flags else Verdict.PASS
        measured = f"{rows:,} of {count:,} {things} flagged"
        return cls(name, title, verdict, measured, "none", "; ".join([method, *listed, *more]))

    def to_dict(self) -> dict[str, Any]:
        """The check as JSON values, every text on one line."""
        return {
            "name": self.name,
            "title": self.title,
            "verdict": str(self.verdict),
            "measured": printable(self.measured),
            "expected": None if self.expected is None else printable(self.expected),
            "detail": printable(self.detail),
        }

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Check:
        """The check that :meth:`to_dict` wrote.

        Raises:
            ValueError: The entry is not a check, or was changed.
            KeyError: Likewise.
        """
        texts = [
            entry["name"],
            entry["title"],
            entry["measured"],
            entry.get("expected") or "",
            entry.get("detail") or "",
        ]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(f"expected texts, got {texts}")
        name, title, measured, _, detail = texts
        return cls(name, title, Verdict(entry["verdict"]), measured, entry.get("expected"), detail)


@dataclass(frozen=True, slots=True)
class RowKey:
    """A row of a build.

    Attributes:
        config: Its config.
        split: Its split.
        row: Its number in the split, from 0.
        key: The values of its columns of identifiers.
    """

    config: str
    split: str
    row: int
    key: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        names = ", ".join(f"{name} {value}" for name, value in self.key.items())
        return f"{self.config} {self.split} row {self.row:,}" + (f" ({names})" if names else "")

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON values."""
        return {"config": self.config, "split": self.split, "row": self.row, "key": dict(self.key)}


@dataclass(frozen=True, slots=True)
class Flag:
    """One thing that a check flagged: an annotation, a row, or a pair of rows.

    Attributes:
        check: Name of the check.
        grade: ``warning`` or ``error``.
        row: The row.
        measured: What was measured, in words and numbers.
        bound: What a sound row has.
        annotation: Index of the annotation in the row, from 0; ``None`` if the flag is about the row.
        hint: What would explain it, ``None`` if nothing is known.
        other: The other row of a pair, ``None`` without one.

    Raises:
        ValueError: The grade is not ``warning`` or ``error``.
    """

    check: str
    grade: Grade
    row: RowKey
    measured: str
    bound: str
    annotation: int | None = None
    hint: str | None = None
    other: RowKey | None = None

    def __post_init__(self) -> None:
        if self.grade not in (Grade.WARNING, Grade.ERROR):
            raise ValueError(f"a flag is a warning or an error, got {self.grade}")

    def to_dict(self) -> dict[str, Any]:
        """The flag as JSON values, every text on one line."""
        return {
            "check": self.check,
            "grade": str(self.grade),
            **self.row.to_dict(),
            "annotation": self.annotation,
            "measured": printable(self.measured),
            "bound": printable(self.bound),
            "hint": None if self.hint is None else printable(self.hint),
            "other": None if self.other is None else self.other.to_dict(),
        }


@dataclass(frozen=True, slots=True)
class CheckGroup:
    """The checks of one subject.

    Attributes:
        name: Its key in the ``numbers`` of ``audit.json``.
        checks: The checks, in the order of the report.
        numbers: The numbers behind the checks, as JSON values.
        flags: What the checks flagged, in the order of the rows.
    """

    name: str
    checks: tuple[Check, ...]
    numbers: Mapping[str, Any] = field(default_factory=dict)
    flags: tuple[Flag, ...] = ()


@dataclass(frozen=True)
class AuditReport:
    """The stored audit of a build.

    Attributes:
        generator: The program that wrote it.
        checks: The checks, in the order of the audit.
    """

    generator: str
    checks: tuple[Check, ...]


def read_audit(folder: Path) -> AuditReport | None:
    """Return the audit that is stored in the folder of a build, ``None`` if there is none.

    Raises:
        BuildFolderError: The file is damaged, or has another version.
    """
    path = folder / AUDIT
    if not path.exists():
        return None
    try:
        document = json.loads(path.read_text("utf-8"))
        if document["format_version"] != AUDIT_VERSION:
            raise ValueError(f"expected format_version {AUDIT_VERSION}, got {document['format_version']}")
        checks = tuple(Check.from_dict(entry) for entry in document["checks"])
        return AuditReport(str(document.get("generator") or ""), checks)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BuildFolderError(
            f"{path} is not an audit: {error!r}",
            remedy=f"audit the build again: lung-nodule-ct audit {folder}",
        ) from error
