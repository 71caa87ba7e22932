"""Measure how the cost of a build grows with the number of volumes and workers, and the cost of planning many scans.

    python -m benchmarks.scale [--volumes 4 32 256 1000] [--workers-volumes 32] [--scans 10000] [--units 1000000]

The volumes have 64 x 256 x 256 voxels and masks. Four different ones are repeated under new names. Prints wall and CPU
seconds, CPU milliseconds per volume and peak memory of builds to Parquet: with one worker for each number in
``--volumes``, and with one and two workers for ``--workers-volumes``. Then CPU seconds and memory to plan ``--scans``
scans, and to submit a job of ``--units`` generated scans and slices: the manifest of its shards, and the graph for Beam.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import tempfile
import time
import zipfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from benchmarks.archives import write_source
from benchmarks.harness import argument_parser, build_command, measure_command, module_command, run_in_new_process
from lung_nodule_ct.testing.archives import CT0, CT1, MASKS, NODULE_COLUMNS, NODULES, table, write_archives

SHAPE = (64, 256, 256)
DISTINCT_VOLUMES = 4


def main() -> None:
    """Measure builds of more and more volumes, builds with two workers, and a plan, and print the results."""
    parser = argument_parser(__doc__)
    parser.add_argument("--volumes", type=int, nargs="+", default=[4, 32, 256, 1000])
    parser.add_argument("--workers-volumes", type=int, default=32)
    parser.add_argument("--scans", type=int, default=10_000)
    parser.add_argument("--units", type=int, default=1_000_000)
    parser.add_argument("--plan", help=argparse.SUPPRESS)  # the process whose plan is measured
    options = parser.parse_args()
    if options.plan:
        plan(Path(options.plan))
        return
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        print(f"{'volumes':>10}{'workers':>9}{'wall s':>9}{'CPU s':>9}{'CPU ms per volume':>17}{'peak MB':>9}")
        builds = [(count, 1) for count in options.volumes]
        builds += [(options.workers_volumes, workers) for workers in (1, 2)]
        for count, workers in builds:
            source = run_in_new_process(write_source, root / "source", count, SHAPE, DISTINCT_VOLUMES)
            run = measure_command(build_command(source, "--out", root / "out", "--num-proc", str(workers)))
            cpu_ms = run.cpu / count * 1e3
            print(f"{count:10,}{workers:9}{run.wall:9.1f}{run.cpu:9.1f}{cpu_ms:17.0f}{run.peak_mb:9.0f}")
            shutil.rmtree(source)
            shutil.rmtree(root / "out")
        source = run_in_new_process(write_many_scans, root / "many", options.scans)
        imports = measure_command(module_command("scale", "--plan", root / "missing"))
        run = measure_command(module_command("scale", "--plan", source))
        cpu, memory = run.cpu - imports.cpu, run.peak_mb - imports.peak_mb
        print(f"plan of {options.scans:,} scans: {cpu:.1f} s CPU, {memory:.0f} MB")
        for config in ("det3d_1.25mm", "det2d_1.25mm"):
            print(run_in_new_process(submit, root / config, config, options.units))


def plan(source: Path) -> None:
    """Plan a build of a folder of archives. If there is no such folder, only import what a plan needs."""
    from lung_nodule_ct.declaration.configs import get_config
    from lung_nodule_ct.examples.plan import make_plan
    from lung_nodule_ct.sources.resolve import open_folder

    if source.is_dir():
        make_plan(get_config("det3d_1.25mm"), open_folder(source))


def submit(folder: Path, name: str, count: int) -> str:
    """Submit a job of generated units of a config, up to the point where a runner takes over, and return its cost."""
    import apache_beam

    from lung_nodule_ct.declaration.configs import get_config
    from lung_nodule_ct.examples.plan import Plan, make_plan
    from lung_nodule_ct.sources.resolve import open_folder
    from lung_nodule_ct.targets.job import Job
    from lung_nodule_ct.targets.parquet import ParquetLayout
    from lung_nodule_ct.targets.shards import plan_shards

    config, layout = get_config(name), ParquetLayout()
    units = make_plan(config, open_folder(Path("dummy_data"))).units
    plan = Plan(config, tuple(_renamed(units[number % len(units)], number) for number in range(count)), ())
    before, cpu, wall = _peak_mb(), time.process_time(), time.perf_counter()
    shards = plan_shards(plan, keep_source_names=False, shard_bytes=layout.shard_bytes)
    Job(folder).submit(layout, shards)
    pipeline = apache_beam.Pipeline()
    _ = pipeline | apache_beam.Create(range(len(shards)))
    graph = len(pipeline.to_runner_api().SerializeToString())
    cpu, wall, after = time.process_time() - cpu, time.perf_counter() - wall, _peak_mb()
    manifest = sum(path.stat().st_size for path in folder.iterdir())
    return (
        f"submission of {count:,} units of {name} in {len(shards):,} shards: {cpu:.1f} s CPU, {wall:.1f} s, {after - before:.0f} MB "
        f"above the plan's {before:.0f}; manifest {manifest / 1e6:.0f} MB, graph {graph / 1e6:.2f} MB"
    )


def _renamed(unit: Any, number: int) -> Any:
    """A unit of another patient, whose members have other names and the size of real ones."""
    changed: dict[str, Any] = {"patient_id": str(number), "scan_id": f"{number}-1", "source_name": f"{number}_1"}
    for field in fields(unit):
        value = getattr(unit, field.name)
        if hasattr(value, "crc"):
            changed[field.name] = _renamed_member(value, number)
        elif isinstance(value, tuple) and value and hasattr(value[0], "crc"):
            changed[field.name] = tuple(_renamed_member(member, number) for member in value)
    return replace(unit, **changed)


def _renamed_member(member: Any, number: int) -> Any:
    packed = {".raw": 21_000_000, ".jpg": 100_000}.get(member.suffix, 300) + number % 1000
    offset = number * packed
    return replace(member, name=f"{number}/{member.name}", packed=packed, offset=offset, crc=(member.crc + number) >> 1)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def write_many_scans(folder: Path, scans: int) -> Path:
    """Write archives of many scans with a few bytes per volume. A plan reads directories and tables, but no voxels."""
    names = [f"{number}_2020{1 + number % 12:02d}01" for number in range(1, scans + 1)]
    rows = [f"{name},{number % 200},20,0,14" for number, name in enumerate(names) for _ in range(2)]
    archives: dict[str, dict[str, bytes]] = {
        CT0: {},
        CT1: {},
        MASKS: {},
        NODULES: {"annotations.csv": table(NODULE_COLUMNS, *rows)},
    }
    for archive, content in ((CT0, b"volume"), (MASKS, b"mask")):
        for name in names:
            archives[archive] |= {f"{name}.mhd": b"header", f"{name}.raw": content}
    return write_archives(folder, archives, method=zipfile.ZIP_STORED)


if __name__ == "__main__":
    main()
