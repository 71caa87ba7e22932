"""Run benchmarks and write what they print to ``benchmarks/RESULTS.md``, with the machine and the package versions.

    python -m benchmarks [NAME ...] [--quick]

``benchmarks.preview`` needs Chromium and is run separately.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness import argument_parser

RESULTS = Path(__file__).with_name("RESULTS.md")
HEADER = """# Results

Written by `python -m benchmarks`, or by the command above each table. Times depend on the machine; ratios depend on it less.
"""


class Arguments(NamedTuple):
    """Command-line arguments of a benchmark: of the published run, and of a quick test that it works."""

    full: str
    quick: str


BENCHMARKS = {
    "build": Arguments("--volumes 32 --rounds 2", "--volumes 2 --rounds 1"),
    "peers": Arguments("--volumes 16 --pictures 1500 --rounds 5", "--volumes 2 --pictures 40 --rounds 1 --reads 5"),
    "read": Arguments("--volumes 3 --reads 200", "--volumes 1 --reads 20"),
    "cold": Arguments("--volumes 4 --reads 20", "--volumes 1 --reads 2"),
    "codecs": Arguments("", "--reads 5"),
    "tfds": Arguments("--volumes 16 --rounds 1", "--volumes 1 --rounds 1"),
    "scale": Arguments(
        "--volumes 4 32 256 1000 --workers-volumes 256", "--volumes 2 4 --workers-volumes 4 --scans 500 --units 2000"
    ),
    "learning": Arguments("", "--only longitudinal-single --steps 5"),
    "training": Arguments("", "--recipes longitudinal --rounds 1"),
    "gpu": Arguments("", "--tiny --only ceilings"),
    "damages": Arguments("--count 1000", "--count 64"),
    "download": Arguments("--gigabytes 1 --rounds 5", "--gigabytes 0.1 --rounds 1"),
    "streaming": Arguments("", "--pictures 40 --volumes 2"),
    "imaging": Arguments("", "--rounds 1 --slices 40"),
    "account": Arguments("--cases 10000", "--cases 200"),
}

PACKAGES = (
    "numpy",
    "pyarrow",
    "datasets",
    "SimpleITK",
    "isal",
    "imagecodecs",
    "blosc2",
    "tensorflow-datasets",
    "monai",
    "torchio",
    "zarr",
    "jax",
    "torch",
)


def main() -> None:
    """Run the benchmarks, print their output, and write it to the results unless ``--quick`` is given."""
    parser = argument_parser(__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"benchmarks to run, of {', '.join(BENCHMARKS)}")
    parser.add_argument("--quick", action="store_true", help="test that the benchmarks work; writes no results")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in BENCHMARKS]:
        parser.error(f"unknown benchmarks {', '.join(unknown)}; expected some of {', '.join(BENCHMARKS)}")
    sections = _read_sections()
    for name in options.names or BENCHMARKS:
        arguments = BENCHMARKS[name].quick if options.quick else BENCHMARKS[name].full
        command = ["-m", f"benchmarks.{name}", *arguments.split()]
        process = subprocess.run([sys.executable, *command], stdout=subprocess.PIPE, text=True, check=False)
        shown = " ".join(["python", *command])
        print(process.stdout)
        if process.returncode:
            raise SystemExit(f"{shown} ended with exit status {process.returncode}")
        sections[name] = f"## {name}\n\n`{shown}`, on {_machine()}:\n\n```\n{process.stdout.strip()}\n```\n"
    if not options.quick:
        text = "\n".join([HEADER, *(sections[name] for name in BENCHMARKS if name in sections)])
        RESULTS.write_text(text, "utf-8")


def _read_sections() -> dict[str, str]:
    """Return the sections of the existing results by name of the benchmark."""
    text = RESULTS.read_text("utf-8") if RESULTS.is_file() else ""
    return {part.partition("\n")[0]: f"## {part}" for part in text.split("\n## ")[1:]}


def _machine() -> str:
    """Return the number of cores, the CPU, and the versions of Python and of the installed packages."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        models = [
            line.partition(": ")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
        ]
        cpu = models[0] if models else cpu
    packages = []
    for name in PACKAGES:
        try:
            packages.append(f"{name} {version(name)}")
        except ModuleNotFoundError:
            continue
    return f"{os.cpu_count()} x {cpu}, Python {platform.python_version()}, {', '.join(packages)}"


if __name__ == "__main__":
    main()
