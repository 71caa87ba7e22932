"""Prefetching a patch of a volume that is not in the page cache reads only the pages of the patch."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import time

import numpy as np
import pytest

from lung_nodule_ct.system import memory
from lung_nodule_ct.system.memory import copy_part, prefetch_pages

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


PARTS = [np.s_[:0], np.s_[:, :0], np.s_[::-1], np.s_[3], np.s_[5:6, 2:3, 1:2], np.s_[:], np.s_[1:4, 2:, 3:8]]


@pytest.mark.parametrize("part", PARTS)
def test_any_part_can_be_prefetched(part) -> None:
    assert prefetch_pages(np.zeros((7, 8, 9), np.int16)[part]) is False


@pytest.mark.parametrize("part", [*PARTS, np.s_[..., ::-1], np.s_[..., ::2], np.s_[:, ::-2, 1:3]])
@pytest.mark.parametrize("dtype", ["i2", "u1", "f4"])
def test_a_copy_is_equal_writable_and_in_c_order(part, dtype) -> None:
    volume = np.arange(7 * 8 * 9).reshape(7, 8, 9).astype(dtype)
    volume.flags.writeable = False
    for array in (volume, volume.transpose(2, 0, 1)):
        copy = copy_part(array[part])
        assert (copy == array[part]).all()
        assert (copy.dtype, copy.shape) == (array.dtype, array[part].shape)
        assert copy.flags.writeable
        assert copy.flags.c_contiguous


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can remove pages from the cache")
def test_pages_are_probed_again_once_a_copy_waited_for_the_disk(uncached, monkeypatch) -> None:
    probed = []
    monkeypatch.setattr(memory, "prefetch_pages", lambda view: probed.append(view) or prefetch_pages(view))
    monkeypatch.setattr(memory, "_recent", memory._RecentCopies())
    monkeypatch.setattr(memory, "_SHORT_NS", 0)
    monkeypatch.setattr(memory, "_SLOW_NS_PER_BYTE", 0)
    memory._recent.waited_for_disk()
    in_memory = np.zeros((7, 8, 9), np.int16)
    for _ in range(30):
        copy_part(in_memory)
    assert len(probed) == 16
    patches = [uncached[start : start + 5, 64:128, 32:200] for start in (0, 20, 30)]
    for patch in patches:
        copy_part(patch)
    assert [id(view) for view in probed[16:]] == [id(patch) for patch in patches[1:]]
