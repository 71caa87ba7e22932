"""Time random patches of 96 x 96 x 96 voxels and random slices that are not in the page cache, read in three ways.

    python -m benchmarks.cold [--volumes 4] [--reads 20]

The ways are the methods of this package, indexing of the memory map (which reads pages when they are accessed), and
``pread``. Before each cold read, the pages of the file are dropped from the page cache (Linux only) and the file is
mapped again. The warm read repeats it with the pages in memory. Prints medians in wall milliseconds; the three ways are
measured in turn.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import datasets
import numpy as np
import pyarrow as pa

import lung_nodule_ct
from benchmarks.archives import SHAPE, write_source
from benchmarks.harness import argument_parser, build_command, measure_command, run_in_new_process
from benchmarks.patches import PATCH_SIZE, Patch, random_patch
from lung_nodule_ct.read.volumes import Volume

Read = Callable[[Volume, int, Patch], Any]


class Reader(NamedTuple):
    """One way to read: functions of a volume, its row, and a patch. The slice is the first one of the patch."""

    patch: Read
    slice: Read


class Times(NamedTuple):
    """Wall milliseconds of all reads."""

    cold_patch: list[float]
    cold_slice: list[float]
    warm_patch: list[float]
    warm_slice: list[float]


def main() -> None:
    """Build synthetic scans, read them in turn, and print the medians."""
    parser = argument_parser(__doc__)
    parser.add_argument("--volumes", type=int, default=4)
    parser.add_argument("--reads", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        source = run_in_new_process(write_source, root / "source", options.volumes)
        measure_command(build_command(source, "--format", "arrow", "--out", root / "out"))
        (path,) = (root / "out").rglob("*.arrow")
        os.sync()  # pages that are not yet written cannot be dropped
        offsets = voxel_offsets(path)
        with path.open("rb", buffering=0) as file:
            readers = {
                "ours": Reader(
                    lambda volume, _, patch: volume.patch(center_voxel=patch_center(patch), size=(PATCH_SIZE,) * 3),
                    lambda volume, _, patch: volume.slice(patch[0].start).copy(),
                ),
                "pages as touched": Reader(
                    lambda volume, _, patch: volume.array[patch].copy(),
                    lambda volume, _, patch: volume.array[patch[0].start].copy(),
                ),
                "pread": Reader(
                    lambda _, i, patch: pread(file.fileno(), offsets[i], *patch[:2])[:, :, patch[2]],
                    lambda _, i, patch: pread(
                        file.fileno(), offsets[i], slice(patch[0].start, patch[0].start + 1), slice(0, SHAPE[1])
                    ),
                ),
            }
            times = measure(readers, root / "out", path, options.reads)
    print(
        f"{'wall ms per read':20}{'cold patch':>12}{'x':>7}{'cold slice':>12}{'x':>7}{'warm patch':>12}{'warm slice':>12}"
    )
    baseline = [median(values) for values in times["ours"]]
    for name, reader_times in times.items():
        cold_patch, cold_slice, warm_patch, warm_slice = (median(values) for values in reader_times)
        print(
            f"{name:20}{cold_patch:12.2f}{cold_patch / baseline[0]:7.1f}{cold_slice:12.2f}{cold_slice / baseline[1]:7.1f}"
            f"{warm_patch:12.2f}{warm_slice:12.2f}"
        )


def measure(readers: dict[str, Reader], build: Path, path: Path, reads: int) -> dict[str, Times]:
    """Read random patches and slices of a build, whose only shard is ``path``, and return the times by reader."""
    times = {name: Times([], [], [], []) for name in readers}
    rng = np.random.default_rng(0)
    for _ in range(reads):
        for name, reader in readers.items():
            cold_patch, cold_slice, warm_patch, warm_slice = times[name]
            for read, cold, warm in ((reader.patch, cold_patch, warm_patch), (reader.slice, cold_slice, warm_slice)):
                drop_from_page_cache(path)
                volumes = lung_nodule_ct.volumes(datasets.load_from_disk(str(build))["train"])
                i = int(rng.integers(len(volumes)))
                patch = random_patch(rng, SHAPE)
                volume = volumes[i]
                for milliseconds in (cold, warm):
                    start = time.perf_counter()
                    read(volume, i, patch)
                    milliseconds.append((time.perf_counter() - start) * 1e3)
                del volume, volumes  # mapped pages cannot be dropped
    return times


def voxel_offsets(path: Path) -> list[int]:
    """Return the offset in the file at which the voxels of each row begin."""
    mapped = pa.memory_map(str(path))
    base = mapped.read_buffer().address
    mapped.seek(0)
    table = pa.ipc.open_stream(mapped).read_all()
    return [chunk.field("bytes").buffers()[2].address - base for chunk in table.column("volume").chunks]


def patch_center(patch: Patch) -> tuple[float, ...]:
    """Return the centre x, y, z of a patch in voxels, as :meth:`Volume.patch` expects it."""
    return tuple(part.start + PATCH_SIZE / 2 - 1 for part in reversed(patch))


def pread(file: int, offset: int, slices: slice, rows: slice) -> Any:
    """Read complete rows of some slices, with one system call per slice."""
    voxels = np.empty((slices.stop - slices.start, rows.stop - rows.start, SHAPE[2]), np.int16)
    for z, target in enumerate(voxels, slices.start):
        first_row = z * SHAPE[1] + rows.start
        os.preadv(file, [target.reshape(-1).view(np.uint8)], offset + first_row * SHAPE[2] * 2)
    return voxels


def drop_from_page_cache(path: Path) -> None:
    """Remove the pages of a file from the page cache."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    main()
