"""Whether a build costs the same a volume however many there are, what two workers give, and how long a plan takes.

    python -m benchmarks.scale [--volumes 4 32 256 1000] [--workers-volumes 32] [--scans 10000]

Volumes are generated, 64 x 256 x 256 with masks, four different ones under as many names as are asked for. Prints CPU and wall
seconds a volume and peak memory of a build to Parquet, one worker against two, and the seconds to plan ``--scans`` scans.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
import zipfile
from pathlib import Path

from benchmarks.archives import write_source
from benchmarks.harness import OURS, in_a_process_of_its_own, module_command, run_measured

SHAPE = (64, 256, 256)


def main() -> None:
    """Build ever more volumes, then with two workers, then plan."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volumes", type=int, nargs="+", default=[4, 32, 256, 1000])
    parser.add_argument("--workers-volumes", type=int, default=32)
    parser.add_argument("--scans", type=int, default=10_000)
    parser.add_argument("--plan", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plan:
        plan(Path(options.plan))
        return
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        print(f"{'volumes':>10}{'workers':>9}{'wall s':>9}{'CPU s':>9}{'CPU ms a volume':>17}{'peak MB':>9}")
        for count, workers in [(count, 1) for count in options.volumes] + [
            (options.workers_volumes, workers) for workers in (1, 2)
        ]:
            source = in_a_process_of_its_own(write_source, root / "source", count, SHAPE, 4)
            command = [OURS, "build", "det3d_1.25mm", "--source", source]
            run = run_measured([*command, "--out", root / "out", "--num-proc", str(workers)])
            each = run.cpu / count * 1e3
            print(f"{count:10,}{workers:9}{run.wall:9.1f}{run.cpu:9.1f}{each:17.0f}{run.peak_mb:9.0f}")
            shutil.rmtree(source)
            shutil.rmtree(root / "out")
        many = many_scans(root / "many", options.scans)
        empty = run_measured(module_command("scale", "--plan", "nothing"))
        run = run_measured(module_command("scale", "--plan", many))
        print(f"plan of {options.scans:,} scans: {run.cpu - empty.cpu:.1f} s CPU, {run.peak_mb - empty.peak_mb:.0f} MB")


def plan(source: Path) -> None:
    """Plan what is in a folder, if it is there; else only import what that takes."""
    from lung_nodule_ct.declaration.configs import get_config
    from lung_nodule_ct.examples.plan import make_plan
    from lung_nodule_ct.sources.resolve import open_folder

    if source.is_dir():
        start = time.perf_counter()
        made = make_plan(get_config("det3d_1.25mm"), open_folder(source))
        print(f"{len(made.units):,} units in {time.perf_counter() - start:.1f} s")


def many_scans(folder: Path, scans: int) -> Path:
    """Archives of many scans whose volumes are a few bytes: a plan reads directories and tables, no voxels."""
    folder.mkdir(parents=True)
    names = [f"{number}_2020{1 + number % 12:02d}01" for number in range(1, scans + 1)]
    for archive, content in (("0", b"volume"), ("2", b"mask")):
        with zipfile.ZipFile(folder / f"1.25mm_3D_detection_mhd_{archive}.zip", "w") as packed:
            for name in names:
                packed.writestr(f"{name}.mhd", b"header")
                packed.writestr(f"{name}.raw", content)
    with zipfile.ZipFile(folder / "1.25mm_3D_detection_mhd_1.zip", "w"):
        pass
    rows = "".join(f"{name},{number % 200},20,0,14\n" for number, name in enumerate(names) for _ in range(2))
    with zipfile.ZipFile(folder / "1.25mm_3D_detection_mhd_3.zip", "w") as tables:
        tables.writestr("annotations.csv", "seriesuid,coordX,coordY,coordZ,diameter_mm\n" + rows)
    return folder


if __name__ == "__main__":
    main()
