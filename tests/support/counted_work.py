"""Count what a piece of work executes, by function, and name the functions whose count grows faster than the data.

A count is the number of lines that a function executes; each comparison, read and request of this package is at least one. Unlike seconds, it is
the same in every run. Work inside one call of a C function is one line: a test of the seconds is needed for that.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from types import CodeType, FrameType
from typing import Any

_PACKAGE = "lung_nodule_ct."
MAX_GROWTH = 3.0
"""Three measurements at n, 2n and 4n: the second increase is 2 times the first if the count is linear, 2.2 if n log n, 4 if quadratic."""
_FEW_LINES = 400
"""Functions that execute fewer lines in addition are not compared."""


def count_lines(work: Callable[[], object]) -> Counter[str]:
    """Run some work and return the number of lines that each function of this package executed, in all threads.

    Generated functions, as the comparison of a dataclass, count, too.
    """
    counts: Counter[CodeType] = Counter()
    modules: dict[CodeType, str] = {}

    def in_function(frame: FrameType, event: str, _argument: Any) -> Any:
        if event == "line":
            counts[frame.f_code] += 1
        return in_function

    def on_call(frame: FrameType, _event: str, _argument: Any) -> Any:
        code = frame.f_code
        if code not in modules:
            modules[code] = frame.f_globals.get("__name__", "")
        if not modules[code].startswith(_PACKAGE):
            return None
        counts[code] += 1
        return in_function

    before = sys.gettrace()
    threading.settrace(on_call)
    sys.settrace(on_call)
    try:
        work()
    finally:
        sys.settrace(before)
        threading.settrace(None)  # type: ignore[arg-type]
    by_name: Counter[str] = Counter()
    for code, count in counts.items():
        by_name[f"{modules[code]}: {code.co_qualname}"] += count
    return by_name


def superlinear(counts: Mapping[int, Counter[str]]) -> dict[str, list[int]]:
    """Return the functions whose counts grow faster than the data, with their counts.

    Args:
        counts: The counts at n, 2n and 4n.
    """
    one, two, four = (counts[size] for size in sorted(counts))
    return {
        name: [one[name], two[name], count]
        for name, count in four.items()
        if count - two[name] > max(_FEW_LINES, MAX_GROWTH * (two[name] - one[name]))
    }
