"""Change the code of the package a little, one change at a time, and count how many of the changes the tests notice.

    python -m benchmarks.mutants [GROUP ...] [--sample 200] [--seed 0] [--at-least 90]

Needs the extra ``test``, and a system with ``fork``. A group is a part of the package with the tests of its rooms that are not slow,
other than those of TFDS, whose libraries crash in a process that was forked.
:mod:`benchmarks.mutations` says what the changes are. From each group a sample is drawn by ``--seed``; ``--sample 0`` takes all. For each
change, those tests run that run the changed statement, in a forked process of their own and the fastest first. The change is killed if a
test fails or takes ten times as long as it should. Prints the survivors and the score of each group; the exit status is 1 if a score is
less than ``--at-least`` percent.

A change that makes no difference to any caller cannot be killed. Those that were found are listed in ``EQUIVALENT`` with the reason and
are left out of the sample.
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import _lru_cache_wrapper, partial
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any, Final

import pytest

from benchmarks.harness import argument_parser, module_command
from benchmarks.mutations import Mutant, mutants_of

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lung_nodule_ct"
_MEMORY = 12 << 30
_SURVIVED, _KILLED, _ERROR = 0, 1, 70
_REPORT: Final = os.fdopen(os.dup(2), "w")
"""For errors of this program; pytest captures the standard streams."""
_SUCCESS = (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
_OPTIONS = (
    *(
        "-o",
        "addopts=",
        "--import-mode=importlib",
        "--strict-markers",
        "-m",
        "not slow and not tfds",
        "--hypothesis-profile=mutants",
    ),
    *("-p", "no:terminal", "-p", "no:xdist", "-p", "no:cacheprovider", "-p", "no:warnings"),
)


@dataclass(frozen=True)
class Group:
    """A part of the package, and the tests that must notice its changes.

    Attributes:
        modules: Folders and modules, in the package.
        tests: Folders and modules, in the tests.
    """

    modules: tuple[str, ...]
    tests: tuple[str, ...]

    def mutants(self) -> list[Mutant]:
        """All changes of the group that are not equivalent."""
        paths = [PACKAGE / name for name in self.modules]
        files = [file for path in paths for file in (sorted(path.rglob("*.py")) if path.is_dir() else [path])]
        return [mutant for file in files for mutant in mutants_of(file) if not _is_equivalent(mutant)]


GROUPS = {
    "geometry": Group(("geometry",), ("geometry",)),
    "formats": Group(("formats",), ("formats",)),
    "examples": Group(("examples",), ("examples", "formats/test_pictures.py")),
    "splits": Group(
        (*(f"declaration/{name}.py" for name in ("identity", "names", "labels", "dates")), "examples/plan.py"),
        ("declaration", "examples"),
    ),
}

EQUIVALENT: dict[tuple[str, str, str], str] = {}
"""Changes that no test can notice, by module, code and changed code; with the reason."""


def _is_equivalent(mutant: Mutant) -> bool:
    return (mutant.path.relative_to(PACKAGE).as_posix(), mutant.before, mutant.after) in EQUIVALENT


@dataclass
class Coverage:
    """Which test runs which lines, and how long it takes.

    Attributes:
        seconds: Time of each test.
        tests: The tests that run a line of a file. Lines that run at import have none.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    tests: dict[tuple[str, int], set[str]] = field(default_factory=lambda: defaultdict(set))

    def tests_of(self, mutant: Mutant) -> list[str]:
        """The tests that can notice a change, the fastest first."""
        path, found = str(mutant.path), set[str]()
        for (file, line), tests in self.tests.items():
            if file == path and (mutant.function is None or line in mutant.lines):
                found |= tests
        return sorted(found, key=lambda name: (self.seconds[name], name))


class Plugin:
    """Instead of running the tests once: measures what they cover, then runs those of each mutant in a fork."""

    def __init__(self, mutants: Sequence[Mutant], report: Callable[[Mutant, bool], None]) -> None:
        self.mutants = mutants
        self.report = report
        self.failed: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note failures; also those of the setup and the end of a test."""
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run the tests of all mutants."""
        coverage = self._measure(session.items)
        items = {item.nodeid: item for item in session.items}
        self._require_success(items)
        for mutant in self.mutants:
            names = coverage.tests_of(mutant)
            seconds = 10 + 10 * sum(coverage.seconds[name] for name in names)
            killed = bool(names) and _in_fork(partial(self._run_changed, mutant, names, items), seconds)
            self.report(mutant, killed)
        return True

    def _measure(self, items: list[pytest.Item]) -> Coverage:
        coverage = Coverage()
        files = {str(mutant.path) for mutant in self.mutants}
        for item in items:
            start = time.perf_counter()
            with _traced_lines(files, coverage.tests, item.nodeid):
                _run_item(item)
            coverage.seconds[item.nodeid] = time.perf_counter() - start
        return coverage

    def _require_success(self, items: dict[str, pytest.Item]) -> None:
        """Run all tests without a change, in the two ways in which they run with one; all must pass."""
        ways = (partial(self._run, list(items.values())), partial(_run_again, list(items)))
        if self.failed or any(_in_fork(way, 3600) for way in ways):
            names = ", ".join(self.failed) or "some of them, in a forked process"
            print(f"tests fail without a change: {names}", file=_REPORT, flush=True)
            pytest.exit("tests fail without a change", returncode=1)

    def _run_changed(self, mutant: Mutant, names: list[str], items: dict[str, pytest.Item]) -> bool:
        if not mutant.function:
            _import_changed(mutant)
            return _run_again(names)
        _exchange_code(mutant)
        return self._run([items[name] for name in names])

    def _run(self, items: Sequence[pytest.Item]) -> bool:
        """Run tests until one fails."""
        for item in items:
            _run_item(item)
            if self.failed:
                return True
        return False


