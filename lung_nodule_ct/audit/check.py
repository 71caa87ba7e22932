"""What an audit says: a check is one question with a number and a verdict, a part is the checks of one matter."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from lung_nodule_ct.printable import printable

if TYPE_CHECKING:
    from collections.abc import Mapping


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


@dataclass(frozen=True, slots=True)
class Part:
    """The checks of one matter.

    Attributes:
        name: Its key among the numbers of ``audit.json``.
        checks: In their order.
        numbers: What they rest on, as plain JSON values.
    """

    name: str
    checks: tuple[Check, ...]
    numbers: Mapping[str, Any] = field(default_factory=dict)


def unknown(name: str, title: str, why: str, expected: str | None = None) -> Check:
    """A check that the build has nothing to answer with."""
    return Check(name, title, Verdict.UNKNOWN, "not measured", expected, why)
