"""Kill commands at every call to the file system, and check that nothing is lost and that the next command removes what is left.

    python -m benchmarks.kills [--only build-parquet-1 ...] [--most 30] [--signal KILL]

A child process counts its calls that change the file system (files opened for writing, renames, links, new and removed files and folders) and
sends itself the signal before the n-th of them, for n = 1, 2, 3, ... After each kill the output must be as before or as after the complete
command, with no other visible file next to it. Then the same command runs again, and must leave exactly what a command leaves that was never
killed. Prints the number of kills and of failures of each scenario; the exit status is 1 if there is a failure.
"""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import argument_parser

SOURCE = Path(__file__).parents[1] / "dummy_data"
ADDED, PRESENT = "det2d_1.25mm", "cls_1.25mm"
_CHANGES = frozenset({"os.rename", "os.mkdir", "os.link", "os.symlink", "os.remove", "os.rmdir", "os.truncate"})
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

Files = dict[str, bytes]


@dataclass(frozen=True)
class Scenario:
    """A command to kill.

    Attributes:
        name: Its name.
        command: The arguments of ``lung-nodule-ct``. The output is the folder ``work/out``.
        prepare: Commands that run before it, uninterrupted.
        partly: Whether some of its files may be of the new state while others are of the old one. Shards never are.
        ignored: Whether a file changes with each run, so that it is not compared.
        two_steps: Whether folders are replaced as on a system that cannot exchange them.
    """

    name: str
    command: tuple[str, ...]
    prepare: tuple[tuple[str, ...], ...] = ()
    partly: bool = False
    ignored: Callable[[str], bool] = lambda _: False
    two_steps: bool = False


def scenarios() -> list[Scenario]:
    """All scenarios: builds in every format, added configs, prepared caches, sidecars and training."""
    found = []
    for format_ in ("parquet", "arrow", "tfrecord", "array_record"):
        for processes in ("1", "2"):
            options = ("--format", format_, "--num-proc", processes)
            new = ("build", PRESENT, *options)
            found.append(Scenario(f"build-{format_}-{processes}", new))
            found.append(Scenario(f"add-{format_}-{processes}", ("build", ADDED, *options), (new,)))
    first = ("build", PRESENT, "--format", "parquet")
    found.append(Scenario("add-two-steps", ("build", ADDED), (first,), two_steps=True))
    for processes in ("1", "2"):
        found.append(Scenario(f"prepare-{processes}", ("prepare", PRESENT, "--num-proc", processes)))
    card = ("card", "OUT", "--examples", "2", "--no-croissant")
    found.append(Scenario("card", card, (first, ("card", "OUT", "--examples", "1", "--no-croissant")), partly=True))
    found.append(Scenario("preview", ("preview", "OUT", "--seed", "1"), (first, ("preview", "OUT")), partly=True))
    train = ("train", "OUT/data", PRESENT, "--out", "OUT/run", "--steps", "4", "--save-every", "2", "--batch-size", "4")
    small = ("--model.width", "4", "--model.blocks", "1", "--input.size", "16", "16", "--optim.warmup", "1")
    build = ("build", PRESENT, "--format", "arrow", "--out", "OUT/data")
    found.append(Scenario("train", (*train, *small), (build,), partly=True, ignored=_changes_with_each_training))
    return found


def _changes_with_each_training(name: str) -> bool:
    return "tensorboard/" in name or "/checkpoints/" in name


