"""Prefetching a patch of a volume that is not in the page cache reads only the pages of the patch."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import time

import numpy as np
import pytest

from lung_nodule_ct.system.memory import prefetch_pages

SHAPE = (40, 256, 256)


@pytest.fixture
def uncached(tmp_path) -> np.ndarray:
    """A memory-mapped volume on the disk, of which no page is in memory."""
    path = tmp_path / "volume"
    path.write_bytes(np.arange(np.prod(SHAPE), dtype="<u4").astype("<i2").tobytes())
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        volume = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), "<i2").reshape(SHAPE)
    if resident(volume).any():
        pytest.skip("this file system keeps its pages in memory")
    return volume


def resident(volume: np.ndarray) -> np.ndarray:
    """Whether each page is in memory, according to the system."""
    pages = np.zeros(-(-volume.nbytes // mmap.PAGESIZE), np.uint8)
    failure = ctypes.CDLL(None).mincore(
        ctypes.c_void_p(volume.ctypes.data), ctypes.c_size_t(volume.nbytes), ctypes.c_void_p(pages.ctypes.data)
    )
    assert failure == 0
    return pages & 1 == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can remove pages from the cache")
def test_only_the_pages_of_a_patch_are_read(uncached) -> None:
    patch = uncached[10:20, 64:128, 32:200]
    prefetch_pages(patch)
    in_patch = np.zeros(uncached.shape, bool)
    in_patch[10:20, 64:128] = True
    patch_pages = in_patch.reshape(-1, mmap.PAGESIZE // 2).any(axis=1)
    end = time.monotonic() + 20
    while not resident(uncached)[patch_pages].all():
        assert time.monotonic() < end, "the pages were not read"
        time.sleep(0.01)
    assert resident(uncached).sum() < 3 * patch_pages.sum() < uncached.nbytes / mmap.PAGESIZE
    assert (patch == np.arange(np.prod(SHAPE), dtype="<u4").astype("<i2").reshape(SHAPE)[10:20, 64:128, 32:200]).all()


@pytest.mark.parametrize("part", [np.s_[:0], np.s_[:, :0], np.s_[::-1], np.s_[3], np.s_[5:6, 2:3, 1:2], np.s_[:]])
def test_any_part_can_be_prefetched(part) -> None:
    prefetch_pages(np.zeros((7, 8, 9), np.int16)[part])
