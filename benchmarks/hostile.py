"""Build and inspect sources with hostile files, one each, and check that nothing crashes, reads outside, or exceeds its limits.

    python -m benchmarks.hostile [--seed 0] [--only zip header]

A source is a set of tiny archives in which one archive or member is hostile: names that lead outside, bombs, overlapping or truncated members, headers with
impossible sizes, XML with entities, pictures that claim terabytes, workbooks with external links, tables of one endless line. Each is inspected
and built in a child process. A file passes if both commands end with exit status 0 or 1 and without a traceback, open no file outside the
source, the output and the program, print and write nothing of the file next to the source, and use at most 512 MiB more than an ordinary
build and 5 CPU seconds. The exit status is 1 if a file does not pass.
"""

from __future__ import annotations

import io
import os
import resource
import shutil
import sys
import tempfile
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import argument_parser
from benchmarks.hostile_files import HostileFile, hostile_files
from lung_nodule_ct.testing.archives import (
    BMP_TABLES,
    CLS,
    CT0,
    DET2D,
    NODULES,
)
from lung_nodule_ct.testing.synthetic_archives import TinyArchives

MEMORY_MIB, CPU_SECONDS = 512, 5
CANARY = "the content of a file outside the source"
CONFIGS = {
    CLS: "cls_1.25mm",
    DET2D: "det2d_1.25mm",
    CT0: "det3d_1.25mm",
    NODULES: "det3d_1.25mm",
    BMP_TABLES: "det3d_bmp_1.25mm",
}
_PROGRAM = tuple(
    {
        sys.prefix,
        sys.base_prefix,
        str(Path(__file__).parents[1]),
        "/usr",
        "/lib",
        "/lib64",
        "/proc",
        "/sys",
        "/dev",
        "/etc",
    }
)


@dataclass(frozen=True)
class Result:
    """What happened with a hostile file: faults, none if it passed; MiB above an ordinary build; CPU seconds; whether it was built."""

    faults: tuple[str, ...]
    memory: float
    cpu: float
    built: bool


def run(hostile: HostileFile, folder: Path, ordinary_mib: float) -> Result:
    """Inspect and build a source with the file, in a child process."""
    source, out, log = folder / "source", folder / "out" / "build", folder / "log"
    tiny = TinyArchives()
    tiny[hostile.archive] |= hostile.members or {}
    tiny.write(source)
    if hostile.content is not None:
        (source / hostile.archive).write_bytes(hostile.content)
    del tiny
    (folder / "canary.txt").write_text(CANARY)
    faults: list[str] = []
    memory = cpu = 0.0
    built = False
    for command in (
        ["inspect", "--source", str(source)],
        ["build", CONFIGS[hostile.archive], "--source", str(source), "--out", str(out)],
    ):
        child = os.fork()
        if child == 0:
            os._exit(_run_in_child(command, folder, log))
        _, status, usage = os.wait4(child, 0)
        code = os.waitstatus_to_exitcode(status)
        built = code == 0
        memory, cpu = max(memory, usage.ru_maxrss / 1024 - ordinary_mib), max(cpu, usage.ru_utime + usage.ru_stime)
        text = log.read_text("utf-8", "replace")
        if code not in (0, 1) or "Traceback" in text:
            faults.append(f"{command[0]} ended with {code}: {text[-300:]}")
        if "opened outside" in text:
            faults.append(text[text.index("opened outside") :][:200])
        if CANARY in text:
            faults.append("printed a file outside the source")
    if memory > MEMORY_MIB or cpu > CPU_SECONDS:
        faults.append(f"{memory:,.0f} MiB, {cpu:.1f} CPU s")
    written = [
        path
        for path in folder.rglob("*")
        if path.is_file() and source not in path.parents and path not in (log, folder / "canary.txt")
    ]
    faults += [f"wrote {path}" for path in written if out.parent not in path.parents]
    faults += ["wrote a file outside the source" for path in written if CANARY.encode() in path.read_bytes()]
    return Result(tuple(faults), memory, cpu, built)


def _run_in_child(command: list[str], folder: Path, log: Path) -> int:
    from lung_nodule_ct.cli import main as run_command

    allowed = (*_PROGRAM, str(folder / "source"), str(folder / "out"), str(log), str(Path.home() / ".cache"))
    with (
        log.open("w", encoding="utf-8", errors="backslashreplace") as file,
        redirect_stdout(file),
        redirect_stderr(file),
    ):

        def watch(event: str, arguments: tuple[object, ...]) -> None:
            if event == "open" and isinstance(arguments[0], str | bytes):
                path = os.path.realpath(os.fsdecode(arguments[0]))
                if path == "/etc/passwd" or not path.startswith(allowed):
                    file.write(f"opened outside: {path}\n")

        sys.addaudithook(watch)
        sys.argv = ["lung-nodule-ct", *command]
        try:
            run_command()
        except SystemExit as ended:
            return ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
        except BaseException:
            import traceback

            traceback.print_exc()
            return 70
    return 0


def main() -> None:
    """Run all hostile files, and print the counts and the faults."""
    parser = argument_parser(__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="kinds: zip, header, annotation, picture, table")
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    _import_all()
    total: Counter[str] = Counter()
    largest, longest = 0.0, 0.0
    ordinary = _ordinary_mib()
    for hostile in hostile_files(options.seed):
        if options.only and hostile.kind not in options.only:
            continue
        folder = Path(tempfile.mkdtemp(prefix="hostile-"))
        result = run(hostile, folder, ordinary)
        shutil.rmtree(folder)
        total[hostile.kind] += 1
        total["built"] += result.built
        total["failed"] += bool(result.faults)
        largest, longest = max(largest, result.memory), max(longest, result.cpu)
        for fault in result.faults:
            print(f"{hostile.kind}: {hostile.name}: {fault}", flush=True)
    files = sum(count for kind, count in total.items() if kind not in ("built", "failed"))
    kinds = ", ".join(f"{count} {kind}" for kind, count in total.items() if kind not in ("built", "failed"))
    print(
        f"{files} hostile files ({kinds}): {total['failed']} failed, {total['built']} built, {files - total['built']} refused with an error"
    )
    print(f"at most {largest:,.0f} MiB more than an ordinary build, and {longest:.1f} CPU seconds")
    raise SystemExit(1 if total["failed"] else 0)


def _import_all() -> None:
    """Import what the commands need, so that the children do not each import it."""
    with tempfile.TemporaryDirectory() as scratch, redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        _run_ordinary(Path(scratch))


def _ordinary_mib() -> float:
    """The memory of this process with everything imported, and of an ordinary build, which its children share."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _run_ordinary(folder: Path) -> None:
    from lung_nodule_ct.cli import app

    source = TinyArchives().write(folder / "source")
    for command in (
        ["inspect", "--source", str(source)],
        ["build", "--all", "--source", str(source), "--out", str(folder / "out")],
    ):
        app(command, standalone_mode=False)


if __name__ == "__main__":
    main()
