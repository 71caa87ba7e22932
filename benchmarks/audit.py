"""Measure what an audit costs for scans of 512 x 512 x 160 voxels, in total and for the voxel checks alone.

    python -m benchmarks.audit [--scans 4] [--rounds 3]

Builds synthetic scans with nodules and lung masks, and audits one scan and all of them in turn. Prints CPU seconds per additional scan,
the CPU seconds of an audit of one scan, and the peak memory.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.archives import write_source
from benchmarks.harness import PROGRAM, argument_parser, build_command, measure_command, measure_in_turn, medians


def main() -> None:
    """Build, audit, and print the costs."""
    parser = argument_parser(__doc__)
    parser.add_argument("--scans", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        builds = {}
        for count in (1, options.scans):
            folder = Path(scratch) / f"build-{count}"
            measure_command(build_command(write_source(Path(scratch) / f"source-{count}", count), "--out", folder))
            builds[count] = folder
        commands = {
            f"{count} scans, {name}": [PROGRAM, "audit", folder, *arguments]
            for count, folder in builds.items()
            for name, arguments in (("all checks", ()), ("no voxel checks", ("--only", "intensities")))
        }
        costs = {name: medians(runs) for name, runs in measure_in_turn(commands, options.rounds).items()}
    for name, measured in costs.items():
        print(f"{name:28} {measured.cpu:6.2f} CPU s  {measured.wall:6.2f} s  {measured.peak_mb:6.0f} MB")
    more = options.scans - 1
    for name in ("all checks", "no voxel checks"):
        cost = costs[f"{options.scans} scans, {name}"].cpu - costs[f"1 scans, {name}"].cpu
        print(f"per additional scan, {name:16} {cost / more:6.2f} CPU s")


if __name__ == "__main__":
    main()
