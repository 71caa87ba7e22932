"""Whole processes, taken in turn, and what the operating system says of them: wall, CPU, peak memory."""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

OURS = Path(sys.executable).with_name("lung-nodule-ct")
"""Our command line."""


@dataclass(frozen=True)
class Measured:
    """One run of a process, its children included in wall and CPU.

    Attributes:
        written_mb: What it left in its folder, where that was looked at.
    """

    wall: float
    cpu: float
    peak_mb: float
    written_mb: float = 0.0


def run_measured(command: Sequence[str | Path]) -> Measured:
    """Run a command to its end.

    Raises:
        RuntimeError: It failed; its output is in the message.
    """
    start = time.perf_counter()
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command} ended with {process.returncode}:\n{output[-3000:]}")
    return Measured(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def in_turn(
    contenders: dict[str, Sequence[str | Path]], rounds: int, made: Mapping[str, Path] | None = None
) -> dict[str, list[Measured]]:
    """Run the contenders one after the other, round by round, so that a machine's drift meets all of them.

    Args:
        contenders: Commands by name.
        rounds: How often.
        made: By name, the folder that a command writes. It is measured and taken away after every run: a disk that is
            busy with what the last one wrote, or memory that is full of it, is not the next one's affair.
    """
    runs: dict[str, list[Measured]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name, command in contenders.items():
            print(f"round {number + 1} of {rounds}: {name}", file=sys.stderr)
            run = run_measured(command)
            if made and name in made:
                run = replace(run, written_mb=folder_bytes(made[name]) / 1e6)
                shutil.rmtree(made[name])
                os.sync()
            runs[name].append(run)
    return runs


def in_a_process_of_its_own(work: Callable[..., Any], *arguments: Any) -> Any:
    """What ``work`` gives; its memory is not ours then, which every process that we start would be charged with."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def medians(runs: Sequence[Measured]) -> Measured:
    """The median of each figure; of memory the largest."""
    return Measured(
        median(r.wall for r in runs),
        median(r.cpu for r in runs),
        max(r.peak_mb for r in runs),
        median(r.written_mb for r in runs),
    )


def folder_bytes(folder: Path) -> int:
    """Size of all files under a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def module_command(module: str, *arguments: str | Path) -> list[str | Path]:
    """A command that runs one of these modules in a fresh interpreter."""
    return [sys.executable, "-m", f"benchmarks.{module}", *arguments]


class RepeatedWork:
    """A process that prepares a piece of work and then repeats it on request, so that several can be timed in turn.

    Args:
        make: Returns the work, and information about it. The function and the information must be picklable.
        arguments: The arguments of ``make``.
        cores: The number of cores that the process may use; 0 for all.
    """

    def __init__(self, make: Callable[..., tuple[Callable[[], object], Any]], *arguments: Any, cores: int = 0) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_repeat_on_request, args=(other, make, arguments, cores), daemon=True)
        self._process.start()
        other.close()
        self.info = self._connection.recv()

    def run(self, times: int = 1) -> Measured:
        """Mean wall and CPU seconds of repeating the work, and the peak memory of the process so far."""
        self._connection.send(times)
        measured: Measured = self._connection.recv()
        return measured

    def __enter__(self) -> RepeatedWork:
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.send(0)
        self._process.join()


def _repeat_on_request(connection: Connection, make: Callable[..., Any], arguments: Sequence[Any], cores: int) -> None:
    if cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    work, info = make(*arguments)
    work()  # compiles
    connection.send(info)
    while times := connection.recv():
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(times):
            work()
        seconds = (time.perf_counter() - wall) / times, (time.process_time() - cpu) / times
        connection.send(Measured(*seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
