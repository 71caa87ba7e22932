"""The checks of one matter, and what stands for one that cannot be answered."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lung_nodule_ct.read.audit_report import Check, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class CheckGroup:
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
