"""Compare builds of ``det3d_1.25mm`` with a naive build and with a lower bound, on synthetic volumes of 512 x 512 x 160.

    python -m benchmarks.build [--volumes 4] [--rounds 3]

Prints wall and CPU seconds, peak memory and bytes written of each program, and the ratios of wall and CPU time.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

from benchmarks.archives import SHAPE, write_source
from benchmarks.harness import (
    PROGRAM,
    argument_parser,
    build_command,
    folder_bytes,
    measure_in_turn,
    medians,
    module_command,
    run_in_new_process,
)

COMPARED = (
    ("naive to Arrow", "ours to Arrow"),
    ("naive to Arrow", "ours to Arrow, 2 workers"),
    ("naive to Arrow", "ours through datasets"),
    ("naive to Parquet", "ours to Parquet"),
    ("inflate, write, 2 threads", "ours to Arrow, 2 workers"),
    ("inflate, write past cache, 2", "ours to Arrow, 2 workers"),
)
"""Names of two programs: the baseline, and the one that is compared with it."""


def main() -> None:
    """Measure all builds in turn, and print the results and ratios."""
    parser = argument_parser(__doc__)
    parser.add_argument("--volumes", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        source = run_in_new_process(write_source, root / "source", options.volumes)
        packed = folder_bytes(source)
        raw = options.volumes * 2 * 2 * math.prod(SHAPE)  # int16 volumes and int16 masks
        print(
            f"{options.volumes} volumes of 512x512x160 with masks: {raw / 1e6:,.0f} MB, packed {packed / 1e6:,.0f} MB"
        )
        out = root / "out"
        ours = build_command(source, "--out", out)
        commands = {
            "ours to Parquet": ours,
            "ours to Parquet, 2 workers": [*ours, "--num-proc", "2"],
            "ours to Arrow": [*ours, "--format", "arrow"],
            "ours to Arrow, 2 workers": [*ours, "--format", "arrow", "--num-proc", "2"],
            "ours through datasets": [PROGRAM, "prepare", "det3d_1.25mm", "--source", source, "--cache-dir", out],
            "naive to Arrow": module_command("naive", source, out, "arrow"),
            "naive to Parquet": module_command("naive", source, out, "parquet"),
            "inflate, write, 2 threads": module_command("lower_bound", source, out, "cached"),
            "inflate, write past cache, 2": module_command("lower_bound", source, out, "direct"),
        }
        runs = measure_in_turn(commands, options.rounds, dict.fromkeys(commands, out))
    results = {name: medians(measured) for name, measured in runs.items()}
    print(f"{'':32}{'wall s':>8}{'CPU s':>8}{'peak MB':>9}{'written MB':>12}")
    for name, result in results.items():
        print(f"{name:32}{result.wall:8.2f}{result.cpu:8.2f}{result.peak_mb:9.0f}{result.written_mb:12.0f}")
    for baseline, name in COMPARED:
        a, b = results[baseline], results[name]
        print(f"{baseline} to {name}: CPU {a.cpu / b.cpu:.1f} x, wall {a.wall / b.wall:.1f} x")


if __name__ == "__main__":
    main()