def _run_item(item: pytest.Item) -> None:
    """Run a test and all its fixtures: none may keep the result of unchanged code."""
    item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)


@contextlib.contextmanager
def _traced_lines(files: set[str], tests: dict[tuple[str, int], set[str]], name: str) -> Iterator[None]:
    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in files:
            return None
        if event in ("call", "line"):
            tests[frame.f_code.co_filename, frame.f_lineno].add(name)
        return trace

    previous = sys.gettrace()
    threading.settrace(trace)
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(previous)
        threading.settrace(None)  # type: ignore[arg-type]


def _exchange_code(mutant: Mutant) -> None:
    """Change the function that is in memory, and forget cached results."""
    changed = next(code for code in _codes(mutant.compile()) if _key(code) == mutant.function)
    for each in gc.get_objects():
        if isinstance(each, FunctionType):
            if each.__code__.co_filename == changed.co_filename and _key(each.__code__) == mutant.function:
                each.__code__ = changed
        elif isinstance(each, _lru_cache_wrapper):
            each.cache_clear()


def _key(code: CodeType) -> tuple[str, int]:
    return code.co_qualname, code.co_firstlineno


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _codes(each)


def _import_changed(mutant: Mutant) -> None:
    """Change the module as which a file is imported from now on."""
    original = SourceFileLoader.get_code

    def get_code(loader: SourceFileLoader, name: str) -> CodeType | None:
        return mutant.compile() if loader.path == str(mutant.path) else original(loader, name)

    SourceFileLoader.get_code = get_code  # type: ignore[method-assign]


def _run_again(names: list[str]) -> bool:
    """Import the package and the tests again, and run tests until one fails."""
    for name, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None) or ""
        if name != "__main__" and Path(path).is_relative_to(ROOT) and not name.startswith("benchmarks"):
            del sys.modules[name]
    files = sorted({name.partition("::")[0] for name in names})
    return pytest.main([*_OPTIONS, "-x", *files], plugins=[_Selection(names)]) not in _SUCCESS


class _Selection:
    """Runs only some tests, in a given order."""

    def __init__(self, names: list[str]) -> None:
        self.order = {name: index for index, name in enumerate(names)}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Select and sort."""
        items[:] = sorted((item for item in items if item.nodeid in self.order), key=lambda i: self.order[i.nodeid])


def _in_fork(run: Callable[[], bool], seconds: float) -> bool:
    """Whether tests fail in a forked process, or take longer than they may."""
    sys.stdout.flush()
    before = set(Path(tempfile.gettempdir()).rglob("*"))
    child = os.fork()
    if not child:
        code = _ERROR
        try:
            os.setpgid(0, 0)
            _limit(seconds)
            code = _KILLED if run() else _SURVIVED
        except MemoryError:
            code = _KILLED
        except BaseException:
            traceback.print_exc(file=_REPORT)
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)  # workers that it started
    for path in set(Path(tempfile.gettempdir()).rglob("*")) - before:
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    if os.waitstatus_to_exitcode(status) == _ERROR:
        raise RuntimeError("a change could not be tried; the reason is above")
    return status != 0


def _limit(seconds: float) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def run_group(name: str, sample: int, seed: int) -> float:
    """Run the tests on a sample of the changes of a group, print the survivors, and return the share that was killed."""
    group = GROUPS[name]
    mutants = group.mutants()
    if 0 < sample < len(mutants):
        mutants = random.Random(seed).sample(mutants, sample)
    survivors = []
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch, os.fdopen(os.dup(1), "w") as out:  # pytest captures the first

        def report(mutant: Mutant, killed: bool) -> None:
            if not killed:
                survivors.append(mutant)
                print(f"survived: {mutant}", file=out, flush=True)

        tempfile.tempdir = scratch
        code = pytest.main([*_OPTIONS, *(f"tests/{each}" for each in group.tests)], plugins=[Plugin(mutants, report)])
    if code not in _SUCCESS:
        raise SystemExit(f"pytest ended with exit status {int(code)}")
    killed = len(mutants) - len(survivors)
    seconds = time.perf_counter() - start
    print(
        f"{name:12}{killed:6} of {len(mutants)} killed{100 * killed / len(mutants):7.1f} %{seconds:7.0f} s", flush=True
    )
    return killed / len(mutants)


def main() -> None:
    """Run the groups and print their scores."""
    parser = argument_parser(__doc__)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"some of {', '.join(GROUPS)}; all by default")
    parser.add_argument("--sample", type=int, default=200, help="changes of each group; 0 for all")
    parser.add_argument("--seed", type=int, default=0, help="which sample")
    parser.add_argument("--at-least", type=float, default=90, metavar="PERCENT", help="the least score")
    options = parser.parse_args()
    if unknown := [name for name in options.groups if name not in GROUPS]:
        parser.error(f"unknown groups {', '.join(unknown)}; expected some of {', '.join(GROUPS)}")
    os.chdir(ROOT)
    if len(options.groups) == 1:
        raise SystemExit(100 * run_group(options.groups[0], options.sample, options.seed) < options.at_least)
    arguments = [f"--sample={options.sample}", f"--seed={options.seed}", f"--at-least={options.at_least}"]
    commands = [module_command("mutants", name, *arguments) for name in options.groups or GROUPS]
    raise SystemExit(max(subprocess.run(command, check=False).returncode for command in commands))


if __name__ == "__main__":
    main()