def main() -> None:
    """Run the scenarios and print the number of kills and failures."""
    parser = argument_parser(__doc__)
    parser.add_argument("--only", nargs="*", metavar="NAME", help="scenarios to run")
    parser.add_argument(
        "--most", type=int, default=1000, help="largest number of kills of each scenario, evenly spread"
    )
    parser.add_argument("--signal", choices=("KILL", "INT"), default="KILL")
    options = parser.parse_args()
    chosen = [each for each in scenarios() if not options.only or each.name in options.only]
    kills = failures = 0
    for scenario in chosen:
        start = time.perf_counter()
        done, problems = run_scenario(scenario, options.most, getattr(signal, f"SIG{options.signal}"))
        kills, failures = kills + done, failures + len(problems)
        print(
            f"{scenario.name:24}{done:5} kills {len(problems):4} failures {time.perf_counter() - start:7.1f} s",
            flush=True,
        )
        for problem in problems[:5]:
            print(f"    {problem}")
    print(f"{'all':24}{kills:5} kills {failures:4} failures")
    raise SystemExit(failures > 0)


def run_scenario(scenario: Scenario, most: int, number: signal.Signals) -> tuple[int, list[str]]:
    """Kill a command at its calls, and return the number of kills and what was wrong afterwards."""
    with tempfile.TemporaryDirectory() as scratch:
        before, after, work = (Path(scratch, name) for name in ("before", "after", "work"))
        work.mkdir()
        for command in scenario.prepare:
            _require(run(scenario, command, work), command)
        shutil.copytree(work, before, symlinks=True)
        counted = Path(scratch, "count")
        _require(run(scenario, scenario.command, work, counted=counted), scenario.command)
        shutil.copytree(work, after, symlinks=True)
        count, *modules = counted.read_text().split()
        if scenario.command[0] != "train":  # JAX starts threads, which a forked process would lack
            _import_before_the_fork(modules)
        calls = int(count)
        states = files_of(before), files_of(after)
        problems = []
        points = sorted({1 + calls * index // min(most, calls) for index in range(min(most, calls))})
        for call in points:
            shutil.rmtree(work)
            shutil.copytree(before, work, symlinks=True)
            code = run(scenario, scenario.command, work, at=call, number=number)
            problem = _check_killed(scenario, work, states, code, number) or _check_again(scenario, work, states)
            if problem:
                problems.append(f"call {call} of {calls}: {problem}")
        return len(points), problems


def _import_before_the_fork(names: Iterable[str]) -> None:
    """Import what a command imported once, and not in each of its children."""
    for name in names:
        if name not in sys.modules:
            with suppress(Exception):  # a part of a package that only the package itself can import
                importlib.import_module(name)


def _check_killed(
    scenario: Scenario, work: Path, states: tuple[Files, Files], code: int, number: signal.Signals
) -> str | None:
    """What is wrong after a kill; ``None`` if nothing is."""
    if number == signal.SIGKILL and code != -signal.SIGKILL:
        return f"the command ended with {code} before it was killed"
    errors = (work.parent / "errors").read_text("utf-8", "replace")
    if number == signal.SIGINT and (code not in (0, 130) or "Traceback" in errors):
        return f"exit status {code} after Ctrl-C: {errors[-500:]}"
    if any(path.name == "out" and path.is_dir() for path in work.iterdir()) or not scenario.two_steps:
        return _compare(scenario, visible_files_of(work), states)
    return None  # moved away; the next command puts it back


def _compare(scenario: Scenario, files: Files, states: tuple[Files, Files]) -> str | None:
    before, after = states
    if files in (before, after):
        return None
    if scenario.partly:
        wrong = [name for name, content in files.items() if not _may_be(scenario, name, content, states)]
        wrong += [name for name in before.keys() & after.keys() if before[name] == after[name] and name not in files]
        return f"neither old nor new: {wrong}" if wrong else None
    return f"a partial output is visible: {sorted(files.keys() ^ before.keys())}"


def _may_be(scenario: Scenario, name: str, content: bytes, states: tuple[Files, Files]) -> bool:
    if name.endswith("/beside.json") or name.startswith("out/run/") or scenario.ignored(name):
        return True
    return content in (state.get(name) for state in states)


def _check_again(scenario: Scenario, work: Path, states: tuple[Files, Files]) -> str | None:
    """What is wrong after the next command; ``None`` if nothing is."""
    code = run(scenario, scenario.command, work)
    if code:
        return f"the next command ended with {code}: {(work.parent / 'errors').read_text('utf-8', 'replace')[-500:]}"
    files, expected = (
        {name: content for name, content in state.items() if not scenario.ignored(name)}
        for state in (files_of(work), states[1])
    )
    different = [name for name in files.keys() | expected.keys() if files.get(name) != expected.get(name)]
    return f"after the next command these files differ: {sorted(different)}" if different else None


def run(
    scenario: Scenario,
    command: tuple[str, ...],
    work: Path,
    *,
    at: int = 0,
    number: signal.Signals = signal.SIGKILL,
    counted: Path | None = None,
) -> int:
    """Run a command in a forked child that may signal itself, and return its exit status. Waits for its workers, too."""
    sys.stdout.flush()
    child = os.fork()
    if not child:
        code = 70
        try:
            os.setpgid(0, 0)
            code = _in_child(scenario, command, work, at, number, counted)
        except BaseException:  # nothing of the parent may run in the child
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    deadline = time.monotonic() + 20
    while _group_is_running(child):
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            return 71  # workers outlived the command
        time.sleep(0.02)
    return os.waitstatus_to_exitcode(status)


def _in_child(
    scenario: Scenario, command: tuple[str, ...], work: Path, at: int, number: signal.Signals, counted: Path | None
) -> int:
    with (work.parent / "errors").open("wb") as errors:
        os.dup2(errors.fileno(), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    out = str(work / "out")
    sys.argv = ["lung-nodule-ct", *(word.replace("OUT", out) for word in command)]
    if command[0] in ("build", "prepare"):
        sys.argv += ["--source", str(SOURCE)]
    if command[0] == "build" and "--out" not in command:
        sys.argv += ["--out", out]
    if command[0] == "prepare":
        sys.argv += ["--cache-dir", out]
    from lung_nodule_ct.cli import main as command_line
    from lung_nodule_ct.system import staging

    if scenario.two_steps:
        staging._exchange = lambda *_: False
    calls = 0

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal calls
        if _changes_files(event, arguments, str(work)):
            calls += 1
            if calls == at:
                os.kill(os.getpid(), number)

    if at or counted:
        sys.addaudithook(count)
    code = 0
    try:
        command_line()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(bool(stop.code))
    if counted:
        counted.write_text(" ".join([str(calls), *sys.modules]))
    return code


def _changes_files(event: str, arguments: tuple[Any, ...], root: str) -> bool:
    """Whether an audit event is a call that changes something below ``root``."""
    if event == "open":
        path, _, flags = arguments
        return isinstance(flags, int) and bool(flags & _WRITES) and root in str(path)
    if event not in _CHANGES:
        return False
    return any(isinstance(each, int) and each >= 0 for each in arguments[1:]) or any(
        root in str(each) for each in arguments
    )


def _group_is_running(group: int) -> bool:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, 0)
        listed = subprocess.run(["ps", "-o", "stat=", "-g", str(group)], capture_output=True, text=True, check=False)
        return any(line and line[0] != "Z" for line in listed.stdout.split())
    return False


def files_of(folder: Path) -> Files:
    """The content of all files of a folder, by name; locks of ``datasets``, which stay, are left out."""
    return {
        name: path.read_bytes()
        for name, path in _walk(folder)
        if not (path.parent.name == "out" and path.suffix == ".lock")
    }


def visible_files_of(folder: Path) -> Files:
    """Like :func:`files_of`, without hidden files and folders."""
    return {
        name: content
        for name, content in files_of(folder).items()
        if not any(part.startswith(".") and part != ".config" for part in name.split("/"))
    }


def _walk(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        if not path.is_dir():
            yield path.relative_to(folder).as_posix(), path


def _require(code: int, command: tuple[str, ...]) -> None:
    if code:
        raise RuntimeError(f"{' '.join(command)} ended with exit status {code}")


if __name__ == "__main__":
    main()
