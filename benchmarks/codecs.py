"""Compare ways to store a volume in Parquet: levels of zstd, page sizes, and b2nd frames of blosc2, on one synthetic scan.

    python -m benchmarks.codecs [--reads 20] [--volume FILE.mhd]

Prints the compression ratio, and CPU times to write the volume, to read the complete volume, and to read a random patch
of 96 x 96 x 96 voxels from the file, which is opened for each read. A b2nd frame has chunks of 32 x 128 x 128 voxels,
byte shuffle and zstd 1, is lossless, and is stored in a column without further compression. ``--volume`` measures a scan
of your own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import blosc2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import SimpleITK

from benchmarks.archives import SHAPE, SPACING
from benchmarks.harness import argument_parser, cpu_seconds
from benchmarks.patches import random_patch
from lung_nodule_ct.testing.phantoms import PhantomNodule, make_chest

ZSTD = {
    f"zstd {level}, pages of {mebibytes} MiB": (level, mebibytes)
    for level, mebibytes in ((1, 1), (3, 1), (6, 1), (1, 4), (1, 256))
}
"""Compression levels and page sizes by name. The first is the baseline."""


def main() -> None:
    """Write and read the volume with each codec, and print the results."""
    parser = argument_parser(__doc__)
    parser.add_argument("--reads", type=int, default=20)
    parser.add_argument("--volume", type=Path)
    options = parser.parse_args()
    volume = _load(options.volume) if options.volume else _generate()
    print(f"{' x '.join(map(str, volume.shape))} voxels, {volume.nbytes / 1e6:,.0f} MB")
    print(f"{'':28}{'ratio':>8}{'write s':>9}{'whole s':>9}{'patch ms':>10}")
    results: dict[str, tuple[float, ...]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "volume.parquet")
        for name, (level, mebibytes) in ZSTD.items():
            write = partial(_write_zstd, path, volume, level, mebibytes << 20)
            results[name] = _measure(path, volume, write, partial(_open_zstd, path, volume.shape), reads=5)
        write = partial(_write_b2nd, path, volume)
        results["b2nd"] = _measure(path, volume, write, partial(_open_b2nd, path), options.reads)
    for name, (ratio, write_s, read_s, patch_ms) in results.items():
        print(f"{name:28}{ratio:8.2f}{write_s:9.2f}{read_s:9.3f}{patch_ms:10.1f}")
    baseline, b2nd = results[next(iter(ZSTD))], results["b2nd"]
    print(f"b2nd: {b2nd[0] / baseline[0]:.2f} x smaller, a patch {baseline[3] / b2nd[3]:.1f} x as fast as from zstd 1")


def _measure(
    path: Path, volume: Any, write: Callable[[], None], open_array: Callable[[], Any], reads: int
) -> tuple[float, ...]:
    """Measure one codec.

    Args:
        path: The file that ``write`` writes.
        volume: The voxels, shape (z, y, x).
        write: Writes the volume to the file.
        open_array: Opens the file and returns an array that can be indexed.
        reads: The number of patches to read.

    Returns:
        The compression ratio, CPU seconds to write and to read the volume, and CPU milliseconds to read a patch.
    """
    rng = np.random.default_rng(0)
    patches = [random_patch(rng, volume.shape) for _ in range(reads)]
    write_s = cpu_seconds(write)
    read_s = median(cpu_seconds(lambda: open_array()[:]) for _ in range(3))
    patch_s = median(cpu_seconds(lambda p=patch: np.ascontiguousarray(open_array()[p])) for patch in patches)
    assert np.array_equal(open_array()[:], volume)
    return volume.nbytes / path.stat().st_size, write_s, read_s, patch_s * 1e3


def _write_zstd(path: Path, volume: Any, level: int, page_bytes: int) -> None:
    _write_cell(path, volume.tobytes(), page_bytes, compression="zstd", compression_level=level)


def _write_b2nd(path: Path, volume: Any) -> None:
    params = {"codec": blosc2.Codec.ZSTD, "clevel": 1, "filters": [blosc2.Filter.SHUFFLE], "nthreads": 1}
    array = blosc2.asarray(volume, chunks=(32, 128, 128), blocks=(8, 64, 64), cparams=params)
    _write_cell(path, array.to_cframe(), 1 << 20, compression="none")


def _write_cell(path: Path, cell: bytes, page_bytes: int, **compression: Any) -> None:
    table = pa.table({"volume": pa.array([cell], pa.large_binary())})
    pq.write_table(
        table,
        path,
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
        data_page_version="2.0",
        data_page_size=page_bytes,
        **compression,
    )


def _open_zstd(path: Path, shape: tuple[int, ...]) -> Any:
    return np.frombuffer(_read_cell(path), "<i2").reshape(shape)


def _open_b2nd(path: Path) -> Any:
    return blosc2.ndarray_from_cframe(_read_cell(path))


def _read_cell(path: Path) -> memoryview:
    """Return the bytes of the only cell of a file, without a copy of what the Parquet reader returns."""
    with pq.ParquetFile(path, memory_map=True) as file:
        column = file.read_row_group(0, columns=["volume"]).column(0).chunks[0]
    return memoryview(column.buffers()[2])


def _generate() -> Any:
    return make_chest(SHAPE, SPACING, (PhantomNodule((70.0, 20.0, 0.0), 14.0),)).volume


def _load(path: Path) -> Any:
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))).astype("<i2")


if __name__ == "__main__":
    main()
