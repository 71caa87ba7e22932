"""Numbers as tables and annotations write them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

#: Nothing in a chest is further away, in millimetres or in pixels; what is larger is no measurement, and could overflow.
LARGEST: Final = 1e9


def read_numbers(texts: Iterable[str]) -> tuple[float, ...] | None:
    """The numbers; ``None`` where one of them is none, is not finite, or is larger than :data:`LARGEST`."""
    try:
        # Python's own underscores ("1_000") are no part of a number anywhere else
        values = tuple(float(text.replace("_", "?")) for text in texts)
    except ValueError:
        return None
    return values if all(abs(value) <= LARGEST for value in values) else None
