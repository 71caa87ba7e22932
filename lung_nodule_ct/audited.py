"""``audit.json`` as the card and the publisher read it: each check with its verdict."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from lung_nodule_ct.errors import BuildFolderError

if TYPE_CHECKING:
    from pathlib import Path

AUDIT: Final = "audit.json"
FORMAT_VERSION: Final = 1


@dataclass(frozen=True)
class AuditCheck:
    """One check of an audit.

    Attributes:
        name: As programs name it.
        title: As people read it.
        verdict: ``pass``, ``warn``, ``fail`` or ``unknown``.
        measured: What was found.
        expected: What was expected.
    """

    name: str
    title: str
    verdict: str
    measured: str
    expected: str

    def __post_init__(self) -> None:
        if self.verdict not in ("pass", "warn", "fail", "unknown"):
            raise ValueError(f"the verdict of {self.name}: expected pass, warn, fail or unknown, got {self.verdict!r}")


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        checks: In the order of the audit.
    """

    checks: tuple[AuditCheck, ...]


def read_audit(folder: Path) -> Audit | None:
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
            raise ValueError(f"version {document['format_version']}")
        return Audit(
            tuple(
                AuditCheck(
                    entry["name"],
                    entry["title"],
                    entry["verdict"],
                    _text(entry.get("measured")),
                    _text(entry.get("expected")),
                )
                for entry in document["checks"]
            )
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BuildFolderError(
            f"{path} cannot be read: {error}", remedy="audit again: lung-nodule-ct audit BUILD"
        ) from error


def _text(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
