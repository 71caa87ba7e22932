"""A random 96-cubed patch and a random slice of a file that is not in memory: ours, the map's pages as touched, and pread.

    python -m benchmarks.cold [--volumes 4] [--reads 20]

Before every read the file's pages are dropped from memory and it is mapped anew (Linux). Wall milliseconds, medians, in turn;
then the same read again, from memory.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

import lung_nodule_ct
from benchmarks.archives import SHAPE, write_source
from benchmarks.harness import OURS, in_a_process_of_its_own, run_measured
from lung_nodule_ct.read.volumes import Volume

EDGE = 96
Start = tuple[int, int, int]
Read = Callable[[Volume, int, Start], Any]


def main() -> None:
    """Generate, build, read in turn, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volumes", type=int, default=4)
    parser.add_argument("--reads", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        source = in_a_process_of_its_own(write_source, root / "source", options.volumes)
        run_measured([OURS, "build", "det3d_1.25mm", "--source", source, "--format", "arrow", "--out", root / "out"])
        (file,) = (root / "out").rglob("*.arrow")
        os.sync()  # what is not yet written cannot be dropped
        places = volume_places(file)
        with file.open("rb", buffering=0) as plain:
            readers: dict[str, tuple[Read, Read]] = {
                "ours": (
                    lambda volume, _, at: volume.patch(center_voxel=center_of(at), size=(EDGE,) * 3),
                    lambda volume, _, at: volume.slice(at[0]).copy(),
                ),
                "pages as touched": (
                    lambda volume, _, at: volume.array[tuple(slice(start, start + EDGE) for start in at)].copy(),
                    lambda volume, _, at: volume.array[at[0]].copy(),
                ),
                "pread": (
                    lambda _, i, at: pread(plain.fileno(), places[i], at, EDGE, EDGE)[:, :, at[2] : at[2] + EDGE],
                    lambda _, i, at: pread(plain.fileno(), places[i], (at[0], 0, 0), 1, SHAPE[1]),
                ),
            }
            taken = measure(readers, root / "out", file, options.reads)
        print(
            f"{'wall ms a read':20}{'cold patch':>12}{'x':>7}{'cold slice':>12}{'x':>7}{'warm patch':>12}{'warm slice':>12}"
        )
        base = [median(times) for times in taken["ours"]]
        for name, own in taken.items():
            patch, plane, warm_patch, warm_plane = (median(times) for times in own)
            print(f"{name:20}{patch:12.2f}{patch / base[0]:7.1f}{plane:12.2f}{plane / base[1]:7.1f}", end="")
            print(f"{warm_patch:12.2f}{warm_plane:12.2f}")


def measure(
    readers: dict[str, tuple[Read, Read]], folder: Path, file: Path, reads: int
) -> dict[str, tuple[list[float], ...]]:
    """Milliseconds of cold patches, cold slices, and both again from memory, by reader."""
    taken: dict[str, tuple[list[float], ...]] = {name: ([], [], [], []) for name in readers}
    rng = np.random.default_rng(0)
    for _ in range(reads):
        for name, kinds in readers.items():
            for kind, read in enumerate(kinds):
                drop(file)
                views = lung_nodule_ct.volumes(datasets.load_from_disk(str(folder))["train"])
                i = int(rng.integers(len(views)))
                z, y, x = (int(rng.integers(limit - EDGE)) for limit in SHAPE)
                volume = views[i]
                for again in (0, 2):
                    start = time.perf_counter()
                    read(volume, i, (z, y, x))
                    taken[name][kind + again].append((time.perf_counter() - start) * 1e3)
                del volume, views  # a page that is mapped is not dropped
    return taken


def volume_places(file: Path) -> list[int]:
    """Where in the file the voxels of each row begin."""
    mapped = pa.memory_map(str(file))
    base = mapped.read_buffer().address
    mapped.seek(0)
    table = pa.ipc.open_stream(mapped).read_all()
    return [chunk.field("bytes").buffers()[2].address - base for chunk in table.column("volume").chunks]


def center_of(at: Start) -> tuple[float, ...]:
    """The centre x, y, z of the patch that starts there."""
    return tuple(start + EDGE / 2 - 1 for start in reversed(at))


def pread(file: int, place: int, at: Start, depth: int, height: int) -> Any:
    """Whole rows of some slices, a read a slice."""
    out = np.empty((depth, height, SHAPE[2]), np.int16)
    for index, rows in enumerate(out):
        row = (at[0] + index) * SHAPE[1] + at[1]
        os.preadv(file, [rows.reshape(-1).view(np.uint8)], place + row * SHAPE[2] * 2)
    return out


def drop(file: Path) -> None:
    """Take a file's pages from memory."""
    with file.open("rb") as opened:
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    main()
