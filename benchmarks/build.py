"""Our build of ``det3d_1.25mm`` against the naive one, side by side on generated volumes of 512 x 512 x 160.

    python -m benchmarks.build [--volumes 4] [--rounds 3]

Prints the ratios of wall and CPU time, peak memory, and bytes written.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks.archives import write_source
from benchmarks.harness import OURS, folder_bytes, in_a_process_of_its_own, in_turn, medians, module_command

COMPARED = (
    ("naive to Arrow", "ours to Arrow"),
    ("naive to Arrow", "ours to Arrow, 2 workers"),
    ("naive to Arrow", "ours through datasets"),
    ("naive to Parquet", "ours to Parquet"),
    ("inflate, write, 2 threads", "ours to Arrow, 2 workers"),
    ("inflate, write past cache, 2", "ours to Arrow, 2 workers"),
)


def main() -> None:
    """Generate, run in turn, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volumes", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        source = in_a_process_of_its_own(write_source, root / "source", options.volumes)
        packed = folder_bytes(source)
        raw = options.volumes * 2 * 2 * 160 * 512 * 512
        print(
            f"{options.volumes} volumes of 512x512x160 with masks: {raw / 1e6:,.0f} MB, packed {packed / 1e6:,.0f} MB"
        )
        out = root / "out"
        ours = [OURS, "build", "det3d_1.25mm", "--source", source, "--out", out]
        contenders = {
            "ours to Parquet": ours,
            "ours to Parquet, 2 workers": [*ours, "--num-proc", "2"],
            "ours to Arrow": [*ours, "--format", "arrow"],
            "ours to Arrow, 2 workers": [*ours, "--format", "arrow", "--num-proc", "2"],
            "ours through datasets": [OURS, "prepare", "det3d_1.25mm", "--source", source, "--cache-dir", out],
            "naive to Arrow": module_command("naive", source, out, "arrow"),
            "naive to Parquet": module_command("naive", source, out, "parquet"),
            "inflate, write, 2 threads": module_command("floor", source, out, "cached"),
            "inflate, write past cache, 2": module_command("floor", source, out, "direct"),
        }
        runs = in_turn(contenders, options.rounds, dict.fromkeys(contenders, out))
        print(f"{'':32}{'wall s':>8}{'CPU s':>8}{'peak MB':>9}{'written MB':>12}")
        for name, own in runs.items():
            m = medians(own)
            print(f"{name:32}{m.wall:8.2f}{m.cpu:8.2f}{m.peak_mb:9.0f}{m.written_mb:12.0f}")
        for other, own in COMPARED:
            a, b = medians(runs[other]), medians(runs[own])
            print(f"{other} to {own}: CPU {a.cpu / b.cpu:.1f} x, wall {a.wall / b.wall:.1f} x")


if __name__ == "__main__":
    main()
