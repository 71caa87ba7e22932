"""Run processes and measure their wall time, CPU time, peak memory, and the size of their output."""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, Self

Command = Sequence[str | Path]

PROGRAM = Path(sys.executable).with_name("lung-nodule-ct")
"""The command line of this package."""


@dataclass(frozen=True)
class Measurement:
    """What one run of a process used.

    Attributes:
        wall: Wall seconds.
        cpu: CPU seconds of the process and its children.
        peak_mb: Peak memory in MiB of the process and all its descendants together: the sum of their proportional set sizes, in which
            a page that several share counts once, sampled ten times a second. Where the system does not state it (not Linux), the peak
            resident set of the largest process.
        written_mb: Size in MB of the folder that it wrote, if it was measured.
        system: The part of ``cpu`` that the system took, as for page faults and for writing files.
    """

    wall: float
    cpu: float
    peak_mb: float
    written_mb: float = 0.0
    system: float = 0.0

    @property
    def user(self) -> float:
        """The part of ``cpu`` that the programs took themselves."""
        return self.cpu - self.system


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help shows the docstring of the benchmark with its line breaks."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def build_command(source: Path, *arguments: str | Path) -> list[str | Path]:
    """Return the command that builds ``det3d_1.25mm`` from a folder of archives."""
    return [PROGRAM, "build", "det3d_1.25mm", "--source", source, *arguments]


def module_command(module: str, *arguments: str | Path) -> list[str | Path]:
    """Return the command that runs a module of this folder in a new interpreter."""
    return [sys.executable, "-m", f"benchmarks.{module}", *arguments]


def measure_command(command: Command) -> Measurement:
    """Run a command and wait for its end.

    Raises:
        RuntimeError: The command failed. The message contains the end of its output.
    """
    # installed packages have bytecode, and a working tree has it after its first run, unless this forbids it
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    start = time.perf_counter()
    process = subprocess.Popen(list(map(str, command)), env=environment, **pipes)
    assert process.stdout is not None
    with PeakMemory(process.pid) as memory:
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command} ended with exit status {process.returncode}:\n{output[-3000:]}")
    peak_mb = memory.peak_mb or usage.ru_maxrss / 1024
    cpu = usage.ru_utime + usage.ru_stime
    return Measurement(time.perf_counter() - start, cpu, peak_mb, system=usage.ru_stime)


class PeakMemory:
    """The peak of the memory of a process and its descendants together, while the block runs; 0 where the system does not state it.

    Args:
        pid: The process.
        interval_s: Seconds between two samples.
    """

    def __init__(self, pid: int, interval_s: float = 0.1) -> None:
        self.peak_mb = 0.0
        self._pid, self._interval_s = pid, interval_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while True:
            self.peak_mb = max(self.peak_mb, sum(map(_proportional_mb, _descendants(self._pid))))
            if self._ended.wait(self._interval_s):
                return


def _descendants(pid: int) -> Iterator[int]:
    """The process, its children, and theirs."""
    yield pid
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has ended
            for child in path.read_text().split():
                yield from _descendants(int(child))


def _proportional_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended, or the system has no such file
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def measure_in_turn(
    commands: Mapping[str, Command], rounds: int, outputs: Mapping[str, Path] | None = None
) -> dict[str, list[Measurement]]:
    """Run every command once per round, so that changes in the speed of the machine affect all commands alike.

    Args:
        commands: Commands by name.
        rounds: The number of rounds.
        outputs: Folders that the commands write, by name of the command. A folder is deleted before each run of its
            command, and pending writes are completed, so that no run is slowed by the output of another.
    """
    runs: dict[str, list[Measurement]] = {name: [] for name in commands}
    for number in range(rounds):
        for name, command in commands.items():
            print(f"round {number + 1} of {rounds}: {name}", file=sys.stderr)
            output = outputs.get(name) if outputs else None
            if output is not None:
                shutil.rmtree(output, ignore_errors=True)
                os.sync()
            run = measure_command(command)
            runs[name].append(replace(run, written_mb=folder_bytes(output) / 1e6) if output else run)
    return runs


def medians(runs: Sequence[Measurement]) -> Measurement:
    """Return the median of each value, but the maximum of the peak memory."""
    return Measurement(
        median(run.wall for run in runs),
        median(run.cpu for run in runs),
        max(run.peak_mb for run in runs),
        median(run.written_mb for run in runs),
        median(run.system for run in runs),
    )


def paired_ratio(others: Sequence[float], ours: Sequence[float]) -> float:
    """Return the median of the ratios of measurements of the same rounds, which a slow round of both does not change."""
    return median(other / own for other, own in zip(others, ours, strict=True))


def cpu_seconds(function: Callable[[], object]) -> float:
    """Call a function and return the CPU seconds of this process during the call."""
    start = time.process_time()
    function()
    return time.process_time() - start


def folder_bytes(folder: Path) -> int:
    """Return the size of all files in a folder and its subfolders."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def run_in_new_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result of a function that runs in a new process.

    Linux never reports less peak memory for a child than its parent had at the fork. Therefore the process that starts
    the measured commands must stay small.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


class RepeatedWork:
    """A process that prepares a piece of work and then repeats it on request, so that several can be timed in turn.

    Args:
        make: Returns the work, and information about it. The function and the information must be picklable.
        arguments: The arguments of ``make``.
        cores: The number of cores that the process may use; 0 for all.
    """

    def __init__(self, make: Callable[..., tuple[Callable[[], object], Any]], *arguments: Any, cores: int = 0) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, child_connection = context.Pipe()
        self._process = context.Process(
            target=_repeat_on_request, args=(child_connection, make, arguments, cores), daemon=True
        )
        self._process.start()
        child_connection.close()
        self.info = self._connection.recv()

    def run(self, times: int = 1) -> Measurement:
        """Return the mean wall and CPU seconds of the repetitions, and the peak memory of the process so far."""
        self._connection.send(times)
        measurement: Measurement = self._connection.recv()
        return measurement

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
        connection.send(Measurement(*seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
