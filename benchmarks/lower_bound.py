"""The least that a build has to do: the members inflated by libdeflate into arrays used again, checked, and written, on two threads.

python -m benchmarks.floor SOURCE OUT cached|direct

Written as programs usually write, or past the system's cache, each array at once from where it is: no format is so free.
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

HEADER = 30


def main() -> None:
    """Inflate and write."""
    source, out, way = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    members = list(_members(source))
    own = threading.local()

    def inflate_and_write(number: int) -> None:
        path, info = members[number]
        if not hasattr(own, "array"):
            own.array = _in_whole_pages(max(each.file_size for _, each in members))
            own.labels = _in_whole_pages(len(own.array) // 2)
        with path.open("rb") as file:
            file.seek(info.header_offset)
            head = file.read(HEADER)
            file.seek(int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little"), 1)
            packed = file.read(info.compress_size)
        array = imagecodecs.deflate_decode(packed, raw=True, out=own.array[: info.file_size])
        assert isal_zlib.crc32(array) == info.CRC
        if path.name.endswith("_2.zip"):
            labels = own.labels[: len(array) // 2]  # masks are stored as bytes
            np.copyto(labels, array.view("<i2"), casting="unsafe")
            array = labels
        flags = os.O_WRONLY | os.O_CREAT | (os.O_DIRECT if way == "direct" else 0)
        with os.fdopen(os.open(out / f"{number}.raw", flags), "wb", buffering=0) as file:
            file.write(array.data)

    out.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(inflate_and_write, range(len(members))))


def _in_whole_pages(size: int) -> NDArray[np.uint8]:
    memory = mmap.mmap(-1, size)
    memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8)


def _members(source: Path) -> Iterator[tuple[Path, zipfile.ZipInfo]]:
    for path in sorted(source.glob("*.zip")):
        with zipfile.ZipFile(path) as archive:
            yield from ((path, info) for info in archive.infolist() if info.filename.endswith(".raw"))


if __name__ == "__main__":
    main()
