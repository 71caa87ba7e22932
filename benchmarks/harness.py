"""Run processes and measure their wall time, CPU time, peak memory, and the size of their output."""

from __future__ import annotations

import argparse
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

Command = Sequence[str | Path]

PROGRAM = Path(sys.executable).with_name("lung-nodule-ct")
"""The command line of this package."""


@dataclass(frozen=True)
class Measurement:
    """What one run of a process used.

    Attributes:
        wall: Wall seconds.
        cpu: CPU seconds of the process and its children.
        peak_mb: Peak memory (resident set) in MiB of the process or of its largest child, not of their sum. It
            is never less than the memory of the process that started it (see :func:`run_in_new_process`).
        written_mb: Size in MB of the folder that it wrote, if it was measured.
    """

    wall: float
    cpu: float
    peak_mb: float
    written_mb: float = 0.0


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
    start = time.perf_counter()
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command} ended with exit status {process.returncode}:\n{output[-3000:]}")
    return Measurement(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


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
    )


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
