"""Run all faults on purpose: kills, damages, bent archives, hostile files, and fuzzing.

    python -m benchmarks.faults [--only kills damages account hostile fuzz] [--short]

Each kind is a command of its own, which prints its counts. The exit status is 1 if one of them failed. ``--short`` takes a few minutes; the
complete run takes about an hour. Fuzzing needs the package atheris.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.harness import argument_parser

ROOT = Path(__file__).parents[1]
COMMANDS = {
    "kills": ("-m benchmarks.kills --most 11", "-m benchmarks.kills --most 1"),
    "damages": ("-m benchmarks.damages --count 1000", "-m benchmarks.damages --count 64"),
    "account": ("-m benchmarks.account --cases 10000", "-m benchmarks.account --cases 500"),
    "hostile": ("-m benchmarks.hostile", "-m benchmarks.hostile --only header annotation"),
    "fuzz": ("tests/fuzz/parsers.py --seconds 1800", "tests/fuzz/parsers.py --seconds 33"),
}
"""The complete and the short command of each kind."""


def main() -> None:
    """Run the commands, and print which of them failed."""
    parser = argument_parser(__doc__)
    parser.add_argument("--only", nargs="*", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--short", action="store_true")
    options = parser.parse_args()
    failed = []
    for kind in options.only:
        command = COMMANDS[kind][options.short]
        print(f"python {command}", flush=True)
        if subprocess.run([sys.executable, *command.split()], cwd=ROOT, check=False).returncode:
            failed.append(kind)
    raise SystemExit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
