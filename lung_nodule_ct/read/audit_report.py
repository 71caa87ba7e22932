"""``audit.json``: the checks of an audit, as the audit writes them and as the page, the card and the publisher read them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from lung_nodule_ct.errors import BuildFolderError, printable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

AUDIT: Final = "audit.json"
FORMAT_VERSION: Final = 1


class Verdict(StrEnum):
    """What a check comes to."""

    PASS = "pass"  # noqa: S105 -- no password
    WARN = "warn"
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Check:
    """One question put to a build.

    Attributes:
        name: Its key, stable between versions.
        title: The question in a few words.
        verdict: ``pass``; ``warn``: a careful reader wants to know; ``fail``: the data are not what they say they are, or
            not fit for what they are split for; ``unknown``: the build lacks what would answer it.
        measured: The number, with its unit.
        expected: What a sound build has, ``None`` where nothing is expected.
        detail: How it was measured, and what follows from it.
    """

    name: str
    title: str
    verdict: Verdict
    measured: str
    expected: str | None = None
    detail: str = ""

    def __post_init__(self) -> None:
        if not (self.name and self.title and self.measured):
            raise ValueError(f"a check has a name, a title and a measure, got {self}")

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values, fit for one line of a terminal each."""
        return {
            "name": self.name,
            "title": self.title,
            "verdict": str(self.verdict),
            "measured": printable(self.measured),
            "expected": None if self.expected is None else printable(self.expected),
            "detail": printable(self.detail),
        }

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Check:
        """What :meth:`to_dict` made of one.

        Raises:
            ValueError: It did not, or it was changed since.
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


@dataclass(frozen=True)
class AuditReport:
    """An audit as it stands beside a build.

    Attributes:
        generator: Who made it.
        checks: In the order of the audit.
    """

    generator: str
    checks: tuple[Check, ...]


def read_audit(folder: Path) -> AuditReport | None:
    """The audit beside a build; ``None`` where there is none.

    Raises:
        BuildFolderError: It is damaged, or of another version.
    """
    path = folder / AUDIT
    if not path.exists():
        return None
    try:
        document = json.loads(path.read_text("utf-8"))
        if document["format_version"] != FORMAT_VERSION:
            raise ValueError(f"expected format_version {FORMAT_VERSION}, got {document['format_version']}")
        return AuditReport(str(document.get("generator") or ""), tuple(Check.of(entry) for entry in document["checks"]))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BuildFolderError(
            f"{path} is no audit: {error!r}", remedy=f"audit again: lung-nodule-ct audit {folder}; or remove it"
        ) from error
