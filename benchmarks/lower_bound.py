"""Do only what every build must do: inflate the voxels of all scans and masks, check their CRC-32, and write them.

    python -m benchmarks.lower_bound SOURCE OUT cached|direct

Two threads inflate with libdeflate into arrays that are reused, and write one file per array, through the page cache
(``cached``) or past it (``direct``). A real format must do more, so its build takes longer.
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagecodecs
import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

LOCAL_HEADER_SIZE = 30
"""Bytes of a zip member's local header before its name and extra field, whose lengths are its last four bytes."""


def main() -> None:
    """Inflate and write all volumes and masks."""
    source, out, mode = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    members = list(_members(source))
    arrays = threading.local()

    def inflate_and_write(number: int) -> None:
        path, info = members[number]
        if not hasattr(arrays, "voxels"):
            arrays.voxels = _huge_page_array(max(each.file_size for _, each in members))
            arrays.labels = _huge_page_array(len(arrays.voxels) // 2)
        with path.open("rb") as file:
            file.seek(info.header_offset)
            header = file.read(LOCAL_HEADER_SIZE)
            file.seek(int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little"), os.SEEK_CUR)
            packed = file.read(info.compress_size)
        array = imagecodecs.deflate_decode(packed, raw=True, out=arrays.voxels[: info.file_size])
        assert isal_zlib.crc32(array) == info.CRC
        if path.name.endswith("_2.zip"):  # int16 masks, which a build stores as uint8
            labels = arrays.labels[: len(array) // 2]
            np.copyto(labels, array.view("<i2"), casting="unsafe")
            array = labels
        flags = os.O_WRONLY | os.O_CREAT | (os.O_DIRECT if mode == "direct" else 0)
        with os.fdopen(os.open(out / f"{number}.raw", flags), "wb", buffering=0) as file:
            file.write(array.data)

    out.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(inflate_and_write, range(len(members))))


def _huge_page_array(size: int) -> NDArray[np.uint8]:
    """Return an array that begins at a memory page, as ``O_DIRECT`` requires, in huge pages if possible."""
    memory = mmap.mmap(-1, size)
    memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8)


def _members(source: Path) -> Iterator[tuple[Path, zipfile.ZipInfo]]:
    for path in sorted(source.glob("*.zip")):
        with zipfile.ZipFile(path) as archive:
            yield from ((path, info) for info in archive.infolist() if info.filename.endswith(".raw"))


if __name__ == "__main__":
    main()
