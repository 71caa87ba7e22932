"""All benchmarks in turn, written to ``benchmarks/RESULTS.md`` with what they ran on.

python -m benchmarks [NAME...] [--quick]
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")
BENCHMARKS: dict[str, tuple[list[str], list[str]]] = {
    "build": (["--volumes", "32", "--rounds", "2"], ["--volumes", "2", "--rounds", "1"]),
    "read": (["--volumes", "3", "--reads", "200"], ["--volumes", "1", "--reads", "20"]),
    "cold": (["--volumes", "4", "--reads", "20"], ["--volumes", "1", "--reads", "2"]),
    "codecs": ([], ["--reads", "5"]),
    "tfds": (["--volumes", "16", "--rounds", "1"], ["--volumes", "1", "--rounds", "1"]),
    "scale": (
        ["--volumes", "4", "32", "256", "1000", "--workers-volumes", "256"],
        ["--volumes", "2", "4", "--workers-volumes", "4", "--scans", "500"],
    ),
    "learning": ([], ["--only", "longitudinal-single", "--steps", "5"]),
    "training": ([], ["--recipes", "longitudinal", "--rounds", "1"]),
    "download": (["--gigabytes", "1", "--rounds", "5"], ["--gigabytes", "0.1", "--rounds", "1"]),
}
"""By name, the arguments of a full run and those of a quick one, which only shows that it works."""

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
    "jax",
    "torch",
)


def main() -> None:
    """Run them, show what they print, and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; else all")
    parser.add_argument("--quick", action="store_true", help="small, to see that all run; nothing is written")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in BENCHMARKS]:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    kept = {} if options.quick else _sections()
    for name in options.names or BENCHMARKS:
        arguments = BENCHMARKS[name][options.quick]
        command = ["python", "-m", f"benchmarks.{name}", *arguments]
        done = subprocess.run([sys.executable, *command[1:]], stdout=subprocess.PIPE, text=True, check=False)
        print(done.stdout)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {done.returncode}")
        kept[name] = f"## {name}\n\n`{' '.join(command)}`, on {_machine()}:\n\n```\n{done.stdout.strip()}\n```\n"
    if not options.quick:
        text = "\n".join(kept[name] for name in BENCHMARKS if name in kept)
        RESULTS.write_text(
            f"# Results\n\nWritten by `python -m benchmarks`, or by the command above each. Times travel badly, ratios well.\n\n{text}",
            "utf-8",
        )


def _sections() -> dict[str, str]:
    """What earlier runs left, by name."""
    text = RESULTS.read_text("utf-8") if RESULTS.is_file() else ""
    return {part.partition("\n")[0]: f"## {part}" for part in text.split("\n## ")[1:]}


def _machine() -> str:
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
