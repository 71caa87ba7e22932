"""A family of slices whose examples go wrong once, for tests of builds on several machines.

A fault is a file ``<kind>-<source name>``, or ``<kind>`` for any slice, in the folder that the variable ``FAULTS`` names. The process that removes it has the fault. ``made``
lists every example that was begun, with the process that did it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lung_nodule_ct.examples.family import Example, LeftOut, Reading, Unit
from lung_nodule_ct.examples.plan import FAMILIES
from lung_nodule_ct.examples.slices import SLICES
from lung_nodule_ct.targets.options import BuildOptions

if TYPE_CHECKING:
    import pytest


def use_faulty_slices(monkeypatch: pytest.MonkeyPatch, faults: Path) -> None:
    """Let examples of slices go wrong where a file in the folder says so, and write one shard per slice."""
    layout = BuildOptions.layout
    monkeypatch.setenv("FAULTS", str(faults))
    monkeypatch.setitem(FAMILIES, "slice", FAULTY_SLICES)
    monkeypatch.setattr(BuildOptions, "layout", lambda *args: replace(layout(*args), shard_bytes=1))


def made_by(folder: Path) -> list[tuple[int, str]]:
    """The process and the name of each example that was begun, in order."""
    path = folder / "made"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(int(process), name) for process, name in (line.split(" ", 1) for line in lines)]


def make(unit: Unit, reading: Reading) -> Sequence[Example | LeftOut]:
    """Make the example of a slice, after what is wrong with it."""
    folder = Path(os.environ["FAULTS"])
    with (folder / "made").open("a") as file:
        file.write(f"{os.getpid()} {unit.source_name}\n")
    for kind in ("kill", "slow", "fail", "damage"):
        if not any(_taken(folder / name) for name in (kind, f"{kind}-{unit.source_name}")):
            continue
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif kind == "slow":
            _wait_for_others(folder)
        elif kind == "fail":
            raise OSError("the file system does not respond")
        else:
            raise unit.members[0].damage("its bytes are not those that were packed", expected="crc 1", got="crc 2")
    return SLICES.make(unit, reading)


def _taken(path: Path) -> bool:
    """Remove a file, and return whether this process did it."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def _wait_for_others(folder: Path, count: int = 15, seconds: float = 60) -> None:
    """Wait until the examples of so many slices were begun."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and len({name for _, name in made_by(folder)}) < count:
        time.sleep(0.05)


FAULTY_SLICES = replace(SLICES, make=make)
