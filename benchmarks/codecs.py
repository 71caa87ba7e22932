"""How volumes are best stored in Parquet: levels of zstd, page sizes, and blosc2's b2nd cells, on one generated scan.

    python -m benchmarks.codecs [--reads 20] [--volume FILE.mhd]

Prints size, CPU seconds to write, to read the whole volume, and to read a random 96-cubed patch from a file that is opened for
it, for the settings of a build and their neighbours. ``b2nd`` cells (32 x 128 x 128 voxels, shuffle + zstd 1, bit-exact) stand in
an uncompressed column. ``--volume`` measures a scan of yours instead.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import blosc2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import SimpleITK

from benchmarks.archives import SHAPE, SPACING
from lung_nodule_ct.testing.phantoms import PhantomNodule, make_chest

EDGE = 96
ZSTD = {f"zstd {level}, pages of {kib // 1024} MiB": (level, kib) for level in (1, 3, 6) for kib in (1024,)} | {
    f"zstd 1, pages of {mib} MiB": (1, mib * 1024) for mib in (4, 256)
}


def main() -> None:
    """Write, read, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reads", type=int, default=20)
    parser.add_argument("--volume", type=Path)
    options = parser.parse_args()
    volume = _read(options.volume) if options.volume else _generate()
    print(f"{' x '.join(map(str, volume.shape))} voxels, {volume.nbytes / 1e6:,.0f} MB")
    print(f"{'':28}{'ratio':>8}{'write s':>9}{'whole s':>9}{'patch ms':>10}")
    rows: dict[str, tuple[float, ...]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "volume.parquet")
        for name, (level, kib) in ZSTD.items():
            wrote = _timed(lambda level=level, kib=kib: _write(path, volume.tobytes(), level, kib * 1024))
            whole = [_timed(lambda: _whole(path, volume.shape)) for _ in range(3)]
            patch = [_timed(lambda at=at: _cut(_whole(path, volume.shape), at)) for at in _places(volume, 5)]
            rows[name] = (volume.nbytes / path.stat().st_size, wrote, median(whole), median(patch) * 1e3)
        wrote = _timed(lambda: _write(path, _b2nd(volume), None, 1 << 20))
        whole = [_timed(lambda: blosc2.ndarray_from_cframe(_cell(path))[:]) for _ in range(3)]
        patch = [
            _timed(lambda at=at: _cut(blosc2.ndarray_from_cframe(_cell(path)), at))
            for at in _places(volume, options.reads)
        ]
        assert (blosc2.ndarray_from_cframe(_cell(path))[:] == volume).all()
        rows["b2nd"] = (volume.nbytes / path.stat().st_size, wrote, median(whole), median(patch) * 1e3)
    for name, (ratio, write, read, patch_ms) in rows.items():
        print(f"{name:28}{ratio:8.2f}{write:9.2f}{read:9.3f}{patch_ms:10.1f}")
    base = rows[next(iter(ZSTD))]
    print(
        f"b2nd: {rows['b2nd'][0] / base[0]:.2f} x smaller, a patch {base[3] / rows['b2nd'][3]:.1f} x as fast as from zstd 1"
    )


def _write(path: Path, cell: bytes, level: int | None, page_bytes: int) -> None:
    table = pa.table({"volume": pa.array([cell], pa.large_binary())})
    pq.write_table(
        table,
        path,
        compression="zstd" if level else "none",
        compression_level=level,
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
        data_page_version="2.0",
        data_page_size=page_bytes,
    )


def _cell(path: Path) -> memoryview:
    """The bytes of the one cell, without a copy behind the decoder."""
    with pq.ParquetFile(path, memory_map=True) as file:
        column = file.read_row_group(0, columns=["volume"]).column(0).chunks[0]
    return memoryview(column.buffers()[2])


def _whole(path: Path, shape: tuple[int, ...]) -> Any:
    return np.frombuffer(_cell(path), "<i2").reshape(shape)


def _b2nd(volume: Any) -> bytes:
    params = {"codec": blosc2.Codec.ZSTD, "clevel": 1, "filters": [blosc2.Filter.SHUFFLE], "nthreads": 1}
    array = blosc2.asarray(volume, chunks=(32, 128, 128), blocks=(8, 64, 64), cparams=params)
    cell: bytes = array.to_cframe()
    return cell


def _cut(array: Any, at: tuple[int, int, int]) -> Any:
    return np.ascontiguousarray(array[tuple(slice(start, start + EDGE) for start in at)])


def _places(volume: Any, count: int) -> list[tuple[int, ...]]:
    rng = np.random.default_rng(0)
    return [tuple(int(rng.integers(size - EDGE)) for size in volume.shape) for _ in range(count)]


def _generate() -> Any:
    return make_chest(SHAPE, SPACING, (PhantomNodule((70.0, 20.0, 0.0), 14.0),)).volume


def _read(path: Path) -> Any:
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))).astype("<i2")


def _timed(call: Callable[[], Any]) -> float:
    """CPU seconds of one call."""
    start = time.process_time()
    call()
    return time.process_time() - start


if __name__ == "__main__":
    main()
