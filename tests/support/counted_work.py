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

TraceFunction = Callable[[FrameType, str, Any], Any]

_PACKAGE = "lung_nodule_ct."
MAX_GROWTH = 3.0
"""Three measurements at n, 2n and 4n: the second increase is 2 times the first if the count is linear, 2.2 if n log n, 4 if quadratic."""
_FEW_LINES = 400
"""Functions that execute fewer lines in addition are not compared."""


def count_lines(work: Callable[[], object]) -> Counter[str]:
    """Run some work and return the number of lines that each function of this package executed, in all threads.

    Generated functions, as the comparison of a dataclass, count, too.
    """
    counts: list[tuple[str, list[int]]] = []
    known: dict[int, tuple[CodeType, TraceFunction | None]] = {}  # by identity, since the hash of code is slow

    def tracer_of(code: CodeType, module: str) -> TraceFunction | None:
        if not module.startswith(_PACKAGE):
            return None
        count = [0]
        counts.append((f"{module}: {code.co_qualname}", count))

        def on_line(_frame: FrameType, event: str, _argument: Any) -> TraceFunction:
            if event == "line":
                count[0] += 1
            return on_line

        return on_line

    def on_call(frame: FrameType, _event: str, argument: Any) -> TraceFunction | None:
        code = frame.f_code
        entry = known.get(id(code))
        if entry is None:
            entry = known[id(code)] = (code, tracer_of(code, frame.f_globals.get("__name__", "")))
        tracer = entry[1]
        return tracer and tracer(frame, "line", argument)

    before = sys.gettrace()
    threading.settrace(on_call)
    sys.settrace(on_call)
    try:
        work()
    finally:
        sys.settrace(before)
        threading.settrace(None)  # type: ignore[arg-type]
    by_name: Counter[str] = Counter()
    for name, count in counts:
        by_name[name] += count[0]
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
